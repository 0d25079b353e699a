"""`ponder eval`: how much of a suite a model solves, directly, thinking and by consensus, and what that costs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ponder.cli.options import MODEL_HELP, add_quantize, add_thinking, load_reasoner, natural, positive
from ponder.types import InvalidRequest

if TYPE_CHECKING:
    from ponder.evaluate import Curve, Result
    from ponder.tasks.protocol import Task
    from ponder.think import AskSettings, Reasoner

NAME = "eval"
HELP = "measure a model on held-out problems: direct, thinking and consensus, with intervals"
CAPS = (0, 16, 32, 64, 128, 256, 512, 1024)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP.removesuffix(" (default: mini)"))
    parser.add_argument(
        "--suite",
        required=True,
        metavar="S",
        help='"mini", "families", "families-hard", "plain", "scope", or task names with commas between: '
        '"gym:lcm@hard,mine.py:Task"',
    )
    parser.add_argument("-n", type=positive, default=100, help="problems of each task (default: 100)")
    parser.add_argument("--start", type=int, default=0, metavar="N", help="number of the first held-out problem")
    parser.add_argument(
        "--modes",
        type=names,
        metavar="M,…",
        help="which of direct, thinking, consensus (default: all, or none beside --strategy); none: only the others",
    )
    parser.add_argument(
        "--strategy",
        action="extend",
        type=strategy_texts,
        default=[],
        metavar="S,…",
        help='strategies to measure too, such as "consensus(samples=4)" or FILE.py:NAME; may be given again',
    )
    parser.add_argument(
        "--budget",
        type=rising_numbers,
        metavar="T,…",
        help="compare the strategies by compute: each on the same problems, under each budget of tokens for a problem",
    )
    parser.add_argument(
        "--oracle", action="store_true", help="beside --budget: the task's own grade is the strategies' verifier"
    )
    parser.add_argument(
        "--plot-compute",
        type=Path,
        metavar="FILE",
        help="beside --budget: draw accuracy against compute and wall time: .png, .svg, .pdf",
    )
    parser.add_argument(
        "--wordings",
        type=Path,
        nargs=2,
        metavar=("BEFORE", "AFTER"),
        help="two files with {question} in them: what the second wording changes, on the same problems, instead of the "
        "modes (by one --strategy; default: direct)",
    )
    add_thinking(parser, effort="of the thinking modes and strategies (default: high)")
    parser.add_argument(
        "--samples", type=positive, default=8, metavar="N", help="votes of the consensus; 1: leave it out (default: 8)"
    )
    parser.add_argument(
        "--pass-at",
        type=rising_numbers,
        metavar="K,…",
        help="the k for pass@k of the consensus's samples (default: doublings up to --samples)",
    )
    parser.add_argument(
        "--temperature", type=float, default=1.0, metavar="T", help="of the consensus's samples (default: 1)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the consensus's samples")
    add_quantize(parser)
    parser.add_argument(
        "--trained-on",
        type=Path,
        action="append",
        metavar="FILE",
        help="question hashes of the training data, to report unseen questions apart; may be given again, for each run",
    )
    parser.add_argument(
        "--forgetting",
        nargs="+",
        metavar="MODEL",
        help="models that were tuned from MODEL, one from the other in this order: what each still solves, backward "
        "transfer and forgetting",
    )
    parser.add_argument(
        "--learned",
        action="append",
        default=[],
        metavar="TASKS",
        help="what a model of --forgetting learned that is new, commas between; once for each model",
    )
    parser.add_argument(
        "--prompts",
        type=natural,
        default=100,
        metavar="N",
        help="of -n, how many new prompts --forgetting measures on how far the models moved (default: 100; 0: not)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers as JSON")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables as Markdown")
    parser.add_argument(
        "--cap-curve",
        type=caps,
        nargs="?",
        const=CAPS,
        metavar="CAPS",
        help=f"also measure accuracy under caps on thinking tokens (default: {','.join(map(str, CAPS))})",
    )
    parser.add_argument(
        "--plot-pass-at", type=Path, metavar="FILE", help="draw pass@k of the consensus's samples: .png, .svg, .pdf"
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw the cap curve (and measure it): .png, .svg, .pdf"
    )


def names(text: str) -> tuple[str, ...]:
    """Names with commas between, for argparse; "none" are none."""
    return () if text == "none" else tuple(part.strip() for part in text.split(","))


def strategy_texts(text: str) -> list[str]:
    """Strategies with commas between, for argparse; those inside brackets are arguments."""
    found, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and not depth:
            found.append("")
        else:
            found[-1] += character
    return [each.strip() for each in found]


def rising_numbers(text: str) -> tuple[int, ...]:
    """Rising whole numbers from 1 with commas between, for argparse."""
    found = caps(text)
    if found[0] < 1:
        raise argparse.ArgumentTypeError(
            f"must be whole numbers from 1 up, each larger than the one before (got {text!r})"
        )
    return found


def caps(text: str) -> tuple[int, ...]:
    """Rising whole numbers with commas between, for argparse."""
    numbers = tuple(int(part) for part in text.split(","))
    if list(numbers) != sorted(set(numbers)) or numbers[0] < 0:
        raise argparse.ArgumentTypeError(
            f"must be whole numbers from 0 up, each larger than the one before (got {text!r})"
        )
    return numbers


def run(args: argparse.Namespace) -> int:
    from ponder.evaluate import (
        evaluate,
        load_suite,
        plot_curves,
        plot_pass_at,
        read_hashes,
        standard_modes,
        table_of_curves,
    )
    from ponder.model.storage import write_text

    if args.samples < max(args.pass_at or (1,)):
        raise InvalidRequest(
            f"--pass-at {max(args.pass_at)} needs at least that many --samples (got {args.samples}): raise "
            "--samples, or lower --pass-at"
        )
    votes = args.samples > 1 and (args.modes is None or "consensus" in args.modes)
    if not votes and (args.pass_at or args.plot_pass_at):
        raise InvalidRequest(
            "pass@k is measured on the samples of the mode consensus: add it to --modes, and give --samples "
            "of at least 2"
        )
    if (args.oracle or args.plot_compute) and not args.budget:
        raise InvalidRequest("--oracle and --plot-compute are of the comparison by compute: give --budget")
    if args.budget and (args.modes or not args.strategy):
        raise InvalidRequest("--budget compares the strategies that are given: give --strategy, and leave out --modes")
    for file in filter(None, (args.json, args.markdown, args.plot, args.plot_pass_at, args.plot_compute)):
        if not file.absolute().parent.is_dir():
            raise InvalidRequest(f"{file}: the folder {file.absolute().parent} does not exist: make it first")
    if args.forgetting:
        return forgetting(args)
    if args.learned:
        raise InvalidRequest("--learned says what the models of --forgetting learned: name them too")
    if args.wordings:
        return compare_wordings(args)
    wanted_caps = args.cap_curve or (CAPS if args.plot else ())
    if args.strategy and args.modes is None:
        args.modes = ()
    if args.modes == () and not wanted_caps and not args.strategy:
        raise InvalidRequest("--modes none leaves nothing to measure: add --strategy or --cap-curve")
    if args.budget:
        return run_compute(args)
    modes = standard_modes(
        args.modes,
        strategies=args.strategy,
        effort=args.effort,
        thinking=args.thinking,
        samples=args.samples,
        temperature=args.temperature,
        seed=args.seed,
    )
    tasks = load_suite(args.suite)
    trained_on = frozenset().union(*map(read_hashes, args.trained_on)) if args.trained_on else None
    with load_reasoner(args.model, args.quantize) as reasoner:
        report = evaluate(
            reasoner.sampler,
            tasks,
            args.n,
            modes=modes,
            start=args.start,
            trained_on=trained_on,
            progress=tell,
            pass_at=args.pass_at,
            settings=how_long(args),
        )
        curves = measure_curves(reasoner, tasks, args.n, args.start, wanted_caps)
    tables = "\n".join([*([report.markdown()] if modes else []), *([table_of_curves(curves)] if curves else [])])
    print(tables, end="")
    if args.markdown:
        write_text(args.markdown, tables)
    if args.json:
        summary = report.summary() | ({"curves": [each.summary() for each in curves]} if curves else {})
        write_text(args.json, json.dumps(summary, indent=2) + "\n")
    if args.plot_pass_at:
        plot_pass_at(report.voted, args.plot_pass_at, args.pass_at)
    if args.plot:
        plot_curves(curves, args.plot)
    return 0


def forgetting(args: argparse.Namespace) -> int:
    """What models that were tuned one from the other still know. One strategy measures all: --strategy, or thinking."""
    from contextlib import ExitStack

    from ponder.evaluate import load_suite, measure_forgetting, standard_modes
    from ponder.model.storage import write_text

    if args.cap_curve or args.plot or args.plot_pass_at or args.pass_at or args.trained_on or args.modes is not None:
        raise InvalidRequest(
            "--forgetting takes --suite, --learned, -n, --start, --strategy, --effort or --thinking, --prompts, --json "
            "and --markdown: leave the others out"
        )
    if len(args.strategy) > 1:
        raise InvalidRequest(f"--forgetting measures by one strategy (got {len(args.strategy)}): leave the others out")
    modes = standard_modes(
        () if args.strategy else ("thinking",), strategies=args.strategy, effort=args.effort, thinking=args.thinking
    )
    (mode,) = modes.values()
    places = [args.model, *args.forgetting]
    with ExitStack() as stack:
        reasoners = [stack.enter_context(load_reasoner(place, args.quantize)) for place in places]
        found = measure_forgetting(
            [each.sampler for each in reasoners],
            load_suite(args.suite),
            [load_suite(each) for each in args.learned],
            args.n,
            mode,
            names=places,
            start=args.start,
            prompts=args.prompts,
            progress=tell,
        )
    print(found.markdown(), end="")
    if args.markdown:
        write_text(args.markdown, found.markdown())
    if args.json:
        write_text(args.json, json.dumps(found.summary(), indent=2) + "\n")
    return 0


def compare_wordings(args: argparse.Namespace) -> int:
    """What the second wording changes, a line for each task. Raises InvalidRequest for what cannot go with it."""
    from ponder.evaluate import held_out, load_suite
    from ponder.evaluate.wording import wording_effect
    from ponder.think import parse_strategy

    beside = {"--modes": args.modes, "--cap-curve": args.cap_curve, "--plot": args.plot, "--markdown": args.markdown}
    beside |= {"--pass-at": args.pass_at, "--plot-pass-at": args.plot_pass_at, "--trained-on": args.trained_on}
    for option, value in beside.items():
        if value is not None:
            raise InvalidRequest(f"{option} cannot be used beside --wordings: leave it out")
    if len(args.strategy) > 1:
        raise InvalidRequest(f"--wordings compares by one strategy (got {len(args.strategy)}): give one --strategy")
    try:
        before, after = (file.read_text(encoding="utf-8") for file in args.wordings)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"--wordings: {error}") from None
    strategy = parse_strategy(args.strategy[0] if args.strategy else "direct")
    effects = []
    with load_reasoner(args.model, args.quantize) as reasoner:
        for task in load_suite(args.suite):
            problems = held_out(task, args.n, start=args.start)
            effect = wording_effect(reasoner.sampler, task, problems, before, after, strategy, settings=how_long(args))
            print(effect.words(), flush=True)
            effects.append(effect)
    if args.json:
        from ponder.model.storage import write_text

        write_text(args.json, json.dumps([asdict(each) | {"measurable": each.measurable} for each in effects]) + "\n")
    return 0


def run_compute(args: argparse.Namespace) -> int:
    """Strategies under budgets of tokens, on the same problems."""
    from ponder.evaluate import (
        compare_strategies,
        compute_summary,
        held_out,
        load_suite,
        plot_compute,
        table_of_compute,
    )
    from ponder.model.storage import write_text
    from ponder.think import parse_strategy

    strategies = {text: parse_strategy(text) for text in args.strategy}
    problems = [(task, each) for task in load_suite(args.suite) for each in held_out(task, args.n, start=args.start)]
    with load_reasoner(args.model, args.quantize) as reasoner:
        points = compare_strategies(
            reasoner.sampler, problems, strategies, args.budget, oracle=args.oracle, settings=how_long(args)
        )
        title = f"{reasoner.name}, {args.suite}, {len(problems)} problems"
    table = table_of_compute(points)
    print(table, end="")
    if args.markdown:
        write_text(args.markdown, table)
    if args.json:
        write_text(args.json, json.dumps({"suite": args.suite, "points": compute_summary(points)}, indent=2) + "\n")
    if args.plot_compute:
        plot_compute(points, args.plot_compute, title)
    return 0


def how_long(args: argparse.Namespace) -> AskSettings:
    """What --effort and --thinking say, for strategies that are given by their text."""
    if args.effort is None and args.thinking is None:
        return {"effort": "high", "seed": args.seed}
    return {"effort": args.effort, "thinking": args.thinking, "seed": args.seed}


def measure_curves(reasoner: Reasoner, tasks: Sequence[Task], n: int, start: int, caps: Sequence[int]) -> list[Curve]:
    """Accuracy against the thinking cap, a curve for each task; none without caps."""
    from ponder.evaluate import curve, held_out

    curves = []
    for task in tasks if caps else ():
        each = curve(reasoner.sampler, task, held_out(task, n, start=start), caps)
        for result in each.results:
            tell(result)
        curves.append(each)
    return curves


def tell(result: Result) -> None:
    """Progress, as results come in."""
    print(
        f"{result.task} {result.mode}: solved {result.solved}/{result.n} in {result.seconds:.0f} s",
        file=sys.stderr,
        flush=True,
    )
