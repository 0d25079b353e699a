"""Controlled English: every shape of sentence has one formula, and what has two readings or none is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.tasks.prove.document import Document, read_document
from ponder.tasks.prove.logic import LogicError, formula_text

READ = {
    "All humans are mortal.": "all x1: thing. human(x1) -> mortal(x1)",
    "Every dog likes some cat.": "all x1: thing. dog(x1) -> (some x2: thing. cat(x2) and like(x1, x2))",
    "No bird that is not grey is a pigeon.": "all x1: thing. bird(x1) and not grey(x1) -> not pigeon(x1)",
    "Every man that likes Ann hates Bo.": "all x1: thing. man(x1) and like(x1, Ann) -> hate(x1, Bo)",
    "Everyone who is guilty is nervous.": "all x1: thing. guilty(x1) -> nervous(x1)",
    "Some red cars are fast.": "some x1: thing. red_car(x1) and fast(x1)",
    "Only cats are grey.": "all x1: thing. grey(x1) -> cat(x1)",
    "Not all birds fly.": "not (all x1: thing. bird(x1) -> fly(x1))",
    "Nobody loves Ann.": "all x1: thing. not love(x1, Ann)",
    "There are no dogs that are grey.": "not (some x1: thing. dog(x1) and grey(x1))",
    "Ann likes Bo and Cy.": "like(Ann, Bo) and like(Ann, Cy)",
    "Ann likes the cat and Bo likes Cy.": "like(Ann, the_cat) and like(Bo, Cy)",
    "Ann does not like Bo.": "not like(Ann, Bo)",
    "Ann doesn't like Bo and Cy isn't tall.": "not like(Ann, Bo) and not tall(Cy)",
    "Ann is a friend of Bo.": "friend_of(Ann, Bo)",
    "Neither Ann nor Bo is tall.": "not tall(Ann) and not tall(Bo)",
    "Ann is tall, rich and happy.": "tall(Ann) and rich(Ann) and happy(Ann)",
    "Either Ann or Bo is tall, but not both.": "tall(Ann) <-> not tall(Bo)",
    "If Ann is tall then Bo is rich or Cy is rich.": "tall(Ann) -> rich(Bo) or rich(Cy)",
    "The door is open if and only if the light is on.": "open(the_door) <-> on(the_light)",
    "It is not the case that Ann is tall.": "not tall(Ann)",
    "If it is raining, the street is wet.": "it_is_raining -> wet(the_street)",
    "Ann is shorter than Bo.": "taller(Ann) < taller(Bo)",
    "Ann is to the right of Bo.": "left_of(Ann) < left_of(Bo)",
    "Ann is less honest than Bo.": "more_honest(Ann) < more_honest(Bo)",
    "Ann is older than 30.": "older(Ann) > 30",
    "Cy has 3 more apples than Bo.": "num_apple(Cy) = num_apple(Bo) + 3",
    "Ann has no cars.": "num_car(Ann) = 0",
    "Ann has a car.": "num_car(Ann) >= 1",
    "Bo has twice as many red apples as Ann.": "num_red_apple(Bo) = 2 * num_red_apple(Ann)",
    "Cy is the murderer.": "Cy = the_murderer",
    "Is Ann tall?": "tall(Ann)",
    "Does Ann like Bo?": "like(Ann, Bo)",
    "Therefore, Ann is a boss.": "boss(Ann)",
    "3. Mr Smith watches Ann.": "watch(Mr_Smith, Ann)",
}

REFUSED = {
    "All cats are not grey.": (14, "two readings"),
    "Either Ann is tall or Bo is tall.": (1, "but not both"),
    "Ann is tall and Bo is tall or Cy is tall.": (28, "two readings"),
    "A dog barks.": (1, "'every' or 'some'"),
    "Cats are animals.": (1, "'All cats are'"),
    "He is tall.": (1, "the name"),
    "Ann was tall.": (5, "'was' does not fit"),
    "Ann is probably tall.": (8, "'probably' does not fit"),
    "Ann is tall because Bo is.": (13, "'because' does not fit"),
    "Ann can't swim.": (5, "'is not'"),
    "Well, let me see.": (5, "comma"),
    "Ann is": (5, "something should follow"),
    "If Ann is tall Bo is rich.": (1, "'then'"),
    "Ann has cats.": (9, "how many"),
    "Ann is tall; Bo is.": (12, "leave it out"),
    "Ann is good at playing long old board games.": (8, "use fewer"),
}


WORDS = (
    "all every no some Ann Bo the a is are not tall cat cats that likes has 2 than as and or if then neither nor "
    "either both only at least exactly there it of , taller more everyone more fewer many"
)


def outcome(text: str) -> tuple[Document | None, str]:
    """The document, or why the text is refused as a whole."""
    try:
        return read_document(text), ""
    except LogicError as error:
        return None, str(error)


def only(document: Document) -> str:
    (statement,) = document.statements + document.goals
    return formula_text(statement.formula)


@pytest.mark.parametrize("sentence", READ)
def test_a_sentence_has_one_formula(sentence: str) -> None:
    document = read_document(sentence)
    assert not document.unread
    assert only(document) == READ[sentence]


@pytest.mark.parametrize("sentence", READ)
def test_the_formula_beside_the_sentence_reads_back_as_the_same(sentence: str) -> None:
    formula = READ[sentence].replace("Mr_Smith", "Mr Smith").replace("Mr Smith", "Mr_Smith")
    document = read_document(f"{formula} ::: {sentence}")
    assert only(document) == formula
    assert document.statements[0].text == sentence


@pytest.mark.parametrize("sentence", REFUSED)
def test_two_readings_and_unknown_words_are_refused_with_place_and_remedy(sentence: str) -> None:
    column, words = REFUSED[sentence]
    document = read_document(f"Ann is tall.\n{sentence}")
    (unread,) = document.unread
    assert (unread.line, unread.column) == (2, column)
    assert words in unread.why
    assert len(document.statements) == 1


def test_listed_classes_are_sorts_and_their_counts_are_counted() -> None:
    document = read_document("The people are Ann, Bo and Cy.\nAt most one person is guilty. Every person is tall.")
    assert document.signature.sorts == {"person": ("Ann", "Bo", "Cy")}
    assert [formula_text(each.formula) for each in document.statements] == [
        "at most 1 x1: person. guilty(x1)",
        "all x2: person. tall(x2)",
    ]


def test_plurals_find_the_singular_that_the_text_has() -> None:
    document = read_document("All buses are red. Every bus is old. All houses are big. Every house is old.")
    assert [formula_text(each.formula).split("(")[0].split()[-1] for each in document.statements] == [
        "bus", "bus", "house", "house",
    ]  # fmt: skip


@pytest.mark.property
@given(st.lists(st.sampled_from([*READ, *REFUSED]), min_size=1, max_size=8), st.sampled_from(["\n", " ", "\n\n  "]))
@settings(max_examples=33, deadline=None)
def test_every_sentence_keeps_its_own_words_and_place(sentences: list[str], between: str) -> None:
    text = between.join(each if each[-1] in ".?" else f"{each}." for each in sentences)
    document, error = outcome(text)
    if document is None:  # a word of two sentences, used in two ways
        assert "at once" in error or "arguments" in error
        return
    for each in (*document.statements, *document.goals):
        assert text[each.begin : each.end] == each.text
        assert text[: each.begin].count("\n") + 1 == each.line


@pytest.mark.property
@given(st.lists(st.sampled_from(WORDS.split()), max_size=12))
@settings(max_examples=66, deadline=None)
def test_any_words_are_read_or_refused_by_name(words: list[str]) -> None:
    document, error = outcome(" ".join(words))
    if document is None:
        assert ": " in error
    else:
        assert all(": " in each.why and each.line == 1 for each in document.unread)
