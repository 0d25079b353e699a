"""Models in GGUF files: llama.cpp's names and sizes as ours, and its tensors as parameters under Hugging Face's names.

What this package does not compute is refused by name. llama.cpp's convert_hf_to_gguf.py and
src/models/{llama,qwen2,qwen3}.cpp say what the names mean.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ponder.gguf.blocks import dequantize
from ponder.gguf.layout import PONDER_KEY, TensorType
from ponder.gguf.reading import GgufFile, StoredBlocks, declared_ends, is_gguf
from ponder.kernels.fused import joined_matrices, packable
from ponder.model.config import Family, Llama3Scaling, ModelConfig, RopeScaling, YarnScaling
from ponder.model.transformer import LoadedFrom, Transformer, rotary_frequencies
from ponder.types import CheckpointError

ROPE_FACTORS = "rope_freqs.weight"  # Llama 3.1's scaling, a factor for each plane
_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
# Fields of an architecture that change nothing here, or whose only value served is the one given.
_HARMLESS = ("tensor_data_layout", "rope.scaling.finetuned")
_ONLY: dict[str, tuple[object, ...]] = {
    "use_parallel_residual": (False,),
    "attention.causal": (True,),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "attention.sliding_window": (0,),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "attention.scale": (0.0,),
    "logit_scale": (0.0,),
    "residual_scale": (0.0,),
    "embedding_scale": (0.0,),
    "final_logit_softcapping": (0.0,),
    "rope.scale_linear": (1.0,),
    "pooling_type": (0,),
}
_READ = (
    *("vocab_size", "context_length", "embedding_length", "block_count", "feed_forward_length"),
    *("attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length"),
    *("attention.layer_norm_rms_epsilon", "rope.dimension_count", "rope.freq_base", "rope.scaling.type"),
    *("rope.scaling.factor", "rope.scaling.original_context_length", "rope.scaling.attn_factor"),
    *("rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow"),
    *("rope.scaling.yarn_ext_factor", "rope.scaling.yarn_attn_factor"),
)


class GgufParameter:
    """A parameter in a GGUF file, not read yet. dtype: what the file's model is loaded in, as safetensors names it."""

    def __init__(self, file: GgufFile, stored: StoredBlocks, dtype: str, heads: int | None) -> None:
        """heads: of a llama's query or key projection, whose rows llama.cpp keeps in another order."""
        self.file, self.stored, self.dtype, self.heads = file, stored, dtype, heads
        self.path, self.shape = file.path, stored.shape

    def read(self) -> Tensor:
        """The values as float32."""
        values = dequantize(self.file.read(self.stored), self.stored.type)
        if self.heads is not None:
            values = _halves_apart(values.reshape(self.shape[0], -1), self.heads)
        return torch.from_numpy(values).reshape(self.shape)

    def blocks(self) -> Tensor:
        """The values as the file stores them, where it is mapped: bytes, (rows, bytes of a row). Rows of `heads` are in
        llama.cpp's order."""
        return torch.from_numpy(self.file.mapped(self.stored).reshape(self.shape[0], -1))

    def fail(self, why: str) -> CheckpointError:
        return self.file.fail(f"tensor {self.stored.name!r}: {why}")


def gguf_name(name: str) -> str:
    """llama.cpp's name of a tensor of Hugging Face's."""
    path, _, kind = name.rpartition(".")
    if path.startswith("model.layers."):
        _, _, layer, inner = path.split(".", 3)
        return f"blk.{layer}.{_NAMES[inner]}.{kind}"
    return f"{_NAMES[path]}.{kind}"


def open_gguf(path: str | Path) -> tuple[ModelConfig, dict[str, GgufParameter]]:
    """The configuration and the parameters of a GGUF file, checked and not read yet. Raises CheckpointError."""
    file = GgufFile(path)
    config = gguf_config(file)
    parameters: dict[str, GgufParameter] = {}
    # The fused step computes in bfloat16; float32 is for files that hold nothing else.
    matrices = {stored.type for stored in file.tensors.values() if len(stored.shape) > 1}
    dtype = "F32" if matrices == {TensorType.F32} else "BF16"
    for name, shape in config.parameter_shapes().items():
        stored = file.tensors.get(gguf_name(name))
        if stored is None:
            raise file.fail(f"tensor {gguf_name(name)!r}: missing")
        if stored.shape != shape:
            raise file.fail(f"tensor {stored.name!r}: has shape {stored.shape}, the file's sizes ask for {shape}")
        heads = {"q_proj": config.num_heads, "k_proj": config.num_kv_heads}.get(name.split(".")[-2])
        parameters[name] = GgufParameter(file, stored, dtype, heads if config.family is Family.LLAMA else None)
    known = {*map(gguf_name, parameters), ROPE_FACTORS}
    for name in file.tensors:
        if name not in known:
            raise file.fail(f"tensor {name!r}: {config.family.value} has no such tensor here; not supported")
    return config, parameters


