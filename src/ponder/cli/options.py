"""Options that several verbs share, and the reasoner they describe."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ponder.types import Effort

if TYPE_CHECKING:
    from ponder.think import Reasoner

MODEL_HELP = "a bundled model's name, a model folder, or an OpenAI-compatible endpoint as URL#MODEL (default: mini)"


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def add_asking(parser: argparse.ArgumentParser) -> None:
    """How a question is answered."""
    parser.add_argument("--model", default="mini", metavar="M", help=MODEL_HELP)
    parser.add_argument("--effort", choices=[effort.value for effort in Effort], help="how long to think")
    parser.add_argument(
        "--strategy", default="direct", metavar="S", help='direct, or such as "consensus(samples=8)" (default: direct)'
    )
    parser.add_argument("--max-tokens", type=positive, metavar="N", help="of each completion, thinking included")
    parser.add_argument("--temperature", type=float, metavar="T", help="0 is greedy, the default for one answer")
    parser.add_argument("--seed", type=int, metavar="N", help="makes sampled answers repeatable")


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """The settings of `Reasoner.ask` that the options of `add_asking` describe."""
    return {
        "effort": Effort(args.effort) if args.effort else None,
        "strategy": args.strategy,
        "max_tokens": args.max_tokens,
        "temperature": args.temperature,
        "seed": args.seed,
    }


def load(model: str) -> Reasoner:
    """`ponder.load`, with the remote model's name after the # of an endpoint's URL."""
    from ponder.front import load as load_model

    address, mark, remote = model.partition("#")
    if mark and address.startswith(("http://", "https://")):
        return load_model(address, model=remote)
    return load_model(model)
