"""What shape a model has: one frozen record for the Llama, Qwen2 and Qwen3 families, read from and written as Hugging
Face's config.json. A value that this package does not compute is refused by name, never ignored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ponder.types import CheckpointError


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

    rms_norm_eps, rope_theta: as in config.json. max_positions: the longest window the model was made for, in tokens.
    attention_bias: on q, k and v, and (except Qwen2) on o. bos/eos/pad: only carried along for other programs.
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
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    pad_token_id: int | None = None

    def __post_init__(self) -> None:
        for field, limit in _LIMITS.items():
            value = getattr(self, field)
            if not 1 <= value <= limit:
                raise ValueError(f"{_HF_NAMES.get(field, field)} is {value}: it must lie between 1 and {limit}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_key_value_heads is {self.num_kv_heads}: it must divide num_attention_heads {self.num_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim is {self.head_dim}: rotary embedding needs an even number")
        if self.qk_norm != (self.family is Family.QWEN3):
            raise ValueError(
                f"qk_norm is {self.qk_norm}: Qwen3 has it and {self.family} does not"
                if self.qk_norm
                else "qk_norm is False: Qwen3 models have it"
            )
        for field in ("rms_norm_eps", "rope_theta"):
            value = getattr(self, field)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{field} is {value}: it must be a positive number")

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

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any], *, source: str = "config.json") -> ModelConfig:
        """Read config.json as transformers writes it (version 4 or 5).

        Raises CheckpointError naming `source` and the key for a missing, ill-typed or unsupported value.
        """
        return _HfReader(raw, source).config()

    def to_hf(self) -> dict[str, Any]:
        """The config.json of the same model, in the keys that transformers 4 and 5 both read."""
        scaling = _scaling_to_hf(self.rope_scaling)
        hf: dict[str, Any] = {
            "architectures": [self.family.architecture],
            "model_type": self.family.value,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.intermediate_size,
            "hidden_act": "silu",
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "rope_scaling": scaling,
            "max_position_embeddings": self.max_positions,
            "tie_word_embeddings": self.tie_embeddings,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_ids[0] if len(self.eos_token_ids) == 1 else list(self.eos_token_ids) or None,
            "pad_token_id": self.pad_token_id,
        }
        if self.family is not Family.QWEN2:  # always on in Qwen2, where transformers knows no such key
            hf["attention_bias"] = self.attention_bias
        return hf


class _HfReader:
    """Typed access to a config.json; every complaint names file and key."""

    def __init__(self, raw: Mapping[str, Any], source: str) -> None:
        self.raw, self.source = raw, source

    def fail(self, key: str, why: str) -> CheckpointError:
        return CheckpointError(f"{self.source}: key '{key}': {why}")

    def integer(self, key: str, default: int | None = None) -> int:
        value = self.raw.get(key)
        value = default if value is None else value
        if value is None:
            raise self.fail(key, "missing")
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.fail(key, f"must be an integer, found {value!r:.80}")
        return value

    def number(self, raw: Mapping[str, Any], key: str, default: float | None = None) -> float:
        value = raw.get(key)
        value = default if value is None else value
        if value is None:
            raise self.fail(key, "missing")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.fail(key, f"must be a finite number, found {value!r:.80}")
        return float(value)

    def boolean(self, key: str, default: bool) -> bool:
        value = self.raw.get(key, default)
        if not isinstance(value, bool):
            raise self.fail(key, f"must be true or false, found {value!r:.80}")
        return value

    def token_ids(self, key: str) -> tuple[int, ...]:
        value = self.raw.get(key)
        ids = [] if value is None else value if isinstance(value, list) else [value]
        if any(isinstance(i, bool) or not isinstance(i, int) for i in ids):
            raise self.fail(key, f"must be a token id or a list of them, found {value!r:.80}")
        return tuple(ids)

    def config(self) -> ModelConfig:
        family = self.family()
        self.refuse_unsupported()
        hidden, heads = self.integer("hidden_size"), self.integer("num_attention_heads")
        rope = self.rope()
        bos, pad = self.token_ids("bos_token_id"), self.token_ids("pad_token_id")
        default_head_dim = 128 if family is Family.QWEN3 else hidden // max(heads, 1)
        if family is Family.QWEN2 and self.raw.get("head_dim") is not None:
            default_head_dim = self.integer("head_dim")
        try:
            return ModelConfig(
                family=family,
                vocab_size=self.integer("vocab_size"),
                hidden_size=hidden,
                num_layers=self.integer("num_hidden_layers"),
                num_heads=heads,
                num_kv_heads=self.integer("num_key_value_heads", heads),
                head_dim=self.integer("head_dim", default_head_dim),
                intermediate_size=self.integer("intermediate_size"),
                rms_norm_eps=self.number(self.raw, "rms_norm_eps", 1e-6),
                rope_theta=self.number({**self.raw, **rope}, "rope_theta", 10_000.0),
                rope_scaling=self.scaling(rope),
                qk_norm=family is Family.QWEN3,
                attention_bias=True if family is Family.QWEN2 else self.boolean("attention_bias", False),
                tie_embeddings=self.boolean("tie_word_embeddings", False),
                max_positions=self.integer("max_position_embeddings", 2048 if family is Family.LLAMA else 32768),
                bos_token_id=bos[0] if bos else None,
                eos_token_ids=self.token_ids("eos_token_id"),
                pad_token_id=pad[0] if pad else None,
            )
        except ValueError as error:
            raise CheckpointError(f"{self.source}: {error}") from error

    def family(self) -> Family:
        known = ", ".join(f"{f.architecture}" for f in Family)
        model_type = self.raw.get("model_type")
        architectures = self.raw.get("architectures")
        for family in Family:
            if model_type == family.value and architectures in (None, [], [family.architecture]):
                return family
        if model_type in {f.value for f in Family}:
            raise self.fail("architectures", f"{architectures!r:.120} is not supported; supported: {known}")
        raise self.fail("model_type", f"{model_type!r:.80} ({architectures!r:.80}) is not supported; only {known}")

    def refuse_unsupported(self) -> None:
        """Values that would change the function computed, and that this package does not compute."""
        only = {
            "hidden_act": ("silu",),
            "mlp_bias": (False,),
            "use_sliding_window": (False,),
            "attention_dropout": (0, 0.0),
            "partial_rotary_factor": (1, 1.0),
            "quantization_config": (),
        }
        for key, allowed in only.items():
            value = self.raw.get(key)
            if value is not None and value not in allowed:
                raise self.fail(key, f"{value!r:.80} is not supported; supported: {list(allowed) or 'none'}")
        layer_types = self.raw.get("layer_types")
        if layer_types is not None and (
            not isinstance(layer_types, list) or any(kind != "full_attention" for kind in layer_types)
        ):
            raise self.fail("layer_types", f"{layer_types!r:.80} is not supported; only 'full_attention' is")
        for key in ("num_experts", "num_local_experts", "n_routed_experts", "moe_intermediate_size"):
            if self.raw.get(key) is not None:
                raise self.fail(key, "mixtures of experts are not supported")

    def rope(self) -> Mapping[str, Any]:
        """`rope_parameters` (transformers 5) or `rope_scaling` (4)."""
        for key in ("rope_parameters", "rope_scaling"):
            rope = self.raw.get(key)
            if rope is None:
                continue
            if not isinstance(rope, dict):
                raise self.fail(key, f"must be an object, found {rope!r:.80}")
            return rope
        return {}

    def scaling(self, rope: Mapping[str, Any]) -> RopeScaling | None:
        kind = rope.get("rope_type", rope.get("type", "default"))
        known = {
            "default": set(),
            "llama3": {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"},
            "yarn": {
                *("factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow"),
                *("mscale", "mscale_all_dim", "truncate"),
            },
        }
        if not isinstance(kind, str) or kind not in known:
            raise self.fail("rope_type", f"{kind!r:.80} is not supported; supported: {', '.join(known)}")
        allowed = known[kind] | {"rope_type", "type", "rope_theta"}
        for key, value in rope.items():
            if key not in allowed and value is not None and not (key == "partial_rotary_factor" and value == 1):
                raise self.fail(key, f"is not supported with rope_type '{kind}'")
        if kind == "default":
            return None
        # transformers gives a key beside the object priority over one inside it
        window = self.raw.get("original_max_position_embeddings", rope.get("original_max_position_embeddings"))
        original = self.integer("max_position_embeddings") if window is None else window
        if isinstance(original, bool) or not isinstance(original, int) or original < 1:
            raise self.fail("original_max_position_embeddings", f"must be a positive integer, found {original!r:.80}")
        if kind == "llama3":
            return Llama3Scaling(
                factor=self.number(rope, "factor"),
                low_freq_factor=self.number(rope, "low_freq_factor"),
                high_freq_factor=self.number(rope, "high_freq_factor"),
                original_max_positions=original,
            )
        return self.yarn(rope, original)

    def yarn(self, rope: Mapping[str, Any], original: int) -> YarnScaling:
        factor = self.number(rope, "factor", self.integer("max_position_embeddings") / original)
        mscale, mscale_all = self.number(rope, "mscale", 0.0), self.number(rope, "mscale_all_dim", 0.0)

        def temperature(scale: float) -> float:
            return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0

        inferred = temperature(mscale) / temperature(mscale_all) if mscale and mscale_all else temperature(1.0)
        return YarnScaling(
            factor=factor,
            original_max_positions=original,
            attention_factor=self.number(rope, "attention_factor", inferred),
            beta_fast=self.number(rope, "beta_fast", 32.0) or 32.0,
            beta_slow=self.number(rope, "beta_slow", 1.0) or 1.0,
            truncate=rope.get("truncate", True) is not False,
        )


def _scaling_to_hf(scaling: RopeScaling | None) -> dict[str, Any] | None:
    if scaling is None:
        return None
    if isinstance(scaling, Llama3Scaling):
        return {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_positions,
        }
    return {
        "rope_type": "yarn",
        "factor": scaling.factor,
        "original_max_position_embeddings": scaling.original_max_positions,
        "attention_factor": scaling.attention_factor,
        "beta_fast": scaling.beta_fast,
        "beta_slow": scaling.beta_slow,
        "truncate": scaling.truncate,
    }
