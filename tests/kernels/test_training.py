"""The training kernels against the model as written: losses, gradients of every weight, documents, families."""

import pytest
import torch
from training_case import FAMILIES, LENGTHS, batch, distance, gradients, make

from ponder.kernels.training import TrainingStack, _Kept, lay_together
from ponder.model import loss as loss_module
from ponder.model.lora import TARGETS, add_lora
from ponder.model.loss import Backend, kernel_obstacle, next_token_loss, training_stack
from ponder.model.transformer import Transformer

pytestmark = pytest.mark.parity


@pytest.fixture(autouse=True)
def _covered() -> None:
    obstacle = kernel_obstacle(make())
    if obstacle:
        pytest.skip(obstacle)


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("changes", FAMILIES.values(), ids=FAMILIES)
def test_as_close_to_float32_as_torch_in_bfloat16(changes: dict, lengths: list[int]) -> None:
    tensors = batch(lengths=lengths)
    exact = gradients(make(None, **changes), tensors, Backend.TORCH)
    torchs = gradients(make(**changes), tensors, Backend.TORCH)
    found = gradients(make(**changes), tensors, Backend.KERNELS)
    assert found.keys() == exact.keys()
    for name, gradient in exact.items():
        assert found[name].dtype == torch.float32
        # A key's bias moves all scores of a query alike, but for the rotation: what is left is mostly rounding.
        bound = 1.3 * distance(torchs[name], gradient) + (0.01 if name.endswith("bias") else 0.005)
        assert distance(found[name], gradient) < bound, name


@pytest.mark.parametrize("T", [1, 2, 31, 63, 64, 65, 127, 129])
def test_lengths_that_no_block_divides(T: int) -> None:
    exact = gradients(make(None), batch(T), Backend.TORCH)
    found = gradients(make(), batch(T), Backend.KERNELS)
    for name, gradient in exact.items():
        if gradient.norm() > 1e-6:  # a token alone does not need its query
            assert distance(found[name], gradient) < 0.08, name


def test_without_tiles_the_same_within_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention's plain vectors, for the processor that has no AMX."""
    tensors = batch(lengths=[70, 130])
    tiles = gradients(make(), tensors, Backend.KERNELS)
    model = make()
    stack = training_stack(model)
    vectors = TrainingStack(stack.shape, stack.weights, tiles=False)
    monkeypatch.setattr(loss_module, "training_stack", lambda _: vectors)
    for name, gradient in gradients(model, tensors, Backend.KERNELS).items():
        assert distance(gradient, tiles[name]) < 0.02, name


def test_threads_change_no_bit_of_attention() -> None:
    stack = training_stack(make())
    generator = torch.Generator().manual_seed(0)
    qkv, d_out = (torch.randn(3 * 100, width, generator=generator).bfloat16() for width in (256, 128))
    cos, sin = (torch.rand(3, 1, 100, 16, generator=generator) for _ in range(2))
    starts_BT = torch.tensor([0] * 70 + [70] * 30, dtype=torch.int32).repeat(3, 1)
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        layer = stack._layers[0]
        out, masses = stack.attend(layer, qkv, cos, sin, starts_BT)
        kept = _Kept(qkv, qkv, masses, qkv, out, masses, qkv, qkv, masses, qkv)
        results.append((out, masses, stack.attend_backward(layer, kept, cos, sin, starts_BT, d_out)))
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


def test_micro_batches_add_up_and_frozen_weights_get_nothing() -> None:
    tensors = batch()
    whole, parts = make(), make()
    for model in (whole, parts):
        model.model.layers[0].self_attn.k_proj.weight.requires_grad_(False)
    expected = gradients(whole, tensors, Backend.KERNELS)
    assert "model.layers.0.self_attn.k_proj.weight" not in expected
    stack, total = training_stack(parts), tensors[2].sum()
    for row in range(3):
        piece = [tensor[row : row + 1] for tensor in tensors]
        next_token_loss(parts, *piece, total_weight=total, backend=Backend.KERNELS, stack=stack).backward()
    for name, parameter in parts.named_parameters():
        assert (name in expected) == (parameter.grad is not None)
        if name in expected:
            assert distance(parameter.grad, expected[name]) < 0.02, name


