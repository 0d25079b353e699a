"""`ponder check`: whether the statements of a file contradict each other, and what follows from them."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ponder.cli.options import seconds_above_zero
from ponder.cli.terminal import HARMLESS
from ponder.types import InvalidRequest

if TYPE_CHECKING:
    from ponder.tasks.prove.document import Document, Statement
    from ponder.tasks.prove.prover import Proof
    from ponder.tasks.prove.translate import Translated

NAME = "check"
HELP = "find statements that contradict each other, and prove or refute conclusions, by z3"
DISAGREES = 1  # the exit code where something is contradictory, refuted or open


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="FILE", help="statements in controlled English or as formulas; - reads standard input"
    )
    parser.add_argument(
        "--seconds",
        type=seconds_above_zero,
        default=5.0,
        metavar="S",
        help="what the prover may take (default: 5)",
    )
    parser.add_argument(
        "--answer",
        metavar="FILE",
        help="FILE is an answer to the thought in the first file: judge each step, and whether the answer follows",
    )
    parser.add_argument(
        "--translator", metavar="MODEL", help="the model that translates what is not controlled English into formulas"
    )
    parser.add_argument("--formulas", action="store_true", help="print each statement's formula too: how it was read")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    from ponder.tasks.prove.document import read_document
    from ponder.tasks.prove.prover import Verdict, prove

    name, text = read_file(args.file)
    if args.answer is not None:
        return judge_thought(args, text)
    document, translated = read_document(text), None
    if document.unread and args.translator:
        document, translated = translate_rest(args.translator, text)
    if document.unread:
        raise InvalidRequest(told_unread(name, document, translated))
    if not document.statements and not document.goals:
        raise InvalidRequest(f"{name} holds no statements: write one a line, such as 'Ann is taller than Bo.'")
    proof = prove(document, args.seconds)
    if args.json:
        print(json.dumps(proof_as_json(document, proof, translated), ensure_ascii=False, indent=2))
    else:
        if translated is not None:
            print(translation_text(args.translator, translated).translate(HARMLESS))
        print(proof_text(document, proof, formulas=args.formulas).translate(HARMLESS))
    proved = all(each.verdict is Verdict.PROVED for each in proof.findings)
    return 0 if proof.consistent and proved else DISAGREES


def read_file(name: str) -> tuple[str, str]:
    """How the file is called in errors, and its text."""
    if name == "-":
        return "standard input", sys.stdin.read()
    try:
        return name, Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{name}: {error}") from None


def judge_thought(args: argparse.Namespace, thought: str) -> int:
    """Each step of a thought and of its answer, and what was not read."""
    from ponder.tasks.prove.thoughts import Standing, check_thought

    if args.translator or args.formulas or args.json:
        raise InvalidRequest("--answer prints its steps alone: leave --translator, --formulas and --json out")
    checked = check_thought(thought, read_file(args.answer)[1], seconds=args.seconds)
    if not checked.answer:
        raise InvalidRequest(f"{args.answer}: no sentence can be read: write the answer as a sentence")
    for head, steps in (("Thought", checked.thought), ("Answer", checked.answer)):
        print(f"{head}:")
        for each in steps:
            against = f" (against: {' / '.join(one.text for one in each.against)})" if each.against else ""
            print(f"  {each.standing.value:14}{each.step.text}{against}".translate(HARMLESS))
    if checked.unread:
        print("Not read, so not judged:")
        for unread in checked.unread:
            print(f"  {unread.text}: {unread.why}".translate(HARMLESS))
    sound = all(each.standing is not Standing.CONTRADICTORY for each in checked.thought)
    return 0 if sound and all(each.standing is Standing.ENTAILED for each in checked.answer) else DISAGREES


def translate_rest(model: str, text: str) -> tuple[Document, Translated | None]:
    """The document, with what the grammar does not read translated by a model."""
    from ponder.cli.options import load_reasoner
    from ponder.tasks.prove.translate import read_translated

    with load_reasoner(model) as reasoner:
        return read_translated(text, reasoner.sampler)


def translation_text(model: str, translated: Translated) -> str:
    """What rests on a model's reading, apart from what is proved."""
    lines = [f"Translated by {model}, and not checked (how often it is right: bench/translation.py):"]
    lines += [f"  {sentence}\n      read as {formula}" for sentence, formula in translated.formulas.items()]
    return "\n".join(lines)


def told_unread(name: str, document: Document, translated: Translated | None) -> str:
    """What could not be read, sentence by sentence. Nothing was proved: the rest alone might say something else."""
    whys = translated.failed if translated else {}
    found = [
        f"{name}:{each.line}:{each.column}: {each.text:.80}: {whys.get(each.text, each.why)}"
        for each in document.unread
    ]
    return f"{len(found)} of the sentences cannot be read, so nothing was proved; " + "; ".join(found)


def proof_text(document: Document, proof: Proof, *, formulas: bool) -> str:
    """The result for people."""
    from ponder.tasks.prove.logic import formula_text

    def shown(statement: Statement) -> str:
        read = f"\n      read as {formula_text(statement.formula)}" if formulas else ""
        return f"  line {statement.line}: {statement.text}{read}"

    num = len(document.statements)
    lines: list[str] = []
    if proof.consistent:
        lines.append(f"No contradiction: the {num} statements can all be true together.")
    elif proof.consistent is None:
        lines.append(f"Unknown: {proof.why}.")
    for place, conflict in enumerate(proof.conflicts, 1):
        which = f" ({place} of {len(proof.conflicts)})" if len(proof.conflicts) > 1 else ""
        if len(conflict) == 1:
            lines.append(f"Contradiction{which}: this statement contradicts itself.")
        else:
            lines.append(f"Contradiction{which}: these {len(conflict)} statements cannot all be true; without any one "
                         "of them the others can.")  # fmt: skip
        lines += map(shown, conflict)
    if proof.consistent is False and not proof.complete:
        lines.append(f"There may be more contradictions: {proof.why}.")
    for finding in proof.findings:
        lines += [f"{finding.verdict.value.capitalize()}:", shown(finding.goal)]
        if finding.used:
            lines += ["    from", *("  " + shown(each) for each in finding.used)]
    if formulas and proof.consistent:
        lines += ["Read:", *map(shown, document.statements)]
    return "\n".join(lines)


def proof_as_json(document: Document, proof: Proof, translated: Translated | None) -> dict[str, object]:
    """The result as `--json` prints it. `begin` and `end` count the file's characters from 0."""
    from ponder.tasks.prove.logic import formula_text

    def packed(statement: Statement) -> dict[str, object]:
        return {
            "line": statement.line,
            "begin": statement.begin,
            "end": statement.end,
            "text": statement.text,
            "formula": formula_text(statement.formula),
        }

    return {
        "consistent": proof.consistent,
        "statements": [packed(each) for each in document.statements],
        "conflicts": [[packed(each) for each in conflict] for conflict in proof.conflicts],
        "complete": proof.complete,
        "conclusions": [
            {**packed(each.goal), "verdict": each.verdict.value, "used": [packed(used) for used in each.used]}
            for each in proof.findings
        ],
        "why": proof.why,
        "translated": translated.formulas if translated else {},
    }
