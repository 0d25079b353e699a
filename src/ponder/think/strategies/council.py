"""Several dialogues of one model work on a question: together in one context, or in turns over one that grows."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Unpack

from ponder.sampler.protocol import Capabilities, NextTurn, Sampler
from ponder.tasks.protocol import Grade
from ponder.think.ask import Ask, AskSettings, Same, checked
from ponder.think.candidates import Candidate, Candidates, candidates_demand
from ponder.think.events import Cut, Event, Noted, Recalled, Vote, Voted
from ponder.think.ledger import Ledger
from ponder.think.memory.layer import fitting_notes, text_tokens
from ponder.think.memory.memory import Memory
from ponder.think.memory.quoting import passages, quoted_block
from ponder.think.samples import Samples, answer_from
from ponder.think.scoring import graded
from ponder.think.strategy import Demand, Strategy, check_inner
from ponder.think.voting import count_votes, margin_of, same_answer
from ponder.types import InvalidRequest, SamplerError

TEMPERATURE = 1.0
ROUNDS = 2
SHARED = 2  # what was said takes at most this part of the window
OWNER = "council"  # of the notes that a run keeps of what no longer fits
OPENING = "{voices} voices answer this together, one after the other. Each hears all that was said before it."
FIRST = "You are voice 1 and speak first: the others go on from what you think and say."
LATER = (
    "You are voice {voice}. Check what was said: keep what is right, put right what is wrong, add what is missing. "
    "Then give the whole answer."
)


class CouncilForm(StrEnum):
    """How the voices of a council speak.

    TOGETHER: at the same time, in one context, token by token; for a model that was taught it, in the local engine.
    TURNS: one after the other, each with a sample that reads what all have said.
    """

    TOGETHER = "together"
    TURNS = "turns"


@dataclass(frozen=True, slots=True)
class CouncilTogether:
    """See `council`: one sample, which may think in that many voices."""

    voices: int
    settings: AskSettings

    @property
    def name(self) -> str:
        return f"council@{self.voices}"

    def demand(self, ask: Ask) -> Demand:
        n = ask.override(**self.settings).n
        return Demand(n, n)

    async def stream(self, ask: Ask, sampler: Sampler, ledger: Ledger) -> AsyncGenerator[Event, None]:
        ask = replace(ask.override(**self.settings), max_voices=self.voices)
        samples = Samples(ask, sampler, ledger, ask.n, are_choices=True, role="council")
        async for event in samples:
            yield event
        yield samples.answer(next(iter(samples.completions), None))


@dataclass(frozen=True, slots=True)
class CouncilInTurns:
    """See `council`."""

    voices: int
    rounds: int
    inner: Strategy | None
    settings: AskSettings

    @property
    def name(self) -> str:
        return f"council@{self.voices}"

    def demand(self, ask: Ask) -> Demand:
        ask = ask.override(**self.settings)
        if isinstance(ask.prompt[0], int):
            raise InvalidRequest(f"{self.name} adds to the question, so it needs a conversation: ids were given")
        return candidates_demand(ask, self.name, self.voices * self.rounds, 1, self.inner, checked=True)

    async def stream(self, ask: Ask, sampler: Sampler, ledger: Ledger) -> AsyncGenerator[Event, None]:
        ask = ask.override(**self.settings).override(next_turn=NextTurn.NONE)
        ask = ask.override(temperature=TEMPERATURE) if ask.temperature is None else ask
        one, turns = candidates_demand(ask, self.name, 1, 1, self.inner, checked=True), self.voices * self.rounds
        chooses, same = ask.verifier is not None or ask.is_judged, ask.same or same_answer
        grades: dict[int, Grade] = {}
        cut: Cut | None = None
        with closing(SharedTalk(self.voices, sampler.capabilities)) as talk:
            for number in range(turns):
                if number and (cut := ledger.cut) is not None:
                    break
                for event in talk.open_turn(ledger.path):
                    yield event
                asked = talk.asked(ask, None if ask.seed is None else ask.seed + number * one.in_all)
                share = ledger.slice(turns - number)
                drawn = Candidates([asked], sampler, share, inner=self.inner, role=talk.role, aside=ask.is_judged)
                try:
                    async for event in drawn:
                        yield event
                    if chooses:
                        async for event in graded(drawn.in_order, grades, ask, sampler, share):
                            yield event
                except SamplerError:
                    if not talk.turns:
                        raise
                    cut = Cut.FAILED
                    break
                finally:
                    share.refund()
                talk.end_turn(drawn.in_order)
                if any(grades[each.sample].solved for each in drawn.in_order if chooses):
                    break
                if talk.voice == 0 and not chooses:
                    votes = talk.votes(same)
                    yield Voted(votes, margin_of(votes), ledger.path)
                    if votes and votes[0].count == self.voices:
                        break
        spoken = [turn.candidate for turn in talk.turns]
        completions, cut = [each.completion for each in spoken], ledger.stopped or cut
        if chooses:
            best = max(spoken, key=lambda each: (grades[each.sample].score, each.sample), default=None)
            yield answer_from(completions, None if best is None else best.completion, cut=cut)
            return
        votes = talk.votes(same)
        if talk.voice:
            yield Voted(votes, margin_of(votes), ledger.path)
        won = next((each.completion for each in spoken if votes and each.sample == votes[0].samples[-1]), None)
        yield answer_from(completions, won, votes=votes, margin=margin_of(votes), cut=cut)


@dataclass(frozen=True, slots=True)
class CouncilTurn:
    """What a voice thought and said in its turn. voice, number: from 0."""

    voice: int
    number: int
    candidate: Candidate

    @property
    def source(self) -> str:
        """As notes name it."""
        return f"voice {self.voice + 1}, turn {self.number + 1}"

    @property
    def views(self) -> tuple[str, str]:
        """How it stands in the prompt of a later turn: whole, and without its thinking."""
        thought, said = self.candidate.completion.reasoning, self.candidate.completion.text
        answer = f"Voice {self.voice + 1} answered:\n{_quoted(said)}"
        return f"Voice {self.voice + 1} thought:\n{_quoted(thought)}\n{answer}" if thought.strip() else answer, answer


@dataclass(slots=True)
class SharedTalk:
    """What the voices of one run have said: the context that they share, and notes of what no longer fits into it.

    turns: that have ended and said something, in their order.
    voice: whose turn it is, from 0.
    """

    voices: int
    capabilities: Capabilities
    turns: list[CouncilTurn] = field(default_factory=list)
    voice: int = 0
    _number: int = 0
    _shown: list[str] = field(default_factory=list)
    _memory: Memory | None = None
    _noted: set[int] = field(default_factory=set)

    @property
    def role(self) -> str:
        """What the turn is for, as the bill names it."""
        return f"voice {self.voice + 1}"

    def open_turn(self, path: str) -> Iterator[Event]:
        """Choose what this turn hears: the newest turns, as far as they fit, and notes of the others that the question
        and the last answer recall."""
        window = self.capabilities.window
        room = None if window is None else window // SHARED
        self._shown, whole = [], set[int]()
        for turn in reversed(self.turns):
            sizes = {view: text_tokens(view, self.capabilities) for view in turn.views}
            view = next((view for view, size in sizes.items() if room is None or size <= room), None)
            if view is None:
                break
            room = None if room is None else room - sizes[view]
            self._shown.insert(0, view)
            if view == turn.views[0]:
                whole.add(turn.number)
        hidden = [turn for turn in self.turns if turn.number not in whole]
        if hidden:
            yield from self._recall(hidden, path)

    def _recall(self, hidden: Sequence[CouncilTurn], path: str) -> Iterator[Event]:
        self._memory = memory = self._memory or Memory()
        for turn in hidden:
            if turn.number not in self._noted:
                self._noted.add(turn.number)
                made = turn.candidate.completion
                texts = passages(f"{made.reasoning}\n\n{made.text}")
                yield Noted(tuple(memory.note(OWNER, text, source=turn.source) for text in texts), path)
        sources = {turn.source for turn in hidden}
        found = memory.recall(OWNER, self.turns[-1].candidate.completion.text)
        fitting = fitting_notes([each for each in found if each.note.source in sources], self.capabilities)
        if fitting:
            yield Recalled(fitting, path)
            self._shown.insert(0, quoted_block([each.note for each in fitting]))

    def asked(self, ask: Ask, seed: int | None) -> Ask:
        """What this turn's voice is asked. All turns begin alike, as far as the same was said before them."""
        words = LATER.format(voice=self.voice + 1) if self.turns else FIRST
        return ask.adding("\n\n".join([OPENING.format(voices=self.voices), *self._shown, words])).override(seed=seed)

    def end_turn(self, said: Sequence[Candidate]) -> None:
        """The turn is over; a voice that said nothing is passed over."""
        self.turns += [CouncilTurn(self.voice, self._number, each) for each in said if _says(each)]
        self._number += 1
        self.voice = self._number % self.voices

    def votes(self, same: Same) -> tuple[Vote, ...]:
        """How the last answers of all voices agree; of equal groups the one that a voice joined last is first, since
        it had heard the others."""
        last = {turn.voice: turn.candidate for turn in self.turns}
        votes = count_votes(sorted(last.values(), key=lambda each: each.sample), same)
        return tuple(sorted(votes, key=lambda vote: (vote.count, vote.samples[-1]), reverse=True))

    def close(self) -> None:
        """Forget the notes."""
        if self._memory is not None:
            self._memory.close()


