"""Plain wordings: the problem stays the family's own, whatever is said around it."""

from __future__ import annotations

import re
from fractions import Fraction
from random import Random

import pytest

from ponder.tasks.families import FAMILIES
from ponder.tasks.families.plain.fields import FIELDS
from ponder.tasks.families.plain.task import SECTIONS, Plain
from ponder.tasks.families.plain.wording import FIELD, Half, as_list, as_numeral, filled, templates, word_plainly
from ponder.tasks.protocol import Problem
from ponder.tasks.registry import load_task
from ponder.types import InvalidRequest


def drawn(family: str, half: Half, count: int) -> list[tuple[Plain, Problem, Random]]:
    task = Plain(family, half)
    draws = ((Random(f"{family} {number}"), (number + 0.5) / count) for number in range(count))
    return [(task, task.sample(rng, level), rng) for rng, level in draws]


@pytest.mark.parametrize("half", Half)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_demonstrated_answers_the_plain_question(family, half):
    for task, problem, rng in drawn(family, half, 12):
        answer = task.demonstrate(problem, rng).answer
        gave_up = family == "countdown" and not task.grade(problem, answer).solved
        assert task.grade(problem, answer).solved or gave_up, (problem.question, answer)
        assert task.same(answer, answer)
        assert not task.same(answer, "")
        assert not FIELD.search(problem.question), problem.question
        assert "<" not in re.sub(r"< -?[\d.]", "", problem.question), problem.question


@pytest.mark.parametrize("family", FAMILIES)
def test_the_halves_share_no_template_and_both_have_some(family):
    section = SECTIONS.get(family, family)
    train, held_out = (
        {each.text for each in templates("templates.txt")[section, half]} for half in (Half.TRAIN, Half.HELD_OUT)
    )
    assert train
    assert held_out
    assert not train & held_out


@pytest.mark.parametrize("family", FAMILIES)
def test_every_template_is_met_by_some_problem(family):
    section = SECTIONS.get(family, family)
    wanted = {each for half in Half for each in templates("templates.txt")[section, half]}
    for _, problem, rng in drawn(family, Half.TRAIN, 150):
        original = Problem(task=family, question=problem.metadata["original"][0], answer="", metadata=problem.metadata)
        has = FIELDS[family](original, rng).keys()
        wanted = {each for each in wanted if not each.fields <= has}
    if section == "sums":  # whole numbers and decimals share them
        wanted = {each for each in wanted if not each.fields & {"plus_a", "minus_a", "addends"}}
    assert not wanted


def test_noise_leaves_the_numbers_alone():
    fields = {"a": "731", "b": "94", "product": "731 * 94", "numbers": ["731", "94"]}
    for number in range(300):
        question = word_plainly("products", fields, "number", Random(number), Half.TRAIN)
        assert sorted(re.findall(r"\d+", question)) == ["731", "94"], question


def test_lists_and_numbers_are_written_in_several_ways_and_mean_the_same():
    items = ["12", "5", "803"]
    ways = {as_list(items, Random(seed), last=True) for seed in range(200)}
    assert len(ways) >= 8
    assert all(re.findall(r"\d+", way) == items for way in ways)
    assert {as_numeral(7, Random(seed)) for seed in range(200)} == {"7", "seven"}
    assert {as_numeral(1234, Random(seed)) for seed in range(200)} == {"1234", "1,234"}


def test_a_sentence_begins_with_a_capital_only_where_a_sentence_begins():
    problem = Plain("syllogism").sample(Random(0), 0.2)
    fields = FIELDS["syllogism"](problem, Random(0))
    text = "".join(each.text for each in filled("{first}. {second}. So {conclusion}?", fields, Random(0)))
    first, second, conclusion = re.split(r"\. |\.", text)
    assert first[0].isupper()
    assert second[0].isupper()
    assert re.match(r"So [a-z]", conclusion)


def test_divisions_of_plain_questions_come_out():
    for _, problem, _ in drawn("basic_arithmetic", Half.TRAIN, 100):
        expression = str(problem.metadata["expression"])
        exact = eval(re.sub(r"(\d+)", r"Fraction(\1)", expression), {"Fraction": Fraction})
        assert str(exact) == problem.answer, expression


def test_a_person_s_forms_of_an_answer_are_accepted():
    def grade(family: str, answer: str, **metadata: object) -> float:
        original = metadata.pop("original")
        problem = Problem(
            task="", question="", answer=str(metadata.pop("plain")), metadata={"original": ("", original)}
        )
        return Plain(family).grade(problem, answer).score

    assert grade("number_sorting", "1, 2.5, 30", original="['1', '2.50', '30']", plain="1, 2.50, 30") == 1
    assert grade("number_sorting", "[1, 2.5, 30]", original="['1', '2.50', '30']", plain="1, 2.50, 30") == 1
    assert grade("number_sorting", "2.5, 1, 30", original="['1', '2.50', '30']", plain="1, 2.50, 30") == 0
    assert grade("number_filtering", "none", original="[]", plain="none") == 1
    assert grade("isomorphic_strings", "Yes", original="True", plain="True") == 1
    assert grade("isomorphic_strings", "No, they are not.", original="True", plain="True") == 0
    assert grade("isomorphic_strings", "maybe", original="True", plain="True") == 0
    assert grade("word_sorting", "and bee cat", original="and, bee, cat", plain="and, bee, cat") == 1
    assert grade("spell_backward", '"tac".', original="tac", plain="tac") == 1
    assert grade("chain_sum", "12.", original="12", plain="12") == 1
    assert grade("chain_sum", "13", original="12", plain="12") == 0


def test_primality_is_answered_with_the_factors():
    asked = [(t, p, rng) for t, p, rng in drawn("prime_factorization", Half.TRAIN, 200) if p.metadata.get("primality")]
    answers = {problem.answer.split(",")[0] for _, problem, _ in asked}
    assert answers == {"Yes", "No"}
    for task, problem, _ in asked:
        number = int(problem.metadata["number"])
        prime = all(number % divisor for divisor in range(2, number))
        assert task.grade(problem, "Yes, it is prime").score == float(prime)
        assert task.grade(problem, "no").score == float(not prime)


def test_names_that_are_none_are_refused():
    with pytest.raises(InvalidRequest, match="no family 'gcds'"):
        load_task("plain:gcds")
    with pytest.raises(InvalidRequest, match="no variant 'old'"):
        load_task("plain:gcd@old")
