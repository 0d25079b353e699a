"""Verdicts: problems that teach yes and no, and a model that says so as a verifier."""

from random import Random

import pytest

from ponder.dialogue import Message
from ponder.tasks.protocol import DemonstratedTask, GradeStatus
from ponder.tasks.registry import load_task
from ponder.tasks.verifiers.reward import RewardTask
from ponder.tasks.verifiers.verdict import ASKING, VerdictVerifier
from ponder.testing.scripted import ScriptedSampler
from ponder.types import InvalidRequest


def test_half_of_the_answers_are_wrong_and_the_demonstration_says_which() -> None:
    for name in ("verdict:chain_sum", "verdict:syllogism"):
        task = load_task(name)
        assert isinstance(task, DemonstratedTask)
        rng = Random(4)
        problems = [task.sample(rng, 0.2) for _ in range(60)]
        assert 15 < sum(each.answer == "yes" for each in problems) < 45
        for each in problems:
            inner = each.metadata["problem"]
            right = task.task.grade(inner, each.metadata["answer"]).solved  # type: ignore[attr-defined]
            assert each.answer == ("yes" if right else "no")
            shown = task.demonstrate(each, rng)
            assert task.grade(each, shown.answer).solved
            assert shown.reasoning.endswith(each.metadata["answer"])
            other = task.grade(each, "No." if each.answer == "yes" else "Yes.")
            assert (other.score, other.status) == (0.0, GradeStatus.GRADED)
    assert task.grade(problems[0], "perhaps").status is GradeStatus.UNPARSEABLE


def test_a_task_without_working_teaches_no_verdicts() -> None:
    with pytest.raises(InvalidRequest, match="shows no working"):
        load_task("verdict:gym:gcd")


def test_the_grade_is_the_share_of_yes_and_what_was_written_is_billed() -> None:
    sampler = ScriptedSampler(["yes", "no", "perhaps", "Yes."])
    verifier = VerdictVerifier(sampler)
    grade = verifier.grade_message([Message.user("2 + 2?")], Message.assistant("4", "hidden"))
    assert grade.score == pytest.approx(2 / 3)
    assert grade.usage.completion_tokens > 0
    (request,) = sampler.requests
    assert request.prompt == (Message.user(ASKING.format(question="2 + 2?", answer="4")),)
    none = VerdictVerifier(ScriptedSampler(["hm"]), votes=1).grade_message([Message.user("q")], Message.assistant("a"))
    assert none.status is GradeStatus.FAILED


def test_it_grades_the_answers_of_a_task() -> None:
    task = RewardTask(VerdictVerifier(ScriptedSampler(["yes", "yes", "no", "yes"])), ["2 + 2?"], name="judged")
    problem = task.sample(Random(0), 0.5)
    assert task.grade(problem, "4").score == 0.75
