"""recipes/smollm2: templates that training never sees, worked solutions that are right, rules, a tokenizer."""

import importlib.util
import operator
import re
import sys
from pathlib import Path
from random import Random
from types import ModuleType

import pytest

from ponder.dialogue import load_format
from ponder.dialogue.chatml import ChatMLFormat
from ponder.tasks.graders import same_value
from ponder.testing.tiny import ByteTokenizer
from ponder.train.algorithms.grpo import GrpoRecipe
from ponder.train.algorithms.sft import SftRecipe
from ponder.train.pipeline import load_recipe

FOLDER = Path(__file__).parents[2] / "recipes" / "smollm2"


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"recipe_smollm2_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="module")
def tasks() -> ModuleType:
    return module("tasks")


@pytest.mark.parametrize("name", ["1_sft", "2_grpo", "direct"])
def test_the_recipes_resolve(name: str) -> None:
    recipe = load_recipe(FOLDER / f"{name}.toml")
    sections = [recipe.section(SftRecipe), *([recipe.section(GrpoRecipe)] if name == "2_grpo" else [])]
    assert {section.lora.rank for section in sections} == {32}
    assert sections[0].direct == (1.0 if name == "direct" else 0.1)


def test_held_out_templates_are_never_trained_on(tasks: ModuleType) -> None:
    pytest.importorskip("reasoning_gym")
    trained, held_out = tasks.gsm_templates()
    assert not set(trained) & set(held_out)
    assert (len(trained), len(held_out)) == (68, 17)
    for task, known in ((tasks.Gsm(), trained), (tasks.HeldOutGsm(), held_out)):
        drawn = {task.sample(Random(seed), 0.5).metadata["template"] for seed in range(60)}
        assert drawn <= set(known)
        assert len(drawn) > 10
    assert not {each.text for each in tasks.TOLD} & {each.text for each in tasks.HELD_OUT}


@pytest.mark.parametrize("name", ["Stories", "HeldOutStories"])
def test_every_line_of_a_story_is_right_and_the_last_is_the_answer(tasks: ModuleType, name: str) -> None:
    task = getattr(tasks, name)()
    for seed in range(300):
        problem = task.sample(Random(seed), seed / 300)
        shown = task.demonstrate(problem, Random(0))
        assert "{" not in problem.question + shown.text
        for line in shown.text.splitlines():
            found = re.search(r": (\d+) ([-+*/]) (\d+) = (\d+)(?: remainder (\d+))?$", line)
            assert found is not None, line
            one, two, result, rest = (int(found[at] or 0) for at in (1, 3, 4, 5))
            exact = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv}[found[2]]
            assert exact(one, two) == result, line
            assert rest == (one % two if found[2] == "/" else 0), line
        assert result == int(problem.answer)
        assert task.grade(problem, shown.answer).score == 1.0
        for number in re.findall(r"\d+", problem.question):
            assert re.search(rf"\b{number}\b", shown.text), (problem.question, shown.text)


def test_worked_solutions_of_gsm_end_in_the_answer(tasks: ModuleType) -> None:
    pytest.importorskip("reasoning_gym")
    task = tasks.Gsm()
    for seed in range(100):
        problem = task.sample(Random(seed), 0.5)
        assert "####" not in problem.metadata["solution"]
        assert task.grade(problem, f"The answer is {problem.answer}.").score == 1.0
        assert task.grade(problem, "none").score == 0.0
    assert same_value("1200", "1,200".replace(",", ""))


def test_requests_and_their_rules() -> None:
    measure = module("measure")
    rules = measure.instructions()
    assert len({rule["prompt"] for rule in rules}) == len(rules) == 90
    assert {kind: sum(rule["kind"] == kind for rule in rules) for kind in ("facts", "rewriting", "summarising")} == {
        "facts": 30,
        "rewriting": 30,
        "summarising": 30,
    }
    for rule in rules:
        asked = rule["prompt"].partition(": ")[2]
        assert not measure.follows(rule, "I do not know.")
        if rule["kind"] != "facts":
            assert not measure.follows(rule, asked)  # to say it again is not enough
    said = {
        "What is the capital of France?": "The capital of France is Paris.",
        "Rewrite as a question: She can swim.": "Can she swim?",
        "Write in capital letters only: the red car": "THE RED CAR",
    }
    for rule in rules:
        if rule["prompt"] in said:
            assert measure.follows(rule, said.pop(rule["prompt"]))
    assert not said


def test_a_tokenizer_gets_words_for_thinking() -> None:
    prepare = module("prepare")
    before = ByteTokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>", *prepare.RENAMED])
    after = prepare.with_thinking(before)
    assert after.vocab_size == before.vocab_size
    assert {after.control_id(new) for new, _ in prepare.RENAMED.values()} == {
        before.control_id(old) for old in prepare.RENAMED
    }
    assert after.chat_template is None
    format = load_format(after)
    assert isinstance(format, ChatMLFormat)
    assert format.phase_tokens.think_close == after.control_id("</think>")
