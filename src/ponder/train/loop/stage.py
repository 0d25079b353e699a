"""What the training stages share: the layout of a run folder, where a stage starts from, and how it leaves a model."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ponder.dialogue import control
from ponder.model.checkpoint import atomic_folder, load_model, write_model
from ponder.model.config import ModelConfig
from ponder.model.lora import add_lora, has_lora, merge_lora, save_lora
from ponder.model.transformer import Linear, Transformer
from ponder.tokenizer import Tokenizer
from ponder.tokenizer.files import TOKENIZER_FILE
from ponder.train.loop.display import plot_metrics
from ponder.train.loop.fit import Outcome, Result, pick_device
from ponder.train.loop.state import write_atomically
from ponder.train.recipe.sections import ModelRecipe, Precision, Recipe, Stage, StageRecipe
from ponder.types import MissingExtra, RecipeError

RANDOM = "random"
DONE = "done.json"
QUESTIONS = "questions.bin"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where things are in a run.

    recipe.toml     resolved                       tokenizer/      what the tokenizer stage left
    STAGE/          checkpoints/ metrics.jsonl loss.png done.json, and the stage's own notes
    STAGE/model/    float32, from which a later stage starts; adapters are merged
    STAGE/adapter/  what LoRA learned, alone, as PEFT lays it out
    model/          bfloat16 with its tokenizer: the result, for `ponder ask --model`
    """

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.toml"

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer"

    @property
    def model(self) -> Path:
        return self.path / "model"

    def stage(self, stage: Stage) -> Path:
        return self.path / stage.value

    def begun(self, stage: Stage) -> bool:
        return self.stage(stage).is_dir()

    def done(self, stage: Stage) -> bool:
        marker = TOKENIZER_FILE if stage is Stage.TOKENIZER else DONE
        return (self.stage(stage) / marker).is_file()


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
        eos_token_ids=(end, separator),
        pad_token_id=separator,
    )


def begin(recipe: Recipe, stage: StageRecipe, folder: RunFolder) -> tuple[Transformer, Tokenizer, Path]:
    """(model on its device, tokenizer, the tokenizer's folder) as `stage.start` says: float32, with adapters where
    `stage.lora` asks for them."""
    earlier = [Stage.PRETRAIN.value, Stage.SFT.value, Stage.GRPO.value]
    start = folder.path / stage.start / "model" if stage.start in earlier else Path(stage.start)
    if stage.start != RANDOM and not start.is_dir():
        raise RecipeError(
            f"start is {stage.start!r}, but there is no model in {start}: run that stage first, or set start to "
            f'"{RANDOM}" or to a model folder'
        )
    own = stage.start != RANDOM and (start / TOKENIZER_FILE).is_file()
    tokenizer_folder = start if own else folder.tokenizer
    tokenizer = Tokenizer.load(tokenizer_folder)
    device = pick_device(recipe.run.device)
    if stage.start == RANDOM:
        model = Transformer(model_config(recipe.model, tokenizer), seed=recipe.run.seed)
    else:
        model = load_model(start, dtype=torch.float32)
    if model.config.vocab_size < tokenizer.vocab_size:
        raise RecipeError(
            f"{tokenizer_folder} has {tokenizer.vocab_size} tokens, the model in {start} only {model.config.vocab_size}"
        )
    if stage.sequence > model.config.max_positions:
        raise RecipeError(f"sequence is {stage.sequence}, the model in {start} bears {model.config.max_positions}")
    model = model.to(device)
    if stage.lora.rank:
        add_lora(model, stage.lora.rank, stage.lora.alpha, stage.lora.targets, seed=recipe.run.seed)
        if recipe.run.precision is Precision.BF16:
            round_frozen(model, torch.bfloat16)
    return model, tokenizer, tokenizer_folder


def round_frozen(model: Transformer, dtype: torch.dtype) -> None:
    """Hold the frozen projections in what they compute in: nothing is computed otherwise for it, in half the memory.
    Embeddings and norms stay: the stream between the blocks is in their dtype."""
    for module in model.model.modules():
        if isinstance(module, Linear) and not module.weight.requires_grad:
            module.weight.data = module.weight.data.to(dtype)


def padding(model: Transformer) -> int:
    """An id for places of a row that hold nothing and teach nothing."""
    config = model.config
    return config.pad_token_id if config.pad_token_id is not None else next(iter(config.eos_token_ids), 0)


def export(model: Transformer, tokenizer: Tokenizer, folder: Path, dtype: torch.dtype) -> None:
    """A folder that `load_sampler` and transformers load."""
    with atomic_folder(folder, replace=True) as temporary:
        write_model(model, temporary, dtype=dtype)
        tokenizer.save(temporary)


def finish(result: Result, model: Transformer, tokenizer: Tokenizer, folder: RunFolder, stage: Stage) -> None:
    """Leave the stage's model (if it is complete) and its plot (if matplotlib is there)."""
    if result.outcome is not Outcome.COMPLETE:
        return
    own = folder.stage(stage)
    if has_lora(model):
        save_lora(model, own / "adapter", replace=True)
        round_frozen(model, torch.float32)
        merge_lora(model)
    export(model, tokenizer, own / "model", torch.float32)
    export(model, tokenizer, folder.model, torch.bfloat16)
    with suppress(MissingExtra):  # the plot is a convenience; its data is in metrics.jsonl
        plot_metrics(own / "metrics.jsonl", own / "loss.png")
    progress = result.progress
    done = {"step": progress.step, "tokens": progress.tokens, "seconds": progress.seconds, "loss": result.loss}
    write_atomically(own / DONE, json.dumps(done, indent=2).encode())


def add_questions(path: Path, hashes: NDArray[np.uint64]) -> None:
    """Merge `hashes` into the sorted file of 64-bit little-endian hashes at `path`."""
    write_atomically(path, np.union1d(read_questions(path), hashes).astype("<u8").tobytes())


def read_questions(path: Path) -> NDArray[np.uint64]:
    """The sorted hashes (`examples.question_number`) of all questions trained on; empty without a file."""
    return np.fromfile(path, "<u8") if path.is_file() else np.empty(0, np.uint64)