def test_the_next_step_sees_the_new_weights() -> None:
    """torch's fused AdamW leaves no trace in a tensor's version: copies are made again, never kept by a guess."""
    model, tensors = make(), batch()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
    gradients(model, tensors, Backend.KERNELS)
    optimizer.step()
    cold = make()
    cold.load_state_dict(model.state_dict())
    with torch.no_grad():
        after = next_token_loss(model, *tensors, backend=Backend.KERNELS)
        assert torch.equal(after, next_token_loss(cold, *tensors, backend=Backend.KERNELS))


def test_nothing_is_kept_without_gradients_and_a_backward_pass_runs_once() -> None:
    model, tensors = make(), batch()
    with torch.no_grad():
        assert not next_token_loss(model, *tensors, backend=Backend.KERNELS).requires_grad
    loss = next_token_loss(model, *tensors, backend=Backend.KERNELS)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="only once"):
        loss.backward()


def test_a_target_beyond_the_vocabulary_is_refused() -> None:
    tensors = batch()
    tensors[1][0, tensors[2][0].argmax()] = 96
    with pytest.raises(IndexError, match="vocabulary of 96"):
        next_token_loss(make(), *tensors, backend=Backend.KERNELS)


def test_what_is_not_covered_is_told() -> None:
    assert "float64" in kernel_obstacle(make(torch.float64))
    assert "multiples of 32" in kernel_obstacle(make(head_dim=16))
    assert "float32 weights" in kernel_obstacle(make().to(torch.bfloat16))


def adapted(
    dtype: torch.dtype | None, targets: tuple[str, ...], *, rounded: bool = False, **changes: object
) -> Transformer:
    """A model with adapters that do something; `rounded`: over projections held as training holds them."""
    model = make(dtype, **changes)
    generator = torch.Generator().manual_seed(2)
    for parameter in add_lora(model, 5, 10.0, targets):
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    if rounded:
        lay_together(dict(model.named_parameters()), torch.bfloat16)
    return model


@pytest.mark.parametrize(
    ("changes", "targets"),
    [*((each, TARGETS) for each in FAMILIES.values()), ({}, ("q_proj", "v_proj")), ({}, ("o_proj", "up_proj"))],
    ids=[*FAMILIES, "queries and values", "output and up"],
)
def test_adapters_get_the_gradients_of_torch_and_the_base_none(changes: dict, targets: tuple[str, ...]) -> None:
    tensors = batch(lengths=[70, 130])
    exact = gradients(adapted(None, targets, **changes), tensors, Backend.TORCH)
    torchs = gradients(adapted(torch.bfloat16, targets, **changes), tensors, Backend.TORCH)
    model = adapted(torch.bfloat16, targets, rounded=True, **changes)
    assert kernel_obstacle(model) == ""
    found = gradients(model, tensors, Backend.KERNELS)
    assert found.keys() == exact.keys()
    assert {name.rpartition(".")[2] for name in found} == {"loss", "lora_A", "lora_B"}
    for name, gradient in exact.items():
        assert found[name].dtype == torch.float32
        # Rank 5 sums few numbers, so that a rounding here or there shows in a tensor more than in a whole weight.
        assert distance(found[name], gradient) < 1.6 * distance(torchs[name], gradient) + 0.01, name


def test_frozen_projections_are_read_where_they_lie() -> None:
    model = adapted(torch.bfloat16, TARGETS, rounded=True)
    own = {name: (weight.data_ptr(), weight.clone()) for name, weight in model.named_parameters()}
    stack = training_stack(model)
    for layer in stack._layers:
        for name, projection in (("self_attn.q_proj", layer.qkv), ("mlp.gate_proj", layer.gate_up)):
            assert projection.weight.data_ptr() == own[f"{layer.name}{name}.weight"][0]
    gradients(model, batch(), Backend.KERNELS)
    for name, weight in model.named_parameters():
        assert weight.data_ptr() == own[name][0]
        assert torch.equal(weight, own[name][1])
