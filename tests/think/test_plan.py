"""Plans: how they are read from what a model wrote, and what a result must look like."""

import pytest

from ponder.think.plan import BadPlan, PlanForm, PlanStep, expected_grade, fill_in, plan_words, read_plan

JSON = """Here it is:
[{"name": "a", "task": "Multiply 47 by 800.", "expects": "integer"},
 {"name": "b", "task": "Add {a} and 705.", "needs": ["a"]},
 {"name": "c", "task": "Halve {b}."}] Good luck!"""


def test_json_is_found_among_other_words_and_references_are_needs():
    first, second, third = read_plan(JSON, PlanForm.JSON, 3)
    assert first == PlanStep("a", "Multiply 47 by 800.", (), "integer")
    assert (second.needs, third.needs) == (("a",), ("b",))
    assert str(first) == "a: Multiply 47 by 800. -> integer"


def test_lines_name_what_they_need_by_braces():
    steps = read_plan("a: 47 * 8 -> number\nb: {a} + {a}\n", PlanForm.LINES, 3)
    assert steps == (PlanStep("a", "47 * 8", (), "number"), PlanStep("b", "{a} + {a}", ("a",)))


def test_a_plan_may_use_results_of_plans_before():
    assert read_plan("b: {a} + 1", PlanForm.LINES, 3, {"a": "7"})[0].needs == ("a",)
    with pytest.raises(BadPlan, match="'a' is used twice"):
        read_plan("a: 1 + 1", PlanForm.LINES, 3, {"a": "7"})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("no idea", "not a JSON list"),
        ("[]", "no steps"),
        ('["a"]', "is not an object"),
        ('[{"name": "a b", "task": "x"}]', "letters and digits"),
        ('[{"name": "a"}]', "has no task"),
        ('[{"name": "a", "task": "x", "needs": "b"}]', "list of names"),
        ('[{"name": "a", "task": "x", "expects": 3}]', "must be a text"),
        ('[{"name": "a", "task": "x", "needs": ["z"]}]', "needs 'z', which is not a step"),
        ('[{"name": "a", "task": "{b}"}, {"name": "b", "task": "{a}"}]', "a, b need each other"),
        ('[{"name": "a", "task": "x"}, {"name": "a", "task": "y"}]', "used twice"),
        (str([{"name": f"s{i}", "task": "x"} for i in range(4)]).replace("'", '"'), "4 steps, and may have 3"),
        ("[" * 100_000 + "]" * 100_000, "not a JSON list"),
    ],
)
def test_what_is_not_a_plan_is_refused_with_the_reason(text, why):
    with pytest.raises(BadPlan, match=why):
        read_plan(text, PlanForm.JSON, 3)


def test_a_line_that_is_no_step_is_refused():
    with pytest.raises(BadPlan, match="'hm' is not a step"):
        read_plan("a: 1 + 1\nhm", PlanForm.LINES, 3)


def test_only_known_names_are_filled_in():
    assert fill_in("{a} of {b} in {'x': 1}", {"a": "7"}) == "7 of {b} in {'x': 1}"


@pytest.mark.parametrize(
    ("expects", "result", "fits"),
    [
        ("integer", "4.0", True),
        ("an integer", "4.5", False),
        ("a number", "-1/3", True),
        ("number", "four", False),
        ("one of yes, no", "No.", True),
        ("one of: A or B", "C", False),
        ("a short list of towns", "anything", None),
        ("", "anything", None),
    ],
)
def test_results_are_checked_where_a_rule_can(expects, result, fits):
    made = expected_grade(expects, result)
    assert (None if made is None else made.solved) is fits
    assert made is None or bool(made.why) is not fits


def test_a_planner_is_shown_what_is_done_what_failed_and_what_was_wrong():
    words = plan_words(PlanForm.LINES, 3, done="a: 1 + 1 = 2", failed="b: 2 * 2 = 5 (too much)", why="it has no steps")
    assert words.index("a: 1 + 1 = 2") < words.index("b: 2 * 2 = 5 (too much)") < words.index("no steps")
    assert "at most 3 steps" in plan_words(PlanForm.JSON, 3)
