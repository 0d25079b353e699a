"""Formulas are read by the grammar as `formula_text` writes them, and what is malformed is named by its place."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.tasks.prove.document import read_document
from ponder.tasks.prove.formulas import parse_formula
from ponder.tasks.prove.logic import (
    COUNTING,
    Applied,
    Binder,
    BoundVariable,
    Formula,
    LogicError,
    Numeral,
    Operation,
    Quantified,
    formula_text,
)

NAMES = st.sampled_from(["p", "q", "tall", "Ann", "f1", "größer"])
TERMS = st.recursive(
    st.one_of(st.integers(0, 99).map(Numeral), NAMES.map(Applied)),
    lambda inner: st.one_of(
        st.builds(lambda name, args: Applied(name, tuple(args)), NAMES, st.lists(inner, min_size=1, max_size=2)),
        st.builds(lambda op, a, b: Operation(op, (a, b)), st.sampled_from(["+", "-", "*"]), inner, inner),
    ),
    max_leaves=6,
)


def joined(operator: str, args: list[Formula]) -> Formula:
    """As the grammar nests: `and` in `and` is one `and`."""
    flat = [
        part
        for each in args
        for part in (each.args if isinstance(each, Operation) and each.operator == operator else (each,))
    ]
    return Operation(operator, tuple(flat))


def bound(binder: Binder, number: int, body: Formula) -> Formula:
    named = Operation("and", (Applied("near", (BoundVariable("v"), Applied("Ann"))), body))
    return Quantified(binder, "v", "person", named, number if binder in COUNTING else 0)


FORMULAS = st.recursive(
    st.one_of(
        NAMES.map(Applied),
        st.builds(lambda op, a, b: Operation(op, (a, b)), st.sampled_from(["=", "!=", "<", ">="]), TERMS, TERMS),
    ),
    lambda inner: st.one_of(
        inner.map(lambda each: Operation("not", (each,))),
        st.builds(joined, st.sampled_from(["and", "or"]), st.lists(inner, min_size=2, max_size=3)),
        st.builds(lambda op, a, b: Operation(op, (a, b)), st.sampled_from(["->", "<->"]), inner, inner),
        st.builds(bound, st.sampled_from(list(Binder)), st.integers(0, 3), inner),
    ),
    max_leaves=12,
)


@pytest.mark.property
@given(FORMULAS)
@settings(max_examples=33, deadline=None)
def test_what_is_written_is_read_as_the_same_formula(formula: Formula) -> None:
    text = formula_text(formula)
    again = parse_formula(text)
    assert formula_text(again) == text
    assert again == formula or "and (" in text or "or (" in text  # brackets inside their own kind are kept


@pytest.mark.property
@given(FORMULAS)
@settings(max_examples=25, deadline=None)
def test_a_formula_reads_alike_in_the_signs_of_logicians(formula: Formula) -> None:
    text = formula_text(formula)
    if "at " in text or "exactly" in text:
        return
    for word, sign in (("<->", "↔"), ("->", "→"), (" and ", " ∧ "), (" or ", " ∨ "), ("not ", "¬"), (">=", "≥")):
        text = text.replace(word, sign)
    text = text.replace("!=", "≠").replace("all v", "∀v").replace("some v", "∃v")
    assert parse_formula(text) == parse_formula(formula_text(formula))


@pytest.mark.property
@given(st.text(alphabet="pxA1()~&|-><=.,:+* \n∀∃", max_size=40))
@settings(max_examples=33, deadline=None)
def test_any_text_is_a_formula_or_a_named_error(text: str) -> None:
    caught = None
    try:
        parse_formula(text)
    except LogicError as error:
        caught = error
    assert caught is None or ((caught.at is None or 0 <= caught.at <= len(text)) and ": " in str(caught))


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("p &", 3, "finish it"),
        ("p q", 2, "put an operator before it"),
        ("(p | q", 6, "')'"),
        ("p @ q", 2, "'@'"),
        ("at some 2 x. p(x)", 8, "'at least' or 'at most'"),
        ("all . p", 4, "a variable"),
        ("x = " + "9" * 1001, 4, "at most 1000"),
        ("(" * 60 + "p" + ")" * 60, 40, "split it"),
        (" -> ".join("p" * 200), 0, "split it"),
    ],
)
def test_errors_name_the_place_and_the_remedy(text: str, column: int, words: str) -> None:
    with pytest.raises(LogicError) as caught:
        parse_formula(text)
    assert caught.value.at == column
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("predicate tall(person)", "line 1: there is no sort 'person'"),
        ("sort person = Ann, Ann", "line 1: Ann is declared twice"),
        ("function age: int", "write it like `function age(person): int`"),
        ("sort s = a, b\npredicate p(s)\n\np(c)", "line 4: c is not declared"),
        ("p(a)\np(a, b)", "line 2: p has 2 arguments here and 1 in line 1"),
        ("f(a) > 3\nf(a) & q(a)", "line 2: f(a) is a number and a statement at once"),
        ("sort s = a, b\nsort t = c, d\npredicate p(s)\nall x. p(x) -> x = c", "of the sort s and of the sort t"),
        ("at least 2 x. p(x)", "list them"),
        ("all x: person. p(x)", "declare it"),
        ("x" * 100_001, "split it"),
    ],
)
def test_what_does_not_agree_is_named_with_its_line(text: str, words: str) -> None:
    with pytest.raises(LogicError, match=r".") as caught:
        read_document(text)
    assert words in str(caught.value)


def test_a_count_over_many_members_is_too_large_before_it_is_solved() -> None:
    members = ", ".join(f"m{i}" for i in range(40))
    with pytest.raises(LogicError, match="at most 10,000"):
        read_document(f"sort s = {members}\nall x, y, z: s. p(x, y, z)")
