"""Countdown's search: every step holds, every verdict is true, nothing is tried twice, and states are enough."""

from __future__ import annotations

import re
from fractions import Fraction
from random import Random
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ponder
from ponder.tasks.families.countdown import FORMAT, GYM, Countdown, evaluate_expression
from ponder.tasks.families.working.countdown_search import Search, draw_chain, solve
from ponder.tasks.gym import GymTask, gym_dataset
from ponder.tasks.protocol import Problem, SelfChecking, Try, without_marks
from ponder.tasks.registry import load_task
from ponder.tokenizer import Tokenizer

pytestmark = pytest.mark.property

FAMILY = Countdown()
seeds = st.integers(min_value=0, max_value=2**32)
levels = st.floats(min_value=0, max_value=1)


def demonstrated(seed: int, level: float):
    rng = Random(seed)
    problem = FAMILY.sample(rng, level)
    return problem, FAMILY.demonstrate(problem, rng)


def contexts(demonstration) -> list[tuple[str, str]]:
    """(state, thought) of every context."""
    states = ["", *(fold.state for fold in demonstration.folds)]
    thoughts = [*(fold.thought for fold in demonstration.folds), demonstration.reasoning]
    return [(state, without_marks(thought)) for state, thought in zip(states, thoughts, strict=True)]


def exact(expression: str) -> Fraction:
    return eval(re.sub(r"(\d+)", r"Fraction(\1)", expression), {"Fraction": Fraction})


def check_steps(text: str) -> int:
    """Computes from the left, bracket by bracket: every `=result` equals what stands before it. Returns the last."""
    waiting: list[Fraction | None] = []
    value, sign = None, ""
    for token in re.findall(r"=?\d+|[()+*/-]", re.sub(r"=\d+ no (\d+)", r"=\1", text)):
        if token == "(":
            assert value is None, "a bracket stands first"
            waiting.append(value)
        elif token == ")":
            waiting.pop()
        elif token[0] == "=":
            assert value == int(token[1:]), text
        elif token.isdigit():
            number = Fraction(token)
            steps = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b}
            value = number if value is None else steps[sign](value, number)
            assert value >= 0, text
        else:
            sign = token
    assert not waiting, text
    return int(value)


@given(seed=seeds, level=levels)
@settings(max_examples=40, deadline=None)
def test_every_step_and_every_verdict_is_true(seed: int, level: float):
    problem, demonstration = demonstrated(seed, level)
    numbers, target = sorted(problem.metadata["numbers"], reverse=True), problem.metadata["target"]
    header = f"{' '.join(map(str, numbers))} to {target}"
    tried, heads, last = set(), [], ""
    for state, thought in contexts(demonstration):
        lines = thought.split("\n")
        if state:
            assert state == f"{header} after {heads[-1]}."
        else:
            assert lines.pop(0) == header
        for line in lines:
            if ":" in line and " no:" not in line:
                head, rest = line.split(":")
                value, left = check_steps(head), list(map(int, rest.split()))
                heads.append(re.sub(r"=\d+( no \d+)?", "", head))
                used = list(map(int, re.findall(r"\d+", heads[-1])))
                assert sorted(used + left, reverse=True) == numbers
                assert left == sorted(left, reverse=True)
            elif not line.startswith("give up"):
                attempt, verdict = re.fullmatch(r"([\d+=-]+(?: no \d+[\d+=-]*)?) (yes|no: .*)", line).groups()
                outcome = check_steps(attempt)
                terms = re.findall(r"[+-]?\d+", re.sub(r"=\d+( no \d+)?", "", attempt))
                assert [int(terms[0]), *(abs(int(t)) for t in terms[1:])] == [value, *left]
                last = heads[-1] + "".join(terms[1:])
                assert last not in tried, "the same attempt twice"
                tried.add(last)
                miss = abs(outcome - target)
                if verdict == "yes":
                    assert miss == 0
                elif verdict == "no: odd":
                    assert miss % 2
                else:
                    high, low = max(outcome, target), min(outcome, target)
                    assert verdict == f"no: {high}-{low}={miss} half {miss // 2}"
                    assert miss
    assert len(heads) == len(set(heads))
    if not demonstration.reasoning.split("\n")[-1].startswith("give up"):
        assert demonstration.answer == last
        assert exact(demonstration.answer) == target


@given(seed=seeds, level=levels)
@settings(max_examples=25, deadline=None)
def test_heads_come_in_the_one_order_that_a_state_relies_on(seed: int, level: float):
    problem, demonstration = demonstrated(seed, level)
    order = [h.expression for h in Search(problem.metadata["numbers"], problem.metadata["target"]).heads()]
    texts = [re.sub(r"=\d+( no \d+)?", "", head) for head in re.findall(r"(?m)^(.*?):(?! no)", demonstration.text)]
    places = [order.index(text) for text in texts if text in order and " no" not in text]
    assert places == sorted(set(places))


