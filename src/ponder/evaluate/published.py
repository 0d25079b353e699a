"""Scores that reasoning-gym's authors published for zero-shot models, on the default and on the hard configs.

Source: reasoning-gym (github.com/open-thought/reasoning-gym, Apache-2.0), its evaluation results; mean scores with
partial credit, clipped to [0, 1]. The attribution goes with every table that shows them.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files

ATTRIBUTION = (
    "Published by reasoning-gym's authors: zero-shot mean scores with partial credit on the same configs, "
    "other items. A model trained on a family against zero-shot generalists is not the same contest."
)


@cache
def _rows() -> tuple[dict[str, str], ...]:
    text = files("ponder.evaluate").joinpath("published.csv").read_text()
    return tuple(csv.DictReader(text.splitlines()))


@cache
def _table() -> dict[str, dict[str, float]]:
    return {row["dataset"]: {model: float(row[model]) for model in published_models() if row[model]} for row in _rows()}


def published_models() -> tuple[str, ...]:
    """The ten models, by name."""
    return tuple(column for column in _rows()[0] if column != "dataset")


def published(task: str) -> dict[str, float]:
    """Model to mean score for a dataset ("gym:products", "products", "gym:products@hard"); empty where none was
    published, as for any other config."""
    return dict(_table().get(task.removeprefix("gym:"), {}))


def best_published(task: str) -> tuple[str, float] | None:
    """The best model and its score; None where none was published."""
    scores = published(task)
    return max(scores.items(), key=lambda pair: pair[1]) if scores else None
