"""reasoning-gym's datasets as tasks: the same item for the same index, graded as reasoning-gym grades."""

import json
import subprocess
import sys
from decimal import getcontext
from random import Random

import pytest

from ponder.sandbox.payload import pack_json, unpack_json
from ponder.tasks.gym import TRAIN_LIMIT, GymTask, UndrawableItem, gym_library, question_hash, runs_answers
from ponder.tasks.protocol import GradeStatus, Task
from ponder.types import GraderError, InvalidRequest

pytest.importorskip("reasoning_gym")

FAMILIES = ["products", "chain_sum", "letter_counting", "spell_backward", "gcd", "basic_arithmetic", "countdown"]


@pytest.mark.parametrize("name", FAMILIES)
def test_item_i_is_what_reasoning_gym_draws_from_random_i(name):
    import reasoning_gym

    reference = reasoning_gym.create_dataset(name, seed=TRAIN_LIMIT, size=5)
    task = GymTask(name)
    assert isinstance(task, Task)
    for offset in range(5):
        problem = task.problem(TRAIN_LIMIT + offset)
        assert problem.question == reference[offset]["question"]
        assert problem.answer == reference[offset]["answer"]
        assert task.grade(problem, problem.answer).solved
        assert task.entry(problem)["metadata"] == {
            **reference[offset]["metadata"],
            "source_index": TRAIN_LIMIT + offset,
        }


def test_training_draws_stay_below_the_limit_and_evaluation_is_disjoint():
    task = GymTask("products")
    rng = Random(0)
    drawn = [task.sample(rng, 0.5).metadata["index"] for _ in range(200)]
    assert all(0 <= index < TRAIN_LIMIT for index in drawn)


def test_partial_credit_is_the_dataset_s_own():
    task = GymTask("products")
    problem = task.problem(5)
    assert 0 < task.grade(problem, f"it is {problem.answer}").score < 1
    assert task.grade(problem, f"  {problem.answer}\n").score == 1
    assert task.grade(problem, "").score == 0


def test_a_config_shapes_the_problems():
    task = GymTask("products", {"min_digits": 7, "max_digits": 7})
    assert all(len(task.problem(i).question.split(": ")[1].split(" * ")[0]) == 7 for i in range(5))


def test_levels_pick_among_rising_configs():
    task = GymTask(
        "products", {"max_digits": 1}, harder=[{"min_digits": 3, "max_digits": 3}, {"min_digits": 6, "max_digits": 6}]
    )
    sizes = [task.sample(Random(1), level).metadata["config"]["max_digits"] for level in (0, 0.4, 0.99, 1)]
    assert sizes == [1, 3, 6, 6]
    with pytest.raises(InvalidRequest, match="level"):
        task.sample(Random(1), 1.5)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("prodcts",), "did you mean 'products'"),
        (("products", {"max_digit": 3}), "'max_digits'"),
        (("products", {"max_digits": 0}), "refuses the config"),
        (("products", {"max_digits": "three"}), "refuses the config"),
        (("composite",), "refuses the config"),
        (("products", {"seed": 3}), "no config key 'seed'"),
    ],
)
def test_mistakes_are_named(arguments, hint):
    with pytest.raises(InvalidRequest, match=hint):
        GymTask(*arguments)


def test_a_negative_index_is_refused():
    with pytest.raises(InvalidRequest, match="at least 0"):
        GymTask("gcd").problem(-1)


def test_an_item_that_the_dataset_breaks_at_is_named_and_passed_over():
    task = GymTask("basic_arithmetic")
    with pytest.raises(UndrawableItem, match="item 5000293 cannot be drawn: ZeroDivisionError"):
        task.problem(5_000_293)
    assert task.first_drawable(range(5_000_293, 5_000_295)).metadata["index"] == 5_000_294
    with pytest.raises(UndrawableItem, match="no item can be drawn"):
        task.first_drawable([5_000_293])


def test_a_hostile_answer_to_an_evaluating_scorer_costs_one_grade():
    task = GymTask("countdown", timeout=0.5)
    problem = task.problem(TRAIN_LIMIT)
    assert task.grade(problem, "9**9**9**9").status is GradeStatus.TIMEOUT
    assert task.grade(problem, "__import__('os')._exit(0)").score < 0.5
    assert task.grade(problem, problem.answer).solved


def test_scorers_that_evaluate_get_a_child_of_their_own():
    assert runs_answers("countdown")
    assert runs_answers("n_queens")
    assert runs_answers("binary_matrix"), "it calls eval in a helper"
    assert not runs_answers("products")
    assert not runs_answers("basic_arithmetic"), "it calls eval on its own expressions only, while it draws"


def test_datasets_that_are_built_at_once_are_built_in_blocks():
    task = GymTask("list_functions")
    a, b = task.problem(TRAIN_LIMIT + 499), task.problem(TRAIN_LIMIT + 500)
    assert a.question != b.question
    assert task.problem(TRAIN_LIMIT + 499) == a
    assert task.grade(b, b.answer).solved


def test_the_same_item_whatever_the_hash_seed():
    program = "from ponder.tasks.gym import GymTask; print(GymTask('ransom_note').problem(7).question)"
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONHASHSEED": "1"}, capture_output=True, text=True, check=True
    )
    assert done.stdout == GymTask("ransom_note").problem(7).question + "\n"  # this process has another seed


def test_a_composite_of_datasets():
    parts = [{"name": name, "weight": 1, "config": {}} for name in ("products", "gcd")]
    task = GymTask("composite", {"datasets": parts})
    problems = [task.problem(i) for i in range(8)]
    assert {task.entry(problem)["metadata"]["source_dataset"] for problem in problems} == {"products", "gcd"}
    assert all(task.grade(problem, problem.answer).solved for problem in problems)


def test_same():
    task = GymTask("products")
    assert task.same("1,000", "1000")
    assert not task.same("1000", "1001")


def test_question_hash_ignores_white_space_only():
    assert question_hash("a  b\n") == question_hash("a b")
    assert question_hash("a b") != question_hash("a c")
    assert len(question_hash("x")) == 16


def test_entries_travel_as_json_unchanged():
    from fractions import Fraction

    value = {"a": (1, [2.5, None]), 3: True, "f": Fraction(1, 3), "$tuple": {"x": ()}}
    assert unpack_json(json.loads(json.dumps(pack_json(value)))) == value
    with pytest.raises(GraderError, match="set"):
        pack_json({1, 2})


@pytest.mark.slow
def test_every_dataset_is_a_task():
    names = sorted(gym_library().DATASETS)
    without_gold = {"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}
    assert len(names) > 100
    for name in names:
        if name == "composite":
            continue
        task = GymTask(name, timeout=30)
        for index in (0, TRAIN_LIMIT):
            problem = task.problem(index)
            assert problem == task.problem(index), name
            grade = task.grade(problem, problem.answer)
            assert grade.status is GradeStatus.GRADED, (name, grade)
            assert grade.solved or name in without_gold, (name, index, grade)


def test_a_dataset_that_sets_the_precision_of_decimals_does_not_change_the_others() -> None:
    before = getcontext().prec
    GymTask("decimal_arithmetic").problem(3)
    assert getcontext().prec == before