def load_blocks(path: str | Path) -> Transformer | None:
    """A model whose matrices stay in the file, mapped, and whose other parameters are float32: for the fused step,
    which packs and computes with such blocks. None for what is not a GGUF file, or has no matrix that it computes with
    as stored.

    Raises CheckpointError.
    """
    if not is_gguf(path):
        return None
    config, parameters = open_gguf(path)
    head = "model.embed_tokens.weight" if config.tie_embeddings else "lm_head.weight"
    types: dict[str, TensorType] = {}
    for names in (*joined_matrices(config.num_layers), [head]):
        stored = [parameters[name].stored.type for name in names]
        if packable(stored):
            types |= zip(names, stored, strict=True)
    if not types:
        return None
    with torch.device("meta"):
        model = Transformer(config)
    for name, parameter in parameters.items():
        module, _, kind = name.rpartition(".")
        values = parameter.blocks() if name in types else parameter.read()
        setattr(model.get_submodule(module), kind, nn.Parameter(values, requires_grad=False))
    model.compute_dtype = torch.bfloat16
    model.block_types = types
    model.interleaved = frozenset(name for name in types if parameters[name].heads is not None)
    model.loaded_from = LoadedFrom(os.path.abspath(path), torch.bfloat16)
    return model.to("cpu")


def gguf_config(file: GgufFile) -> ModelConfig:
    """The sizes that a file declares. Raises CheckpointError naming file and key."""
    return _GgufSizes(file).config()


