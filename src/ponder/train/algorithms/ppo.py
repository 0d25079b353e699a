"""The stage `ppo`: a policy optimised against rewards, with a critic that says how good each token was.

PPO (arXiv 1707.06347) as it is used against reward models (arXiv 1909.08593, 2203.02155): the penalty for leaving the
start model is in the reward, token by token. A reward is a task's grade: a verifier's, or a reward model's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn

from ponder.kernels.training import TrainingStack
from ponder.model.loss import Backend, kernel_obstacle, training_stack
from ponder.model.scoring import ScoringHead, load_scoring_model
from ponder.model.transformer import Transformer
from ponder.tasks.turns import Attempt
from ponder.train.loop.learner import Beside, StepReport
from ponder.train.loop.stage import StageStart
from ponder.train.policy.gradient import FrozenModel, PolicyGradient, SampledTokens, learned_rows
from ponder.train.policy.lessons import Experience, Lesson, weigh
from ponder.train.policy.losses import Weighting, policy_loss
from ponder.train.policy.measure import Rollout
from ponder.train.policy.stage import RolloutLearner, RolloutRecipe, RolloutTraining, Teach
from ponder.train.policy.values import (
    adapted_kl,
    advantages_and_returns,
    explained_variance,
    token_rewards,
    value_loss,
    whiten,
)
from ponder.train.recipe.ranges import CountOrZero, Positive, Range, Share, Width
from ponder.train.recipe.sections import ModelRecipe, Rate
from ponder.types import Origin, RecipeError, Trajectory


@dataclass(frozen=True, kw_only=True)
class PpoRecipe(RolloutRecipe):
    """Proximal policy optimisation.

    critic: folder of a reward model that the critic begins as; "": it begins as the policy, with values of 0.
    critic_lr: its learning rate; None: the stage's.
    critic_alone: at most this many steps at the beginning train the critic only, until its values explain some of the
        returns' variance. A critic that knows nothing would spoil the policy.
    kl: weight of the penalty for leaving the start model: of each sampled token's log-ratio, in its reward.
    kl_target: nats an answer that the weight is adapted to; None: it stays.
    kl_horizon: answers over which the adapted weight changes by a fifth, at most.
    discount, trace: of rewards to come, and of what later tokens say of the critic's error (gamma, lambda).
    clip_low, clip_high: ratios beyond 1 - clip_low and 1 + clip_high gain nothing more.
    value_clip: the same for how far a value may move; 0: no limit.
    value_weight: of the critic's loss beside the policy's.
    whiten: whether a step's advantages are scaled to mean 0 and deviation 1.
    missing_end: what an answer loses that ran out of tokens.
    """

    samples: Annotated[int, Range(1, 1 << 20)] = 4
    epochs: Width = 4
    critic: str = ""
    critic_lr: Rate | None = None
    critic_alone: CountOrZero = 10
    kl: Annotated[float, Range(0, 1e6)] = 0.05
    kl_target: Positive | None = None
    kl_horizon: Positive = 10_000.0
    discount: Annotated[float, Range(0, 1, above=True)] = 1.0
    trace: Share = 0.95
    clip_low: Share = 0.2
    clip_high: Annotated[float, Range(0)] = 0.2
    value_clip: Annotated[float, Range(0, 1e6)] = 0.2
    value_weight: Annotated[float, Range(0, 1e6, above=True)] = 0.1
    whiten: bool = True
    missing_end: Annotated[float, Range(0, 1e6)] = 0.0

    name = "ppo"

    def data_files(self) -> Mapping[str, Sequence[Path]]:
        files = sorted(Path(self.critic).glob("*.safetensors")) if self.critic else []
        return {**super().data_files(), **{str(file): [file] for file in files}}

    def problems(self, model: ModelRecipe, *, runs: bool) -> Mapping[str, bool]:
        return {
            **super().problems(model, runs=runs),
            f"ppo.redraws must be 0: a critic compares, not a group (got {self.redraws})": self.redraws > 0,
            "ppo.kl_target needs a weight to adapt: set ppo.kl above 0": self.kl_target is not None and not self.kl,
        }


class Ppo(RolloutTraining[PpoRecipe]):
    """Clipped policy gradients with a critic's advantages."""

    section = PpoRecipe

    def lessons(self, stage: PpoRecipe, groups: Sequence[Sequence[Attempt]], rewards_PS: Tensor) -> list[Lesson]:
        raise AssertionError("PpoLearner makes the lessons, which need the critic")

    def gradient(self, stage: PpoRecipe, model: Transformer) -> PpoGradient:
        return PpoGradient(stage, critic_for(stage, model))

    def learner(self, start: StageStart[PpoRecipe]) -> PpoLearner:
        return PpoLearner(start, partial(self.lessons, start.stage), self.gradient(start.stage, start.model))


