"""What this machine computes in: the class of the processor, a lower one on request, and what follows from it."""

import platform
import sys

import pytest
import torch

from ponder.kernels import choose_kernel
from ponder.kernels.machine import InstructionSet, _has_avx_vnni, _own, held_to, machine, product_dtype
from ponder.model.config import ModelConfig
from ponder.model.transformer import Transformer
from ponder.types import InvalidRequest

OWN, _ = _own()  # whatever PONDER_MAX_ISA is while the tests run
ORDER = list(InstructionSet)
LOWER = [each for each in ORDER if ORDER.index(each) <= ORDER.index(OWN) and (each != "avx_vnni" or _has_avx_vnni())]


@pytest.fixture(autouse=True)
def found_again(monkeypatch):
    """Each test finds out what the machine is; so does whatever comes after the last."""
    monkeypatch.setattr("ponder.kernels.machine._found", None)


def held(monkeypatch, instructions):
    monkeypatch.setenv("PONDER_MAX_ISA", str(instructions))
    return machine()


def small_model(dtype=torch.bfloat16):
    config = ModelConfig(
        vocab_size=64, hidden_size=32, num_layers=1, num_heads=2, num_kv_heads=1, head_dim=16, intermediate_size=64
    )
    return Transformer(config).to(dtype)


def kernel_of(model):
    return choose_kernel(model.config, dict(model.named_parameters()), model.compute_dtype)


@pytest.mark.parametrize("instructions", LOWER)
def test_a_lower_class_is_taken_and_named_as_the_reason(monkeypatch, instructions):
    found = held(monkeypatch, instructions)
    assert found.instructions is instructions
    assert found.dtype == (torch.bfloat16 if instructions in ("avx512_bf16", "amx") else torch.float32)
    if instructions is not OWN:
        assert found.reason == f"PONDER_MAX_ISA is {instructions}"
        assert found.reason in str(found)
    assert str(found.dtype).removeprefix("torch.") in str(found)


def test_the_switch_never_raises_the_class(monkeypatch):
    found = held(monkeypatch, InstructionSet.AMX)
    assert found.instructions is OWN
    assert "PONDER_MAX_ISA" not in found.reason


def test_avx_vnni_on_a_processor_without_it_is_avx2(monkeypatch):
    if OWN in (InstructionSet.OTHER, InstructionSet.AVX2, InstructionSet.AVX_VNNI):
        pytest.skip("a lower class than the processor's own is asked for")
    monkeypatch.setattr("ponder.kernels.machine._has_avx_vnni", lambda: False)
    assert held(monkeypatch, InstructionSet.AVX_VNNI).instructions is InstructionSet.AVX2


def test_an_unknown_kind_of_product_is_refused(monkeypatch):
    monkeypatch.setenv("PONDER_PRODUCTS", "int")
    with pytest.raises(InvalidRequest, match=r"PONDER_PRODUCTS must be float, or not be set \(got 'int'\)"):
        machine()


def test_an_unknown_class_is_refused_with_the_choices(monkeypatch):
    with pytest.raises(InvalidRequest, match=r"PONDER_MAX_ISA must be one of other, avx2, .* amx \(got 'sse'\)"):
        held(monkeypatch, "sse")


@pytest.mark.parametrize(
    ("system", "processor", "has", "instructions", "reason"),
    [
        ("darwin", "arm64", "", "other", "arm64"),
        ("linux", "aarch64", "", "other", "aarch64"),
        ("linux", "x86_64", "", "other", "no AVX2"),
        ("linux", "x86_64", "avx2", "avx2", "no AVX-512"),
        ("linux", "x86_64", "avx2 avx_vnni", "avx_vnni", "no AVX-512"),
        ("win32", "AMD64", "avx2", "avx2", "no AVX-512"),
        ("linux", "x86_64", "avx2 avx512", "avx512", "bfloat16"),
        ("linux", "x86_64", "avx2 avx512 avx512_bf16", "avx512_bf16", "AMX"),
        ("linux", "x86_64", "avx2 avx512 avx512_bf16 amx_tile", "amx", ""),
    ],
)
def test_the_class_follows_the_system_and_the_processor(monkeypatch, system, processor, has, instructions, reason):
    monkeypatch.delenv("PONDER_MAX_ISA", raising=False)
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: processor)
    for feature in ("avx2", "avx512", "avx512_bf16", "amx_tile"):
        monkeypatch.setattr(torch.cpu, f"_is_{feature}_supported", lambda feature=feature: feature in has.split())
    monkeypatch.setattr("ponder.kernels.machine._has_avx_vnni", lambda: "avx_vnni" in has.split())
    found = machine()
    assert found.instructions == instructions
    assert reason in found.reason
    assert (found.reason == "") == (instructions == "amx")


def test_halves_are_multiplied_in_float32_where_the_processor_has_no_such_products(monkeypatch):
    has = held(monkeypatch, OWN).dtype
    assert product_dtype(torch.bfloat16, "cpu") == has
    monkeypatch.setattr("ponder.kernels.machine._found", None)
    held(monkeypatch, "other")
    assert product_dtype(torch.bfloat16, "cpu") == torch.float32
    assert product_dtype(torch.float16, "cpu") == torch.float32
    for dtype in (torch.float32, torch.float64):
        assert product_dtype(dtype, "cpu") == dtype
    assert product_dtype(torch.bfloat16, "cuda") == torch.bfloat16, "a GPU has its own products"


def test_a_process_held_to_a_class_holds_torch_to_it():
    assert held_to(InstructionSet.AVX2) == {
        "PONDER_MAX_ISA": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    }
    assert held_to(InstructionSet.AMX) == {"PONDER_MAX_ISA": "amx"}


@pytest.mark.parametrize("instructions", [each for each in LOWER if each is not InstructionSet.OTHER])
def test_the_fused_step_of_the_class_is_chosen(monkeypatch, instructions):
    monkeypatch.delenv("PONDER_MAX_ISA", raising=False)
    own = kernel_of(small_model())
    if own.kernel == "torch":
        pytest.skip(own.reason)
    monkeypatch.setattr("ponder.kernels.machine._found", None)
    found = held(monkeypatch, instructions)
    kernel, reason = kernel_of(small_model())
    paths = {"avx512_bf16": "avx512", "amx": "amx"}
    assert kernel == (own.kernel if instructions is OWN else paths.get(instructions, "portable"))
    assert found.reason in reason


def test_other_processors_take_torch_and_say_why(monkeypatch):
    held(monkeypatch, "other")
    assert kernel_of(small_model()) == (
        "torch",
        f"the fused step is for x86-64 with AVX2: {machine().reason}",
    )
