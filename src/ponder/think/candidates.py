"""Answers to one ask to choose from: samples, or answers of another strategy, a few under way at a time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

from ponder.sampler.protocol import Completion, Done, NextTurn, Sampler
from ponder.think.ask import Ask
from ponder.think.events import Answer, Answered, Cut, Event, Vote
from ponder.think.ledger import Ledger
from ponder.think.runs import Runs
from ponder.think.samples import Samples, answer_from
from ponder.think.strategies.direct import direct
from ponder.think.strategy import Demand, Strategy, check_one_answer
from ponder.types import Usage

DIRECT = direct()
AT_ONCE = 4  # in flight: more waste more at an early stop (docs/thinking.md)


@dataclass(frozen=True, slots=True)
class Candidate:
    """An answer.

    sample: the number of the sample that it is of.
    index: which of the asks it answers, from 0.
    """

    sample: int
    completion: Completion
    index: int = 0


Enough = Callable[[Sequence[Candidate]], bool]


class Candidates:
    """Draws answers and keeps them in the order of their index, whichever is finished first: iterate over its events.

    asks: one for each candidate.
    inner: what answers them; None: a sample each, all by one request where they need not come one after the other.
    at_once: how many are under way together.
    enough: called with the candidates up to the first that is missing, each time there is one more; True: no more are
        wanted. What is under way is then stopped, and what else has finished does not count.
    role: what samples drawn by one request are for, see `Started`.
    aside: half of what the ledger has left is kept for a judge until all are drawn.
    in_order: the candidates that count. arrived: those that have finished so far, in the order in which they did.
    """

    def __init__(
        self,
        asks: Sequence[Ask],
        sampler: Sampler,
        ledger: Ledger,
        *,
        inner: Strategy | None = None,
        at_once: int = AT_ONCE,
        enough: Enough | None = None,
        role: str = "sample",
        aside: bool = False,
    ) -> None:
        self.in_order: list[Candidate] = []
        self.arrived: list[Candidate] = []
        self.decided = False
        ledger = ledger.slice(2) if aside else ledger
        self._asks, self._sampler, self._ledger, self._enough, self._aside = asks, sampler, ledger, enough, aside
        self._inner, self._at_once, self._role = inner, at_once, role
        self._runs = Runs(sampler, ledger, self._ended)
        self._begun = 0
        self._cut: Cut | None = None
        self._finished: dict[int, Completion] = {}
        self._numbers: dict[int, int] = {}  # samples by the identity of their messages
        self._out_of_order: dict[int, Candidate | None] = {}
        self._next = 0

    async def __aiter__(self) -> AsyncGenerator[Event, None]:
        """Raises SamplerError where no candidate came of any run."""
        alike = all(each == self._asks[0] for each in self._asks)
        if self._inner is None and alike and len(self._asks) <= self._at_once:
            async for event in self._by_one_request():
                yield event
            self._give_back()
            return
        self._fill()
        async for event in self._runs:
            if type(event) is Done:
                self._finished[event.index] = event.completion
                self._numbers[id(event.completion.message)] = event.index
            yield event
        self._take_the_rest()
        self._give_back()
        if self._runs.error is not None and not self.in_order:
            raise self._runs.error

    def _give_back(self) -> None:
        if self._aside:
            self._ledger.refund()

    async def _by_one_request(self) -> AsyncGenerator[Event, None]:
        samples = Samples(self._asks[0], self._sampler, self._ledger, len(self._asks), role=self._role)
        async for event in samples:
            if type(event) is Done:
                self.arrived.append(Candidate(event.index, event.completion, event.index - samples.first))
            yield event
        self._cut, self._finished = samples.cut, samples.finished
        self.in_order = sorted(self.arrived, key=lambda each: each.sample)

    def _fill(self) -> None:
        while self._runs.under_way < self._at_once and self._begun < len(self._asks) and not self.decided:
            if self._ledger.cut is not None:
                self._cut = self._ledger.cut
                return
            places = min(self._at_once - self._runs.under_way, len(self._asks) - self._begun)
            ask = _seeded(self._asks[self._begun], self._begun, self._inner)
            self._runs.start(self._inner or DIRECT, ask, parts=places, nested=self._inner is not None)
            self._begun += 1

    def _ended(self, number: int) -> None:
        answer = self._runs.answers.get(number)
        self._out_of_order[number] = candidate = None if answer is None else self._candidate(answer, number)
        if candidate is not None:
            self.arrived.append(candidate)
        while self._next in self._out_of_order and not self.decided:
            self._count(self._out_of_order.pop(self._next))
            self._next += 1
        self._fill()

    def _count(self, candidate: Candidate | None) -> None:
        if candidate is None:
            return
        self.in_order.append(candidate)
        if self._enough is not None and self._enough(self.in_order):
            self.decided = True
            self._runs.stop_all()

    def _candidate(self, answer: Answer, index: int) -> Candidate:
        number = self._numbers.get(id(answer.message), -1)
        own = Completion(message=answer.message, stop_reason=answer.stop_reason, usage=Usage())
        return Candidate(number, self._finished.get(number, own), index)

    def _take_the_rest(self) -> None:
        """Candidates after one that never came: they count where nothing was decided."""
        for number in sorted(self._out_of_order):
            candidate = self._out_of_order.pop(number)
            if candidate is not None and not self.decided:
                self.in_order.append(candidate)

    @property
    def cut(self) -> Cut | None:
        """Why there are fewer than were asked for. None: no more were wanted."""
        return self._ledger.stopped or (None if self.decided else self._cut)

    def answer(
        self, chosen: Candidate | None, *, votes: tuple[Vote, ...] = (), margin: float | None = None
    ) -> Answered:
        """The end of a strategy whose answer is one of the candidates. None: the first of them."""
        made = None if chosen is None else chosen.completion
        completions = [each.completion for each in self.in_order]
        return answer_from(completions, made, votes=votes, margin=margin, cut=self.cut)


def candidates_demand(
    ask: Ask, name: str, samples: int, at_once: int, inner: Strategy | None, *, checked: bool = False
) -> Demand:
    """What drawing candidates takes. checked: whether each is graded, which takes a sample more where a model does it.
    Raises InvalidRequest for an ask that has more than one answer."""
    check_one_answer(ask, name)
    judged = samples if checked and ask.is_judged else 0
    if inner is None:
        return Demand(min(samples, at_once), samples + judged)
    each = inner.demand(ask)
    return Demand(min(samples, at_once) * each.at_once, samples * each.in_all + judged, 1 + each.depth)


def _seeded(ask: Ask, index: int, inner: Strategy | None) -> Ask:
    """The ask of one candidate: seeds that no other one uses, and no next turn, which the answer alone has."""
    ask = ask.override(next_turn=NextTurn.NONE)
    if ask.seed is None:
        return ask
    return ask.override(seed=ask.seed + index * (1 if inner is None else inner.demand(ask).in_all))
