"""A search over the steps of a thought: what goes well is gone on from, in several ways."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from typing import Unpack

from ponder.sampler.protocol import NextTurn, Sampler
from ponder.tasks.protocol import Grade
from ponder.think.ask import Ask, AskSettings, checked
from ponder.think.candidates import Candidate, Candidates, candidates_demand
from ponder.think.events import Cut, Event
from ponder.think.ledger import Ledger
from ponder.think.samples import answer_from
from ponder.think.scoring import check_verifier, grade_thought, graded, likelihoods
from ponder.think.steps import steps_of, with_thought
from ponder.think.strategy import Demand
from ponder.think.tree import SearchMethod, ThoughtNode, ThoughtTree
from ponder.types import InvalidRequest, SamplerError

TEMPERATURE = 1.0
VALUES = ("verifier", "likelihood")


@dataclass(frozen=True, slots=True)
class StepSearch:
    """See `search`."""

    method: SearchMethod
    width: int
    branch: int
    depth: int
    value: str | None
    settings: AskSettings

    @property
    def name(self) -> str:
        return f"search@{self.width * self.branch * self.depth}"

    def demand(self, ask: Ask) -> Demand:
        ask = self._asked(ask)
        if self.value == "verifier":
            check_verifier(ask, self.name, ", or set value='likelihood'")
        at_once = self.branch if self.method is SearchMethod.MCTS else self.branch * self.width
        in_all = self.width * self.branch * self.depth
        return candidates_demand(ask, self.name, in_all, at_once, None, checked=self._uses_verifier(ask))

    def _asked(self, ask: Ask) -> Ask:
        """What each answer is asked. Raises InvalidRequest where they would all be the same."""
        ask = ask.override(**self.settings).override(next_turn=NextTurn.NONE)
        _check_temperature(ask.temperature)
        return ask.override(temperature=TEMPERATURE) if ask.temperature is None else ask

    async def stream(self, ask: Ask, sampler: Sampler, ledger: Ledger) -> AsyncGenerator[Event, None]:
        ask, capabilities = self._asked(ask), sampler.capabilities
        if capabilities.tokenizer is None:
            raise InvalidRequest(
                f"{self.name} goes on from the tokens of a thought ({sampler.name} gives none): use a local model, or "
                "best_of"
            )
        tree = ThoughtTree(ask, self.method, self.width, self.branch)
        rounds = self.depth * (self.width if self.method is SearchMethod.MCTS else 1)
        tries: list[Candidate] = []
        grades: dict[int, Grade] = {}
        begun, cut = 0, None
        for _ in range(rounds):
            nodes = tree.pick()
            if not nodes or cut is not None or self._is_solved(ask, grades):
                break
            if tries and ledger.cut is not None:
                cut = ledger.cut
                break
            seed = None if ask.seed is None else ask.seed + begun
            asks = [node.asked.override(seed=seed) for node in nodes]
            drawn, begun = self._drawn(asks, ask, sampler, ledger), begun + len(asks)
            try:
                async for event in drawn:
                    yield event
                    async for check in self._valued(_whole(drawn.arrived, nodes), grades, ask, sampler, ledger):
                        yield check
            except SamplerError:
                if not tries:
                    raise
                cut = Cut.FAILED
                break
            async for check in self._valued(_whole(drawn.in_order, nodes), grades, ask, sampler, ledger):
                yield check
            for each in drawn.in_order:
                node, value = nodes[each.index], grades[each.sample]
                if self._uses_verifier(ask) and (steps := steps_of(each.completion, capabilities)):
                    value = await grade_thought(node.before + steps[0].text, ask, value)
                tree.add(node, each.completion, value.score, capabilities)
            tries += _whole(drawn.in_order, nodes)
            cut = drawn.cut
        best = max(tries, key=lambda each: (each.completion.answers, grades[each.sample].score), default=None)
        yield answer_from(
            [each.completion for each in tries],
            None if best is None else best.completion,
            cut=ledger.stopped if self._is_solved(ask, grades) else cut or ledger.stopped,
        )

    def _drawn(self, asks: Sequence[Ask], ask: Ask, sampler: Sampler, ledger: Ledger) -> Candidates:
        aside = self._uses_verifier(ask) and ask.is_judged
        return Candidates(asks, sampler, ledger, at_once=len(asks), aside=aside)

    def _uses_verifier(self, ask: Ask) -> bool:
        has_one = ask.verifier is not None or ask.judge is not None
        return self.value == "verifier" or (self.value is None and has_one)

    def _is_solved(self, ask: Ask, grades: dict[int, Grade]) -> bool:
        return self._uses_verifier(ask) and any(grade.solved for grade in grades.values())

    async def _valued(
        self, candidates: Sequence[Candidate], grades: dict[int, Grade], ask: Ask, sampler: Sampler, ledger: Ledger
    ) -> AsyncGenerator[Event, None]:
        """Add the value of each answer that has none to `grades`. What is empty or was cut off has the value 0."""
        if self._uses_verifier(ask):
            async for check in graded(candidates, grades, ask, sampler, ledger):
                yield check
            return
        for check in likelihoods(candidates, grades, ledger):
            yield check


def _whole(candidates: Sequence[Candidate], nodes: Sequence[ThoughtNode]) -> list[Candidate]:
    """The candidates with all of their thoughts, from the steps that they went on from."""
    made = []
    for each in candidates:
        before = nodes[each.index].before
        made.append(replace(each, completion=with_thought(each.completion, before)) if before else each)
    return made


def search(
    *,
    method: SearchMethod | str = SearchMethod.BEAM,
    width: int = 4,
    branch: int = 4,
    depth: int = 4,
    value: str | None = None,
    **settings: Unpack[AskSettings],
) -> StepSearch:
    """The best of at most `width` * `branch` * `depth` answers, most of which go on from the steps of better ones.

    A step is a line of thinking. Every answer is drawn to its end at temperature 1 by default, and its value is that of
    its first new step: one rollout of this step, and an answer to choose. Answers that begin with the same step add to
    its value, which is their mean. The next answers go on from the steps that the method picks, by their tokens, so
    that what stands before is found in the cache. An answer that the verifier accepts ends the search.
    method: see `SearchMethod`.
    width: how many prefixes are kept.
    branch: how many answers go on from each.
    depth: how many steps, one after the other, are chosen; MCTS expands `width` * `depth` prefixes at any depth.
    value: "verifier", the ask's verifier, of which a scorer of steps values each step at its end, or its judge;
        "likelihood", the geometric mean of the probabilities of the answer's tokens; None: the verifier or judge where
        there is one.
    settings: hold for its samples, whatever the ask says.
    Raises InvalidRequest for an unknown method or value, numbers below 1, and temperature 0.
    """
    for name, number in (("width", width), ("branch", branch), ("depth", depth)):
        if number < 1:
            raise InvalidRequest(f"{name} of search must be at least 1 (got {number})")
    if method not in list(SearchMethod):
        raise InvalidRequest(f"method of search must be one of {', '.join(SearchMethod)} (got {str(method)!r})")
    if value is not None and value not in VALUES:
        raise InvalidRequest(f"value of search must be {' or '.join(VALUES)} (got {value!r})")
    _check_temperature(settings.get("temperature"))
    return StepSearch(SearchMethod(method), width, branch, depth, value, checked(settings))


def _check_temperature(temperature: float | None) -> None:
    if temperature == 0:
        raise InvalidRequest("search at temperature 0 draws the same answer every time: raise temperature")
