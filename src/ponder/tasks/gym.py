"""reasoning-gym's datasets as Tasks, by name and config, graded by their own `score_answer` in a child process.

Item i of a dataset is drawn from Random(i) (dataset seed 0), so an index names a problem for ever: training draws
indices below TRAIN_LIMIT, evaluation stays at or above it.
"""

from __future__ import annotations

import asyncio
import difflib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import cache
from hashlib import sha256
from importlib.resources import files
from random import Random
from types import CodeType, FunctionType
from typing import Any

from ponder.tasks import gym_child, isolate
from ponder.tasks.graders import same_value
from ponder.tasks.protocol import Grade, Problem
from ponder.types import DataError, InvalidRequest

TRAIN_LIMIT = 5_000_000
RUNS_CODE = frozenset({"eval", "exec", "compile", "parse_expr", "sympify", "parse_latex", "simplify"})


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

    config: the dataset's own config keys; the rest has the dataset's defaults. harder: further configs, easy to hard,
    which `sample` picks from by `level`; without them every level is the one config.
    Raises InvalidRequest on an unknown dataset or config key, or a config that the dataset refuses.
    """

    def __init__(
        self,
        dataset: str,
        config: Mapping[str, object] | None = None,
        *,
        harder: Sequence[Mapping[str, object]] = (),
        timeout: float = isolate.TIMEOUT_SECONDS,
    ) -> None:
        _known(dataset, gym_child.library().DATASETS, "reasoning-gym has no dataset")
        self.dataset = dataset
        self.configs = [dict(each) for each in (config or {}, *harder)]
        self.timeout = timeout
        for each in self.configs:
            for key in each:
                _known(key, gym_child.fields(dataset), f"reasoning-gym's {dataset!r} has no config key")
            gym_child.build(dataset, each, 0)

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
            raise InvalidRequest(f"{self.name}: a problem's index is at least 0, not {index}")
        call = {"name": self.dataset, "config": self.configs[rung], "index": index}
        if self.dataset in gym_child.DRAWN_APART:
            drawn = isolate.run_isolated(
                "ponder.tasks.gym_child:draw_apart", call, timeout=60, warm=_warm(call), share="draw"
            )
            if drawn.outcome is not isolate.Outcome.DONE:
                raise UndrawableItem(f"{self.name}: item {index} cannot be drawn: {drawn.why}")
            entry = drawn.value
        else:
            try:
                entry = gym_child.draw(call)
            except DRAWING_FAILS as error:
                raise UndrawableItem(f"{self.name}: item {index} cannot be drawn: {error!r}") from error
        answer = entry["answer"] if isinstance(entry["answer"], str) else ""
        return Problem(task=self.name, question=entry["question"], answer=answer, metadata={**call, "entry": entry})

    def sample(self, rng: Random, level: float) -> Problem:
        """A training problem. `level` in [0, 1] picks among the configs; an undrawable item is passed over."""
        if not 0 <= level <= 1:
            raise InvalidRequest(f"{self.name}: a level lies in [0, 1], not {level}")
        rung = min(int(level * len(self.configs)), len(self.configs) - 1)
        return self.first_drawable((rng.randrange(TRAIN_LIMIT) for _ in range(100)), rung)

    def first_drawable(self, indices: Iterable[int], rung: int = 0) -> Problem:
        """The problem at the first of `indices` that the dataset does not break at."""
        for index in indices:
            with suppress(UndrawableItem):
                return self.problem(index, rung)
        raise UndrawableItem(f"{self.name}: item after item cannot be drawn under the config {self.configs[rung]}")

    def entry(self, problem: Problem) -> dict[str, Any]:
        """The dataset's own entry behind a problem: question, answer and metadata, in reasoning-gym's types."""
        packed: Any = problem.metadata["entry"]
        return {**packed, "metadata": gym_child.unpack_json(packed["metadata"])}

    def grade(self, problem: Problem, answer: str) -> Grade:
        """The score that the dataset gives. A scorer that hangs is a TIMEOUT, one that breaks FAILED."""
        return isolate.as_grade(self.submit(problem, answer).result())

    async def grade_async(self, problem: Problem, answer: str) -> Grade:
        """`grade`, awaited."""
        return isolate.as_grade(await asyncio.wrap_future(self.submit(problem, answer)))

    def submit(self, problem: Problem, answer: str) -> Future[isolate.Isolated]:
        """Start a grading; many may run at once."""
        call = dict(problem.metadata)
        return isolate.submit_isolated(
            "ponder.tasks.gym_child:score",
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

    Such a grading gets a child of its own.
    """
    kind = gym_child.library().DATASETS[dataset][0]
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
    return "ponder.tasks.gym_child:dataset", {"name": call["name"], "config": call["config"]}


def _known(name: str, names: Mapping[str, object], complaint: str) -> None:
    if name in names:
        return
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(map(repr, close))}?" if close else f"there are: {', '.join(sorted(names))}"
    raise InvalidRequest(f"{complaint} {name!r}: {hint}")
