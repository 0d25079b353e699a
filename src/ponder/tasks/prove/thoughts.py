"""Whether a thought holds together, and whether its answer follows from it, step by step.

As VeriCoT (arXiv 2511.04662) has it: each step is entailed by what stands before it, contradicts that, is ungrounded
(a new assumption, which later steps may use), or is not read at all. What is not read is an error of translation, and
says nothing of the proof.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum

from ponder.tasks.prove.document import Statement, Unread, read_document
from ponder.tasks.prove.prover import SECONDS, Verdict, prove
from ponder.tasks.prove.verifiers import asked, in_order


class Standing(StrEnum):
    """How a step stands to what is before it."""

    ENTAILED = "entailed"
    CONTRADICTORY = "contradictory"
    UNGROUNDED = "ungrounded"
    UNKNOWN = "unknown"  # z3 did not decide


@dataclass(frozen=True, slots=True)
class JudgedStep:
    """A step of a thought, or of an answer.

    against: of a contradictory one: the statements before it that it contradicts.
    """

    step: Statement
    standing: Standing
    against: tuple[Statement, ...] = ()


@dataclass(frozen=True, slots=True)
class ThoughtCheck:
    """thought, answer: the steps that were read. unread: the sentences that were not."""

    thought: tuple[JudgedStep, ...]
    answer: tuple[JudgedStep, ...]
    unread: tuple[Unread, ...]


STANDINGS = {
    Verdict.PROVED: Standing.ENTAILED,
    Verdict.REFUTED: Standing.CONTRADICTORY,
    Verdict.UNDETERMINED: Standing.UNGROUNDED,
}


def check_thought(thought: str, answer: str, premises: str = "", seconds: float = SECONDS) -> ThoughtCheck:
    """Judge every step of a thought against the premises and the steps before it, then the answer against all of them.

    A contradictory step is left out of what later steps are judged by.
    seconds: for all steps together.
    Raises LogicError where a word is used in two ways, and what `read_document` raises.
    """
    text = "\n".join((premises, thought, answer))
    document = read_document(text)
    begins = len(premises) + 1, len(premises) + len(thought) + 2
    deadline = time.monotonic() + seconds
    known: list[Statement] = []
    judged: list[JudgedStep] = []
    for each in in_order(document):
        if each.begin < begins[0]:
            known.append(each)
            continue
        left = deadline - time.monotonic()
        finding = prove(asked(document, known, [each]), left).findings[0] if left > 0.3 else None
        standing = STANDINGS.get(finding.verdict, Standing.UNKNOWN) if finding else Standing.UNKNOWN
        contradicts = standing is Standing.CONTRADICTORY and finding is not None
        judged.append(JudgedStep(each, standing, finding.used if contradicts and finding else ()))
        if not contradicts:
            known.append(each)
    inside = tuple(each for each in judged if each.step.begin < begins[1])
    return ThoughtCheck(inside, tuple(judged[len(inside) :]), document.unread)
