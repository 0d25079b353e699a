"""Products of integers in the fused step: bit for bit what numpy computes from the same rounded rows, on every kind of
processor that this machine can stand in for, and near the product of the numbers themselves."""

from array import array
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from ponder.engine.pages import Chunk
from ponder.gguf.blocks import dequantize
from ponder.gguf.layout import TensorType
from ponder.kernels import BuildError, FusedStep
from ponder.kernels.build import library
from ponder.kernels.fused import choose_integers

PROCESSOR = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").exists() else []
NEEDED = {"alderlake": "avx_vnni", "x86-64-v4": "avx512bw", "cascadelake": "avx512_vnni", "amx": "amx_int8"}
TARGETS = ["x86-64-v3", "alderlake", "native", pytest.param("amx", id="native-amx")]
SLOW = [pytest.param(target, marks=pytest.mark.slow) for target in ("x86-64-v4", "cascadelake")]  # built for this alone
TYPES = [type for type in TensorType if type.block > 1]
INPUTS, OUTPUTS, ROWS, EPS = 512, 70, 40, 1e-6
pytestmark = [pytest.mark.parity, pytest.mark.threads(2)]
each_target = pytest.mark.parametrize("target", TARGETS + SLOW)


@dataclass(frozen=True)
class HeadAlone:
    """A decoder without layers: embedding, norm and head. Its logits are one product."""

    vocab_size: int = OUTPUTS
    hidden_size: int = INPUTS
    num_layers: int = 0
    num_heads: int = 1
    num_kv_heads: int = 1
    head_dim: int = 16
    intermediate_size: int = 32
    qk_norm: bool = False
    rms_norm_eps: float = EPS


@cache
def embedding():
    """Rows of 1 and -1, so that the norm divides by the same number on every processor; and the norm's weights."""
    rng = np.random.default_rng(1)
    signs = rng.choice([-1.0, 1.0], (OUTPUTS, INPUTS)).astype(np.float32)
    weights = (rng.standard_normal(INPUTS) * np.exp(rng.standard_normal(INPUTS))).astype(np.float32)
    weights[64:96] = 0  # a group of nothing
    return signs, weights


@cache
def rows_KI():
    """The rows that meet the head, as float32 of bfloat16 numbers."""
    signs, weights = embedding()
    scale = np.float32(1) / np.sqrt(np.float32(1) + np.float32(EPS))
    return torch.from_numpy(signs[:ROWS] * scale * weights).bfloat16().float().numpy()


