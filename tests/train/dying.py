"""Runs that are killed in the middle, in a separate process."""

import os
import signal
from collections.abc import Callable
from pkgutil import resolve_name
from typing import Any

from even import Even, train
from forks import exit_code

from ponder.train.policy import rollout, stage
from ponder.train.recipe.sections import Recipe


def killed_in_the_third_update(recipe: Recipe, learner: str) -> None:
    """Train, and die when the losses are asked for a third time.

    learner: the class whose `losses` are asked for.
    """
    assert exit_code("dying:train_and_die", recipe, learner) == -signal.SIGKILL


def train_and_die(recipe: Recipe, learner: str) -> None:
    for module in (stage, rollout):
        module.load_task = lambda spec: Even()  # type: ignore[attr-defined]
    kind: Any = resolve_name(learner)
    losses: Callable[..., Any] = kind.losses
    asked: list[int] = []

    def counted(*arguments: Any) -> Any:
        asked.append(1)
        if len(asked) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return losses(*arguments)

    kind.losses = counted
    train(recipe)
