"""Recipes: TOML into frozen dataclasses. An unknown key, a wrong type or an impossible value is a `RecipeError`.

A recipe may `include = "other.toml"` and says only what differs; `--set section.key=value` comes on top. What is
left at None is derived (from `model.size`, for the most part) by `resolve`: a resolved recipe leaves nothing to chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from ponder.model.config import PROJECTIONS
from ponder.types import RecipeError


class Stage(StrEnum):
    """The stages of a run, in their order."""

    TOKENIZER = "tokenizer"
    PRETRAIN = "pretrain"
    SFT = "sft"
    GRPO = "grpo"


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


class Objective(StrEnum):
    """What is learned from sampled answers.

    POLICY: policy optimisation, from better and worse answers alike. REJECTION: next-token loss on the solved ones
    alone (rejection-sampling tuning, expert iteration; STaR, arXiv 2203.14465): the control for every claim about the
    other.
    """

    POLICY = "policy"
    REJECTION = "rejection"


class Baseline(StrEnum):
    """What a reward is compared with.

    GRPO: the group's mean, in units of its standard deviation (arXiv 2402.03300, section 4.1.2). DR_GRPO: the mean
    alone, so that hard and easy prompts are not blown up (arXiv 2503.20783, section 3.1). RLOO: the mean of the others
    (arXiv 2402.14740, section 3.2), which leaves the expected gradient as it is.
    """

    GRPO = "grpo"
    DR_GRPO = "dr_grpo"
    RLOO = "rloo"


class Weighting(StrEnum):
    """How much each sampled token counts. The weights of an update sum to 1, but for CONSTANT.

    TRAJECTORY: every answer the same, its tokens sharing (GRPO, arXiv 2402.03300, equation 3). TOKEN: every token the
    same, so that long answers count for more (DAPO, arXiv 2503.14476, section 3.3). CONSTANT: every token 1 over
    (answers x longest answer allowed), which leaves no bias for length (Dr. GRPO, arXiv 2503.20783, section 3.1).
    """

    TRAJECTORY = "trajectory"
    TOKEN = "token"
    CONSTANT = "constant"


class Ratio(StrEnum):
    """What importance ratios are taken over. TOKEN: each token (PPO, GRPO). SEQUENCE: a whole trajectory, the geometric
    mean of its tokens' (GSPO, arXiv 2507.18071, equation 7)."""

    TOKEN = "token"
    SEQUENCE = "sequence"


class Levels(StrEnum):
    """How problems are drawn. EVEN: by the weights of the mix, at levels drawn evenly. ADAPTIVE: what the model neither
    solves nor fails every time comes up more often (`train.curriculum`)."""

    EVEN = "even"
    ADAPTIVE = "adaptive"


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
    """The shape of the model (Qwen3 layout). `size`, the hidden size, is the dial: the rest follows unless said.

    thinking: tokens of thinking that the efforts are shares of, for a model that is taught to fold; None: its window.
    """

    size: int = 256
    layers: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    mlp: int | None = None
    rope_theta: float = 10_000.0
    max_positions: int = 4096
    thinking: int | None = None
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
    """One source of dialogues: a task or environment that demonstrates (`task`), or a `messages` JSONL file
    (`messages`), never both.

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
class GrpoRecipe(StageRecipe):
    """Reinforcement learning from verifiable rewards: answers are sampled, graded, and made likelier or less likely.

    steps: the length of the stage; each samples `prompts` x `samples` answers. tokens: follows from it (leave it out).
    sequence: prompt and answer, of one context, at most. batch: rows of a micro-batch; there are as many of them as the
    answers fill. max_tokens: of an answer, thinking included. thinking: cap of the thinking; None: none of its own.
    mix: tasks; `messages`, `direct` and `earlier` do not apply. levels: see `Levels`.

    objective, baseline, weighting, ratio: see the enums. clip_low, clip_high: ratios beyond 1 - clip_low and
    1 + clip_high gain nothing more. kl: weight of the penalty for leaving the model that the stage started from; 0: no
    such penalty, and no copy of that model. overlong: over the last so many of max_tokens the reward falls by up to 1.
    redraws: groups whose rewards are all equal are replaced by new problems, up to so many times a step (DAPO's dynamic
    sampling). minibatches, epochs: a step's answers are cut into so many updates, and gone through so often.
    per_prompt: for REJECTION, the solved answers kept of each prompt, at most.

    patience: steps in a row with nothing but equal rewards raise an alarm, and with nothing but failed grades stop the
    run. watch_problems: as in `SftRecipe`.
    """

    start: str = "sft"
    tokens: int = 0
    sequence: int = 1024
    batch: int = 4
    steps: int = 100
    prompts: int = 16
    samples: int = 16
    max_tokens: int = 512
    thinking: int | None = None
    temperature: float = 1.0
    mix: tuple[MixRecipe, ...] = ()
    levels: Levels = Levels.EVEN
    objective: Objective = Objective.POLICY
    baseline: Baseline = Baseline.GRPO
    weighting: Weighting = Weighting.TOKEN
    ratio: Ratio = Ratio.TOKEN
    clip_low: float = 0.2
    clip_high: float = 0.28
    kl: float = 0.0
    overlong: int = 0
    redraws: int = 0
    minibatches: int = 1
    epochs: int = 1
    per_prompt: int = 4
    patience: int = 5
    watch_problems: int = 20


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole run."""

    run: RunRecipe
    model: ModelRecipe = field(default_factory=ModelRecipe)
    tokenizer: TokenizerRecipe = field(default_factory=TokenizerRecipe)
    pretrain: PretrainRecipe = field(default_factory=PretrainRecipe)
    sft: SftRecipe = field(default_factory=SftRecipe)
    grpo: GrpoRecipe = field(default_factory=GrpoRecipe)


