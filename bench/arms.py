"""Runs of one experiment side by side: what each solves of the same held-out problems, one sample and many, under the
same cap on thinking, and what training it cost.

    python bench/arms.py multiplication --task recipes/multiplication/tasks.py:Beyond --thinking 512 \\
        sft=runs/multiplication/sft grpo=runs/multiplication/grpo rejection=runs/multiplication/rejection

An arm is NAME=RUN, a run folder, or NAME=MODEL, any model folder. Compute is counted in tokens through the model:
generated + prefilled + 3 x trained; that of a run alone, without what it started from.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from common import environment, save, table

from ponder.evaluate import Interval, Result, held_out, measure, pass_at
from ponder.evaluate.pass_at import doublings
from ponder.sampler.local import load_sampler
from ponder.tasks.registry import load_task
from ponder.think import consensus, direct


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the result: bench/results/arms-NAME")
    parser.add_argument("arms", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--task", required=True)
    parser.add_argument("-n", type=int, default=500, help="held-out problems")
    parser.add_argument("--samples", type=int, default=16, help="of each problem, at temperature 1")
    parser.add_argument("--thinking", type=int, default=512, help="cap in tokens, the same for all")
    parser.add_argument("--answer", type=int, default=32, help="tokens that the answer may have beside it")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    task = load_task(args.task)
    problems = held_out(task, args.n)
    limits = {"thinking": args.thinking, "max_tokens": args.thinking + args.answer}
    one, samples = direct(**limits), consensus(args.samples, seed=args.seed, **limits)
    rows, at_k, told = [], [], {}
    for arm in args.arms:
        name, _, folder = arm.partition("=")
        sampler = load_sampler(model_of(Path(folder)), max_batch=256)
        greedy = measure(sampler, task, problems, one, name="thinking")
        many = measure(sampler, task, problems, samples, name=samples.name)
        compute, points = compute_of(Path(folder)), pass_at(many)
        rows.append(row(name, greedy, many, compute))
        at_k.append([name, *(f"{point.rate:.3f}" for point in points)])
        told[name] = {
            "greedy": greedy.summary(),
            "many": many.summary(),
            "pass_at": [point.summary() for point in points],
            "compute": compute,
        }
        print(table(HEAD, rows[-1:]), flush=True)
    text = f"{args.task}, {args.n} held-out problems, at most {args.thinking} tokens of thinking, "
    text += f"{args.samples} samples of each at temperature 1 (seed {args.seed}):\n\n{table(HEAD, rows)}\n\n"
    text += table(("pass@k", *map(str, doublings(args.samples))), at_k)
    save(f"arms-{args.name}", {"options": vars(args), "arms": told, **environment()}, text)


HEAD = ("run", "greedy", "pass@1", "pass@n", "majority of n", "tokens a sample", "truncated", "training compute")


def row(name: str, greedy: Result, many: Result, compute: float | None) -> list[str]:
    first, *_, last = pass_at(many)
    return [
        name,
        share(greedy.accuracy, greedy.interval),
        share(first.rate, first.interval),
        share(last.rate, last.interval),
        share(many.accuracy, many.interval),
        f"{first.tokens:.0f}",
        f"{many.truncation_rate:.3f}",
        "–" if compute is None else f"{compute / 1e6:.1f}M",
    ]


def share(rate: float, interval: Interval) -> str:
    return f"{rate:.3f} ({interval.low:.3f}–{interval.high:.3f})"


def model_of(folder: Path) -> Path:
    return folder / "model" if (folder / "model").is_dir() else folder


def compute_of(run: Path) -> float | None:
    """Tokens through the model over all stages of a run; None for a folder that is not a run."""
    lines = [json.loads(file.read_text().splitlines()[-1]) for file in run.glob("*/metrics.jsonl")]
    return sum(line["compute"] for line in lines) if lines else None


if __name__ == "__main__":
    main()
