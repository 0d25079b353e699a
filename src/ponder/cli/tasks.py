"""`ponder tasks`: the families; of one task, some problems with their demonstrations and grades, and its lengths."""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from random import Random
from statistics import mean
from typing import TYPE_CHECKING

from ponder.cli.options import positive
from ponder.types import InvalidRequest

if TYPE_CHECKING:
    from ponder.tasks.check import Checked
    from ponder.tasks.families.working.family import ProblemFamily
    from ponder.tokenizer import Tokenizer

NAME = "tasks"
HELP = "list the families, or check a task of yours: problems, demonstrations, grades, lengths"
CHECKED = 100  # problems that are drawn and held to what a task promises
BANDS = 5  # of levels, in the table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "task", metavar="TASK", nargs="?", help='"products", "gym:NAME", "module:Class" or "path/to/file.py:Class"'
    )
    parser.add_argument("-n", type=positive, default=3, metavar="N", help="problems shown in full (default: 3)")
    parser.add_argument(
        "--lengths",
        type=positive,
        metavar="N",
        help="instead: a table of the tokens that N demonstrations of each family take, in the sizes of the default "
        "config and beyond; of TASK alone, which may be several families with commas between, or of all",
    )
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="DIR",
        help="whose tokens are counted, such as RUN/tokenizer (default: mini's)",
    )


def run(args: argparse.Namespace) -> int:
    from ponder.sampler.opening import find_model
    from ponder.tasks.check import check
    from ponder.tasks.registry import every_family, load_task
    from ponder.tokenizer import Tokenizer

    if args.task is None and args.lengths is None:
        print("\n".join(f"{name:24}{about(family)}" for name, family in every_family().items()))
        return 0
    tokenizer = Tokenizer.load(args.tokenizer or find_model("mini"))
    if args.lengths is not None:
        print(lengths_table(args.task.split(",") if args.task else [*every_family()], args.lengths, tokenizer))
        return 0
    checked = check(load_task(args.task), max(CHECKED, args.n))
    for place in range(args.n):
        print(shown(checked[place * (len(checked) - 1) // max(1, args.n - 1)]))
    print(table(checked, tokenizer))
    return 0


def about(family: ProblemFamily) -> str:
    """The first line of its file."""
    return (sys.modules[type(family).__module__].__doc__ or "").splitlines()[0]


def lengths_table(names: Sequence[str], count: int, tokenizer: Tokenizer) -> str:
    """Tokens by family: levels drawn evenly up to the default one, and from there to 1."""
    from ponder.tasks.registry import every_family

    lines = [
        "| family | levels | thinking, mean | thinking, p99 | longest context, mean | longest context, p99 |",
        "|---|---|---|---|---|---|",
    ]
    for name in names:
        family = every_family().get(name.strip())
        if family is None:
            known = ", ".join(every_family())
            raise InvalidRequest(f"--lengths: there is no family {name.strip()!r}: there are {known}")
        default = family.default_level
        for low, high in [(0.0, default)] + ([(default, 1.0)] if default < 1 else []):
            counts = [_lengths_at(family, low + (high - low) * (n + 0.5) / count, tokenizer, n) for n in range(count)]
            cells = (f"{mean(each):.0f} | {sorted(each)[ceil(0.99 * count) - 1]}" for each in zip(*counts, strict=True))
            lines.append(f"| `{name.strip()}` | {'default' if low == 0 else 'beyond'} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _lengths_at(family: ProblemFamily, level: float, tokenizer: Tokenizer, number: int) -> tuple[int, int]:
    """Tokens of all thinking and of the longest context of one problem."""
    from ponder.tasks.check import Checked
    from ponder.tasks.protocol import Grade

    rng = Random(f"lengths {family.name} {level} {number}")
    problem = family.sample(rng, level)
    one = Checked(level, problem, family.demonstrate(problem, rng), Grade(score=1.0))
    _, thinking, _, longest = lengths(one, tokenizer)
    return thinking, longest


def shown(one: Checked) -> str:
    """Question, working, answer, and what the grader says of it."""
    working = f"{one.demonstration.text}\n\n" if one.demonstration else ""
    answer = one.demonstration.answer if one.demonstration else one.problem.answer
    verdict = f"{one.grade.score:g}" + (f", {one.grade.why}" if one.grade.why else "")
    return f"level {one.level:.2f}: {one.problem.question}\n\n{working}{answer}\n(grade: {verdict})\n"


def table(checked: Sequence[Checked], tokenizer: Tokenizer) -> str:
    """Lengths by level, and what was found of all problems."""
    lines = ["| level | question | thinking | answer | longest context |", "|---|---|---|---|---|"]
    bands: dict[int, list[tuple[int, ...]]] = defaultdict(list)
    for one in checked:
        bands[int(one.level * BANDS)].append(lengths(one, tokenizer))
    for band, counts in bands.items():
        *parts, contexts = zip(*counts, strict=True)
        means = " | ".join(f"{mean(part):.0f}" for part in parts)
        lines.append(f"| {band / BANDS:.1f} to {(band + 1) / BANDS:.1f} | {means} | {max(contexts)} |")
    questions = len({one.problem.question for one in checked})
    accepted = "demonstration" if checked[0].demonstration else "problem's own answer (the task has no `demonstrate`)"
    return "\n".join(
        [
            *lines,
            f"Tokens, on average but for the longest context. {len(checked)} problems, {questions} different questions;"
            f" the grader accepts every {accepted} and no empty answer.",
        ]
    )


def lengths(one: Checked, tokenizer: Tokenizer) -> tuple[int, int, int, int]:
    """Tokens of the question, of all thinking, of the answer, and of the longest context: what `sequence` must hold."""
    from ponder.dialogue import Message, load_format
    from ponder.dialogue.messages import Part, Reasoning, Role, Text
    from ponder.tasks.protocol import Demonstration, without_marks

    told = one.demonstration or Demonstration(reasoning="", answer=one.problem.answer)
    thoughts = [Reasoning(without_marks(text)) for text in (*(fold.thought for fold in told.folds), told.reasoning)]
    states = [Reasoning(without_marks(fold.state), state=True) for fold in told.folds]
    ids = tuple(token for piece in told.pieces or (told.answer,) for token in tokenizer.encode(piece))
    longest = 0
    for number, thought in enumerate(thoughts):  # each context alone: a state before it, a state or answer after it
        parts: tuple[Part, ...] = (*states[max(0, number - 1) : number], *([thought] if thought.text else []))
        parts += (states[number],) if number < len(states) else (Text(told.answer, ids),)
        dialogue = [Message.user(one.problem.question), Message(Role.ASSISTANT, parts)]
        longest = max(longest, len(load_format(tokenizer).contexts(dialogue)[min(number, 1)].ids))
    thinking = sum(len(tokenizer.encode(part.text)) for part in (*thoughts, *states))
    return len(tokenizer.encode(one.problem.question)), thinking, len(ids), longest
