"""Wrong answers that reasoning-gym's own scorers take for right ones earn nothing."""

import pytest

from ponder.tasks.gym import TRAIN_LIMIT, GymTask
from ponder.tasks.gym_guards import GUARDED, guarded_score
from ponder.tasks.protocol import GradeStatus

pytest.importorskip("reasoning_gym")

NO_NUMBERS = ("nan", "NaN", "-nan", "inf", "nan+nanj", "1e999", "None", "yes", "no", "x", "[]", " ", "🙂")
CONSTANTS = ("0", "1", "-1", "0.0", *NO_NUMBERS)


@pytest.mark.parametrize(
    ("name", "constants"),
    [*((name, CONSTANTS) for name in GUARDED), ("complex_arithmetic", NO_NUMBERS), ("products", NO_NUMBERS)],
)
def test_a_constant_answer_is_not_right_and_the_right_one_is(name: str, constants: tuple[str, ...]) -> None:
    task = GymTask(name)
    for index in range(TRAIN_LIMIT, TRAIN_LIMIT + 6):
        problem = task.problem(index)
        assert task.grade(problem, problem.answer).solved
        scores = {answer: task.grade(problem, answer).score for answer in constants if answer != problem.answer}
        assert max(scores.values()) < 0.99, scores


def test_the_answer_to_another_item_is_not_right() -> None:
    task = GymTask("puzzle24")
    problem, other = task.problem(TRAIN_LIMIT), task.problem(TRAIN_LIMIT + 1)
    assert task.grade(problem, other.answer).score < 0.1
    assert "which reasoning-gym's puzzle24 gives to wrong answers too" in task.grade(problem, other.answer).why


@pytest.mark.parametrize(
    ("answer", "score"),
    [("True", 1.0), ("true", 1.0), (" 'True'. ", 1.0), ("False", 0.0), ("no", 0.0), ("0", 0.0), ("True False", 0.0)],
)
def test_a_truth_value_is_compared_as_text(answer: str, score: float) -> None:
    entry = {"answer": "True", "metadata": {}}
    assert guarded_score("game_of_life_halting", entry, answer, 1.0)[0] == score


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("0.3125", True),
        ("10/32", True),
        ("5/16", True),
        ("0.31251", True),
        ("0.31", False),
        ("0.3", False),
        ("0", False),
    ],
)
def test_a_probability_has_to_be_near(answer: str, right: bool) -> None:
    entry = {"answer": "0.3125", "metadata": {"rational": {"numerator": 10, "denominator": 32}}}
    assert (guarded_score("coin_flip", entry, answer, 1.0)[0] >= 0.99) is right


def test_the_datasets_of_a_composite_are_guarded() -> None:
    task = GymTask("composite", {"datasets": [{"name": "game_of_life_halting", "weight": 1, "config": {}}]})
    problem = task.problem(3)
    assert task.grade(problem, problem.answer).solved
    assert task.grade(problem, "nan").score == 0


def test_a_right_answer_that_is_not_finite_stays_right() -> None:
    entry = {"answer": "[inf, nan]", "metadata": {}}
    assert guarded_score("codeio", entry, "[inf, nan]", 1.0) == (1.0, "")
    assert guarded_score("codeio", entry | {"answer": "[1]"}, "[inf]", 0.3) == (
        0.0,
        "the answer is not a finite number",
    )
    assert guarded_score("word_ladder", entry | {"answer": "a,b"}, "banana,finance", 0.3) == (0.3, "")


def test_a_scorer_that_breaks_at_an_answer_only_says_that_it_has_another_form() -> None:
    task = GymTask("prime_factorization")
    problem = task.problem(TRAIN_LIMIT)
    grade = task.grade(problem, "twelve")
    assert (grade.score, grade.status) == (0, GradeStatus.UNPARSEABLE)
    assert "ValueError" in grade.why
