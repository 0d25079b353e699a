"""Measuring: held-out problems, honest intervals, exact bills, and a report that says where its numbers are from."""

import asyncio
import json
from itertools import combinations
from math import isclose
from random import Random
from statistics import median

import numpy as np
import pytest

from ponder.dialogue import PonderFormat
from ponder.evaluate import (
    bootstrap,
    correction,
    curve,
    evaluate,
    held_out,
    load_suite,
    measure,
    overlap,
    pass_at,
    pass_at_k,
    plot_curves,
    plot_pass_at,
    read_hashes,
    standard_modes,
    table_of_curves,
    wilson,
)
from ponder.evaluate.problems import HARD, SUITES
from ponder.evaluate.published import best_published, published
from ponder.tasks.families import FAMILIES
from ponder.tasks.graders import numeric, same_value
from ponder.tasks.gym import TRAIN_LIMIT, GymTask, hard_config, question_hash
from ponder.tasks.protocol import Problem, Try
from ponder.testing.endpoint import StubEndpoint
from ponder.testing.scripted import Say, ScriptedSampler
from ponder.testing.tiny import ByteTokenizer, ParrotModel, tiny_sampler
from ponder.think import consensus, direct
from ponder.train.algorithms.sft import SftRecipe
from ponder.train.examples import question_number
from ponder.train.loop.folder import add_questions
from ponder.train.pipeline import load_recipe
from ponder.types import DataError, InvalidRequest, SamplerError, ThinkingLimits


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
    with pytest.raises(ValueError, match="successes must be"):
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
    with pytest.raises(InvalidRequest, match="list of problems is empty"):
        measure(ScriptedSampler(doubler), TASK, [], direct())


def test_suites():
    assert [task.name for task in load_suite("mini")] == list(SUITES["mini"])
    assert [task.name for task in load_suite("gym:ab, families-hard")] == ["gym:ab", *SUITES["families-hard"]]
    names = [task.name for task in load_suite('gym:gcd, gym:products{"min_digits": 2, "max_digits": 3}')]
    assert names == ["gym:gcd", 'gym:products{"min_digits": 2, "max_digits": 3}']
    with pytest.raises(InvalidRequest, match="is not a suite"):
        load_suite("gym:gcd,,")


def test_wordings_of_one_task_are_asked_about_the_same_problems():
    plain, gym = (held_out(task, 5) for task in load_suite("plain:gcd,plain:gcd@gym"))
    assert [each.answer for each in plain] == [each.answer for each in gym]
    assert [each.metadata["numbers"] for each in plain] == [each.metadata["numbers"] for each in gym]
    assert not {each.question for each in plain} & {each.question for each in gym}


def test_the_suites_of_families_are_what_mini_s_recipe_trains_for_and_have_published_scores():
    recipe = load_recipe("recipes/mini/all.toml").section(SftRecipe)
    assert {f"gym:{entry.task}" for entry in recipe.mix if entry.task != "chat"} == set(SUITES["families"])
    assert all(published(name) for name in SUITES["families"] + SUITES["families-hard"])


@pytest.mark.parametrize("name", HARD)
def test_a_family_in_the_hard_suite_reaches_the_hard_config_s_sizes(name):
    family = FAMILIES[name]
    drawn = {len(family.sample(Random(f"{seed}"), (seed + 0.5) / 150).question) for seed in range(150)}
    hard = median(len(problem.question) for problem in held_out(GymTask(name, hard_config(name)), 15))
    assert min(drawn) <= hard <= max(drawn)


def test_overlap_with_training():
    problems = [Problem(task="t", question=text, answer="") for text in ("a b", "c")]
    assert overlap(problems, frozenset({question_hash("a  b")})) == [True, False]


def test_recorded_hashes_are_read(tmp_path):
    recorded = np.array([question_number("a"), question_number("b")], np.uint64)
    add_questions(tmp_path / "questions.bin", recorded)
    assert read_hashes(tmp_path / "questions.bin") == {question_hash("a"), question_hash("b")}
    (tmp_path / "cut.bin").write_bytes(b"seven b")
    with pytest.raises(DataError, match=r"cut\.bin is not a list of 64-bit hashes \(7 bytes\)"):
        read_hashes(tmp_path / "cut.bin")


