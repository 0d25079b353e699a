"""The bundled model does what its card says, through the front door."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import ponder
from ponder.sampler.opening import find_model
from ponder.tasks.gym import TRAIN_LIMIT, GymTask
from ponder.think import Reasoner

pytestmark = pytest.mark.smoke

GOLDEN = Path(__file__).parents[1] / "golden" / "mini_answers.json"
DATASETS = (
    "products",
    "chain_sum",
    "letter_counting",
    "spell_backward",
    "gcd",
    "count_bits",
    "syllogism",
    "leg_counting",
)


@pytest.fixture(scope="module")
def mini() -> Iterator[Reasoner]:
    with ponder.load("mini") as reasoner:
        yield reasoner


def test_held_out_problems_are_solved_by_thinking(mini: Reasoner) -> None:
    """Ten of each kind that no training has seen; the card's figures leave room for a few misses, not for many."""
    for name in DATASETS:
        task = GymTask(name)
        problems = [task.problem(TRAIN_LIMIT + 70_000 + index) for index in range(10)]
        answers = mini.ask_many([problem.question for problem in problems], effort="high")
        solved = sum(task.grade(p, a.text).solved for p, a in zip(problems, answers, strict=True))
        assert solved >= 7, (name, [answer.text for answer in answers])
        assert all(answer.usage.reasoning_tokens for answer in answers)


def test_greedy_answers_are_the_recorded_ones(mini: Reasoner) -> None:
    """What a new engine must not change. bfloat16 rounds differently from CPU to CPU, so the answers are compared, and
    of the reasoning its last line."""
    for recorded in json.loads(GOLDEN.read_text()):
        answer = mini.ask(recorded["question"], effort="high")
        assert answer.text == recorded["answer"]
        assert answer.reasoning.splitlines()[-1] == recorded["last_line"]


def test_a_second_turn_is_right_without_the_first_turns_thinking(mini: Reasoner) -> None:
    conversation = mini.conversation(effort="high")
    conversation.say("What is 12 * 34?")
    second = conversation.say("What is 56 * 78?")
    assert second.text == "4368"
    before, now = conversation.account
    assert before.reasoning_tokens > now.prompt_tokens - before.prompt_tokens


def test_a_consensus_bills_all_its_samples(mini: Reasoner) -> None:
    one = mini.ask("What is 12 * 34?", effort="high")
    voted = mini.ask("What is 12 * 34?", effort="high", strategy="consensus(samples=5, until='all')", seed=1)
    assert voted.text == "408"
    assert voted.usage.completion_tokens > 4 * one.usage.completion_tokens * 0.8
    assert voted.usage.prompt_tokens == one.usage.prompt_tokens


def test_the_bundled_files_are_small_and_whole() -> None:
    folder = find_model("mini")
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"} <= names
    assert sum(path.stat().st_size for path in folder.iterdir()) < 30e6
