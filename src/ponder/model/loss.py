"""The training loss: mean cross entropy of the next token over weighted tokens, and what a training step runs on.

The recipe that is fastest on CPUs (bench/train_throughput.py): float32 master weights, `compute_dtype` bfloat16,
`fastest_backend`, micro-batches of about 2,000 tokens whose gradients are accumulated (activations stay in the cache).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from enum import StrEnum
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ponder.kernels.training import TrainingStack, add_product_, cross_entropy_, training_obstacle
from ponder.model.lora import lora_scales
from ponder.model.transformer import Transformer, count_positions


class Backend(StrEnum):
    """TORCH: operator by operator. COMPILED: blocks and loss under torch.compile, once for each shape of the ids.
    KERNELS: `ponder.kernels.training`, ready at once."""

    TORCH = "torch"
    COMPILED = "compiled"
    KERNELS = "kernels"


def kernel_obstacle(model: Transformer) -> str:
    """Why `Backend.KERNELS` cannot train the model here; "" if it can."""
    weights = dict(model.named_parameters())
    plain = {name for name in weights if not name.endswith((".lora_A", ".lora_B"))}
    if type(model) is not Transformer or plain != model.config.parameter_shapes().keys():
        return "the model is not a plain transformer"
    return training_obstacle(model.config, weights, model.compute_dtype)


def can_compile(model: Transformer) -> bool:
    """Whether `Backend.COMPILED` finds a compiler for where the model is."""
    return next(model.parameters()).device.type == "cuda" or shutil.which("g++") is not None


def training_stack(model: Transformer) -> TrainingStack:
    """The model's weights, copied for the kernels; to be made again when the weights have changed.

    Raises RuntimeError where the kernels cannot train the model.
    """
    obstacle = kernel_obstacle(model)
    if obstacle:
        raise RuntimeError(f"the training kernels cannot run ({obstacle}): choose another backend")
    weights = dict(model.named_parameters())
    return TrainingStack(model.config, weights, lora_scales(model), dtype=model.product_dtype)


def next_token_loss(
    model: Transformer,
    ids_BT: Tensor,
    targets_BT: Tensor,
    weights_BT: Tensor | None = None,
    documents_BT: Tensor | None = None,
    positions_BT: Tensor | None = None,
    *,
    total_weight: Tensor | float | None = None,
    backend: Backend = Backend.TORCH,
    stack: TrainingStack | None = None,
) -> Tensor:
    """Sum of weight x cross entropy (nats) over sum of weights, a float32 scalar.

    targets_BT: the id that follows each token of ids_BT.
    weights_BT: None counts every token once; 0 leaves a token out.
    documents_BT, positions_BT: as in `Transformer.hidden`.
    total_weight: what to divide by instead, when the batch comes in several micro-batches.
    stack: what `training_stack` made of the weights as they are, so that not every micro-batch copies them.

    A batch without any weight has loss 0. The backward pass can run once, and under KERNELS adds the gradients of the
    weights to `.grad` itself.
    """
    targets_N = targets_BT.flatten()
    weights_N = torch.ones_like(targets_N, dtype=torch.float32) if weights_BT is None else weights_BT.flatten().float()
    if total_weight is None:
        total_weight = weights_N.sum().clamp_min(torch.finfo(torch.float32).tiny)
    x_ND = last_hidden(model, ids_BT, documents_BT, positions_BT, backend=backend, stack=stack)
    return linear_cross_entropy(x_ND, head_weight(model), targets_N, weights_N / total_weight, backend=backend)


def last_hidden(
    model: Transformer,
    ids_BT: Tensor,
    documents_BT: Tensor | None = None,
    positions_BT: Tensor | None = None,
    *,
    backend: Backend = Backend.TORCH,
    stack: TrainingStack | None = None,
) -> Tensor:
    """x_ND, N = B x T, in the product dtype: what the head reads. Arguments as in `next_token_loss`."""
    if backend is not Backend.KERNELS:
        compiled = backend is Backend.COMPILED
        h_BTD = model.stream(ids_BT, positions_BT=positions_BT, documents_BT=documents_BT, compiled=compiled)
        return model.model.norm(h_BTD).to(model.product_dtype).flatten(0, 1)
    counted_BT = count_positions(ids_BT, documents_BT)
    starts_BT = torch.arange(ids_BT.shape[1]) - counted_BT
    cos, sin = model.model.rotary(counted_BT if positions_BT is None else positions_BT)
    return (stack or training_stack(model)).hidden(ids_BT, cos, sin, starts_BT.to(torch.int32))


def head_weight(model: Transformer) -> Tensor:
    """The output projection, (V, D)."""
    return model.model.embed_tokens.weight if model.config.tie_embeddings else model.lm_head.weight


@torch.no_grad()
def linear_logprobs(x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """(logprobs_N of the targets, entropy_N in nats) under the logits x W^T, float32, without gradient.

    Some rows at a time, as `linear_cross_entropy`, whose gradient is that of these log-probabilities: a loss of them is
    differentiated by giving it the derivatives, negated, as weights.
    """
    rounded_VD = weight_VD.to(x_ND.dtype)
    rows = rows_at_once(len(weight_VD), x_ND.device)
    logprobs, entropies = [], []
    for x_RD, targets_R in zip(x_ND.split(rows), targets_N.split(rows), strict=True):
        logprobs_RV = (x_RD @ rounded_VD.t()).float().log_softmax(-1)
        logprobs.append(logprobs_RV.gather(1, targets_R[:, None])[:, 0])
        entropies.append(-(logprobs_RV.exp() * logprobs_RV).sum(-1))
    return torch.cat(logprobs), torch.cat(entropies)


def linear_cross_entropy(
    x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, weights_N: Tensor, *, backend: Backend = Backend.TORCH
) -> Tensor:
    """Sum over rows of weight x cross entropy (nats) of the logits x W^T, a float32 scalar.

    Logits are made for some rows at a time and turned into their gradients at once, so that all of them never exist;
    the products run in the dtype of x. Targets of weight 0 are not read. Raises IndexError for others (KERNELS).
    """
    keep = torch.is_grad_enabled()
    result: Tensor = _LinearCrossEntropy.apply(x_ND, weight_VD, targets_N, weights_N, backend, keep)
    return result


def rows_at_once(vocabulary: int, device: torch.device) -> int:
    """On a CPU logits should stay in the cache, but few rows make slow products."""
    return max(256, (1 << 21 if device.type == "cpu" else 1 << 26) // vocabulary)


class _LinearCrossEntropy(torch.autograd.Function):
    """Both gradients are ready after the forward pass, up to the factor that the backward pass brings."""

    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, weights_N: Tensor, backend: Backend, keep: bool
    ) -> Tensor:
        rounded_VD = weight_VD.detach().to(x_ND.dtype)
        wants_x, wants_weight = (keep and wanted for wanted in ctx.needs_input_grad[:2])
        d_x = torch.empty_like(x_ND) if wants_x else None
        d_weight = None
        losses = _losses(backend)
        rows = rows_at_once(len(weight_VD), x_ND.device)
        total = torch.zeros((), device=x_ND.device)
        for begin in range(0, len(x_ND), rows):
            piece = slice(begin, begin + rows)
            logits_RV = x_ND[piece] @ rounded_VD.t()
            total += losses(logits_RV, targets_N[piece], weights_N[piece], back=wants_x or wants_weight).sum()
            if d_x is not None:
                torch.mm(logits_RV, rounded_VD, out=d_x[piece])
            if (
                wants_weight
                and backend is Backend.KERNELS
                and (len(weight_VD) % 32 == 0 or x_ND.dtype == torch.float32)
            ):
                add, d_weight = d_weight is not None, torch.empty_like(weight_VD) if d_weight is None else d_weight
                add_product_([(d_weight, add)], logits_RV, x_ND[piece])
            elif wants_weight:
                product = logits_RV.t() @ x_ND[piece]
                d_weight = product.to(weight_VD.dtype) if d_weight is None else d_weight.add_(product)
        ctx.gradients = d_x, d_weight
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        (d_x, d_weight), ctx.gradients = ctx.gradients, (None, None)
        if factor.device.type != "cpu" or factor != 1:  # asking a GPU would wait for it
            d_x, d_weight = (None if each is None else each.mul_(factor) for each in (d_x, d_weight))
        return d_x, d_weight, None, None, None, None


def torch_cross_entropy_(logits_NV: Tensor, targets_N: Tensor, weights_N: Tensor, *, back: bool) -> Tensor:
    """`kernels.training.cross_entropy_` for any device and dtype."""
    wide_NV = logits_NV.float()
    targets_N1 = torch.where(weights_N == 0, 0, targets_N)[:, None]
    mass_N1 = wide_NV.logsumexp(-1, keepdim=True)
    losses_N = (mass_N1 - wide_NV.gather(1, targets_N1))[:, 0] * weights_N
    if back:
        gradient_NV = (wide_NV - mass_N1).exp() * weights_N[:, None]
        logits_NV.copy_(gradient_NV.scatter_add(1, targets_N1, -weights_N[:, None]))
    return losses_N


def _losses(backend: Backend) -> Callable[..., Tensor]:
    if backend is Backend.KERNELS:
        return cross_entropy_
    return torch_cross_entropy_ if backend is Backend.TORCH else _compiled_cross_entropy()


@cache
def _compiled_cross_entropy() -> Callable[..., Tensor]:
    return torch.compile(torch_cross_entropy_, dynamic=False, fullgraph=True)