# Measuring ------------------------------------------------------------------------------------------------------------


def test_a_result_adds_up():
    problems = held_out(TASK, 40)
    result = measure(ScriptedSampler(liar), TASK, problems, direct(effort="high"))
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
    result = measure(ScriptedSampler(doubler), TASK, held_out(TASK, 4), direct(effort="high", max_tokens=3))
    assert result.truncation_rate == 1.0
    vote = measure(ScriptedSampler(doubler), TASK, held_out(TASK, 4), consensus(samples=2, max_tokens=3))
    assert vote.truncation_rate == 1.0
    assert vote.items[0].samples == 2


def test_a_vote_is_billed_for_all_its_samples():
    result = measure(ScriptedSampler(doubler), TASK, held_out(TASK, 3), consensus(samples=4))
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

        async def stream(self, request, delivery):
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            async for event in super().stream(request, delivery):
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


# Many samples ---------------------------------------------------------------------------------------------------------


def test_pass_at_k_is_the_share_of_the_k_element_choices_that_hold_a_right_one():
    for samples, solved in ((5, 0), (5, 2), (6, 3), (4, 4)):
        for k in range(1, samples + 1):
            choices = list(combinations(range(samples), k))
            assert isclose(pass_at_k(samples, solved, k), sum(min(c) < solved for c in choices) / len(choices))
    for wrong in ((4, 5, 1), (4, 1, 5), (4, 1, 0)):
        with pytest.raises(ValueError, match="pass@"):
            pass_at_k(*wrong)


def test_a_bootstrap_interval_is_repeatable_and_about_as_wide_as_theory_says():
    values = [i % 4 / 3 for i in range(200)]
    interval = bootstrap(values)
    assert interval == bootstrap(values)
    half = 1.96 * np.std(values) / np.sqrt(200)
    assert isclose(interval.high - interval.low, 2 * half, rel_tol=0.1)
    assert interval.low < np.mean(values) < interval.high
    assert bootstrap([0.0] * 10) == wilson(0, 10)
    assert bootstrap([1.0] * 10) == wilson(10, 10)
    with pytest.raises(ValueError, match="at least 1 value"):
        bootstrap([])


def sometimes(conversation, index):
    """Right in every fourth sample; the wrong ones agree, so that the majority is wrong."""
    n = int(conversation[-1].text.split()[1])
    return str(2 * n if index % 4 == 3 else 2 * n + 1)


def test_pass_at_k_majority_and_best_of_n_come_from_one_set_of_samples():
    sampler = ScriptedSampler(sometimes)
    result = measure(sampler, TASK, held_out(TASK, 5), consensus(samples=8, until="all"))
    assert len(sampler.requests) == 5
    assert result.accuracy == 0
    points = {point.k: point for point in pass_at(result)}
    assert list(points) == [1, 2, 4, 8]
    assert points[1].rate == 0.25
    assert isclose(points[2].rate, 1 - (6 * 5) / (8 * 7))
    assert points[8].rate == 1.0
    assert points[8].interval == wilson(5, 5)
    assert [points[k].tokens for k in points] == [2, 4, 8, 16], "a word and the end token each"
    assert [point.k for point in pass_at(result, [3, 5])] == [3, 5]
    with pytest.raises(InvalidRequest, match="from 1 to the 8 samples"):
        pass_at(result, [9])


def test_votes_of_different_sizes_share_a_table():
    modes = {"few": consensus(samples=2), "many": consensus(samples=6, until="all")}
    report = evaluate(ScriptedSampler(sometimes), [TASK], 4, modes=modes)
    table = report.markdown().split("## Many samples")[1].split("\n\n")[1].splitlines()
    assert table[0] == "| task | samples | majority | pass@1 | pass@2 | pass@4 | pass@6 | tokens each |"
    assert {row.count("|") for row in table} == {9}
    assert table[2].count("–") == 5, "three intervals, and no pass@4 and pass@6 of two samples"


