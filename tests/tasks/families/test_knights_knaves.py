"""The statements say what the question says; every part's value, every verdict and every fold is re-checked."""

from __future__ import annotations

import re
from random import Random

import pytest
from family_checks import context_lengths
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.tasks.families.knights_knaves import KnightsKnaves
from ponder.tasks.protocol import without_marks

pytestmark = pytest.mark.property

seeds = st.integers(min_value=0, max_value=2**32)
levels = st.floats(min_value=0, max_value=1)
FAMILY = KnightsKnaves()


def flat(text: str) -> bool:
    """The value of a statement whose parts are T or F: `T and F`, `if T then F`, `T iff F`, `not T`, `T`."""
    if match := re.fullmatch(r"if (\w) then (\w)", text):
        return match[1] == "F" or match[2] == "T"
    values = re.findall(r"\b[TF]\b", text)
    (operator,) = set(re.findall(r"and|or|iff|not", text)) or {"and"}
    truths = [value == "T" for value in values]
    return {
        "and": all(truths),
        "or": any(truths),
        "iff": truths[0] == truths[-1],
        "not": not truths[0],
    }[operator]


def check_values(working: str, trial: dict[str, str]) -> bool:
    """Every claim's value by the trial, every bracket's by its inside; the value of the whole."""
    for letter, sign, value in re.findall(r"([abc])([+-])([TF])", working):
        assert (trial[letter] == sign) == (value == "T"), working
    text = re.sub(r"[abc][+-]([TF])", r"\1", working)
    while match := re.search(r"\(([^()]*)\)([TF])", text):
        assert flat(match[1]) == (match[2] == "T"), working
        text = text.replace(match[0], match[2], 1)
    return flat(text)


def worded(line: str, names: dict[str, str], roles: dict[str, str]) -> str:
    """A statement's line in the question's words."""
    text = re.sub(r"\w+ ([abc])([+-])", lambda m: f"{names[m[1]]} is {roles[m[2]]}", line)
    return text.replace(" iff ", " if and only if ").replace("not (", "it is not the case that (")


def mended(text: str) -> str:
    """The working with its slips put right; each of them differs from what puts it right."""
    assert all(wrong != right for wrong, right in re.findall(r"([TF]) no ([TF])", without_marks(text)))
    return re.sub(r"([TF]) no ([TF])", r"\2", without_marks(text))


@given(seed=seeds, level=levels)
@settings(max_examples=50, deadline=None)
def test_every_trial_is_judged_rightly(seed: int, level: float):
    rng = Random(seed)
    problem = FAMILY.sample(rng, level)
    demonstration = FAMILY.demonstrate(problem, rng)
    head, *lines = mended(demonstration.text).split("\n")
    names = {letter: name for name, letter in (each.split() for each in head.split(", "))}
    truthful, lying = re.search(r"who is (an? \w+) and who is (an? \w+)\?", problem.question).groups()
    statements = {line[0]: line[3:] for line in lines[: len(names)]}
    at = 0
    for letter, statement in statements.items():
        content = worded(statement, names, {"+": truthful, "-": lying})
        assert content in problem.question[at:], (content, problem.question)
        at = problem.question.index(content, at)
        assert letter in names
    trial: dict[str, str] = {}
    ended = "no"
    for line in lines[len(names) :]:
        if line.startswith("try "):
            assert ended == "no"
            trial = {each[0]: each[1] for each in line.split()[1:]}
            continue
        who, working, value, ended = re.fullmatch(r"(\w[+-]): (.*) is ([TF]) (ok|no)", line).groups()
        assert trial[who[0]] == who[1]
        assert re.sub(r"(?<=[+\-)])[TF]", "", working) == re.sub(r"\w+ ([abc][+-])", r"\1", statements[who[0]])
        assert check_values(working, trial) == (value == "T"), line
        assert ((who[1] == "+") == (value == "T")) == (ended == "ok"), line
    assert ended == "ok"
    assert who[0] == max(names)
    for letter, name in names.items():
        assert f"{name} is {truthful if trial[letter] == '+' else lying}" in demonstration.answer
    for fold in demonstration.folds:
        assert fold.thought.endswith(" no")
        assert fold.state.count("\n") == len(names)


def test_the_datasets_scorer_agrees():
    rng = Random(0)
    for number in range(12):
        problem = FAMILY.sample(rng, number / 12)
        answer = FAMILY.demonstrate(problem, rng).answer
        assert FAMILY.dataset.grade(problem, answer).score == 1.0
        role = answer.rstrip(".").split()[-1]
        wrong = answer.replace(role, "nobody")
        assert not FAMILY.grade(problem, wrong).solved
        assert not FAMILY.dataset.grade(problem, wrong).solved


def test_every_context_is_short():
    rng = Random(1)
    for number in range(150):
        problem = FAMILY.sample(rng, number / 150)
        demonstration = FAMILY.demonstrate(problem, rng)
        assert max(context_lengths(problem, demonstration)) <= 1000
