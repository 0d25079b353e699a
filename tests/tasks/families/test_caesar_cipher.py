"""Caesar's cipher: every row of the search, the table and every letter re-checked."""

from __future__ import annotations

import re

import pytest
from family_checks import assert_scored_alike, context_lengths, drawn, gym_items
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.tasks.families import FAMILIES
from ponder.tasks.families.caesar_cipher import GYM

pytestmark = pytest.mark.property

seeds = st.integers(min_value=0, max_value=2**32)
levels = st.floats(min_value=0, max_value=1)
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@given(seed=seeds, level=levels)
@settings(max_examples=50, deadline=None)
def test_rows_table_and_letters_are_right(seed: int, level: float):
    problem, demonstration = drawn("caesar_cipher", seed, level)
    cipher, text = problem.metadata["cipher"], problem.metadata["text"]
    assert cipher in problem.question
    before, found = {"A": "Z"} | dict(zip(ALPHABET[1:], ALPHABET, strict=False)), False
    first, *lines = demonstration.reasoning.split("\n")
    row = first.split()
    assert "".join(row) == cipher.replace(" ", "")[:6]
    while not found:
        line = lines.pop(0)
        row = [before[letter] for letter in row]
        assert line.split()[: len(row)] == [letter.lower() for letter in row]
        rest = line.split()[len(row) :]
        found = rest == ["yes"]
        assert rest in ([], ["yes"], ["yes", "no"])
    assert "".join(row) == text.replace(" ", "")[:6]
    pairs = lines.pop(0).split()
    table = dict(zip(pairs[::2], pairs[1::2], strict=True))
    assert sorted(table) == list(ALPHABET)
    assert sorted(table.values()) == list(ALPHABET.lower())
    for word, plain, line in zip(cipher.split(), text.split(), lines, strict=True):
        spelled, looked_up = (side.split() for side in line.split(":"))
        assert spelled == list(word) == looked_up[::2]
        assert looked_up[1::2] == [table[letter] for letter in word] == list(plain.lower())
    assert "".join(demonstration.pieces) == demonstration.answer == text
    assert all(re.fullmatch(" ?[A-Z]", piece) for piece in demonstration.pieces)
    assert max(context_lengths(problem, demonstration)) <= 1000


def test_wording_and_scores_are_reasoning_gyms():
    family, (dataset, items) = FAMILIES["caesar_cipher"], gym_items("caesar_cipher", 40)
    for item in items:
        cipher, text = item["metadata"]["cipher_text"], item["metadata"]["clear_text"]
        if not text.isascii():  # reasoning-gym turns a letter with marks into one that cannot be turned back
            continue
        assert item["question"] == GYM[0].format(text=cipher)
        assert_scored_alike(family, dataset, item, {"cipher": cipher, "text": text})
