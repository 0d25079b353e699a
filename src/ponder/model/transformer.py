"""The transformer, top to bottom: Llama, Qwen2 and Qwen3. Training and decoding run this one file.

Axes: B sequences, T tokens, D model width, H query heads, K key/value heads, d head width, F MLP width, V vocabulary.
Parameters carry Hugging Face's names, so that a checkpoint maps one to one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ponder.gguf.layout import TensorType
from ponder.kernels.machine import product_dtype
from ponder.model.config import Llama3Scaling, ModelConfig, YarnScaling


class Attend(Protocol):
    """How queries meet keys. The engine passes its cache's; None in `Transformer` means causal self-attention.

    q_BHTd, k_BKTd, v_BKTd → o_BHTd, rotary embedding applied already, scores scaled by d ** -0.5 inside.
    """

    def __call__(self, layer: int, q_BHTd: Tensor, k_BKTd: Tensor, v_BKTd: Tensor) -> Tensor: ...


class Linear(nn.Linear):
    """A projection that computes in `compute_dtype`, whatever dtype its (master) weights are kept in."""

    compute_dtype: torch.dtype | None = None  # None: the weights' own

    def reset_parameters(self) -> None:
        """Initialisation is the model's (`Transformer.init_weights`)."""

    def forward(self, x: Tensor) -> Tensor:
        return project(x, self.weight, self.bias, self.compute_dtype)


def project(x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype | None) -> Tensor:
    dtype = product_dtype(dtype or weight.dtype, weight.device.type)
    return F.linear(x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))


class Embedding(nn.Embedding):
    """One vector per id."""

    def reset_parameters(self) -> None:
        """Initialisation is the model's; torch's own would also import its compiler on the meta device (1 s)."""


class RMSNorm(nn.Module):
    """Root mean square normalisation (arXiv 1910.07467), computed in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x32 = x.float()
        x32 = x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + self.eps)
        return (x32 * self.weight).to(x.dtype)


class Rotary(nn.Module):
    """Rotary position embedding (arXiv 2104.09864), half-split layout, with the scaling of Llama 3.1 or YaRN."""

    inv_freq: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        scaling = config.rope_scaling
        self.amplitude = scaling.attention_factor if isinstance(scaling, YarnScaling) else 1.0
        self.register_buffer("inv_freq", rotary_frequencies(config), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Rotary:
        super()._apply(fn, recurse)
        self.inv_freq = rotary_frequencies(self.config).to(self.inv_freq.device)  # `.to(bfloat16)` must not round them
        return self

    def forward(self, positions_BT: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin, each (B, 1, T, d/2) in float32."""
        angles = positions_BT[:, None, :, None].float() * self.inv_freq
        return angles.cos() * self.amplitude, angles.sin() * self.amplitude


