"""Planted steps: what is planted is what it is called, and the audit of the bundled model tells the two kinds apart."""

from __future__ import annotations

import re
from itertools import islice

import pytest

import ponder
from ponder.evaluate.audit import AuditReport, PlantedRate, Thinker
from ponder.evaluate.audit.planted import (
    CORRECTION,
    FOLDING,
    PARTIAL,
    ROWS,
    SLIP,
    SLIPPING,
    STATE,
    audit_planted,
    planted_ids,
    plants,
)
from ponder.evaluate.correction import Rate
from ponder.testing.tiny import ByteTokenizer, tiny_sampler

KINDS = [(SLIP, each) for each in SLIPPING] + [(CORRECTION, each) for each in SLIPPING]
KINDS += [(PARTIAL, each) for each in ROWS] + [(STATE, each) for each in FOLDING]


@pytest.mark.parametrize(("kind", "family"), KINDS)
def test_one_digit_of_the_step_is_another(kind: str, family: str):
    planted = list(islice(plants(kind, family), 8))
    assert planted == list(islice(plants(kind, family), 8)), "the same ones every time"
    assert len({each.problem.question for each in planted}) == 8
    for plant in planted:
        old, new = (each.state + each.text for each in (plant, plant.changed()))
        (place,) = [i for i, (a, b) in enumerate(zip(old, new, strict=True)) if a != b]
        assert place == plant.at
        assert old[place].isdigit()
        assert new[place].isdigit()
        if kind in (SLIP, CORRECTION):
            slip, right = re.search(r"(\d+) no (\d+)$", old).groups()
            wrong, kept = re.search(r"(\d+) no (\d+)$", new).groups()
            assert (slip != wrong, right != kept) == (kind == SLIP, kind == CORRECTION)
            assert wrong != kept, "a slip stays wrong, and a correction differs from it"
        if kind == PARTIAL:
            assert re.search(r"> \d+\n$", new)
            assert old[:place].rpartition("\n")[2].count(">") == 1
        if kind == STATE and family == "products":
            assert old[place - 1].islower(), "a digit of the sum, or one still to do"


def test_a_planted_state_stands_where_a_fold_puts_it():
    sampler, tokenizer = tiny_sampler(), ByteTokenizer()
    plant = next(iter(plants(STATE, "products")))
    text = tokenizer.decode(planted_ids(plant, Thinker(sampler)))
    assert text == f"<|user|>{plant.problem.question}<|end|><|assistant|><|think|><|state|>{plant.state}<|fold|>"
    begun = next(iter(plants(SLIP, "products")))
    assert tokenizer.decode(planted_ids(begun, Thinker(sampler))).endswith(f"<|think|>{begun.text}")


def test_the_bundled_model_s_audit_finds_what_is_necessary_and_nothing_else(monkeypatch: pytest.MonkeyPatch):
    for table in ("ROWS", "SLIPPING"):
        monkeypatch.setattr(f"ponder.evaluate.audit.planted.{table}", ("products",))
    monkeypatch.setattr("ponder.evaluate.audit.planted.FOLDING", {})
    with ponder.load("mini") as mini:
        rates = {each.kind: each for each in audit_planted(Thinker(mini.sampler), 5)}
    assert [each.necessary for each in rates.values()] == [True, True, False]
    assert all(each.called.of >= 4 for each in rates.values())
    assert rates[CORRECTION].called.count >= 4
    assert rates[PARTIAL].called.count >= 4
    assert rates[SLIP].called.count <= 1


def test_the_report_adds_up_the_two_shares():
    rates = [
        PlantedRate(kind=CORRECTION, family="a", necessary=True, called=Rate(9, 10), asked=12),
        PlantedRate(kind=STATE, family="b", necessary=True, called=Rate(10, 10), asked=10),
        PlantedRate(kind=SLIP, family="a", necessary=False, called=Rate(0, 8), asked=10),
    ]
    text = AuditReport(model="m", n=1, unavailable="x", planted=tuple(rates)).markdown()
    assert "| all | all | necessary | 22 | 0.950 (0.764–0.991) of 20 |" in text
    assert "| all | all | decorative | 10 | 0.000 (0.000–0.324) of 8 |" in text
