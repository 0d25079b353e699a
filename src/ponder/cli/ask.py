"""`ponder ask`: one question, one answer."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from ponder.cli.options import add_asking, load_reasoner, settings
from ponder.cli.terminal import CUT_OFF, DIM, Screen, bill_text
from ponder.types import InvalidRequest

if TYPE_CHECKING:
    from ponder.think import Answer, Reasoner

NAME = "ask"
HELP = "ask one question and print the answer"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("question", metavar="QUESTION", help="the question; - reads it from standard input")
    add_asking(parser)
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--show-reasoning", action="store_true", help="print the thinking before the answer")
    shown.add_argument("--json", action="store_true", help="print answer, reasoning, stop_reason and usage as JSON")


def run(args: argparse.Namespace) -> int:
    question = read_question(args.question)
    with load_reasoner(args.model, args.quantize, args.speculate, args.draft) as reasoner:
        screen = Screen(show_reasoning=args.show_reasoning)
        if args.json or not screen.stream.isatty():
            answer = reasoner.ask(question, **settings(args))
            print(printed(answer, args))
        else:
            answer = streamed(reasoner, question, args, screen)
    notes = Screen(sys.stderr)
    if why := CUT_OFF.get(answer.stop_reason):
        notes.line(f"ponder ask: the answer was cut off: {why}")
    if notes.stream.isatty():
        notes.line(bill_text(answer.usage), DIM)
    return 0


def streamed(reasoner: Reasoner, question: str, args: argparse.Namespace, screen: Screen) -> Answer:
    """The answer, shown as it comes."""
    with reasoner.stream(question, **settings(args)) as stream:
        for piece in stream:
            screen.piece(piece.phase, piece.text, piece.voice)
        screen.end()
        return stream.answer


def printed(answer: Answer, args: argparse.Namespace) -> str:
    """The answer as a program reads it."""
    if args.json:
        return json.dumps(as_json(answer), ensure_ascii=False, indent=2)
    return f"{answer.reasoning}\n\n{answer.text}" if args.show_reasoning and answer.reasoning else answer.text


def read_question(text: str) -> str:
    """The question itself, or what standard input holds for "-"; without a final line break."""
    question = sys.stdin.read().rstrip("\r\n") if text == "-" else text
    if not question.strip():
        raise InvalidRequest("the question is empty: write one, or - to read it from standard input")
    return question


def as_json(answer: Answer) -> dict[str, object]:
    """The answer as `--json` prints it."""
    usage = answer.usage
    return {
        "answer": answer.text,
        "reasoning": answer.reasoning,
        "stop_reason": answer.stop_reason.value,
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "reasoning_tokens": usage.reasoning_tokens,
            "cached_tokens": usage.cached_tokens,
        },
    }
