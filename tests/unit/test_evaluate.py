"""Measuring: held-out problems, honest intervals, exact bills, and a report that says where its numbers are from."""

import asyncio
import json
from math import isclose
from random import Random

import numpy as np
import pytest

from ponder.evaluate import (
    curve,
    evaluate,
    held_out,
    load_suite,
    measure,
    overlap,
    plot_curves,
    read_hashes,
    standard_modes,
    wilson,
)
from ponder.evaluate.published import best_published, published
from ponder.tasks.graders import numeric, same_value
from ponder.tasks.gym import TRAIN_LIMIT, GymTask, question_hash
from ponder.tasks.protocol import Problem
from ponder.testing.endpoint import StubEndpoint
from ponder.testing.script import Say
from ponder.testing.scripted import ScriptedSampler
from ponder.think import consensus, direct
from ponder.train.examples import question_number
from ponder.train.sft import add_questions
from ponder.types import DataError, InvalidRequest, SamplerError


class Doubling:
    """What a user's own task looks like."""

    name = "doubling"

    def sample(self, rng: Random, level: float) -> Problem:
        n = rng.randrange(10 ** (1 + int(3 * level)))
        return Problem(task=self.name, question=f"Twice {n} ?", answer=str(2 * n))

    def grade(self, problem, answer):
        return numeric(problem.answer, answer)

    def same(self, a, b):
        return same_value(a, b)


def doubler(conversation, index):
    """Right when it may think, wrong for every odd number when it may not."""
    n = int(conversation[-1].text.split()[1])
    return Say(text=str(2 * n), reasoning=f"{n} plus {n} makes it.")


def liar(conversation, index):
    n = int(conversation[-1].text.split()[1])
    return Say(text=str(2 * n + (n % 2)), reasoning="Hm.")


TASK = Doubling()


# Intervals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (480, 500, 0.9391, 0.9740),
        (1, 1, 0.2065, 1.0),
    ],
)
def test_wilson_intervals_as_tabulated(successes, trials, low, high):
    interval = wilson(successes, trials)
    assert isclose(interval.low, low, abs_tol=1e-4)
    assert isclose(interval.high, high, abs_tol=1e-4)


