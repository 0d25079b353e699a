"""An evaluation as JSON and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ponder.evaluate.measure import Result, line_of
from ponder.evaluate.published import ATTRIBUTION, best_published, published
from ponder.tasks.gym import GymTask
from ponder.tasks.protocol import Task

SHOWN_MODELS = ("o3-mini", "deepseek-r1", "claude-3.5-sonnet", "llama-3.3-70b-instruct")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All results of one model. `compared`: the tasks that published scores speak about."""

    model: str
    results: tuple[Result, ...]
    compared: frozenset[str] = frozenset()

    def summary(self) -> dict[str, object]:
        """The numbers as JSON."""
        rows = [
            {**result.summary(), "published": published(result.task) if result.task in self.compared else {}}
            for result in self.results
        ]
        return {"model": self.model, "results": rows, "attribution": ATTRIBUTION if self.compared else ""}

    def markdown(self) -> str:
        """Tables for people."""
        parts = [f"# {self.model}", _table(RESULT_COLUMNS, map(_result_row, self.results)), NOTES]
        if self.compared:
            tasks = [task for task in dict.fromkeys(result.task for result in self.results) if task in self.compared]
            columns = ("task", *dict.fromkeys(result.mode for result in self.results), *SHOWN_MODELS, "best of ten")
            parts += [
                "## Beside published scores (mean scores)",
                _table(columns, map(self._compared_row, tasks)),
                ATTRIBUTION,
            ]
        return "\n\n".join(parts) + "\n"

    def save(self, folder: str | Path) -> Path:
        """Write report.json, report.md and one JSON-lines file of items per task and mode. Returns the folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text(json.dumps(self.summary(), indent=2) + "\n")
        (folder / "report.md").write_text(self.markdown())
        for result in self.results:
            name = "".join(c if c.isalnum() or c in "-_@" else "-" for c in f"{result.task}-{result.mode}")
            lines = "".join(json.dumps(line_of(item)) + "\n" for item in result.items)
            (folder / f"{name}.jsonl").write_text(lines)
        return folder

    def _compared_row(self, task: str) -> list[str]:
        ours = {result.mode: result.mean_score for result in self.results if result.task == task}
        theirs, best = published(task), best_published(task)
        modes = dict.fromkeys(result.mode for result in self.results)
        return [
            task,
            *(f"**{ours[mode]:.3f}**" if mode in ours else "–" for mode in modes),
            *(f"{theirs[model]:.3f}" if model in theirs else "–" for model in SHOWN_MODELS),
            f"{best[1]:.3f} ({best[0]})" if best else "–",
        ]


def published_configs(tasks: Iterable[Task]) -> frozenset[str]:
    """Names of the tasks that scores were published for: reasoning-gym's, under their default or hard config."""
    return frozenset(task.name for task in tasks if isinstance(task, GymTask) and published(task.name))


RESULT_COLUMNS = (
    "task", "mode", "n", "solved", "95% interval", "mean score", "prompt", "thinking", "answer", "truncated", "unseen",
)  # fmt: skip

NOTES = (
    "*solved*: share of problems with a score of at least 0.99, Wilson interval beside it. *prompt*, *thinking*, "
    "*answer*: mean tokens per problem, over all samples. *truncated*: share of samples that ran out of tokens. "
    "*unseen*: solved among questions that are not in the training data, where that is known."
)


def _result_row(result: Result) -> list[str]:
    usage, n, interval, unseen = result.usage, result.n, result.interval, result.unseen
    return [
        result.task,
        result.mode,
        str(n),
        f"{result.accuracy:.3f}",
        f"{interval.low:.3f}–{interval.high:.3f}",
        f"{result.mean_score:.3f}",
        f"{usage.prompt_tokens / n:.0f}",
        f"{usage.reasoning_tokens / n:.0f}",
        f"{(usage.completion_tokens - usage.reasoning_tokens) / n:.0f}",
        f"{result.truncation_rate:.3f}",
        "–" if unseen is None else f"{unseen[0]}/{unseen[1]}",
    ]


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(columns)
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
