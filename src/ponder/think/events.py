"""What a strategy streams: typed events, the last of which holds the `Answer`; and views of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from ponder.dialogue.messages import Message, Reasoning, Text
from ponder.sampler.protocol import CallDelta, Completion, Delta, Done, Streamed
from ponder.tasks.protocol import Grade
from ponder.think.ask import Ask
from ponder.think.memory.notes import Note, Recollection
from ponder.types import Phase, StopReason, Usage

NOTHING = Usage()


class Cut(StrEnum):
    """Why an answer was given before its strategy was done."""

    SECONDS = "seconds"  # the deadline, or the budget's seconds
    TOKENS = "tokens"  # the budget's tokens are spent
    SAMPLES = "samples"  # the budget's samples are spent
    CANCELLED = "cancelled"  # by the caller
    DECIDED = "decided"  # the strategy around it needs no more
    FAILED = "failed"  # the sampler


@dataclass(frozen=True, slots=True)
class Vote:
    """An answer, and the samples that agree on it, the earliest first. weight: of the samples together; None: their
    number."""

    answer: str
    samples: tuple[int, ...]
    weight: float | None = None

    @property
    def count(self) -> int:
        return len(self.samples)

    @property
    def size(self) -> float:
        """What the answer weighs in the vote."""
        return self.count if self.weight is None else self.weight


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a strategy gives back.

    message: what the next turn carries over: the visible text with the ids it was sampled as, the reasoning, calls.
    usage: the whole bill, over every sample and every check.
    completions: those that the answer was chosen from, or, for `n` above 1, the answers; in the order of their samples.
    votes, margin: of a vote, the largest first; (first - second) / voters. None: there was no vote.
    cut: set where the strategy was ended early; the answer is then the best there was.
    dropped_turns: how many messages were left out of the prompt, because the window is full.
    usage_estimated: some of the usage is not as a server counted it, or missing.
    events: all events but the pieces of text: the trace.
    """

    message: Message
    stop_reason: StopReason = StopReason.END
    usage: Usage = NOTHING
    completions: tuple[Completion, ...] = ()
    votes: tuple[Vote, ...] = ()
    margin: float | None = None
    cut: Cut | None = None
    dropped_turns: int = 0
    usage_estimated: bool = False
    events: tuple[Event, ...] = ()

    @property
    def text(self) -> str:
        return self.message.text

    @property
    def reasoning(self) -> str:
        return self.message.reasoning

    @property
    def unbilled(self) -> int:
        """Samples that began and never came to an end: what they cost is not in `usage`."""
        return sum((type(each) is Started) - (type(each) is Done) for each in self.events)


@dataclass(frozen=True, slots=True)
class Asked:
    """The strategy begins."""

    ask: Ask
    strategy: str


@dataclass(frozen=True, slots=True)
class Started:
    """Sample number `sample` of the run begins.

    choice: which of the answer's choices it is, where that is known beforehand; None: it is a candidate.
    strategy: who draws it: the names from the outermost strategy in, with a slash between them.
    role: what it is for.
    model: the name of the sampler that draws it. parameters: how many its model has; None: not known.
    """

    sample: int
    choice: int | None = None
    strategy: str = ""
    role: str = "sample"
    model: str = ""
    parameters: int | None = None


@dataclass(frozen=True, slots=True)
class Graded:
    """What a verifier made of a sample. strategy: see `Started`."""

    sample: int
    grade: Grade
    strategy: str = ""


@dataclass(frozen=True, slots=True)
class Voted:
    """How the samples agree, the largest group first. strategy: see `Started`."""

    votes: tuple[Vote, ...]
    margin: float
    strategy: str = ""


@dataclass(frozen=True, slots=True)
class Planned:
    """What a strategy is about to do, step by step or way by way.

    strategy: see `Started`.
    """

    steps: tuple[str, ...]
    strategy: str = ""


@dataclass(frozen=True, slots=True)
class Recalled:
    """Notes that stand in the prompt, the best first. strategy: see `Started`."""

    found: tuple[Recollection, ...]
    strategy: str = ""


