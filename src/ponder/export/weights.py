"""A model's tensors and sizes under llama.cpp's names; what llama.cpp does not compute is refused by name.

Its convert_hf_to_gguf.py and src/models/{llama,qwen2,qwen3}.cpp say what the names mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from torch import Tensor

from ponder.gguf.layout import BLOCK, TensorType
from ponder.gguf.writing import GgufTensor, Value
from ponder.model.checkpoint import StoredParameter
from ponder.model.config import Family, Llama3Scaling, ModelConfig, YarnScaling
from ponder.model.gguf import gguf_name
from ponder.model.transformer import rotary_frequencies
from ponder.types import InvalidRequest

_FILE_TYPES = {TensorType.F32: 0, TensorType.F16: 1, TensorType.Q8_0: 7, TensorType.BF16: 32}
_QUANTIZATION_VERSION = 2


def hyperparameters(config: ModelConfig, type: TensorType) -> dict[str, Value]:
    """The fields that describe the model's shape to llama.cpp. Raises InvalidRequest naming what it cannot express."""
    check_expressible(config)
    fields: dict[str, Value] = {
        "context_length": config.max_positions,
        "embedding_length": config.hidden_size,
        "block_count": config.num_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_heads,
        "attention.head_count_kv": config.num_kv_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "rope.dimension_count": config.head_dim,
        "rope.freq_base": float(config.rope_theta),
        "vocab_size": config.vocab_size,
    }
    scaling = config.rope_scaling  # Llama 3.1's is a tensor of factors
    if isinstance(scaling, YarnScaling):
        # llama.cpp multiplies the attention factor by YaRN's own, which ours holds already
        usual = 0.1 * math.log(scaling.factor) + 1 if scaling.factor > 1 else 1.0
        fields |= {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": float(scaling.factor),
            "rope.scaling.original_context_length": scaling.original_max_positions,
            "rope.scaling.attn_factor": scaling.attention_factor / usual,
            "rope.scaling.yarn_beta_fast": float(scaling.beta_fast),
            "rope.scaling.yarn_beta_slow": float(scaling.beta_slow),
        }
    general: dict[str, Value] = {
        "general.architecture": config.family.value,
        "general.type": "model",
        "general.file_type": _FILE_TYPES[type],
        "general.quantization_version": _QUANTIZATION_VERSION,
    }
    return general | {f"{config.family.value}.{key}": value for key, value in fields.items()}


def check_expressible(config: ModelConfig) -> None:
    """Raises InvalidRequest naming what llama.cpp's graph of this family does not compute."""

    def refuse(what: str) -> InvalidRequest:
        return InvalidRequest(f"llama.cpp cannot run this {config.family.value} model: {what}")

    if isinstance(config.rope_scaling, Llama3Scaling) and config.family is not Family.LLAMA:
        raise refuse("Llama 3's rope scaling (rope_type llama3) is computed for llama models only")
    if isinstance(config.rope_scaling, YarnScaling) and not config.rope_scaling.truncate:
        raise refuse("YaRN without truncation (rope_scaling.truncate false)")
    if config.family is Family.QWEN3 and config.attention_bias:
        raise refuse("attention_bias true; its qwen3 has no bias on the attention's output")
    if config.family is Family.QWEN2 and config.num_heads * config.head_dim != config.hidden_size:
        raise refuse(
            f"{config.num_heads} heads of {config.head_dim} are not as wide as the model ({config.hidden_size})"
        )


def gguf_tensors(config: ModelConfig, stored: Mapping[str, StoredParameter], type: TensorType) -> list[GgufTensor]:
    """Every tensor of the file, unread. Vectors are float32, as llama.cpp wants them; so are the factors that carry
    Llama 3.1's rope scaling. Rows that do not fill blocks of Q8_0 are bfloat16."""
    tensors = []
    for name, shape in config.parameter_shapes().items():
        kept = TensorType.F32 if len(shape) == 1 else type
        if kept is TensorType.Q8_0 and shape[-1] % BLOCK:
            kept = TensorType.BF16
        tensor = GgufTensor(gguf_name(name), shape, kept, stored[name].read)
        heads = {"q_proj": config.num_heads, "k_proj": config.num_kv_heads}.get(name.split(".")[-2])
        if heads is not None and config.family is Family.LLAMA:
            tensor = replace(tensor, read=_pairs_adjacent(tensor.read, heads))
        tensors.append(tensor)
    if isinstance(config.rope_scaling, Llama3Scaling):
        plain, scaled = rotary_frequencies(replace(config, rope_scaling=None)), rotary_frequencies(config)
        factors = plain / scaled
        tensors.append(GgufTensor("rope_freqs.weight", tuple(factors.shape), TensorType.F32, lambda: factors))
    return tensors


def _pairs_adjacent(read: Callable[[], Tensor], heads: int) -> Callable[[], Tensor]:
    """llama.cpp's llama turns the planes (2i, 2i + 1) of a head where ours turns (i, i + d/2): reorder its rows."""

    def reordered() -> Tensor:
        rows = read()
        return rows.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)

    return reordered


def stored_type(stored: Mapping[str, StoredParameter]) -> TensorType:
    """The type that keeps a model as it is stored."""
    by_name = {"BF16": TensorType.BF16, "F16": TensorType.F16}
    return by_name.get(stored["model.embed_tokens.weight"].dtype, TensorType.F32)
