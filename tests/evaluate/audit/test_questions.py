"""Questions of the same kind: the right answer is known after every change, and what changed the score is found."""

from __future__ import annotations

import json
import re

import pytest

from ponder.evaluate import held_out, load_suite, standard_modes
from ponder.evaluate.audit import AuditReport, audit_questions, patterns_table
from ponder.evaluate.audit.questions import (
    CHANGES,
    CLAUSE,
    LARGER,
    RENAMED,
    REORDERED,
    SEEN,
    SIZES,
    WORDS,
    changed_questions,
    same_size,
    shape,
)
from ponder.tasks.gym import GymTask, question_hash
from ponder.tasks.registry import load_task
from ponder.testing.scripted import ScriptedSampler

DIRECT = standard_modes(("direct",))
SUMS = load_task("plain:chain_sum@gym")


@pytest.mark.parametrize("task", load_suite("audit"), ids=lambda task: task.name)
def test_every_change_keeps_a_right_answer_and_the_size(task):
    problems = held_out(task, 5)
    changed = {each.change: each for each in changed_questions(task, problems)}
    assert list(changed) == [RENAMED, CLAUSE, REORDERED, WORDS]
    for each in changed.values():
        for old, new in zip(problems, each.problems, strict=True):
            if new is None:
                continue
            assert new.question != old.question
            assert each.task.grade(new, new.answer).solved
            assert not each.task.grade(new, "no idea").solved
            if each.keeps_answer:
                assert each.task.same(new.answer, old.answer)
    for old, clause, order in zip(problems, changed[CLAUSE].problems, changed[REORDERED].problems, strict=True):
        assert clause.question.endswith(f". {old.question}")
        assert order is None or sorted(re.findall(r"\w+", order.question)) == sorted(re.findall(r"\w+", old.question))


def test_other_numbers_are_as_large():
    for task in (SUMS, load_task("plain:products@gym"), load_task("plain:gcd@gym")):
        problems = held_out(task, 8)
        for number, old in enumerate(problems):
            new = same_size(task, old, number, 8)
            assert abs(len(new.question) - len(old.question)) <= 0.1 * len(old.question)
    assert shape("12 + 345") == "00 + 000"


def test_the_next_size_can_be_drawn_and_is_larger():
    for family, configs in SIZES.items():
        largest, larger = (held_out(GymTask(family, dict(config)), 3) for config in configs)
        assert sum(len(each.question) for each in largest) < sum(len(each.question) for each in larger)


def pattern_matcher(conversation, index):
    """Adds what stands after the words that it was trained on, if nothing stands before them."""
    trained = re.fullmatch(
        r"State the final answer to the following arithmetic problem: ([\d +-]*) =", conversation[-1].text
    )
    numbers = re.findall(r"[+-]? ?\d+", trained[1]) if trained else []
    return str(sum(int(each.replace(" ", "")) for each in numbers)) if 0 < len(numbers) < 9 else "0"


def audited(**options):
    (audit,) = audit_questions(ScriptedSampler(pattern_matcher), SUMS, 6, DIRECT, **options)
    return audit


def test_what_a_matched_pattern_depends_on_is_found():
    effects = {each.change: each for each in audited().effects}
    assert list(effects) == list(CHANGES)
    for change, value in ((RENAMED, 0), (CLAUSE, -1), (REORDERED, 0), (WORDS, -1), (LARGER, 0)):
        assert effects[change].difference.value == pytest.approx(value), change
    assert effects[CLAUSE].changed.count == 6
    assert effects[RENAMED].changed is None, "another problem has another answer"
    assert effects[REORDERED].missing == 6 - len(effects[REORDERED].before) > 0, "two terms have one order"
    assert not effects[LARGER].paired


def test_seen_questions_are_told_from_unseen_ones():
    problems = held_out(SUMS, 6)
    seen = frozenset(question_hash(each.question) for each in problems[:2])
    effects = {each.change: each for each in audited(trained_on=seen).effects}
    assert (len(effects[SEEN].before), len(effects[SEEN].after)) == (4, 2)
    unknown = {each.change: each for each in audited().effects}[SEEN]
    assert unknown.difference is None


def test_the_table_says_what_is_not_available():
    table = patterns_table([("one", [audited()]), ("two", [audited()])])
    head, _, first, second = table.splitlines()
    assert head.startswith("| model | mode | n | in distribution | other numbers")
    assert first.replace("one", "two") == second
    assert first.startswith("| one | direct | 6 | 1.000 (0.610–1.000) | 1.00 → 1.00: +0.000 (")
    assert first.endswith("| not available |"), "nothing is known of the training"
    report = AuditReport(model="m", n=6, questions=(audited(),), unavailable="an endpoint does not take thoughts")
    assert "not available: an endpoint" in report.markdown()
    assert json.loads(json.dumps(report.summary()))["questions"][0]["effects"][1]["difference"] == -1
