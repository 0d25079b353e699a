"""One answer, thought about as long as the effort allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ponder.dialogue.messages import Message
from ponder.sampler.protocol import Completion, Delta, Sampler
from ponder.think.collect import Collected, Sampling, collect
from ponder.think.protocol import Question, check_budget
from ponder.types import Answer, Budget, Effort, Phase, StopReason, ThinkingLimits


@dataclass(frozen=True, slots=True)
class Direct:
    """See `direct`."""

    sampling: Sampling
    name: str = "direct"

    async def __call__(self, question: Question, sampler: Sampler, budget: Budget) -> Answer:
        return await self.listened(question, sampler, budget, None)

    async def listened(
        self, question: Question, sampler: Sampler, budget: Budget, listen: Callable[[Delta], None] | None
    ) -> Answer:
        """The answer, its pieces handed to `listen` as they come."""
        check_budget(budget)
        request = replace(self.sampling.request(question, sampler, budget, 1), next_turn=question.next_turn)
        collected = await collect(sampler, request, budget.seconds, listen)
        if 0 in collected.finished:
            return answer_of(collected.finished[0])
        return unfinished(collected)


def direct(
    effort: Effort | str | None = None,
    *,
    temperature: float = 0.0,
    seed: int | None = None,
    max_tokens: int | None = None,
    thinking: ThinkingLimits | int | None = None,
    answer_room: int | None = None,
) -> Direct:
    """One sample, greedy unless told otherwise.

    effort: None: medium, or an endpoint's own default. thinking: limits in tokens instead of an effort, or just the
    cap: so many THINK tokens over all contexts of a folded thought, 0 for none; answer_room: tokens kept for the answer
    beside them (None: as many as an effort keeps). Raises InvalidRequest for both an effort and `thinking`.
    """
    return Direct(
        Sampling.of(
            effort, thinking, answer_room=answer_room, max_tokens=max_tokens, temperature=temperature, seed=seed
        )
    )


def answer_of(completion: Completion, **trace: object) -> Answer:
    """A completion as an answer. The trace keeps the message itself, whose ids the next turn renders verbatim."""
    told = {"message": completion.message, "dropped_turns": completion.dropped_turns, **trace}
    if completion.usage_estimated:
        told["usage_estimated"] = True
    return Answer(
        text=completion.text,
        reasoning=completion.reasoning,
        stop_reason=completion.stop_reason,
        usage=completion.usage,
        trace=told,
    )


def unfinished(collected: Collected) -> Answer:
    """What was said before the time was up. Its tokens were not reported: the bill is empty and the trace says so."""
    texts = collected.partial.get(0, {})
    text, reasoning = texts.get(Phase.ANSWER, ""), texts.get(Phase.THINK, "")
    trace = {"message": Message.assistant(text, reasoning), "cut": collected.cut, "unbilled": 1}
    return Answer(text=text, reasoning=reasoning, stop_reason=StopReason.ABORTED, trace=trace)
