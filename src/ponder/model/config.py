"""The sizes of a model: one frozen record for the Llama, Qwen2 and Qwen3 families."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")  # the matrices of a block


class Family(StrEnum):
    """The value is Hugging Face's `model_type`."""

    LLAMA = "llama"
    QWEN2 = "qwen2"
    QWEN3 = "qwen3"

    @property
    def architecture(self) -> str:
        return {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}[self.value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Llama3Scaling:
    """RoPE scaling of Llama 3.1: long wavelengths are stretched by `factor`, short ones kept, a ramp in between."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class YarnScaling:
    """YaRN (arXiv 2309.00071, section 3). `attention_factor` multiplies cos and sin; by default 0.1 ln(factor) + 1."""

    factor: float
    original_max_positions: int
    attention_factor: float
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True


RopeScaling = Llama3Scaling | YarnScaling

# Far above every published dense model: whatever lies beyond is a corrupt or hostile file.
_LIMITS = {
    "vocab_size": 1 << 22,
    "hidden_size": 1 << 16,
    "num_layers": 1 << 10,
    "num_heads": 1 << 10,
    "num_kv_heads": 1 << 10,
    "head_dim": 1 << 12,
    "intermediate_size": 1 << 20,
    "max_positions": 1 << 26,
}

_HF_NAMES = {
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "max_positions": "max_position_embeddings",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The shape of a `Transformer`.

    rms_norm_eps, rope_theta: as in config.json.
    max_positions: the longest window the model was made for, in tokens.
    thinking_tokens: how long one answer may be thought about, over all contexts: more than max_positions for a model
        that folds its thoughts; None: what the window holds.
    repeats: the run of tokens after whose repetition an answer ends, unless a request says otherwise
        (`SamplingParams.repeats`); 0: none.
    voices: the most voices of a council that the model was taught to think in; 0: none.
    attention_bias: on q, k and v, and (except Qwen2) on o.
    bos_token_id, eos_token_ids, pad_token_id: only carried along for other programs.

    Raises ValueError that names the field when sizes are impossible.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    family: Family = Family.QWEN3
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    qk_norm: bool = True
    attention_bias: bool = False
    tie_embeddings: bool = True
    max_positions: int = 4096
    thinking_tokens: int | None = None
    repeats: int = 0
    voices: int = 0
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    pad_token_id: int | None = None

    def __post_init__(self) -> None:
        for field, limit in _LIMITS.items():
            value = getattr(self, field)
            if not 1 <= value <= limit:
                raise ValueError(f"{_HF_NAMES.get(field, field)} must be from 1 to {limit} (got {value})")
        if self.thinking_tokens is not None and not 1 <= self.thinking_tokens <= _LIMITS["max_positions"]:
            raise ValueError(
                f"thinking_tokens must be from 1 to {_LIMITS['max_positions']} (got {self.thinking_tokens})"
            )
        if self.repeats < 0:
            raise ValueError(f"repeats must be at least 0 (got {self.repeats})")
        if self.voices < 0:
            raise ValueError(f"voices must be at least 0 (got {self.voices})")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_key_value_heads must divide num_attention_heads (got {self.num_kv_heads} and {self.num_heads})"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even for rotary embedding (got {self.head_dim})")
        if self.qk_norm != (self.family is Family.QWEN3):
            raise ValueError(
                f"qk_norm is {self.qk_norm}: Qwen3 has it and {self.family} does not"
                if self.qk_norm
                else "qk_norm is False: Qwen3 models have it"
            )
        for field in ("rms_norm_eps", "rope_theta"):
            value = getattr(self, field)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{field} must be above 0 (got {value})")
        if self.rope_theta <= 1:
            raise ValueError(f"rope_theta must be above 1 (got {self.rope_theta})")

    @property
    def num_parameters(self) -> int:
        """All parameters, the embedding counted once when it is tied."""
        return sum(math.prod(shape) for shape in self.parameter_shapes().values())

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name → shape of every tensor of a checkpoint, under Hugging Face's names."""
        D, F, d, H, K = self.hidden_size, self.intermediate_size, self.head_dim, self.num_heads, self.num_kv_heads
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocab_size, D)}
        for layer in range(self.num_layers):
            at = f"model.layers.{layer}"
            shapes[f"{at}.input_layernorm.weight"] = (D,)
            for name, rows in (("q_proj", H * d), ("k_proj", K * d), ("v_proj", K * d)):
                shapes[f"{at}.self_attn.{name}.weight"] = (rows, D)
                if self.attention_bias:
                    shapes[f"{at}.self_attn.{name}.bias"] = (rows,)
            shapes[f"{at}.self_attn.o_proj.weight"] = (D, H * d)
            if self.output_bias:
                shapes[f"{at}.self_attn.o_proj.bias"] = (D,)
            if self.qk_norm:
                shapes[f"{at}.self_attn.q_norm.weight"] = (d,)
                shapes[f"{at}.self_attn.k_norm.weight"] = (d,)
            shapes[f"{at}.post_attention_layernorm.weight"] = (D,)
            shapes[f"{at}.mlp.gate_proj.weight"] = (F, D)
            shapes[f"{at}.mlp.up_proj.weight"] = (F, D)
            shapes[f"{at}.mlp.down_proj.weight"] = (D, F)
        shapes["model.norm.weight"] = (D,)
        if not self.tie_embeddings:
            shapes["lm_head.weight"] = (self.vocab_size, D)
        return shapes

    @property
    def output_bias(self) -> bool:
        """Whether o_proj has a bias: Qwen2 has one on q, k, v only."""
        return self.attention_bias and self.family is not Family.QWEN2
