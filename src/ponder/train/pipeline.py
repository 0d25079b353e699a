"""A whole run: its stages one after the other into one folder, each resumable, complete ones skipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from ponder.train.algorithms import ALGORITHMS
from ponder.train.algorithms.rejection import RejectionRecipe
from ponder.train.loop.fit import Outcome, StageResult, divides, pick_device
from ponder.train.loop.folder import RunFolder, sweep
from ponder.train.loop.world import joined_world, world
from ponder.train.recipe.sections import Recipe, StageRecipe, resolve
from ponder.train.recipe.toml import dump_recipe, read_recipe
from ponder.types import RecipeError

_SECTIONS = [algorithm.section for algorithm in ALGORITHMS.values()]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run ended.

    model: the exported folder, if a training stage is complete.
    stages: the training stages that ran this time.
    """

    outcome: Outcome
    folder: Path
    model: Path | None
    stages: Mapping[str, StageResult] = field(default_factory=dict)


def run(recipe_path: str | Path, overrides: Sequence[str] = (), resume: bool = False) -> RunResult:
    """Run the recipe at `recipe_path`.

    overrides: `section.key=value`.
    resume: continue from what the run folder holds; without it, a stage that has begun is an error.
    Under `torchrun` every worker calls it: see `loop.world`.
    Raises RecipeError and DataError for what is wrong with recipe or data, CheckpointError for a damaged run folder,
    RunInUse where another process trains in it.
    """
    recipe = load_recipe(recipe_path, overrides)
    pick_device(recipe.run.device)
    folder = RunFolder(Path(recipe.run.folder))
    with joined_world(), ExitStack() as held:
        with world().together():
            if world().first:
                held.enter_context(folder.locked())
                _check_folder(recipe, folder, resume=resume)
        return _run_stages(recipe, folder)


def _run_stages(recipe: Recipe, folder: RunFolder) -> RunResult:
    chosen = [algorithm for name, algorithm in ALGORITHMS.items() if name in recipe.run.stages]
    with world().together():
        for algorithm in chosen:
            if not algorithm.complete(folder):
                section = recipe.section(algorithm.section)
                if divides(recipe.run) and isinstance(section, StageRecipe) and section.needs_whole:
                    raise RecipeError(
                        f'run.parallel is "shard", which divides the weights, but {section.needs_whole}: set it to '
                        '"replicate"'
                    )
                section.check_data()
        if world().first:
            sweep(folder.path)
    if recipe.run.threads:
        torch.set_num_threads(recipe.run.threads)
    results: dict[str, StageResult] = {}
    outcome = Outcome.COMPLETE
    for algorithm in chosen:
        if world().agree(algorithm.complete(folder)):
            print(f"{algorithm.name}: complete already, in {folder.stage(algorithm.name)}")
            continue
        with ExitStack() as held:
            with world().together():
                if world().first:
                    held.enter_context(folder.starting(algorithm.name, dump_recipe(recipe)))
            result = algorithm.run(recipe, folder)
        if result is None:
            continue
        results[algorithm.name], outcome = result, result.outcome
        if outcome is Outcome.INTERRUPTED:
            break
    model = folder.model if folder.model.is_dir() else None
    return RunResult(outcome=outcome, folder=folder.path, model=model, stages=results)


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The resolved recipe at `path`.

    overrides: see `read_recipe`, which also says what is raised.
    """
    return resolve(read_recipe(path, _SECTIONS, overrides))


def _stored_recipe(folder: RunFolder) -> Recipe | None:
    """The recipe that the folder was run with, if it holds one. A folder of an older version is upgraded."""

    def upgrade(version: int, tables: dict[str, Any]) -> None:
        if version < 1 and _rejection_apart(tables) and folder.begun("grpo"):
            folder.stage("grpo").rename(folder.stage("rejection"))

    return resolve(read_recipe(folder.recipe, _SECTIONS, upgrade=upgrade)) if folder.recipe.is_file() else None


def _rejection_apart(tables: dict[str, Any]) -> bool:
    """From version 0, where rejection sampling was an objective of the stage `grpo`. Gives whether it was that."""
    grpo = tables.get("grpo", {})
    per_prompt = grpo.pop("per_prompt", RejectionRecipe.per_prompt)
    if grpo.pop("objective", "policy") != "rejection":
        return False
    known = {field.name for field in fields(RejectionRecipe)}
    shared = {key: value for key, value in tables.pop("grpo").items() if key in known}
    tables["rejection"] = {**shared, "per_prompt": per_prompt}
    tables["run"]["stages"] = ["rejection" if name == "grpo" else name for name in tables["run"]["stages"]]
    return True


def _check_folder(recipe: Recipe, folder: RunFolder, *, resume: bool) -> None:
    """Refuse to overwrite what was run, or to continue under another recipe."""
    before = _stored_recipe(folder)
    begun = [name for name in ALGORITHMS if folder.begun(name)]
    again = [name for name in begun if name in recipe.run.stages]
    if again and not resume:
        raise RecipeError(
            f"{folder.path} holds {', '.join(again)} already: continue with --resume, or choose another run.folder"
        )
    if before is None:
        return
    tables = recipe.tables
    concerned = {table for name in begun for table in (name, *ALGORITHMS[name].depends)}
    was, now = _settings(before, concerned), _settings(recipe, concerned)
    changed = [
        f"{table}.{key} was {was.get((table, key))!r}, is {now.get((table, key))!r}"
        for table, key in sorted(was.keys() | now.keys())
        if key not in tables[table].free and was.get((table, key)) != now.get((table, key))
    ]
    if changed:
        raise RecipeError(
            f"{folder.path} was run with another recipe: {'; '.join(changed[:5])}. Restore the recipe, choose another "
            "run.folder, or remove the stage's folder to run it again"
        )


def _settings(recipe: Recipe, tables: set[str]) -> dict[tuple[str, str], object]:
    """{("pretrain", "optim.lr"): …} of the tables named."""
    return {(name, key): value for name in tables for key, value in _flat(asdict(recipe.tables[name])).items()}


def _flat(value: object, prefix: str = "") -> dict[str, object]:
    """{"optim.lr": …} of nested dictionaries."""
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, object] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{prefix}.{key}" if prefix else str(key))
    return flat
