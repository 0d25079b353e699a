"""Base conversion re-checked: every digit step, every row, and Python's own reading of both numerals."""

from __future__ import annotations

import re
from random import Random

import pytest
from family_checks import corrected
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.tasks.families import FAMILIES
from ponder.tasks.families.base_conversion import GYM
from ponder.tasks.gym import GymTask
from ponder.tasks.protocol import Problem
from ponder.tokenizer import Tokenizer

reasoning_gym = pytest.importorskip("reasoning_gym")

pytestmark = pytest.mark.property
FAMILY = FAMILIES["base_conversion"]
TOKENIZER = Tokenizer.load("src/ponder/mini")
MAX_TOKENS = 650
HARD = {"min_base": 9, "max_base": 18, "min_value": 10_000, "max_value": 100_000}


@given(seed=st.integers(0, 2**32), level=st.floats(0, 1))
@settings(max_examples=66, deadline=None)
def test_every_step_holds_and_rows_lead_from_one_to_the_next(seed: int, level: float):
    rng = Random(seed)
    problem = FAMILY.sample(rng, level)
    demonstration = FAMILY.demonstrate(problem, rng)
    head, *lines = (corrected(line) for line in demonstration.text.split("\n"))
    source, target = map(int, re.findall(r"\d+", head))
    for line in lines:
        for a, b, c, result in re.findall(r" (\d+)\*(\d+)\+(\d+)=(\d+)", line):
            assert int(a) * int(b) + int(c) == int(result)
        for top, quotient, product, rest in re.findall(r" (\d+):(\d)=(\d+)\+(\d+)", line):
            assert int(product) == int(quotient) * target
            assert int(top) - int(product) == int(rest) < target
    value = int(demonstration.answer, target)
    assert in_words(problem.question, value, source)
    if source != 10:
        values = [int(v) for v in re.findall(r"=(\d+)", lines.pop(0))]
        total = 0
        for digit, line in zip(values, lines, strict=False):
            total = total * source + digit
            assert re.search(rf"^ \w={digit}\b", line)
            assert int(line.rsplit("> ", 1)[1][::-1]) == total
        lines = lines[len(values) :]
    assert int(lines.pop(0)) == value
    if target != 10:
        rest, found = value, []
        for line in lines[:-1]:
            assert line.startswith(f"{rest}/{target}:")
            digit, left = re.search(r" (\w=\w) > (\d+)$", line).groups()
            assert int(digit[2], target) == rest % target
            rest = int(left)
            assert rest == int("".join(re.findall(r":(\d)=", line)))
            found.append(f" {digit}")
        assert rest == 0
        assert lines[-1] == "".join(reversed(found))


def in_words(question: str, value: int, base: int) -> bool:
    """Whether a word of the question is the value's numeral in the base."""
    readable = [w.strip(".") for w in question.split() if re.fullmatch(r"[0-9a-z]+\.?", w)]
    return any(all(c in "0123456789abcdefghijk"[:base] for c in w) and int(w, base) == value for w in readable)


@pytest.mark.parametrize("config", [{}, HARD])
def test_reasoning_gym_asks_the_same_and_takes_the_answers(config):
    gym = GymTask("base_conversion", config)
    dataset = reasoning_gym.create_dataset("base_conversion", seed=0, size=60, **config)
    for index in range(60):
        item, entry = gym.problem(index), dataset[index]
        metadata = entry["metadata"]
        names = {2: "binary", 16: "hexadecimal"}
        source, target = metadata["source_base"], metadata["target_base"]
        assert item.question == GYM[0].format(
            digits=metadata["source_repr"],
            source=names.get(source, f"base-{source}"),
            target=names.get(target, f"base-{target}"),
        )
        facts = {"value": metadata["decimal_value"], "source": source, "target": target}
        problem = Problem(task="base_conversion", question=item.question, answer="", metadata=facts)
        demonstration = FAMILY.demonstrate(problem, Random(index))
        assert dataset.score_answer(demonstration.answer, entry) == 1.0
        assert len(TOKENIZER.encode(item.question + demonstration.text)) <= MAX_TOKENS
