"""A job that goes on from another token of an answer: the strategy that its first attempt runs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, replace

from ponder.dialogue.format import Format
from ponder.dialogue.messages import Message, Reasoning, Start, Text
from ponder.lens.branch import Branch, branch_at
from ponder.sampler.protocol import Completion, Delta, Done, NextTurn, Sampler
from ponder.serve.answering import DIRECT
from ponder.serve.errors import BadRequest
from ponder.serve.jobs.lens import response_contexts
from ponder.serve.responses.service import ResponseService
from ponder.serve.store.records import Json
from ponder.think.ask import Ask
from ponder.think.events import Answered, Event, Started, thought_pieces
from ponder.think.ledger import Ledger
from ponder.think.strategy import Demand
from ponder.types import InvalidRequest, Phase


@dataclass(frozen=True, slots=True)
class BranchedAnswer:
    """A strategy: one sample that goes on from the beginning of another answer. Its message holds that beginning too.

    start: how the answer was begun.
    """

    branch: Branch
    format: Format
    start: Start
    name: str = "branch"

    def demand(self, ask: Ask) -> Demand:
        return Demand(1, 1)

    async def stream(self, ask: Ask, sampler: Sampler, ledger: Ledger) -> AsyncGenerator[Event, None]:
        declared = [tool.name for tool in ask.tools]
        assert self.branch.phase is not None
        going_on = replace(ask, prompt=self.branch.prompt, start=self.branch.phase, next_turn=NextTurn.NONE)
        async for event in DIRECT.stream(going_on, sampler, ledger):
            if type(event) is Started:
                yield event
                for piece in _pieces(event.sample, self._message((), declared)):
                    yield piece
            elif type(event) is Done:
                yield replace(event, completion=self._whole(event.completion, declared))
            elif type(event) is Answered:
                answer = event.answer
                completions = tuple(self._whole(each, declared) for each in answer.completions)
                message = completions[0].message if completions else answer.message
                yield Answered(replace(answer, message=message, completions=completions))
            else:
                yield event

    def _whole(self, completion: Completion, declared: list[str]) -> Completion:
        after = tuple(id for segment in completion.segments for id in segment.ids)
        return replace(completion, message=self._message(after, declared))

    def _message(self, after: tuple[int, ...], declared: list[str]) -> Message:
        return self.format.parse((*self.branch.begun, *after), start=self.start, declared=declared)


def _pieces(sample: int, message: Message) -> Iterator[Delta]:
    """What is there already, as pieces of text."""
    for part in message.parts:
        if isinstance(part, Reasoning) and (part.voices or part.text):
            yield from thought_pieces(part, sample, pieces=0)
        elif isinstance(part, Text) and part.text:
            yield Delta(sample, Phase.ANSWER, part.text, pieces=0)


async def branched_answer(responses: ResponseService, owner: str, asked: Json) -> BranchedAnswer:
    """The strategy that goes on from another token.

    asked: `response_id`, and `place` and `token` in its last context.
    Raises NotFound where the response is gone, Conflict, Unsupported, BadRequest for a place or a token that nothing
    can go on from.
    """
    turn, segments = await response_contexts(responses, owner, asked["response_id"])
    served = turn.served
    tokenizer, format = served.capabilities.tokenizer, served.capabilities.format
    assert tokenizer is not None
    assert format is not None
    place, token = asked["place"], asked["token"]
    try:
        branch = branch_at(segments, place, token, tokenizer, format.phase_tokens, f"token {token} at place {place}")
    except InvalidRequest as error:
        raise BadRequest(str(error), param="place", code="invalid_value") from None
    if branch.phase is None:
        raise BadRequest(
            f"token {token} ends the answer: nothing is left to go on with", param="token", code="invalid_value"
        )
    if segments[-1].phases[branch.kept] is Phase.TOOL:
        raise BadRequest("a call of a tool cannot be gone on from: take a place before it", param="place")
    thinks = segments[0].phases[0] is Phase.THINK
    return BranchedAnswer(branch, format, Start.THINK if thinks else Start.DIRECT)