@dataclass(frozen=True, slots=True)
class Noted:
    """What was kept of the turn. strategy: see `Started`."""

    notes: tuple[Note, ...]
    strategy: str = ""


@dataclass(frozen=True, slots=True)
class Stopped:
    """A strategy was ended early. strategy: see `Started`. why: what failed."""

    cut: Cut
    strategy: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Answered:
    """The end of the stream."""

    answer: Answer


# A sampler's pieces are events as they are: their `index` is the number of the sample.
PIECES = (Delta, CallDelta, Done)
Event = Asked | Started | Delta | CallDelta | Done | Graded | Voted | Planned | Recalled | Noted | Stopped | Answered


def bill(events: Iterable[Event]) -> Usage:
    """What all samples and checks cost together."""
    return sum(bills(events).values(), Usage())


VERIFIER = "verifier"


class Account(NamedTuple):
    """What a part of the bill is for. strategy, role, model: as in `Started`; of a verifier no model is known."""

    strategy: str
    role: str
    model: str


def bills(events: Iterable[Event]) -> dict[Account, Usage]:
    """The bill by strategy, role and model; what verifiers cost has the role "verifier"."""
    of: dict[int, Account] = {}
    found: dict[Account, Usage] = {}
    for event in events:
        if type(event) is Started:
            of[event.sample] = Account(event.strategy, event.role, event.model)
        elif type(event) is Done:
            key = of[event.index]
            found[key] = found.get(key, NOTHING) + event.completion.usage
        elif type(event) is Graded:
            key = Account(event.strategy, VERIFIER, "")
            found[key] = found.get(key, NOTHING) + event.grade.usage
    return {key: usage for key, usage in found.items() if usage != NOTHING}


async def pieces(events: AsyncIterator[Event]) -> AsyncGenerator[Streamed, None]:
    """The answer's choices, as a sampler streams them. They come live where it is known beforehand which sample is
    which choice, and as a whole at the end where the strategy has to choose. A choice is billed with what was spent on
    other samples and checks before its end."""
    choices: dict[int, int] = {}
    spent = NOTHING
    async for event in events:
        if isinstance(event, PIECES):
            choice = choices.get(event.index)
            if choice is None:
                spent += event.completion.usage if isinstance(event, Done) else NOTHING
                continue
            if isinstance(event, Done) and spent != NOTHING:
                completion = replace(event.completion, usage=event.completion.usage + spent)
                event, spent = replace(event, completion=completion), NOTHING
            yield event if choice == event.index else replace(event, index=choice)
        elif isinstance(event, Graded):
            spent += event.grade.usage
        elif isinstance(event, Started):
            if event.choice is not None:
                choices[event.sample] = event.choice
        elif isinstance(event, Answered) and not choices:
            for piece in as_pieces(event.answer):
                yield piece


def as_pieces(answer: Answer) -> Iterable[Streamed]:
    """A whole answer, as a sampler would stream its one choice."""
    parts = answer.message.parts
    for thought in (part for part in parts if isinstance(part, Reasoning)):
        yield from thought_pieces(thought)
    for text in (part for part in parts if isinstance(part, Text)):
        if text.text:
            yield Delta(0, Phase.ANSWER, text.text, refusal=text.refusal)
    yield Done(0, completion_of(answer))


def thought_pieces(thought: Reasoning, index: int = 0, *, pieces: int = 1) -> Iterable[Delta]:
    """A part of thinking, as a sampler would stream it: a council voice by voice."""
    for number, voice in enumerate(thought.voices):
        yield Delta(index, Phase.THINK, voice.text, pieces=pieces, voice=number)
    if not thought.voices:
        yield Delta(index, Phase.THINK, thought.text, state=thought.state, pieces=pieces)


def completion_of(answer: Answer) -> Completion:
    """An answer as a completion, with the whole bill of what was spent on it."""
    return Completion(
        message=answer.message,
        stop_reason=answer.stop_reason,
        usage=answer.usage,
        dropped_turns=answer.dropped_turns,
        usage_estimated=answer.usage_estimated,
    )
