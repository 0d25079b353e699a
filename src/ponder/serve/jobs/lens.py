"""A look inside the model that answered a job: its answer as the contexts it was thought in, and what a lens draws of
them. Computed when it is asked for, one at a time, in a copy of the weights that is dropped afterwards."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch

from ponder.dialogue.format import Rendered, SpanKind
from ponder.dialogue.messages import Conversation, Message, Part, Reasoning, Role
from ponder.lens.draw import LARGEST, drawn_data
from ponder.model.checkpoint import load_model
from ponder.serve.errors import BadRequest, Conflict, NotFound, QueueFull, Unsupported
from ponder.serve.models import Served
from ponder.serve.responses.convert import read_parts, vocabulary_of
from ponder.serve.responses.service import ResponseService, kept_items
from ponder.serve.responses.turn import ResponseTurn
from ponder.serve.store import StoredItem
from ponder.serve.store.job_records import JobAttempt, StoredJob
from ponder.serve.store.jobs import attempts_of, the_job
from ponder.tokenizer import Tokenizer
from ponder.types import Origin, Phase, Segment

MOST_TOKENS = 4096  # of one context: its attention is a square
MOST_IN_ALL = 32_768
MOST_WAITING = 4
RETRY = 10  # seconds after which a full line is worth another try
_PHASES = {SpanKind.CALL: Phase.TOOL, SpanKind.TEXT: Phase.ANSWER, SpanKind.END: Phase.ANSWER}
CHOSEN = (
    "This is the answer that {strategy} chose, read after the question as it was asked. Its other samples, and what it "
    "asked in other words, are not here."
)


class JobLens:
    """The methods raise NotFound, Conflict for an attempt that has no answer yet, Unsupported for a model whose weights
    are not here."""

    def __init__(self, responses: ResponseService) -> None:
        self._responses = responses
        self._thread = ThreadPoolExecutor(1, "ponder-lens")
        self._waiting = 0

    def close(self) -> None:
        """Begin nothing more. What is being computed is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def data(self, owner: str, id: str, number: int | None = None) -> str:
        """What a lens draws of an attempt's answer, as JSON. number: of the attempt; None: the latest. Raises
        BadRequest for an answer that is too long, QueueFull where others wait already."""
        job, _, response_id = await ended_attempt(self._responses, owner, id, number)
        turn, segments = await response_contexts(self._responses, owner, response_id)
        served, weights = turn.served, turn.served.capabilities.weights
        tokenizer = served.tokenizer
        if weights is None or tokenizer is None:
            raise Unsupported(
                "model",
                f"the lens is not available for {served.name!r}: its weights are on another server, or were changed "
                "after they were loaded",
            )
        lengths = [len(each.prompt_ids) + len(each.ids) for each in segments]
        longest, in_all = max(lengths), sum(lengths)
        if longest > MOST_TOKENS or in_all > MOST_IN_ALL:
            raise BadRequest(
                f"the answer is too long for the lens ({longest:,} tokens in one context, {in_all:,} in all): it reads "
                f"{MOST_TOKENS:,} and {MOST_IN_ALL:,}; `ponder inspect` has no such bound"
            )
        if self._waiting >= MOST_WAITING:
            raise QueueFull(RETRY)
        notes = [CHOSEN.format(strategy=turn.task.strategy.name)] if turn.task.strategy.name != "direct" else []
        work = partial(_drawn, weights, tokenizer, segments, title=job.title, name=served.name, notes=notes)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            self._waiting -= 1


async def ended_attempt(
    responses: ResponseService, owner: str, id: str, number: int | None
) -> tuple[StoredJob, JobAttempt, str]:
    """A job, an attempt of it that has ended, and the id of its response. number: None: the latest. Raises NotFound,
    Conflict."""
    job, attempts = await responses.store.read(lambda c: (the_job(c, owner, id), attempts_of(c, id)))
    found = attempts[-1] if number is None else next((each for each in attempts if each.number == number), None)
    if found is None:
        raise NotFound(f"job '{id}' has no attempt {number}: it has {len(attempts)}")
    if found.response_id is None or found.ended_at is None:
        raise Conflict(f"attempt {found.number} has not ended: look inside it when it has", code="wrong_state")
    return job, found, found.response_id


