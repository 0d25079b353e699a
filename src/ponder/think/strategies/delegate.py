"""A large model plans, small ones carry the steps out, each result is checked, and the planner writes the answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Unpack

from ponder.dialogue.messages import Message
from ponder.sampler.protocol import Completion, NextTurn, Sampler
from ponder.tasks.protocol import Grade
from ponder.think.ask import Ask, AskSettings, checked
from ponder.think.candidates import AT_ONCE, Candidates, candidates_demand
from ponder.think.events import Cut, Event, Planned
from ponder.think.judging import judge_of
from ponder.think.ledger import Ledger
from ponder.think.plan import (
    BadPlan,
    PlanForm,
    PlanStep,
    as_lines,
    expected_grade,
    fill_in,
    plan_words,
    read_plan,
    task_words,
    write_words,
)
from ponder.think.runs import Runs
from ponder.think.samples import Samples, answer_from
from ponder.think.scoring import graded
from ponder.think.strategy import Demand, Strategy, check_inner, check_one_answer
from ponder.types import InvalidRequest

StepCheck = Callable[[str, str], Grade]
PASSES = 0.5  # the least grade of a result that other steps may use


@dataclass(frozen=True, slots=True)
class Delegate:
    """See `delegate`."""

    inner: Strategy | None
    workers: Sampler | None
    form: PlanForm
    steps: int
    replans: int
    at_once: int
    check: StepCheck | None
    settings: AskSettings

    @property
    def name(self) -> str:
        return f"delegate@{self.steps}"

    def demand(self, ask: Ask) -> Demand:
        ask = ask.override(**self.settings)
        check_one_answer(ask, self.name)
        if isinstance(ask.prompt[0], int):
            raise InvalidRequest(f"{self.name} adds to the question, so it needs a conversation: ids were given")
        each = self._each(ask)
        return Demand(
            min(self.at_once, self.steps) * each.at_once,
            (1 + self.replans) * (1 + self.steps * each.in_all) + 1,
            each.depth,
        )

    def _each(self, ask: Ask) -> Demand:
        """What one step takes."""
        checked = replace(ask, verifier=None if ask.judge is not None else any_answer)
        return candidates_demand(checked, self.name, 1, 1, self.inner, checked=True)

    async def stream(self, ask: Ask, sampler: Sampler, ledger: Ledger) -> AsyncGenerator[Event, None]:
        ask = ask.override(**self.settings).override(next_turn=NextTurn.NONE)
        if ask.judge is not None:  # "self" is the one that was asked, not a worker
            ask = replace(ask, judge=judge_of(ask, sampler))
        each = self._each(ask).in_all
        work, why, seed = Work(), "", ask.seed
        for _ in range(1 + self.replans):
            planning = ledger.slice(3)
            asked = ask.adding(plan_words(self.form, self.steps, work.done_lines(), work.failed_lines(), why))
            plan = Samples(replace(asked, grammar=None, stop=(), seed=seed), sampler, planning, 1, role="plan")
            async for event in plan:
                yield event
            planning.refund()
            handed, seed = replace(ask, seed=seed), None if seed is None else seed + 1 + self.steps * each
            try:
                steps, why = read_plan(plan.completions[0].text, self.form, self.steps, work.results), ""
            except BadPlan as error:
                steps, why = (), str(error)
            if ledger.cut is not None:
                break
            if steps:
                yield Planned(tuple(map(str, steps)), ledger.path)
                kept = ledger.slice(2 + len(steps))  # for writing the answer
                async for event in self._carry_out(steps, work, handed, sampler, ledger):
                    yield event
                kept.refund()
            if ledger.cut is not None or (steps and not work.failed):
                break
        if ledger.cut is not None:
            yield work.so_far(ledger)
            return
        writing = replace(ask.adding(write_words(work.done_lines())), seed=seed)
        written = Samples(writing, sampler, ledger, 1, are_choices=True, role="write")
        async for event in written:
            yield event
        yield answer_from(written.completions, cut=written.cut or ledger.stopped or work.cut)

    async def _carry_out(
        self, steps: Sequence[PlanStep], work: Work, ask: Ask, planner: Sampler, ledger: Ledger
    ) -> AsyncGenerator[Event, None]:
        """The events of the steps, several at once, each as soon as what it needs is there."""
        waiting, started = list(steps), dict[int, PlanStep]()
        work.begin(steps)

        def fill() -> None:
            for step in list(waiting):
                if runs.under_way >= self.at_once:
                    return
                if ledger.cut is not None:
                    work.cut = ledger.cut
                    return
                if work.results.keys() >= set(step.needs):
                    waiting.remove(step)
                    asked = self._step_ask(ask, step, steps.index(step), work)
                    worker = StepWorker(self.inner, partial(work.graded, step.name))
                    started[runs.start(worker, asked, parts=len(waiting) + 1, nested=False)] = step

        def end(number: int) -> None:
            answer = runs.answers.get(number)
            if answer is None:
                work.fail(started[number], "", str(runs.error or "it was ended early"))
            else:
                work.end(started[number], answer.completions[0])
            fill()

        runs = Runs(self.workers or planner, ledger, end)
        fill()
        async for event in runs:
            yield event

    def _step_ask(self, ask: Ask, step: PlanStep, index: int, work: Work) -> Ask:
        """What a worker is asked: one step, without the question that it is a part of. Ids that the caller chose are
        those of the planner's tokenizer, so they are left out."""
        task = fill_in(step.task, work.results)

        def verify(result: str) -> Grade:
            looks = expected_grade(step.expects, result) or any_answer(result)
            return self.check(task, result) if looks.solved and self.check is not None else looks

        known = self.check is not None or expected_grade(step.expects, "") is not None or ask.judge is None
        return replace(
            ask,
            prompt=(Message.user(task_words(self.form, step, work.results)),),
            grammar=None,
            stop=(),
            stop_ids=(),
            logit_bias=(),
            same=None,
            verifier=verify if known else None,
            seed=None if ask.seed is None else ask.seed + 1 + index * self._each(ask).in_all,
        )


