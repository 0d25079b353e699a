"""What a model still knows after it learned something new: accuracy of every task after every stage of training.

Backward transfer and forgetting as in Lopez-Paz and Ranzato 2017 (arXiv 1706.08840) and Chaudhry et al. 2018 (arXiv
1801.10112), with intervals over the problems, which are the same for all models; and how far each model has moved from
the first one on the new prompts, by which forgetting was found to go (Shenfeld et al. 2025, arXiv 2509.04259).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from ponder.dialogue.messages import Message
from ponder.evaluate.intervals import Z_95, Interval, wilson
from ponder.evaluate.measure import Result, measure
from ponder.evaluate.problems import held_out
from ponder.sampler.protocol import Request, Sampler
from ponder.sampler.threads import run_sync
from ponder.tasks.protocol import Problem, Task
from ponder.think import Strategy
from ponder.types import InvalidRequest, Origin, SamplingParams, Segment

_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95% interval."""

    value: float
    interval: Interval

    def __str__(self) -> str:
        return f"{self.value:+.3f} ({self.interval.low:+.3f} to {self.interval.high:+.3f})"

    def summary(self) -> dict[str, object]:
        return {"value": self.value, "interval_95": [self.interval.low, self.interval.high]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgetting:
    """Of models 0 … T, each tuned from the one before.

    learned: of each task the model that learned it; 0: the first one knew it.
    solved: of each model and each task whether each problem was solved.
    moved: of each model but the first the divergence of the first model from it, nats an answer to a new prompt; empty
        where it was not measured.
    """

    models: tuple[str, ...]
    tasks: tuple[str, ...]
    learned: tuple[int, ...]
    solved: tuple[tuple[NDArray[np.bool_], ...], ...]
    moved: tuple[Estimate, ...] = ()

    @property
    def accuracies_MI(self) -> NDArray[np.float64]:
        """Of each model (M) on each task (I)."""
        return np.array([[each.mean() for each in row] for row in self.solved])

    def estimates(self) -> dict[str, Estimate]:
        """accuracy: the mean over all tasks, in the end.
        backward_transfer: the mean over tasks learned before the last model, of the last accuracy minus that right
            after they were learned.
        forgetting: the mean over the same tasks, of the best earlier accuracy since they were learned minus the last.
        Intervals: percentile bootstrap, which resamples each task's problems for all models alike.
        """
        exact = _numbers(self.accuracies_MI, self.learned)
        rng = np.random.default_rng(0)
        tables = np.empty((_RESAMPLES, *self.accuracies_MI.shape))
        for task in range(len(self.tasks)):
            column_MN = np.array([row[task] for row in self.solved], np.float64)
            drawn_RN = rng.integers(column_MN.shape[1], size=(_RESAMPLES, column_MN.shape[1]))
            tables[:, :, task] = np.stack([column_N[drawn_RN].mean(1) for column_N in column_MN], 1)
        resampled = [_numbers(table, self.learned) for table in tables]
        found = {}
        for name, value in exact.items():
            low, high = np.quantile([each[name] for each in resampled], (0.025, 0.975))
            found[name] = Estimate(value, Interval(float(low), float(high)))
        return found

    def summary(self) -> dict[str, object]:
        """The numbers as JSON."""
        return {
            "models": list(self.models),
            "tasks": list(self.tasks),
            "learned": list(self.learned),
            "n": [len(each) for each in self.solved[0]],
            "accuracy_matrix": self.accuracies_MI.tolist(),
            **{name: each.summary() for name, each in self.estimates().items()},
            "divergence_from_first": [each.summary() for each in self.moved],
        }

    def markdown(self) -> str:
        """Tables for people."""
        head = ["task", "learned by", *self.models]
        lines = [head, ["---"] * len(head)]
        for number, (task, stage) in enumerate(zip(self.tasks, self.learned, strict=True)):
            row = [wilson(int(each[number].sum()), len(each[number])) for each in self.solved]
            cells = [
                f"{a:.3f} ({i.low:.3f}–{i.high:.3f})" for a, i in zip(self.accuracies_MI[:, number], row, strict=True)
            ]
            lines.append([task, self.models[stage], *cells])
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        names = {"accuracy": "mean accuracy", "backward_transfer": "backward transfer", "forgetting": "forgetting"}
        found = "\n".join(f"- {names[name]}: {each}" for name, each in self.estimates().items())
        moved = [
            f"- divergence of {self.models[0]} from {name} on new prompts, nats an answer: {each}"
            for name, each in zip(self.models[1:], self.moved, strict=False)
        ]
        return "\n".join([table, "", found, *moved]) + "\n"


def _cell(solved: NDArray[np.bool_]) -> str:
    interval = wilson(int(solved.sum()), len(solved))
    return f"{solved.mean():.3f} ({interval.low:.3f}–{interval.high:.3f})"


def _numbers(accuracies_MI: NDArray[np.float64], learned: Sequence[int]) -> dict[str, float]:
    last = len(accuracies_MI) - 1
    before = [(task, stage) for task, stage in enumerate(learned) if stage < last]
    end = accuracies_MI[last]
    return {
        "accuracy": float(end.mean()),
        "backward_transfer": float(np.mean([end[task] - accuracies_MI[stage, task] for task, stage in before])),
        "forgetting": float(np.mean([accuracies_MI[stage:last, task].max() - end[task] for task, stage in before])),
    }


def measure_forgetting(
    samplers: Sequence[Sampler],
    old: Sequence[Task],
    new: Sequence[Sequence[Task]],
    n: int,
    mode: Strategy,
    *,
    names: Sequence[str],
    start: int = 0,
    prompts: int = 0,
    progress: Callable[[Result], None] = lambda result: None,
) -> Forgetting:
    """Every model on `n` held-out problems of every task.

    old: the tasks that the first model knows.
    new: what each of the other models learned.
    names: of the models, in reports.
    prompts: how many of the `n` problems of each new task the divergence is measured on; 0: it is not.
    Raises InvalidRequest where the numbers of models and of what they learned do not match.
    """
    if len(samplers) < 2 or len(new) != len(samplers) - 1 or not old:
        raise InvalidRequest(
            f"forgetting needs at least 2 models, tasks that the first one knows, and what each of the others learned "
            f"(got {len(samplers)} models, {len(old)} old tasks, and new tasks for {len(new)})"
        )
    tasks = [*old, *(task for learned in new for task in learned)]
    learned = [0] * len(old) + [stage for stage, group in enumerate(new, 1) for _ in group]
    problems = [held_out(task, n, start=start) for task in tasks]
    solved = []
    for sampler, name in zip(samplers, names, strict=True):
        row = []
        for task, asked in zip(tasks, problems, strict=True):
            result = measure(sampler, task, asked, mode, name=name)
            progress(result)
            row.append(np.array([item.grade.solved for item in result.items]))
        solved.append(tuple(row))
    fresh = [each for asked, stage in zip(problems, learned, strict=True) if stage for each in asked[:prompts]]
    return Forgetting(
        models=tuple(names),
        tasks=tuple(task.name for task in tasks),
        learned=tuple(learned),
        solved=tuple(solved),
        moved=tuple(divergences(samplers, fresh)) if fresh else (),
    )


def divergences(samplers: Sequence[Sampler], problems: Sequence[Problem], max_tokens: int = 512) -> list[Estimate]:
    """KL(first | each other) on the problems' prompts, in nats an answer.

    It is the mean log-ratio over answers that the first one samples at temperature 1, with the normal interval of that
    mean.

    Raises InvalidRequest for models that give no log-probabilities, or that have different vocabularies.
    """
    return run_sync(_divergences(samplers, problems, max_tokens))


async def _divergences(samplers: Sequence[Sampler], problems: Sequence[Problem], max_tokens: int) -> list[Estimate]:
    first, *others = samplers
    vocabularies = [each.capabilities.tokenizer and each.capabilities.tokenizer.spec for each in samplers]
    for each, vocabulary in zip(samplers, vocabularies, strict=True):
        if not each.capabilities.scores or vocabulary != vocabularies[0]:
            raise InvalidRequest(
                f"{each.name}: the divergence from {first.name} needs local models of one tokenizer: leave it out with "
                "--prompts 0"
            )
    params = [SamplingParams(temperature=1.0, max_tokens=max_tokens, seed=number) for number in range(len(problems))]
    requests = [
        Request(prompt=(Message.user(problem.question),), params=each)
        for problem, each in zip(problems, params, strict=True)
    ]
    answers = await asyncio.gather(*(first.sample(request) for request in requests))
    segments = [completion.segments for (completion,) in answers]
    found = []
    for other in others:
        ratios = await asyncio.gather(*(_log_ratio(other, each) for each in segments))
        mean, spread = float(np.mean(ratios)), float(np.std(ratios, ddof=1)) if len(ratios) > 1 else 0.0
        half = Z_95 * spread / sqrt(len(ratios))
        found.append(Estimate(mean, Interval(mean - half, mean + half)))
    return found


async def _log_ratio(other: Sampler, segments: Sequence[Segment]) -> float:
    """Of one answer: the log-probabilities of its sampled tokens, minus those under another model."""
    total = 0.0
    for each in segments:
        logprobs, _ = await other.score((*each.prompt_ids, *each.ids))
        own = logprobs[len(each.prompt_ids) - 1 :]
        pairs = zip(each.logprobs, own, each.origins, strict=True)
        total += sum(here - there for here, there, origin in pairs if origin is Origin.SAMPLED)
    return total
