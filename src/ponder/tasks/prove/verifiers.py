"""Logic as a verifier of answers: `verifier='logic'`, or `'logic:FILE'` with premises that the answer must follow."""

from __future__ import annotations

from pathlib import Path

from ponder.tasks.protocol import Grade, GradeStatus
from ponder.tasks.prove.document import Document, Statement, read_document
from ponder.tasks.prove.logic import LogicError
from ponder.tasks.prove.prover import SECONDS, Verdict, prove
from ponder.types import InvalidRequest


class LogicVerifier:
    """Grades the sentences of an answer that are controlled English or formulas. Of the others it says nothing.

    Without premises: 1 for statements that can all be true together. With premises: the share of the statements that
    follow from them, and 0 for an answer that contradicts them or itself.
    premises: a text as `ponder check` reads it.
    Raises LogicError for premises that cannot be read, or that contradict each other.
    """

    def __init__(self, premises: str = "", seconds: float = SECONDS) -> None:
        self._premises, self._seconds = premises, seconds
        document = read_document(premises)
        if document.unread:
            first = document.unread[0]
            raise LogicError(f"the premises cannot be read, line {first.line}: {first.text:.80}: {first.why}")
        self._num = len(document.statements)
        if self._num and prove(document, seconds).consistent is False:
            raise LogicError("the premises contradict each other: `ponder check` shows which")

    @classmethod
    def load(cls, file: str) -> LogicVerifier:
        """With the premises of a file; "": without any."""
        try:
            return cls(Path(file).read_text(encoding="utf-8") if file else "")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"verifier='logic:{file}': {error}") from None

    def __call__(self, answer: str) -> Grade:
        try:
            document = read_document(f"{self._premises}\n{answer}")
        except LogicError as error:
            return Grade(score=0.0, status=GradeStatus.UNPARSEABLE, why=str(error))
        said = in_order(document)[self._num :]
        unread = f"{len(document.unread)} of its sentences cannot be read" if document.unread else ""
        if not said:
            why = f"none of its sentences can be read ({document.unread[0].why})" if unread else "it says nothing"
            return Grade(score=0.0, status=GradeStatus.UNPARSEABLE, why=why)
        return self._graded(document, said, unread)

    def _graded(self, document: Document, said: list[Statement], unread: str) -> Grade:
        premises = in_order(document)[: self._num]
        together = asked(document, [*premises, *said], ())
        proof = prove(together, self._seconds)
        if proof.conflicts:
            conflict = proof.conflicts[0]
            why = "these contradict each other: " + " / ".join(each.text for each in conflict)
            return Grade(score=0.0, why=why, wrong_step=conflict[-1].text)
        if proof.consistent is None:
            return Grade(score=0.0, status=GradeStatus.TIMEOUT, why=proof.why)
        if not premises:
            return Grade(score=1.0, why=unread)
        findings = prove(asked(document, premises, said), self._seconds).findings
        loose = [each.goal.text for each in findings if each.verdict is not Verdict.PROVED]
        why = "; ".join(filter(None, [f"does not follow: {' / '.join(loose)}" if loose else "", unread]))
        return Grade(score=1 - len(loose) / len(said), why=why, wrong_step=loose[0] if loose else "")


def in_order(document: Document) -> list[Statement]:
    """What a text says, conclusions too ("So …"), in its order."""
    return sorted([*document.statements, *document.goals], key=lambda each: each.begin)


def asked(document: Document, premises: list[Statement], goals: list[Statement] | tuple[()]) -> Document:
    """A question about some of a text's statements."""
    return Document(tuple(premises), tuple(goals), document.signature, document.background)
