"""The blocks of a decoder for training on a CPU: products by torch, all between them compiled (`cpu/training.h`).

Axes: B sequences, T tokens of each, N = B x T rows, D model width, F MLP width, V vocabulary. Products in bfloat16 on
AMX, else in float32, over float32 weights, whose copies serve all micro-batches of a step. Frozen weights may be
of the products' dtype, and are then read in place; beside them, LoRA adapters train.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ponder.kernels.build import BuildError, library
from ponder.kernels.fused import StepShape
from ponder.kernels.machine import InstructionSet, machine, product_dtype

_WIDEST_HEAD, _LARGEST_GROUP = 256, 32
_PIECE = 32  # rows that share one partial sum of a norm's gradient: ROWS of cpu/training.cpp
_QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_GATE_UP = ("mlp.gate_proj", "mlp.up_proj")


class _Causal(ctypes.Structure):
    """`Causal` of cpu/causal.h."""

    _fields_ = (
        *((name, ctypes.c_int) for name in ("batch", "tokens", "heads", "kv_heads", "head_dim", "tiles", "threads")),
        ("eps", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("qkv", "q_weight", "k_weight", "cos", "sin", "starts", "out", "masses")),
        *((name, ctypes.c_void_p) for name in ("d_out", "d_qkv", "d_q_weight", "d_k_weight")),
    )


class _Gradient(ctypes.Structure):
    """`Gradient` of cpu/gradient.h."""

    _fields_ = (
        *((name, ctypes.c_long) for name in ("tokens", "outputs", "inputs", "ld_left", "ld_right")),
        *((name, ctypes.c_void_p) for name in ("left", "right")),
        *(("to", ctypes.c_void_p * 3), ("rows", ctypes.c_long * 3)),
        *((name, ctypes.c_int) for name in ("threads", "add", "turned")),
    )


def training_obstacle(shape: StepShape, weights: Mapping[str, Tensor], compute_dtype: torch.dtype) -> str:
    """Why `TrainingStack` cannot train this model here; "" if it can. Weights of adapters stand beside the others."""
    if any(tensor.device.type != "cpu" for tensor in weights.values()):
        return "the model is not on the CPU"
    dtype = product_dtype(compute_dtype, "cpu")
    if dtype not in (torch.bfloat16, torch.float32):
        return f"the model computes in {_name(dtype)}; the kernels are for bfloat16 and float32"
    if any(each.dtype != torch.float32 and not _read_in_place(name, each, dtype) for name, each in weights.items()):
        return f"the kernels train float32 weights, beside frozen projections of float32 or {_name(dtype)}"
    if shape.head_dim % 32 or shape.head_dim > _WIDEST_HEAD:
        return f"head_dim {shape.head_dim}: the kernels take multiples of 32 up to {_WIDEST_HEAD}"
    if shape.num_heads // shape.num_kv_heads > _LARGEST_GROUP:
        return f"more than {_LARGEST_GROUP} query heads share a key/value head"
    if shape.hidden_size % 32 or shape.intermediate_size % 32:
        return "the kernels take widths that are multiples of 32"
    if dtype == torch.bfloat16 and machine().instructions is not InstructionSet.AMX:
        # Without tiles torch's own products of small blocks, fused by torch.compile, have not been beaten.
        return f"the kernels are for bfloat16 on AMX tiles, and for float32: {machine().reason}"
    try:
        lib = _library(dtype)
    except BuildError as error:
        return str(error)
    if dtype == torch.bfloat16 and not lib.ponder_training_tiles():
        return "the system does not permit this process to use AMX"
    return ""


@dataclass(slots=True)
class _Layer:
    """One block's projections; those that read the same rows are one."""

    name: str
    qkv: _Projection
    o: _Projection
    gate_up: _Projection
    down: _Projection


@dataclass(slots=True)
class _Kept:
    """What the backward pass of a block needs of its forward pass."""

    h: Tensor  # the residual stream, (N, D) float32
    x: Tensor  # its norm
    scale: Tensor
    qkv: Tensor
    out: Tensor
    masses: Tensor
    middle: Tensor  # the residual stream between attention and MLP
    y: Tensor  # its norm
    middle_scale: Tensor
    gate_up: Tensor
    lows: tuple[Tensor | None, ...] = ()  # what adapters made of x, out, y and the MLP's product


