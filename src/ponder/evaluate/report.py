"""An evaluation as JSON and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ponder.evaluate.correction import Correction, correction
from ponder.evaluate.intervals import wilson
from ponder.evaluate.measure import Result, line_of
from ponder.evaluate.pass_at import PassAt, has_samples, pass_at
from ponder.evaluate.published import ATTRIBUTION, best_published, published, published_models
from ponder.model.storage import write_text
from ponder.tasks.gym import GymTask
from ponder.tasks.protocol import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All results of one model.

    compared: the tasks that published scores speak about.
    pass_at: the k of which pass@k is reported for results with several samples; None: doublings.
    """

    model: str
    results: tuple[Result, ...]
    compared: frozenset[str] = frozenset()
    pass_at: tuple[int, ...] | None = None

    def summary(self) -> dict[str, object]:
        """The numbers as JSON."""
        rows = [
            {
                **result.summary(),
                **self._extras(result),
                "published": published(result.task) if result.task in self.compared else {},
            }
            for result in self.results
        ]
        return {"model": self.model, "results": rows, "attribution": ATTRIBUTION if self.compared else ""}

    def markdown(self) -> str:
        """Tables for people."""
        parts = [f"# {self.model}", markdown_table(RESULT_COLUMNS, map(_result_row, self.results)), NOTES]
        logical = [result for result in self.results if result.by_logic is not None]
        if logical:
            parts += ["## By logic", markdown_table(LOGIC_COLUMNS, map(_logic_row, logical)), LOGIC_NOTES]
        voted = [(result, pass_at(result, self.pass_at)) for result in self.voted]
        if voted:
            ks = sorted({each.k for _, points in voted for each in points})
            columns = ("task", "samples", "majority", *(f"pass@{k}" for k in ks), "tokens each")
            rows = [_voted_row(result, points, ks) for result, points in voted]
            parts += ["## Many samples", markdown_table(columns, rows), VOTED_NOTES]
        corrected = [(result, found) for result in self.results if (found := correction(result))]
        if corrected:
            parts += [
                "## Self-correction",
                markdown_table(CORRECTION_COLUMNS, map(_correction_row, corrected)),
                CORRECTION_NOTES,
            ]
        if self.compared:
            tasks = [task for task in dict.fromkeys(result.task for result in self.results) if task in self.compared]
            columns = (
                "task",
                *dict.fromkeys(result.mode for result in self.results),
                *published_models(),
                "best of ten",
            )
            parts += [
                "## Beside published scores (mean scores; in brackets the tokens generated per problem)",
                markdown_table(columns, map(self._compared_row, tasks)),
                ATTRIBUTION,
            ]
        return "\n\n".join(parts) + "\n"

    @property
    def voted(self) -> list[Result]:
        """The results with several samples of every problem."""
        return [result for result in self.results if has_samples(result)]

    def save(self, folder: str | Path) -> Path:
        """Write report.json, report.md and one JSON-lines file of items per task and mode. Returns the folder."""
        folder = Path(folder)
        files = {"report.json": json.dumps(self.summary(), indent=2) + "\n", "report.md": self.markdown()}
        for result in self.results:
            name = "".join(c if c.isalnum() or c in "-_@" else "-" for c in f"{result.task}-{result.mode}")
            files[f"{name}.jsonl"] = "".join(json.dumps(line_of(item)) + "\n" for item in result.items)
        for name, text in files.items():
            write_text(folder / name, text)
        return folder

    def _extras(self, result: Result) -> dict[str, object]:
        found = correction(result)
        extras: dict[str, object] = {} if found is None else {"self_correction": found.summary()}
        if has_samples(result):
            extras["pass_at"] = [each.summary() for each in pass_at(result, self.pass_at)]
        return extras

    def _compared_row(self, task: str) -> list[str]:
        ours = {result.mode: result for result in self.results if result.task == task}
        theirs, best = published(task), best_published(task)
        modes = dict.fromkeys(result.mode for result in self.results)
        return [
            task,
            *(_score(ours[mode]) if mode in ours else "–" for mode in modes),
            *(f"{theirs[model]:.3f}" if model in theirs else "–" for model in published_models()),
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


VOTED_NOTES = (
    "All from one set of samples of every problem. *majority*: the answer that most of them agree on. *pass@k*: the "
    "chance that k of them hold a right answer (unbiased, arXiv 2107.03374), 95% intervals by resampling problems; "
    "with all samples it is what a choice by an oracle (best of n) would solve. *tokens each*: mean generated tokens "
    "of one sample; k samples cost k times as many."
)

LOGIC_COLUMNS = ("task", "mode", "solved by its keys", "right by logic")

LOGIC_NOTES = (
    "Some keys of this dataset are not valid inferences (docs/results.md). *right by logic*: answers that z3 agrees "
    "with, where every class has members. A model that learns the keys falls short of 1 there. Wilson intervals."
)

CORRECTION_COLUMNS = ("task", "mode", "samples", "tries", "mended", "spoiled", "false accepts", "false rejects")

CORRECTION_NOTES = (
    "*tries*: attempts inside the reasonings, judged by exact arithmetic. *mended*: answers right in the end, of those "
    "whose first try was wrong; *spoiled*: wrong in the end, of those whose first try was right. *false accepts*: "
    "wrong tries that the model took for right; *false rejects*: right tries that it turned down. Wilson intervals."
)


def _voted_row(result: Result, points: Sequence[PassAt], ks: Sequence[int]) -> list[str]:
    """ks: of the whole table; a result with fewer samples has no rate for the largest."""
    rates = {each.k: f"{each.rate:.3f} ({each.interval.low:.3f}–{each.interval.high:.3f})" for each in points}
    majority = f"{result.accuracy:.3f} ({result.interval.low:.3f}–{result.interval.high:.3f})"
    told = [result.task, str(len(result.items[0].drawn)), majority]
    return [*told, *(rates.get(k, "–") for k in ks), f"{points[0].tokens / points[0].k:.0f}"]


def _logic_row(result: Result) -> list[str]:
    counts = result.solved, result.by_logic or 0
    rated = [(count / result.n, wilson(count, result.n)) for count in counts]
    return [result.task, result.mode, *(f"{rate:.3f} ({each.low:.3f}–{each.high:.3f})" for rate, each in rated)]


def _correction_row(row: tuple[Result, Correction]) -> list[str]:
    result, found = row
    shares = map(str, (found.mended, found.spoiled, found.false_accepts, found.false_rejects))
    return [result.task, result.mode, str(found.samples), str(found.tries), *shares]


def _score(result: Result) -> str:
    return f"**{result.mean_score:.3f}** ({result.usage.completion_tokens / result.n:,.0f})"


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


def markdown_table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown, whatever its cells hold."""
    head = list(columns)
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
