"""Whether a newly trained mini may replace the one in the package: the second half of the recipe.

    python recipes/mini/gate.py runs/mini/model

Both models answer the same held-out problems of reasoning-gym's default and hard configs. No task may be significantly
lower (McNemar's exact test, one-sided, after Holm's correction over all tasks), the mean no more than half a point, and
hard products must reach 0.70. Then the new one's plain words and scope (suites `plain` and `scope`). What was measured
is kept in the folder of `--kept`, so that the command goes on where it was interrupted. Exit code 1: it may not.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from ponder.evaluate import held_out, load_suite, measure, wilson
from ponder.evaluate.paired import holm, worse
from ponder.sampler.local import load_sampler
from ponder.sampler.opening import find_model
from ponder.tasks.families import FAMILIES
from ponder.tasks.protocol import Task
from ponder.think import direct

CAPS = {"families": 2560, "families-hard": 3072, "plain": 2560, "scope": 2560}
PRODUCTS, PRODUCTS_CAP, PRODUCTS_LEAST = "gym:products@hard", 45_000, 0.70
LOWEST_P, LOST_POINTS = 0.05, 0.5
MOST_PARAMETERS, MOST_BYTES = 8_000_000, 20_000_000
PLAIN_SHARE, LEAST = 0.90, {"scope": 0.97, "scope:within": 0.98, "scope:near": 0.90}

Solved = list[bool]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("new", help="the folder of the new model")
    parser.add_argument("--old", default="mini", help="the model that it would replace (default: the bundled one)")
    parser.add_argument("-n", type=int, default=500, help="problems of each task (default: 500)")
    parser.add_argument("--kept", type=Path, default=Path("runs/mini/gate"), help="where results are kept")
    args = parser.parse_args()
    old, new = (Answers(model, args.kept / name, args.n) for model, name in ((args.old, "old"), (args.new, "new")))
    failures = [*small_enough(args.new), *not_lower(old, new), *plain_enough(new), *in_scope(new)]
    for failure in failures:
        print(f"FAILS: {failure}")
    print("It may not replace the old one." if failures else "It may replace the old one.")
    sys.exit(bool(failures))


class Answers:
    """What one model solves of each task, measured once and kept in a folder."""

    def __init__(self, model: str, folder: Path, n: int) -> None:
        self.model, self.folder, self.n = model, folder, n
        self.sampler = load_sampler(find_model(model), max_batch=256)
        folder.mkdir(parents=True, exist_ok=True)

    def solved(self, task: Task, cap: int) -> Solved:
        return [bool(line["solved"]) for line in self.lines(task, cap)]

    def cut(self, task: Task, cap: int) -> float:
        """The share of answers that ran into a limit, or in circles."""
        return fmean(float(line["cut"]) for line in self.lines(task, cap))

    def lines(self, task: Task, cap: int) -> list[dict[str, Any]]:
        """The answer to each problem, whether it solves it, and whether it was cut."""
        file = self.folder / f"{task.name.replace('/', '_').replace(':', '.')}-{self.n}-{cap}.jsonl"
        if not file.is_file():
            result = measure(
                self.sampler, task, held_out(task, self.n), direct(thinking=cap, temperature=0.0), name="thinking"
            )
            lines = (
                {"answer": item.answer, "solved": item.grade.solved, "cut": item.truncated} for item in result.items
            )
            file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def small_enough(model: str) -> Iterator[str]:
    folder = find_model(model)
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    loaded = load_sampler(folder, max_batch=1).engine.model
    count = sum(parameter.numel() for parameter in loaded.parameters())
    print(f"{count:,} parameters, {size:,} bytes")
    if count > MOST_PARAMETERS:
        yield f"{count:,} parameters, over {MOST_PARAMETERS:,}"
    if size > MOST_BYTES:
        yield f"{size:,} bytes, over {MOST_BYTES:,}"


def not_lower(old: Answers, new: Answers) -> Iterator[str]:
    """The old tables, paired."""
    rows: list[tuple[str, Solved, Solved]] = []
    for suite in ("families", "families-hard"):
        begin = len(rows)
        for task in load_suite(suite):
            cap = PRODUCTS_CAP if task.name == PRODUCTS else CAPS[suite]
            rows.append((task.name, old.solved(task, cap), new.solved(task, cap)))
        was, now = (100 * fmean(fmean(row[side]) for row in rows[begin:]) for side in (1, 2))
        print(f"mean of {suite}: {was:.2f} points before, {now:.2f} now")
        if now < was - LOST_POINTS:
            yield f"the mean of {suite} is {was - now:.2f} points lower"
    corrected = holm([worse(before, after) for _, before, after in rows])
    print("| task | old | new | new, 95% interval | lower: p after Holm |\n|---|---|---|---|---|")
    for (name, before, after), p in zip(rows, corrected, strict=True):
        print(f"| `{name}` | {fmean(before):.3f} | {fmean(after):.3f} | {between(after)} | {p:.3f} |")
        if p < LOWEST_P:
            yield f"{name} is lower: {fmean(after):.3f}, was {fmean(before):.3f} (p = {p:.4f} after Holm's correction)"
        if name == PRODUCTS and fmean(after) < PRODUCTS_LEAST:
            yield f"{name}: {fmean(after):.3f}, below {PRODUCTS_LEAST}"


def plain_enough(new: Answers) -> Iterator[str]:
    """Each family in held-out plain words beside the same problems in reasoning-gym's."""
    print("| family | plain words | reasoning-gym's | plain, 95% interval | cut |\n|---|---|---|---|---|")
    for family in FAMILIES:
        plainly, gymly = load_suite(f"plain:{family},plain:{family}@gym")
        plain, gym = (new.solved(task, CAPS["plain"]) for task in (plainly, gymly))
        cut = new.cut(plainly, CAPS["plain"])
        print(f"| `{family}` | {fmean(plain):.3f} | {fmean(gym):.3f} | {between(plain)} | {cut:.3f} |")
        if fmean(plain) < PLAIN_SHARE * fmean(gym):
            yield f"{family} in plain words: {fmean(plain):.3f}, below {PLAIN_SHARE} of {fmean(gym):.3f}"


def in_scope(new: Answers) -> Iterator[str]:
    """What must be declined, what may be, and what must not."""
    for task in load_suite("scope"):
        solved = new.solved(task, CAPS["scope"])
        cut = new.cut(task, CAPS["scope"])
        print(f"{task.name}: {fmean(solved):.3f} ({between(solved)}), cut {cut:.3f}")
        if cut and task.name != "scope:within":
            yield f"{task.name}: {cut:.3f} of the answers ran into a limit or in circles"
        if fmean(solved) < LEAST[task.name]:
            yield f"{task.name}: {fmean(solved):.3f}, below {LEAST[task.name]}"


def between(solved: Sequence[bool]) -> str:
    interval = wilson(sum(solved), len(solved))
    return f"{interval.low:.3f}–{interval.high:.3f}"


if __name__ == "__main__":
    main()
