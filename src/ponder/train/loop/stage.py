"""What an algorithm is: one stage of a run. What training stages start from, and what they leave."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from ponder.dialogue import control
from ponder.gguf.reading import is_gguf
from ponder.kernels.machine import product_dtype
from ponder.kernels.training import lay_together
from ponder.model.checkpoint import atomic_folder, load_model, write_model
from ponder.model.config import ModelConfig
from ponder.model.lora import add_lora, has_lora, merge_lora, reread_base, save_lora
from ponder.model.transformer import Transformer
from ponder.tokenizer import Tokenizer
from ponder.tokenizer.files import TOKENIZER_FILE
from ponder.train.loop.changes import refuse_changes
from ponder.train.loop.display import plot_metrics
from ponder.train.loop.fit import Job, Outcome, StageResult, Watch, divides, fit, pick_device
from ponder.train.loop.folder import DATA, DONE, RunFolder, write_atomically
from ponder.train.loop.learner import Learner
from ponder.train.loop.shard import whole_model
from ponder.train.loop.world import world
from ponder.train.recipe.sections import RANDOM, ModelRecipe, Precision, Recipe, Section, StageRecipe
from ponder.types import MissingExtra, RecipeError

_MODEL_SUFFIXES = {".safetensors", ".json", ".jinja"}

S = TypeVar("S", bound=Section)
T = TypeVar("T", bound=StageRecipe)


class Algorithm(ABC, Generic[S]):
    """One stage of a run. An instance has no state.

    section: its section of the recipe. The section's name is the stage's name.
    depends: the other tables of the recipe that the result depends on.
    done: the file in the stage's folder that marks it as complete.
    """

    section: type[S]
    depends: tuple[str, ...] = ("run", "tokenizer", "model")
    done: str = DONE

    @property
    def name(self) -> str:
        return self.section.name

    def complete(self, folder: RunFolder) -> bool:
        """Whether the stage is complete in this run."""
        return (folder.stage(self.name) / self.done).is_file()

    @abstractmethod
    def run(self, recipe: Recipe, folder: RunFolder) -> StageResult | None:
        """Run the stage, or resume it. None: it cannot be interrupted, and is complete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStart(Generic[T]):
    """What a training stage begins with.

    stage: its section of the recipe, resolved.
    folder: its own folder in the run.
    model: what trains, on its device.
    tokenizer_folder: where the tokenizer was loaded from.
    """

    recipe: Recipe
    stage: T
    folder: Path
    model: Transformer
    tokenizer: Tokenizer
    tokenizer_folder: Path

    @property
    def seed(self) -> int:
        return self.recipe.run.seed

    def job(
        self,
        batches: Callable[[int], Generator[Any, None, None]],
        learner: Learner,
        *,
        num_steps: int | None = None,
        watch: Watch | None = None,
        on_save: Callable[[], None] | None = None,
        on_complete: Callable[[Transformer], None] | None = None,
    ) -> Job:
        """What the loop needs for this stage (see `Job`)."""
        return Job(
            name=self.stage.name,
            folder=self.folder,
            run=self.recipe.run,
            stage=self.stage,
            batches=batches,
            learner=learner,
            num_steps=num_steps,
            watch=watch,
            on_save=on_save,
            on_complete=on_complete,
        )


class Training(Algorithm[T]):
    """A stage that trains the model. It leaves STAGE/model (float32) and model/ (see `final_dtype`), unless its `leave`
    says otherwise."""

    @abstractmethod
    def open(self, start: StageStart[T]) -> Job:
        """The source of lessons, the learner, and what else the loop needs."""

    def run(self, recipe: Recipe, folder: RunFolder) -> StageResult:
        stage = recipe.section(self.section)
        with world().together():
            if world().first:
                learned_from = {**stage.data_files(), **_start_files(recipe, stage, folder)}
                refuse_changes(folder.stage(self.name) / DATA, learned_from, self.name)
        with world().together():
            model, tokenizer, tokenizer_folder = begin(recipe, stage, folder)
            start = StageStart(
                recipe=recipe,
                stage=stage,
                folder=world().notes(folder.stage(self.name)),
                model=model,
                tokenizer=tokenizer,
                tokenizer_folder=tokenizer_folder,
            )
            job = self.open(start)
        result = fit(model, job)
        if divides(recipe.run) and result.outcome is Outcome.COMPLETE:
            model = whole_model(model)
            start = replace(start, model=model)
        with world().together():
            if result.outcome is Outcome.COMPLETE and world().first:
                leave = partial(self.leave, start, job, folder, final_dtype(recipe, stage, model))
                finish(result, model, start.folder, leave, job.on_complete)
        return result

    def leave(self, start: StageStart[T], job: Job, folder: RunFolder, dtype: torch.dtype) -> None:
        """Write the model of a complete stage.

        dtype: of the run's model/.
        """
        export(start.model, start.tokenizer, start.folder / "model", torch.float32)
        export(start.model, start.tokenizer, folder.model, dtype)


def model_config(recipe: ModelRecipe, tokenizer: Tokenizer) -> ModelConfig:
    """The configuration of a fresh model. The recipe is resolved."""
    layers, heads, kv_heads, head_dim, mlp = recipe.shape()
    end, separator = tokenizer.control_id(control.END), tokenizer.control_id(control.ENDOFTEXT)
    return ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=recipe.size,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=mlp,
        rope_theta=recipe.rope_theta,
        tie_embeddings=recipe.tie_embeddings,
        max_positions=recipe.max_positions,
        thinking_tokens=recipe.thinking,
        repeats=recipe.repeats,
        eos_token_ids=(end, separator),
        pad_token_id=separator,
    )