def resolve(recipe: Recipe) -> Recipe:
    """The recipe with every derived value filled in, checked for impossible ones (`RecipeError`)."""
    model = _resolve_model(recipe.model)
    sft = replace(recipe.sft, optim=_resolve_optim(recipe.sft.optim, model.size))
    sft = replace(sft, mix=tuple(replace(m, direct=sft.direct if m.direct is None else m.direct) for m in sft.mix))
    pretrain = replace(recipe.pretrain, optim=_resolve_optim(recipe.pretrain.optim, model.size))
    resolved = replace(recipe, model=model, pretrain=pretrain, sft=sft, grpo=_resolve_grpo(recipe.grpo, model.size))
    _check(resolved)
    return resolved


def _resolve_model(model: ModelRecipe) -> ModelRecipe:
    """256 gives 6 layers, 4 heads of 64 over 2, an MLP of 704: 5M parameters at a vocabulary of 2,048."""
    layers, heads, kv_heads, head_dim, mlp = model.shape()
    return replace(model, layers=layers, heads=heads, kv_heads=kv_heads, head_dim=head_dim, mlp=mlp)


def _resolve_grpo(grpo: GrpoRecipe, size: int) -> GrpoRecipe:
    tokens = grpo.steps * grpo.prompts * grpo.samples * grpo.max_tokens
    if grpo.tokens not in (0, tokens):
        raise RecipeError(f"grpo.tokens is {grpo.tokens}: leave it out, grpo.steps says how long the stage is")
    return replace(grpo, tokens=tokens, optim=_resolve_optim(grpo.optim, size, full=1e-4))


def _resolve_optim(optim: OptimRecipe, size: int, *, full: float = 3e-3) -> OptimRecipe:
    """Smaller models bear larger steps: `full` at 256, falling with the square root of the hidden size."""
    lr = optim.lr or round(full * (256 / size) ** 0.5, 6)
    return replace(optim, lr=lr, muon_lr=optim.muon_lr or 2 * lr)