async def response_contexts(responses: ResponseService, owner: str, id: str) -> tuple[ResponseTurn, list[Segment]]:
    """A background response as it was asked, and the contexts of its answer, token for token. Log-probabilities are
    not kept: they are NaN. Raises NotFound, Conflict where there is no answer, Unsupported for a model without tokens.
    """
    kept = await responses.store.response(owner, id)
    items = kept_items(kept)
    if not items or not all(item.hidden for item in items):
        raise Conflict("this attempt has no answer to look into", code="wrong_state")
    turn = await responses.turn_of(kept)
    if turn.served.capabilities.format is None:
        raise Unsupported("model", f"the lens is not available for {kept.model!r}, which runs on another server")
    return turn, answered_contexts(turn, items, kept.body.get("dropped_turns", 0))


def answered_contexts(turn: ResponseTurn, items: Sequence[StoredItem], dropped: int) -> list[Segment]:
    """The answer of a response as the contexts it was thought in.

    items: its output.
    dropped: how many messages did not fit into the prompt.
    """
    served, ask = turn.served, turn.task.ask
    format = served.capabilities.format
    assert format is not None
    parts = _parts(items, served)
    thinks = ask.request(served.capabilities, n=1).params.thinking.cap != 0
    if thinks and format.phase_tokens.think_close is not None and not isinstance(parts[0], Reasoning):
        parts.insert(0, Reasoning("", ()))  # a thought that was closed at once has no item
    conversation = (*_fitting(ask.prompt, dropped), Message(Role.ASSISTANT, tuple(parts)))  # type: ignore[arg-type]
    rendered = format.contexts(conversation, policy=ask.policy, tools=ask.tools)
    cut = items[-1].body.get("status") == "incomplete"
    return [_segment(each, cut=cut and each is rendered[-1]) for each in rendered]


def _parts(items: Sequence[StoredItem], served: Served) -> list[Part]:
    parts: list[Part] = []
    for item in items:
        assert item.hidden is not None
        parts += read_parts(item.hidden["parts"], keep_ids=item.hidden["vocabulary"] == vocabulary_of(served))
    return parts


def _fitting(conversation: Conversation, dropped: int) -> Conversation:
    """The messages that the prompt held: the oldest turns after the instructions were dropped."""
    head = 1 if conversation[0].role in (Role.SYSTEM, Role.DEVELOPER) else 0
    return (*conversation[:head], *conversation[head + dropped :])


def _segment(rendered: Rendered, *, cut: bool) -> Segment:
    """cut: the answer was cut off, so that what closes it was not sampled."""
    spans = list(rendered.spans)
    while cut and spans[-1].kind in (SpanKind.END, SpanKind.CLOSE):
        spans.pop()
    begin = next(span.begin for span in spans if span.sampled)
    end = spans[-1].end
    phases = tuple(
        _PHASES.get(span.kind, Phase.THINK) for span in spans for _ in range(max(0, span.end - max(begin, span.begin)))
    )
    return Segment(
        prompt_ids=rendered.ids[:begin],
        ids=rendered.ids[begin:end],
        logprobs=(math.nan,) * (end - begin),
        phases=phases,
        origins=(Origin.SAMPLED,) * (end - begin),
        weights_version=0,
    )


def _drawn(
    weights: str, tokenizer: Tokenizer, segments: Sequence[Segment], *, title: str, name: str, notes: Sequence[str]
) -> str:
    model = load_model(weights, dtype=torch.float32)
    told = [*notes, "All numbers are computed in float32. Which tokens the engine put in itself is not kept."]
    return drawn_data(model, tokenizer, segments, title=title, name=name, notes=told, largest=LARGEST)
