"""`ponder demo`: problems that reasoning-gym draws, solved with the thinking in view; the same answered at once, to
compare; a second turn that shows what is kept and what is discarded; the bill."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ponder.cli.options import MODEL_HELP, load_reasoner, positive
from ponder.cli.terminal import BOLD, DIM, GREEN, RED, Screen, bill_text
from ponder.types import Effort, Usage

if TYPE_CHECKING:
    from ponder.tasks.gym import GymTask
    from ponder.tasks.protocol import Problem
    from ponder.think import Answer, Reasoner

NAME = "demo"
HELP = "watch a model think: held-out problems by reasoning-gym, with and without thinking"
DATASETS = ("products", "chain_sum", "gcd", "letter_counting", "spell_backward")


@dataclass(frozen=True)
class DemoProblem:
    """A problem and the dataset that drew it and will grade it."""

    task: GymTask
    problem: Problem

    def solved(self, answer: Answer) -> bool:
        return self.task.grade(self.problem, answer.text).solved


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="mini", metavar="M", help=MODEL_HELP)
    parser.add_argument("-n", type=positive, default=10, help="problems of each kind for the comparison (default: 10)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="other problems, all held out (default: 0)")


def run(args: argparse.Namespace) -> int:
    from ponder.tasks.gym import TRAIN_LIMIT, GymTask

    screen = Screen()
    tasks = [GymTask(dataset) for dataset in DATASETS]
    first = TRAIN_LIMIT + 1_000 * args.seed
    drawn = [[DemoProblem(task, task.problem(first + index)) for index in range(args.n)] for task in tasks]
    started = time.monotonic()
    with load_reasoner(args.model) as reasoner:
        screen.line(f"{reasoner.name}: problems {first:,} and up of reasoning-gym, which no training may see", BOLD)
        usage = watch(screen, reasoner, [each[0] for each in drawn])
        usage += compare(screen, reasoner, drawn)
        usage += second_turn(screen, reasoner, drawn[0][0], drawn[0][-1])
    screen.line(f"\nThe bill: {bill_text(usage)}, {time.monotonic() - started:.0f} s.", BOLD)
    return 0


def watch(screen: Screen, reasoner: Reasoner, problems: Sequence[DemoProblem]) -> Usage:
    """One problem of each kind, the thinking as it comes."""
    total = Usage()
    for each in problems:
        screen.line(f"\n{each.problem.question}", BOLD)
        with reasoner.stream(each.problem.question, effort=Effort.HIGH) as stream:
            for piece in stream:
                screen.piece(piece.phase, piece.text, piece.voice)
            screen.end()
        mark = verdict(screen, each.solved(stream.answer))
        screen.line(f"{mark}  {screen.paint(bill_text(stream.answer.usage), DIM)}")
        total += stream.answer.usage
    return total


def compare(screen: Screen, reasoner: Reasoner, drawn: Sequence[Sequence[DemoProblem]]) -> Usage:
    """Every problem twice by the same weights, thinking and direct, as a table of how many were solved."""
    everything = [each for kind in drawn for each in kind]
    questions = [each.problem.question for each in everything]
    rows = []
    total = Usage()
    for effort in (Effort.HIGH, Effort.NONE):
        answers = reasoner.ask_many(questions, effort=effort)
        rows.append([each.solved(answer) for each, answer in zip(everything, answers, strict=True)])
        total += sum((answer.usage for answer in answers), Usage())
    screen.line(f"\nThe same {len(everything)} problems, thinking and answered at once by the same weights", BOLD)
    screen.line(f"{'':<18}{'thinking':>9}{'direct':>9}")
    for number, kind in enumerate(drawn):
        part = slice(number * len(kind), (number + 1) * len(kind))
        thinking, direct = (f"{sum(row[part])}/{len(kind)}" for row in rows)
        screen.line(f"{kind[0].task.dataset:<18}{thinking:>9}{direct:>9}")
    return total


def second_turn(screen: Screen, reasoner: Reasoner, first: DemoProblem, then: DemoProblem) -> Usage:
    """Two questions in one conversation, and what the second turn still holds of the first."""
    conversation = reasoner.conversation(effort=Effort.HIGH)
    screen.line("\nTwo turns of one conversation", BOLD)
    answers = []
    for each in (first, then):
        answer = conversation.say(each.problem.question)
        answers.append(answer)
        shown = verdict(screen, each.solved(answer))
        screen.line(f"> {each.problem.question}\n{answer.text}  {shown}  {screen.paint(bill_text(answer.usage), DIM)}")
    before, now = conversation.account
    screen.line(
        f"The second prompt has {now.prompt_tokens} tokens: the first question and answer are in it (kept), the first "
        f"thinking is not ({before.reasoning_tokens} tokens discarded); {now.cached_tokens} were in the cache."
    )
    return answers[0].usage + answers[1].usage


def verdict(screen: Screen, solved: bool) -> str:
    return screen.paint("right", GREEN) if solved else screen.paint("wrong", RED)