def any_answer(result: str) -> Grade:
    """The grade of a result of which nothing is known but that there is one."""
    return Grade(score=1.0)


@dataclass(slots=True)
class Work:
    """What has been done of the plans of one run.

    results: by the names of the steps that are done.
    failed: why a step failed, by its name, of the plan that was carried out last.
    cut: why steps were never begun.
    """

    results: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    cut: Cut | None = None
    _steps: dict[str, PlanStep] = field(default_factory=dict)  # all that were begun, a later one of a name in its place
    _said: dict[str, str] = field(default_factory=dict)
    _made: dict[str, Completion] = field(default_factory=dict)
    _grades: dict[str, Grade] = field(default_factory=dict)

    def begin(self, steps: Sequence[PlanStep]) -> None:
        self.failed = {}
        self._steps |= {step.name: step for step in steps}

    def graded(self, name: str, grade: Grade) -> None:
        self._grades[name] = grade

    def end(self, step: PlanStep, completion: Completion) -> None:
        """A worker has answered; a result with a passing grade counts."""
        grade, result = self._grades.get(step.name), completion.text.strip()
        if grade is None or grade.score < PASSES:
            self.fail(step, result, grade.why if grade is not None else "it was ended early")
            return
        self.results[step.name] = self._said[step.name] = result
        self._made[step.name] = completion

    def fail(self, step: PlanStep, result: str, why: str) -> None:
        self.failed[step.name] = f"{result} ({why})" if why else result

    def done_lines(self) -> str:
        return as_lines(list(self._steps.values()), self.results, self.results)

    def failed_lines(self) -> str:
        return as_lines(list(self._steps.values()), self.failed, self.results)

    def so_far(self, ledger: Ledger) -> Event:
        """The end of a run that was cut short: the result that no other step needs, which the answer would have been
        written from, or else nothing."""
        needed = {need for step in self._steps.values() for need in step.needs}
        last = [made for name, made in self._made.items() if name not in needed]
        whole = last if len(self.results) == len(self._steps) else []
        return answer_from(whole[-1:], cut=ledger.cut)


@dataclass(frozen=True, slots=True)
class StepWorker:
    """A strategy that carries out one step and grades its result.

    inner: what answers it; None: one sample.
    report: called with the grade.
    """

    inner: Strategy | None
    report: Callable[[Grade], None]
    name: str = "worker"

    def demand(self, ask: Ask) -> Demand:
        return candidates_demand(ask, self.name, 1, 1, self.inner, checked=True)

    async def stream(self, ask: Ask, sampler: Sampler, ledger: Ledger) -> AsyncGenerator[Event, None]:
        drawn = Candidates([ask], sampler, ledger, inner=self.inner, role="worker", aside=ask.is_judged)
        async for event in drawn:
            yield event
        grades: dict[int, Grade] = {}
        async for check in graded(drawn.in_order, grades, ask, sampler, ledger):
            yield check
        for each in drawn.in_order:
            self.report(grades[each.sample])
        yield drawn.answer(drawn.in_order[0] if drawn.in_order else None)


def delegate(
    inner: Strategy | None = None,
    *,
    workers: Sampler | None = None,
    plan: PlanForm | str = PlanForm.JSON,
    steps: int = 8,
    replans: int = 1,
    at_once: int = AT_ONCE,
    check: StepCheck | None = None,
    **settings: Unpack[AskSettings],
) -> Delegate:
    """The model that is asked plans steps, `workers` carry them out in parallel as far as they do not need each other,
    and the model that is asked writes the answer from the results.

    A result is checked by `check` and by what the plan expects of it, where that is a kind that a rule knows; without
    both, by the ask's judge, if there is one. Where one fails, the rest is planned again, with what is done and what
    failed in view. The answer is written in any case.
    inner: what carries out each step; None: one sample.
    workers: the model that does; None: the one that is asked.
    plan: see `PlanForm`.
    steps: most of one plan.
    replans: how often a plan that cannot be read, or whose steps fail, is made again.
    at_once: how many steps are under way together.
    check: grades a step's result, given the step's task and the result; at least one half passes.
    settings: hold for all samples, whatever the ask says. Raises InvalidRequest for numbers out of range.
    """
    if steps < 1 or at_once < 1 or replans < 0:
        raise InvalidRequest(
            f"delegate needs steps and at_once of at least 1, and replans of at least 0 (got {steps}, {at_once}, "
            f"{replans})"
        )
    check_inner(inner)
    try:
        form = PlanForm(plan)
    except ValueError:
        raise InvalidRequest(f"plan of delegate must be one of {', '.join(PlanForm)} (got {str(plan)!r})") from None
    return Delegate(inner, workers, form, steps, replans, at_once, check, checked(settings))
