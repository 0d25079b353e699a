"""`ponder steps`: the steps of a model's thoughts, labelled by what they lead to, as data for the stage process."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from ponder.cli.options import MODEL_HELP, add_thinking, load_reasoner, natural, positive
from ponder.types import InvalidRequest

if TYPE_CHECKING:
    from ponder.tasks.protocol import Problem, Task
    from ponder.train.data.step_labels import LabelledThought

NAME = "steps"
HELP = "label the steps of thoughts, by rollouts or exactly, as data for the stage process"
AT_ONCE = 8  # problems


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", metavar="TASK", help="whose problems are thought about and graded")
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, required=True, help="labelled steps, in JSON lines"
    )
    parser.add_argument("--model", default="mini", metavar="M", help=MODEL_HELP)
    add_thinking(parser, effort="how long to think")
    parser.add_argument("-n", type=positive, default=100, metavar="N", help="problems (default: 100)")
    parser.add_argument("--max-level", type=float, default=1.0, metavar="L", help="of the problems (default: 1)")
    parser.add_argument("--thoughts", type=positive, default=4, metavar="N", help="about each problem (default: 4)")
    parser.add_argument(
        "--rollouts", type=natural, default=4, metavar="N", help="answers from the end of each step (default: 4)"
    )
    parser.add_argument(
        "--labels",
        choices=("rollouts", "exact", "spoiled"),
        default="rollouts",
        help="rollouts: the share of right answers; exact: by the working that the task shows; spoiled: the working "
        "itself, half of it with a wrong digit, without a model (default: rollouts)",
    )
    parser.add_argument("--seed", type=natural, default=0, metavar="N")


def run(args: argparse.Namespace) -> int:
    from ponder.model.storage import write_text
    from ponder.tasks.protocol import DemonstratedTask
    from ponder.tasks.registry import load_task
    from ponder.train.data.step_labels import agreement_of_labels, spoiled

    task = load_task(args.task)
    if not 0 <= args.max_level <= 1:
        raise InvalidRequest(f"--max-level must be from 0 to 1 (got {args.max_level:g})")
    levels = [args.max_level * (number + 0.5) / args.n for number in range(args.n)]
    problems = [task.sample(Random(f"steps/{args.seed}/{n}"), level) for n, level in enumerate(levels)]
    if args.labels == "rollouts" and not args.rollouts:
        raise InvalidRequest("--labels rollouts needs rollouts: give --rollouts of at least 1, or --labels exact")
    if args.labels == "spoiled":
        if not isinstance(task, DemonstratedTask):
            raise InvalidRequest(f"{args.task} shows no working: label by rollouts")
        thoughts = [spoiled(task, problem, Random(f"{args.seed}/{n}")) for n, problem in enumerate(problems)]
    else:
        thoughts = label_all(args, task, problems)
    exact = args.labels != "rollouts"
    if exact and not all(each.exact for each in thoughts):
        raise InvalidRequest(f"{args.task} does not always show the same working: label by rollouts")
    records = [each.record(exact=exact) for each in thoughts]
    write_text(args.output, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    print(f"{args.output}: {len(records)} thoughts, {sum(len(each.steps) for each in thoughts)} steps")
    if args.labels != "spoiled" and args.rollouts and any(each.exact for each in thoughts):
        right, wrong, count = agreement_of_labels(thoughts)
        print(f"rollouts against exact labels: right steps {right:.3f}, wrong steps {wrong:.3f} (n = {count})")
    return 0


def label_all(args: argparse.Namespace, task: Task, problems: list[Problem]) -> list[LabelledThought]:
    from ponder.sampler.threads import run_sync
    from ponder.think import Ask
    from ponder.train.data.step_labels import label_thoughts

    thoughts: list[LabelledThought] = []
    with load_reasoner(args.model) as reasoner:

        async def some(batch: list[tuple[int, Problem]]) -> None:
            found = await asyncio.gather(
                *(
                    label_thoughts(
                        reasoner.sampler,
                        task,
                        problem,
                        Ask.of(problem.question, effort=args.effort, thinking=args.thinking),
                        thoughts=args.thoughts,
                        rollouts=args.rollouts,
                        seed=Random(f"{args.seed}/{number}").getrandbits(40),
                    )
                    for number, problem in batch
                )
            )
            thoughts.extend(each for several in found for each in several)

        numbered = list(enumerate(problems))
        for begin in range(0, len(numbered), AT_ONCE):
            run_sync(some(numbered[begin : begin + AT_ONCE]))
            print(f"{min(begin + AT_ONCE, len(numbered))}/{len(numbered)} problems", file=sys.stderr, flush=True)
    return thoughts