class Critic(nn.Module):
    """Estimates what an answer will be worth, at every position."""

    def __init__(self, model: Transformer, head: ScoringHead, bias: float = 0.0) -> None:
        super().__init__()
        self.model, self.head = model, head
        self.bias = nn.Parameter(torch.full((1,), bias, device=head.weight.device))

    def values(self, x_ND: Tensor) -> Tensor:
        """values_N, float32."""
        values_N: Tensor = self.head(x_ND) + self.bias
        return values_N

    def backend(self, wanted: Backend) -> Backend:
        """The backend of the policy, where it covers the critic too."""
        return Backend.TORCH if wanted is Backend.KERNELS and kernel_obstacle(self.model) else wanted


def critic_for(stage: PpoRecipe, policy: Transformer) -> Critic:
    """The critic at the beginning. Of a reward model it takes the score as the grade will be, near the middle of the
    logistic function: 1/2 + reward / 4. Raises RecipeError for a reward model that cannot read what the policy writes.
    """
    device = next(policy.parameters()).device
    if not stage.critic:
        head = ScoringHead(policy.config.hidden_size).to(device)
        nn.init.zeros_(head.weight)
        shared = {id(p): p for p in policy.parameters() if not p.requires_grad}
        return Critic(deepcopy(policy, dict(shared)), head)
    scoring = load_scoring_model(stage.critic, device=device)
    if (
        scoring.model.config.vocab_size != policy.config.vocab_size
        or scoring.model.config.max_positions < stage.sequence
    ):
        raise RecipeError(
            f"the critic in {stage.critic} has {scoring.model.config.vocab_size} ids and "
            f"{scoring.model.config.max_positions} positions, the policy {policy.config.vocab_size} ids and rows of "
            f"{stage.sequence}: name a reward model that was tuned from the policy"
        )
    with torch.no_grad():
        scoring.head.requires_grad_(True).weight.mul_(scoring.scale.gain / 4)
    return Critic(scoring.model.requires_grad_(True).train(), scoring.head, 0.5 + scoring.scale.bias / 4)


class PpoGradient(PolicyGradient):
    """The gradient of the policy's loss and of the critic's.

    policy_learns: False: of the critic's alone.
    """

    def __init__(self, stage: PpoRecipe, critic: Critic) -> None:
        super().__init__(partial(surrogate, stage), temperature=stage.temperature)
        self.stage, self.critic, self.policy_learns = stage, critic, True
        self._critic_stack: TrainingStack | None = None

    def losses(self, model: Transformer, batches: Sequence[Experience], backend: Backend) -> Iterator[Tensor]:
        self.critic.model.compute_dtype = model.compute_dtype
        own = self.critic.backend(backend)
        self._critic_stack = training_stack(self.critic.model) if own is Backend.KERNELS else None
        return super().losses(model, batches, backend)

    def _loss(self, model: Transformer, each: Experience, backend: Backend, stack: TrainingStack | None) -> Tensor:
        own = self.critic.backend(backend)
        x_ND, at_N, _, weights_N = learned_rows(self.critic.model, each.batch, own, self._critic_stack)
        old_N, returns_N = (
            torch.from_numpy(a).to(at_N.device).flatten()[at_N] for a in (each.values_BT, each.returns_BT)
        )
        values_N = self.critic.values(x_ND)
        lost = value_loss(values_N, old_N, returns_N, weights_N, clip=self.stage.value_clip)
        self._add({"value_loss": lost.detach()})
        lost = self.stage.value_weight * lost
        if not self.policy_learns:
            self._add({"weight": weights_N.sum()})
            return lost
        return super()._loss(model, each, backend, stack) + lost


def surrogate(stage: PpoRecipe, new_N: Tensor, tokens: SampledTokens) -> tuple[Tensor, Mapping[str, Tensor]]:
    """`policy_loss` as the recipe sets it. A `LogprobLoss` but for the recipe."""
    loss, stats = policy_loss(
        *(new_N, tokens.old_N, tokens.advantages_N, tokens.weights_N),
        clip_low=stage.clip_low,
        clip_high=stage.clip_high,
    )
    return loss, {"clipped": stats.clipped, "kl": stats.kl}