def test_the_report_tells_of_many_samples(tmp_path):
    modes = {"thinking": direct(), "vote": consensus(samples=6, until="all")}
    report = evaluate(ScriptedSampler(sometimes), [TASK], 4, modes=modes, pass_at=(1, 6))
    thinking, vote = report.summary()["results"]
    assert "pass_at" not in thinking
    assert [(point["k"], point["rate"]) for point in vote["pass_at"]] == [(1, pytest.approx(1 / 6)), (6, 1.0)]
    assert "| task | samples | majority | pass@1 | pass@6 | tokens each |" in report.markdown()
    assert "Self-correction" not in report.markdown()
    report.save(tmp_path)
    line = json.loads((tmp_path / "doubling-vote.jsonl").read_text().splitlines()[0])
    assert (line["samples"], line["samples_solved"]) == (6, 1)
    pytest.importorskip("matplotlib")
    assert plot_pass_at(report.voted, tmp_path / "pass.svg").stat().st_size > 1000


# Self-correction ------------------------------------------------------------------------------------------------------


class Checked(Doubling):
    """Reasonings are tries such as `8? no 9? yes`."""

    name = "checked"

    def tries(self, problem, reasoning):
        words = reasoning.split()
        return [
            Try(right=number.rstrip("?") == problem.answer, accepted=verdict == "yes")
            for number, verdict in zip(words[::2], words[1::2], strict=False)
        ]


def test_what_a_reasoning_makes_of_its_own_tries():
    def says(conversation, index):
        right = 2 * int(conversation[-1].text.split()[1])
        wrong = right + 1
        return [
            Say(str(right), f"{wrong}? no {right}? yes"),  # mended
            Say(str(wrong), f"{wrong}? yes"),  # a false accept
            Say(str(wrong), f"{right}? no {wrong}? yes"),  # spoiled: a false reject, then a false accept
            Say(str(right), f"{right}? yes"),
            Say(str(right), "Clear."),  # no try: left out
        ][index]

    task = Checked()
    result = measure(ScriptedSampler(says), task, held_out(task, 3), consensus(samples=5, until="all"))
    found = correction(result)
    assert (found.samples, found.tries) == (12, 18)
    assert (found.mended.count, found.mended.of) == (3, 6)
    assert (found.spoiled.count, found.spoiled.of) == (3, 6)
    assert (found.false_accepts.count, found.false_accepts.of) == (6, 9)
    assert (found.false_rejects.count, found.false_rejects.of) == (3, 9)
    interval = wilson(6, 9)
    assert found.summary()["false_accepts"] == {
        "count": 6,
        "of": 9,
        "rate": 6 / 9,
        "interval_95": [interval.low, interval.high],
    }
    report = evaluate(ScriptedSampler(says), [task], 3, modes={"vote": consensus(samples=5, until="all")})
    assert report.summary()["results"][0]["self_correction"] == found.summary()
    assert f"| checked | vote | 12 | 18 | {found.mended} |" in report.markdown()


def test_without_tries_there_is_nothing_to_correct():
    assert correction(measure(ScriptedSampler(doubler), TASK, held_out(TASK, 2), direct())) is None
    task = Checked()
    assert correction(measure(ScriptedSampler(lambda *_: "1"), task, held_out(task, 2), direct())) is None
    only_right = measure(
        ScriptedSampler(lambda c, _: Say("0", f"{2 * int(c[-1].text.split()[1])}? yes")),
        task,
        held_out(task, 1),
        direct(),
    )
    summary = correction(only_right).summary()
    assert summary["mended"] == {"count": 0, "of": 0, "rate": None, "interval_95": None}


def test_a_dataset_s_tries_are_told_by_the_family_of_its_name():
    task = GymTask("countdown")
    (problem,) = held_out(task, 1)
    entry = task.entry(problem)["metadata"]
    numbers = sorted(entry["numbers"], reverse=True)
    reasoning = (
        f"{numbers[0]}: {' '.join(map(str, numbers[1:]))}\n{numbers[0]}{''.join(f'+{n}=0' for n in numbers[1:])}"
    )
    sampler = ScriptedSampler(lambda *_: Say(problem.answer, f"{reasoning} no: odd"))
    found = correction(measure(sampler, task, [problem], direct()))
    assert (found.tries, found.mended.count + found.spoiled.count) == (1, int(sum(numbers) != entry["target"]))


