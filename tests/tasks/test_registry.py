"""Tasks by name: families, reasoning-gym datasets, and your own in a file of thirty lines."""

from random import Random

import pytest

from ponder.sandbox.objects import load_object
from ponder.tasks.gym import GymTask
from ponder.tasks.protocol import Task
from ponder.tasks.registry import load_task
from ponder.types import InvalidRequest

MINE = """
from ponder.tasks.graders import numeric, same_value
from ponder.tasks.protocol import Problem


class Doubling:
    name = "doubling"

    def sample(self, rng, level):
        n = rng.randrange(10 ** (1 + int(3 * level)))
        return Problem(task=self.name, question=f"Twice {n}?", answer=str(2 * n))

    def grade(self, problem, answer):
        return numeric(problem.answer, answer)

    def same(self, a, b):
        return same_value(a, b)


class NoTask:
    pass
"""


def test_a_family():
    assert load_task("products").name == "products"


def test_a_reasoning_gym_dataset():
    task = load_task("gym:gcd")
    assert isinstance(task, GymTask)
    assert task.name == "gym:gcd"


def test_a_reasoning_gym_dataset_with_a_config():
    task = load_task('gym:products{"min_digits": 3, "max_digits": 3}')
    assert task.configs == [{"min_digits": 3, "max_digits": 3}]


def test_a_task_in_a_file(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    task = load_task(f"{tmp_path}/mine.py:Doubling")
    assert isinstance(task, Task)
    problem = task.sample(Random(1), 0.5)
    assert task.grade(problem, problem.answer).solved
    assert type(load_task(f"{tmp_path}/mine.py:Doubling")) is type(task)


def test_a_task_in_a_module():
    assert load_task("ponder.tasks.families:Products").name == "products"


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("prodcts", "did you mean 'products'"),
        ("gym:nothing", "no dataset"),
        ("gym:products{oops", "not JSON"),
        ("nowhere.py:Task", "no file 'nowhere.py'"),
        ("no.such.module:Task", "no module 'no.such.module'"),
        ("ponder.tasks.graders:Nothing", "has no 'Nothing'"),
        (":x", "does not name an object"),
    ],
)
def test_mistakes_are_named(spec, hint):
    with pytest.raises(InvalidRequest, match=hint):
        load_task(spec)


def test_a_class_that_is_no_task(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    with pytest.raises(InvalidRequest, match="is not a task: it needs name, sample, grade and same"):
        load_task(f"{tmp_path}/mine.py:NoTask")


def test_an_import_error_inside_a_task_s_module_is_not_hidden(tmp_path):
    (tmp_path / "broken.py").write_text("import surely_not_installed")
    with pytest.raises(InvalidRequest, match=r"No module named 'surely_not_installed' \(.*broken\.py, line 1\)"):
        load_task(f"{tmp_path}/broken.py:Task")


def test_nested_names():
    assert load_object("ponder.tasks.gym:GymTask.sample") is GymTask.sample


def test_a_hard_config_has_a_name_of_its_own_and_any_other_spells_itself():
    assert load_task("gym:gcd@hard").name == "gym:gcd@hard"
    assert load_task("gym:gcd@hard").configs == [
        {"min_numbers": 3, "max_numbers": 4, "min_value": 1000, "max_value": 10000}
    ]
    spelled = 'gym:gcd{"max_value": 50}'
    assert load_task(spelled).name == spelled
    with pytest.raises(InvalidRequest, match="unknown config 'easy'"):
        load_task("gym:gcd@easy")
    with pytest.raises(InvalidRequest, match="no hard config"):
        load_task("gym:boxnet@hard")
