"""Recipes: TOML into frozen dataclasses. An unknown key, a wrong type or an impossible value is a `RecipeError`.

A recipe may `include = "other.toml"` and says only what differs; `--set section.key=value` comes on top. What is
left at None is derived (from `model.size`, for the most part) by `resolve`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from ponder.model.config import PROJECTIONS


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
