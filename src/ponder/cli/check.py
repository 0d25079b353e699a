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
    parser.add_argument("--formulas", action="store_true", help="print each statement's formula too: how it was read")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    from ponder.tasks.prove.document import read_document
    from ponder.tasks.prove.prover import Verdict, prove

    name, text = read_file(args.file)
    document = read_document(text)
    if document.unread:
        raise InvalidRequest(told_unread(name, document))
    if not document.statements and not document.goals:
        raise InvalidRequest(f"{name} holds no statements: write one a line, such as 'Ann is taller than Bo.'")
    proof = prove(document, args.seconds)
    if args.json:
        print(json.dumps(proof_as_json(document, proof), ensure_ascii=False, indent=2))
    else:
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


def told_unread(name: str, document: Document) -> str:
    """What could not be read, sentence by sentence. Nothing was proved: the rest alone might say something else."""
    found = [f"{name}:{each.line}:{each.column}: {each.text:.80}: {each.why}" for each in document.unread]
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


def proof_as_json(document: Document, proof: Proof) -> dict[str, object]:
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
    }
