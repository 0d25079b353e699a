"""`ponder lint`: a prompt against the published advice for reasoning models, with place, reason and rewrite."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from ponder.types import InvalidRequest

NAME = "lint"
HELP = "check a prompt against the published advice for reasoning models (exit code 1: something was found)"
TARGETS = ("openai", "claude", "gemini", "deepseek-r1", "qwen3")
FOUND = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", metavar="PROMPT", help="a file that holds the prompt, or - for the standard input")
    parser.add_argument(
        "--target", choices=TARGETS, default="openai", help="whose advice: makers disagree (default: openai)"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the findings as JSON")
    form.add_argument("--rewrite", action="store_true", help="print the rewritten prompt alone")


def run(args: argparse.Namespace) -> int:
    from ponder.think.lint import LintTarget, lint_prompt, rewritten

    target, prompt = LintTarget(args.target), _read(args.prompt)
    findings = lint_prompt(prompt, target)
    if args.rewrite:
        sys.stdout.write(rewritten(prompt, target))
    elif args.json:
        listed = [asdict(each) | {"text": prompt[each.begin : each.end]} for each in findings]
        print(json.dumps({"target": target, "findings": listed}, indent=2, ensure_ascii=False))
    else:
        name = "-" if args.prompt == "-" else str(args.prompt)
        for each in findings:
            line, column = _place(prompt, each.begin)
            print(f"{name}:{line}:{column}: {each.rule}: {prompt[each.begin : each.end].strip()!r}")
            print(f"    {each.reason}")
            if each.other is not None:
                line, column = _place(prompt, each.other[0])
                print(f"    against line {line}, column {column}: {prompt[slice(*each.other)]!r}")
            print(f"    instead: {each.rewrite!r}" if each.rewrite else "    instead: leave it out")
        print(f"{len(findings)} found" if findings else f"nothing found (advice for {target})")
    return FOUND if findings else 0


def _read(where: str) -> str:
    try:
        return sys.stdin.read() if where == "-" else Path(where).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{where}: cannot be read ({error}): name a text file, or - for the input") from None


def _place(text: str, at: int) -> tuple[int, int]:
    """Line and column, from 1."""
    return text.count("\n", 0, at) + 1, at - (text.rfind("\n", 0, at) + 1) + 1
