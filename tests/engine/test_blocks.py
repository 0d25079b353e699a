"""Models whose matrices stay the blocks of a GGUF file: where the fused step runs, and computed with as they are."""

from __future__ import annotations

from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf_files import gguf_bytes, random_blocks, save

from ponder.engine import Engine
from ponder.engine.kernel import FusedRunner, covered, load_to_run, open_runner
from ponder.engine.pages import Chunk
from ponder.gguf.layout import TensorType
from ponder.kernels.fused import PAGE_SIZE
from ponder.model.checkpoint import load_model
from ponder.model.config import Family, ModelConfig
from ponder.model.gguf import gguf_name, load_blocks
from ponder.model.transformer import Transformer
from ponder.testing.tiny import tiny_config
from ponder.types import InvalidRequest, PhaseTokens

CONFIG = replace(tiny_config(), family=Family.LLAMA, qk_norm=False, hidden_size=256, intermediate_size=256, head_dim=32)
Q4_0, Q4_1, Q5_0, Q8_0 = TensorType.Q4_0, TensorType.Q4_1, TensorType.Q5_0, TensorType.Q8_0
F16 = TensorType.F16


def written(path: Path, types: dict[str, TensorType], config: ModelConfig = CONFIG) -> Path:
    """A model of random blocks: Q4_1, but for the parameters whose names end as `types` says. Norms are ones."""
    own = {
        "context_length": 256,
        "embedding_length": config.hidden_size,
        "block_count": config.num_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_heads,
        "attention.head_count_kv": config.num_kv_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "rope.dimension_count": config.head_dim,
        "attention.layer_norm_rms_epsilon": 1e-5,
    }
    fields = {"general.architecture": "llama", **{f"llama.{key}": value for key, value in own.items()}}
    tensors: dict[str, Any] = {}
    for seed, (name, shape) in enumerate(config.parameter_shapes().items()):
        type = next((type for end, type in types.items() if end in name), Q4_1) if len(shape) > 1 else TensorType.F32
        blocks = random_blocks(shape, type, seed) if len(shape) > 1 else torch.ones(shape).numpy().tobytes()
        tensors[gguf_name(name)] = (shape, type, blocks)
    return save(path / "m.gguf", gguf_bytes(fields, tensors))


@pytest.fixture(autouse=True)
def fused(tmp_path: Path) -> None:
    model = load_blocks(written(tmp_path, {}))
    assert model is not None
    if covered(model).kernel == "torch":
        pytest.skip(f"the fused step does not run here: {covered(model).reason}")


IDS = [(7 * i) % 256 for i in range(40)]


def largest_error(model: Transformer, exact: Transformer, length: int) -> float:
    """Of the logits of IDS, run in chunks of this length, against those of `exact`."""
    runner = open_runner(model, 4, PAGE_SIZE, kernel="auto", deterministic=False)
    assert isinstance(runner, FusedRunner)
    pages = array("i", range(4))
    rows = []
    for at in range(0, len(IDS), length):
        ids = IDS[at : at + length]
        rows.append(runner.pages.run(ids, [Chunk(pages, at, len(ids))], range(len(ids))))
    with torch.no_grad():
        return float((torch.cat(rows) - exact(torch.tensor([IDS]))[0]).abs().max())


def test_every_matrix_that_can_be_stays_as_it_is_stored(tmp_path: Path) -> None:
    model = load_to_run(written(tmp_path, {"embed": Q8_0, "o_proj": Q4_0, "v_proj": Q4_0}))
    matrices = {name for name, shape in CONFIG.parameter_shapes().items() if len(shape) > 1}
    assert model.block_types.keys() == matrices
    held = sum(p.numel() * p.element_size() for p in model.parameters())
    assert held < 1.02 * (tmp_path / "m.gguf").stat().st_size


def test_what_cannot_be_joined_or_packed_is_dequantised(tmp_path: Path) -> None:
    """q and v of other bits than k; types that the step does not compute with."""
    model = load_to_run(written(tmp_path, {"k_proj": Q8_0, "down_proj": F16, "embed": F16}))
    kept = {name.split(".")[-2] for name in model.block_types}
    assert kept == {"o_proj", "gate_proj", "up_proj"}
    assert load_blocks(written(tmp_path, dict.fromkeys(("proj", "embed"), F16))) is None


@pytest.mark.parametrize(("products", "times"), [("float", 1.2), ("", 3.0)], ids=["floats", "integers"])
@pytest.mark.parametrize("types", [{"embed": Q8_0}, {"k_proj": Q8_0, "down_proj": Q5_0}], ids=["all", "some"])
def test_the_answer_is_that_of_the_dequantised_model(
    types: dict[str, TensorType], products: str, times: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Floats lose nothing against bfloat16 weights; integers round the rows to 8 bits, which costs more."""
    monkeypatch.setenv("PONDER_PRODUCTS", products)
    monkeypatch.setattr("ponder.kernels.machine._found", None)
    file = written(tmp_path, types)
    exact, plain = load_model(file, dtype=torch.float32), load_model(file, dtype=torch.bfloat16)
    for length in (1, 6, 40):
        error = largest_error(load_to_run(file), exact, length)
        assert 0 < error < times * largest_error(plain, exact, length)


@pytest.mark.parametrize("options", [{"dtype": torch.float32}, {"kernel": "torch"}, {"quantize": "int8"}])
def test_other_wishes_load_it_dequantised(options: dict[str, Any], tmp_path: Path) -> None:
    model = load_to_run(written(tmp_path, {}), **options)
    assert not model.block_types
    assert next(model.parameters()).dtype is options.get("dtype", torch.bfloat16)


def test_torch_does_not_run_blocks(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"blocks of a GGUF file.*load the file with a dtype"):
        Engine(load_to_run(written(tmp_path, {})), PhaseTokens(), kernel="torch")


def test_a_folder_has_no_blocks(tmp_path: Path) -> None:
    assert load_blocks(tmp_path) is None
