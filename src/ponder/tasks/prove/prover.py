"""What a text's statements prove: asked in a child process, so that limits hold and a solver that hangs is ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from typing import Any

from ponder.sandbox.isolate import CallOutcome, run_isolated
from ponder.tasks.prove.document import Document, Statement
from ponder.tasks.prove.logic import Applied, BoundVariable, Formula, Numeral, Operation, Quantified, Signature
from ponder.types import GraderError, MissingExtra

SECONDS = 5.0


class Verdict(StrEnum):
    """What the premises say of a goal. UNKNOWN is never a no: z3 did not decide in the time or memory it had."""

    PROVED = "proved"
    REFUTED = "refuted"
    UNDETERMINED = "undetermined"
    INCONSISTENT = "inconsistent premises"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """A goal, its verdict, and the premises that it takes, none of which can be left out. A verdict that time cut short
    may name more than it takes."""

    goal: Statement
    verdict: Verdict
    used: tuple[Statement, ...] = ()


@dataclass(frozen=True, slots=True)
class Proof:
    """What was found.

    consistent: whether all statements can be true together; None: unknown.
    conflicts: minimal sets of statements that cannot: without any one of them, the others of the set can.
    complete: `conflicts` holds all such sets.
    why: what stopped the solver; empty: nothing did.
    """

    consistent: bool | None
    conflicts: tuple[tuple[Statement, ...], ...] = ()
    complete: bool = True
    findings: tuple[Finding, ...] = ()
    why: str = ""


def prove(document: Document, seconds: float = SECONDS) -> Proof:
    """Whether the statements contradict each other, and what they say of each goal.

    seconds: of wall time for the whole call, from when a child takes it.
    Raises MissingExtra without z3.
    """
    if find_spec("z3") is None:
        raise MissingExtra("z3-solver", "verify")
    payload = {
        "signature": _packed_signature(document.signature),
        "background": [_packed(each) for each in document.background],
        "premises": [_packed(each.formula) for each in document.statements],
        "goals": [_packed(each.formula) for each in document.goals],
        "seconds": seconds,
    }
    call = run_isolated(
        "ponder.tasks.prove.solver:decide_statements",
        payload,
        timeout=seconds,
        warm=("ponder.tasks.prove.solver:warm_solver", None),
        share="prove",
    )
    if call.outcome is CallOutcome.RAISED:
        raise GraderError(f"the prover broke: {call.why}")
    if call.outcome is not CallOutcome.DONE:
        unknown = tuple(Finding(goal, Verdict.UNKNOWN) for goal in document.goals)
        return Proof(None, complete=False, findings=unknown, why=call.why)
    return _unpacked(call.value, document, seconds)


def _unpacked(found: dict[str, Any], document: Document, seconds: float) -> Proof:
    statements = document.statements

    def named(indices: Sequence[int]) -> tuple[Statement, ...]:
        return tuple(statements[i] for i in indices)

    late = f"undecided within {seconds:g} s"
    if found["premises"] == "unsat":
        findings = tuple(Finding(goal, Verdict.INCONSISTENT) for goal in document.goals)
        conflicts = tuple(map(named, sorted(found["conflicts"], key=lambda each: (len(each), each))))
        return Proof(False, conflicts, found["complete"], findings, "" if found["complete"] else late)
    if found["premises"] == "unknown":
        unknown = tuple(Finding(goal, Verdict.UNKNOWN) for goal in document.goals)
        return Proof(None, complete=False, findings=unknown, why=late)
    findings = tuple(
        Finding(goal, Verdict(each["verdict"]), named(each["used"]))
        for goal, each in zip(document.goals, found["goals"], strict=True)
    )
    open_ones = any(each.verdict is Verdict.UNKNOWN for each in findings)
    return Proof(True, findings=findings, why=late if open_ones else "")


# Formulas as JSON, for the child --------------------------------------------------------------------------------------


def _packed(formula: Formula) -> list[Any]:
    match formula:
        case BoundVariable(name):
            return ["bound", name]
        case Numeral(value):
            return ["number", str(value)]
        case Applied(name, args):
            return ["applied", name, *map(_packed, args)]
        case Operation(operator, args):
            return ["op", operator, *map(_packed, args)]
        case Quantified(binder, variable, sort, body, number):
            return ["quantified", binder.value, variable, sort, number, _packed(body)]


def _packed_signature(signature: Signature) -> dict[str, Any]:
    return {
        "sorts": {sort: list(members) for sort, members in signature.sorts.items()},
        "symbols": {name: [list(typing.args), typing.result] for name, typing in signature.symbols.items()},
        "distinct": sorted(signature.distinct),
    }
