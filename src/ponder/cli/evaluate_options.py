"""The options of `ponder eval`, by what they are for, and how their values are read."""

from __future__ import annotations

import argparse
from pathlib import Path

from ponder.cli.options import MODEL_HELP, add_quantize, add_thinking, natural, positive

CAPS = (0, 16, 32, 64, 128, 256, 512, 1024)


def add_eval_options(parser: argparse.ArgumentParser) -> None:
    """Everything that `ponder eval` takes."""
    _add_problems(parser)
    _add_modes(parser.add_argument_group("modes and strategies"))
    _add_votes(parser.add_argument_group("the consensus"))
    _add_compute(parser.add_argument_group("strategies against compute"))
    _add_curve(parser.add_argument_group("accuracy against thinking"))
    _add_instead(parser.add_argument_group("measured instead of the modes"))
    _add_forgetting(parser.add_argument_group("models that were tuned one from the other"))


def _add_problems(parser: argparse.ArgumentParser) -> None:
    """What is measured on which problems, and where the numbers go."""
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP.removesuffix(" (default: mini)"))
    parser.add_argument(
        "--suite",
        required=True,
        metavar="S",
        help='"mini", "families", "families-hard", "plain", "further", "further-hard", "further-plain", "scope", '
        '"audit", or task names with commas between: "gym:lcm@hard,mine.py:Task"',
    )
    parser.add_argument("-n", type=positive, default=100, help="problems of each task (default: 100)")
    parser.add_argument("--start", type=int, default=0, metavar="N", help="number of the first held-out problem")
    parser.add_argument(
        "--trained-on",
        type=Path,
        action="append",
        metavar="FILE",
        help="question hashes of the training data, to report unseen questions apart; may be given again, for each run",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers as JSON")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables as Markdown")
    add_thinking(parser, effort="of the thinking modes and strategies (default: high)")
    add_quantize(parser)


def _add_modes(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--modes",
        type=names,
        metavar="M,…",
        help="which of direct, thinking, consensus (default: all, or none beside --strategy); none: only the others",
    )
    group.add_argument(
        "--strategy",
        action="extend",
        type=strategy_texts,
        default=[],
        metavar="S,…",
        help='strategies to measure too, such as "consensus(samples=4)" or FILE.py:NAME; may be given again',
    )


def _add_votes(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--samples", type=positive, default=8, metavar="N", help="votes of the consensus; 1: leave it out (default: 8)"
    )
    group.add_argument(
        "--pass-at",
        type=rising_numbers,
        metavar="K,…",
        help="the k for pass@k of the consensus's samples (default: doublings up to --samples)",
    )
    group.add_argument(
        "--temperature", type=float, default=1.0, metavar="T", help="of the consensus's samples (default: 1)"
    )
    group.add_argument("--seed", type=int, default=0, metavar="N", help="of the consensus's samples")
    group.add_argument(
        "--plot-pass-at", type=Path, metavar="FILE", help="draw pass@k of the consensus's samples: .png, .svg, .pdf"
    )


def _add_compute(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--budget",
        type=rising_numbers,
        metavar="T,…",
        help="compare the strategies by compute: each on the same problems, under each budget of tokens for a problem",
    )
    group.add_argument(
        "--oracle", action="store_true", help="beside --budget: the task's own grade is the strategies' verifier"
    )
    group.add_argument(
        "--plot-compute",
        type=Path,
        metavar="FILE",
        help="beside --budget: draw accuracy against compute and wall time: .png, .svg, .pdf",
    )


def _add_curve(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--cap-curve",
        type=caps,
        nargs="?",
        const=CAPS,
        metavar="CAPS",
        help=f"also measure accuracy under caps on thinking tokens (default: {','.join(map(str, CAPS))})",
    )
    group.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw the cap curve (and measure it): .png, .svg, .pdf"
    )


def _add_instead(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--wordings",
        type=Path,
        nargs=2,
        metavar=("BEFORE", "AFTER"),
        help="two files with {question} in them: what the second wording changes, on the same problems (by one "
        "--strategy; default: direct)",
    )
    group.add_argument(
        "--audit",
        action="store_true",
        help="whether the answers depend on the thinking (it is cut, a step of it is changed), and whether the score "
        "holds for other questions of the same kind (docs/audits.md); --modes none: only the thinking",
    )
    group.add_argument("--page", type=Path, metavar="FILE", help="beside --audit: the same as one HTML file")
    group.add_argument(
        "--planted",
        type=natural,
        default=20,
        metavar="N",
        help="beside --audit: steps of each kind whose use is known, to say how often the audit is right (default: 20)",
    )


def _add_forgetting(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--forgetting",
        nargs="+",
        metavar="MODEL",
        help="models that were tuned from MODEL, one from the other in this order: what each still solves, backward "
        "transfer and forgetting",
    )
    group.add_argument(
        "--learned",
        action="append",
        default=[],
        metavar="TASKS",
        help="what a model of --forgetting learned that is new, commas between; once for each model",
    )
    group.add_argument(
        "--prompts",
        type=natural,
        default=100,
        metavar="N",
        help="of -n, how many new prompts --forgetting measures on how far the models moved (default: 100; 0: not)",
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
