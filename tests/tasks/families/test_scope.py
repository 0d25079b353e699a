"""Out of scope: every kind of question is declined in one or two sentences, and what declining is."""

from __future__ import annotations

import re
from random import Random

import pytest

from ponder.tasks.families.plain.scope import (
    ANSWERS,
    OTHER_DATASETS,
    SHARES,
    TOO_LARGE,
    Near,
    Scope,
    Within,
    declines,
    declining,
)
from ponder.tasks.families.plain.wording import Half, templates
from ponder.tasks.registry import load_task


@pytest.mark.parametrize("kind", [*SHARES, "large"])
def test_declining_is_one_or_two_sentences_that_say_what_the_model_is(kind):
    for seed in range(60):
        answer = declining(kind, Random(seed))
        assert declines(answer)
        assert "mini" in answer
        assert 1 <= len(re.findall(r"[.!?](?= |$)", answer)) <= 3  # a greeting, and two sentences
        assert len(answer) < 260


@pytest.mark.parametrize(
    "answer",
    [
        *("56", "-1.50", "ananab", "Yes", "No, 91 = 7 × 13", "['1', '2']", "the, can, not"),
        *("Ann is a knight, and Bo is a knave.", "", "2 × 3", "1.23e+4", "I", "minimum, cannot, mini"),
    ],
)
def test_answers_to_problems_do_not_decline(answer):
    assert not declines(answer)


@pytest.mark.parametrize(
    "answer", ["I'm sorry, I can't help with that.", "I do not know.", "I am mini, a small model."]
)
def test_other_models_decline_in_other_words(answer):
    assert declines(answer)


@pytest.mark.parametrize("half", Half)
def test_every_kind_is_drawn_thought_about_briefly_and_declined(half):
    task, kinds = Scope(half), set()
    for number in range(250):
        rng = Random(number)
        problem = task.sample(rng, 0.5)
        kinds.add(problem.metadata["kind"])
        shown = task.demonstrate(problem, rng)
        assert problem.question
        assert len(shown.reasoning.split()) <= 2
        assert task.grade(problem, shown.answer).solved
        assert not task.grade(problem, "42").solved
    assert kinds == set(SHARES)
    assert set(ANSWERS) <= kinds | {"large"}


def test_training_sees_no_held_out_question():
    train, held_out = (
        {Scope(half).sample(Random(number), 0.5).question for number in range(800)}
        for half in (Half.TRAIN, Half.HELD_OUT)
    )
    assert not {each.lower() for each in train} & {each.lower() for each in held_out}


def test_every_section_has_both_halves_and_every_list_enough_words():
    sections = {section for section, _ in templates("scope.txt")}
    for section in sections:
        if section.startswith("list "):
            (line,) = templates("scope.txt")[section, Half.TRAIN]
            assert len(re.split(r" \| |, ", line.text)) >= 8
        else:
            assert templates("scope.txt")[section, Half.TRAIN]
            assert templates("scope.txt")[section, Half.HELD_OUT]
    assert len(set(OTHER_DATASETS)) == len(OTHER_DATASETS)


@pytest.mark.parametrize("draw", dict.fromkeys(TOO_LARGE), ids=lambda draw: draw.__name__)
def test_what_is_too_large_may_be_declined_or_right(draw):
    question, right = draw(Random(1), Half.HELD_OUT)
    assert question
    problem = Near()._problem(question, "large", Random(0))
    problem = type(problem)(task="", question=question, answer="", metadata={"kind": "large", "right": right})
    assert Near().grade(problem, declining("large", Random(0))).solved
    assert not Near().grade(problem, "12345").solved
    if right:
        assert Near().grade(problem, right).solved


def test_a_plain_problem_must_not_be_declined():
    problem = Within().sample(Random(3), 0.5)
    assert Within().grade(problem, "17").solved
    assert not Within().grade(problem, " ").solved
    assert not Within().grade(problem, "I cannot help with that. I am mini.").solved


def test_a_chat_has_problems_and_what_is_out_of_scope():
    chat = load_task("chat")
    tasks = set()
    for number in range(120):
        rng = Random(number)
        problem = chat.sample(rng, 0.3)
        tasks.add(problem.task.partition(":")[0].partition("@")[0])
        chat.demonstrate(problem, rng)
    assert tasks == {"plain", "scope"}
