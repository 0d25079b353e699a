"""Accuracy against thinking: the o1 curve. One point per cap on THINK tokens, greedy, the same problems throughout.

A cap counts all THINK tokens of an answer, those of folded thoughts and their states too, so it may exceed the window:
what does not fold is closed where the window ends.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ponder.evaluate.measure import Result, measure
from ponder.model.storage import write_text, writing
from ponder.sampler.protocol import Sampler
from ponder.tasks.protocol import Problem, Task
from ponder.think import direct
from ponder.types import InvalidRequest, MissingExtra, ThinkingLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One task's accuracy under rising caps."""

    model: str
    task: str
    caps: tuple[int, ...]
    results: tuple[Result, ...]

    @property
    def cut_short(self) -> tuple[float, ...]:
        """For each cap, the share of problems whose thinking went on up to it. (What ran out of tokens in its answer is
        the result's `truncation_rate`.)"""
        return tuple(
            sum(item.usage.reasoning_tokens >= cap > 0 for item in result.items) / result.n
            for cap, result in zip(self.caps, self.results, strict=True)
        )

    def summary(self) -> dict[str, object]:
        """The points as JSON."""
        points = [
            {"cap": cap, "cut_short": short, **result.summary()}
            for cap, short, result in zip(self.caps, self.cut_short, self.results, strict=True)
        ]
        return {"model": self.model, "task": self.task, "points": points}

    def save(self, folder: str | Path) -> Path:
        """Write the points as JSON. Returns the file."""
        file = Path(folder) / f"curve-{self.task.replace(':', '-').replace('/', '-')}.json"
        write_text(file, json.dumps(self.summary(), indent=2) + "\n")
        return file


def curve(
    sampler: Sampler,
    task: Task,
    problems: Sequence[Problem],
    caps: Sequence[int],
    *,
    answer_tokens: int = 128,
    concurrency: int = 64,
) -> Curve:
    """Measure under each cap. Beyond it, and in the window, `answer_tokens` are left for the answer, so that only
    thinking is scarce. Raises InvalidRequest without exact limits, or on caps that do not rise."""
    if not sampler.capabilities.exact:
        raise InvalidRequest(
            f"{sampler.name} does not keep exact limits on thinking: measure the curve of a local model"
        )
    if not caps or list(caps) != sorted(set(caps)) or caps[0] < 0:
        raise InvalidRequest(
            f"caps must be numbers of tokens from 0 up, each larger than the one before (got {list(caps)})"
        )
    results = []
    for cap in caps:
        limits, room = ThinkingLimits(cap=cap), answer_tokens if cap else 0
        mode = direct(thinking=limits, max_tokens=cap + answer_tokens, answer_room=room)
        results.append(measure(sampler, task, problems, mode, name=f"cap {cap}", concurrency=concurrency))
    return Curve(model=sampler.name, task=task.name, caps=tuple(caps), results=tuple(results))


def table_of_curves(curves: Sequence[Curve]) -> str:
    """The points as a Markdown table."""
    head = "| task | cap | solved | 95% interval | thinking | cut short | truncated |\n|---|---|---|---|---|---|---|\n"
    rows = (
        f"| {each.task} | {cap} | {r.accuracy:.3f} | {r.interval.low:.3f}–{r.interval.high:.3f} "
        f"| {r.usage.reasoning_tokens / r.n:.0f} | {short:.3f} | {r.truncation_rate:.3f} |\n"
        for each in curves
        for cap, short, r in zip(each.caps, each.cut_short, each.results, strict=True)
    )
    notes = "*cut short*: share whose thinking went on up to the cap; *truncated*: whose answer ran out of tokens.\n"
    return f"## Accuracy against thinking\n\n{head}{''.join(rows)}\n{notes}"


def plot_curves(curves: Sequence[Curve], file: str | Path) -> Path:
    """Draw accuracy (with its 95% intervals) against mean THINK tokens, one line per task. Needs the extra `plot`."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("matplotlib", "plot") from error
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for each in curves:
        thought = [result.usage.reasoning_tokens / result.n for result in each.results]
        rates = [result.accuracy for result in each.results]
        (line,) = axes.plot(thought, rates, marker="o", label=each.task)
        low = [result.interval.low for result in each.results]
        high = [result.interval.high for result in each.results]
        axes.fill_between(thought, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set_xscale("symlog", base=2, linthresh=8)  # caps double, and may begin at 0
    axes.set(xlabel="mean thinking tokens per problem", ylabel="solved", ylim=(-0.02, 1.02), title=curves[0].model)
    axes.grid(alpha=0.3)
    axes.legend()
    with writing(file):
        figure.savefig(file, dpi=150)
    return Path(file)
