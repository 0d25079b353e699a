"""Reinforcement learning from verifiable rewards: draw problems, sample answers with the weights as they are, grade,
compare each answer with its group, update.

GRPO (arXiv 2402.03300) and what the field has found since, as choices in the recipe; the formulas are in `advantages`
and `losses`, the gradient in `policy`.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ponder.dialogue import load_format
from ponder.model.loss import Backend
from ponder.model.transformer import Transformer
from ponder.sampler.local import LocalSampler
from ponder.sampler.sync import run_sync
from ponder.tasks.protocol import EnvironmentTask, GradeStatus, Problem, Task
from ponder.tasks.registry import distinct_names, load_task
from ponder.tasks.turns import Attempt
from ponder.tokenizer import Tokenizer
from ponder.train.data.examples import question_number
from ponder.train.loop.fit import Job, Result, Watch, fit
from ponder.train.loop.learner import Report
from ponder.train.loop.stage import QUESTIONS, RunFolder, add_questions, begin, finish, padding
from ponder.train.policy.alarms import Alarms
from ponder.train.policy.curriculum import Curriculum
from ponder.train.policy.gradient import PolicyGradient
from ponder.train.policy.journal import Journal, write_samples
from ponder.train.policy.lessons import Experience, Lesson, lay_out, sampled_tokens
from ponder.train.policy.losses import flat, group_advantages, overlong_penalty, token_weights
from ponder.train.policy.rollout import generated_tokens, prefilled_tokens, roll_out, solved
from ponder.train.recipe.sections import GrpoRecipe, Levels, Objective, Recipe, Stage, Weighting
from ponder.types import Origin, SamplingParams, ThinkingLimits

_MAX_BATCH = 256  # sequences that are sampled at once; more wait


def grpo(recipe: Recipe, folder: RunFolder, *, watch: Watch | None = None) -> Result:
    """Run (or resume) the stage. Leaves grpo/model (float32), model/ (bfloat16), grades.jsonl, samples/ and the hashes
    of all questions asked."""
    stage = recipe.grpo
    model, tokenizer, _ = begin(recipe, stage, folder)
    own = folder.stage(Stage.GRPO)
    learner = Grpo(stage, model, tokenizer, folder=own, seed=recipe.run.seed)
    job = Job(
        name=Stage.GRPO.value,
        folder=own,
        run=recipe.run,
        stage=stage,
        batches=learner.batches,
        learner=learner,
        num_steps=stage.steps,
        watch=watch or solved(stage, tokenizer, seed=recipe.run.seed),
        on_save=learner.keep,
    )
    result = fit(model, job)
    finish(result, model, tokenizer, folder, Stage.GRPO)
    return result


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A problem, and where in the mix it comes from."""

    entry: int
    level: float
    problem: Problem


@dataclass(frozen=True, slots=True)
class _Group:
    """All answers to one problem, with their rewards."""

    drawn: _Drawn
    attempts: Sequence[Attempt]
    rewards_S: Tensor

    @property
    def passed(self) -> float:
        """The share that solved it."""
        return _mean([each.grade.solved for each in self.attempts])


@dataclass(frozen=True, slots=True)
class _Rollout:
    """What one step sampled. kept: what is learned from; given_up: what made room for it, and shows all the same how
    good the model is and what sampling costs: leaving it out would call every task half solved."""

    step: int
    kept: Sequence[_Group]
    given_up: Sequence[_Group]

    @property
    def all(self) -> Sequence[_Group]:
        return [*self.given_up, *self.kept]

    @property
    def rewards_PS(self) -> Tensor:
        """Of what is learned from."""
        return torch.stack([group.rewards_S for group in self.kept])


