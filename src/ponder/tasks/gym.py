"""reasoning-gym's datasets as Tasks, by name and config, graded by their own `score_answer` in a child process.

Item i of a dataset is drawn from Random(i) (dataset seed 0), so an index names a problem for ever: training draws
indices below TRAIN_LIMIT, evaluation stays at or above it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import difflib
import json
import random
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from decimal import DefaultContext, localcontext
from functools import cache, lru_cache
from hashlib import sha256
from importlib.resources import files
from random import Random
from types import CodeType, FunctionType
from typing import Any

from ponder.sandbox.isolate import TIMEOUT_SECONDS, CallOutcome, CallResult, run_isolated, submit_isolated
from ponder.sandbox.payload import pack_json, unpack_json
from ponder.tasks.graders import as_grade, same_value
from ponder.tasks.gym_guards import guarded_score
from ponder.tasks.protocol import Grade, GradeStatus, Problem
from ponder.types import DataError, InvalidRequest, MissingExtra

TRAIN_LIMIT = 5_000_000
RUNS_CODE = frozenset({"eval", "exec", "compile", "parse_expr", "sympify", "parse_latex", "simplify"})
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
SCORING_FAILS = (ArithmeticError, AssertionError, AttributeError, LookupError, SyntaxError, TypeError, ValueError)
DRAWING_FAILS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def hard_config(dataset: str) -> Mapping[str, object]:
    """The config under which reasoning-gym's authors published scores as "hard". Raises InvalidRequest without one."""
    _known(dataset, _hard_configs(), "reasoning-gym's authors published no hard config for")
    return _hard_configs()[dataset]


@cache
def _hard_configs() -> dict[str, dict[str, object]]:
    """From reasoning-gym's evaluations (github.com/open-thought/reasoning-gym, Apache-2.0)."""
    configs: dict[str, dict[str, object]] = json.loads(files("ponder.tasks").joinpath("gym_hard.json").read_text())
    return configs


class UndrawableItem(DataError):
    """An index at which the dataset itself breaks (basic_arithmetic divides by zero about once in a thousand items)."""


def question_hash(question: str) -> str:
    """Sixteen hex digits that name a question, whatever its white space."""
    return sha256(" ".join(question.split()).encode()).hexdigest()[:16]


