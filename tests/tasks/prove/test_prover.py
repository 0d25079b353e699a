"""What z3 says: verdicts, minimal contradictions against brute force, and limits that hold on hard formulas."""

from __future__ import annotations

from itertools import combinations, product
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.sandbox.objects import load_object
from ponder.tasks.prove import prover
from ponder.tasks.prove.document import Statement, read_document
from ponder.tasks.prove.prover import Verdict, prove
from ponder.types import MissingExtra

BENCH = Path(__file__).parents[3] / "bench" / "prover.py"
SECONDS = 20.0  # far more than these take: other work on the machine must not decide a test


def lines(statements: tuple[Statement, ...]) -> list[int]:
    return [each.line for each in statements]


def test_goals_are_proved_refuted_or_open_and_name_the_premises_they_take() -> None:
    proof = prove(
        read_document(
            "All humans are mortal.\nSocrates is a human.\nBo is tall.\n"
            "Therefore Socrates is mortal.\nTherefore Socrates is not a human.\nTherefore Socrates is tall."
        ),
        SECONDS,
    )
    assert proof.consistent
    assert [each.verdict for each in proof.findings] == [Verdict.PROVED, Verdict.REFUTED, Verdict.UNDETERMINED]
    assert [lines(each.used) for each in proof.findings] == [[1, 2], [2], []]


def test_inconsistent_premises_prove_nothing() -> None:
    proof = prove(read_document("p\n~p ::: Not p.\n? q"), SECONDS)
    assert proof.consistent is False
    assert proof.findings[0].verdict is Verdict.INCONSISTENT
    assert [each.text for each in proof.conflicts[0]] == ["p", "Not p."]


def test_an_endless_search_is_unknown_never_a_no() -> None:
    proof = prove(read_document("x*x*x + y*y*y + z*z*z = 114\n? x > y"), 0.3)
    assert proof.consistent is None
    assert proof.findings[0].verdict is Verdict.UNKNOWN
    assert "0.3 s" in proof.why


def test_names_are_different_things_and_counts_are_not_negative() -> None:
    assert prove(read_document("Ann is Bo."), SECONDS).consistent is False
    assert prove(read_document("Ann has fewer than 1 cats. Therefore Ann has no cats."), SECONDS).findings[
        0
    ].verdict is (Verdict.PROVED)


def test_numbers_of_a_thousand_digits_are_exact() -> None:
    n = 10**900 + 7
    assert prove(read_document(f"x = {n} * 3\n? x = {3 * n}\n? x = {3 * n + 1}"), SECONDS).findings[1].verdict is (
        Verdict.REFUTED
    )


def test_without_z3_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prover, "find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"ponder\[verify\]"):
        prove(read_document("p"))


LETTERS = "abcd"
LITERALS = [f"{sign}{letter}" for letter in LETTERS for sign in ("", "~")]


def brute_force(clauses: list[list[str]]) -> set[tuple[int, ...]]:
    """All minimal sets of clauses that no assignment makes true together."""
    rows = [dict(zip(LETTERS, row, strict=True)) for row in product((True, False), repeat=len(LETTERS))]
    true = [
        {i for i, row in enumerate(rows) if any(row[each[-1]] != each.startswith("~") for each in clause)}
        for clause in clauses
    ]
    found: set[tuple[int, ...]] = set()
    for size in range(1, len(clauses) + 1):
        for chosen in combinations(range(len(clauses)), size):
            if not any(set(smaller) <= set(chosen) for smaller in found) and not set.intersection(
                *(true[i] for i in chosen)
            ):
                found.add(chosen)
    return found


@pytest.mark.property
@given(st.lists(st.lists(st.sampled_from(LITERALS), min_size=1, max_size=2, unique=True), min_size=1, max_size=10))
@settings(max_examples=25, deadline=None)
def test_the_contradictions_are_all_minimal_ones_that_brute_force_finds(clauses: list[list[str]]) -> None:
    proof = prove(read_document("\n".join(f"{' | '.join(clause)} :::" for clause in clauses)), SECONDS)
    assert proof.complete
    assert {tuple(line - 1 for line in lines(each)) for each in proof.conflicts} == brute_force(clauses)
    assert proof.consistent == (not proof.conflicts)


def test_fifty_hard_formulas_keep_to_their_limit_and_are_never_decided_wrongly() -> None:
    make, timed = load_object(f"{BENCH}:hard_formulas"), load_object(f"{BENCH}:timed")
    prove(read_document("p"))  # starts the fork server
    for hard in make(50):  # type: ignore[operator]
        result = timed(hard, 0.15)  # type: ignore[operator]
        if result.seconds > 0.65:  # the machine may have been away for a moment: then not twice
            result = timed(hard, 0.15)  # type: ignore[operator]
        assert result.seconds <= 0.65, hard.kind
        assert not result.wrong, hard.kind


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_thousand_hard_formulas_keep_to_their_limit() -> None:
    make, timed = load_object(f"{BENCH}:hard_formulas"), load_object(f"{BENCH}:timed")
    assert not [each for each in (timed(hard, 0.5) for hard in make(1000)) if each.seconds > 1.0 or each.wrong]  # type: ignore[operator]


def test_the_order_of_statements_changes_no_contradiction() -> None:
    text = [
        "Ann is taller than Bo.",
        "Bo is taller than Cy.",
        "Cy is taller than Ann.",
        "Bo is tall.",
        "Bo is not tall.",
    ]
    for seed in range(5):
        Random(seed).shuffle(text)
        found = prove(read_document("\n".join(text)), SECONDS).conflicts
        assert {frozenset(each.text for each in conflict) for conflict in found} == {
            frozenset(each for each in text if "taller" in each),
            frozenset({"Bo is tall.", "Bo is not tall."}),
        }