@given(seed=seeds, level=levels)
@settings(max_examples=25, deadline=None)
def test_tries_of_a_demonstration(seed: int, level: float):
    problem, demonstration = demonstrated(seed, level)
    tries = FAMILY.tries(problem, demonstration.text)
    gave_up = "give up" in demonstration.text
    assert tries[:-1] == [Try(right=False, accepted=False)] * (len(tries) - 1)
    assert tries[-1] == Try(right=not gave_up, accepted=not gave_up)
    joined = "".join(state + thought for state, thought in contexts(demonstration))
    assert FAMILY.tries(problem, joined) == tries, "as a folded completion joins its thoughts and states"


def test_tries_are_judged_by_what_they_join_not_by_what_they_say():
    problem = Problem(task="countdown", question="Make 244 from the numbers 4, 23, 45, 83.", answer="")
    assert isinstance(FAMILY, SelfChecking)
    told = "83 45 23 4 to 244\n45*4=180: 83 23\n"
    wrong, right = Try(right=False, accepted=False), Try(right=True, accepted=True)
    assert FAMILY.tries(problem, told + "180+83=263-23=240 no: 244-240=4 half 2") == [wrong]
    assert FAMILY.tries(problem, told + "180+83=263-23=244 yes") == [Try(right=False, accepted=True)]
    assert FAMILY.tries(problem, told + "180+83=263-23=24") == [], "no verdict yet"
    assert FAMILY.tries(problem, told + "180+83=263 yes") == [Try(right=False, accepted=True)], "a number is left out"
    problem = Problem(task="countdown", question="Make 240 from the numbers 4, 23, 45, 83.", answer="")
    assert FAMILY.tries(problem, told + "180+83=253 no 263-23=240 yes") == [right]
    assert FAMILY.tries(problem, told + "180+83=263-23=241 no: odd") == [Try(right=True, accepted=False)]
    assert FAMILY.tries(problem, "nonsense (: yes\n1+ yes\n)(: 3\n3 yes") == [Try(right=False, accepted=True)]


def test_the_question_is_reasoning_gym_s_and_so_is_the_score():
    task = GymTask("countdown")
    templates = set()
    for index in range(40):
        entry = task.entry(task.problem(index))
        numbers, target = entry["metadata"]["numbers"], entry["metadata"]["target"]
        question = entry["question"].replace(", ".join(map(str, numbers)), "{numbers}")
        templates.add(question.replace(f" {target}", " {target}"))
    assert templates == {FORMAT.format(question=question) for question in GYM}
    scorer, _ = gym_dataset("countdown", {}, 0)
    for seed in range(30):
        problem, demonstration = demonstrated(seed, seed / 30)
        score = scorer.score_answer(demonstration.answer, {"metadata": dict(problem.metadata)})
        assert score == 1.0 or "give up" in demonstration.reasoning, demonstration.answer


def test_nearly_everything_that_is_drawn_can_be_searched_for():
    rng = Random(3)
    chains = [draw_chain(rng, 3 + i % 4) for i in range(400)]
    assert sum(solve(chain) is not None for chain in chains) >= 394


def test_contexts_fit_their_rows():
    tokenizer = Tokenizer.load(f"{ponder.__path__[0]}/mini")
    for seed in range(60):
        problem, demonstration = demonstrated(seed, seed / 60)
        around = len(tokenizer.encode(problem.question + demonstration.answer))
        for state, thought in contexts(demonstration):
            assert around + len(tokenizer.encode(state + thought)) <= 1000


def test_the_recipes_ways_to_show_it_are_right_and_say_so():
    for name in ("Searched", "Wandering"):
        task = load_task(f"recipes/countdown/tasks.py:{name}")
        for seed in range(60):
            rng = Random(seed)
            problem = task.sample(rng, rng.uniform(0.15, 0.42))
            demonstration = task.demonstrate(problem, rng)
            tried = task.tries(problem, demonstration.reasoning)
            assert tried
            assert all(each.right == each.accepted for each in tried)
            gave_up = "give up" in demonstration.reasoning
            assert tried[-1].accepted != gave_up
            assert task.grade(problem, demonstration.answer).solved != gave_up


def test_a_wandering_attempt_writes_down_what_it_comes_to():
    task = load_task("recipes/countdown/tasks.py:Wandering")
    near = [[], []]
    for seed in range(60):
        rng = Random(seed)
        problem = task.sample(rng, 0.2)
        target = problem.metadata["target"]
        for line in task.demonstrate(problem, rng).reasoning.split("\n")[1:]:
            expression = re.sub(r"=\d+", "", line.split(" ")[0].lstrip("~"))
            value, used = evaluate_expression(expression)
            assert value == int(line.split(" ")[0].rsplit("=", 1)[1])
            assert sorted(used) == sorted(problem.metadata["numbers"])
            if line.endswith("no"):
                near[line.startswith("~")].append(abs(value - target))
    blind, aimed = map(median, near)
    assert aimed < blind / 4