class Grpo:
    """The stage's learner, and the source of its micro-batches: a step's are a list for each of its minibatches."""

    def __init__(
        self, recipe: GrpoRecipe, model: Transformer, tokenizer: Tokenizer, *, folder: Path, seed: int
    ) -> None:
        self.recipe, self.model, self.tokenizer, self.folder, self.seed = recipe, model, tokenizer, folder, seed
        self.tasks: list[Task] = [load_task(entry.task) for entry in recipe.mix]
        self.names = distinct_names(self.tasks)
        self.curriculum = Curriculum(recipe.mix, seed, self.names)
        self.alarms = Alarms(recipe.patience, recipe.levels)
        self.policy = PolicyGradient(recipe, model)
        self.params = SamplingParams(
            max_tokens=recipe.max_tokens,
            temperature=recipe.temperature,
            thinking=ThinkingLimits(cap=recipe.thinking),
        )
        self._sampler: LocalSampler | None = None
        self._last: _Rollout | None = None
        self._metrics: dict[str, float] = {}
        self._warnings: list[str] = []
        self._questions: set[int] = set()
        self._rolled_out = 0.0  # on the clock of time.monotonic

    # A step ---------------------------------------------------------------------------------------------------------

    def batches(self, step: int) -> Generator[list[list[Experience]], None, None]:
        """From `step` on. Raises GraderError once nothing could be graded for `recipe.patience` steps."""
        journal = Journal(self.folder / "grades.jsonl", step=step)
        self._sampler = self._open()
        try:
            while True:
                began = time.monotonic()
                rollout = self._roll_out(step, journal)
                self._last = rollout
                updates = self._lessons(rollout)
                self._warnings = self.alarms.see([each.attempts for each in rollout.all], flat=self._is_flat(rollout))
                self._metrics = self._measure(rollout)
                self._learn_levels(rollout)
                self._rolled_out = time.monotonic()
                self._metrics["rollout_seconds"] = self._rolled_out - began
                self.policy.begin_step()
                yield [self._lay_out(lessons) for lessons in updates if lessons]
                step += 1
        finally:
            journal.close()
            run_sync(self._sampler.close())

    def _open(self) -> LocalSampler:
        """Over the very module that trains. The window is such that every context fits a row. In environments the turns
        come as the tools answer, so what runs beside what is never the same twice: there the engine has to be
        deterministic for a step to be repeatable. Elsewhere `roll_out` begins all requests together."""
        return LocalSampler(
            self.model,
            self.tokenizer,
            load_format(self.tokenizer),
            window=min(self.recipe.sequence + 1, self.model.config.max_positions),
            max_batch=min(_MAX_BATCH, self.recipe.prompts * self.recipe.samples),
            deterministic=any(isinstance(task, EnvironmentTask) for task in self.tasks),
        )

    def _roll_out(self, step: int, journal: Journal) -> _Rollout:
        """Problems, answers, grades and rewards. Groups that teach nothing make room for others, `redraws` times."""
        kept: list[_Group] = []
        given_up: list[_Group] = []
        for round in range(self.recipe.redraws + 1):
            begin = round * self.recipe.prompts
            drawn = [self._draw(step, begin + index) for index in range(self.recipe.prompts - len(kept))]
            answers = journal.settle(step, round, self._sample(drawn, f"{self.seed}/{step}/{round}"))
            last = round == self.recipe.redraws
            for group in map(_Group, drawn, answers, map(self._rewards, answers)):
                useful = last or not flat(group.rewards_S[None]).all()
                (kept if useful else given_up).append(group)
            if len(kept) == self.recipe.prompts:
                break
        return _Rollout(step, kept, given_up)

    def _draw(self, step: int, index: int) -> _Drawn:
        """A function of (seed, step, index), and of what the curriculum has learned."""
        entry, level = self.curriculum.draw(step, index)
        problem = self.tasks[entry].sample(Random(f"grpo/{self.seed}/{step}/{index}"), level)
        self._questions.add(question_number(problem.question))
        return _Drawn(entry, level, problem)

    def _sample(self, drawn: Sequence[_Drawn], seed: str) -> list[list[Attempt]]:
        assert self._sampler is not None
        problems = [(self.tasks[each.entry], each.problem) for each in drawn]
        self.model.eval()
        groups = run_sync(roll_out(self._sampler, problems, samples=self.recipe.samples, params=self.params, seed=seed))
        self.model.train()
        return groups

    def _rewards(self, group: Sequence[Attempt]) -> Tensor:
        """The grades' scores, less what an answer loses by its length: all tokens that max_tokens counts."""
        lengths = torch.tensor([sum(len(segment.ids) for segment in each.trajectory.segments) for each in group])
        scores = torch.tensor([each.grade.score for each in group], dtype=torch.float32)
        return scores + overlong_penalty(lengths, self.recipe.max_tokens, self.recipe.overlong)

    def _learn_levels(self, rollout: _Rollout) -> None:
        if self.recipe.levels is Levels.ADAPTIVE:
            self.curriculum.update([(each.drawn.entry, each.drawn.level, each.passed) for each in rollout.all])

    def _is_flat(self, rollout: _Rollout) -> bool:
        """Whether there is nothing to learn from: nothing to compare, or for REJECTION nothing solved."""
        if self.recipe.objective is Objective.REJECTION:
            return not any(each.passed for each in rollout.kept)
        return bool(flat(rollout.rewards_PS).all())

    # What is learned ------------------------------------------------------------------------------------------------

    def _lessons(self, rollout: _Rollout) -> list[list[Lesson]]:
        """Of each minibatch: whole groups, every so-manieth."""
        count = self.recipe.minibatches
        answers, rewards_PS = [each.attempts for each in rollout.kept], rollout.rewards_PS
        parts = [(answers[i::count], rewards_PS[i::count]) for i in range(count)]
        if self.recipe.objective is Objective.REJECTION:
            return [rejection_lessons(groups, self.recipe.per_prompt) for groups, _ in parts]
        return [policy_lessons(groups, rewards_MS, self.recipe) for groups, rewards_MS in parts]

    def _lay_out(self, lessons: Sequence[Lesson]) -> list[Experience]:
        return lay_out(lessons, rows=self.recipe.batch, sequence=self.recipe.sequence, pad=padding(self.model))

    def updates(self, batches: Sequence[Sequence[Experience]]) -> Sequence[Sequence[Experience]]:
        return [*batches] * self.recipe.epochs

    def losses(self, model: Transformer, batches: Sequence[Experience], backend: Backend) -> Iterator[Tensor]:
        return self.policy.losses(model, batches, backend)

    @contextmanager
    def updating(self) -> Iterator[None]:
        assert self._sampler is not None
        with self._sampler.engine.update_weights():
            yield

    # What is known of it --------------------------------------------------------------------------------------------

    def report(self) -> Report:
        """Of the step that was just made."""
        seconds = time.monotonic() - self._rolled_out
        metrics = {**self._metrics, **self.policy.metrics(), "update_seconds": seconds, **self.alarms.metrics()}
        headline = f"solved {100 * metrics['solved']:3.0f}%  reward {metrics['reward']:6.3f}"
        inference = int(metrics["generated"] + metrics["prefilled"]) + self.policy.reference_positions
        return Report(metrics=metrics, inference=inference, headline=headline, alarms=self._warnings)

    def _measure(self, rollout: _Rollout) -> dict[str, float]:
        """Of everything sampled, but for `flat`, the share of groups without an advantage among those kept."""
        attempts = [each for group in rollout.all for each in group.attempts]
        lengths = [sampled_tokens(each.trajectory) for each in attempts]
        statuses = [each.grade.status for each in attempts]
        segments = [segment for each in attempts for segment in each.trajectory.segments]
        logprobs = [p for s in segments for p, o in zip(s.logprobs, s.origins, strict=True) if o is Origin.SAMPLED]
        by_task: dict[str, list[bool]] = defaultdict(list)
        for group in rollout.all:
            by_task[self.names[group.drawn.entry]] += [each.grade.solved for each in group.attempts]
        return {
            "reward": float(torch.cat([group.rewards_S for group in rollout.all]).mean()),
            "score": _mean([each.grade.score for each in attempts]),
            "solved": _mean([each.grade.solved for each in attempts]),
            "length": _mean(lengths),
            "longest": float(max(lengths)),
            "generated": sum(generated_tokens(group.attempts) for group in rollout.all),
            "prefilled": sum(prefilled_tokens(group.attempts) for group in rollout.all),
            "truncated": _mean([each.truncated for each in attempts]),
            "entropy": -_mean(logprobs),  # in expectation that of the model's distribution, in nats
            "flat": float(flat(rollout.rewards_PS).float().mean()),
            "redrawn": float(len(rollout.given_up)),
            "unparseable": _mean([status is GradeStatus.UNPARSEABLE for status in statuses]),
            "ungraded": _mean([status in (GradeStatus.TIMEOUT, GradeStatus.FAILED) for status in statuses]),
            **{f"pass/{task}": _mean(right) for task, right in sorted(by_task.items())},
            **(self.curriculum.summary() if self.recipe.levels is Levels.ADAPTIVE else {}),
        }

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
        return {"curriculum": self.curriculum.state(), "alarms": self.alarms.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.curriculum.restore(state["curriculum"])
        self.alarms.restore(state["alarms"])


def policy_lessons(groups: Sequence[Sequence[Attempt]], rewards_PS: Tensor, recipe: GrpoRecipe) -> list[Lesson]:
    """What one update is made from. An answer without advantage has no gradient, unless a penalty gives it one, and is
    left out; it counts in the weights of the others all the same."""
    advantages_M = group_advantages(rewards_PS, recipe.baseline).flatten().tolist()
    trajectories = [each.trajectory for group in groups for each in group]
    lengths_M = torch.tensor([sampled_tokens(each) for each in trajectories])
    weights_M = token_weights(lengths_M, recipe.weighting, recipe.max_tokens).tolist()
    lessons = map(Lesson, trajectories, advantages_M, weights_M)
    return [each for each in lessons if each.advantage or recipe.kl]


def rejection_lessons(groups: Sequence[Sequence[Attempt]], per_prompt: int) -> list[Lesson]:
    """The first solved answers of each group, every token of them the same."""
    solved_ones = [[each.trajectory for each in group if each.grade.solved][:per_prompt] for group in groups]
    trajectories = [each for group in solved_ones for each in group]
    lengths_M = torch.tensor([sampled_tokens(each) for each in trajectories])
    weights_M = token_weights(lengths_M, Weighting.TOKEN, longest=1).tolist()
    return [Lesson(trajectory, 1.0, weight) for trajectory, weight in zip(trajectories, weights_M, strict=True)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))
