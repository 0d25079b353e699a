"""A stage that learns from sampled and graded answers: its recipe, its learner, and what an algorithm adds to them."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Annotated, Any, ClassVar, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from ponder.dialogue import load_format
from ponder.model.loss import Backend
from ponder.model.transformer import Transformer
from ponder.tasks.protocol import EnvironmentTask, Task
from ponder.tasks.registry import distinct_names, load_task
from ponder.tasks.turns import Attempt
from ponder.train.examples import mix_files, question_number
from ponder.train.loop.fit import Job
from ponder.train.loop.folder import GRADES, QUESTIONS, add_questions
from ponder.train.loop.learner import Beside, StepReport
from ponder.train.loop.stage import StageStart, Training, padding
from ponder.train.loop.world import world
from ponder.train.policy.curriculum import Curriculum, Levels
from ponder.train.policy.gradient import PolicyGradient
from ponder.train.policy.journal import Journal, write_samples
from ponder.train.policy.lessons import Experience, Lesson, lay_out, pack_updates, unpack_updates
from ponder.train.policy.losses import flat, overlong_penalty
from ponder.train.policy.measure import Alarms, Drawn, Group, Rollout, rollout_metrics
from ponder.train.policy.rollout import solved
from ponder.train.policy.sampling import Order, RolloutPlan, Rollouts, open_rollouts, sampled_elsewhere
from ponder.train.recipe.ranges import Count, CountOrZero, Length, Range, Width
from ponder.train.recipe.sections import MixRecipe, ModelRecipe, StageRecipe, mix_problems, no_data
from ponder.types import RecipeError, SamplerError, SamplingParams, ThinkingLimits

_MAX_BATCH = 256  # sequences that are sampled at once; more wait

Teach = Callable[[Sequence[Sequence[Attempt]], Tensor], list[Lesson]]
"""(the answers to each problem, their rewards_PS) → the lessons of one update."""


@dataclass(frozen=True, kw_only=True)
class RolloutRecipe(StageRecipe):
    """What every stage has that learns from sampled and graded answers.

    steps: the length of the stage; each samples `prompts` x `samples` answers.
    tokens: follows from it (leave it out).
    sequence: the largest length of a context, prompt and answer.
    batch: rows of a micro-batch; there are as many micro-batches as the answers fill.
    max_tokens: of an answer, thinking included.
    thinking: cap of the thinking; None: no cap.
    mix: tasks; `messages`, `direct` and `earlier` do not apply.
    levels: see `Levels`.
    overlong: over the last `overlong` of `max_tokens` the reward falls by up to 1.
    redraws: how often in a step groups whose rewards are all equal are replaced by new problems (dynamic sampling,
        arXiv 2503.14476, section 3.2).
    minibatches: the number of updates that a step's answers are divided into.
    epochs: the number of passes through them.
    patience: this many steps in a row with nothing but equal rewards raise an alarm; with nothing but failed grades
        they stop the run.
    watch_problems: how many problems of each task are answered at every `eval_every` (levels evenly spread).
    staleness: the largest number of steps between the weights that sample an answer and those that it changes. Above 0,
        actors sample while the trainer learns (`ponder train --actors`).
    """

    start: str = "sft"
    tokens: CountOrZero = 0
    sequence: Length = 1024
    batch: Width = 4
    steps: Count = 100
    prompts: Width = 16
    samples: Annotated[int, Range(2, 1 << 20)] = 16
    max_tokens: Length = 512
    thinking: Annotated[int, Range(0, 1 << 30)] | None = None
    temperature: Annotated[float, Range(0, 100, above=True)] = 1.0
    mix: tuple[MixRecipe, ...] = ()
    levels: Levels = Levels.EVEN
    overlong: CountOrZero = 0
    redraws: CountOrZero = 0
    minibatches: Width = 1
    epochs: Width = 1
    patience: Count = 5
    watch_problems: CountOrZero = 20
    staleness: CountOrZero = 0

    corrects: ClassVar[bool] = False  # whether the loss holds for answers of older weights
    free = StageRecipe.free | {"watch_problems", "patience"}
    full_lr = 1e-4

    def resolved(self, model: ModelRecipe) -> Self:
        tokens = self.steps * self.prompts * self.samples * self.max_tokens
        if self.tokens not in (0, tokens):
            raise RecipeError(
                f"{self.name}.tokens does not apply (got {self.tokens}): leave it out, {self.name}.steps "
                "sets the length of the stage"
            )
        return replace(super().resolved(model), tokens=tokens)

    def data_files(self) -> Mapping[str, Sequence[Path]]:
        return mix_files(self.mix)

    def problems(self, model: ModelRecipe, *, runs: bool) -> Mapping[str, bool]:
        """The mix is one of tasks that are answered; what only demonstrations have is refused, not ignored."""
        name = self.name
        problems = {**super().problems(model, runs=runs), **mix_problems(name, self.mix)}
        for index, mix in enumerate(self.mix):
            problems[f"{name}.mix[{index}]: messages have no grade, name a task"] = bool(mix.messages)
            inapplicable = mix.direct is not None or mix.earlier != 0
            problems[
                f"{name}.mix[{index}]: direct and earlier do not apply; for direct answers set {name}.thinking = 0"
            ] = inapplicable
            problems[f"{name}.mix[{index}]: voices do not apply, the model itself shares out what it thinks"] = bool(
                mix.voices
            )
        return problems | {
            (f"{name}.accumulate does not apply: leave it out, there are as many micro-batches as the answers fill"): (
                self.accumulate != 1
            ),
            (f"{name}.overlong must be at most {name}.max_tokens (got {self.overlong} and {self.max_tokens})"): (
                self.overlong > self.max_tokens
            ),
            f"{name}.minibatches must be at most {name}.prompts": self.minibatches > self.prompts,
            (
                f"{name}.staleness must be 0 (got {self.staleness}): only grpo corrects for answers of older weights"
            ): self.staleness > 0 and not self.corrects,
            no_data(name, "mix"): runs and not self.mix,
        }


R = TypeVar("R", bound=RolloutRecipe)


class RolloutTraining(Training[R]):
    """An algorithm that learns from sampled and graded answers: it says what they teach, and by which gradient.

    Also leaves grades.jsonl, samples/ and the hashes of all questions asked.
    """

    @abstractmethod
    def lessons(self, stage: R, groups: Sequence[Sequence[Attempt]], rewards_PS: Tensor) -> list[Lesson]:
        """What one update is made from.

        groups: the answers to each problem, with their rewards.
        """

    @abstractmethod
    def gradient(self, stage: R, model: Transformer) -> PolicyGradient:
        """The gradient of the loss.

        model: as the stage starts from it.
        """

    def learner(self, start: StageStart[R]) -> RolloutLearner:
        """What turns answers into updates."""
        return RolloutLearner(start, partial(self.lessons, start.stage), self.gradient(start.stage, start.model))

    def open(self, start: StageStart[R]) -> Job:
        """Raises RecipeError for stale answers where nothing samples them meanwhile."""
        stage = start.stage
        if stage.staleness and not sampled_elsewhere():
            raise RecipeError(
                f"{stage.name}.staleness is {stage.staleness}, but one process samples and learns in turn: start the "
                f"run with --actors, or set {stage.name}.staleness to 0"
            )
        learner = self.learner(start)
        watch = solved(
            stage.mix,
            start.tokenizer,
            problems=stage.watch_problems if stage.eval_every else 0,
            sequence=stage.sequence,
            seed=start.seed,
            max_tokens=stage.max_tokens,
            thinking=stage.thinking,
        )
        return start.job(
            learner.batches,
            learner,
            num_steps=stage.steps,
            watch=watch,
            on_save=learner.keep,
        )


class RolloutLearner:
    """The stage's learner, and the source of its micro-batches: a step's are a list for each of its minibatches."""

    beside: Beside | None = None

    def __init__(self, start: StageStart[R], teach: Teach, gradient: PolicyGradient) -> None:
        recipe = start.stage
        self.recipe, self.model, self.tokenizer = recipe, start.model, start.tokenizer
        self.format = load_format(start.tokenizer)
        self.folder, self.seed = start.folder, start.seed
        self.teach, self.gradient = teach, gradient
        self.tasks: list[Task] = [load_task(entry.task) for entry in recipe.mix]
        self.names = distinct_names(self.tasks)
        self.curriculum = Curriculum(recipe.mix, start.seed, self.names)
        adaptive = recipe.levels is Levels.ADAPTIVE
        self.alarms = Alarms(recipe.patience, hint="" if adaptive else f", or set {recipe.name}.levels to adaptive")
        self.params = SamplingParams(
            max_tokens=recipe.max_tokens,
            temperature=recipe.temperature,
            thinking=ThinkingLimits(cap=recipe.thinking),
        )
        self._start = start
        self._rollouts: Rollouts | None = None
        self._drawn: dict[int, list[Drawn]] = {}  # for steps that are not trained on yet
        self._ahead: dict[int, list[tuple[int, float]]] = {}  # the same before an interruption: entries and levels
        self._last: Rollout | None = None
        self._metrics: dict[str, float] = {}
        self._warnings: list[str] = []
        self._questions: set[int] = set()
        self._rolled_out = 0.0  # on the clock of time.monotonic

    # A step ---------------------------------------------------------------------------------------------------------

    def batches(self, step: int) -> Generator[list[list[Experience]], None, None]:
        """From `step` on, as the first worker samples them.

        Raises GraderError once nothing could be graded for `recipe.patience` steps.
        """
        with closing(self._sampled(step)) as sampled:
            for updates in world().from_first(sampled, self._pack, self._unpack):
                self.gradient.begin_step()
                yield updates

    def _pack(self, updates: Sequence[Sequence[Experience]]) -> bytes:
        return pack_updates(updates, {"state": self.state(), "metrics": self._metrics, "warnings": self._warnings})

    def _unpack(self, payload: bytes) -> list[list[Experience]]:
        """What the first worker has sampled, and what it knows of it."""
        updates, said = unpack_updates(payload)
        self.restore(said["state"])
        self._metrics, self._warnings = said["metrics"], said["warnings"]
        self._rolled_out = time.monotonic()
        return updates

    def _sampled(self, step: int) -> Generator[list[list[Experience]], None, None]:
        journal = Journal(self.folder / GRADES, step=step)
        self._rollouts = self._open(step)
        try:
            while True:
                began = time.monotonic()
                self._draw_ahead(step)
                rollout = self._roll_out(step, journal)
                self._last = rollout
                updates = self._lessons(rollout)
                nothing = not any(lesson.teaches for lessons in updates for lesson in lessons)
                report = self._rollouts.report()
                alarms = self.alarms.see([each.attempts for each in rollout.all], flat=nothing)
                self._warnings = [*report.warnings, *alarms]
                self._metrics = {**rollout_metrics(rollout, self.names), **report.metrics}
                self._learn_levels(rollout)
                self._rolled_out = time.monotonic()
                self._metrics["rollout_seconds"] = self._rolled_out - began
                yield [self._lay_out(each, together=self.gradient.together) for each in updates if each]
                step += 1
        finally:
            journal.close()
            self._rollouts.close()

    def _open(self, step: int) -> Rollouts:
        """In environments the turns arrive as the tools answer, so which requests run together differs each time: there
        the engine has to be deterministic for a step to be repeatable. Elsewhere all requests begin together."""
        recipe, whole = self.recipe, self._start.recipe
        plan = RolloutPlan(
            tasks=tuple(entry.task for entry in recipe.mix),
            tokenizer=self._start.tokenizer_folder,
            params=self.params,
            samples=recipe.samples,
            prompts=recipe.prompts,
            sequence=recipe.sequence,
            max_batch=min(_MAX_BATCH, recipe.prompts * recipe.samples),
            deterministic=any(isinstance(task, EnvironmentTask) for task in self.tasks),
            step=step,
            staleness=recipe.staleness,
            lora=recipe.lora,
            threads=whole.run.threads,
            device=whole.run.device,
        )
        return open_rollouts()(self.model, self.tokenizer, self.tasks, plan)

    def _draw_ahead(self, step: int) -> None:
        """Say what this step and those after it want, as far as answers may be stale."""
        for later in range(step, min(step + self.recipe.staleness + 1, self.recipe.steps)):
            if later not in self._drawn:
                before = self._ahead.get(later)
                if before is None:
                    drawn = [self._draw(later, index) for index in range(self.recipe.prompts)]
                else:
                    drawn = [self._problem(later, index, *each) for index, each in enumerate(before)]
                self._drawn[later] = drawn
                self._want(later, 0, drawn)

    def _want(self, step: int, round: int, drawn: Sequence[Drawn]) -> None:
        assert self._rollouts is not None
        seed = f"{self.seed}/{step}/{round}"
        orders = [Order(each.entry, each.problem, f"{seed}/{number}") for number, each in enumerate(drawn)]
        self._rollouts.want(step, round, orders)

    def _roll_out(self, step: int, journal: Journal) -> Rollout:
        """Problems, answers, grades and rewards. Groups that teach nothing are replaced by others, `redraws` times."""
        assert self._rollouts is not None
        kept: list[Group] = []
        given_up: list[Group] = []
        for round in range(self.recipe.redraws + 1):
            begin = round * self.recipe.prompts
            if round == 0:
                drawn = self._drawn.pop(step)
            else:
                drawn = [self._draw(step, begin + index) for index in range(self.recipe.prompts - len(kept))]
                self._want(step, round, drawn)
            taken = zip(drawn, self._rollouts.take(step, round), strict=True)
            sampled = [(each, answers) for each, answers in taken if answers is not None]
            answers = journal.settle(step, round, [each for _, each in sampled])
            last = round == self.recipe.redraws
            for group in map(Group, [each for each, _ in sampled], answers, map(self._rewards, answers)):
                useful = last or not flat(group.rewards_S[None]).all()
                (kept if useful else given_up).append(group)
            if len(kept) == self.recipe.prompts:
                break
        if not kept:
            raise SamplerError(f"no group of step {step} could be sampled: look at what the actors say of it")
        return Rollout(step, kept, given_up)

    def _draw(self, step: int, index: int) -> Drawn:
        """A function of (seed, step, index), and of what the curriculum has learned. Every algorithm draws the same."""
        return self._problem(step, index, *self.curriculum.draw(step, index))

    def _problem(self, step: int, index: int, entry: int, level: float) -> Drawn:
        problem = self.tasks[entry].sample(Random(f"grpo/{self.seed}/{step}/{index}"), level)
        self._questions.add(question_number(problem.question))
        return Drawn(entry, level, problem)

    def _rewards(self, group: Sequence[Attempt]) -> Tensor:
        """The grades' scores, less what an answer loses by its length: all tokens that max_tokens counts."""
        lengths = torch.tensor([sum(len(segment.ids) for segment in each.trajectory.segments) for each in group])
        scores = torch.tensor([each.grade.score for each in group], dtype=torch.float32)
        return scores + overlong_penalty(lengths, self.recipe.max_tokens, self.recipe.overlong)

    def _learn_levels(self, rollout: Rollout) -> None:
        if self.recipe.levels is Levels.ADAPTIVE:
            self._metrics |= self.curriculum.summary()
            self.curriculum.update([(each.drawn.entry, each.drawn.level, each.passed) for each in rollout.all])

    # What is learned ------------------------------------------------------------------------------------------------

    def _lessons(self, rollout: Rollout) -> list[list[Lesson]]:
        """Of each minibatch, which has every n-th group."""
        count = self.recipe.minibatches
        answers, rewards_PS = [each.attempts for each in rollout.kept], rollout.rewards_PS
        return [self.teach(answers[i::count], rewards_PS[i::count]) for i in range(count)]

    def _lay_out(self, lessons: Sequence[Lesson], *, together: int = 1) -> list[Experience]:
        return lay_out(
            lessons,
            rows=self.recipe.batch,
            sequence=self.recipe.sequence,
            pad=padding(self.model),
            together=together,
            council=self.format.phase_tokens.council,
        )

    def updates(self, batches: Sequence[Sequence[Experience]]) -> Sequence[Sequence[Experience]]:
        return [*batches] * self.recipe.epochs

    def losses(self, model: Transformer, batches: Sequence[Experience], backend: Backend) -> Iterator[Tensor]:
        return self.gradient.losses(model, batches, backend)

    @contextmanager
    def updating(self) -> Iterator[None]:
        if self._rollouts is None:  # the first worker alone samples
            yield
            return
        with self._rollouts.updating():
            yield

    # What is known of it --------------------------------------------------------------------------------------------

    def report(self) -> StepReport:
        """Of the step that was just made."""
        seconds = time.monotonic() - self._rolled_out
        metrics = {**self._metrics, **self.gradient.metrics(), "update_seconds": seconds, **self.alarms.metrics()}
        headline = f"solved {100 * metrics['solved']:3.0f}%  reward {metrics['reward']:6.3f}"
        read = world().sums({"read": self.gradient.reference_positions})["read"]
        inference = int(metrics["generated"] + metrics["prefilled"] + read)
        return StepReport(metrics=metrics, inference=inference, headline=headline, alarms=self._warnings)

    def keep(self) -> None:
        """Before a checkpoint: samples of the last step to read, and the questions asked so far."""
        if self._last is not None:
            path = self.folder / "samples" / f"step_{self._last.step + 1:06d}.jsonl"
            kept = self._last.kept
            write_samples(
                path, [g.attempts for g in kept], self._last.rewards_PS.tolist(), [g.drawn.level for g in kept]
            )
        asked, self._questions = self._questions, set()
        add_questions(self.folder / QUESTIONS, np.array(sorted(asked), np.uint64))

    def state(self) -> Mapping[str, Any]:
        """With stale answers also which levels were drawn for the next steps, by what was known then."""
        ahead = {str(step): [[each.entry, each.level] for each in drawn] for step, drawn in self._drawn.items()}
        return {
            "curriculum": self.curriculum.state(),
            "alarms": self.alarms.state(),
            **({"ahead": ahead} if ahead else {}),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.curriculum.restore(state["curriculum"])
        self.alarms.restore(state["alarms"])
        self._ahead = {
            int(step): [(entry, level) for entry, level in drawn] for step, drawn in state.get("ahead", {}).items()
        }
