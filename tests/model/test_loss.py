"""`next_token_loss`: which tokens count, micro-batches that add up, pieces for large vocabularies, compiled."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from ponder.model import loss as loss_module
from ponder.model.config import ModelConfig
from ponder.model.loss import Backend, linear_cross_entropy, linear_logprobs, next_token_loss
from ponder.model.transformer import Transformer

CONFIG = ModelConfig(
    vocab_size=64, hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, intermediate_size=48
)


def training_kernels_missing() -> str:
    wide = ModelConfig(
        vocab_size=64, hidden_size=64, num_layers=1, num_heads=2, num_kv_heads=1, head_dim=32, intermediate_size=96
    )
    model = Transformer(wide)
    model.compute_dtype = torch.bfloat16
    return loss_module.kernel_obstacle(model)


def batch(B: int = 4, T: int = 24) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids_BT, targets_BT = (torch.randint(0, 64, (B, T), generator=generator) for _ in range(2))
    weights_BT = (torch.rand(B, T, generator=generator) > 0.5).float()
    documents_BT = (torch.arange(T) // 7).expand(B, T)
    return ids_BT, targets_BT, weights_BT, documents_BT


def gradients(model: Transformer) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def test_it_is_the_weighted_mean_of_cross_entropies() -> None:
    model = Transformer(CONFIG)
    ids_BT, targets_BT, weights_BT, documents_BT = batch()
    logits = model(ids_BT, documents_BT=documents_BT)
    each = F.cross_entropy(logits.flatten(0, 1), targets_BT.flatten(), reduction="none").view_as(weights_BT)
    expected = (each * weights_BT).sum() / weights_BT.sum()
    torch.testing.assert_close(next_token_loss(model, ids_BT, targets_BT, weights_BT, documents_BT), expected)
    torch.testing.assert_close(next_token_loss(model, ids_BT, targets_BT, None, documents_BT), each.mean())


def test_tokens_without_weight_leave_no_trace() -> None:
    model = Transformer(CONFIG)
    ids_BT, targets_BT, weights_BT, _ = batch()
    other_BT = torch.where(weights_BT == 0, (targets_BT + 1) % 64, targets_BT)
    one = next_token_loss(model, ids_BT, targets_BT, weights_BT)
    assert torch.equal(one, next_token_loss(model, ids_BT, other_BT, weights_BT))
    assert next_token_loss(model, ids_BT, targets_BT, torch.zeros_like(weights_BT)) == 0


def test_micro_batches_add_up_to_the_batch() -> None:
    ids_BT, targets_BT, weights_BT, documents_BT = batch()
    whole, split = Transformer(CONFIG), Transformer(CONFIG)
    next_token_loss(whole, ids_BT, targets_BT, weights_BT, documents_BT).backward()
    total = weights_BT.sum()
    for rows in range(4):
        piece = [x[rows : rows + 1] for x in (ids_BT, targets_BT, weights_BT, documents_BT)]
        next_token_loss(split, *piece, total_weight=total).backward()
    expected = gradients(whole)
    for name, gradient in gradients(split).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-6, rtol=1e-4, msg=name)


def plain_cross_entropy(x_ND, weight_VD, targets_N, weights_N):
    logits_NV = x_ND.float() @ weight_VD.float().t()
    each_N = F.cross_entropy(logits_NV, torch.where(weights_N == 0, 0, targets_N), reduction="none")
    return (each_N * weights_N).sum()


def head_case(N: int, V: int, D: int = 32, seed: int = 0) -> list[torch.Tensor]:
    """Hidden states, weights, targets (those without weight lie beyond the vocabulary), weights of tokens."""
    generator = torch.Generator().manual_seed(seed)
    x_ND, weight_VD = (torch.randn(rows, D, generator=generator) for rows in (N, V))
    weights_N = (torch.rand(N, generator=generator) > 0.3).float() * torch.rand(N, generator=generator)
    targets_N = torch.where(weights_N == 0, -100, torch.randint(0, V, (N,), generator=generator))
    return [x_ND, weight_VD, targets_N, weights_N]


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 100])
@pytest.mark.parametrize("N", [1, 8, 23])
def test_the_head_in_pieces_equals_plain_cross_entropy(N: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_module, "rows_at_once", lambda *_: rows)
    x_ND, weight_VD, targets_N, weights_N = head_case(N, 50)
    plain = [x_ND.clone().requires_grad_(), weight_VD.clone().requires_grad_()]
    pieces = [x_ND.clone().requires_grad_(), weight_VD.clone().requires_grad_()]
    one = plain_cross_entropy(*plain, targets_N, weights_N)
    other = linear_cross_entropy(*pieces, targets_N, weights_N)
    torch.testing.assert_close(other, one)
    (3 * one).backward()
    (3 * other).backward()
    for a, b in zip(plain, pieces, strict=True):
        torch.testing.assert_close(b.grad, a.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("backend", [Backend.TORCH, Backend.KERNELS])
@pytest.mark.parametrize("V", [64, 50, 2048])
def test_the_head_in_bfloat16_is_as_good_as_its_rounding(backend: Backend, V: int) -> None:
    if backend is Backend.KERNELS and training_kernels_missing():
        pytest.skip(training_kernels_missing())
    x_ND, weight_VD, targets_N, weights_N = head_case(300, V)
    rounded = x_ND.bfloat16().requires_grad_()
    master = (0.2 * weight_VD).requires_grad_()
    exact_x, exact_weight = (
        rounded.detach().float().requires_grad_(),
        master.detach().bfloat16().float().requires_grad_(),
    )
    exact = plain_cross_entropy(exact_x, exact_weight, targets_N, weights_N)
    exact.backward()
    loss = linear_cross_entropy(rounded, master, targets_N, weights_N, backend=backend)
    loss.backward()
    torch.testing.assert_close(loss, exact, atol=0, rtol=2e-3)
    assert master.grad.dtype == torch.float32
    assert (rounded.grad.float() - exact_x.grad).norm() < 0.01 * exact_x.grad.norm()
    assert (master.grad - exact_weight.grad).norm() < 0.01 * exact_weight.grad.norm()


def test_a_head_without_learned_tokens_or_without_any_has_loss_zero_and_no_gradient() -> None:
    for N, weight in ((5, 0.0), (0, 1.0)):
        x_ND, weight_VD = torch.randn(N, 8).requires_grad_(), torch.randn(16, 8).requires_grad_()
        loss = linear_cross_entropy(x_ND, weight_VD, torch.full((N,), -100), torch.full((N,), weight))
        loss.backward()
        assert loss == 0
        assert not x_ND.grad.any()
        assert weight_VD.grad is None or not weight_VD.grad.any()


def test_a_frozen_head_gets_no_gradient_and_hidden_states_do() -> None:
    x_ND, weight_VD, targets_N, weights_N = head_case(9, 20)
    x_ND.requires_grad_()
    linear_cross_entropy(x_ND, weight_VD, targets_N, weights_N).backward()
    assert weight_VD.grad is None
    assert x_ND.grad.any()


class LargestTensor(TorchDispatchMode):
    """Notes the most elements that any operator made or filled."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.elements = max(self.elements, result.numel())
        return result


