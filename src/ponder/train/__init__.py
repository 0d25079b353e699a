"""Training: tokenizer, pre-training, dialogues, reinforcement learning. `run(recipe)` does what a recipe says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ponder.train.loop.fit import Outcome
    from ponder.train.pipeline import RunResult, run

__all__ = ["Outcome", "RunResult", "run"]

_HOMES = {"Outcome": "ponder.train.loop.fit", "RunResult": "ponder.train.pipeline", "run": "ponder.train.pipeline"}


def __getattr__(name: str) -> Any:
    """Load what brings torch only when it is asked for (the SFT workers import this package without it)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
