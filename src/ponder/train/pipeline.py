"""A whole run: its stages one after the other into one folder, each resumable, complete ones skipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from ponder.dialogue.load import train_tokenizer
from ponder.model.checkpoint import atomic_folder
from ponder.train.algorithms.grpo import grpo
from ponder.train.algorithms.pretrain import pretrain
from ponder.train.algorithms.sft import sft
from ponder.train.data.examples import check_mix
from ponder.train.data.sources import documents
from ponder.train.loop.fit import Outcome, Result, Watch
from ponder.train.loop.stage import RunFolder
from ponder.train.loop.state import sweep, write_atomically
from ponder.train.recipe.sections import Recipe, Stage
from ponder.train.recipe.toml import dump_recipe, load_recipe
from ponder.types import RecipeError

# What may change between a run and its resumption: none of it bears on the weights that come out, apart from the
# last bits (the loop says so when it resumes).
_FREE = {
    "run": {"folder", "stages", "device", "threads", "compile", "checkpoint_minutes", "keep"},
    "pretrain": {"eval_every", "neighbours", "minutes"},
    "sft": {"eval_every", "workers", "watch_problems", "minutes"},
    "grpo": {"eval_every", "watch_problems", "minutes", "patience"},
}
_SECTIONS = {
    Stage.TOKENIZER: ("run", "tokenizer"),
    Stage.PRETRAIN: ("run", "tokenizer", "model", "pretrain"),
    Stage.SFT: ("run", "tokenizer", "model", "sft"),
    Stage.GRPO: ("run", "tokenizer", "model", "grpo"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run ended. model: the exported folder, if a training stage is complete. stages: those run this time."""

    outcome: Outcome
    folder: Path
    model: Path | None
    stages: Mapping[Stage, Result] = field(default_factory=dict)


def run(
    recipe_path: str | Path, overrides: Sequence[str] = (), resume: bool = False, *, watch: Watch | None = None
) -> RunResult:
    """Run the recipe at `recipe_path`. overrides: `section.key=value`. watch: called during SFT and GRPO (see
    `loop.Job`).

    resume: go on where the run folder stands; without it, a stage that has begun is an error. Raises RecipeError and
    DataError for what is wrong with recipe or data, CheckpointError for a damaged run folder.
    """
    recipe = load_recipe(recipe_path, overrides)
    folder = RunFolder(Path(recipe.run.folder))
    _check_folder(recipe, folder, resume=resume)
    if Stage.SFT in recipe.run.stages and not folder.done(Stage.SFT):
        check_mix(recipe.sft.mix)
    if recipe.run.threads:
        torch.set_num_threads(recipe.run.threads)
    folder.path.mkdir(parents=True, exist_ok=True)
    sweep(folder.path)
    write_atomically(folder.recipe, dump_recipe(recipe).encode())
    results: dict[Stage, Result] = {}
    outcome = Outcome.COMPLETE
    for stage in sorted(recipe.run.stages, key=list(Stage).index):
        if folder.done(stage):
            print(f"{stage}: complete already, in {folder.stage(stage)}")
        elif stage is Stage.TOKENIZER:
            learn_tokenizer(recipe, folder)
        else:
            results[stage] = _train(stage, recipe, folder, watch)
            outcome = results[stage].outcome
            if outcome is Outcome.INTERRUPTED:
                break
    model = folder.model if folder.model.is_dir() else None
    return RunResult(outcome=outcome, folder=folder.path, model=model, stages=results)


def _train(stage: Stage, recipe: Recipe, folder: RunFolder, watch: Watch | None) -> Result:
    if stage is Stage.PRETRAIN:
        return pretrain(recipe, folder)
    return (sft if stage is Stage.SFT else grpo)(recipe, folder, watch=watch)


def learn_tokenizer(recipe: Recipe, folder: RunFolder) -> None:
    """Learn the vocabulary from the recipe's texts, each source as often as it says, into the run folder."""
    texts = (
        text
        for source in recipe.tokenizer.text
        for text in documents(source, seed=recipe.run.seed)
        for _ in range(source.repeat)
    )
    tokenizer = train_tokenizer(texts, recipe.tokenizer.vocab_size)
    with atomic_folder(folder.tokenizer, replace=True) as temporary:
        tokenizer.save(temporary)
    print(f"tokenizer: {tokenizer.vocab_size:,} tokens, in {folder.tokenizer}")


def _check_folder(recipe: Recipe, folder: RunFolder, *, resume: bool) -> None:
    """Refuse to overwrite what was run, or to go on under another recipe."""
    begun = [stage for stage in Stage if folder.begun(stage)]
    again = [stage for stage in begun if stage in recipe.run.stages]
    if again and not resume:
        raise RecipeError(
            f"{folder.path} holds {', '.join(again)} already: go on with --resume, or choose another run.folder"
        )
    if not begun or not folder.recipe.is_file():
        return
    before, now = _flat(asdict(load_recipe(folder.recipe))), _flat(asdict(recipe))
    sections = {section for stage in begun for section in _SECTIONS[stage]}
    changed = [
        f"{key} was {before.get(key)!r}, is {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if _section(key) in sections and not _is_free(key) and before.get(key) != now.get(key)
    ]
    if changed:
        raise RecipeError(
            f"{folder.path} was run with another recipe: {'; '.join(changed[:5])}. Restore the recipe, choose another "
            "run.folder, or remove the stage's folder to run it again"
        )


def _section(key: str) -> str:
    return key.partition(".")[0]


def _is_free(key: str) -> bool:
    section, _, name = key.partition(".")
    return name in _FREE.get(section, ())


def _flat(value: object, prefix: str = "") -> dict[str, object]:
    """{"pretrain.optim.lr": …} of nested dictionaries."""
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, object] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{prefix}.{key}" if prefix else str(key))
    return flat