def rotary_frequencies(config: ModelConfig) -> Tensor:
    """Radians per token for each of the d/2 planes, float32, on the CPU."""
    planes = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device="cpu") / config.head_dim
    frequencies = 1.0 / config.rope_theta**planes
    scaling = config.rope_scaling
    if isinstance(scaling, Llama3Scaling):
        # Llama 3.1's reference code: waves that fit the original window `high` times keep their frequency, waves that
        # do not fit it `low` times are stretched, and the rest is interpolated linearly in the number of turns.
        turns = scaling.original_max_positions * frequencies / (2 * math.pi)
        keep = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    elif isinstance(scaling, YarnScaling):
        # arXiv 2309.00071, section 3.2, equations 17 to 23; the ramp runs over plane indices as in its reference code.
        def plane_with(turns: float) -> float:
            ratio = scaling.original_max_positions / (turns * 2 * math.pi)
            return config.head_dim * math.log(ratio) / (2 * math.log(config.rope_theta))

        low, high = plane_with(scaling.beta_fast), plane_with(scaling.beta_slow)
        if scaling.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, config.head_dim - 1)
        width = high - low if high != low else 0.001
        keep = 1 - (torch.arange(config.head_dim // 2, dtype=torch.float32, device="cpu") - low) / width
    else:
        return frequencies
    keep = keep.clamp(0, 1)
    return frequencies * keep + frequencies / scaling.factor * (1 - keep)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each plane (i, i + d/2) of x (B, heads, T, d) by its angle. Computed in float32, returned in x's dtype."""
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        D, d = config.hidden_size, config.head_dim
        self.layer, self.head_dim = layer, d
        self.q_proj = Linear(D, config.num_heads * d, bias=config.attention_bias)
        self.k_proj = Linear(D, config.num_kv_heads * d, bias=config.attention_bias)
        self.v_proj = Linear(D, config.num_kv_heads * d, bias=config.attention_bias)
        self.o_proj = Linear(config.num_heads * d, D, bias=config.output_bias)
        self.q_norm = RMSNorm(d, config.rms_norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(d, config.rms_norm_eps) if config.qk_norm else nn.Identity()

    def forward(self, x_BTD: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, attend: Attend | None) -> Tensor:
        B, T, _ = x_BTD.shape
        q_BHTd = self.q_proj(x_BTD).view(B, T, -1, self.head_dim).transpose(1, 2)
        k_BKTd = self.k_proj(x_BTD).view(B, T, -1, self.head_dim).transpose(1, 2)
        v_BKTd = self.v_proj(x_BTD).view(B, T, -1, self.head_dim).transpose(1, 2)
        q_BHTd = rotate(self.q_norm(q_BHTd), cos, sin)
        k_BKTd = rotate(self.k_norm(k_BKTd), cos, sin)
        if attend is None:
            o_BHTd = attend_causally(q_BHTd, k_BKTd, v_BKTd, mask)
        else:
            o_BHTd = attend(self.layer, q_BHTd, k_BKTd, v_BKTd)
        return self.o_proj(o_BHTd.transpose(1, 2).reshape(B, T, -1))


class MLP(nn.Module):
    """SwiGLU (arXiv 2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))


class Block(nn.Module):
    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, h_BTD: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, attend: Attend | None) -> Tensor:
        h_BTD = h_BTD + self.self_attn(self.input_layernorm(h_BTD), cos, sin, mask, attend)
        return h_BTD + self.mlp(self.post_attention_layernorm(h_BTD))


@cache
def compiled_block() -> Callable[..., Tensor]:
    """One block compiled, for all layers and models of the same shapes: a sixth of a six-layer model's compile time."""
    return torch.compile(Block.forward, dynamic=False, fullgraph=True)


class Stack(nn.Module):
    """What Hugging Face's names put under `model.`: embedding, blocks, final norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary = Rotary(config)


@dataclass(frozen=True, slots=True)
class LoadedFrom:
    """The model folder from which weights were read, as an absolute path, and the dtype in which it stores them."""

    folder: str
    dtype: torch.dtype


class Transformer(nn.Module):
    """A decoder-only language model. Made with seeded random weights (unless on the meta device)."""

    loaded_from: LoadedFrom | None = None
    block_types: Mapping[str, TensorType] = MappingProxyType({})  # of parameters that are blocks of a mapped GGUF file
    interleaved: frozenset[str] = frozenset()  # of those, the ones whose rows are in llama.cpp's order

    def __init__(self, config: ModelConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.model = Stack(config)
        if not config.tie_embeddings:
            self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        self._compute_dtype: torch.dtype | None = None
        self.init_weights(seed)

    @property
    def compute_dtype(self) -> torch.dtype:
        """The precision that matrix products and attention are meant to have. Training in bfloat16 with float32 master
        weights is a float32 model with `model.compute_dtype = torch.bfloat16`; the residual stream stays in the
        weights' dtype."""
        return self._compute_dtype or self.model.embed_tokens.weight.dtype

    @compute_dtype.setter
    def compute_dtype(self, dtype: torch.dtype | None) -> None:
        self._compute_dtype = dtype
        for module in self.modules():
            if isinstance(module, Linear):
                module.compute_dtype = dtype

    @property
    def product_dtype(self) -> torch.dtype:
        """What torch multiplies in here: `compute_dtype`, or float32 where the processor has no such products."""
        return product_dtype(self.compute_dtype, self.model.embed_tokens.weight.device.type)

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Normal, deviation 0.02; projections back into the stream are divided by sqrt(2 x layers) (GPT-2, section
        2.3). Norms one, biases zero. The same seed gives the same weights on every device."""
        generator = torch.Generator("cpu").manual_seed(seed)
        for name, parameter in self.named_parameters():
            if parameter.is_meta:
                continue
            if parameter.dim() == 1:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
                continue
            back = name.endswith(("o_proj.weight", "down_proj.weight"))
            deviation = 0.02 / math.sqrt(2 * self.config.num_layers) if back else 0.02
            parameter.copy_(torch.empty(parameter.shape).normal_(0.0, deviation, generator=generator))

    def forward(
        self,
        ids_BT: Tensor,
        *,
        positions_BT: Tensor | None = None,
        attend: Attend | None = None,
        documents_BT: Tensor | None = None,
    ) -> Tensor:
        """ids_BT → logits_BTV, in the product dtype. Arguments as in `hidden`."""
        return self.unembed(self.hidden(ids_BT, positions_BT=positions_BT, attend=attend, documents_BT=documents_BT))

    def hidden(
        self,
        ids_BT: Tensor,
        *,
        positions_BT: Tensor | None = None,
        attend: Attend | None = None,
        documents_BT: Tensor | None = None,
    ) -> Tensor:
        """ids_BT → h_BTD with the final norm applied.

        positions_BT: place of each token in its document; None: counted from 0 in each document.
        attend: None is causal self-attention within the call, and with documents_BT (one number per document,
        tokens of a document adjacent) within each document. Not both.
        """
        return self.model.norm(self.stream(ids_BT, positions_BT=positions_BT, attend=attend, documents_BT=documents_BT))

    def stream(
        self,
        ids_BT: Tensor,
        *,
        positions_BT: Tensor | None = None,
        attend: Attend | None = None,
        documents_BT: Tensor | None = None,
        compiled: bool = False,
    ) -> Tensor:
        """The residual stream after the last block.

        compiled: whether the blocks run under torch.compile. Other arguments as in `hidden`.
        """
        if attend is not None and documents_BT is not None:
            raise ValueError(
                "documents_BT is for causal self-attention only: leave it out where the caller gives `attend`"
            )
        if positions_BT is None:
            positions_BT = count_positions(ids_BT, documents_BT)
        run = compiled_block() if compiled else Block.__call__
        cos, sin = self.model.rotary(positions_BT)
        mask = None if attend is not None else causal_mask(ids_BT, documents_BT, self.product_dtype)
        embedded_BTD = self.model.embed_tokens(ids_BT)
        h_BTD = embedded_BTD.to(torch.promote_types(embedded_BTD.dtype, self.product_dtype))
        for block in self.model.layers:
            h_BTD = run(block, h_BTD, cos, sin, mask, attend)
        return h_BTD

    def unembed(self, h_D: Tensor) -> Tensor:
        """Hidden states (..., D) → logits (..., V)."""
        weight = self.model.embed_tokens.weight if self.config.tie_embeddings else self.lm_head.weight
        return project(h_D, weight, None, self.compute_dtype)


def causal_mask(ids_BT: Tensor, documents_BT: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """What all layers add to their scores: 0 where a query may look, else -inf; (B or 1, 1, T, T).

    None is plain causal attention, where torch's fused kernel serves better than a mask of this size.
    """
    T = ids_BT.shape[1]
    if documents_BT is None and (ids_BT.device.type != "cpu" or T > 4096):
        return None
    index_T = torch.arange(T, device=ids_BT.device)
    seen_BTT = (index_T[:, None] >= index_T)[None]
    if documents_BT is not None:
        seen_BTT = seen_BTT & (documents_BT[:, :, None] == documents_BT[:, None, :])
    return torch.zeros_like(seen_BTT, dtype=dtype).masked_fill(~seen_BTT, float("-inf"))[:, None]


def attend_causally(q_BHTd: Tensor, k_BKTd: Tensor, v_BKTd: Tensor, mask: Tensor | None) -> Tensor:
    """Causal self-attention under a mask of `causal_mask`.

    On CPUs, plain matrix products, a block of queries at a time against the keys up to its end, beat torch's fused
    kernel several times over in bfloat16 (docs/LOG.md): the products run in oneDNN, and the compiler fuses the rest
    into one loop. Query heads that share a key head form one product.
    """
    if mask is None or q_BHTd.device.type != "cpu":
        return F.scaled_dot_product_attention(
            q_BHTd, k_BKTd, v_BKTd, attn_mask=mask, is_causal=mask is None, enable_gqa=True
        )
    B, H, T, d = q_BHTd.shape
    N = B * k_BKTd.shape[1]
    k_NTd, v_NTd = k_BKTd.reshape(N, T, d), v_BKTd.reshape(N, T, d)
    outputs = []
    rows = max(128, -(-T // 8))
    for begin in range(0, T, rows):
        end = min(begin + rows, T)
        q_NQd = q_BHTd[:, :, begin:end].reshape(N, -1, d)
        scores_BHQS = (q_NQd @ k_NTd[:, :end].transpose(1, 2)).view(B, H, end - begin, end)
        p_BHQS = (scores_BHQS.float() * d**-0.5 + mask[:, :, begin:end, :end]).softmax(-1).to(v_NTd.dtype)
        outputs.append((p_BHQS.view(N, -1, end) @ v_NTd[:, :end]).view(B, H, end - begin, d))
    return torch.cat(outputs, dim=2)


def count_positions(ids_BT: Tensor, documents_BT: Tensor | None) -> Tensor:
    """0, 1, 2, … along T, starting again where the document changes."""
    index_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device).expand_as(ids_BT)
    if documents_BT is None:
        return index_BT
    first_BT = F.pad(documents_BT[:, 1:] != documents_BT[:, :-1], (1, 0), value=True)
    return index_BT - torch.where(first_BT, index_BT, 0).cummax(dim=1).values
