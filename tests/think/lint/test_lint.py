"""`ponder lint`: seeded faults are found where they stand, clean prompts are left alone, rewrites lint clean.

`faults.jsonl` was written after the rules and was not used to mend them; what they miss in it stays missed.
"""

import ast
import functools
import json
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ponder
from ponder.tasks.families import FAMILIES
from ponder.tasks.gym import GymTask
from ponder.think.lint import RULES, LintTarget, lint_prompt, rewritten

HERE = Path(__file__).parent
FAULTS = [json.loads(line) for line in (HERE / "faults.jsonl").read_text(encoding="utf-8").splitlines()]


def overlap(finding, fault):
    """The share that two places have in common, of both together."""
    common = min(finding.end, fault["end"]) - max(finding.begin, fault["begin"])
    return common / (max(finding.end, fault["end"]) - min(finding.begin, fault["begin"]))


def test_nine_of_ten_seeded_faults_are_found_at_their_place():
    found = [
        any(
            each.rule == fault["rule"] and overlap(each, fault) >= 0.5
            for each in lint_prompt(fault["prompt"], LintTarget(fault["target"]))
        )
        for fault in FAULTS
    ]
    assert len(FAULTS) == 60
    assert {fault["rule"] for fault in FAULTS} == {rule.name for rule in RULES}
    assert sum(found) >= 54


@functools.cache
def clean_prompts():
    """Questions of the families and of reasoning-gym, docstrings of this package, and prompts that come near a rule."""
    written = [line for line in (HERE / "clean.txt").read_text(encoding="utf-8").split("\n") if line]
    families = [
        FAMILIES[name].sample(Random(f"{name}/{number}"), number / 3).question
        for name in sorted(FAMILIES)
        for number in range(4)
    ]
    gym = [GymTask(name).sample(Random(number), 0.5).question for name in GYM for number in range(4)]
    docstrings = []
    for file in sorted(Path(ponder.__file__).parent.glob("*/*.py")):
        if file.name != "lint.py":
            tree = ast.parse(file.read_text(encoding="utf-8"))
            docstrings += [
                text for node in tree.body if isinstance(node, ast.ClassDef) and (text := ast.get_docstring(node))
            ]
    rng = Random(0)
    return [*written, *rng.sample(families, 100), *gym, *rng.sample(docstrings, 300 - len(written) - 100 - len(gym))]


GYM = ["syllogism", "zebra_puzzles", "leg_counting", "calendar_arithmetic", "family_relationships", "word_sorting",
       "knights_knaves", "self_reference", "simple_equations", "letter_counting", "color_cube_rotation",
       "time_intervals", "number_sorting", "gsm_symbolic", "course_schedule"]  # fmt: skip


@pytest.mark.parametrize("target", LintTarget)
def test_at_most_two_of_a_hundred_clean_prompts_are_flagged(target):
    prompts = clean_prompts()
    flagged = [(prompt, found) for prompt in prompts if (found := lint_prompt(prompt, target))]
    assert len(prompts) == 300
    assert len(flagged) <= 6, flagged


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault["prompt"][:40])
def test_a_rewrite_lints_clean_and_stays(fault):
    target = LintTarget(fault["target"])
    mended = rewritten(fault["prompt"], target)
    assert lint_prompt(mended, target) == []
    assert rewritten(mended, target) == mended
    assert len(mended) <= len(fault["prompt"])


@pytest.mark.parametrize(
    ("prompt", "mended"),
    [
        ("Let's think step by step. What is 3 * 4?", "What is 3 * 4?"),
        ("Solve it and explain your reasoning step by step.", "Solve it."),
        ("Think carefully before answering, then give the number.", "Give the number."),
        ("You are a world-class chef. Name a soup.", "You are a chef. Name a soup."),
        ("Be concise. Name the causes. Be as detailed as possible.", "Name the causes. Be as detailed as possible."),
        ("One line.\nI will tip you $20.\nAnother line.", "One line.\nAnother line."),
    ],
)
def test_rewrites_read_on(prompt, mended):
    assert rewritten(prompt) == mended


def test_advice_differs_by_target():
    prompt = "Please reason step by step, and put your final answer within \\boxed{}."
    assert [each.rule for each in lint_prompt(prompt, LintTarget.OPENAI)] == ["chain-of-thought"]
    for target in (LintTarget.DEEPSEEK_R1, LintTarget.QWEN3, LintTarget.GEMINI):
        assert lint_prompt(prompt, target) == []


@pytest.mark.parametrize(
    "frame",
    [
        '"{}"',
        "“{}”",
        "'{}'",
        "`{}`",
        "```\n{}\n```",
        "```\n{}",
        "<text>{}</text>",
        "<a b='c'>\n{}\n</a>",
        "> {}",
        "{{{{{}}}}}",
    ],
)
def test_material_is_not_read(frame):
    fault = "Think step by step. I will tip you $20 or you will be fired."
    assert lint_prompt(fault)
    assert lint_prompt(f"Translate this:\n{frame.format(fault)}\ninto Dutch.") == []


def test_both_places_of_a_contradiction_are_shown():
    prompt = "Answer in English. The text is below. Always reply in French."
    (found,) = lint_prompt(prompt)
    assert prompt[found.begin : found.end] == "Answer in English."
    assert prompt[slice(*found.other)] == "reply in French"


@pytest.mark.property
@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from([fault["prompt"] for fault in FAULTS]),
            st.sampled_from(
                ["\n", '"', "`", "<a>", "</a>", "{", "}", "!!", "MUST ", ". ", "think step by step", "be brief "]
            ),
            st.text(max_size=8),
        ),
        max_size=6,
    ).map("".join),
    st.sampled_from(LintTarget),
)
def test_any_text_is_linted_and_a_rewrite_comes_to_an_end(prompt, target):
    for each in lint_prompt(prompt, target):
        assert 0 <= each.begin < each.end <= len(prompt)
    assert lint_prompt(rewritten(prompt, target), target) == []