@pytest.mark.parametrize("backend", [Backend.TORCH, Backend.KERNELS])
def test_all_logits_never_exist(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing as large as two pieces of logits is made, forward or backward; plain cross entropy is seen to."""
    if backend is Backend.KERNELS and training_kernels_missing():
        pytest.skip(training_kernels_missing())
    N, V, rows = 512, 1024, 64
    monkeypatch.setattr(loss_module, "rows_at_once", lambda *_: rows)
    x_ND, weight_VD, targets_N, weights_N = head_case(N, V)
    inputs = x_ND.bfloat16().requires_grad_(), weight_VD.requires_grad_(), targets_N, weights_N
    with LargestTensor() as largest:
        linear_cross_entropy(*inputs, backend=backend).backward()
    assert largest.elements <= rows * V
    with LargestTensor() as largest:
        plain_cross_entropy(*inputs).backward()
    assert largest.elements >= N * V


@pytest.mark.parametrize("vocabulary", [512, 2048, 151_936])
def test_pieces_of_logits_are_bounded(vocabulary: int) -> None:
    rows = loss_module.rows_at_once(vocabulary, torch.device("cpu"))
    assert rows == 256 or rows * vocabulary <= 1 << 21


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own, while tracing
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_the_compiled_loss_equals_the_eager_one() -> None:
    ids_BT, targets_BT, weights_BT, documents_BT = batch()
    eager, compiled = Transformer(CONFIG), Transformer(CONFIG)
    one = next_token_loss(eager, ids_BT, targets_BT, weights_BT, documents_BT)
    one.backward()
    other = next_token_loss(compiled, ids_BT, targets_BT, weights_BT, documents_BT, backend=Backend.COMPILED)
    other.backward()
    torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-5)
    expected = gradients(eager)
    for name, gradient in gradients(compiled).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-3, msg=name)


def test_log_probabilities_of_the_head_in_pieces(monkeypatch):
    monkeypatch.setattr("ponder.model.loss.rows_at_once", lambda vocabulary, device: 7)
    generator = torch.Generator().manual_seed(3)
    x, weight = torch.randn(20, 16, generator=generator), torch.randn(50, 16, generator=generator)
    targets = torch.randint(0, 50, (20,), generator=generator)
    logprobs, entropies = linear_logprobs(x, weight, targets)
    expected = (x @ weight.t()).log_softmax(-1)
    torch.testing.assert_close(logprobs, expected[torch.arange(20), targets])
    torch.testing.assert_close(entropies, torch.distributions.Categorical(logits=expected).entropy())


def test_a_loss_of_log_probabilities_is_differentiated_through_the_head():
    """Weights that are negated derivatives, some of them negative, give the gradients of autograd over all logits."""
    generator = torch.Generator().manual_seed(4)
    x, weight = (torch.randn(n, 16, generator=generator).requires_grad_() for n in (30, 64))
    targets = torch.randint(0, 64, (30,), generator=generator)

    def loss_of(logprobs):
        return (logprobs.exp() * torch.linspace(-1, 1, 30)).sum()

    loss_of((x @ weight.t()).log_softmax(-1)[torch.arange(30), targets]).backward()
    expected = [x.grad.clone(), weight.grad.clone()]
    x.grad = weight.grad = None
    leaf = linear_logprobs(x, weight, targets)[0].requires_grad_()
    loss_of(leaf).backward()
    linear_cross_entropy(x, weight, targets, -leaf.grad).backward()
    for got, wanted in zip((x.grad, weight.grad), expected, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-4)
