"""`ponder rank`: answers of a model, shown blind and shuffled, ranked by a person: the data of preference training."""

from __future__ import annotations

import argparse
import getpass
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ponder.cli.options import MODEL_HELP, add_quantize, add_thinking, load_reasoner, natural
from ponder.cli.terminal import BOLD, DIM, HARMLESS, Screen
from ponder.types import InvalidRequest

if TYPE_CHECKING:
    from ponder.evaluate.rank import AnswerFile, Session, Shown
    from ponder.think import RunSettings

NAME = "rank"
HELP = "have answers of a model ranked by a person, as data for reward, dpo and their kin"
HOW = "letters, the best first: `b a=c` (a and c alike), `b a # why`; s skips, q ends and keeps what is there"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "prompts", metavar="PROMPTS", type=Path, help='a prompt on each line, or JSON lines with "prompt"'
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, required=True, help="the judgements, in JSON lines"
    )
    parser.add_argument("--model", default="mini", metavar="M", help=MODEL_HELP)
    add_quantize(parser)
    add_thinking(parser, effort="how long to think")
    parser.add_argument("-n", type=natural, default=4, metavar="N", help="answers to each prompt (default: 4)")
    parser.add_argument(
        "--temperature",
        type=float,
        action="append",
        metavar="T",
        help="of the answers; may be given several times, taken in turn (default: 1)",
    )
    parser.add_argument(
        "--strategy",
        action="append",
        metavar="S",
        help="how answers are made; may be given several times (default: direct)",
    )
    parser.add_argument("--max-tokens", type=natural, metavar="N", help="of each answer, thinking included")
    parser.add_argument("--rater", default=None, metavar="NAME", help="who judges (default: the name of the user)")
    parser.add_argument(
        "--repeat",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="shown again later, for self-agreement (default: 0.1)",
    )
    parser.add_argument("--seed", type=natural, default=0, metavar="N", help="of answers and orders (default: 0)")
    parser.add_argument(
        "--pairs", type=Path, metavar="FILE", help="also write the judgements as pairs, as TRL reads them"
    )


def run(args: argparse.Namespace) -> int:
    from ponder.evaluate.rank import AnswerFile, Session
    from ponder.evaluate.raters import ordinal_alpha, pairs_alike, self_agreement

    answers = AnswerFile(args.output.with_suffix(".answers.jsonl"))
    make_all(args, answers)
    rater = args.rater or getpass.getuser()
    session = Session(args.output, answers.sets, rater=rater, repeat=args.repeat, seed=args.seed)
    screen = Screen()
    while (shown := session.next()) is not None:
        if not judge(session, shown, screen):
            break
    agreed = self_agreement(session.records)
    print(f"{args.output}: {len(session.records)} judgements, {session.left} sets left for {rater}")
    if agreed is not None:
        print(f"self-agreement: {agreed[0]:.2f} of {agreed[1]} pairs that were shown twice")
    for name, found in (("pairs that raters order alike", pairs_alike), ("alpha (ordinal)", ordinal_alpha)):
        if (value := found(session.records)) is not None:
            between = f" ({value.interval.low:.2f} to {value.interval.high:.2f})" if value.interval else ""
            print(f"{name}: {value.value:.2f}{between}")
    if args.pairs:
        write_pairs(args.output, args.pairs)
    return 0


def make_all(args: argparse.Namespace, answers: AnswerFile) -> None:
    """Answers to the prompts that have none yet."""
    from ponder.evaluate.rank import make_answers
    from ponder.tasks.prompts import prompts_of_file

    missing = [each for each in prompts_of_file(args.prompts) if not answers.holds(each[1])]
    if not missing:
        return
    settings: RunSettings = {"effort": args.effort, "thinking": args.thinking, "max_tokens": args.max_tokens}
    with load_reasoner(args.model, args.quantize) as reasoner:
        for number, (where, prompt) in enumerate(missing, 1):
            made = make_answers(
                reasoner,
                prompt,
                args.n,
                strategies=args.strategy or ("direct",),
                temperatures=args.temperature or (1.0,),
                seed=args.seed,
                settings=settings,
            )
            answers.add(made)
            few = "" if len(made.answers) > 1 else f"; {where} has fewer than 2 different whole answers: not shown"
            print(f"answers to {number}/{len(missing)} prompts{few}", file=sys.stderr, flush=True)


def judge(session: Session, shown: Shown, screen: Screen) -> bool:
    """Show one set and take its judgement. False: the person has ended it."""
    from ponder.evaluate.rank import parse_ranks

    answers = session.sets[shown.number]
    screen.line()
    for message in answers.prompt:
        screen.line(f"{message.role}: {message.text}".translate(HARMLESS), BOLD)
    for letter, place in zip("abcdefghijklmnopqrstuvwxyz", shown.order, strict=False):
        screen.line(f"[{letter}] {answers.answers[place].text}".translate(HARMLESS))
    while True:
        screen.line(f"{session.left} left. {HOW}", DIM)
        line = sys.stdin.readline()
        said, _, reason = line.partition("#")
        word = said.strip().lower()
        if not line or word == "q":
            return False
        if word == "s":
            session.add(shown, [None] * len(shown.order), reason.strip())
            return True
        try:
            ranks = parse_ranks(said, len(shown.order))
        except InvalidRequest as error:
            screen.line(str(error))
            continue
        session.add(shown, ranks, reason.strip())
        return True


def write_pairs(judgements: Path, target: Path) -> None:
    from ponder.model.storage import write_text
    from ponder.train.data.preferences import read_rankings, trl_pairs

    pairs = [pair for _, ranking in read_rankings(judgements) for pair in trl_pairs(ranking)]
    write_text(target, "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs))
    print(f"{target}: {len(pairs)} pairs")
