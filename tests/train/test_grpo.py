"""Reinforcement learning: what is rewarded becomes likelier, a step is repeatable to the bit, and trouble is said."""

import json
import math
import signal
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from even import Even, recipe, train, trained, unclocked

from ponder.model.loss import Backend, next_token_loss
from ponder.sampler.local import LocalSampler
from ponder.tasks.protocol import Grade, GradeStatus
from ponder.testing.tiny import tiny_model
from ponder.train.algorithms.grpo import Grpo, GrpoRecipe
from ponder.train.algorithms.rejection import Rejection, RejectionRecipe
from ponder.train.loop import state
from ponder.train.loop.display import read_metrics
from ponder.train.policy.curriculum import Curriculum, Levels
from ponder.train.policy.gradient import PolicyGradient
from ponder.train.policy.lessons import Lesson, lay_out
from ponder.train.policy.losses import Ratio, Weighting
from ponder.train.policy.stage import RolloutLearner, RolloutRecipe
from ponder.train.recipe.sections import MixRecipe, OptimRecipe
from ponder.types import GraderError, Origin, Phase, RecipeError, Segment, Trajectory

# One update -----------------------------------------------------------------------------------------------------------


def segment(ids: tuple[int, ...], logprobs: tuple[float, ...] = ()) -> Segment:
    return Segment(
        prompt_ids=(1, 2, 3),
        ids=ids,
        logprobs=logprobs or (0.0,) * len(ids),
        phases=(Phase.ANSWER,) * len(ids),
        origins=(Origin.SAMPLED,) * len(ids),
        weights_version=0,
    )


def logprob(model, ids: tuple[int, ...]) -> float:
    """Of `ids` after the prompt of `segment`."""
    whole = torch.tensor([[1, 2, 3, *ids]])
    weights = torch.zeros(1, whole.shape[1] - 1)
    weights[0, 2:] = 1
    with torch.no_grad():
        return -float(next_token_loss(model, whole[:, :-1], whole[:, 1:], weights, total_weight=1.0))


def update(
    model, learner: PolicyGradient, lessons: list[Lesson], backend: Backend = Backend.TORCH
) -> list[torch.Tensor]:
    """The gradients of one update."""
    for loss in learner.losses(model, lay_out(lessons, rows=1, sequence=12, pad=0), backend):
        loss.backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


GOOD, BAD = (40, 41, 42), (50, 51)


@pytest.mark.parametrize("ratio", Ratio)
def test_a_step_makes_what_was_rewarded_likelier_and_the_other_less_likely(ratio):
    model = tiny_model()
    model.compute_dtype = None
    before = logprob(model, GOOD), logprob(model, BAD)
    old = [
        tuple(logprob(model, ids[: n + 1]) - logprob(model, ids[:n]) for n in range(len(ids))) for ids in (GOOD, BAD)
    ]
    learner = Grpo().gradient(GrpoRecipe(ratio=ratio), model)
    lessons = [
        Lesson(Trajectory(segments=(segment(ids, logprobs),)), advantage, 0.2)
        for ids, logprobs, advantage in zip((GOOD, BAD), old, (1.0, -1.0), strict=True)
    ]
    update(model, learner, lessons)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 1e-4 * parameter.grad
    assert logprob(model, GOOD) > before[0]
    assert logprob(model, BAD) < before[1]
    assert learner.metrics()["engine_difference"] < 1e-4
    assert learner.metrics()["clipped"] == 0


def test_rejection_has_the_gradient_of_the_next_token_loss():
    model, other = tiny_model(), tiny_model()
    learner = Rejection().gradient(RejectionRecipe(), model)
    gradients = update(model, learner, [Lesson(Trajectory(segments=(segment(GOOD),)), 1.0, 1 / 3)])
    ids = torch.tensor([[1, 2, 3, *GOOD]])
    next_token_loss(other, ids[:, :-1], ids[:, 1:], torch.tensor([[0.0, 0, 1, 1, 1]])).backward()
    for mine, theirs in zip(gradients, (p.grad for p in other.parameters()), strict=True):
        largest = float(theirs.abs().max())
        assert float((mine - theirs).abs().max()) <= 1e-5 * largest, "sums may come in another order"


def test_the_gradient_is_that_of_the_loss_written_out():
    """Ratios that have moved, clips that hold, a temperature: against autograd over all logits."""
    torch.manual_seed(0)
    model, other = tiny_model(), tiny_model()
    rules = GrpoRecipe(temperature=0.7, clip_low=0.1, clip_high=0.1)
    old = tuple((torch.randn(3) * 0.2 - 3).tolist())
    update(model, Grpo().gradient(rules, model), [Lesson(Trajectory(segments=(segment(GOOD, old),)), -1.5, 0.5)])
    ids = torch.tensor([[1, 2, 3, *GOOD]])
    logits = other.unembed(other.hidden(ids[:, :-1]))[0, 2:] / 0.7
    new = logits.float().log_softmax(-1).gather(1, torch.tensor(GOOD)[:, None])[:, 0]
    ratio = (new - torch.tensor(old)).exp()
    (-0.5 * torch.minimum(ratio * -1.5, ratio.clamp(0.9, 1.1) * -1.5)).sum().backward()
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.allclose(one.grad, two.grad, rtol=1e-3, atol=1e-5)