class _GgufSizes:
    """Typed access to the fields of one architecture."""

    def __init__(self, file: GgufFile) -> None:
        self.file = file
        name = file.text("general.architecture")
        if name not in list(Family):
            raise file.fail(f"architecture {name!r:.80} is not supported; supported: {', '.join(Family)}")
        self.family = Family(name)

    def key(self, key: str) -> str:
        return f"{self.family.value}.{key}"

    def integer(self, key: str, default: int | None = None) -> int:
        return self.file.integer(self.key(key), default)

    def number(self, key: str, default: float | None = None) -> float:
        value = self.file.number(self.key(key), default)
        if not math.isfinite(value):
            raise self.file.fail(f"key '{self.key(key)}': must be finite (got {value})")
        return value

    def config(self) -> ModelConfig:
        self.refuse_unsupported()
        hidden, heads = self.integer("embedding_length"), self.integer("attention.head_count")
        head_dim = self.integer("attention.key_length", hidden // max(heads, 1))
        for key in ("attention.value_length", "rope.dimension_count"):
            if self.integer(key, head_dim) != head_dim:
                raise self.file.fail(f"key '{self.key(key)}': {self.integer(key)} is not supported; only {head_dim}")
        embedding = self.file.tensors.get("token_embd.weight")
        if embedding is None:
            raise self.file.fail("tensor 'token_embd.weight': missing")
        vocab_size = self.integer("vocab_size", embedding.shape[0])
        thinking = PONDER_KEY + "thinking_tokens"
        sizes: dict[str, Any] = {
            "family": self.family,
            "vocab_size": vocab_size,
            "hidden_size": hidden,
            "num_layers": self.integer("block_count"),
            "num_heads": heads,
            "num_kv_heads": self.integer("attention.head_count_kv", heads),
            "head_dim": head_dim,
            "intermediate_size": self.integer("feed_forward_length"),
            "rms_norm_eps": self.number("attention.layer_norm_rms_epsilon"),
            "rope_theta": self.number("rope.freq_base", 10_000.0),
            "qk_norm": self.family is Family.QWEN3,
            "attention_bias": self.family is Family.QWEN2 or "blk.0.attn_q.bias" in self.file.tensors,
            "tie_embeddings": "output.weight" not in self.file.tensors,
            "max_positions": self.integer("context_length"),
            "bos_token_id": self.token_id("bos_token_id"),
            "eos_token_ids": declared_ends(self.file),
            "pad_token_id": self.token_id("padding_token_id"),
            "thinking_tokens": self.file.integer(thinking) if thinking in self.file.fields else None,
            "repeats": self.file.integer(PONDER_KEY + "repeats", 0),
            "voices": self.file.integer(PONDER_KEY + "voices", 0),
        }
        try:
            plain = ModelConfig(**sizes)
            return ModelConfig(**sizes | {"rope_scaling": self.scaling(plain)})
        except ValueError as error:
            raise self.file.fail(str(error)) from error

    def token_id(self, key: str) -> int | None:
        key = f"tokenizer.ggml.{key}"
        return self.file.integer(key) if key in self.file.fields else None

    def refuse_unsupported(self) -> None:
        """Values that would change what is computed, and that this package does not compute."""
        prefix = self.key("")
        for key, value in self.file.fields.items():
            if not key.startswith(prefix):
                continue
            own = key.removeprefix(prefix)
            if own in _ONLY:
                if value not in _ONLY[own]:
                    raise self.file.fail(f"key '{key}': {value!r:.80} is not supported; supported: {_ONLY[own][0]}")
            elif own not in _READ and own not in _HARMLESS:
                raise self.file.fail(f"key '{key}': {value!r:.80} is not supported with {self.family.value}")

    def scaling(self, plain: ModelConfig) -> RopeScaling | None:
        kind = self.file.text(self.key("rope.scaling.type"), "none")
        factor = self.number("rope.scaling.factor", 1.0)
        factors = self.file.tensors.get(ROPE_FACTORS)
        if factors is not None:
            if kind == "yarn":
                raise self.file.fail(f"tensor {ROPE_FACTORS!r}: factors and rope.scaling.type yarn are not supported")
            return self.llama3(plain, factors)
        if kind == "none" or (kind == "linear" and factor in (0.0, 1.0)):
            return None
        if kind != "yarn":
            raise self.file.fail(f"key '{self.key('rope.scaling.type')}': {kind!r:.80} is not supported; only yarn")
        if factor <= 0:
            raise self.file.fail(f"key '{self.key('rope.scaling.factor')}': must be above 0 (got {factor})")
        # llama.cpp multiplies the attention factor by YaRN's own, which ours holds already
        usual = 0.1 * math.log(factor) + 1 if factor > 1 else 1.0
        for key, only in (("rope.scaling.yarn_ext_factor", 1.0), ("rope.scaling.yarn_attn_factor", 1.0)):
            if self.number(key, only) != only:
                raise self.file.fail(f"key '{self.key(key)}': {self.number(key)} is not supported; only {only}")
        return YarnScaling(
            factor=factor,
            original_max_positions=self.integer("rope.scaling.original_context_length", plain.max_positions),
            attention_factor=self.number("rope.scaling.attn_factor", 1.0) * usual,
            beta_fast=self.number("rope.scaling.yarn_beta_fast", 32.0),
            beta_slow=self.number("rope.scaling.yarn_beta_slow", 1.0),
        )

    def llama3(self, plain: ModelConfig, stored: StoredBlocks) -> Llama3Scaling:
        """The scaling whose factors a file holds. The files of Llama 3.1 give no more than these."""
        if stored.shape != (plain.head_dim // 2,) or stored.type is not TensorType.F32:
            raise self.file.fail(f"tensor {stored.name!r}: must be {plain.head_dim // 2} numbers in F32")
        factors = torch.from_numpy(dequantize(self.file.read(stored), stored.type))
        frequencies = rotary_frequencies(plain)
        window = self.integer("rope.scaling.original_context_length", min(8192, plain.max_positions))
        found = _llama3_of(factors.double(), frequencies.double(), window)
        if found is not None:
            sizes = {name: getattr(plain, name) for name in plain.__slots__} | {"rope_scaling": found}
            scaled = rotary_frequencies(ModelConfig(**sizes))
            if torch.allclose(scaled, frequencies / factors, rtol=1e-4, atol=0):
                return found
        raise self.file.fail(f"tensor {stored.name!r}: these factors are not Llama 3's scaling; supported: only that")


def _llama3_of(factors: Tensor, frequencies: Tensor, window: int) -> Llama3Scaling | None:
    """Parameters that give these factors. 1/f is a clamped straight line in the number of turns within the window."""
    if not factors.isfinite().all() or not (factors >= 1).all():
        return None
    factor = float(factors.max())
    if factor == 1:
        return None
    turns = window * frequencies / (2 * math.pi)
    keep = (1 / factors - 1 / factor) / (1 - 1 / factor)
    ramp = (keep > 1e-6) & (keep < 1 - 1e-6)
    if ramp.sum() >= 2:
        slope, offset = np.polyfit(turns[ramp].numpy(), keep[ramp].numpy(), 1)
        low, high = -offset / slope, (1 - offset) / slope
        # Published models have round numbers; a fit has the rounding of float32.
        low, high = (round(x, 3) if abs(x - round(x, 3)) < 1e-3 * x else x for x in (float(low), float(high)))
    else:
        kept, stretched = turns[keep >= 0.5], turns[keep < 0.5]
        high = float(kept.min()) if len(kept) else 2 * float(turns.max())
        low = float(stretched.max()) if len(stretched) else float(turns.min()) / 2
        if ramp.any():
            return None
    if not 0 < low < high:
        return None
    return Llama3Scaling(factor=factor, low_freq_factor=low, high_freq_factor=high, original_max_positions=window)


def _halves_apart(rows: np.ndarray, heads: int) -> np.ndarray:
    """Ours turns the planes (i, i + d/2) of a head where llama.cpp's llama turns (2i, 2i + 1): reorder its rows."""
    width = rows.shape[1]
    return rows.reshape(heads, -1, 2, width).swapaxes(1, 2).reshape(-1, width)
