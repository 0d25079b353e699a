"""`next_token_loss`: which tokens count, micro-batches that add up, pieces for large vocabularies, compiled."""

import pytest
import torch
from torch.nn import functional as F

from ponder.model import loss as loss_module
from ponder.model.config import ModelConfig
from ponder.model.loss import next_token_loss
from ponder.model.transformer import Transformer

CONFIG = ModelConfig(
    vocab_size=64, hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, intermediate_size=48
)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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


def test_logits_in_pieces_give_the_same_loss_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    ids_BT, targets_BT, weights_BT, documents_BT = batch()
    whole, pieces = Transformer(CONFIG), Transformer(CONFIG)
    one = next_token_loss(whole, ids_BT, targets_BT, weights_BT, documents_BT)
    one.backward()
    monkeypatch.setattr(loss_module, "_MAX_LOGITS", 64 * 40)
    other = next_token_loss(pieces, ids_BT, targets_BT, weights_BT, documents_BT)
    other.backward()
    torch.testing.assert_close(other, one)
    expected = gradients(whole)
    for name, gradient in gradients(pieces).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own, while tracing
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_the_compiled_loss_equals_the_eager_one() -> None:
    ids_BT, targets_BT, weights_BT, documents_BT = batch()
    eager, compiled = Transformer(CONFIG), Transformer(CONFIG)
    one = next_token_loss(eager, ids_BT, targets_BT, weights_BT, documents_BT)
    one.backward()
    other = next_token_loss(compiled, ids_BT, targets_BT, weights_BT, documents_BT, compiled=True)
    other.backward()
    torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-5)
    expected = gradients(eager)
    for name, gradient in gradients(compiled).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-3, msg=name)