def _says(candidate: Candidate) -> bool:
    return bool(candidate.completion.text.strip() or candidate.completion.reasoning.strip())


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.strip().splitlines())


def council(
    inner: Strategy | None = None,
    *,
    voices: int = 4,
    how: CouncilForm | str = CouncilForm.TOGETHER,
    rounds: int | None = None,
    **settings: Unpack[AskSettings],
) -> CouncilTogether | CouncilInTurns:
    """`voices` dialogues of one model answer together.

    together: one sample whose thinking opens a council of at most that many voices, which hear each other token by
        token. A model that was taught fewer is refused.
    in turns: one after the other, at temperature 1 by default. Each hears what all have thought and said before it,
        checks it and goes on from it (arXiv 2305.14325). An answer that the ask's verifier or judge accepts ends it,
        and else the one that they grade highest is taken. Without them it ends after a round in which all answers
        agree, and the last answers of all voices vote.
    inner: what takes each turn; None: one sample.
    how: see `CouncilForm`.
    rounds: how often each voice speaks in turns, at most; None: twice.
    settings: hold for all samples, whatever the ask says. Raises InvalidRequest for fewer than two voices or one round,
        and for turns that are described for a council together.
    """
    try:
        form = CouncilForm(how)
    except ValueError:
        raise InvalidRequest(f"how of council must be one of {', '.join(CouncilForm)} (got {str(how)!r})") from None
    if voices < 2 or (rounds is not None and rounds < 1):
        raise InvalidRequest(f"council needs voices of at least 2 and rounds of at least 1 (got {voices}, {rounds})")
    check_inner(inner)
    if form is CouncilForm.TURNS:
        return CouncilInTurns(voices, ROUNDS if rounds is None else rounds, inner, checked(settings))
    if inner is not None or rounds is not None:
        raise InvalidRequest(
            "voices that think together take no turns: leave out rounds and the strategy inside, or set how='turns'"
        )
    return CouncilTogether(voices, checked(settings))
