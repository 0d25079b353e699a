"""The steps of a thought: where each begins, how sure the model was of it, and how to go on from one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ponder.dialogue.messages import Message, Part, Reasoning, ReasoningPolicy, Text
from ponder.sampler.protocol import Capabilities, Completion
from ponder.think.ask import Ask
from ponder.types import Origin, Phase, Segment

if TYPE_CHECKING:
    from ponder.dialogue.format import Format


@dataclass(frozen=True, slots=True)
class ThoughtStep:
    """A line of thinking.

    first, end: its tokens in the segment, `end` excluded.
    text: what they say.
    sureness: the smallest log-probability of its sampled tokens; 0 where it has none.
    """

    first: int
    end: int
    text: str
    sureness: float


def steps_of(completion: Completion, capabilities: Capabilities) -> tuple[ThoughtStep, ...]:
    """The steps of the last context of a completion's thinking. Empty where its tokens or texts are not known."""
    segment, tokenizer = completion.segment, capabilities.tokenizer
    if segment is None or tokenizer is None:
        return ()
    thought = sum(phase is Phase.THINK for phase in segment.phases)  # thinking stands first in a segment
    if capabilities.format is not None and thought and segment.ids[thought - 1] == _close(capabilities.format):
        thought -= 1
    steps: list[ThoughtStep] = []
    first = 0
    for place in range(thought):
        if "\n" in tokenizer.decode(segment.ids[place : place + 1]) or place == thought - 1:
            steps.append(_step(segment, first, place + 1, tokenizer.decode(segment.ids[first : place + 1])))
            first = place + 1
    return tuple(steps)


def _close(format: Format) -> int | None:
    return format.phase_tokens.think_close


def _step(segment: Segment, first: int, end: int, text: str) -> ThoughtStep:
    places = range(first, end)
    sampled = [segment.logprobs[place] for place in places if segment.origins[place] is Origin.SAMPLED]
    return ThoughtStep(first, end, text, min(sampled, default=0.0))


def find_step(steps: Sequence[ThoughtStep], wrong: str) -> ThoughtStep | None:
    """The first step that holds these words. None: none does, or there are no words."""
    return next((step for step in steps if wrong and wrong in step.text), None)


def go_on_from(ask: Ask, completion: Completion, step: ThoughtStep, capabilities: Capabilities) -> Ask:
    """The same ask with everything before `step` thought already: its tokens stand in the prompt, so their pages are
    found in the cache, and count against the limits."""
    segment = completion.segment
    assert segment is not None
    limits = ask.request(capabilities, n=1).params.thinking
    cap = None if limits.cap is None else max(1, limits.cap - step.first)
    return replace(
        ask,
        prompt=(*segment.prompt_ids, *segment.ids[: step.first]),
        start=Phase.THINK,
        effort=None,
        thinking=replace(limits, cap=cap, floor=max(0, limits.floor - step.first)),
        min_thinking=0,
        max_tokens=None if ask.max_tokens is None else max(1, ask.max_tokens - step.first),
        policy=ReasoningPolicy.CURRENT_TURN,
    )


def with_thought(completion: Completion, before: str) -> Completion:
    """A completion that went on from a thought, with all of its reasoning."""
    message = completion.message
    rest: tuple[Part, ...] = tuple(part for part in message.parts if not isinstance(part, Reasoning))
    whole = Message(message.role, (Reasoning(before + message.reasoning), *(rest or (Text(""),))), message.name)
    return replace(completion, message=whole)