def test_the_modes_wanted_and_no_others():
    assert list(standard_modes()) == ["direct", "thinking", "consensus@8"]
    assert list(standard_modes(samples=1)) == ["direct", "thinking"]
    assert list(standard_modes(["consensus", "direct"], samples=4)) == ["direct", "consensus@4"]
    assert standard_modes([]) == {}
    capped = standard_modes(["thinking", "consensus"], thinking=64, answer_room=8, temperature=0.5)
    thinking, vote = (mode.settings for mode in capped.values())
    assert thinking == {"thinking": ThinkingLimits(cap=64), "answer_room": 8, "temperature": 0.0}
    assert vote == {**thinking, "temperature": 0.5, "seed": 0}
    texts = ["direct(effort='low')", "consensus(samples=2)"]
    assert list(standard_modes([], strategies=texts)) == texts
    with pytest.raises(InvalidRequest, match="two modes are called 'direct'"):
        standard_modes(strategies=["direct"])
    for wrong, why in (
        ({"modes": ["dirct"]}, "'dirct'"),
        ({"modes": ["consensus"], "samples": 1}, "at least 2 samples"),
    ):
        with pytest.raises(InvalidRequest, match=why):
            standard_modes(**wrong)
    with pytest.raises(InvalidRequest, match="effort and thinking both"):
        standard_modes(effort="low", thinking=4)


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
    report = evaluate(sampler, [default, shaped], 3, modes={"direct": direct(effort="none")})
    gcd, products = report.summary()["results"]
    assert gcd["published"]["o3-mini"] == 1.0
    assert products["published"] == {}
    assert "zero-shot" in report.markdown()
    assert "| gym:gcd | **1.000** (2) |" in report.markdown(), "a word and the end token"


def test_hard_configs_stand_beside_the_scores_published_for_them():
    tasks = load_suite("gym:products@hard")
    report = evaluate(ScriptedSampler(lambda *_: "1 2 3"), tasks, 2, modes={"direct": direct(effort="none")})
    assert "| gym:products@hard | **0.000** (4) |" in report.markdown()
    assert "| 0.260 (" in report.markdown()


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
    assert [point["cut_short"] for point in points] == [0, 1, 0], "the thought and its close are six tokens"
    assert [point["truncation_rate"] for point in points] == [0, 0, 0]
    file = measured.save(tmp_path)
    assert json.loads(file.read_text())["task"] == "doubling"
    pytest.importorskip("matplotlib")
    picture = plot_curves([measured, measured], tmp_path / "curve.png")
    assert picture.stat().st_size > 1000


def test_caps_count_all_thinking_over_folds():
    """A model that folds for ever in a window of 256: a cap beyond the window is reached, and no token more."""
    task, (problem,) = TASK, held_out(TASK, 1)
    tokens = PonderFormat(ByteTokenizer()).phase_tokens
    prompt = measure(tiny_sampler(), task, [problem], direct(effort="minimal", max_tokens=4)).usage.prompt_tokens
    state, fold = tokens.state_open, tokens.fold
    script = [65, 65, state, 66, fold, state, 66, fold]  # the second fold leaves the context as the first did
    sampler = tiny_sampler(model=ParrotModel(script, prompt))
    measured = curve(sampler, task, [problem], [40, 400], answer_tokens=8)
    assert [point["reasoning_tokens"] for point in measured.summary()["points"]] == [40, 400]
    assert measured.cut_short == (1, 1)
    assert "| doubling | 400 | 0.000 |" in table_of_curves([measured])


@pytest.mark.parametrize("caps", [[], [3, 1], [1, 1], [-1, 2]])
def test_caps_must_rise(caps):
    with pytest.raises(InvalidRequest, match="each larger than the one before"):
        curve(ScriptedSampler(doubler), TASK, held_out(TASK, 2), caps)


def test_no_curve_where_limits_are_not_exact():
    from ponder.sampler.endpoint import EndpointSampler

    with pytest.raises(InvalidRequest, match="does not keep exact limits"):
        curve(EndpointSampler("http://localhost:1/v1", "m"), TASK, held_out(TASK, 2), [1])
