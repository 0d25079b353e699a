"""A completion request as prompts of ids, each with what to sample behind it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ponder.engine.requests import check_prompt
from ponder.sampler.local import LocalSampler
from ponder.sampler.protocol import Request, ToolChoice
from ponder.serve.chat.read import check_sampled, sampling, stops, tenant
from ponder.serve.completions.schema import MOST_PROMPTS, CompletionRequest
from ponder.serve.errors import ApiError, unsupported
from ponder.serve.models import Served
from ponder.serve.settings import Settings
from ponder.types import InvalidRequest, Phase, SamplingParams, ThinkingLimits, WindowExceeded

NEVER = -1e9  # added to a logit


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """request: None: nothing is sampled. top: of so many likeliest ids at each place of the prompt the log-probability
    is told; None: of none."""

    ids: tuple[int, ...]
    request: Request | None
    top: int | None


def read_prompts(body: CompletionRequest, served: Served, settings: Settings, owner: str) -> list[Prompt]:
    """Raises ApiError naming the field that cannot be served as asked."""
    sampler = served.local
    if sampler is None:
        raise unsupported("model", f"{served.name!r} is behind another server: ask it under /v1/chat/completions")
    _refuse(body, settings)
    prompts = _ids(body, sampler)
    if len(prompts) * body.n > MOST_PROMPTS:
        raise ApiError(400, f"n: {len(prompts)} prompts of {body.n} each: allowed are {MOST_PROMPTS} in all", param="n")
    for number, ids in enumerate(prompts):
        where = f"prompt[{number}]" if len(prompts) > 1 else "prompt"
        if not ids:
            raise ApiError(400, f"{where} is empty: there is nothing to go on from", param="prompt")
        if _thinks(ids, sampler):
            raise ApiError(
                400, f"{where} ends inside thinking, which is hidden: ask /v1/chat/completions", param="prompt"
            )
        try:
            check_prompt(ids, sampler.engine.model.config.vocab_size, sampler.engine.window)
        except InvalidRequest as error:
            code = "context_length_exceeded" if isinstance(error, WindowExceeded) else "invalid_value"
            raise ApiError(400, f"{where}: {error}", param="prompt", code=code) from None
    top = body.logprobs if body.echo else None
    params = _params(body, sampler)
    return [
        Prompt(
            ids=ids,
            top=top,
            request=Request(
                prompt=ids,
                params=params,
                start=Phase.ANSWER,
                n=body.n,
                stop=stops(body.stop),
                tool_choice=ToolChoice.NONE,
                seconds=body.deadline or settings.deadline or None,
                tenant=tenant(owner, None),
            )
            if body.max_tokens
            else None,
        )
        for ids in prompts
    ]


def _refuse(body: CompletionRequest, settings: Settings) -> None:
    check_sampled(body, settings)
    if body.best_of not in (None, body.n):
        raise unsupported("best_of", "completions are not ranked here: leave it out, or ask for n")
    if not body.max_tokens and not body.echo:
        raise ApiError(400, "max_tokens is 0, and echo is off: then there is nothing to tell", param="max_tokens")


def _ids(body: CompletionRequest, sampler: LocalSampler) -> list[tuple[int, ...]]:
    """Text is encoded as text, whatever it spells."""
    prompt = body.prompt
    if isinstance(prompt, str):
        return [tuple(sampler.tokenizer.encode(prompt))]
    if isinstance(prompt[0], str):
        return [tuple(ids) for ids in sampler.tokenizer.encode_batch(prompt)]
    each = [prompt] if isinstance(prompt[0], int) else prompt
    return [tuple(ids) for ids in each]


def _thinks(ids: tuple[int, ...], sampler: LocalSampler) -> bool:
    tokens = sampler.format.phase_tokens
    last = next((id for id in reversed(ids) if id in (tokens.think_open, tokens.think_close)), None)
    return last is not None and last == tokens.think_open


def _params(body: CompletionRequest, sampler: LocalSampler) -> SamplingParams:
    ends = sampler.format.phase_tokens.end
    banned = tuple((id, NEVER) for id in sampler.tokenizer.control.values() if id not in ends)
    params = sampling(body)
    return replace(
        params,
        max_tokens=body.max_tokens or None,
        logit_bias=tuple((dict(params.logit_bias) | dict(banned)).items()),
        top_logprobs=body.logprobs or 0,
        thinking=ThinkingLimits(cap=0),
    )
