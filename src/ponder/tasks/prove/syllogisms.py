"""Syllogisms of reasoning-gym's dataset by logic: some of its keys are not valid inferences.

Its rules leave out that the middle term must be distributed: "all a are b, some b are not c, so some a are not c" has
the key Yes. As in tradition, every class is taken to have members; `bench/syllogism_keys.py` counts both ways.
"""

from __future__ import annotations

import re
from functools import lru_cache

from ponder.tasks.prove.document import read_document
from ponder.tasks.prove.prover import Verdict, prove
from ponder.types import GraderError

SENTENCE = re.compile(r"\b(All|No|Some) (\w+) are (not )?(\w+)", re.IGNORECASE)


def follows_by_logic(question: str, *, members: bool = True) -> bool:
    """Whether the last of a question's three statements follows from the first two.

    members: every class has some.
    Raises GraderError for a question of another form.
    """
    found = SENTENCE.findall(question)
    if len(found) != 3:
        raise GraderError(f"a syllogism has three statements of the form 'All … are …' (got {question!r:.200})")
    kinds: dict[str, str] = {}
    for _, subject, _, predicate in found:
        for term in (subject.lower(), predicate.lower()):
            kinds.setdefault(term, f"kind{'abcdef'[len(kinds)]}")
    sentences = tuple(
        f"{quantifier.capitalize()} {kinds[subject.lower()]} are {denied}{kinds[predicate.lower()]}."
        for quantifier, subject, denied, predicate in found
    )
    return _follows(sentences, tuple(kinds.values()) if members else ())


@lru_cache(maxsize=4096)
def _follows(sentences: tuple[str, ...], members: tuple[str, ...]) -> bool:
    first, second, conclusion = sentences
    text = "\n".join([first, second, *(f"There is a {each}." for each in members), f"Therefore {conclusion}"])
    proof = prove(read_document(text))
    (finding,) = proof.findings
    if finding.verdict is Verdict.UNKNOWN:
        raise GraderError(f"{conclusion} was not decided: {proof.why}")
    return finding.verdict in (Verdict.PROVED, Verdict.INCONSISTENT)
