"""Recipes: TOML into frozen dataclasses. An unknown key, a wrong type or an impossible value is a `RecipeError`.

A recipe may `include = "other.toml"` and says only what differs; `--set section.key=value` comes on top. What is
left at None is derived (from `model.size`, for the most part) by `resolve`: a resolved recipe leaves nothing to chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from ponder.model.config import PROJECTIONS
from ponder.types import RecipeError


class Stage(StrEnum):
    """The stages of a run, in their order."""

    TOKENIZER = "tokenizer"
    PRETRAIN = "pretrain"
    SFT = "sft"


class Schedule(StrEnum):
    """How the learning rate comes down after the warm-up.

    COSINE: half a cosine. LINEAR: a straight line. WSD: constant, then a straight line over the last `decay` of it.
    """

    COSINE = "cosine"
    LINEAR = "linear"
    WSD = "wsd"


class Optimizer(StrEnum):
    """ADAMW: for everything. MUON: for the matrices inside the blocks, AdamW for embeddings, norms and biases."""

    ADAMW = "adamw"
    MUON = "muon"


class Precision(StrEnum):
    """What the matrix products run in. Master weights and optimizer state are float32 either way."""

    BF16 = "bf16"
    FP32 = "fp32"


@dataclass(frozen=True, kw_only=True)
class RunRecipe:
    """Where a run lives and how it is kept.

    folder: the run folder, relative to the working directory. threads: 0 leaves torch's choice.
    checkpoint_minutes: a checkpoint at least this often (and at the end, and on Ctrl-C). keep: how many stay.
    device: "auto" is CUDA where there is one, else the CPU. compile: None: what is fastest here, the compiled kernels,
    torch.compile where a stage is long enough to pay, or plain torch; true: torch.compile; false: plain torch.
    """

    folder: str
    stages: tuple[Stage, ...] = (Stage.TOKENIZER, Stage.PRETRAIN, Stage.SFT)
    seed: int = 0
    device: str = "auto"
    threads: int = 0
    precision: Precision = Precision.BF16
    compile: bool | None = None
    checkpoint_minutes: float = 5.0
    keep: int = 2


@dataclass(frozen=True, kw_only=True)
class ModelRecipe:
    """The shape of the model (Qwen3 layout). `size`, the hidden size, is the dial: the rest follows unless said."""

    size: int = 256
    layers: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    mlp: int | None = None
    rope_theta: float = 10_000.0
    max_positions: int = 4096
    tie_embeddings: bool = True

    def shape(self) -> tuple[int, int, int, int, int]:
        """(layers, heads, kv_heads, head_dim, mlp): what is said, and derived from `size` what is not."""
        head_dim = self.head_dim or min(64, self.size)
        heads = self.heads or max(1, self.size // head_dim)
        kv_heads = self.kv_heads or max(1, heads // 2)
        layers = self.layers or self.size // 64 + 2
        return layers, heads, kv_heads, head_dim, self.mlp or -(-self.size * 11 // 4 // 32) * 32


@dataclass(frozen=True, kw_only=True)
class TextRecipe:
    """One source of raw text; `train.sources` lists the kinds.

    repeat: how often its documents come up in one pass over all sources. samples: how many problems a `task:` source
    draws. characters: take at most this many (0: all).
    """

    source: str
    repeat: int = 1
    samples: int = 1000
    characters: int = 0


@dataclass(frozen=True, kw_only=True)
class TokenizerRecipe:
    """Byte-level BPE trained on `text`. vocab_size counts the control tokens and is a multiple of 32."""

    vocab_size: int = 2048
    text: tuple[TextRecipe, ...] = ()


@dataclass(frozen=True, kw_only=True)
class OptimRecipe:
    """One optimizer and its schedule. warmup, decay: as shares of all steps. final: the last learning rate over `lr`.

    lr is AdamW's; muon_lr is Muon's for the matrices (its update has unit spectral norm scaled to AdamW's size).
    """

    name: Optimizer = Optimizer.ADAMW
    lr: float | None = None
    muon_lr: float | None = None
    schedule: Schedule = Schedule.WSD
    warmup: float = 0.02
    decay: float = 0.4
    final: float = 0.0
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    clip: float = 1.0


@dataclass(frozen=True, kw_only=True)
class LoraRecipe:
    """Low-rank adapters (arXiv 2106.09685) beside frozen projections, instead of training all weights.

    rank: 0: none, all weights train. alpha: the correction is scaled by alpha / rank. targets: the projections that get
    an adapter.
    """

    rank: int = 0
    alpha: float = 32.0
    targets: tuple[str, ...] = PROJECTIONS


@dataclass(frozen=True, kw_only=True)
class StageRecipe:
    """What every training stage has.

    tokens: positions trained on, padding included; with batch × sequence × accumulate it fixes the number of steps.
    minutes: stop (and count as complete) after this much training time, over all resumes; 0: no limit.
    start: "random", the name of an earlier stage of this run, or a model folder. eval_every: in steps; 0: never.
    """

    tokens: int = 1_000_000
    minutes: float = 0.0
    sequence: int = 512
    batch: int = 16
    accumulate: int = 1
    start: str = "random"
    eval_every: int = 0
    optim: OptimRecipe = field(default_factory=OptimRecipe)
    lora: LoraRecipe = field(default_factory=LoraRecipe)


@dataclass(frozen=True, kw_only=True)
class PretrainRecipe(StageRecipe):
    """Next-token prediction on raw text. held_out: the share of documents kept for the held-out loss."""

    text: tuple[TextRecipe, ...] = ()
    held_out: float = 0.01
    neighbours: int = 24


@dataclass(frozen=True, kw_only=True)
class MixRecipe:
    """One source of dialogues: a task that demonstrates (`task`) or a `messages` JSONL file (`messages`), never both.

    direct: share of a task's examples that answer at once, under the direct prompt; None: the stage's `direct`.
    earlier: share of a task's examples that come as a second turn, after another of its problems and its bare answer.
    min_level, max_level: the range from which a task's level is drawn evenly.
    """

    task: str = ""
    messages: str = ""
    weight: float = 1.0
    direct: float | None = None
    earlier: float = 0.0
    min_level: float = 0.0
    max_level: float = 1.0


@dataclass(frozen=True, kw_only=True)
class SftRecipe(StageRecipe):
    """Chain-of-thought tuning on dialogues, loss on the assistant's tokens only.

    workers: processes that draw, tokenise and pack ahead of the training step. chunk_steps: the steps packed at once.
    watch_problems: how many problems of each task are answered at every `eval_every` (levels evenly spread).
    """

    start: str = "pretrain"
    direct: float = 0.1
    mix: tuple[MixRecipe, ...] = ()
    workers: int = 1
    chunk_steps: int = 16
    watch_problems: int = 20


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole run."""

    run: RunRecipe
    model: ModelRecipe = field(default_factory=ModelRecipe)
    tokenizer: TokenizerRecipe = field(default_factory=TokenizerRecipe)
    pretrain: PretrainRecipe = field(default_factory=PretrainRecipe)
    sft: SftRecipe = field(default_factory=SftRecipe)


def resolve(recipe: Recipe) -> Recipe:
    """The recipe with every derived value filled in, checked for impossible ones (`RecipeError`)."""
    model = _resolve_model(recipe.model)
    sft = replace(recipe.sft, optim=_resolve_optim(recipe.sft.optim, model.size))
    sft = replace(sft, mix=tuple(replace(m, direct=sft.direct if m.direct is None else m.direct) for m in sft.mix))
    pretrain = replace(recipe.pretrain, optim=_resolve_optim(recipe.pretrain.optim, model.size))
    resolved = replace(recipe, model=model, pretrain=pretrain, sft=sft)
    _check(resolved)
    return resolved


def _resolve_model(model: ModelRecipe) -> ModelRecipe:
    """256 gives 6 layers, 4 heads of 64 over 2, an MLP of 704: 5M parameters at a vocabulary of 2,048."""
    layers, heads, kv_heads, head_dim, mlp = model.shape()
    return replace(model, layers=layers, heads=heads, kv_heads=kv_heads, head_dim=head_dim, mlp=mlp)


def _resolve_optim(optim: OptimRecipe, size: int) -> OptimRecipe:
    """Smaller models bear larger steps: 3e-3 at 256, falling with the square root of the hidden size."""
    lr = optim.lr or round(3e-3 * (256 / size) ** 0.5, 6)
    return replace(optim, lr=lr, muon_lr=optim.muon_lr or 2 * lr)


def _check(recipe: Recipe) -> None:
    """Refuse what could only fail later, or mean something else than was written."""
    model = recipe.model
    _, heads, kv_heads, head_dim, _ = model.shape()
    problems: dict[str, bool] = {
        "run.stages is empty: name at least one of tokenizer, pretrain, sft": not recipe.run.stages,
        "model.heads must be a multiple of model.kv_heads": heads % kv_heads != 0,
        "model.head_dim must be even": head_dim % 2 != 0,
        "tokenizer.vocab_size must be a multiple of 32": recipe.tokenizer.vocab_size % 32 != 0,
        "run.keep must be at least 1": recipe.run.keep < 1,
        "sft.workers must be at least 1": recipe.sft.workers < 1,
        "sft.chunk_steps must be at least 1": recipe.sft.chunk_steps < 1,
        "pretrain.held_out must lie in [0, 0.5]": not 0 <= recipe.pretrain.held_out <= 0.5,
        "run.stages names a stage twice": len(set(recipe.run.stages)) != len(recipe.run.stages),
    }
    stages: Mapping[Stage, StageRecipe] = {Stage.PRETRAIN: recipe.pretrain, Stage.SFT: recipe.sft}
    for name, stage in stages.items():
        positive = min(stage.tokens, stage.sequence, stage.batch, stage.accumulate) >= 1
        problems[f"{name}: tokens, sequence, batch and accumulate must be at least 1"] = not positive
        problems[f"{name}.sequence is {stage.sequence}, over model.max_positions"] = (
            stage.sequence > model.max_positions
        )
        problems[f"{name}.lora.rank must be 0 (all weights train) or more"] = stage.lora.rank < 0
        unknown = sorted(set(stage.lora.targets) - set(PROJECTIONS))
        problems[f"{name}.lora.targets: {unknown or 'empty'}; choose from {', '.join(PROJECTIONS)}"] = bool(
            unknown or not stage.lora.targets
        )
        problems[f"{name}.lora needs a model to stand beside: {name}.start is random"] = (
            stage.lora.rank > 0 and stage.start == "random"
        )
        shares = (stage.optim.warmup, stage.optim.decay, stage.optim.final)
        problems[f"{name}.optim: warmup, decay and final must lie in [0, 1]"] = not all(0 <= s <= 1 for s in shares)
    for index, mix in enumerate(recipe.sft.mix):
        problems[f"sft.mix[{index}] needs either a task or messages"] = bool(mix.task) == bool(mix.messages)
        problems[f"sft.mix[{index}].weight must be over 0"] = mix.weight <= 0
        problems[f"sft.mix[{index}].direct must lie in [0, 1]"] = not 0 <= (mix.direct or 0) <= 1
        problems[f"sft.mix[{index}].earlier must lie in [0, 1]"] = not 0 <= mix.earlier <= 1
        levels_right = 0 <= mix.min_level <= mix.max_level <= 1
        problems[f"sft.mix[{index}]: levels must satisfy 0 ≤ min_level ≤ max_level ≤ 1"] = not levels_right
    wanted = {
        "tokenizer.text": (Stage.TOKENIZER, bool(recipe.tokenizer.text)),
        "pretrain.text": (Stage.PRETRAIN, bool(recipe.pretrain.text)),
        "sft.mix": (Stage.SFT, bool(recipe.sft.mix)),
    }
    for key, (stage_name, given) in wanted.items():
        problems[f"{key} is empty: the stage {stage_name} has no data"] = stage_name in recipe.run.stages and not given
    for text, wrong in problems.items():
        if wrong:
            raise RecipeError(text)
