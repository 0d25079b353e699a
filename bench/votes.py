"""A vote that stops early against the whole vote, over the same samples: accuracy, its paired difference, tokens.

    python bench/votes.py -n 1000 -k 32            # three families; an hour on two cores
    python bench/votes.py -n 40 -k 16              # some minutes

Each problem's samples are drawn once. The rules of `consensus` then read them in the order of their seeds, with four in
flight, on a clock that ticks once a token; what is in flight at the stop has cost what it had said.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
from collections.abc import Sequence
from pathlib import Path
from random import Random

import ponder
from ponder.evaluate import held_out
from ponder.evaluate.intervals import wilson
from ponder.sampler.protocol import Completion, Sampler
from ponder.tasks.protocol import Problem, Task
from ponder.tasks.registry import load_task
from ponder.think import Ask, Ledger, answer_of, consensus
from ponder.think.candidates import Candidate
from ponder.think.voting import StopRule, count_votes, is_enough, same_answer

RESULTS = Path(__file__).parent / "results"
FAMILIES = ("gym:chain_sum", "gym:basic_arithmetic", "gym:countdown")
BOOTSTRAPS = 10_000


async def draw(sampler: Sampler, problems: Sequence[Problem], samples: int, concurrency: int) -> list[list[Completion]]:
    gate = asyncio.Semaphore(concurrency)

    async def one(problem: Problem) -> list[Completion]:
        async with gate:
            ask = Ask.of(problem.question, effort="high", seed=0)
            answer = await answer_of(consensus(samples=samples, until="all"), ask, sampler, Ledger())
            return list(answer.completions)

    return await asyncio.gather(*(one(problem) for problem in problems))


def stopped(drawn: Sequence[Completion], rule: StopRule, at_once: int, same: object) -> tuple[str, int]:
    """The answer of a vote under this rule, and the tokens that it cost."""
    lengths = [each.usage.completion_tokens for each in drawn]
    begun = min(at_once, len(drawn))
    ends = [(lengths[index], index) for index in range(begun)]
    starts = dict.fromkeys(range(begun), 0)
    heapq.heapify(ends)
    finished: set[int] = set()
    counted: list[Candidate] = []
    while ends:
        now, index = heapq.heappop(ends)
        finished.add(index)
        while len(counted) in finished:
            counted.append(Candidate(len(counted), drawn[len(counted)]))
            votes = count_votes(counted, same)  # type: ignore[arg-type]
            if is_enough(rule, votes, len(drawn) - len(counted)):
                under_way = sum(now - starts[other] for _, other in ends)
                return votes[0].answer, under_way + sum(lengths[each] for each in finished)
        if begun < len(drawn):
            starts[begun] = now
            heapq.heappush(ends, (now + lengths[begun], begun))
            begun += 1
    votes = count_votes(counted, same)  # type: ignore[arg-type]
    return (votes[0].answer if votes else drawn[0].text), sum(lengths)


def paired(differences: Sequence[int], rng: Random) -> tuple[float, float]:
    """The 95% interval of a mean of paired differences, by bootstrap."""
    n = len(differences)
    means = sorted(sum(rng.choices(differences, k=n)) / n for _ in range(BOOTSTRAPS))
    return means[int(0.025 * BOOTSTRAPS)], means[int(0.975 * BOOTSTRAPS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=1000, help="problems of each family")
    parser.add_argument("-k", type=int, default=32, help="samples of the whole vote")
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--families", nargs="*", default=list(FAMILIES))
    parser.add_argument("--concurrency", type=int, default=4, help="problems at once")
    args = parser.parse_args()
    reasoner, rng = ponder.load(args.model), Random(0)
    rules = (StopRule.PREDICT, StopRule.SETTLED)
    rows: dict[str, dict[str, object]] = {}
    pooled: dict[StopRule, list[int]] = {rule: [] for rule in rules}
    print(f"{args.model}, k = {args.k}, n = {args.n} a family, {args.at_once} in flight\n")
    print("| family | whole vote (95%) | rule | accuracy | difference (95%, paired) | same answer | tokens |")
    print("|---|---|---|---|---|---|---|")
    for family in args.families:
        task: Task = load_task(family)
        problems = held_out(task, args.n)
        drawn = asyncio.run(draw(reasoner.sampler, problems, args.k, args.concurrency))
        whole = [stopped(each, StopRule.ALL, args.at_once, task.same) for each in drawn]
        solved = [task.grade(problem, text).solved for problem, (text, _) in zip(problems, whole, strict=True)]
        interval = wilson(sum(solved), args.n)
        for rule in rules:
            early = [stopped(each, rule, args.at_once, task.same) for each in drawn]
            right = [task.grade(problem, text).solved for problem, (text, _) in zip(problems, early, strict=True)]
            differences = [int(one) - int(other) for one, other in zip(right, solved, strict=True)]
            pooled[rule] += differences
            low, high = paired(differences, rng)
            share = sum(cost for _, cost in early) / sum(cost for _, cost in whole)
            agree = sum(same_answer(one, other) for (one, _), (other, _) in zip(early, whole, strict=True)) / args.n
            rows[f"{family} {rule}"] = {"accuracy": sum(right) / args.n, "whole": sum(solved) / args.n, "tokens": share}
            print(
                f"| {family} | {sum(solved) / args.n:.3f} ({interval.low:.3f}–{interval.high:.3f}) | {rule} | "
                f"{sum(right) / args.n:.3f} | {sum(differences) / args.n:+.3f} ({low:+.3f} to {high:+.3f}) | "
                f"{agree:.3f} | {share:.0%} |",
                flush=True,
            )
    for rule in rules:
        low, high = paired(pooled[rule], rng)
        shares = [float(str(row["tokens"])) for name, row in rows.items() if name.endswith(rule)]
        mean, n = sum(pooled[rule]) / len(pooled[rule]), len(pooled[rule])
        print(f"| pooled, n = {n} | | {rule} | | {mean:+.4f} ({low:+.4f} to {high:+.4f}) | | "
              f"{sum(shares) / len(shares):.0%} |")  # fmt: skip
        rows[f"pooled {rule}"] = {
            "n": n,
            "difference": mean,
            "interval_95": [low, high],
            "tokens": sum(shares) / len(shares),
        }
    report = {"model": args.model, "k": args.k, "n": args.n, "at_once": args.at_once, "rows": rows}
    (RESULTS / "votes.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
