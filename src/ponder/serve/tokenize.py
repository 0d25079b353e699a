"""`/v1/tokenize` and `/v1/detokenize`, in vLLM's shape and under its paths too: what a prompt comes to, before it is
asked."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request as HttpRequest

from ponder.dialogue import Start
from ponder.engine.requests import check_ids
from ponder.sampler.local import LocalSampler
from ponder.serve.bounds import MOST_VALUES, LongText, Name
from ponder.serve.chat.read import read_messages
from ponder.serve.chat.schema import AnyMessage, Efforts, Strict, TokenId
from ponder.serve.errors import ApiError, unsupported
from ponder.serve.state import State, state_of

router = APIRouter()


class TokenizeRequest(Strict):
    """prompt: text, encoded as text whatever it spells. messages: rendered as a chat completion would render them, with
    the beginning of the answer unless add_generation_prompt is off. model: may be left out where there is one."""

    model: Name | None = None
    prompt: LongText | None = None
    messages: Annotated[list[AnyMessage], Field(min_length=1, max_length=4096, fail_fast=True)] | None = None
    reasoning_effort: Efforts | None = None
    add_generation_prompt: bool = True
    add_special_tokens: bool = False
    return_token_strs: bool = False


class Tokens(BaseModel):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeRequest(Strict):
    model: Name | None = None
    tokens: Annotated[list[TokenId], Field(max_length=MOST_VALUES, fail_fast=True)]


class Text(BaseModel):
    prompt: str


@router.post("/v1/tokenize")
@router.post("/tokenize", include_in_schema=False)
def tokenize(body: TokenizeRequest, http: HttpRequest) -> Tokens:
    """The ids of a text or of a conversation."""
    sampler = _local(state_of(http), body.model)
    if (body.prompt is None) == (body.messages is None):
        raise ApiError(400, "give either prompt or messages", param="prompt")
    if body.add_special_tokens:
        raise unsupported("add_special_tokens", "a text is encoded as it is; messages bring their own")
    if body.prompt is not None:
        ids = sampler.tokenizer.encode(body.prompt)
    else:
        ids = list(sampler.format.render(read_messages(body.messages or ()), start=_start(body, sampler)).ids)
    names = [sampler.tokenizer.decode([id]) for id in ids] if body.return_token_strs else None
    return Tokens(count=len(ids), max_model_len=sampler.engine.window, tokens=ids, token_strs=names)


@router.post("/v1/detokenize")
@router.post("/detokenize", include_in_schema=False)
def detokenize(body: DetokenizeRequest, http: HttpRequest) -> Text:
    """The text of ids; control tokens are spelled by their names."""
    sampler = _local(state_of(http), body.model)
    check_ids(body.tokens, sampler.tokenizer.vocab_size, "tokens")
    return Text(prompt=sampler.tokenizer.decode(body.tokens))


def _start(body: TokenizeRequest, sampler: LocalSampler) -> Start:
    if not body.add_generation_prompt:
        return Start.NONE
    thinks = body.reasoning_effort != "none" and sampler.format.phase_tokens.think_close is not None
    return Start.THINK if thinks else Start.DIRECT


def _local(state: State, model: str | None) -> LocalSampler:
    if model is None and len(names := [each.name for each in state.models]) != 1:
        raise ApiError(400, f"model: name the one you mean: {', '.join(names)}", param="model")
    served = state.models.get(model) if model is not None else next(iter(state.models))
    if served.local is None:
        raise unsupported("model", f"{served.name!r} is behind another server, which has its tokens")
    return served.local
