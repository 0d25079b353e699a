"""Options that several verbs share, and the reasoner they describe."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ponder.types import Effort, InvalidRequest

if TYPE_CHECKING:
    from ponder.sampler.protocol import Grammar
    from ponder.think import Reasoner, RunSettings

MODEL_HELP = (
    "a bundled model's name, a model folder, a GGUF file, org/name in Hugging Face's local cache, or an "
    "OpenAI-compatible endpoint as URL#MODEL, with its dialect in front where it has one (vllm+URL#MODEL, "
    "deepseek+URL#MODEL) (default: mini)"
)


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1 (got {number})")
    return number


def natural(text: str) -> int:
    """A whole number of at least 0, for argparse."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0 (got {number})")
    return number


def seconds_above_zero(text: str) -> float:
    """Seconds, for argparse."""
    seconds = float(text)
    if not 0 < seconds < 86_400:
        raise argparse.ArgumentTypeError(f"must be above 0 and under a day (got {text})")
    return seconds


def add_asking(parser: argparse.ArgumentParser) -> None:
    """How a question is answered."""
    parser.add_argument("--model", default="mini", metavar="M", help=MODEL_HELP)
    add_quantize(parser)
    add_speculate(parser)
    add_thinking(parser, effort="how long to think")
    parser.add_argument(
        "--min-thinking", type=natural, metavar="N", help="thinking tokens before which the thinking may not end"
    )
    parser.add_argument(
        "--strategy",
        default="direct",
        metavar="S",
        help='direct, one such as "consensus(samples=8)", or a function of yours as FILE.py:NAME (default: direct)',
    )
    parser.add_argument("--max-tokens", type=positive, metavar="N", help="of each completion, thinking included")
    parser.add_argument("--temperature", type=float, metavar="T", help="0 is greedy, the default for one answer")
    parser.add_argument("--seed", type=int, metavar="N", help="makes sampled answers repeatable")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--schema", type=Path, metavar="FILE", help="the answer is JSON that this JSON schema accepts")
    form.add_argument("--regex", metavar="R", help="the answer matches this regular expression as a whole")


def add_thinking(parser: argparse.ArgumentParser, *, effort: str) -> None:
    """How long to think, as a word or in tokens.

    effort: the word's help.
    """
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--effort", choices=[each.value for each in Effort], help=effort)
    length.add_argument(
        "--thinking",
        type=natural,
        metavar="N",
        help="exact cap on thinking tokens instead, over all contexts of a folded thought; 0: answer at once",
    )


def add_quantize(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--quantize",
        choices=["int8", "int4"],
        help="compute with weights rounded to 8 or 4 bits (local model, bfloat16, CPU)",
    )


def add_speculate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--speculate",
        choices=["auto", "on", "off"],
        help="guess later tokens from what was said before and run them beside the known one; what is drawn stays the "
        "same. auto: for few streams, where guesses have been right (local model; default: auto)",
    )
    parser.add_argument(
        "--draft",
        metavar="MODEL",
        help="a small local model of the same vocabulary that guesses where nothing is found",
    )


def settings(args: argparse.Namespace) -> RunSettings:
    """The settings of `Reasoner.ask` that the options of `add_asking` describe."""
    return {
        "effort": args.effort,
        "thinking": args.thinking,
        "min_thinking": args.min_thinking or 0,
        "strategy": args.strategy,
        "max_tokens": args.max_tokens,
        "temperature": args.temperature,
        "seed": args.seed,
        "grammar": grammar(args),
    }


def grammar(args: argparse.Namespace) -> Grammar | None:
    """What --schema or --regex asks for. Raises InvalidRequest for a file that cannot be read."""
    from ponder.sampler.protocol import JsonSchema, Regex

    if args.regex is not None:
        return Regex(args.regex)
    if args.schema is None:
        return None
    try:
        return JsonSchema(args.schema.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"--schema {args.schema}: {error}") from None


def load_reasoner(
    model: str, quantize: str | None = None, speculate: str | None = None, draft: str | None = None, **options: Any
) -> Reasoner:
    """`ponder.load`, of what MODEL_HELP says. options: as `ponder.load` takes them. Raises InvalidRequest."""
    from ponder.front import load as load_model
    from ponder.sampler.opening import ENDPOINT, find_model

    given = {"quantize": quantize, "speculate": speculate, "draft": draft and find_model(draft)}
    local: dict[str, Any] = {name: value for name, value in given.items() if value}
    if local and ENDPOINT.fullmatch(model):
        raise InvalidRequest(f"--{next(iter(local))} is for local models, and {model} is an endpoint: leave it out")
    return load_model(model, **local, **options)
