"""On a processor without products of 16-bit floats torch emulates them, far slower than float32: none may be reached.
The lower classes are forced with PONDER_MAX_ISA."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from halves import half_products
from torch.nn import functional as F

from ponder.engine import Engine
from ponder.engine.runner import prompt_logprobs
from ponder.kernels.ceilings import matmul_flops
from ponder.kernels.machine import InstructionSet, held_to, machine
from ponder.model.lora import add_lora, merge_lora, unmerge_lora
from ponder.model.loss import (
    Backend,
    head_weight,
    last_hidden,
    linear_logprobs,
    next_token_loss,
    torch_cross_entropy_,
)
from ponder.model.transformer import Block, Transformer
from ponder.testing.tiny import tiny_model
from ponder.types import InvalidRequest, PhaseTokens, SamplingParams

pytestmark = pytest.mark.smoke

ROOT = Path(__file__).parents[2]
HALVES = (torch.bfloat16, torch.float16)
IDS = torch.arange(2 * 24).view(2, 24)
DOCUMENTS = (torch.arange(24) // 10).expand(2, 24)


@pytest.fixture(params=["other", "avx2", "avx512"], autouse=True)
def lower_class(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("ponder.kernels.machine._found", None)
    monkeypatch.setenv("PONDER_MAX_ISA", request.param)
    assert machine().dtype == torch.float32
    return request.param


def models() -> list[Transformer]:
    """As they are loaded and as they are trained: weights of 16 bits, and float32 meant to be computed in bfloat16."""
    mixed = tiny_model(head_dim=16)
    mixed.compute_dtype = torch.bfloat16
    return [*(tiny_model(head_dim=16).to(dtype) for dtype in HALVES), mixed]


@pytest.mark.parametrize("dtype", HALVES)
def test_the_watch_sees_every_kind_of_product(dtype: torch.dtype) -> None:
    x = torch.ones(2, 2, 4, 4, dtype=dtype, requires_grad=True)
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    products = {
        "linear": lambda: F.linear(x[0, 0], x[0, 0]).sum().backward(),
        "batched": lambda: (x @ x).sum().backward(),
        "attention": lambda: F.scaled_dot_product_attention(x, x, x).sum().backward(),
        "flash": lambda: flash(x.detach(), x.detach(), x.detach()),
        "out": lambda: torch.mm(x.detach()[0, 0], x.detach()[0, 0], out=torch.empty(4, 4, dtype=dtype)),
        "vector": lambda: x.detach()[0, 0] @ x.detach()[0, 0, 0],
    }
    for name, product in products.items():
        with half_products() as found:
            product()
        assert found, name
        with half_products() as found, torch.inference_mode():
            torch.ones(2, 4, dtype=dtype) @ torch.ones(4, 2, dtype=dtype)
        assert found
    with half_products() as found:
        (x.detach().float() @ x.detach().float()).to(dtype)
    assert not found


def test_training_and_scoring_multiply_float32() -> None:
    for model in models():
        with half_products() as found:
            next_token_loss(model, IDS[:, :-1], IDS[:, 1:], documents_BT=DOCUMENTS[:, :-1]).backward()
            x_ND = last_hidden(model, IDS)
            linear_logprobs(x_ND, head_weight(model), IDS.flatten())
            prompt_logprobs(model, IDS.flatten().tolist(), top=2)
            with torch.inference_mode():
                model(IDS)
        assert not found
        assert all(each.grad is not None and each.grad.dtype == each.dtype for each in model.parameters())


@pytest.mark.parametrize("lower_class", ["avx2"], indirect=True)  # tracing takes seconds
def test_a_compiled_block_multiplies_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    traced = []

    def backend(graph, inputs):
        traced.extend(node.meta["example_value"] for node in graph.graph.nodes if node.target is F.linear)
        return graph

    block = torch.compile(Block.forward, dynamic=False, fullgraph=True, backend=backend)
    monkeypatch.setattr("ponder.model.transformer.compiled_block", lambda: block)
    monkeypatch.setattr("ponder.model.loss._compiled_cross_entropy", lambda: torch_cross_entropy_)
    model = models()[-1]
    with torch.no_grad():
        next_token_loss(model, IDS[:, :-1], IDS[:, 1:], backend=Backend.COMPILED)
    assert {each.dtype for each in traced} == {torch.float32}


def test_adapters_multiply_float32() -> None:
    for model in models():
        add_lora(model, 2, 4)
        with half_products() as found:
            next_token_loss(model, IDS[:, :-1], IDS[:, 1:]).backward()
            _generate(model)
            merge_lora(model)
            _generate(model)
            unmerge_lora(model)
        assert not found


@pytest.mark.parametrize("deterministic", [False, True])
def test_the_torch_path_of_the_engine_multiplies_float32(deterministic: bool) -> None:
    for model in models():
        before = {name: (each.dtype, each.clone()) for name, each in model.state_dict().items()}
        with half_products() as found:
            _generate(model, kernel="torch", deterministic=deterministic)
        assert not found
        for name, each in model.state_dict().items():
            assert each.dtype == before[name][0]
            assert torch.equal(each, before[name][1])


def test_weights_that_changed_are_read_again() -> None:
    """The torch path keeps a copy of 16-bit weights in float32."""
    model = tiny_model().to(torch.bfloat16)
    engine = Engine(model, PhaseTokens(), kernel="torch")
    ids = list(range(30))
    first = engine.generate([ids], SamplingParams(max_tokens=8, temperature=0))
    with engine.update_weights(), torch.no_grad():
        for each, other in zip(model.parameters(), tiny_model(seed=1).parameters(), strict=True):
            each.copy_(other)
    again = engine.generate([ids], SamplingParams(max_tokens=8, temperature=0))
    fresh = Engine(model, PhaseTokens(), kernel="torch").generate([ids], SamplingParams(max_tokens=8, temperature=0))
    assert again[0].ids == fresh[0].ids != first[0].ids


@pytest.mark.parametrize("lower_class", ["avx2"], indirect=True)  # ten seconds
def test_the_line_from_text_to_exports_multiplies_float32(lower_class: str, tmp_path: Path) -> None:
    """In a separate process, in which oneDNN is held to the class too and says what it multiplies."""
    run = tmp_path / "run"
    small = "--set sft.tokens=2048 --set pretrain.tokens=1024 --set grpo.steps=1 --set pretrain.eval_every=0"
    commands = [
        f"train {ROOT / 'recipes' / 'smoke' / 'all.toml'} --set run.folder={run} {small}",
        f"eval {run / 'model'} --suite products -n 2 --samples 2",
        f"ask --model {run / 'model'} --max-tokens 8 Hello",
        f"export {run / 'model'} --to gguf --dtype q8_0 --out {tmp_path / 'model.gguf'}",
        f"export {run / 'model'} --to hf --dtype f16 --out {tmp_path / 'hf'}",
    ]
    environment = {**os.environ, **held_to(InstructionSet(lower_class)), "ONEDNN_VERBOSE": "1"}
    command = [sys.executable, str(Path(__file__).parent / "halves.py"), *commands]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    products = re.findall(r"^onednn_verbose.*,(?:matmul|inner_product),.*$", done.stdout, re.MULTILINE)
    assert not [each for each in products if "f16" in each]


def test_the_ceiling_of_products_is_measured_in_float32() -> None:
    with half_products() as found:
        matmul_flops(16)
    assert not found


@pytest.mark.parametrize("lower_class", ["other"], indirect=True)
def test_arm_and_macs_compute_in_torch_and_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PONDER_MAX_ISA")
    for system, name, processor in (("darwin", "Darwin", "arm64"), ("linux", "Linux", "aarch64")):
        monkeypatch.setattr("ponder.kernels.machine._found", None)
        with monkeypatch.context() as there:
            there.setattr(sys, "platform", system)
            there.setattr("platform.system", lambda name=name: name)
            there.setattr("platform.machine", lambda processor=processor: processor)
            machine()
        model = models()[0]
        engine = Engine(model, PhaseTokens())
        reason = f"this is {name} on {processor}, not x86-64 Linux or Windows"
        assert engine.kernel.kernel == "torch"
        assert reason in engine.kernel.reason
        assert engine.computes.endswith(f"; processor other, products in float32: {reason}")
        with pytest.raises(InvalidRequest, match=f"cannot run here .*{reason}"):
            Engine(model, PhaseTokens(), quantize="int8")
        assert len(engine.generate([[1, 2, 3]], SamplingParams(max_tokens=3))[0].ids) == 3


def _generate(model: Transformer, **options: object) -> None:
    """Prompts that share pages, of several lengths, so that every kind of attention of a step occurs."""
    shared = [each % 300 for each in range(64)]
    prompts = [shared + list(range(more)) for more in (1, 2, 20)] + [[5]]
    engine = Engine(model, PhaseTokens(), **options)
    for _ in range(2):  # the second time from shared pages
        engine.generate(prompts, SamplingParams(max_tokens=2))
