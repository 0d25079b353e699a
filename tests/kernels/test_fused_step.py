"""The fused step against the model it stands for: every path that this machine can run, and those that it cannot hide
(the same source compiled for lesser processors)."""

from array import array
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from unittest import mock

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ponder.engine.kernel import open_runner
from ponder.engine.pages import Chunk
from ponder.gguf.blocks import dequantize
from ponder.gguf.layout import TensorType
from ponder.kernels import BuildError, FusedStep, choose_kernel
from ponder.kernels.build import library
from ponder.model.config import Family, Llama3Scaling, ModelConfig, YarnScaling
from ponder.model.lora import add_lora, merge_lora
from ponder.model.transformer import Transformer

PAGE = 16
NUM_PAGES = 80
QWEN3 = ModelConfig(
    vocab_size=320,
    hidden_size=96,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=32,
    intermediate_size=224,
)
CONFIGS = {
    "qwen3": QWEN3,
    # Nothing is a multiple of what the kernels like.
    "llama": replace(
        QWEN3,
        family=Family.LLAMA,
        qk_norm=False,
        attention_bias=True,
        tie_embeddings=False,
        vocab_size=333,
        hidden_size=72,
        intermediate_size=100,
        num_heads=3,
        num_kv_heads=1,
        head_dim=48,
        rope_scaling=Llama3Scaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=32),
    ),
    "qwen2": replace(
        QWEN3,
        family=Family.QWEN2,
        qk_norm=False,
        attention_bias=True,
        num_heads=8,
        head_dim=64,
        rope_scaling=YarnScaling(factor=4.0, original_max_positions=64, attention_factor=1.14),
    ),
}
KERNELS = [
    ("native", "amx"),
    ("native", "avx512"),
    ("native", "portable"),
    ("x86-64-v3", "portable"),
    ("x86-64", "portable"),
]


PROCESSOR = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").exists() else []
NEEDED = {"amx": "amx_bf16", "avx512": "avx512_bf16", "x86-64-v3": "avx2", "x86-64": "sse2"}


def runs_here(target, path):
    """Whether a machine like this should run it; that it does is for the tests to say."""
    try:
        library(target)
    except BuildError:
        return False
    return all(NEEDED[word] in PROCESSOR for word in (target, path) if word in NEEDED)


HERE = [kernel for kernel in KERNELS if runs_here(*kernel)]
pytestmark = [
    pytest.mark.parity,
    pytest.mark.threads(2),
    pytest.mark.skipif(not HERE, reason="the fused step cannot be built here"),
]
each_kernel = pytest.mark.parametrize("kernel", HERE, ids="-".join)
each_config = pytest.mark.parametrize("name", CONFIGS)


@dataclass
class Reference:
    """A random bfloat16 model, some ids, and what they should give: float32 logits_TV of the same weights, and how far
    torch's own bfloat16, emulated where the processor has none, is from them."""

    model: Transformer
    ids: list[int]
    logits_TV: torch.Tensor
    error: float