def test_advantages_of_each_token_give_the_loss_and_gradient_written_out():
    """Over all logits: -weight x the lesser of ratio x advantage and clipped ratio x advantage, token by token."""
    torch.manual_seed(0)
    model, other = tiny_model(), tiny_model()
    old = tuple((torch.randn(3) * 0.2 - 3).tolist())
    advantages = np.array([2.0, -0.5, 0.0], np.float32)
    lesson = Lesson(Trajectory(segments=(segment(GOOD, old),)), advantages, 0.25)
    learner = Grpo().gradient(GrpoRecipe(clip_low=0.1, clip_high=0.1), model)
    (loss,) = learner.losses(model, lay_out([lesson], rows=1, sequence=12, pad=0), Backend.TORCH)
    loss.backward()
    ids = torch.tensor([[1, 2, 3, *GOOD]])
    logits = other.unembed(other.hidden(ids[:, :-1]))[0, 2:]
    new = logits.float().log_softmax(-1).gather(1, torch.tensor(GOOD)[:, None])[:, 0]
    ratios = (new - torch.tensor(old)).exp()
    terms = [
        -0.25 * torch.minimum(ratio * advantage, ratio.clamp(0.9, 1.1) * advantage)
        for ratio, advantage in zip(ratios, advantages.tolist(), strict=True)
    ]
    sum(terms).backward()
    assert float(loss.detach()) == pytest.approx(float(sum(terms).detach()), rel=1e-5)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.allclose(one.grad, two.grad, rtol=1e-3, atol=1e-5)


def test_a_penalty_draws_back_to_the_reference():
    model = tiny_model()
    learner = Grpo().gradient(GrpoRecipe(kl=1.0, temperature=0.5), model)
    lessons = [Lesson(Trajectory(segments=(segment(GOOD),)), 0.0, 0.2)]
    assert all(float(each.abs().max()) < 1e-6 for each in update(model, learner, lessons))  # it is there already
    assert learner.metrics()["reference_kl"] == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    learner.begin_step()
    assert any(float(each.abs().max()) > 1e-4 for each in update(model, learner, lessons))
    assert learner.metrics()["reference_kl"] > 0


def test_shares_are_those_of_the_tokens_that_were_learned_from():
    """Whatever the weights of an update add up to: less than 1 where answers without advantage are left out."""
    model = tiny_model()
    learner = Grpo().gradient(GrpoRecipe(), model)
    too_likely = tuple(logprob(model, GOOD[: n + 1]) - logprob(model, GOOD[:n]) - 1 for n in range(3))
    update(model, learner, [Lesson(Trajectory(segments=(segment(GOOD, too_likely),)), 1.0, 0.1)])
    told = learner.metrics()
    assert told["clipped"] == pytest.approx(1.0)
    assert told["kl"] == pytest.approx(math.e - 2, rel=1e-3)  # k3 at a ratio of e


def test_answers_without_advantage_are_left_out_but_count_in_the_weights():
    rules = GrpoRecipe(weighting=Weighting.TRAJECTORY)
    groups = [[attempt(1.0), attempt(0.0)], [attempt(0.0), attempt(0.0)]]
    rewards = torch.tensor([[each.grade.score for each in group] for group in groups])
    lessons = Grpo().lessons(rules, groups, rewards)
    assert [each.weight for each in lessons] == pytest.approx([1 / 12, 1 / 12])
    assert len(Grpo().lessons(replace(rules, kl=0.1), groups, rewards)) == 4


def test_rejection_keeps_so_many_solved_answers_of_each_prompt():
    groups = [[attempt(1.0)] * 3, [attempt(0.9), attempt(1.0)], [attempt(0.0)] * 2]
    lessons = Rejection().lessons(RejectionRecipe(per_prompt=2), groups, torch.empty(0))
    assert [(each.advantage, each.weight) for each in lessons] == [(1.0, pytest.approx(1 / 9))] * 3


def attempt(score: float):
    class Attempt:
        trajectory = Trajectory(segments=(segment(GOOD),))
        grade = Grade(score=score)

    return Attempt()


