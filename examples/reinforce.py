"""A training algorithm of your own: REINFORCE, where an answer's advantage is its reward minus the mean of the step.

python examples/reinforce.py            # 5 steps on mini: under a minute on two cores
python examples/reinforce.py --set reinforce.steps=50 --set run.folder=runs/longer

To make it part of the package, put the two classes into `src/ponder/train/algorithms/reinforce.py` and add
"reinforce.Reinforce" to the registry in `algorithms/__init__.py`: then `ponder train` knows the stage.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ponder.model.transformer import Transformer
from ponder.sampler.opening import find_model
from ponder.tasks.turns import Attempt
from ponder.train.loop.folder import RunFolder
from ponder.train.policy.gradient import PolicyGradient, SampledTokens
from ponder.train.policy.lessons import Lesson, weigh
from ponder.train.policy.losses import Weighting
from ponder.train.policy.stage import RolloutRecipe, RolloutTraining
from ponder.train.recipe.sections import resolve
from ponder.train.recipe.toml import read_recipe

RECIPE = Path(__file__).with_suffix(".toml")


@dataclass(frozen=True, kw_only=True)
class ReinforceRecipe(RolloutRecipe):
    """The section [reinforce] of a recipe. positive_only: learn from the answers above the mean alone."""

    positive_only: bool = False

    name = "reinforce"


class Reinforce(RolloutTraining[ReinforceRecipe]):
    """What sampled and graded answers teach, and the loss. Rollouts, grades, checkpoints and resume are inherited."""

    section = ReinforceRecipe

    def lessons(self, stage: ReinforceRecipe, groups: Sequence[Sequence[Attempt]], rewards_PS: Tensor) -> list[Lesson]:
        advantages_PS = rewards_PS - rewards_PS.mean()
        if stage.positive_only:
            advantages_PS = advantages_PS.clamp(min=0)
        trajectories = [each.trajectory for group in groups for each in group]
        lessons = weigh(trajectories, advantages_PS.flatten().tolist(), Weighting.TOKEN, longest=stage.max_tokens)
        return [each for each in lessons if each.teaches]

    def gradient(self, stage: ReinforceRecipe, model: Transformer) -> PolicyGradient:
        return PolicyGradient(reinforce_loss, temperature=stage.temperature)


def reinforce_loss(new_N: Tensor, tokens: SampledTokens) -> tuple[Tensor, Mapping[str, Tensor]]:
    """Minus the log-probability of each sampled token, times its answer's advantage (Williams 1992)."""
    return -(tokens.weights_N * tokens.advantages_N * new_N).sum(), {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe")
    overrides = [f"reinforce.start={find_model('mini')}", *parser.parse_args().set]
    recipe = resolve(read_recipe(RECIPE, [ReinforceRecipe], overrides))
    Reinforce().run(recipe, RunFolder(Path(recipe.run.folder)))


if __name__ == "__main__":
    main()