class PpoLearner(RolloutLearner):
    """Between sampling and learning it reads every answer by the reference and by the critic."""

    def __init__(self, start: StageStart[PpoRecipe], teach: Teach, gradient: PpoGradient) -> None:
        super().__init__(start, teach, gradient)
        self.stage, self.both, self.critic = start.stage, gradient, gradient.critic
        self.beside = Beside(module=self.critic, lr=self.stage.critic_lr)
        self.reference = FrozenModel.of(start.model)
        self.coefficient = self.stage.kl
        self.alone = 0  # steps that trained the critic only
        self.ready = self.stage.critic_alone == 0
        self._ppo: dict[str, float] = {}
        self._read = 0

    def _lessons(self, rollout: Rollout) -> list[list[Lesson]]:
        stage = self.stage
        attempts = [each for group in rollout.kept for each in group.attempts]
        cut = torch.tensor([float(each.truncated) for each in attempts])
        scores = rollout.rewards_PS.flatten() - stage.missing_end * cut
        trajectories = [each.trajectory for each in attempts]
        lengths = [sum(len(segment.ids) for segment in each.segments) for each in trajectories]
        old_N, sampled_N = map(torch.cat, zip(*map(_tokens, trajectories), strict=True))
        values_N, reference_N = self._read_all(trajectories)
        kl_N = torch.where(sampled_N, old_N - reference_N, 0.0)
        made = [
            advantages_and_returns(
                token_rewards(float(score), kl, sampled, self.coefficient),
                *(values, sampled),
                discount=stage.discount,
                trace=stage.trace,
            )
            for score, kl, values, sampled in zip(
                scores, *(each.split(lengths) for each in (kl_N, values_N, sampled_N)), strict=True
            )
        ]
        advantages_N, returns_N = (torch.cat(part) for part in zip(*made, strict=True))
        if stage.whiten:
            advantages_N = whiten(advantages_N, sampled_N)
        self._follow(values_N[sampled_N], returns_N[sampled_N], float(kl_N.sum()) / len(attempts), len(attempts))
        arrays = [[part.numpy() for part in each.split(lengths)] for each in (advantages_N, values_N, returns_N)]
        samples, count = stage.samples, stage.minibatches
        updates = []
        for first in range(count):
            chosen = [at for at in range(len(attempts)) if at // samples % count == first]
            advantages, values, returns = ([part[at] for at in chosen] for part in arrays)
            own = weigh([trajectories[at] for at in chosen], advantages, Weighting.TOKEN, longest=stage.max_tokens)
            updates.append(
                [replace(lesson, values=v, returns=r) for lesson, v, r in zip(own, values, returns, strict=True)]
            )
        return updates

    def _follow(self, values: Tensor, returns: Tensor, kl: float, answers: int) -> None:
        """What the step says of the critic and of the penalty, and what follows from it."""
        stage, explained = self.stage, explained_variance(values, returns)
        self.ready = self.ready or explained > 0 or self.alone >= stage.critic_alone
        self.alone += not self.ready
        self.both.policy_learns = self.ready
        self._ppo = {"explained_variance": explained, "kl_coefficient": self.coefficient, "answer_kl": kl}
        if stage.kl_target is not None:
            self.coefficient = adapted_kl(
                self.coefficient, kl, target=stage.kl_target, horizon=stage.kl_horizon, answers=answers
            )

    @torch.no_grad()
    def _read_all(self, trajectories: Sequence[Trajectory]) -> tuple[Tensor, Tensor]:
        """(values_N, reference_N) for every id of all trajectories, end to end; 0 where it was not sampled."""
        dtype, critic = self.model.compute_dtype, self.critic
        critic.model.compute_dtype = dtype
        backend = critic.backend(Backend.KERNELS)
        stack = training_stack(critic.model) if backend is Backend.KERNELS else None
        lengths = [sum(len(segment.ids) for segment in each.segments) for each in trajectories]
        begins = np.cumsum([0, *lengths])
        # Rows are filled by best fit, so each position carries its place in the trajectory: as its "advantage".
        probes = [
            Lesson(each, np.arange(n, dtype=np.float32), 1.0) for each, n in zip(trajectories, lengths, strict=True)
        ]
        found = np.zeros((2, int(begins[-1])), np.float32)
        done = 0
        for each in self._lay_out(probes):
            x_ND, at_N, _, _ = learned_rows(critic.model, each.batch, backend, stack)
            numbers, within = (a.reshape(-1)[at_N.cpu().numpy()] for a in (each.trajectories_BT, each.advantages_BT))
            into = begins[done + numbers] + within.astype(np.int64)
            found[0, into] = critic.values(x_ND).cpu().numpy()
            found[1, into] = (
                self.reference.logprobs(each.batch, Backend.KERNELS, dtype, self.recipe.temperature).cpu().numpy()
            )
            done += int(each.trajectories_BT.max()) + 1
            self._read += 2 * each.num_positions
        return torch.from_numpy(found[0]), torch.from_numpy(found[1])

    def updates(self, batches: Sequence[Sequence[Experience]]) -> Sequence[Sequence[Experience]]:
        made = super().updates(batches)
        self._read += 3 * sum(each.num_positions for update in made for each in update)  # the critic learns too
        return made

    def report(self) -> StepReport:
        report, read = super().report(), self._read
        self._read = 0
        return replace(report, metrics={**report.metrics, **self._ppo}, inference=report.inference + read)

    def state(self) -> Mapping[str, Any]:
        own = {"coefficient": self.coefficient, "alone": self.alone, "ready": self.ready}
        return {**super().state(), "ppo": own}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        own = state["ppo"]
        self.coefficient, self.alone, self.ready = own["coefficient"], own["alone"], own["ready"]
        self.both.policy_learns = self.ready


def _tokens(trajectory: Trajectory) -> tuple[Tensor, Tensor]:
    """old_N, sampled_N over all segments."""
    pairs = [pair for each in trajectory.segments for pair in zip(each.logprobs, each.origins, strict=True)]
    old, origins = zip(*pairs, strict=True)
    return torch.tensor(old), torch.tensor([origin is Origin.SAMPLED for origin in origins])