class GymTask:
    """One reasoning-gym dataset under one config, or under several of rising difficulty.

    config: the dataset's own config keys; the rest has the dataset's defaults.
    harder: further configs, easy to hard, which `sample` picks from by `level`; without them every level is the one
        config.
    Raises InvalidRequest on an unknown dataset or config key, or a config that the dataset refuses.
    """

    def __init__(
        self,
        dataset: str,
        config: Mapping[str, object] | None = None,
        *,
        harder: Sequence[Mapping[str, object]] = (),
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        _known(dataset, gym_library().DATASETS, "reasoning-gym has no dataset")
        self.dataset = dataset
        self.configs = [dict(each) for each in (config or {}, *harder)]
        self.timeout = timeout
        for each in self.configs:
            for key in each:
                _known(key, gym_fields(dataset), f"reasoning-gym's {dataset!r} has no config key")
            gym_dataset(dataset, each, 0)

    @property
    def name(self) -> str:
        """As `registry.load_task` reads it: the dataset and, unless it is the default, its (first) config."""
        config = self.configs[0]
        if not config:
            return f"gym:{self.dataset}"
        hard = config == _hard_configs().get(self.dataset)
        return f"gym:{self.dataset}{'@hard' if hard else json.dumps(config, default=str)}"

    def problem(self, index: int, rung: int = 0) -> Problem:
        """Item `index` (≥ 0) of config number `rung`. The same call gives the same problem on every machine.

        Raises UndrawableItem where the dataset breaks at this index.
        """
        if index < 0:
            raise InvalidRequest(f"{self.name}: a problem's index must be at least 0 (got {index})")
        call = {"name": self.dataset, "config": self.configs[rung], "index": index}
        if self.dataset in DRAWN_APART:
            drawn = run_isolated("ponder.tasks.gym:draw_entry_apart", call, timeout=60, warm=_warm(call), share="draw")
            if drawn.outcome is not CallOutcome.DONE:
                raise UndrawableItem(f"{self.name}: item {index} cannot be drawn: {drawn.why}")
            entry = drawn.value
        else:
            try:
                entry = draw_entry(call)
            except DRAWING_FAILS as error:
                raise UndrawableItem(f"{self.name}: item {index} cannot be drawn: {error!r}") from error
        answer = entry["answer"] if isinstance(entry["answer"], str) else ""
        return Problem(task=self.name, question=entry["question"], answer=answer, metadata={**call, "entry": entry})

    def sample(self, rng: Random, level: float) -> Problem:
        """A training problem. `level` in [0, 1] picks among the configs; an undrawable item is passed over."""
        if not 0 <= level <= 1:
            raise InvalidRequest(f"{self.name}: level must be from 0 to 1 (got {level})")
        rung = min(int(level * len(self.configs)), len(self.configs) - 1)
        return self.first_drawable((rng.randrange(TRAIN_LIMIT) for _ in range(100)), rung)

    def first_drawable(self, indices: Iterable[int], rung: int = 0) -> Problem:
        """The problem at the first of `indices` that the dataset does not break at."""
        for index in indices:
            with suppress(UndrawableItem):
                return self.problem(index, rung)
        raise UndrawableItem(
            f"{self.name}: no item can be drawn with the config {self.configs[rung]}: change the config"
        )

    def entry(self, problem: Problem) -> dict[str, Any]:
        """The dataset's own entry of a problem: question, answer and metadata, in reasoning-gym's types."""
        packed: Any = problem.metadata["entry"]
        return {**packed, "metadata": unpack_json(packed["metadata"])}

    def grade(self, problem: Problem, answer: str) -> Grade:
        """The score that the dataset gives, but for what `gym_guards` names. A scorer that hangs is a TIMEOUT, one that
        breaks at the right answer too FAILED."""
        return as_grade(self.submit(problem, answer).result())

    async def grade_async(self, problem: Problem, answer: str) -> Grade:
        """`grade`, awaited."""
        return as_grade(await asyncio.wrap_future(self.submit(problem, answer)))

    def submit(self, problem: Problem, answer: str) -> Future[CallResult]:
        """Start a grading; many may run at once."""
        call = dict(problem.metadata)
        return submit_isolated(
            "ponder.tasks.gym:score_entry",
            {**call, "answer": answer.strip()},
            timeout=self.timeout,
            warm=_warm(call),
            share=None if runs_answers(self.dataset) else "score",
        )

    def same(self, a: str, b: str) -> bool:
        """The same text but for white space, or the same number."""
        return same_value(a, b)


@cache
def runs_answers(dataset: str) -> bool:
    """Whether the dataset's scorer, or a function of reasoning-gym that it reaches, evaluates text as code.

    Such a grading gets a separate child process.
    """
    kind = gym_library().DATASETS[dataset][0]
    waiting: list[Any] = [kind.score_answer]
    met: set[Any] = set()
    while waiting:
        function = waiting.pop()
        if function in met or not function.__module__.startswith("reasoning_gym"):
            continue
        met.add(function)
        for name in _names(function.__code__):
            if name in RUNS_CODE:
                return True
            for home in (kind, sys.modules[function.__module__], sys.modules["reasoning_gym.utils"]):
                found = getattr(home, name, None)
                if isinstance(found, FunctionType):
                    waiting.append(found)
    return dataset == "composite"


def _names(code: CodeType) -> set[str]:
    """All names that a piece of code mentions, the functions inside it included."""
    inner = (each for each in code.co_consts if isinstance(each, CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _warm(call: Mapping[str, Any]) -> tuple[str, object]:
    return "ponder.tasks.gym:keep_dataset", {"name": call["name"], "config": call["config"]}


def _known(name: str, names: Mapping[str, object], complaint: str) -> None:
    if name in names:
        return
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(map(repr, close))}?" if close else f"there are: {', '.join(sorted(names))}"
    raise InvalidRequest(f"{complaint} {name!r}: {hint}")


# The library: all of this runs in children, and all but `draw_entry_apart` and `score_entry` also here ----------------


def gym_library() -> Any:
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
            return gym_library().create_dataset(name, **settings, seed=seed, size=size)
    except (AssertionError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidRequest(
            f"reasoning-gym's {name!r} refuses the config {config}: {error or type(error).__name__}"
        ) from error


def keep_dataset(payload: dict[str, Any]) -> None:
    """Build (and keep) the dataset of `{"name", "config"}`."""
    gym_dataset(payload["name"], payload["config"], 0)


def gym_dataset(name: str, config: dict[str, Any], index: int) -> tuple[Any, int]:
    """The dataset that holds item `index`, and where in it. Item i is drawn from Random(i)."""
    text = json.dumps(config, sort_keys=True)
    if name in EAGER:
        return _built(name, text, index - index % BLOCK, BLOCK), index % BLOCK
    return _built(name, text, 0, SIZE), index


def gym_fields(name: str) -> dict[str, Any]:
    """The config keys of a dataset and their defaults."""
    _, config = gym_library().DATASETS[name]
    return {
        each.name: None if each.default is dataclasses.MISSING else each.default
        for each in dataclasses.fields(config)
        if each.name not in ("seed", "size")
    }


def draw_entry(payload: dict[str, Any]) -> dict[str, Any]:
    """Item `index` of `{"name", "config", "index"}`, packed."""
    with localcontext(DefaultContext):  # one dataset sets the precision as it draws, others compute with what they find
        data, place = gym_dataset(payload["name"], payload["config"], payload["index"])
        entry = data[place]
    return {"question": entry["question"], "answer": entry["answer"], "metadata": pack_json(entry["metadata"])}


def draw_entry_apart(payload: dict[str, Any]) -> dict[str, Any]:
    """`draw_entry` from a global generator in a state that the index alone decides. For children only."""
    random.seed(payload["index"])
    return draw_entry(payload)


def score_entry(payload: dict[str, Any]) -> dict[str, object]:
    """The score of `answer` for the entry that was drawn: the dataset's own, but for what `gym_guards` names.

    A scorer that breaks at an answer, and not at the right one, says that the answer has not the form asked for.
    """
    data, _ = gym_dataset(payload["name"], payload["config"], payload["index"])
    entry = {**payload["entry"], "metadata": unpack_json(payload["entry"]["metadata"])}
    try:
        with localcontext(DefaultContext):
            score = float(data.score_answer(payload["answer"], entry))
    except SCORING_FAILS as error:
        data.score_answer(entry["answer"], entry)
        return {"score": 0.0, "status": GradeStatus.UNPARSEABLE, "why": f"the scorer raised {error!r}"[:500]}
    score, why = guarded_score(payload["name"], entry, payload["answer"], score)
    return {"score": score, "why": why}
