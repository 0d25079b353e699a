"""The training kernels in float32: the model as written to the last digits, on every class of processor."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_case import FAMILIES, LENGTHS, batch, distance, gradients, make

from ponder.kernels.machine import InstructionSet, held_to, machine
from ponder.model.lora import add_lora
from ponder.model.loss import Backend, kernel_obstacle
from ponder.model.transformer import Transformer

pytestmark = pytest.mark.parity


@pytest.fixture(autouse=True)
def _covered() -> None:
    obstacle = kernel_obstacle(make(None))
    if obstacle:
        pytest.skip(obstacle)


def assert_equal_to_torch(tensors: list[torch.Tensor], **changes: object) -> None:
    exact = gradients(make(None, **changes), tensors, Backend.TORCH)
    found = gradients(make(None, **changes), tensors, Backend.KERNELS)
    assert found.keys() == exact.keys()
    for name, gradient in exact.items():
        if gradient.norm() > 1e-6:  # a token alone does not need its query
            assert distance(found[name], gradient) < 2e-5, name


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("changes", FAMILIES.values(), ids=FAMILIES)
def test_equal_to_torch(changes: dict, lengths: list[int]) -> None:
    assert_equal_to_torch(batch(lengths=lengths), **changes)


@pytest.mark.parametrize("T", [1, 2, 31, 63, 64, 65, 127, 129])
def test_lengths_that_no_block_divides(T: int) -> None:
    assert_equal_to_torch(batch(T))


def test_a_vocabulary_that_no_vector_divides() -> None:
    assert_equal_to_torch(batch(), vocab_size=101)


def test_adapters_get_the_gradients_of_torch_and_the_base_none() -> None:
    def adapted() -> Transformer:
        model = make(None)
        generator = torch.Generator().manual_seed(2)
        for parameter in add_lora(model, 5, 10.0):
            with torch.no_grad():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
        return model

    tensors = batch(lengths=[70, 130])
    exact, found = (gradients(adapted(), tensors, backend) for backend in (Backend.TORCH, Backend.KERNELS))
    assert found.keys() == exact.keys()
    assert {name.rpartition(".")[2] for name in found} == {"loss", "lora_A", "lora_B"}
    for name, gradient in exact.items():
        assert distance(found[name], gradient) < 2e-5, name


@pytest.mark.parametrize("lower", [InstructionSet.AVX2, InstructionSet.AVX512])
def test_equal_to_torch_on_a_lower_class(lower: InstructionSet) -> None:
    """In a process that is held to the class; there a model of bfloat16 computes in float32, on these kernels."""
    order = list(InstructionSet)
    if order.index(machine().instructions) <= order.index(lower):
        pytest.skip(f"this machine is of class {machine().instructions}")
    code = (
        "import torch, test_training_float as here; from training_case import make, batch;"
        "from ponder.model.loss import kernel_obstacle;"
        "assert kernel_obstacle(make(torch.bfloat16)) == '';"
        "here.assert_equal_to_torch(batch(lengths=[70, 3, 1, 62, 64]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **held_to(lower)},
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