@pytest.mark.parametrize(("successes", "trials"), [(1, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(successes, trials):
    with pytest.raises(ValueError, match="successes of"):
        wilson(successes, trials)


# Problems -------------------------------------------------------------------------------------------------------------


def test_held_out_problems_of_a_dataset_lie_above_the_training_limit():
    problems = held_out(GymTask("products"), 5, start=10)
    assert [problem.metadata["index"] for problem in problems] == [TRAIN_LIMIT + 10 + i for i in range(5)]


def test_items_that_a_dataset_breaks_at_are_passed_over():
    problems = held_out(GymTask("basic_arithmetic"), 2, start=292)
    assert [problem.metadata["index"] - TRAIN_LIMIT for problem in problems] == [292, 294]


def test_held_out_problems_of_your_own_task_are_the_same_every_time_and_of_all_levels():
    problems = held_out(TASK, 30)
    assert problems == held_out(TASK, 30)
    assert problems != held_out(TASK, 30, start=30)
    sizes = [len(problem.question) for problem in problems]
    assert min(sizes) < max(sizes)


def test_no_problems_is_no_evaluation():
    with pytest.raises(InvalidRequest, match="at least 1"):
        held_out(TASK, 0)
    with pytest.raises(InvalidRequest, match="no problems"):
        measure(ScriptedSampler(doubler), TASK, [], direct())


def test_suites():
    assert [task.name for task in load_suite("mini")][:2] == ["gym:products", "gym:chain_sum"]
    assert len(load_suite("mini")) == 7
    names = [task.name for task in load_suite('gym:gcd, gym:products{"min_digits": 2, "max_digits": 3}')]
    assert names == ["gym:gcd", 'gym:products{"min_digits": 2, "max_digits": 3}']
    with pytest.raises(InvalidRequest, match="is no suite"):
        load_suite("gym:gcd,,")


def test_overlap_with_training():
    problems = [Problem(task="t", question=text, answer="") for text in ("a b", "c")]
    assert overlap(problems, frozenset({question_hash("a  b")})) == [True, False]


def test_recorded_hashes_are_read(tmp_path):
    recorded = np.array([question_number("a"), question_number("b")], np.uint64)
    add_questions(tmp_path / "questions.bin", recorded)
    assert read_hashes(tmp_path / "questions.bin") == {question_hash("a"), question_hash("b")}
    (tmp_path / "cut.bin").write_bytes(b"seven b")
    with pytest.raises(DataError, match=r"cut\.bin: 7 bytes"):
        read_hashes(tmp_path / "cut.bin")


# Measuring ------------------------------------------------------------------------------------------------------------


def test_a_result_adds_up():
    problems = held_out(TASK, 40)
    result = measure(ScriptedSampler(liar), TASK, problems, direct("high"))
    even = sum(int(problem.question.split()[1]) % 2 == 0 for problem in problems)
    assert (result.n, result.solved) == (40, even)
    assert result.mean_score == result.accuracy == even / 40
    assert result.interval == wilson(even, 40)
    assert result.truncation_rate == 0
    numbers = result.summary()
    assert numbers["reasoning_tokens"] == 2
    assert numbers["answer_tokens"] == 2
    assert numbers["prompt_tokens"] == 4
    assert numbers["grades"] == {"graded": 40}
    assert "seen_in_training" not in numbers


def test_what_was_cut_off_is_told():
    result = measure(ScriptedSampler(doubler), TASK, held_out(TASK, 4), direct("high", max_tokens=3))
    assert result.truncation_rate == 1.0
    vote = measure(ScriptedSampler(doubler), TASK, held_out(TASK, 4), consensus(2, max_tokens=3))
    assert vote.truncation_rate == 1.0
    assert vote.items[0].samples == 2


def test_a_vote_is_billed_for_all_its_samples():
    result = measure(ScriptedSampler(doubler), TASK, held_out(TASK, 3), consensus(4))
    assert result.mode == "consensus@4"
    assert result.usage.completion_tokens == 3 * 4 * 8
    assert all(item.margin == 1.0 for item in result.items)


def test_seen_and_unseen_questions_are_told_apart():
    problems = held_out(TASK, 10)
    trained_on = frozenset(question_hash(problem.question) for problem in problems[:4])
    numbers = measure(ScriptedSampler(doubler), TASK, problems, direct(), trained_on=trained_on).summary()
    assert numbers["seen_in_training"] == sum(overlap(problems, trained_on))
    assert numbers["accuracy_unseen"] == 1.0


def test_many_problems_run_at_once():
    class Watched(ScriptedSampler):
        under_way = most = 0

        async def stream(self, request):
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            async for event in super().stream(request):
                yield event
            self.under_way -= 1

    sampler = Watched(doubler)
    measure(sampler, TASK, held_out(TASK, 30), direct(), concurrency=16)
    assert sampler.most == 16


def test_a_dataset_s_own_scorer_grades():
    task = GymTask("gcd")
    gold = {problem.question: problem.answer for problem in held_out(task, 12)}
    sampler = ScriptedSampler(lambda conversation, _: gold[conversation[-1].text])
    result = measure(sampler, task, held_out(task, 12), direct())
    assert result.solved == 12


def test_an_error_of_the_sampler_ends_the_measurement():
    with pytest.raises(SamplerError, match="no lines left"):
        measure(ScriptedSampler(["1"]), TASK, held_out(TASK, 8), direct())


def test_it_works_inside_a_running_loop():
    async def training_step():
        return measure(ScriptedSampler(doubler), TASK, held_out(TASK, 4), direct()).accuracy

    assert asyncio.run(training_step()) == 1.0


def test_an_endpoint_is_measured_like_any_other():
    from ponder.sampler.endpoint import EndpointSampler

    with StubEndpoint(doubler) as stub:
        report = evaluate(EndpointSampler(stub.url), [TASK], 6, modes=standard_modes(samples=2))
    assert [result.accuracy for result in report.results] == [1.0, 1.0, 1.0]


# Reports --------------------------------------------------------------------------------------------------------------


def test_a_report_holds_every_task_under_every_mode(tmp_path):
    told = []
    report = evaluate(ScriptedSampler(doubler), [TASK], 6, modes=standard_modes(samples=2), progress=told.append)
    assert [result.mode for result in report.results] == ["direct", "thinking", "consensus@2"]
    assert told == list(report.results)
    report.save(tmp_path / "report")
    numbers = json.loads((tmp_path / "report" / "report.json").read_text())
    assert numbers["model"] == "scripted"
    assert [row["accuracy"] for row in numbers["results"]] == [1.0, 1.0, 1.0]
    assert numbers["results"][0]["reasoning_tokens"] == 0
    items = (tmp_path / "report" / "doubling-thinking.jsonl").read_text().splitlines()
    assert len(items) == 6
    assert json.loads(items[0])["score"] == 1.0
    markdown = (tmp_path / "report" / "report.md").read_text()
    assert "| doubling | thinking | 6 | 1.000 |" in markdown
    assert "Published" not in markdown, "there is nothing to compare a task of your own with"


def test_published_configs_stand_beside_published_scores_and_others_do_not():
    default, shaped = GymTask("gcd"), GymTask("products", {"max_digits": 2})
    gold = {p.question: p.answer for task in (default, shaped) for p in held_out(task, 3)}
    sampler = ScriptedSampler(lambda conversation, _: gold[conversation[-1].text])
    report = evaluate(sampler, [default, shaped], 3, modes={"direct": direct("none")})
    gcd, products = report.summary()["results"]
    assert gcd["published"]["o3-mini"] == 1.0
    assert products["published"] == {}
    assert "zero-shot" in report.markdown()
    assert "| gym:gcd | **1.000** |" in report.markdown()


def test_published_scores():
    assert published("gym:products")["claude-3.5-sonnet"] == 0.86
    assert best_published("products") == ("o3-mini", 1.0)
    assert published("doubling") == {}
    assert best_published("doubling") is None


# The curve ------------------------------------------------------------------------------------------------------------


def test_accuracy_against_thinking(tmp_path):
    sampler = ScriptedSampler(doubler)
    measured = curve(sampler, TASK, held_out(TASK, 5), [0, 3, 9], answer_tokens=8)
    points = measured.summary()["points"]
    assert [point["cap"] for point in points] == [0, 3, 9]
    assert [point["reasoning_tokens"] for point in points] == [0, 3, 6]
    file = measured.save(tmp_path)
    assert json.loads(file.read_text())["task"] == "doubling"
    pytest.importorskip("matplotlib")
    picture = plot_curves([measured, measured], tmp_path / "curve.png")
    assert picture.stat().st_size > 1000


@pytest.mark.parametrize("caps", [[], [3, 1], [1, 1], [-1, 2]])
def test_caps_must_rise(caps):
    with pytest.raises(InvalidRequest, match="rising"):
        curve(ScriptedSampler(doubler), TASK, held_out(TASK, 2), caps)


def test_no_curve_where_limits_are_not_exact():
    from ponder.sampler.endpoint import EndpointSampler

    with pytest.raises(InvalidRequest, match="does not keep exact limits"):
        curve(EndpointSampler("http://localhost:1/v1", "m"), TASK, held_out(TASK, 2), [1])
