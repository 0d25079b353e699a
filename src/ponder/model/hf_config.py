"""Hugging Face's config.json, read and written. A value that this package does not compute is refused by name, never
ignored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ponder.model.config import Family, Llama3Scaling, ModelConfig, RopeScaling, YarnScaling
from ponder.types import CheckpointError

DEFAULT_THETA = 10_000.0  # where config.json gives none


def config_from_hf(raw: Mapping[str, Any], *, source: str = "config.json") -> ModelConfig:
    """Read config.json as transformers writes it (version 4 or 5).

    Raises CheckpointError naming `source` and the key for a missing, ill-typed or unsupported value.
    """
    return _HfReader(raw, source).config()


def end_token_ids(raw: Mapping[str, Any], *, source: str) -> tuple[int, ...]:
    """The ids that config.json or generation_config.json declares to end a generation. Raises CheckpointError."""
    return _HfReader(raw, source).token_ids("eos_token_id")


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
            raise self.fail(key, f"must be an integer (got {value!r:.80})")
        return value

    def number(self, raw: Mapping[str, Any], key: str, default: float | None = None) -> float:
        value = raw.get(key)
        value = default if value is None else value
        if value is None:
            raise self.fail(key, "missing")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.fail(key, f"must be a finite number (got {value!r:.80})")
        return float(value)

    def positive(self, raw: Mapping[str, Any], key: str, default: float | None = None) -> float:
        value = self.number(raw, key, default)
        if value <= 0:
            raise self.fail(key, f"must be above 0 (got {value!r:.80})")
        return value

    def boolean(self, key: str, default: bool) -> bool:
        value = self.raw.get(key, default)
        if not isinstance(value, bool):
            raise self.fail(key, f"must be true or false (got {value!r:.80})")
        return value

    def token_ids(self, key: str) -> tuple[int, ...]:
        value = self.raw.get(key)
        ids = [] if value is None else value if isinstance(value, list) else [value]
        if any(isinstance(i, bool) or not isinstance(i, int) for i in ids):
            raise self.fail(key, f"must be a token id or a list of them (got {value!r:.80})")
        return tuple(ids)

    def config(self) -> ModelConfig:
        family = self.family()
        self.refuse_unsupported()
        hidden, heads = self.integer("hidden_size"), self.integer("num_attention_heads")
        rope = self.rope()
        bos, pad = self.token_ids("bos_token_id"), self.token_ids("pad_token_id")
        default_head_dim = 128 if family is Family.QWEN3 else hidden // max(heads, 1)
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
                rope_theta=self.number({**self.raw, **rope}, "rope_theta", DEFAULT_THETA),
                rope_scaling=self.scaling(rope),
                qk_norm=family is Family.QWEN3,
                attention_bias=True if family is Family.QWEN2 else self.boolean("attention_bias", False),
                tie_embeddings=self.boolean("tie_word_embeddings", False),
                max_positions=self.integer("max_position_embeddings", 2048 if family is Family.LLAMA else 32768),
                thinking_tokens=self.integer("thinking_tokens") if "thinking_tokens" in self.raw else None,
                repeats=self.integer("repeats", 0),
                voices=self.integer("voices", 0),
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
        if any(model_type == f.value for f in Family):
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
        """`rope_parameters` (transformers 5) or `rope_scaling` (4). Where both are given, transformers takes the latter
        in place of the former; one whose frequencies would be lost so is refused."""
        given: dict[str, Mapping[str, Any]] = {}
        for key in ("rope_scaling", "rope_parameters"):
            rope = self.raw.get(key)
            if rope is not None and not isinstance(rope, dict):
                raise self.fail(key, f"must be an object (got {rope!r:.80})")
            given[key] = rope or {}
        scaling, parameters = given["rope_scaling"], given["rope_parameters"]
        lost = parameters.get("rope_theta")
        if (
            scaling
            and lost is not None
            and scaling.get("rope_theta", self.raw.get("rope_theta", DEFAULT_THETA)) != lost
        ):
            raise self.fail(
                "rope_scaling",
                f"replaces rope_parameters, whose rope_theta {lost!r:.80} is lost: give rope_theta in "
                "rope_scaling, or add the scaling to rope_parameters and leave rope_scaling out",
            )
        return scaling or parameters

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
            raise self.fail("original_max_position_embeddings", f"must be a positive integer (got {original!r:.80})")
        return self.llama3(rope, original) if kind == "llama3" else self.yarn(rope, original)

    def llama3(self, rope: Mapping[str, Any], original: int) -> Llama3Scaling:
        low, high = self.positive(rope, "low_freq_factor"), self.positive(rope, "high_freq_factor")
        if high <= low:
            raise self.fail("high_freq_factor", f"must be above low_freq_factor (got {high} and {low})")
        return Llama3Scaling(
            factor=self.positive(rope, "factor"),
            low_freq_factor=low,
            high_freq_factor=high,
            original_max_positions=original,
        )

    def yarn(self, rope: Mapping[str, Any], original: int) -> YarnScaling:
        factor = self.positive(rope, "factor", self.integer("max_position_embeddings") / original)
        mscale, mscale_all = self.number(rope, "mscale", 0.0), self.number(rope, "mscale_all_dim", 0.0)
        truncate = rope.get("truncate", True)
        if not isinstance(truncate, bool):
            raise self.fail("truncate", f"must be true or false (got {truncate!r:.80})")

        def temperature(scale: float) -> float:
            return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0

        inferred = temperature(mscale) / temperature(mscale_all) if mscale and mscale_all else temperature(1.0)
        return YarnScaling(
            factor=factor,
            original_max_positions=original,
            attention_factor=self.positive(rope, "attention_factor", inferred),
            beta_fast=self.positive(rope, "beta_fast", 32.0),
            beta_slow=self.positive(rope, "beta_slow", 1.0),
            truncate=truncate,
        )


def _write_scaling(scaling: RopeScaling | None) -> dict[str, Any] | None:
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


def config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """The config.json of a model, in the keys that transformers 4 and 5 both read."""
    scaling = _write_scaling(config.rope_scaling)
    hf: dict[str, Any] = {
        "architectures": [config.family.architecture],
        "model_type": config.family.value,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.intermediate_size,
        "hidden_act": "silu",
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": scaling,
        "max_position_embeddings": config.max_positions,
        "tie_word_embeddings": config.tie_embeddings,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_ids[0]
        if len(config.eos_token_ids) == 1
        else list(config.eos_token_ids) or None,
        "pad_token_id": config.pad_token_id,
    }
    if config.thinking_tokens is not None:
        hf["thinking_tokens"] = config.thinking_tokens
    if config.repeats:
        hf["repeats"] = config.repeats
    if config.voices:
        hf["voices"] = config.voices
    if config.family is not Family.QWEN2:  # always on in Qwen2, where transformers knows no such key
        hf["attention_bias"] = config.attention_bias
    return hf
