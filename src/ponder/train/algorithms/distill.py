"""The stage `distill`: the student learns from a larger teacher on the student's own samples.

On-policy distillation (arXiv 2306.13649): the teacher scores what the student says token by token, so that the student
learns to get out of mistakes that it makes. Both must have one vocabulary. A teacher of another one teaches by its
traces (`ponder generate`), on which `sft` tunes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor

from ponder.dialogue import load_format
from ponder.gguf.reading import is_gguf
from ponder.kernels.training import TrainingStack
from ponder.model.checkpoint import load_model
from ponder.model.config import ModelConfig
from ponder.model.loss import Backend, head_weight, linear_logprobs
from ponder.model.transformer import Transformer
from ponder.tasks.turns import Attempt
from ponder.tokenizer import Tokenizer
from ponder.train.loop.fit import Job
from ponder.train.loop.stage import StageStart
from ponder.train.policy.divergence import Divergence, linear_divergence
from ponder.train.policy.gradient import FrozenModel, PolicyGradient, SampledTokens, learned_rows, scaled
from ponder.train.policy.lessons import Experience, Lesson, weigh
from ponder.train.policy.losses import Weighting
from ponder.train.policy.stage import RolloutRecipe, RolloutTraining
from ponder.train.recipe.ranges import Range
from ponder.train.recipe.sections import ModelRecipe
from ponder.types import RecipeError


class TeacherLoss(StrEnum):
    """What the teacher says of a token that the student sampled.

    SAMPLED: the log-ratio of teacher to student at the token itself, as its advantage: the reverse KL by policy
        gradient.
    REVERSE, FORWARD, JSD: that divergence of the whole next-token distributions, differentiated exactly.
    """

    SAMPLED = "sampled"
    REVERSE = "reverse"
    FORWARD = "forward"
    JSD = "jsd"


@dataclass(frozen=True, kw_only=True)
class DistillRecipe(RolloutRecipe):
    """Learning from a teacher on own samples. The grade is reported, and not learned from.

    teacher: a model folder or GGUF file, with the tokenizer and the format of the student.
    loss: see `TeacherLoss`.
    share: the teacher's in the mixture of jsd.
    """

    samples: Annotated[int, Range(1, 1 << 20)] = 4
    teacher: str = ""
    loss: TeacherLoss = TeacherLoss.REVERSE
    share: Annotated[float, Range(0, 1, above=True, below=True)] = 0.5

    name = "distill"

    def data_files(self) -> Mapping[str, Sequence[Path]]:
        teacher = Path(self.teacher)
        files = [teacher] if teacher.is_file() else sorted([*teacher.glob("*.safetensors"), *teacher.glob("*.json")])
        return {**super().data_files(), **{str(file): [file] for file in files}}

    def problems(self, model: ModelRecipe, *, runs: bool) -> Mapping[str, bool]:
        sampled = self.loss is TeacherLoss.SAMPLED
        return {
            **super().problems(model, runs=runs),
            "distill.teacher is empty: name a model folder": runs and not self.teacher.strip(),
            f"distill.redraws must be 0: a teacher has something to say of every answer (got {self.redraws})": (
                self.redraws > 0
            ),
            "distill.overlong does not apply: the reward is not learned from": self.overlong > 0,
            "distill.share applies to the loss jsd only: leave it out": self.share != type(self).share
            and self.loss is not TeacherLoss.JSD,
            "distill.minibatches and epochs must be 1 for the loss sampled, whose gradient holds for the weights that "
            "sampled": (sampled and (self.minibatches > 1 or self.epochs > 1)),
        }

    def check_data(self) -> None:
        if not is_gguf(Path(self.teacher)) and not (Path(self.teacher) / "config.json").is_file():
            raise RecipeError(f"distill.teacher is {self.teacher!r}, but there is no model there: name a model folder")


class Distill(RolloutTraining[DistillRecipe]):
    """Every answer teaches, right or wrong, every token the same."""

    section = DistillRecipe

    def open(self, start: StageStart[DistillRecipe]) -> Job:
        refuse_other_vocabulary(start.tokenizer, Tokenizer.load(start.stage.teacher), start.stage.teacher)
        return super().open(start)

    def lessons(self, stage: DistillRecipe, groups: Sequence[Sequence[Attempt]], rewards_PS: Tensor) -> list[Lesson]:
        trajectories = [each.trajectory for group in groups for each in group]
        return weigh(trajectories, [1.0] * len(trajectories), Weighting.TOKEN, longest=stage.max_tokens)

    def gradient(self, stage: DistillRecipe, model: Transformer) -> PolicyGradient:
        teacher = load_model(stage.teacher, dtype=torch.float32).to(next(model.parameters()).device)
        refuse_other_limits(model.config, teacher.config, stage)
        if stage.loss is TeacherLoss.SAMPLED:
            return PolicyGradient(taught, temperature=stage.temperature, reference=FrozenModel(teacher))
        return DivergenceGradient(
            FrozenModel(teacher), Divergence(stage.loss.value), share=stage.share, temperature=stage.temperature
        )


def taught(new_N: Tensor, tokens: SampledTokens) -> tuple[Tensor, Mapping[str, Tensor]]:
    """Policy gradient with the log-ratio of teacher to student as the advantage of each token by itself. What comes
    later does not count for it: discounted sums did not help (Thinking Machines, "On-policy distillation", 2025). A
    `LogprobLoss`."""
    assert tokens.reference_N is not None, "the teacher stands in the reference's place"
    advantages_N = tokens.reference_N - tokens.old_N
    loss = -(tokens.weights_N * advantages_N * new_N).sum()
    return loss, {"divergence": -(tokens.weights_N * advantages_N).sum()}


class DivergenceGradient(PolicyGradient):
    """The gradient of a divergence from the teacher's whole distribution at every token that the student sampled."""

    def __init__(self, teacher: FrozenModel, kind: Divergence, *, share: float, temperature: float) -> None:
        super().__init__(taught, temperature=temperature, reference=teacher)
        self.teacher, self.kind, self.share = teacher, kind, share

    def _loss(self, model: Transformer, each: Experience, backend: Backend, stack: TrainingStack | None) -> Tensor:
        x_ND, at_N, targets_N, weights_N = learned_rows(model, each.batch, backend, stack)
        x_ND = scaled(x_ND, self.temperature)
        teacher_x_ND, teacher_at_N, _, _ = self.teacher.rows(each.batch, backend, model.compute_dtype)
        assert len(at_N) == len(teacher_at_N), "both read the same places"
        new_N, _ = linear_logprobs(x_ND.detach(), head_weight(model).detach(), targets_N)
        self._compare(new_N, torch.from_numpy(each.old_BT).to(at_N.device).flatten()[at_N], weights_N)
        loss = linear_divergence(
            *(x_ND, head_weight(model), scaled(teacher_x_ND, self.temperature), head_weight(self.teacher.model)),
            *(weights_N, self.kind),
            share=self.share,
        )
        self._add({"weight": weights_N.sum(), "divergence": loss.detach()})
        return loss


