"""Distillation on own samples: a teacher that is the student teaches nothing, another one is approached."""

from pathlib import Path

import pytest
import torch
from dying import killed_in_the_third_update
from even import Even, recipe, trained
from safetensors.torch import load_file

from ponder.dialogue import CONTROL_TOKENS
from ponder.model.checkpoint import write_model
from ponder.testing.tiny import ByteTokenizer, tiny_model
from ponder.train.algorithms.distill import DistillRecipe, TeacherLoss, refuse_other_vocabulary, taught
from ponder.train.policy.divergence import Divergence, divergence
from ponder.train.policy.gradient import SampledTokens
from ponder.types import RecipeError


def teacher(folder: Path, **sizes: int) -> str:
    folder.mkdir()
    write_model(tiny_model(seed=5, **sizes), folder)
    ByteTokenizer().save(folder)
    return str(folder)


def test_on_average_the_sampled_loss_has_the_gradient_of_the_reverse_divergence() -> None:
    student, wise = torch.tensor([0.3, -0.2, 1.0], requires_grad=True), torch.tensor([[1.0, 0.0, -1.0]])
    (exact,) = torch.autograd.grad(
        divergence(student[None], wise, Divergence.REVERSE).sum(), student, retain_graph=True
    )
    logprobs = student.log_softmax(0)
    tokens = SampledTokens(
        old_N=logprobs.detach(),
        advantages_N=torch.ones(3),
        weights_N=logprobs.detach().exp(),
        trajectories_N=torch.arange(3),
        reference_N=wise[0].log_softmax(0),
    )
    loss, sums = taught(logprobs, tokens)
    (sampled,) = torch.autograd.grad(loss, student)
    torch.testing.assert_close(sampled, exact)
    torch.testing.assert_close(sums["divergence"], divergence(student.detach()[None], wise, Divergence.REVERSE)[0])


@pytest.mark.parametrize("loss", TeacherLoss)
def test_a_teacher_that_is_the_student_teaches_nothing(
    start: Path, even: Even, tmp_path: Path, loss: TeacherLoss
) -> None:
    (record,) = trained(start, tmp_path / "run", DistillRecipe, steps=1, teacher=str(start), loss=loss, temperature=0.7)
    assert record["divergence"] == pytest.approx(0, abs=1e-5)
    assert record["gradient"] < 1e-4
    assert record["engine_difference"] < 1e-4


@pytest.mark.parametrize(("loss", "samples"), [(TeacherLoss.SAMPLED, 16), (TeacherLoss.REVERSE, 1)])
def test_the_student_comes_nearer_to_its_teacher(
    start: Path, even: Even, tmp_path: Path, loss: TeacherLoss, samples: int
) -> None:
    other = teacher(tmp_path / "teacher", num_layers=3)
    sizes = {"steps": 8, "samples": samples, "prompts": 8, "batch": 8}
    records = trained(start, tmp_path / "run", DistillRecipe, teacher=other, loss=loss, **sizes)
    assert records[-1]["divergence"] < 0.8 * records[0]["divergence"]
    assert records[0]["compute"] > records[0]["generated"] + records[0]["prefilled"] + 3 * records[0]["trained"]


def test_another_vocabulary_is_refused_with_the_reason(tmp_path: Path) -> None:
    own = ByteTokenizer()
    refuse_other_vocabulary(own, ByteTokenizer(), "x")
    with pytest.raises(RecipeError, match=r"352 tokens, the student 320.*ponder generate"):
        refuse_other_vocabulary(own, ByteTokenizer(vocab_size=352), "x")
    turned = (*CONTROL_TOKENS[1:], CONTROL_TOKENS[0])
    with pytest.raises(RecipeError, match="control tokens differ"):
        refuse_other_vocabulary(own, ByteTokenizer(turned), "x")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"teacher": ""}, "teacher is empty"),
        ({"redraws": 1}, "redraws must be 0"),
        ({"share": 0.2}, "share applies to the loss jsd only"),
        ({"loss": TeacherLoss.SAMPLED, "epochs": 2}, "must be 1 for the loss sampled"),
        ({"overlong": 2}, "overlong does not apply"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, keys: dict[str, object], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        recipe(tmp_path, tmp_path, DistillRecipe, **{"teacher": "x", **keys})


def test_a_teacher_that_is_not_there_or_too_short_is_refused(start: Path, even: Even, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no model there"):
        recipe(start, tmp_path, DistillRecipe, teacher=str(tmp_path / "none")).section(DistillRecipe).check_data()
    short = teacher(tmp_path / "short", max_positions=32)
    with pytest.raises(RecipeError, match="has 32 positions: lower sequence"):
        trained(start, tmp_path / "run", DistillRecipe, teacher=short)


def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(start: Path, even: Even, tmp_path: Path) -> None:
    other = teacher(tmp_path / "teacher")
    whole = trained(start, tmp_path / "whole", DistillRecipe, teacher=other, samples=2)
    parts = recipe(start, tmp_path / "parts", DistillRecipe, minutes=0.0, teacher=other, steps=4, samples=2)
    killed_in_the_third_update(parts, "ponder.train.policy.stage.RolloutLearner")
    resumed = trained(start, tmp_path / "parts", DistillRecipe, teacher=other, samples=2)
    assert [each["loss"] for each in whole] == [each["loss"] for each in resumed]
    one, other_model = (load_file(tmp_path / n / "distill" / "model" / "model.safetensors") for n in ("whole", "parts"))
    assert all(torch.equal(one[name], other_model[name]) for name in one)