@cache
def blocks(type):
    """Random blocks (outputs, bytes), whose scales are numbers as files have them."""
    rng = np.random.default_rng(type.number)
    found = rng.integers(0, 256, (OUTPUTS, INPUTS // type.block, type.num_bytes((type.block,))), dtype=np.uint8)
    at = [208] if type is TensorType.Q6_K else [0, 2] if type.name[-2:] in ("_1", "_K") else [0]
    for begin in at:
        scales = (rng.standard_normal(found.shape[:2]) * 0.01).astype(np.float16)
        found[..., begin : begin + 2] = scales[..., None].view(np.uint8)
    return found.reshape(OUTPUTS, -1)


def step(target, type, *, quantize=None, integers=True, exact=False):
    path = "amx" if target == "amx" else "portable"
    target = "native" if target == "amx" else target
    if NEEDED.get(target, "avx2") not in PROCESSOR or (path == "amx" and NEEDED["amx"] not in PROCESSOR):
        pytest.skip("this processor has no such instructions")
    try:
        library(target)
    except BuildError as error:
        pytest.skip(str(error))
    signs, norm = embedding()
    weights = {"model.embed_tokens.weight": torch.from_numpy(signs), "model.norm.weight": torch.from_numpy(norm)}
    weights["lm_head.weight"] = torch.from_numpy(blocks(type)) if type else float_head()
    types = {"lm_head.weight": type} if type else {}
    shape = HeadAlone()
    rotary = lambda positions: (torch.ones(1, 1, positions.shape[1], 8),) * 2  # noqa: E731
    options = {"path": path, "quantize": quantize, "blocks": types, "integers": integers, "exact": exact}
    return FusedStep(shape, weights, rotary, 8, target=target, **options)


def float_head():
    return torch.randn(OUTPUTS, INPUTS, generator=torch.Generator().manual_seed(3))


def logits(made, count):
    runs = [Chunk(array("i", range(8)), 0, count)]
    return made.run(list(range(count)), runs, range(count)).numpy()


def rounded(rows):
    """(numbers in 8 bits as float64, scales as float32), a scale for each 32 inputs."""
    groups = rows.reshape(len(rows), -1, 32)
    largest = np.abs(groups).max(2)
    by = np.divide(np.float32(127), largest, where=largest > 0, out=np.zeros_like(largest))
    return np.rint(groups * by[..., None]).astype(np.float64), largest / np.float32(127)


def fused_add(a, b, c):
    """a b + c of float32, rounded once."""
    return (a.astype(np.float64) * b.astype(np.float64) + c.astype(np.float64)).astype(np.float32)


def reference(rows, q_OGK, scales_OG, offsets_OG):
    """The arithmetic that cpu/integers.h promises, in its order."""
    a_NGK, a_scales_NG = rounded(rows)
    total = np.zeros((len(rows), len(q_OGK)), np.float32)
    for g in range(a_NGK.shape[1]):
        exact = (a_NGK[:, g] @ q_OGK[:, g].T.astype(np.float64)).astype(np.float32)
        scaled = exact if scales_OG is None else exact * scales_OG[None, :, g]
        total = fused_add(scaled, a_scales_NG[:, g, None], total)
        if offsets_OG is not None:
            by = a_scales_NG[:, g] * a_NGK[:, g].sum(1).astype(np.float32)
            total = fused_add(offsets_OG[None, :, g], by[:, None], total)
    return total


def numbers(type):
    """(q, scales, offsets or None) of blocks of 32."""
    parts = blocks(type).reshape(OUTPUTS, -1, type.num_bytes((32,)))
    half = lambda at: parts[..., at : at + 2].copy().view(np.float16)[..., 0].astype(np.float32)  # noqa: E731
    if type is TensorType.Q8_0:
        return parts[..., 2:].view(np.int8), half(0), None
    q = parts[..., -16:]
    offsets = half(2) if type is TensorType.Q4_1 else -8 * half(0)
    return np.concatenate([q & 15, q >> 4], axis=2), half(0), offsets


@each_target
@pytest.mark.parametrize("type", [TensorType.Q4_0, TensorType.Q4_1, TensorType.Q8_0])
def test_the_product_is_numpys_bit_for_bit(target, type):
    expected = reference(rows_KI(), *numbers(type))
    made = step(target, type, exact=True)
    for count in (1, 2, 3, 4, 5, 16, 21, ROWS):
        assert np.array_equal(logits(made, count), expected[:count]), count


@each_target
def test_int8_weights_with_a_scale_for_each_output_give_numpys_product(target):
    weight = float_head()
    scale = weight.abs().amax(1) / 127
    q = (weight * (1 / scale)[:, None]).round().numpy().reshape(OUTPUTS, -1, 32)
    expected = reference(rows_KI(), q, None, None) * scale.numpy()
    made = step(target, None, quantize="int8", exact=True)
    for count in (1, 4, 7, ROWS):
        assert np.array_equal(logits(made, count), expected[:count]), count


@each_target
@pytest.mark.parametrize("type", TYPES, ids=lambda type: type.name)
def test_every_type_is_near_the_product_of_its_values_with_the_rounded_rows(target, type):
    values = dequantize(blocks(type).reshape(-1), type).reshape(OUTPUTS, INPUTS).astype(np.float64)
    q, scales = rounded(rows_KI())
    rows = (q * scales[..., None]).reshape(ROWS, INPUTS)
    size = np.abs(rows) @ np.abs(values).T
    # The scales of K types are products that half precision rounds, and the halves of 32 can be off by as much.
    bound = 2**-11 if type.block == 256 else 1e-6
    made = step(target, type)
    for count in (3, ROWS):
        error = np.abs(logits(step(target, type, exact=True), count) - rows[:count] @ values.T)
        assert (error <= bound * np.maximum(size[:count], 1e-6) + offsets_bound(type, rows[:count])).all()
    # Many rows may meet bfloat16 weights instead: 8 bits of them, and the rows are not rounded.
    near = np.abs(logits(made, ROWS) - rows_KI() @ values.T).max()
    assert 0 < near <= 2**-6 * size.max()
    floats = np.abs(logits(step(target, type, integers=False), ROWS) - rows_KI() @ values.T)
    assert floats.max() <= 2**-8 * size.max()


def offsets_bound(type, rows):
    """What rounding the offsets of a K type to half precision may cost: they and the numbers cancel."""
    if type not in (TensorType.Q4_K, TensorType.Q5_K):
        return 0
    return 2**-11 * 63 * 0.05 * np.abs(rows).sum(1, keepdims=True)


@each_target
@pytest.mark.parametrize("type", TYPES, ids=lambda type: type.name)
def test_exact_products_are_the_same_whatever_rows_are_beside(target, type):
    made = step(target, type, exact=True)
    whole = logits(made, ROWS)
    for count in (1, 3, 4, 6, 17, 33):
        assert np.array_equal(logits(made, count), whole[:count])


def test_every_processor_gives_the_same_bits():
    found = {}
    for target in ("x86-64-v3", "alderlake", "native", "amx"):
        try:
            found[target] = [logits(step(target, type, exact=True), ROWS) for type in TYPES]
        except pytest.skip.Exception:
            continue
    first = next(iter(found.values()))
    for others in found.values():
        assert all(np.array_equal(one, other) for one, other in zip(first, others, strict=True))


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_rows_that_are_not_numbers_give_logits_that_are_not(odd):
    made = step("native", TensorType.Q4_0)
    _, norm = embedding()
    signs, _ = embedding()
    bad = norm.copy()
    bad[5] = odd
    weights = {"model.embed_tokens.weight": torch.from_numpy(signs), "model.norm.weight": torch.from_numpy(bad)}
    made.forget(weights | {"lm_head.weight": torch.from_numpy(blocks(TensorType.Q4_0))})
    for count in (2, 20, ROWS):
        assert not np.isfinite(logits(made, count)).any()


def test_what_integers_are_multiplied_by_is_named():
    assert choose_integers(target="x86-64-v3") == ("integers", "AVX2 (maddubs)")
    if "avx_vnni" in PROCESSOR:
        assert choose_integers(target="alderlake") == ("integers", "AVX-VNNI")
    assert choose_integers(target="x86-64").kernel == "floats"


def test_the_switch_leaves_weights_to_floats(monkeypatch):
    monkeypatch.setenv("PONDER_PRODUCTS", "float")
    monkeypatch.setattr("ponder.kernels.machine._found", None)
    assert choose_integers() == ("floats", "PONDER_PRODUCTS is float")
