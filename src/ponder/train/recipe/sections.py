"""What a recipe says, as frozen dataclasses: the run, the model, what every stage has, and what cannot be meant.

A stage's own section stands with its algorithm (`ponder.train.algorithms`). A key that is None is derived, for the most
part from `model.size`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, ClassVar, Self, TypeVar

from ponder.model.config import PROJECTIONS
from ponder.train.recipe.ranges import (
    Count,
    CountOrZero,
    Duration,
    Length,
    Positive,
    Range,
    Share,
    Width,
    out_of_range,
)
from ponder.types import RecipeError

RANDOM = "random"  # a `start`: weights that nothing has trained


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
    """What the matrix products run in; float32 on a processor without bfloat16 products. Master weights and optimizer
    state are float32 either way."""

    BF16 = "bf16"
    FP32 = "fp32"


class Parallel(StrEnum):
    """How several workers share a model.

    REPLICATE: each holds all of it. SHARD: each holds a part of its weights, gradients and optimizer state, and gathers
    a block when it computes it (FSDP2).
    """

    REPLICATE = "replicate"
    SHARD = "shard"


@dataclass(frozen=True, kw_only=True)
class RunRecipe:
    """Where a run is stored and how it runs.

    folder: the run folder, relative to the working directory.
    stages: the stages to run, by name; they run in the order of `ponder.train.algorithms`.
    threads: torch's number of threads; 0: torch's choice.
    checkpoint_minutes: the longest time between two checkpoints. There is one at the end and on Ctrl-C too.
    keep: how many checkpoints of a stage are kept.
    device: "auto" is CUDA where there is one, else the CPU.
    compile: true: torch.compile. false: plain torch. None: what is fastest here: the compiled kernels, torch.compile
        where a stage is long enough for it to pay, or plain torch.
    parallel: how several workers share the model; one worker holds all of it either way.
    """

    folder: str
    stages: tuple[str, ...] = ("tokenizer", "pretrain", "sft")
    seed: Annotated[int, Range(0, 2**63 - 1)] = 0
    device: str = "auto"
    threads: Annotated[int, Range(0, 1024)] = 0
    precision: Precision = Precision.BF16
    compile: bool | None = None
    checkpoint_minutes: Duration = 5.0
    keep: Count = 2
    parallel: Parallel = Parallel.REPLICATE

    free: ClassVar[frozenset[str]] = frozenset(
        {"folder", "stages", "device", "threads", "compile", "checkpoint_minutes", "keep", "parallel"}
    )


@dataclass(frozen=True, kw_only=True)
class ModelRecipe:
    """The shape of the model (Qwen3 layout). `size`, the hidden size, is the dial: the rest follows unless said.

    thinking: tokens of thinking that the efforts are shares of, for a model that is taught to fold; None: its window.
    repeats: the longest run of tokens after whose repetition an answer of the model ends; 0: none.
    """

    size: Width = 256
    layers: Annotated[int, Range(1, 4096)] | None = None
    heads: Width | None = None
    kv_heads: Width | None = None
    head_dim: Width | None = None
    mlp: Width | None = None
    rope_theta: Positive = 10_000.0
    max_positions: Length = 4096
    thinking: Length | None = None
    repeats: CountOrZero = 0
    tie_embeddings: bool = True

    free: ClassVar[frozenset[str]] = frozenset()

    def shape(self) -> tuple[int, int, int, int, int]:
        """(layers, heads, kv_heads, head_dim, mlp): what is said, and derived from `size` what is not."""
        head_dim = self.head_dim or min(64, self.size)
        heads = self.heads or max(1, self.size // head_dim)
        kv_heads = self.kv_heads or max(1, heads // 2)
        layers = self.layers or self.size // 64 + 2
        return layers, heads, kv_heads, head_dim, self.mlp or -(-self.size * 11 // 4 // 32) * 32

    def resolved(self) -> ModelRecipe:
        """256 gives 6 layers, 4 heads of 64 over 2, an MLP of 704: 5M parameters at a vocabulary of 2,048."""
        layers, heads, kv_heads, head_dim, mlp = self.shape()
        return replace(self, layers=layers, heads=heads, kv_heads=kv_heads, head_dim=head_dim, mlp=mlp)


@dataclass(frozen=True, kw_only=True)
class TextRecipe:
    """One source of raw text; `data.sources` lists the kinds.

    repeat: how many times its documents occur in one pass over all sources.
    samples: how many problems a `task:` source draws.
    characters: take at most this many; 0: all.
    """

    source: str
    repeat: Count = 1
    samples: Count = 1000
    characters: CountOrZero = 0


@dataclass(frozen=True, kw_only=True)
class MixRecipe:
    """One source of problems or dialogues: a task or environment (`task`), or a `messages` JSONL file (`messages`),
    never both.

    direct: share of a task's examples that answer at once, under the direct prompt; None: the stage's `direct`.
    plain: share of a family's examples that are worded as people write (`tasks.families.plain`); None: the stage's.
    earlier: share of a task's examples that come as a second turn, after another of its problems and its bare answer.
    min_level, max_level: the range from which a task's level is drawn evenly.
    voices: how many voices of a council share the working of a task's problems; 1: the same working in one thought; 0:
        the task's usual demonstrations.
    """

    task: str = ""
    messages: str = ""
    weight: Annotated[float, Range(0, 1e9, above=True)] = 1.0
    direct: Share | None = None
    plain: Share | None = None
    earlier: Share = 0.0
    min_level: Share = 0.0
    max_level: Share = 1.0
    voices: Annotated[int, Range(0, 8)] = 0


Rate = Annotated[float, Range(0, 100, above=True)]
Beta = Annotated[float, Range(0, 1, below=True)]


@dataclass(frozen=True, kw_only=True)
class OptimRecipe:
    """One optimizer and its schedule.

    lr: AdamW's learning rate; None: derived from `model.size`.
    muon_lr: Muon's, for the matrices (its update has unit spectral norm scaled to AdamW's size); None: twice `lr`.
    muon_precision: of Muon's iteration; fp32: its updates do not depend on the last bits of the gradients.
    warmup, decay: as shares of all steps.
    final: the last learning rate over `lr`.
    clip: the largest norm of the gradient; 0: no limit.
    """

    name: Optimizer = Optimizer.ADAMW
    lr: Rate | None = None
    muon_lr: Rate | None = None
    muon_precision: Precision = Precision.BF16
    schedule: Schedule = Schedule.WSD
    warmup: Share = 0.02
    decay: Share = 0.4
    final: Share = 0.0
    weight_decay: Annotated[float, Range(0, 100)] = 0.1
    beta1: Beta = 0.9
    beta2: Beta = 0.95
    clip: Annotated[float, Range(0)] = 1.0

    def resolved(self, size: int, full: float) -> OptimRecipe:
        """The learning rate is `full` at a hidden size of 256, and falls with the square root of the size."""
        lr = self.lr or round(full * (256 / size) ** 0.5, 6)
        return replace(self, lr=lr, muon_lr=self.muon_lr or 2 * lr)


@dataclass(frozen=True, kw_only=True)
class LoraRecipe:
    """Low-rank adapters (arXiv 2106.09685) beside frozen projections, instead of training all weights.

    rank: 0: no adapters, all weights train.
    alpha: the correction is scaled by alpha / rank.
    targets: the projections that get an adapter.
    """

    rank: Annotated[int, Range(0, 1 << 16)] = 0
    alpha: Positive = 32.0
    targets: tuple[str, ...] = PROJECTIONS


@dataclass(frozen=True, kw_only=True)
class Section:
    """What a recipe says to one stage. `name` is the stage's name, that of its table in the recipe, and of its folder.

    free: the keys that may change between a run and its resumption. None of them changes the weights that come out,
        apart from the last bits (the loop says so when it resumes).
    gone: the keys that earlier versions had, each with what to write instead.
    """

    name: ClassVar[str]
    free: ClassVar[frozenset[str]] = frozenset()
    gone: ClassVar[Mapping[str, str]] = {}

    def resolved(self, model: ModelRecipe) -> Self:
        """The section with every derived key filled in. Raises RecipeError for a key that cannot be given."""
        return self

    def problems(self, model: ModelRecipe, *, runs: bool) -> Mapping[str, bool]:
        """Error texts, each with whether it applies.

        runs: whether the run has this stage.
        """
        return {}

    def check_data(self) -> None:
        """Raise now what reading the data would raise later. Called before a stage that is not complete runs."""

    def data_files(self) -> Mapping[str, Sequence[Path]]:
        """The files that the stage learns from, by the name that a person knows them by."""
        return {}


@dataclass(frozen=True, kw_only=True)
class StageRecipe(Section):
    """What every training stage has.

    tokens: positions trained on, padding included; with batch × sequence × accumulate it fixes the number of steps.
    minutes: stop (and count as complete) after this much training time, over all resumes; 0: no limit.
    start: "random", the name of an earlier stage of this run, or a model folder.
    eval_every: steps between two evaluations; 0: only at the end.
    """

    tokens: Count = 1_000_000
    minutes: Duration = 0.0
    sequence: Length = 512
    batch: Width = 16
    accumulate: Width = 1
    start: str = RANDOM
    eval_every: CountOrZero = 0
    optim: OptimRecipe = field(default_factory=OptimRecipe)
    lora: LoraRecipe = field(default_factory=LoraRecipe)

    free: ClassVar[frozenset[str]] = frozenset({"eval_every", "minutes"})
    full_lr: ClassVar[float] = 3e-3  # at a hidden size of 256

    def resolved(self, model: ModelRecipe) -> Self:
        return replace(self, optim=self.optim.resolved(model.size, self.full_lr))

    @property
    def needs_whole(self) -> str:
        """Why its weights cannot be divided among workers; "" if they can."""
        return f"the stage {self.name} reads all of them"

    def problems(self, model: ModelRecipe, *, runs: bool) -> Mapping[str, bool]:
        name, lora = self.name, self.lora
        unknown = sorted(set(lora.targets) - set(PROJECTIONS))
        meant = runs or self.sequence != type(self).sequence  # a default may be longer than a small model
        return {
            f"{name}.start is empty: name a stage, a model folder, or random": not self.start.strip(),
            f"{name}.sequence must be at most model.max_positions (got {self.sequence})": meant
            and self.sequence > model.max_positions,
            f"{name}.lora.targets must be among {', '.join(PROJECTIONS)} (got {unknown or 'none'})": bool(
                unknown or not lora.targets
            ),
            f"{name}.lora needs a trained model, but {name}.start is random: set {name}.start to one": (
                lora.rank > 0 and self.start == RANDOM
            ),
        }


def not_divided(stage: StageRecipe) -> str:
    """What `StageRecipe.needs_whole` says of a stage that learns from tokens alone."""
    if stage.lora.rank:
        return f"{stage.name}.lora trains a small part of them"
    return f"{stage.name}.optim is Muon, which reads whole matrices" if stage.optim.name is Optimizer.MUON else ""


def mix_problems(stage: str, mixes: Sequence[MixRecipe]) -> dict[str, bool]:
    """As `Section.problems`, of the mix of a stage."""
    problems: dict[str, bool] = {}
    for index, mix in enumerate(mixes):
        name = f"{stage}.mix[{index}]"
        problems[f"{name} must have either a task or messages"] = bool(mix.task) == bool(mix.messages)
        levels = f"{mix.min_level} and {mix.max_level}"
        problems[f"{name}.min_level must be at most max_level (got {levels})"] = mix.min_level > mix.max_level
        problems[f"{name}.plain does not apply with voices (got {mix.plain}): set it to 0"] = bool(
            mix.voices and mix.plain
        )
    return problems


def text_problems(stage: str, texts: Sequence[TextRecipe]) -> dict[str, bool]:
    """As `Section.problems`, of the texts of a stage. An empty path would be the folder of the recipe."""
    return {f"{stage}.text[{i}].source is empty: name a file": not text.source.strip() for i, text in enumerate(texts)}


def no_data(stage: str, key: str) -> str:
    """The error text for a stage that runs without anything to learn from."""
    return f"{stage}.{key} is empty, so the stage {stage} has no data: add some, or drop the stage from run.stages"


S = TypeVar("S", bound=Section)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole run.

    sections: those of all stages, in the order in which stages run.
    """

    run: RunRecipe
    model: ModelRecipe = field(default_factory=ModelRecipe)
    sections: tuple[Section, ...] = ()

    def section(self, kind: type[S]) -> S:
        """The section of a stage, by its class."""
        return next(section for section in self.sections if type(section) is kind)

    @property
    def tables(self) -> dict[str, RunRecipe | ModelRecipe | Section]:
        """Every table of the recipe by its name."""
        return {"run": self.run, "model": self.model, **{section.name: section for section in self.sections}}


def resolve(recipe: Recipe) -> Recipe:
    """The recipe with every derived value filled in, checked for impossible ones (RecipeError): what could only fail
    later, or mean something else than was written."""
    for name, table in recipe.tables.items():
        for text in out_of_range(table, name):
            raise RecipeError(text)
    model = recipe.model.resolved()
    resolved = replace(recipe, model=model, sections=tuple(each.resolved(model) for each in recipe.sections))
    names = [section.name for section in recipe.sections]
    stages = recipe.run.stages
    problems = {
        "run.folder is empty: name the folder of the run": not recipe.run.folder.strip(),
        f"run.stages is empty: name at least one of {', '.join(names)}": not stages,
        f"run.stages must be among {', '.join(names)} (got {list(stages)})": not set(stages) <= set(names),
        "model.heads must be a multiple of model.kv_heads": (model.heads or 0) % (model.kv_heads or 1) != 0,
        "model.head_dim must be even": (model.head_dim or 0) % 2 != 0,
        "run.stages names a stage twice: name each once": len(set(stages)) != len(stages),
    }
    for section in resolved.sections:
        problems |= section.problems(model, runs=section.name in stages)
    for text, wrong in problems.items():
        if wrong:
            raise RecipeError(text)
    return resolved
