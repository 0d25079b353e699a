"""`ponder generate`: worked reasoning of any model or endpoint, graded, to tune another model on"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ponder.cli.options import MODEL_HELP, add_quantize, add_thinking, load_reasoner, natural, positive
from ponder.types import InvalidRequest

if TYPE_CHECKING:
    from ponder.train.data.traces import Bill

NAME = "generate"
HELP = "have a model answer problems of tasks, and keep what is right as dialogues to tune on"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "tasks", metavar="TASKS", help='a suite or task names with commas between: "products,gym:gcd,mine.py:Task"'
    )
    parser.add_argument("--model", default="mini", metavar="M", help=MODEL_HELP)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="JSON lines, one dialogue each; appended to"
    )
    parser.add_argument("-n", type=positive, default=100, help="problems of each task (default: 100)")
    parser.add_argument("--samples", type=positive, default=1, metavar="N", help="answers to each problem (default: 1)")
    parser.add_argument("--min-level", type=float, default=0.0, metavar="L", help="of the problems (default: 0)")
    parser.add_argument("--max-level", type=float, default=1.0, metavar="L", help="of the problems (default: 1)")
    parser.add_argument(
        "--strategy", default="direct", metavar="S", help='such as "consensus(samples=4)" (default: direct)'
    )
    add_thinking(parser, effort="how long to think (default: high)")
    parser.add_argument("--max-tokens", type=positive, metavar="N", help="of each answer, thinking included")
    parser.add_argument("--temperature", type=float, default=1.0, metavar="T", help="of the answers (default: 1)")
    parser.add_argument("--seed", type=natural, default=0, metavar="N", help="of problems and answers (default: 0)")
    parser.add_argument(
        "--concurrency", type=positive, default=64, metavar="N", help="answers under way at once (default: 64)"
    )
    add_quantize(parser)


def run(args: argparse.Namespace) -> int:
    from ponder.evaluate import load_suite
    from ponder.sampler.threads import run_sync
    from ponder.think import parse_strategy
    from ponder.train.data.traces import TraceSettings, write_traces

    if not args.output.absolute().parent.is_dir():
        raise InvalidRequest(f"{args.output}: the folder {args.output.absolute().parent} does not exist: make it first")
    effort = "high" if args.effort is None and args.thinking is None else args.effort
    settings = TraceSettings(
        problems=args.n, samples=args.samples, min_level=args.min_level, max_level=args.max_level, seed=args.seed
    )
    with load_reasoner(args.model, args.quantize) as reasoner:
        bill = run_sync(
            write_traces(
                reasoner.sampler,
                load_suite(args.tasks),
                settings,
                args.output,
                strategy=parse_strategy(args.strategy),
                asking={
                    "effort": effort,
                    "thinking": args.thinking,
                    "max_tokens": args.max_tokens,
                    "temperature": args.temperature,
                },
                concurrency=args.concurrency,
                tell=tell_bill,
            )
        )
    print(f"{args.output}: {bill}")
    return 0


def tell_bill(bill: Bill) -> None:
    """Progress, as answers come in."""
    print(bill, file=sys.stderr, flush=True)
