"""Tasks by name: one of Ponder's families, a reasoning-gym dataset, or a class in a user's file."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Sequence
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING

from ponder.sandbox.objects import files_of_object, load_object
from ponder.tasks.code import CodeFile, CodeTask
from ponder.tasks.gym import GymTask, hard_config
from ponder.tasks.isolated import IsolatedTask, build_task
from ponder.tasks.protocol import DemonstratedTask, Task
from ponder.types import InvalidRequest

if TYPE_CHECKING:
    from ponder.tasks.families.working.family import ProblemFamily


def load_task(spec: str) -> Task:
    """The task that `spec` names.

    "products": a family of `ponder.tasks.families`, or of its `further` or `logic`. "plain:products": in plain words;
    "scope", "scope:near", "scope:within", "chat": see `families.plain.scope`. "gym:NAME", "gym:NAME@hard" or
    'gym:NAME{"max_digits": 3}': a reasoning-gym dataset under its default config, the one its authors published as
    hard, or a config as JSON.
    "code:FILE.jsonl": programming problems with tests, see `ponder.tasks.code.CodeFile`.
    "module:Class" or "path/to/file.py:Class": your own, built without arguments, which grades in a child process.
    "reward:FOLDER:PROMPTS": prompts of a file or of another task, graded by a reward model; "reward:FOLDER@1:PROMPTS"
    counts rewards from 1 on as solved and all others as failed.
    "verdict:TASK": whether answers to another task's problems are right, by yes or no.
    Raises InvalidRequest, with a suggestion, when there is none of that name.
    """
    families = every_family()
    if spec in families:
        return families[spec]
    if spec.startswith("gym:"):
        return _gym_task(spec)
    if spec.startswith("reward:"):
        return _reward_task(spec)
    if spec.startswith("verdict:"):
        return _verdicts(spec)
    if spec.startswith("code:"):
        return CodeFile(Path(spec.removeprefix("code:")))
    if spec == "chat" or spec.startswith(("plain:", "scope")):
        return _plain_task(spec)
    if ":" not in spec:
        close = difflib.get_close_matches(spec, families, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(map(repr, close))}?" if close else f"there are: {', '.join(sorted(families))}"
        raise InvalidRequest(f"there is no task {spec!r}: {hint} (others: 'gym:NAME', 'file.py:Class')")
    task = build_task(spec)
    ours = isinstance(task, CodeTask) or type(task).__module__.split(".")[0] == "ponder"
    return task if ours else IsolatedTask(spec, task)  # a CodeTask's grade runs answers in a sealed child already


def every_family() -> dict[str, ProblemFamily]:
    """Those that mini learned, further ones, and those of logic."""
    from ponder.tasks.families import FAMILIES
    from ponder.tasks.families.further import FURTHER_FAMILIES
    from ponder.tasks.families.logic import LOGIC_FAMILIES

    return FAMILIES | FURTHER_FAMILIES | LOGIC_FAMILIES


def task_files(spec: str) -> dict[str, list[Path]]:
    """The files of a task of the user's own: its module, and what that imports from beside it. Others have none."""
    if spec.startswith("verdict:"):
        return task_files(spec.removeprefix("verdict:"))
    if spec.startswith("reward:"):
        folder, _, source = _reward_parts(spec)
        files = {str(file): [file] for file in sorted(folder.glob("*")) if file.is_file()}
        return files | ({source: [Path(source)]} if Path(source).is_file() else task_files(source))
    if spec.startswith("code:"):
        file = Path(spec.removeprefix("code:"))
        return {str(file): [file]}
    if ":" not in spec or spec.startswith("gym:"):
        return {}
    load_object(spec)
    return {str(file): [file] for file in files_of_object(spec)}


def distinct_names(tasks: Sequence[Task]) -> list[str]:
    """Each task's name, with a number after it from the second task of one name on: "products", "products.2"."""
    names: list[str] = []
    for task in tasks:
        candidates = chain([task.name], (f"{task.name}.{number}" for number in count(2)))
        names.append(next(name for name in candidates if name not in names))
    return names


def _plain_task(spec: str) -> Task:
    from ponder.tasks.families.plain.scope import ChatTask, Near, Scope, Within
    from ponder.tasks.families.plain.task import Plain
    from ponder.tasks.families.plain.wording import Half

    name, _, variant = spec.partition("@")
    half = Half.TRAIN if variant == "train" else Half.HELD_OUT
    kinds: dict[str, Callable[[], Task]] = {
        "chat": ChatTask,
        "scope": lambda: Scope(half),
        "scope:near": lambda: Near(half),
        "scope:within": Within,
    }
    if variant not in ("", "train", "gym") or (variant and name == "scope:within"):
        raise InvalidRequest(f"{spec!r}: there is no variant {variant!r}: leave it out, or say 'train' (or 'gym')")
    if name in kinds:
        return kinds[name]()
    return Plain(name.removeprefix("plain:"), half, gym=variant == "gym")


def _verdicts(spec: str) -> Task:
    from ponder.tasks.verifiers.verdict import Verdicts

    task = load_task(spec.removeprefix("verdict:"))
    if not isinstance(task, DemonstratedTask):
        raise InvalidRequest(f"{spec!r}: {task.name} shows no working, which the verdicts are taught by: name another")
    return Verdicts(task)


def _reward_parts(spec: str) -> tuple[Path, float | None, str]:
    """(folder of the model, the reward that is enough, prompts)."""
    where, _, source = spec.removeprefix("reward:").partition(":")
    folder, mark, enough = where.partition("@")
    try:
        accept = float(enough) if mark else None
    except ValueError:
        raise InvalidRequest(f"{spec!r}: the reward that counts as solved must be a number (got {enough!r})") from None
    if not folder or not source:
        raise InvalidRequest(f"{spec!r}: write reward:FOLDER:PROMPTS, where PROMPTS is a file of prompts or a task")
    return Path(folder), accept, source


def _reward_task(spec: str) -> Task:
    from ponder.tasks.prompts import prompts_of_file
    from ponder.tasks.verifiers import load_verifier
    from ponder.tasks.verifiers.reward import RewardTask

    folder, accept, source = _reward_parts(spec)
    if not Path(source).is_file():
        task = load_task(source)
        return RewardTask(load_verifier(folder), task, name=f"reward:{task.name}", accept=accept)
    texts = []
    for where, prompt in prompts_of_file(Path(source)):
        if len(prompt) > 1:
            raise InvalidRequest(f"{where}: the prompts of a task must be one message of the user: shorten it")
        texts.append(prompt[0].text)
    return RewardTask(load_verifier(folder), texts, name=f"reward:{Path(source).stem}", accept=accept)


def _gym_task(spec: str) -> GymTask:
    name, brace, rest = spec.removeprefix("gym:").partition("{")
    if not brace:
        dataset, _, level = name.partition("@")
        if level not in ("", "hard"):
            raise InvalidRequest(f"{spec!r}: unknown config {level!r}: leave it out, say 'hard', or give JSON")
        return GymTask(dataset, hard_config(dataset) if level else None)
    try:
        config = json.loads(brace + rest)
    except ValueError as error:
        raise InvalidRequest(f"{spec!r}: the config is not JSON: {error}") from error
    return GymTask(name, config)