@cache
def reference(name, length=200):
    config = replace(CONFIGS[name], max_positions=4096)
    exact = Transformer(config, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in exact.parameters():
            noise = torch.empty(parameter.shape).normal_(0, 0.05, generator=generator)
            parameter.copy_((parameter + noise).bfloat16())
    model = Transformer(config).to(torch.bfloat16)
    model.load_state_dict(exact.state_dict())
    ids_BT = torch.randint(0, config.vocab_size, (1, length), generator=generator)
    with torch.no_grad(), mock.patch("ponder.model.transformer.product_dtype", lambda dtype, device: dtype):
        logits_TV = exact(ids_BT)[0]
        error = float((model(ids_BT)[0] - logits_TV).abs().max())
    return Reference(model, ids_BT[0].tolist(), logits_TV, error)


def fused(model, kernel, *, exact=False, num_pages=NUM_PAGES):
    target, path = kernel
    weights = dict(model.named_parameters())
    return FusedStep(model.config, weights, model.model.rotary, num_pages, path=path, exact=exact, target=target)


def pages(first=0, count=NUM_PAGES // 4):
    """A context's pages, in no order that could pass for one."""
    return array("i", [(first + 7 * i) % NUM_PAGES for i in range(count)])


def cut(lengths, table, ids):
    """Steps of one chunk each: (ids, chunk)."""
    start = 0
    for length in lengths:
        yield ids[start : start + length], Chunk(table, start, length)
        start += length


def chunked(step, lengths, ids, table=None):
    """Logits of every token of `ids`, run in chunks of these lengths."""
    table = pages() if table is None else table
    rows = [step.run(part, [chunk], range(len(part))) for part, chunk in cut(lengths, table, ids)]
    return torch.cat(rows)


def assert_close(logits_TV, expected, positions=slice(None)):
    assert torch.isfinite(logits_TV).all()
    error = float((logits_TV - expected.logits_TV[positions]).abs().max())
    assert 0 < error <= 1.1 * expected.error


# Logits ---------------------------------------------------------------------------------------------------------------


@each_kernel
@each_config
@pytest.mark.parametrize("size", [200, 1, 3, 4, 7, 16, 31, 33])
def test_logits_are_no_further_from_float32_than_those_of_torch(kernel, name, size):
    """A whole prompt, single tokens, and chunks on either side of what tiles hold."""
    expected = reference(name)
    ids = expected.ids if size > 1 else expected.ids[:70]
    lengths = [size] * (len(ids) // size) + [len(ids) % size] * (len(ids) % size > 0)
    assert_close(chunked(fused(expected.model, kernel), lengths, ids), expected, slice(len(ids)))


@each_kernel
@each_config
def test_a_long_context(kernel, name):
    expected = reference(name, 1200)
    step = fused(expected.model, kernel)
    table = pages(count=75)
    step.run(expected.ids[:1180], [Chunk(table, 0, 1180)], [])
    rest = [step.run([expected.ids[at]], [Chunk(table, at, 1)], [0]) for at in range(1180, 1200)]
    assert_close(torch.cat(rest), expected, slice(1180, 1200))


@each_kernel
@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_mix_of_chunks(kernel, data):
    """Several contexts side by side, each cut anywhere; what is asked for is asked for in any order."""
    name = data.draw(st.sampled_from(list(CONFIGS)))
    expected = reference(name)
    step = fused(expected.model, kernel)
    tables = [array("i", range(13 * i, 13 * i + 13)) for i in range(data.draw(st.integers(1, 5)))]
    done = [0] * len(tables)
    for _ in range(data.draw(st.integers(1, 6))):
        ids, chunks, positions = [], [], []
        for at, table in enumerate(tables):
            length = min(data.draw(st.sampled_from([0, 1, 1, 2, 5, 16, 17, 40])), 200 - done[at])
            if not length:
                continue
            ids += expected.ids[done[at] : done[at] + length]
            chunks.append(Chunk(table, done[at], length))
            positions += range(done[at], done[at] + length)
            done[at] += length
        if not chunks:
            continue
        rows = data.draw(st.lists(st.integers(0, len(ids) - 1), unique=True))
        logits_SV = step.run(ids, chunks, rows)
        assert logits_SV.shape == (len(rows), expected.model.config.vocab_size)
        if rows:
            assert_close(logits_SV, expected, [positions[row] for row in rows])


@each_kernel
def test_a_fork_goes_on_in_a_copied_page(kernel):
    expected = reference("qwen3")
    step = fused(expected.model, kernel)
    table = pages()
    step.run(expected.ids[:40], [Chunk(table, 0, 40)], [])
    fork = array("i", table)
    fork[2] = next(page for page in range(NUM_PAGES) if page not in table)
    step.copy(table[2], fork[2])
    strangers = [(id + 1) % 320 for id in expected.ids[40:48]]
    step.run(strangers, [Chunk(fork, 40, 8)], [])  # what the fork writes is not its parent's
    together = step.run(expected.ids[40:48] * 1, [Chunk(table, 40, 8)], range(8))
    assert_close(together, expected, slice(40, 48))
    step.copy(table[2], fork[2])
    again = step.run(expected.ids[44:48], [Chunk(fork, 44, 4)], range(4))
    assert_close(again, expected, slice(44, 48))


def private(step, table, shared, first):
    """A table that shares its leading pages and holds copies of the rest of `table`, in pages from `first` on."""
    own = range(first, first + len(table) - shared)
    for source, target in zip(table[shared:], own, strict=True):
        step.copy(source, target)
    return array("i", [*table[:shared], *own])


@each_kernel
@each_config
def test_contexts_that_share_pages(kernel, name):
    """A group of nine that shares 10 pages, seven of which share 12 more, beside one that shares hardly any."""
    expected = reference(name, 600)

    def logits(exact):
        step = fused(expected.model, kernel, exact=exact, num_pages=500)
        table = array("i", [(7 * i) % 38 for i in range(38)])
        step.run(expected.ids[:592], [Chunk(table, 0, 592)], [])
        inner = private(step, table, 10, 40)
        tables = [private(step, table, 10, 80), private(step, table, 10, 120), private(step, table, 1, 160)]
        tables += [private(step, inner, 22, 200 + 20 * i) for i in range(7)]
        chunks = [Chunk(each, 592, length) for each, length in zip(tables, (1, 3, 2, 1, 5, 1, 1, 1, 4, 1), strict=True)]
        ids = [id for chunk in chunks for id in expected.ids[592 : chunk.end]]
        positions = [position for chunk in chunks for position in range(592, chunk.end)]
        return step.run(ids, chunks, range(len(ids))), positions

    (shared, positions), (alone, _) = logits(exact=False), logits(exact=True)
    assert_close(shared, expected, positions)
    assert_close(alone, expected, positions)
    assert not torch.equal(shared, alone), "pages that are read together are summed in another order"


# Bits -----------------------------------------------------------------------------------------------------------------


@each_kernel
@each_config
def test_exact_logits_depend_on_their_own_context_alone(kernel, name):
    """Whole prompt, single tokens, odd chunks, neighbours, number of threads."""
    expected = reference(name)
    step = fused(expected.model, kernel, exact=True)
    ids = expected.ids
    whole = chunked(step, [200], ids)
    assert_close(whole, expected)
    assert torch.equal(chunked(step, [1] * 80, ids[:80]), whole[:80])
    assert torch.equal(chunked(step, [5, 33, 1, 2, 64, 16, 79], ids), whole)
    tables = [array("i", range(13 * i, 13 * i + 13)) for i in range(6)]
    step.run(
        [id for i in range(6) for id in ids[: 30 * i + 9]], [Chunk(tables[i], 0, 30 * i + 9) for i in range(6)], []
    )
    for count in (1, 2, 3, 4, 5, 6):
        beside = [30 * i + 9 for i in range(6)][-count:]
        chunks = [Chunk(table, at, 1) for table, at in zip(tables[-count:], beside, strict=True)]
        assert torch.equal(step.run([ids[at] for at in beside], chunks, range(count)), whole[beside])
    torch.set_num_threads(1)
    assert torch.equal(chunked(step, [200], ids), whole)


# Weights --------------------------------------------------------------------------------------------------------------


@each_kernel
def test_weights_are_packed_anew_after_they_changed(kernel):
    expected = reference("qwen3")
    model = Transformer(expected.model.config, seed=9).to(torch.bfloat16)
    step = fused(model, kernel)
    before = chunked(step, [200], expected.ids)
    model.load_state_dict(expected.model.state_dict())
    step.forget(dict(model.named_parameters()))
    after = chunked(step, [200], expected.ids)
    assert_close(after, expected)
    assert not torch.allclose(before, after, atol=0.1)


@each_kernel
@each_config
def test_float32_weights_that_compute_in_bfloat16(kernel, name):
    expected = reference(name)
    model = Transformer(expected.model.config)
    model.load_state_dict(expected.model.state_dict())
    model.compute_dtype = torch.bfloat16
    assert next(model.parameters()).dtype == torch.float32
    logits_TV = chunked(fused(model, kernel), [200], expected.ids)
    assert torch.equal(logits_TV, chunked(fused(expected.model, kernel), [200], expected.ids))


@each_kernel
def test_weights_that_are_not_numbers_give_logits_that_are_not(kernel):
    expected = reference("qwen3")
    model = Transformer(expected.model.config).to(torch.bfloat16)
    model.load_state_dict(expected.model.state_dict())
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight[3, 5] = float("nan")
    step = fused(model, kernel)
    assert not torch.isfinite(chunked(step, [20], expected.ids[:20])).any()
    model.load_state_dict(expected.model.state_dict())
    step.forget(dict(model.named_parameters()))
    assert_close(chunked(step, [20], expected.ids[:20]), expected, slice(20))


# What is chosen -------------------------------------------------------------------------------------------------------


def chosen(model, kernel="auto"):
    return open_runner(model, NUM_PAGES, PAGE, kernel=kernel, deterministic=False).choice


@pytest.fixture
def own_class(monkeypatch):
    """The tests may run under PONDER_MAX_ISA; HERE is what the machine can run without it."""
    monkeypatch.delenv("PONDER_MAX_ISA", raising=False)
    monkeypatch.setattr("ponder.kernels.machine._found", None)


@pytest.mark.usefixtures("own_class")
def test_the_fastest_path_of_the_machine_is_chosen():
    model = reference("qwen3").model
    path, reason = chosen(model)
    assert path == HERE[0][1]
    assert (reason == "") == (path == "amx")
    assert chosen(model, "torch") == ("torch", "as asked")


def test_a_lesser_processor_gets_the_portable_path():
    model = reference("qwen3").model
    choice = choose_kernel(model.config, dict(model.named_parameters()), torch.bfloat16, target="x86-64")
    assert choice.kernel == "portable"
    assert "AVX-512 BF16" in choice.reason


class Other(Transformer):
    pass


@pytest.mark.usefixtures("own_class")
def test_what_is_not_covered_runs_in_torch_and_says_why():
    odd = replace(QWEN3, head_dim=24)
    mixed = Transformer(QWEN3).to(torch.bfloat16)
    mixed.model.norm.float()
    adapted = Transformer(QWEN3).to(torch.bfloat16)
    add_lora(adapted, 2, 4.0)
    reasons = {
        "float32": Transformer(QWEN3),
        "head_dim 24": Transformer(odd).to(torch.bfloat16),
        "bfloat16, torch.float32": mixed,
        "Other": Other(QWEN3).to(torch.bfloat16),
    }
    for word, model in reasons.items():
        kernel, reason = chosen(model)
        assert kernel == "torch"
        assert word in reason
    assert chosen(adapted).kernel == HERE[0][1]
    merge_lora(adapted)
    assert chosen(adapted).kernel == HERE[0][1]


# int8 -----------------------------------------------------------------------------------------------------------------

MATRICES = ("lm_head", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def rounded_to_int8(weight_OI):
    """Symmetric, a scale for each output."""
    scale_O1 = weight_OI.abs().amax(dim=1, keepdim=True) / 127
    return (weight_OI / scale_O1.clamp(min=1e-30)).round() * scale_O1


@cache
def int8_logits(name, length=200):
    """float32 logits_TV of the weights as int8 holds them."""
    expected = reference(name, length)
    exact = Transformer(replace(CONFIGS[name], tie_embeddings=False, max_positions=4096))
    weights = {key: value.float() for key, value in expected.model.state_dict().items()}
    weights["lm_head.weight"] = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
    for key, weight in weights.items():
        if weight.dim() == 2 and key.split(".")[-2] in MATRICES:
            weights[key] = rounded_to_int8(weight)
    exact.load_state_dict(weights)
    with torch.no_grad():
        return exact(torch.tensor([expected.ids]))[0]


def int8_step(model, kernel, *, exact=False, integers=None):
    target, path = kernel
    weights = dict(model.named_parameters())
    return FusedStep(
        *(model.config, weights, model.model.rotary, NUM_PAGES),
        path=path,
        exact=exact,
        quantize="int8",
        integers=integers,
        target=target,
    )


@each_kernel
@each_config
@pytest.mark.parametrize("size", [200, 1, 3, 4, 16, 33])
def test_int8_logits_are_those_of_the_rounded_weights(kernel, name, size):
    expected = reference(name)
    ids = expected.ids if size > 1 else expected.ids[:40]
    lengths = [size] * (len(ids) // size) + [len(ids) % size] * (len(ids) % size > 0)
    logits_TV = chunked(int8_step(expected.model, kernel, integers=False), lengths, ids)
    rounded_TV = int8_logits(name)[: len(ids)]
    error = float((logits_TV - rounded_TV).abs().max())
    assert 0 < error <= 1.2 * expected.error, "the noise of bfloat16 activations, nothing else"
    loss = float((rounded_TV - expected.logits_TV[: len(ids)]).abs().max())
    assert error < loss, "int8 is what was computed with"


@each_kernel
@each_config
def test_exact_int8_logits_depend_on_their_own_context_alone(kernel, name):
    ids = reference(name).ids
    step = int8_step(reference(name).model, kernel, exact=True)
    whole = chunked(step, [200], ids)
    assert torch.equal(chunked(step, [1] * 40, ids[:40]), whole[:40])
    assert torch.equal(chunked(step, [5, 33, 1, 2, 64, 16, 79], ids), whole)
    torch.set_num_threads(1)
    assert torch.equal(chunked(step, [200], ids), whole)


@each_kernel
def test_int8_weights_are_packed_anew_after_they_changed(kernel):
    expected = reference("qwen3")
    model = Transformer(expected.model.config, seed=9).to(torch.bfloat16)
    step = int8_step(model, kernel)
    before = chunked(step, [200], expected.ids)
    model.load_state_dict(expected.model.state_dict())
    step.forget(dict(model.named_parameters()))
    after = chunked(step, [200], expected.ids)
    assert torch.equal(after, chunked(int8_step(expected.model, kernel), [200], expected.ids))
    assert not torch.allclose(before, after, atol=0.1)


@each_kernel
@pytest.mark.parametrize("odd", [float("nan"), float("inf"), 0.0])
def test_int8_of_weights_that_are_not_numbers_or_all_zero(kernel, odd):
    model = Transformer(QWEN3).to(torch.bfloat16)
    model.load_state_dict(reference("qwen3").model.state_dict())
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight[3] = odd
    logits_TV = chunked(int8_step(model, kernel), [20], reference("qwen3").ids[:20])
    assert torch.isfinite(logits_TV).all() == (odd == 0.0)


# groups of 32 inputs --------------------------------------------------------------------------------------------------


def rounded_to_int4(weight_OI):
    """4 bits between the least and the largest of each 32 inputs, scale and offset in half precision; the last group
    may be filled up with zeros."""
    outputs, inputs = weight_OI.shape
    groups_OGK = torch.nn.functional.pad(weight_OI, (0, -inputs % 32)).view(outputs, -1, 32)
    least, most = groups_OGK.amin(2, keepdim=True), groups_OGK.amax(2, keepdim=True)
    scale, offset = ((most - least) / 15).half().float(), least.half().float()
    q_OGK = ((groups_OGK - offset) / scale.clamp(min=1e-30)).round().clamp(0, 15)
    return (q_OGK * scale + offset).flatten(1)[:, :inputs]


def with_matrices(name, change):
    """(float32 model of `change`d matrices, a separate head; its logits_TV of the reference's ids)."""
    expected = reference(name)
    exact = Transformer(replace(CONFIGS[name], tie_embeddings=False, max_positions=4096))
    weights = {key: value.float() for key, value in expected.model.state_dict().items()}
    weights["lm_head.weight"] = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
    for key, weight in weights.items():
        if weight.dim() == 2 and key.split(".")[-2] in MATRICES:
            weights[key] = change(key, weight)
    exact.load_state_dict(weights)
    with torch.no_grad():
        return exact, exact(torch.tensor([expected.ids]))[0]


@cache
def int4_logits(name):
    return with_matrices(name, lambda key, weight: rounded_to_int4(weight))[1]


def chunks_of(size, count):
    return [size] * (count // size) + [count % size] * (count % size > 0)


def int4_step(model, kernel, *, exact=False, integers=None):
    target, path = kernel
    weights = dict(model.named_parameters())
    arguments = (model.config, weights, model.model.rotary, NUM_PAGES)
    return FusedStep(*arguments, path=path, exact=exact, quantize="int4", integers=integers, target=target)


@each_kernel
@each_config
@pytest.mark.parametrize("size", [200, 1, 3, 4, 5])
def test_int4_logits_are_those_of_the_rounded_weights(kernel, name, size):
    expected = reference(name)
    ids = expected.ids if size > 2 else expected.ids[:40]
    logits_TV = chunked(int4_step(expected.model, kernel, integers=False), chunks_of(size, len(ids)), ids)
    error = float((logits_TV - int4_logits(name)[: len(ids)]).abs().max())
    assert 0 < error <= 3 * expected.error, "the noise of bfloat16 activations and weights, nothing else"
    loss = float((int4_logits(name) - expected.logits_TV).abs().max())
    assert 3 * error < loss, "4 bits are what was computed with"


@each_kernel
@each_config
def test_exact_int4_logits_depend_on_their_own_context_alone(kernel, name):
    ids = reference(name).ids
    step = int4_step(reference(name).model, kernel, exact=True)
    whole = chunked(step, [200], ids)
    assert torch.equal(chunked(step, [1] * 40, ids[:40]), whole[:40])
    assert torch.equal(chunked(step, [5, 33, 1, 2, 64, 16, 79], ids), whole)


@each_kernel
@pytest.mark.parametrize("odd", [float("nan"), float("inf"), 0.0])
def test_int4_of_weights_that_are_not_numbers_or_all_zero(kernel, odd):
    model = Transformer(QWEN3).to(torch.bfloat16)
    model.load_state_dict(reference("qwen3").model.state_dict())
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight[3] = odd
    for size in (20, 1):
        logits_TV = chunked(int4_step(model, kernel), chunks_of(size, 20), reference("qwen3").ids[:20])
        assert torch.isfinite(logits_TV).all() == (odd == 0.0)


def blocks_of(type, weight_OI):
    """A weight as blocks of a GGUF file: quants and scales as such files have them."""
    groups_NK = weight_OI.float().reshape(-1, 32)
    least, most = groups_NK.amin(1, keepdim=True), groups_NK.amax(1, keepdim=True)
    largest = groups_NK.abs().amax(1, keepdim=True)
    if type is TensorType.Q8_0:
        scale = (largest / 127).half()
        q_NK = (groups_NK / scale.float()).round().to(torch.int8)
        q_NK[q_NK == -127] = -128  # rounding never gives it, and a file may hold it
        parts = [scale.view(torch.uint8), q_NK.view(torch.uint8)]
    else:
        scale = ((most - least) / 15 if type is TensorType.Q4_1 else -largest / 8).half()
        offset = least.half() if type is TensorType.Q4_1 else -8 * scale
        q_NK = ((groups_NK - offset.float()) / scale.float()).round().clamp(0, 15).to(torch.uint8)
        offsets = [offset.view(torch.uint8)] if type is TensorType.Q4_1 else []
        parts = [scale.view(torch.uint8), *offsets, q_NK[:, :16] | q_NK[:, 16:] << 4]
    return torch.cat(parts, dim=1).view(weight_OI.shape[0], -1)


Q4_0, Q4_1, Q8_0 = TensorType.Q4_0, TensorType.Q4_1, TensorType.Q8_0
MIXES = {
    "q4_0": lambda key: Q4_0,
    "q4_1 with a head of 8 bits": lambda key: Q8_0 if "embed" in key or "head" in key else Q4_1,
    "q8_0": lambda key: Q8_0,
    "q4_0 beside q4_1, down as it is": lambda key: {"q": Q4_0, "d": None, "e": None}.get(key.split(".")[-2][0], Q4_1),
}


def stored_step(name, mix, kernel, *, exact=False, integers=None):
    """(a step over blocks, float32 logits_TV of what they stand for)."""
    model = reference(name).model
    weights = {key: value.detach().float() for key, value in model.named_parameters()}
    types = {key: mix(key) for key, value in weights.items() if value.dim() == 2 and mix(key) is not None}
    float_model = Transformer(model.config)
    values = dict(weights)
    for key, type in types.items():
        weights[key] = blocks_of(type, values[key])
        values[key] = torch.from_numpy(dequantize(weights[key].numpy(), type)).view(values[key].shape)
    float_model.load_state_dict(values)
    target, path = kernel
    arguments = (model.config, weights, model.model.rotary, NUM_PAGES)
    step = FusedStep(*arguments, path=path, exact=exact, integers=integers, blocks=types, target=target)
    with torch.no_grad():
        return step, float_model(torch.tensor([reference(name).ids]))[0]


@each_kernel
@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("name", ["qwen3"])  # whose widths are multiples of 32
def test_blocks_of_a_file_are_computed_with_as_they_are(kernel, mix, name):
    expected = reference(name)
    # Rows of 8 bits and a scale for each 32 inputs are as far from float32 as rows and weights of bfloat16, or nearly.
    for integers, times in ((False, 3), (None, 5)):
        step, values_TV = stored_step(name, MIXES[mix], kernel, integers=integers)
        for size in (200, 1, 3, 7):
            count = 40 if size == 1 else 200
            logits_TV = chunked(step, chunks_of(size, count), expected.ids[:count])
            error = float((logits_TV - values_TV[:count]).abs().max())
            assert 0 < error <= times * expected.error, size
    exact, _ = stored_step(name, MIXES[mix], kernel, exact=True)
    assert torch.equal(chunked(exact, chunks_of(7, 200), expected.ids), chunked(exact, [200], expected.ids))
