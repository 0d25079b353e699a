"""reasoning-gym as both sides see it: building datasets, drawing entries, scoring answers, and entries as plain JSON.

`draw` and `score` are called inside `isolate.py`'s children; `dataset` also as their warm-up in the fork server.
"""

from __future__ import annotations

import dataclasses
import json
import random
import warnings
from fractions import Fraction
from functools import lru_cache
from typing import Any

from ponder.types import GraderError, InvalidRequest, MissingExtra

SIZE = 1 << 40  # virtual: items are drawn when asked for
BLOCK = 500  # of the datasets that draw all their items at once, this many are built at a time

# These draw (or list) all `size` items when they are built, so they are built in blocks: block b has seed b * BLOCK.
EAGER = frozenset({"acre", "composite", "gsm_symbolic", "list_functions", "word_ladder"})
# These are drawn in a child, too: only under a fixed hash seed (they iterate over sets of strings) or a fixed state of
# the global generator (list_functions) are their items reproducible, and bf prints while it draws.
DRAWN_APART = frozenset(
    {
        "bf",
        "codeio",
        "isomorphic_strings",
        "knight_swap",
        "list_functions",
        "polynomial_multiplication",
        "ransom_note",
        "word_ladder",
    }
)


def library() -> Any:
    """The `reasoning_gym.factory` module."""
    try:
        from reasoning_gym import factory
    except ImportError as error:
        raise MissingExtra("reasoning-gym", "verify") from error
    return factory


@lru_cache(maxsize=256)
def _built(name: str, config: str, seed: int, size: int) -> Any:
    settings = json.loads(config)
    if name == "composite":
        from reasoning_gym.composite import DatasetSpec

        settings["datasets"] = [DatasetSpec(**spec) for spec in settings.get("datasets") or []]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # arc_agi's library leaves a file open
            return library().create_dataset(name, **settings, seed=seed, size=size)
    except (AssertionError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidRequest(
            f"reasoning-gym's {name!r} refuses the config {config}: {error or type(error).__name__}"
        ) from error


def dataset(payload: dict[str, Any]) -> None:
    """Build (and keep) the dataset of `{"name", "config"}`."""
    build(payload["name"], payload["config"], 0)


def build(name: str, config: dict[str, Any], index: int) -> tuple[Any, int]:
    """The dataset that holds item `index`, and where in it. Item i is drawn from Random(i)."""
    text = json.dumps(config, sort_keys=True)
    if name in EAGER:
        return _built(name, text, index - index % BLOCK, BLOCK), index % BLOCK
    return _built(name, text, 0, SIZE), index


def fields(name: str) -> dict[str, Any]:
    """The config keys of a dataset and their defaults."""
    _, config = library().DATASETS[name]
    return {
        each.name: None if each.default is dataclasses.MISSING else each.default
        for each in dataclasses.fields(config)
        if each.name not in ("seed", "size")
    }


def draw(payload: dict[str, Any]) -> dict[str, Any]:
    """Item `index` of `{"name", "config", "index"}`, packed."""
    data, place = build(payload["name"], payload["config"], payload["index"])
    entry = data[place]
    return {"question": entry["question"], "answer": entry["answer"], "metadata": pack_json(entry["metadata"])}


def draw_apart(payload: dict[str, Any]) -> dict[str, Any]:
    """`draw` from a global generator in a state that the index alone decides. For children only."""
    random.seed(payload["index"])
    return draw(payload)


def score(payload: dict[str, Any]) -> dict[str, float]:
    """The dataset's own score of `answer`, for the entry that was drawn."""
    data, _ = build(payload["name"], payload["config"], payload["index"])
    entry = {**payload["entry"], "metadata": unpack_json(payload["entry"]["metadata"])}
    return {"score": float(data.score_answer(payload["answer"], entry))}


def pack_json(value: Any) -> Any:
    """As JSON that keeps tuples, fractions and keys that are no strings. Raises GraderError on anything else."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, list):
        return [pack_json(each) for each in value]
    if isinstance(value, tuple):
        return {"$tuple": [pack_json(each) for each in value]}
    if isinstance(value, Fraction):
        return {"$fraction": str(value)}
    if isinstance(value, dict):
        return {"$dict": [[pack_json(key), pack_json(each)] for key, each in value.items()]}
    raise GraderError(f"an entry holds a {type(value).__name__}, which does not travel as JSON")


def unpack_json(value: Any) -> Any:
    """The inverse of `pack_json`."""
    if isinstance(value, list):
        return [unpack_json(each) for each in value]
    if not isinstance(value, dict):
        return value
    ((tag, inside),) = value.items()
    if tag == "$tuple":
        return tuple(unpack_json(each) for each in inside)
    if tag == "$fraction":
        return Fraction(inside)
    return {unpack_json(key): unpack_json(each) for key, each in inside}