def _check(recipe: Recipe) -> None:
    """Refuse what could only fail later, or mean something else than was written."""
    model = recipe.model
    _, heads, kv_heads, head_dim, _ = model.shape()
    problems: dict[str, bool] = {
        f"run.stages is empty: name at least one of {', '.join(Stage)}": not recipe.run.stages,
        "model.heads must be a multiple of model.kv_heads": heads % kv_heads != 0,
        "model.head_dim must be even": head_dim % 2 != 0,
        "tokenizer.vocab_size must be a multiple of 32": recipe.tokenizer.vocab_size % 32 != 0,
        "run.keep must be at least 1": recipe.run.keep < 1,
        "sft.workers must be at least 1": recipe.sft.workers < 1,
        "sft.chunk_steps must be at least 1": recipe.sft.chunk_steps < 1,
        "pretrain.held_out must lie in [0, 0.5]": not 0 <= recipe.pretrain.held_out <= 0.5,
        "run.stages names a stage twice": len(set(recipe.run.stages)) != len(recipe.run.stages),
    }
    stages: Mapping[Stage, StageRecipe] = {
        Stage.PRETRAIN: recipe.pretrain,
        Stage.SFT: recipe.sft,
        Stage.GRPO: recipe.grpo,
    }
    for name, stage in stages.items():
        positive = min(stage.tokens, stage.sequence, stage.batch, stage.accumulate) >= 1
        problems[f"{name}: tokens, sequence, batch and accumulate must be at least 1"] = not positive
        concerned = name is not Stage.GRPO or name in recipe.run.stages  # its default is longer than many a small model
        problems[f"{name}.sequence is {stage.sequence}, over model.max_positions"] = (
            concerned and stage.sequence > model.max_positions
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
    problems |= (
        _mix_problems("sft", recipe.sft.mix) | _mix_problems("grpo", recipe.grpo.mix) | _grpo_problems(recipe.grpo)
    )
    wanted = {
        "tokenizer.text": (Stage.TOKENIZER, bool(recipe.tokenizer.text)),
        "pretrain.text": (Stage.PRETRAIN, bool(recipe.pretrain.text)),
        "sft.mix": (Stage.SFT, bool(recipe.sft.mix)),
        "grpo.mix": (Stage.GRPO, bool(recipe.grpo.mix)),
    }
    for key, (stage_name, given) in wanted.items():
        problems[f"{key} is empty: the stage {stage_name} has no data"] = stage_name in recipe.run.stages and not given
    for text, wrong in problems.items():
        if wrong:
            raise RecipeError(text)


def _mix_problems(stage: str, mixes: Sequence[MixRecipe]) -> dict[str, bool]:
    problems: dict[str, bool] = {}
    for index, mix in enumerate(mixes):
        name = f"{stage}.mix[{index}]"
        problems[f"{name} needs either a task or messages"] = bool(mix.task) == bool(mix.messages)
        problems[f"{name}.weight must be over 0"] = mix.weight <= 0
        problems[f"{name}.direct must lie in [0, 1]"] = not 0 <= (mix.direct or 0) <= 1
        problems[f"{name}.earlier must lie in [0, 1]"] = not 0 <= mix.earlier <= 1
        levels_right = 0 <= mix.min_level <= mix.max_level <= 1
        problems[f"{name}: levels must satisfy 0 ≤ min_level ≤ max_level ≤ 1"] = not levels_right
    return problems


def _grpo_problems(grpo: GrpoRecipe) -> dict[str, bool]:
    """The mix is one of tasks that are answered; what only demonstrations have is refused, not ignored."""
    least = {"steps": 1, "prompts": 1, "samples": 2, "max_tokens": 1, "minibatches": 1, "epochs": 1, "per_prompt": 1}
    least |= {"patience": 1, "redraws": 0, "watch_problems": 0}
    problems = {f"grpo.{key} must be at least {low}": getattr(grpo, key) < low for key, low in least.items()}
    for index, mix in enumerate(grpo.mix):
        problems[f"grpo.mix[{index}]: messages have no grade, name a task"] = bool(mix.messages)
        inapplicable = mix.direct is not None or mix.earlier != 0
        problems[f"grpo.mix[{index}]: direct and earlier do not apply; for direct answers set grpo.thinking = 0"] = (
            inapplicable
        )
    return problems | {
        "grpo.accumulate does not apply: there are as many micro-batches as the answers fill": grpo.accumulate != 1,
        "grpo.temperature must be over 0: rollouts are sampled": grpo.temperature <= 0,
        "grpo.thinking must be at least 0": (grpo.thinking or 0) < 0,
        f"grpo.overlong must lie in [0, max_tokens], [0, {grpo.max_tokens}]": not 0 <= grpo.overlong <= grpo.max_tokens,
        "grpo.clip_low must lie in [0, 1], clip_high in [0, …)": not 0 <= grpo.clip_low <= 1 or grpo.clip_high < 0,
        "grpo.kl must be at least 0": grpo.kl < 0,
        "grpo.minibatches must not exceed grpo.prompts": grpo.minibatches > grpo.prompts,
        "grpo.kl does not apply to the objective rejection": grpo.objective is Objective.REJECTION and grpo.kl > 0,
    }