# The stage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [GrpoRecipe, RejectionRecipe])
def test_the_reward_rises(start: Path, even: Even, tmp_path: Path, kind: type[RolloutRecipe]) -> None:
    if kind is RejectionRecipe:
        even.spoil = lambda number, grade: replace(grade, score=float(grade.score > 0.6))
    optim = OptimRecipe(lr=1e-2, weight_decay=0.0)
    records = trained(start, tmp_path / "run", kind, steps=12, samples=8, batch=8, optim=optim)
    first, last = (sum(each["reward"] for each in part) / 3 for part in (records[:3], records[-3:]))
    assert last > first + 0.1
    assert max(each["engine_difference"] for each in records) < 1e-4


def test_a_step_says_what_a_person_needs_to_know(start: Path, even: Even, tmp_path: Path) -> None:
    (record, *_) = trained(start, tmp_path / "run", steps=2, kl=0.01, eval_every=1, watch_problems=2)
    told = {
        "loss",
        "gradient",
        "reward",
        "solved",
        "length",
        "longest",
        "truncated",
        "entropy",
        "clipped",
        "kl",
        "flat",
    }
    told |= {"reference_kl", "engine_difference", "pass/even", "ungraded", "rollout_seconds", "update_seconds"}
    assert told <= record.keys()
    assert record["tokens"] > 0
    lines = (tmp_path / "run" / "grpo" / "samples" / "step_000002.jsonl").read_text().splitlines()
    assert len(lines) == 12
    assert {"question", "thinking", "answer", "reward", "score", "why"} <= json.loads(lines[0]).keys()
    assert (tmp_path / "run" / "model" / "config.json").is_file()