def refuse_other_vocabulary(student: Tokenizer, teacher: Tokenizer, where: str) -> None:
    """Raises RecipeError, with the first difference, unless every id means the same to both, and conversations are
    rendered alike."""
    why = ""
    if student.vocab_size != teacher.vocab_size:
        why = f"it has {teacher.vocab_size} tokens, the student {student.vocab_size}"
    elif student.control != teacher.control:
        names = sorted(dict(set(student.control.items()) ^ set(teacher.control.items())))
        why = f"control tokens differ ({', '.join(names[:3])})"
    else:
        pairs = ((i, student.token_bytes(i), teacher.token_bytes(i)) for i in range(student.vocab_size))
        other = next((each for each in pairs if each[1] != each[2]), None)
        if other:
            why = f"id {other[0]} is {other[2]!r}, for the student {other[1]!r}"
        elif type(load_format(student)) is not type(load_format(teacher)):
            why = "it renders conversations in another format"
    if why:
        raise RecipeError(
            f"the teacher in {where} has another vocabulary, so its probabilities are of other tokens ({why}): let it "
            "write traces (ponder generate --model), and tune on them (sft)"
        )


def refuse_other_limits(student: ModelConfig, teacher: ModelConfig, stage: DistillRecipe) -> None:
    """Raises RecipeError where the teacher ends its turns otherwise, or cannot read what the student writes."""
    if set(student.eos_token_ids) != set(teacher.eos_token_ids):
        raise RecipeError(
            f"the teacher in {stage.teacher} ends its turns with the ids {sorted(teacher.eos_token_ids)}, the student "
            f"with {sorted(student.eos_token_ids)}: what one takes for the end, the other goes on after"
        )
    if teacher.max_positions < stage.sequence:
        raise RecipeError(
            f"distill.sequence is {stage.sequence}, but the teacher in {stage.teacher} has {teacher.max_positions} "
            "positions: lower sequence"
        )
