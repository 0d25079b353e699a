"""The canonical lines say what the question says, and every verdict is the dataset's own."""

from __future__ import annotations

import re
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.tasks.families.syllogism import TURNED, Syllogism, rules
from ponder.tasks.gym import GymTask
from ponder.tasks.protocol import Problem, without_marks

pytestmark = pytest.mark.property

seeds = st.integers(min_value=0, max_value=2**32)
levels = st.floats(min_value=0, max_value=1)
HARD = {"allow_all": True, "allow_no": True, "allow_some": False, "allow_some_not": False}


def parsed(question: str) -> Problem:
    """A gym item as the family's own problem."""
    found = re.findall(r"(All|No|Some) (\w+) are (not )?(\w+)", question)
    (q1, a, n1, b), (q2, b2, n2, c), (q3, subject, n3, predicate) = found
    assert b == b2
    turned = {(a, c): 0, (b, a): 1, (c, b): 2}[subject, predicate]
    quantifiers = [f"{q} {n}".strip().lower() for q, n in ((q1, n1), (q2, n2), (q3, n3))]
    return Problem(
        task="syllogism",
        question=question,
        answer="",
        metadata={"quantifiers": quantifiers, "terms": [a, b, c], "turned": turned},
    )


def mended(text: str) -> str:
    """The working with its slips put right; each of them differs from what puts it right."""
    assert all(wrong != right for wrong, right in re.findall(r"(one|every) no (one|every)", without_marks(text)))
    return re.sub(r"(one|every) no (one|every)", r"\2", without_marks(text))


@given(seed=seeds, level=levels)
@settings(max_examples=33, deadline=None)
def test_the_working_restates_the_question_and_stops_at_the_first_no(seed: int, level: float):
    rng = Random(seed)
    family = Syllogism()
    problem = family.sample(rng, level)
    demonstration = family.demonstrate(problem, rng)
    first, second, asked, *checks, verdict = mended(demonstration.reasoning).split("\n")
    own = parsed(problem.question)
    letters = dict(zip(own.metadata["terms"], "abc", strict=True))
    for line, (quantifier, s, not_, p) in zip(
        (first, second, asked), re.findall(r"(All|No|Some) (\w+) are (not )?(\w+)", problem.question), strict=True
    ):
        assert line[2:] == f"{quantifier.lower()} {not_}{s} {letters[s]} {p} {letters[p]}"
    assert own.metadata["quantifiers"] == problem.metadata["quantifiers"]
    assert all(check.endswith("ok") for check in checks[:-1])
    assert checks[-1].endswith("ok") == (verdict == "Yes")
    assert verdict == problem.answer == demonstration.answer


def test_the_rules_are_the_datasets():
    """Every item of 300 drawn, in both configs: the family's rules give the dataset's answer, and its scorer's 1.0."""
    for config in ({}, HARD):
        task = GymTask("syllogism", config)
        for index in range(300):
            problem = task.problem(index)
            own = parsed(problem.question)
            q1, q2, q3 = own.metadata["quantifiers"]
            turned = own.metadata["turned"]
            if turned:
                holds = TURNED[(q1, q2)[turned - 1]] == q3
            else:
                holds = all(verdict == "ok" for _, verdict in rules(q1, q2, q3))
            assert problem.answer == ("Yes" if holds else "No"), problem.question
            if index < 5:
                assert task.grade(problem, "Yes" if holds else "No").score == 1.0


def test_the_wording_is_the_datasets():
    family, rng = Syllogism(), Random(0)
    pattern = re.compile(
        r"Consider these statements:\n1\. .+\n2\. .+\n\nDoes it logically follow that:\n.+\?\n\(Answer.+\)"
    )
    own = [question for _ in range(50) if pattern.fullmatch(question := family.sample(rng, 1).question)]
    assert len(own) > 20
    assert all(pattern.fullmatch(GymTask("syllogism").problem(index).question) for index in range(20))