class _Projection:
    """Projections that read the same rows, as one product, and what adapters add: y = x W^T + b + (x A^T) B^T.

    low_A: A of every part, one after the other, (R, in).
    low_B: B of every part times alpha / rank, in blocks on the diagonal, (out, R).
    R is padded with zeros to a multiple of 32. Without adapters both are None.
    """

    def __init__(
        self, parts: Sequence[str], weights: Mapping[str, Tensor], scales: Mapping[str, float], dtype: torch.dtype
    ) -> None:
        """parts: names of the projections. weights: all parameters, adapters included. scales: alpha / rank by name."""
        self._parts, self._weights, self._scales = parts, weights, scales
        self._masters = [weights[f"{part}.weight"] for part in parts]
        self.weight = _joined(self._masters, dtype)
        biased = f"{parts[0]}.bias" in weights
        self.bias = torch.cat([weights[f"{part}.bias"].detach().to(dtype) for part in parts]) if biased else None
        self.low_A: Tensor | None = None
        self.low_B: Tensor | None = None
        rank = sum(len(weights[f"{part}.lora_A"]) for part in parts if part in scales)
        if rank:
            self.low_A = self.weight.new_zeros(-(-rank // 32) * 32, self.weight.shape[1])
            self.low_B = self.weight.new_zeros(len(self.weight), len(self.low_A))
            for part, rows, columns in self._places():
                self.low_A[columns] = weights[f"{part}.lora_A"].detach()
                self.low_B[rows, columns] = weights[f"{part}.lora_B"].detach() * scales[part]

    def _places(self) -> Iterator[tuple[str, slice, slice]]:
        """Of each part with an adapter its name, its outputs and its ranks."""
        output = rank = 0
        for part, master in zip(self._parts, self._masters, strict=True):
            if part in self._scales:
                own = len(self._weights[f"{part}.lora_A"])
                yield part, slice(output, output + len(master)), slice(rank, rank + own)
                rank += own
            output += len(master)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """(y, what the adapters made of x)."""
        y = F.linear(x, self.weight, self.bias)
        if self.low_A is None or self.low_B is None:
            return y, None
        low = x @ self.low_A.t()
        return y.addmm_(low, self.low_B.t()), low

    def backward(self, d_y: Tensor) -> tuple[Tensor, Tensor | None]:
        """The gradients of x, and of what the adapters made of it."""
        d_x = d_y @ self.weight
        if self.low_A is None or self.low_B is None:
            return d_x, None
        d_low = d_y @ self.low_B
        return d_x.addmm_(d_low, self.low_A), d_low

    def learn(self, d_y: Tensor, x: Tensor, low: Tensor | None, d_low: Tensor | None) -> None:
        """Add up the gradients of the weights that train."""
        if any(master.requires_grad for master in self._masters):
            add_product_([_gradient_of(master) for master in self._masters], d_y, x)
        first = 0
        for part, master in zip(self._parts, self._masters, strict=True):
            bias = self._weights.get(f"{part}.bias")
            if bias is not None and bias.requires_grad:
                add_gradient(bias, d_y[:, first : first + len(master)].float().sum(0))
            first += len(master)
        if low is None or d_low is None:
            return
        d_A, d_B = torch.empty(low.shape[1], x.shape[1]), torch.empty(d_y.shape[1], low.shape[1])
        add_product_([(d_A, False)], d_low, x)
        add_product_([(d_B, False)], d_y, low)
        for part, rows, columns in self._places():
            add_gradient(self._weights[f"{part}.lora_A"], d_A[columns])
            add_gradient(self._weights[f"{part}.lora_B"], d_B[rows, columns] * self._scales[part])


class TrainingStack:
    """One model's embedding, blocks and final norm, token ids to normed hidden states, with gradients.

    weights: all parameters under Hugging Face's names, those of adapters as PROJECTION.lora_A (rank, in) and lora_B
        (out, rank). Matrices that train are copied here: make another one when they change. Their gradients are added
        to `.grad` during the backward pass.
    scales: alpha / rank of each projection that has an adapter, by its name.
    dtype: of the products, as `training_obstacle` allows it.
    """

    def __init__(
        self,
        shape: StepShape,
        weights: Mapping[str, Tensor],
        scales: Mapping[str, float] | None = None,
        *,
        dtype: torch.dtype = torch.bfloat16,
        tiles: bool = True,
    ) -> None:
        self.shape, self.weights, self._scales, self.dtype = shape, weights, scales or {}, dtype
        self._tiles = tiles
        self._lib = _library(dtype)
        self._layers = [self._copy(f"model.layers.{layer}.") for layer in range(shape.num_layers)]

    def hidden(self, ids_BT: Tensor, cos: Tensor, sin: Tensor, starts_BT: Tensor) -> Tensor:
        """ids_BT → x_ND in `dtype`, the final norm applied.

        cos, sin: (B, 1, T, d/2) float32.
        starts_BT: int32, the first token that each token may see; never falling.
        """
        keep = torch.is_grad_enabled() and any(weight.requires_grad for weight in self.weights.values())
        anchor = torch.empty(0, requires_grad=keep)
        angles = [table.expand(len(ids_BT), -1, -1, -1).contiguous() for table in (cos, sin)]
        result: Tensor = _Stack.apply(anchor, self, ids_BT, *angles, starts_BT.contiguous(), keep)
        return result

    @torch.no_grad()
    def _copy(self, name: str) -> _Layer:
        def projection(*parts: str) -> _Projection:
            return _Projection([f"{name}{part}" for part in parts], self.weights, self._scales, self.dtype)

        return _Layer(
            *(name, projection(*_QKV), projection("self_attn.o_proj")),
            *(projection(*_GATE_UP), projection("mlp.down_proj")),
        )

    def add_gradient(self, name: str, gradient: Tensor) -> None:
        """To the weight's `.grad`, unless it is frozen."""
        if self.weights[name].requires_grad:
            add_gradient(self.weights[name], gradient)

    def norm(self, name: str, h: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """h + y in float32, its norm, and the scale of each row."""
        total = h if y is None else torch.empty_like(h)
        out = torch.empty(h.shape, dtype=self.dtype)
        scales = torch.empty(len(h))
        self._lib.ponder_norm(
            *(_threads(), *h.shape, h.data_ptr(), None if y is None else y.data_ptr()),
            *(self.weights[name].data_ptr(), self.shape.rms_norm_eps),
            *(total.data_ptr(), out.data_ptr(), scales.data_ptr()),
        )
        return total, out, scales

    def norm_backward(
        self, name: str, h: Tensor, scales: Tensor, d_x: Tensor, d: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The gradient of h in float32 and in `dtype`, given that of its norm and `d`, that of what else h went into.
        `d` is overwritten."""
        to = torch.empty_like(h) if d is None else d
        rounded = to if self.dtype == to.dtype else torch.empty_like(d_x)
        partial_sums = torch.empty(-(-len(h) // _PIECE), h.shape[1])
        self._lib.ponder_norm_backward(
            *(_threads(), *h.shape, h.data_ptr(), scales.data_ptr(), self.weights[name].data_ptr(), d_x.data_ptr()),
            *(None if d is None else d.data_ptr(), to.data_ptr(), rounded.data_ptr(), partial_sums.data_ptr()),
        )
        self.add_gradient(name, partial_sums.sum(0))
        return to, rounded

    def causal(self, layer: _Layer, qkv: Tensor, cos: Tensor, sin: Tensor, starts_BT: Tensor) -> _Causal:
        s = self.shape
        batch, tokens = starts_BT.shape
        weights = [self.weights.get(f"{layer.name}self_attn.{part}_norm.weight") for part in "qk"]
        pointers = [None if weight is None else weight.data_ptr() for weight in weights]
        return _Causal(
            *(batch, tokens, s.num_heads, s.num_kv_heads, s.head_dim, self._tiles, _threads(), s.rms_norm_eps),
            *(qkv.data_ptr(), *pointers, cos.data_ptr(), sin.data_ptr(), starts_BT.data_ptr()),
        )

    def attend(self, layer: _Layer, qkv: Tensor, cos: Tensor, sin: Tensor, starts_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Raw projections → mixed values (N, H d), and what the backward pass wants."""
        call = self.causal(layer, qkv, cos, sin, starts_BT)
        out = torch.empty(len(qkv), self.shape.num_heads * self.shape.head_dim, dtype=self.dtype)
        masses = torch.empty(self.shape.num_heads * len(qkv))
        call.out, call.masses = out.data_ptr(), masses.data_ptr()
        self._causal(call, backward=False)
        return out, masses

    def attend_backward(
        self, layer: _Layer, kept: _Kept, cos: Tensor, sin: Tensor, starts_BT: Tensor, d_out: Tensor
    ) -> Tensor:
        call = self.causal(layer, kept.qkv, cos, sin, starts_BT)
        d_qkv = torch.empty_like(kept.qkv)
        shares = torch.empty(2, len(starts_BT) * self.shape.num_kv_heads, self.shape.head_dim)
        call.out, call.masses = kept.out.data_ptr(), kept.masses.data_ptr()
        call.d_out, call.d_qkv = d_out.data_ptr(), d_qkv.data_ptr()
        call.d_q_weight, call.d_k_weight = shares[0].data_ptr(), shares[1].data_ptr()
        self._causal(call, backward=True)
        if self.shape.qk_norm:
            for part, share in zip("qk", shares, strict=True):
                self.add_gradient(f"{layer.name}self_attn.{part}_norm.weight", share.sum(0))
        return d_qkv

    def _causal(self, call: _Causal, *, backward: bool) -> None:
        if self._lib.ponder_causal(ctypes.byref(call), backward):
            raise MemoryError(f"no memory for attention over {call.tokens} tokens")

    def swiglu(self, gate_up: Tensor) -> Tensor:
        width = gate_up.shape[1] // 2
        out = gate_up.new_empty(len(gate_up), width)
        self._lib.ponder_swiglu(_threads(), *out.shape, gate_up.data_ptr(), out.data_ptr())
        return out

    def swiglu_backward(self, gate_up: Tensor, d_out: Tensor) -> tuple[Tensor, Tensor]:
        """(the gradient of gate_up, in its place; `swiglu` of it once more)."""
        out = torch.empty_like(d_out)
        self._lib.ponder_swiglu_backward(
            *(_threads(), *d_out.shape, gate_up.data_ptr(), d_out.data_ptr(), gate_up.data_ptr(), out.data_ptr())
        )
        return gate_up, out

    def forward(
        self, ids_N: Tensor, cos: Tensor, sin: Tensor, starts_BT: Tensor, keep: bool
    ) -> tuple[Tensor, Tensor, Tensor, list[_Kept]]:
        """(normed hidden states, the stream before the norm, its scales, what each block keeps)."""
        h = self.weights["model.embed_tokens.weight"].index_select(0, ids_N)
        y: Tensor | None = None
        all_kept = []
        for layer in self._layers:
            h, x, scale = self.norm(f"{layer.name}input_layernorm.weight", h, y)
            qkv, low_x = layer.qkv.forward(x)
            out, masses = self.attend(layer, qkv, cos, sin, starts_BT)
            y, low_out = layer.o.forward(out)
            middle, z, middle_scale = self.norm(f"{layer.name}post_attention_layernorm.weight", h, y)
            gate_up, low_z = layer.gate_up.forward(z)
            y, low_mixed = layer.down.forward(self.swiglu(gate_up))
            if keep:
                lows = low_x, low_out, low_z, low_mixed
                all_kept.append(_Kept(h, x, scale, qkv, out, masses, middle, z, middle_scale, gate_up, lows))
            h = middle
        h, x, scale = self.norm("model.norm.weight", h, y)
        return x, h, scale, all_kept

    def backward(
        self,
        ids_N: Tensor,
        cos: Tensor,
        sin: Tensor,
        starts_BT: Tensor,
        h: Tensor,
        scale: Tensor,
        all_kept: list[_Kept],
        d_x: Tensor,
    ) -> None:
        """Adds up the gradients of all weights. Empties all_kept as it goes."""
        d, rounded = self.norm_backward("model.norm.weight", h, scale, d_x, None)
        for layer in reversed(self._layers):
            kept, name = all_kept.pop(), layer.name
            low_x, low_out, low_z, low_mixed = kept.lows
            d_mixed, d_low = layer.down.backward(rounded)
            d_gate_up, mixed = self.swiglu_backward(kept.gate_up, d_mixed)
            layer.down.learn(rounded, mixed, low_mixed, d_low)
            d_z, d_low = layer.gate_up.backward(d_gate_up)
            layer.gate_up.learn(d_gate_up, kept.y, low_z, d_low)
            norm = f"{name}post_attention_layernorm.weight"
            d, rounded = self.norm_backward(norm, kept.middle, kept.middle_scale, d_z, d)
            d_out, d_low = layer.o.backward(rounded)
            layer.o.learn(rounded, kept.out, low_out, d_low)
            d_qkv = self.attend_backward(layer, kept, cos, sin, starts_BT, d_out)
            d_x, d_low = layer.qkv.backward(d_qkv)
            layer.qkv.learn(d_qkv, kept.x, low_x, d_low)
            norm = f"{name}input_layernorm.weight"
            d, rounded = self.norm_backward(norm, kept.h, kept.scale, d_x, d)
        embedding = self.weights["model.embed_tokens.weight"]
        if embedding.requires_grad:
            if embedding.grad is None:
                embedding.grad = torch.zeros_like(embedding)
            embedding.grad.index_add_(0, ids_N, d)


class _Stack(torch.autograd.Function):
    """`TrainingStack` to autograd: the anchor stands for the weights, whose gradients are added up directly."""

    @staticmethod
    def forward(
        ctx: Any,
        anchor: Tensor,
        stack: TrainingStack,
        ids_BT: Tensor,
        cos: Tensor,
        sin: Tensor,
        starts_BT: Tensor,
        keep: bool,
    ) -> Tensor:
        inputs = (ids_BT.flatten(), cos, sin, starts_BT)
        x, h, scale, kept = stack.forward(*inputs, keep)
        ctx.run_backward = partial(stack.backward, *inputs, h, scale, kept) if keep else None
        return x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_x: Tensor) -> tuple[None, ...]:
        run, ctx.run_backward = ctx.run_backward, None
        if run is None:
            raise RuntimeError("the backward pass of a training step can run only once")
        run(d_x.contiguous())
        return (None,) * 7


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _read_in_place(name: str, tensor: Tensor, dtype: torch.dtype) -> bool:
    return name.endswith("_proj.weight") and tensor.dtype == dtype and not tensor.requires_grad


def _joined(weights: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Matrices one after the other in `dtype`: no copy where they are so already, and adjacent (`lay_together`)."""
    first, follows = weights[0], weights[0].data_ptr()
    for each in weights:
        if each.dtype != dtype or not each.is_contiguous() or each.data_ptr() != follows:
            return torch.cat([weight.detach().to(dtype) for weight in weights])
        follows += each.numel() * each.itemsize
    width = first.shape[1]
    return first.detach().as_strided((sum(map(len, weights)), width), (width, 1))


def lay_together(weights: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    """Hold frozen projections in `dtype`; those that read the same rows become parts of one matrix.

    weights: all parameters under Hugging Face's names.
    """
    names = [name.removesuffix(".weight") for name in weights if name.endswith("_proj.weight")]
    blocks = dict.fromkeys(name.rsplit(".", 2)[0] for name in names)
    for block in blocks:
        for parts in (_QKV, ("self_attn.o_proj",), _GATE_UP, ("mlp.down_proj",)):
            found = [weights[f"{block}.{part}.weight"] for part in parts]
            if any(each.requires_grad for each in found):
                continue
            whole = torch.cat([each.detach().to(dtype) for each in found])
            for each, own in zip(found, whole.split([len(each) for each in found]), strict=True):
                each.data = own


def add_gradient(weight: Tensor, gradient: Tensor) -> None:
    weight.grad = gradient if weight.grad is None else weight.grad.add_(gradient)


def _gradient_of(weight: Tensor) -> tuple[Tensor, bool]:
    """Where to add up the gradient, and whether something is there; a frozen weight's is dropped."""
    if weight.grad is not None:
        return weight.grad, True
    gradient = torch.empty_like(weight)
    if weight.requires_grad:
        weight.grad = gradient
    return gradient, False


def add_product_(sums: list[tuple[Tensor, bool]], left: Tensor, right: Tensor) -> None:
    """left^T right (N rows each) into up to three float32 matrices whose rows follow one another.

    sums: each matrix and whether to add to it, or to overwrite it. Widths of bfloat16 are multiples of 32.
    """
    if left.dtype == torch.float32:
        first = 0
        for matrix, add in sums:
            matrix.addmm_(left[:, first : first + len(matrix)].t(), right, beta=float(add))
            first += len(matrix)
        return
    if len({add for _, add in sums}) > 1:
        sums = [(matrix if add else matrix.zero_(), True) for matrix, add in sums]
    matrices = [matrix for matrix, _ in sums]
    turned = len(matrices) == 1 and left.shape[1] < right.shape[1]  # the wider side is the left one
    if turned:
        left, right = right, left
    call = _Gradient(
        *(len(left), left.shape[1], right.shape[1], left.stride(0), right.stride(0), left.data_ptr(), right.data_ptr()),
        (ctypes.c_void_p * 3)(*(matrix.data_ptr() for matrix in matrices)),
        (ctypes.c_long * 3)(*([left.shape[1]] if turned else (len(matrix) for matrix in matrices))),
        *(_threads(), sums[0][1], turned),
    )
    if _library(torch.bfloat16).ponder_gradient(ctypes.byref(call)):
        raise MemoryError(f"no memory for a gradient over {len(left)} tokens")


def cross_entropy_(logits_NV: Tensor, targets_N: Tensor, weights_N: Tensor, *, back: bool) -> Tensor:
    """weights x cross entropy of each row, float32.

    logits_NV: contiguous bfloat16 or float32 on the CPU; with `back` they become the gradient of the sum of what is
        returned. Targets of weight 0 are not read.
    """
    losses = torch.empty(len(logits_NV))
    if _library(logits_NV.dtype).ponder_cross_entropy(
        *(_threads(), *logits_NV.shape, logits_NV.data_ptr(), targets_N.data_ptr(), weights_N.data_ptr()),
        *(losses.data_ptr(), back),
    ):
        raise IndexError(f"a target lies beyond the vocabulary of {logits_NV.shape[1]}")
    return losses


def _threads() -> int:
    return torch.get_num_threads()


def _library(dtype: torch.dtype) -> ctypes.CDLL:
    """For rows of `dtype`: bfloat16 or float32."""
    lib = library(None, "training" if dtype == torch.bfloat16 else "training_float")
    if lib.ponder_norm.restype is not None:
        integer, long, pointer, real = ctypes.c_int, ctypes.c_long, ctypes.c_void_p, ctypes.c_float
        rows = (integer, long, long)  # threads, rows, width
        lib.ponder_training_tiles.argtypes = ()
        lib.ponder_causal.argtypes = (pointer, integer)
        lib.ponder_cross_entropy.argtypes = (*rows, *(pointer,) * 4, integer)
        lib.ponder_norm.argtypes = (*rows, pointer, pointer, pointer, real, pointer, pointer, pointer)
        lib.ponder_norm_backward.argtypes = (*rows, *(pointer,) * 8)
        lib.ponder_swiglu.argtypes = (*rows, pointer, pointer)
        lib.ponder_swiglu_backward.argtypes = (*rows, *(pointer,) * 4)
        lib.ponder_gradient.argtypes = (pointer,)
        lib.ponder_norm_backward.restype = lib.ponder_swiglu.restype = lib.ponder_swiglu_backward.restype = None
        lib.ponder_norm.restype = None
    return lib