def test_a_step_says_what_it_computed_and_the_stage_adds_it_up(start: Path, even: Even, tmp_path: Path) -> None:
    even.spoil = lambda number, grade: Grade(score=0.0)  # every group is flat: all are drawn again, and once more
    records = trained(start, tmp_path / "run", redraws=2, epochs=2)
    spent = 0
    for each in records:
        assert each["redrawn"] == 6
        assert each["generated"] == pytest.approx(36 * each["length"]), "given up or kept; some end early"
        assert each["trained"] == 0
        spent += each["generated"] + each["prefilled"]
        assert each["compute"] == spent
    even.spoil = None
    twice = trained(start, tmp_path / "twice", epochs=2, minibatches=1)
    assert all(each["trained"] > 0 and each["trained"] % (2 * 64) == 0 for each in twice)
    assert twice[-1]["compute"] == sum(each["generated"] + each["prefilled"] + 3 * each["trained"] for each in twice)
    held = trained(start, tmp_path / "held", kl=0.1)
    assert held[-1]["compute"] == sum(each["generated"] + each["prefilled"] + 4 * each["trained"] for each in held)


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        (GrpoRecipe, {"levels": Levels.ADAPTIVE, "redraws": 1}),
        (GrpoRecipe, {"minibatches": 3, "epochs": 2, "kl": 0.1}),
        (RejectionRecipe, {}),
    ],
)
def test_cut_off_and_resumed_equals_uninterrupted_bit_for_bit(
    start: Path,
    even: Even,
    tmp_path: Path,
    kind: type[RolloutRecipe],
    keys: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    even.spoil = lambda number, grade: replace(grade, score=float(grade.score > 0.5))
    whole = trained(start, tmp_path / "whole", kind, **keys)
    lessons = RolloutLearner._lessons

    def power_cut(self, rollout):
        if rollout.step == 2:
            raise RuntimeError("power cut")
        return lessons(self, rollout)

    parts = recipe(start, tmp_path / "parts", kind, **keys)
    parts = replace(parts, run=replace(parts.run, checkpoint_minutes=0.0))
    with monkeypatch.context() as broken:
        broken.setattr(RolloutLearner, "_lessons", power_cut)
        with pytest.raises(RuntimeError, match="power cut"):
            train(parts)
    with (tmp_path / "parts" / kind.name / "grades.jsonl").open("a") as journal:
        journal.write('{"step": 2, "rou')
    even.spoil = lambda number, grade: Grade(score=Random(number).random())  # only the journal knows the old grades
    with monkeypatch.context() as stopped:
        stopped.setattr(RolloutLearner, "_draw", stop_behind(2))
        with pytest.raises(RuntimeError, match="enough"):
            train(parts)
    even.spoil = lambda number, grade: replace(grade, score=float(grade.score > 0.5))
    train(parts)
    assert unclocked(read_metrics(tmp_path / "parts" / kind.name / "metrics.jsonl")) == unclocked(whole)
    for name in (f"{kind.name}/model/model.safetensors", f"{kind.name}/questions.bin"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_ctrl_c_in_a_rollout_finishes_the_step_and_resume_is_exact(start: Path, even: Even, tmp_path: Path) -> None:
    whole = trained(start, tmp_path / "whole")
    even.graded.clear()

    def interrupt(number: int, grade: Grade) -> Grade:
        if number == 15:
            signal.raise_signal(signal.SIGINT)
        return grade

    even.spoil = interrupt
    assert len(trained(start, tmp_path / "parts")) == 2
    assert unclocked(trained(start, tmp_path / "parts")) == unclocked(whole)


def stop_behind(last: int):
    draw = RolloutLearner._draw

    def stopping(self, step, index):
        if step > last:
            raise RuntimeError("enough")
        return draw(self, step, index)

    return stopping


def test_one_rollout_may_make_several_updates(start: Path, even: Even, tmp_path: Path) -> None:
    versions: list[int] = []
    update_weights = LocalSampler.__init__

    def counting(self, *arguments, **options):
        update_weights(self, *arguments, **options)
        samplers.append(self)

    samplers: list[LocalSampler] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(LocalSampler, "__init__", counting)
        trained(start, tmp_path / "run", steps=2, minibatches=3, epochs=2)
    versions = [sampler.engine.weights_version for sampler in samplers]
    assert versions == [12]
    assert state.checkpoints(tmp_path / "run" / "grpo" / "checkpoints")


def test_groups_that_teach_nothing_are_drawn_again(start: Path, even: Even, tmp_path: Path) -> None:
    even.spoil = lambda number, grade: Grade(score=float(number > 12 and number % 2))  # the first twelve are equal
    (once,) = trained(start, tmp_path / "once", steps=1)
    assert (once["redrawn"], once["flat"]) == (0.0, 1.0)
    even.graded.clear()
    (twice,) = trained(start, tmp_path / "twice", steps=1, redraws=3)
    assert (twice["redrawn"], twice["flat"]) == (3.0, 0.0)
    assert len(even.graded) == 24


def test_groups_that_were_given_up_still_say_how_hard_their_level_is(
    start: Path, even: Even, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    even.spoil = lambda number, grade: Grade(score=float(number > 12 and number % 2))
    seen: list[float] = []
    monkeypatch.setattr(Curriculum, "update", lambda self, results: seen.extend(passed for *_, passed in results))
    (record,) = trained(start, tmp_path / "run", steps=1, redraws=3, levels=Levels.ADAPTIVE)
    assert sorted(seen) == [0.0] * 3 + [0.5] * 3
    assert (record["solved"], record["pass/even"]) == (0.25, 0.25)
    assert record["generated"] == 24 * record["length"]


# Trouble --------------------------------------------------------------------------------------------------------------


def test_a_grader_that_fails_costs_one_answer(start: Path, even: Even, tmp_path: Path) -> None:
    even.spoil = lambda number, grade: (
        Grade(score=0.0, status=GradeStatus.TIMEOUT, why="too slow") if number == 5 else grade
    )
    records = trained(start, tmp_path / "run", steps=2)
    assert [each["ungraded"] for each in records] == [1 / 12, 0.0]


def test_equal_rewards_for_several_steps_raise_an_alarm(
    start: Path, even: Even, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    even.spoil = lambda number, grade: Grade(score=0.0)
    before = tiny_model().state_dict()
    records = trained(start, tmp_path / "run", steps=3, patience=2)
    assert ["alarm/flat" in each for each in records] == [False, True, True]
    said = capsys.readouterr().err
    assert "in 2 steps all answers of each group had the same reward" in said
    assert "set grpo.levels to adaptive" in said
    trained(start, tmp_path / "adaptive", steps=2, patience=2, levels=Levels.ADAPTIVE)
    said = capsys.readouterr().err
    assert "all answers of each group had the same reward" in said
    assert "set grpo.levels to adaptive" not in said
    checkpoint = state.checkpoints(tmp_path / "run" / "grpo" / "checkpoints")[-1]
    from ponder.model.checkpoint import load_model

    after = load_model(checkpoint, dtype=torch.float32).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_grader_that_never_works_stops_the_run(start: Path, even: Even, tmp_path: Path) -> None:
    even.spoil = lambda number, grade: Grade(score=0.0, status=GradeStatus.FAILED, why="no such module: sympi")
    with pytest.raises(GraderError, match=r"no answer could be graded in 2 steps .*sympi.*mend the grader"):
        trained(start, tmp_path / "run", patience=2)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"temperature": 0.0}, r"grpo\.temperature must be a number above 0 .*\(got 0\.0\)"),
        ({"samples": 1}, r"grpo\.samples must be a number of at least 2 .*\(got 1\)"),
        ({"accumulate": 2}, "accumulate does not apply"),
        ({"tokens": 5}, "leave it out"),
        ({"overlong": 11}, r"overlong must be at most grpo\.max_tokens \(got 11 and 10\)"),
        ({"minibatches": 4}, "must be at most"),
        ({"mix": (MixRecipe(task="even", direct=0.5),)}, "grpo.thinking = 0"),
        ({"mix": (MixRecipe(messages="a.jsonl"),)}, "messages have no grade"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, keys: dict[str, object], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        recipe(tmp_path, tmp_path, **keys)