def _start_files(recipe: Recipe, stage: StageRecipe, folder: RunFolder) -> dict[str, list[Path]]:
    """The files of the model and the tokenizer that the stage starts from; those of the run by their place in it, so
    that it can be moved. Raises RecipeError where there is no model."""
    start, tokenizer = start_folders(recipe, stage, folder)
    places = [tokenizer] if stage.start == RANDOM else [start, tokenizer]
    files = [
        file
        for place in places
        for file in ([place] if place.is_file() else sorted(place.glob("*")))
        if place.is_file() or file.suffix in _MODEL_SUFFIXES
    ]
    inside = folder.path
    return {str(file.relative_to(inside) if file.is_relative_to(inside) else file): [file] for file in files}


def start_folders(recipe: Recipe, stage: StageRecipe, folder: RunFolder) -> tuple[Path, Path]:
    """(the folder of the model that `stage.start` names, of which there is none for "random"; the tokenizer's)."""
    earlier = stage.start in recipe.tables
    start = folder.stage(stage.start) / "model" if earlier else Path(stage.start)
    if stage.start != RANDOM and not start.is_dir() and not is_gguf(start):
        raise RecipeError(
            f"start is {stage.start!r}, but there is no model in {start}: run that stage first, or set start to "
            f'"{RANDOM}", to a model folder or to a GGUF file'
        )
    own = stage.start != RANDOM and (is_gguf(start) or (start / TOKENIZER_FILE).is_file())
    return start, start if own else folder.tokenizer


def begin(recipe: Recipe, stage: StageRecipe, folder: RunFolder) -> tuple[Transformer, Tokenizer, Path]:
    """(model on its device, tokenizer, the tokenizer's folder) as `stage.start` says: float32, with adapters where
    `stage.lora` asks for them."""
    start, tokenizer_folder = start_folders(recipe, stage, folder)
    tokenizer = Tokenizer.load(tokenizer_folder)
    device = world().device(pick_device(recipe.run.device))
    if stage.start == RANDOM:
        model = Transformer(model_config(recipe.model, tokenizer), seed=recipe.run.seed)
    else:
        model = load_model(start, dtype=torch.float32)
    if model.config.vocab_size < tokenizer.vocab_size:
        raise RecipeError(
            f"{tokenizer_folder} has {tokenizer.vocab_size} tokens, but the model in {start} only "
            f"{model.config.vocab_size}: use the tokenizer that belongs to the model"
        )
    if stage.sequence > model.config.max_positions:
        raise RecipeError(
            f"sequence is {stage.sequence}, but the model in {start} has {model.config.max_positions} "
            "positions: lower sequence"
        )
    model = model.to(device)
    if stage.lora.rank:
        add_lora(model, stage.lora.rank, stage.lora.alpha, stage.lora.targets, seed=recipe.run.seed)
        if recipe.run.precision is Precision.BF16:
            round_frozen(model, product_dtype(torch.bfloat16, device.type))
    return model, tokenizer, tokenizer_folder


def round_frozen(model: Transformer, dtype: torch.dtype) -> None:
    """Hold the frozen projections in what they are multiplied in: in 16 bits that is half the memory.

    Embeddings and norms stay: the stream between the blocks is in their dtype."""
    lay_together(dict(model.model.named_parameters()), dtype)


def padding(model: Transformer) -> int:
    """An id for places of a row that hold nothing and teach nothing."""
    config = model.config
    return config.pad_token_id if config.pad_token_id is not None else next(iter(config.eos_token_ids), 0)


def export(model: Transformer, tokenizer: Tokenizer, folder: Path, dtype: torch.dtype) -> None:
    """A folder that `load_sampler` and transformers load."""
    with atomic_folder(folder, replace=True) as temporary:
        write_model(model, temporary, dtype=dtype)
        tokenizer.save(temporary)


def final_dtype(recipe: Recipe, stage: StageRecipe, model: Transformer) -> torch.dtype:
    """What the run's model/ is stored in: bfloat16. Where an adapter is merged into a model from outside the run, it is
    what that model is stored in."""
    base = model.loaded_from if stage.start not in recipe.tables and has_lora(model) else None
    return base.dtype if base else torch.bfloat16


def finish(
    result: StageResult,
    model: Transformer,
    own: Path,
    leave: Callable[[], None],
    then: Callable[[Transformer], None] | None = None,
) -> None:
    """Merge adapters, call `leave`, plot (if matplotlib is there), call `then`, and mark the stage as complete.

    own: the stage's folder.
    """
    if has_lora(model):
        save_lora(model, own / "adapter", replace=True)
        reread_base(model)
        merge_lora(model)
    leave()
    with suppress(MissingExtra):  # the plot is a convenience; its data is in metrics.jsonl
        plot_metrics(own / "metrics.jsonl", own / "loss.png")
    if then:
        then(model)
    progress = result.progress
    done = {"step": progress.step, "tokens": progress.tokens, "seconds": progress.seconds, "loss": result.loss}
    write_atomically(own / DONE, json.dumps(done, indent=2).encode())
