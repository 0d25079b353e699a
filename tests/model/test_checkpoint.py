"""Corrupt and hostile checkpoints: each ends in a CheckpointError that names file and key, at once and without
allocating what the file claims."""

import json
import os
import pickle
import stat
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ponder.model import checkpoint
from ponder.model.checkpoint import atomic_file, atomic_folder, load_config, load_model, save_model
from ponder.model.config import ModelConfig
from ponder.model.lora import add_lora, save_lora
from ponder.model.transformer import Transformer
from ponder.types import CheckpointError, WriteError

pytestmark = pytest.mark.fault

CONFIG = ModelConfig(
    vocab_size=64, hidden_size=16, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=8, intermediate_size=24
)
WEIGHTS = "model.safetensors"
Q_PROJ = "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(Transformer(CONFIG), tmp_path / "m")
    return tmp_path / "m"


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    save_model(Transformer(CONFIG), tmp_path / "m", max_shard_bytes=8_000)
    assert len(list((tmp_path / "m").glob("model-*.safetensors"))) > 1
    return tmp_path / "m"


def refused(folder: Path, *names: str) -> str:
    """Loading fails quickly, and the text names each of `names`."""
    begun = time.perf_counter()
    with pytest.raises(CheckpointError) as error:
        load_model(folder)
    assert time.perf_counter() - begun < 5
    for name in names:
        assert name in str(error.value)
    return str(error.value)


def edit_json(path: Path, **changes: Any) -> None:
    """Set keys; `...` removes one."""
    value = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in value.items() if v is not ...}))


def edit_tensors(path: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = {name: t.clone() for name, t in load_file(path).items()}
    edit(tensors)
    save_file(tensors, path)


def edit_header(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    edit(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


class TestWeights:
    @pytest.mark.parametrize("kept", [0, 4, 8, 100, 5_000, -1])
    def test_a_truncated_file(self, folder: Path, kept: int) -> None:
        path = folder / WEIGHTS
        path.write_bytes(path.read_bytes()[:kept])
        refused(folder, WEIGHTS)

    def test_bytes_behind_the_end(self, folder: Path) -> None:
        path = folder / WEIGHTS
        path.write_bytes(path.read_bytes() + b"\0" * 64)
        refused(folder, WEIGHTS)

    def test_a_header_longer_than_the_file(self, folder: Path) -> None:
        path = folder / WEIGHTS
        path.write_bytes(struct.pack("<Q", 1 << 62) + path.read_bytes()[8:])
        refused(folder, WEIGHTS)

    def test_overlapping_offsets(self, folder: Path) -> None:
        def overlap(header: dict[str, Any]) -> None:
            other = next(n for n in header if n.endswith("layers.0.self_attn.q_proj.weight"))
            header[Q_PROJ]["data_offsets"] = header[other]["data_offsets"]

        edit_header(folder / WEIGHTS, overlap)
        refused(folder, WEIGHTS)

    def test_an_absurd_shape_in_the_header(self, folder: Path) -> None:
        edit_header(folder / WEIGHTS, lambda header: header[Q_PROJ].update(shape=[1 << 40, 1 << 40]))
        refused(folder, WEIGHTS)

    def test_a_wrong_shape(self, folder: Path) -> None:
        edit_tensors(folder / WEIGHTS, lambda t: t.update({Q_PROJ: t[Q_PROJ][:, :8].contiguous()}))
        refused(folder, WEIGHTS, Q_PROJ, "shape")

    def test_a_transposed_shape_of_equal_size(self, folder: Path) -> None:
        name = "model.layers.0.mlp.up_proj.weight"
        edit_tensors(folder / WEIGHTS, lambda t: t.update({name: t[name].t().contiguous()}))
        refused(folder, WEIGHTS, name, "(16, 24)", "(24, 16)")

    def test_a_missing_tensor(self, folder: Path) -> None:
        edit_tensors(folder / WEIGHTS, lambda t: t.pop(Q_PROJ))
        refused(folder, str(folder), Q_PROJ, "missing")

    def test_an_unexpected_tensor(self, folder: Path) -> None:
        edit_tensors(folder / WEIGHTS, lambda t: t.update({"model.layers.2.mlp.up_proj.weight": torch.zeros(24, 16)}))
        refused(folder, WEIGHTS, "model.layers.2.mlp.up_proj.weight", "unexpected")

    def test_an_integer_tensor(self, folder: Path) -> None:
        edit_tensors(folder / WEIGHTS, lambda t: t.update({Q_PROJ: t[Q_PROJ].to(torch.int8)}))
        refused(folder, WEIGHTS, Q_PROJ, "I8")

    def test_no_tensor_at_all(self, folder: Path) -> None:
        save_file({}, folder / WEIGHTS)
        refused(folder, "model.embed_tokens.weight", "missing")

    def test_a_second_head_that_differs_from_the_tied_embedding(self, folder: Path) -> None:
        edit_tensors(folder / WEIGHTS, lambda t: t.update({"lm_head.weight": torch.ones(64, 16)}))
        refused(folder, WEIGHTS, "lm_head.weight", "tie_word_embeddings")

    def test_a_second_copy_of_the_tied_embedding_is_fine(self, folder: Path) -> None:
        edit_tensors(folder / WEIGHTS, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
        load_model(folder)

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
    def test_a_pickle_is_named_and_never_opened(self, folder: Path, name: str, tmp_path: Path) -> None:
        class Hostile:
            def __reduce__(self) -> tuple[Any, ...]:
                return Path.touch, (tmp_path / "was-run",)

        (folder / WEIGHTS).unlink()
        (folder / name).write_bytes(pickle.dumps(Hostile()))
        refused(folder, name, "pickle")
        assert not (tmp_path / "was-run").exists()

    def test_a_pickle_under_the_name_of_a_safetensors_file(self, folder: Path) -> None:
        (folder / WEIGHTS).write_bytes(pickle.dumps({"a": 1}))
        refused(folder, WEIGHTS)

    def test_no_weights(self, folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        refused(folder, str(folder), WEIGHTS)


class TestShards:
    def test_they_load(self, sharded: Path) -> None:
        load_model(sharded)

    def test_a_missing_shard(self, sharded: Path) -> None:
        gone = sorted(sharded.glob("model-*.safetensors"))[1]
        gone.unlink()
        refused(sharded, gone.name)

    @pytest.mark.parametrize(
        "place", ["../outside.safetensors", "/etc/passwd", "sub/x.safetensors", "..", "", 7, None, "x.bin"]
    )
    def test_an_index_that_points_elsewhere(self, sharded: Path, place: object) -> None:
        save_file({Q_PROJ: torch.zeros(16, 16)}, sharded.parent / "outside.safetensors")
        path = sharded / checkpoint.INDEX
        weight_map = json.loads(path.read_text())["weight_map"] | {Q_PROJ: place}
        edit_json(path, weight_map=weight_map)
        refused(sharded, checkpoint.INDEX, Q_PROJ)

    def test_an_index_that_names_the_wrong_shard(self, sharded: Path) -> None:
        path = sharded / checkpoint.INDEX
        weight_map = json.loads(path.read_text())["weight_map"]
        other = next(file for file in weight_map.values() if file != weight_map[Q_PROJ])
        edit_json(path, weight_map=weight_map | {Q_PROJ: other})
        refused(sharded, other, Q_PROJ)

    def test_a_tensor_that_the_index_leaves_out(self, sharded: Path) -> None:
        path = sharded / checkpoint.INDEX
        weight_map = json.loads(path.read_text())["weight_map"]
        del weight_map[Q_PROJ]
        edit_json(path, weight_map=weight_map)
        refused(sharded, Q_PROJ)

    @pytest.mark.parametrize("value", [..., [], {}, "x"])
    def test_an_index_without_a_map(self, sharded: Path, value: object) -> None:
        edit_json(sharded / checkpoint.INDEX, weight_map=value)
        refused(sharded, checkpoint.INDEX, "weight_map")


class TestConfig:
    @pytest.mark.parametrize("text", ["", "{", "[]", "null", "\xff", "[" * 100_000, '{"a": 1e', "{" * 50])
    def test_bad_json(self, folder: Path, text: str) -> None:
        (folder / "config.json").write_bytes(text.encode("latin-1"))
        refused(folder, "config.json")

    def test_none_at_all(self, folder: Path) -> None:
        (folder / "config.json").unlink()
        refused(folder, "config.json")
        refused(folder / "nowhere", "config.json")

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("model_type", "mamba"),
            ("model_type", None),
            ("model_type", ["qwen3"]),
            ("architectures", ["Qwen3ForSequenceClassification"]),
            ("architectures", ["LlamaForCausalLM"]),
            ("hidden_size", ...),
            ("hidden_size", "16"),
            ("hidden_size", 16.0),
            ("hidden_size", True),
            ("hidden_size", 0),
            ("vocab_size", -1),
            ("num_attention_heads", 0),
            ("num_key_value_heads", 3),
            ("head_dim", 7),
            ("intermediate_size", None),
            ("rms_norm_eps", "small"),
            ("rms_norm_eps", float("nan")),
            ("rope_theta", -1.0),
            ("rope_theta", float("inf")),
            ("tie_word_embeddings", "yes"),
            ("eos_token_id", "x"),
            ("hidden_act", "gelu"),
            ("use_sliding_window", True),
            ("layer_types", ["full_attention", "sliding_attention"]),
            ("num_experts", 8),
            ("mlp_bias", True),
            ("attention_dropout", 0.1),
            ("partial_rotary_factor", 0.5),
            ("quantization_config", {"bits": 4}),
            ("rope_scaling", "yarn"),
            ("max_position_embeddings", 10**30),
        ],
    )
    def test_a_value_that_cannot_be_served_is_named(self, folder: Path, key: str, value: object) -> None:
        edit_json(folder / "config.json", **{key: value})
        refused(folder, "config.json", key)

    @pytest.mark.parametrize(
        ("key", "rope"),
        [
            ("rope_type", {"rope_type": "linear", "factor": 2.0}),
            ("rope_type", {"rope_type": "dynamic", "factor": 2.0}),
            ("rope_type", {"type": ["yarn"]}),
            ("factor", {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}),
            ("factor", {"rope_type": "yarn", "factor": 0}),
            ("low_freq_factor", {"rope_type": "llama3", "factor": 8.0, "high_freq_factor": 4.0}),
            (
                "high_freq_factor",
                {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0},
            ),
            ("long_factor", {"rope_type": "yarn", "factor": 4.0, "long_factor": [1.0]}),
            (
                "original_max_position_embeddings",
                {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 0},
            ),
            ("beta_fast", {"rope_type": "yarn", "factor": 4.0, "beta_fast": -3.0}),
            ("attention_factor", {"rope_type": "yarn", "factor": 4.0, "attention_factor": "big"}),
            ("truncate", {"rope_type": "yarn", "factor": 4.0, "truncate": "no"}),
        ],
    )
    def test_rope_scaling_that_cannot_be_served_is_named(self, folder: Path, key: str, rope: object) -> None:
        edit_json(folder / "config.json", rope_scaling=rope)
        refused(folder, "config.json", key)

    @pytest.mark.parametrize("key", ["hidden_size", "num_hidden_layers", "vocab_size", "head_dim", "intermediate_size"])
    @pytest.mark.parametrize("value", [1 << 20, 10**12, 10**30])
    def test_absurd_sizes_allocate_nothing(self, folder: Path, key: str, value: int) -> None:
        edit_json(folder / "config.json", **{key: value})
        refused(folder)

    def test_the_largest_sizes_that_pass_the_limits_are_still_held_against_the_file(self, folder: Path) -> None:
        edit_json(folder / "config.json", hidden_size=1 << 16, vocab_size=1 << 22, intermediate_size=1 << 20)
        refused(folder, WEIGHTS, "model.embed_tokens.weight", "shape")

    def test_a_config_read_back_is_the_config_written(self, folder: Path) -> None:
        assert load_config(folder) == CONFIG


class TestSaving:
    def test_an_error_halfway_leaves_nothing_behind(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full_disk(*_args: object, **_kwargs: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(checkpoint, "write_json", full_disk)
        with pytest.raises(WriteError, match="No space"):
            save_model(Transformer(CONFIG), tmp_path / "m")
        assert list(tmp_path.iterdir()) == []

    def test_a_failed_replacement_leaves_the_old_model(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        before = (folder / WEIGHTS).read_bytes()
        real = Path.rename

        def fail_on_the_new_one(self: Path, target: Path) -> Path:
            if self.suffix == ".tmp":
                raise OSError(5, "Input/output error")
            return real(self, target)

        monkeypatch.setattr(Path, "rename", fail_on_the_new_one)
        with pytest.raises(WriteError, match="Input/output"):
            save_model(Transformer(CONFIG, seed=1), folder, replace=True)
        assert (folder / WEIGHTS).read_bytes() == before
        assert [path.name for path in folder.parent.iterdir()] == [folder.name]

    def test_a_folder_that_holds_something_is_not_touched_unasked(self, folder: Path) -> None:
        before = (folder / WEIGHTS).read_bytes()
        with pytest.raises(CheckpointError, match="not empty"):
            save_model(Transformer(CONFIG, seed=1), folder)
        assert (folder / WEIGHTS).read_bytes() == before

    def test_replacing_swaps_the_whole_folder(self, folder: Path) -> None:
        (folder / "stale.txt").write_text("old")
        model = Transformer(CONFIG, seed=1)
        save_model(model, folder, replace=True)
        assert torch.equal(load_model(folder).model.embed_tokens.weight, model.model.embed_tokens.weight)
        assert sorted(path.name for path in folder.iterdir()) == ["config.json", WEIGHTS]
        assert [path.name for path in folder.parent.iterdir()] == [folder.name]

    def test_an_empty_folder_is_filled(self, tmp_path: Path) -> None:
        (tmp_path / "m").mkdir()
        save_model(Transformer(CONFIG), tmp_path / "m")
        load_model(tmp_path / "m")

    def test_a_file_in_the_way_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "m").write_text("x")
        with pytest.raises(CheckpointError, match="a file of that name"):
            save_model(Transformer(CONFIG), tmp_path / "m")

    def test_other_files_ride_along_in_one_rename(self, tmp_path: Path) -> None:
        with atomic_folder(tmp_path / "m") as temporary:
            checkpoint.write_model(Transformer(CONFIG), temporary)
            (temporary / "tokenizer.json").write_text("{}")
            assert not (tmp_path / "m").exists()
        assert (tmp_path / "m/tokenizer.json").exists()
        load_model(tmp_path / "m")

    def test_a_loaded_model_does_not_depend_on_the_file(self, folder: Path) -> None:
        model = load_model(folder)
        before = model.model.embed_tokens.weight.clone()
        with open(folder / WEIGHTS, "r+b") as file:
            file.truncate(0)
        assert torch.equal(model.model.embed_tokens.weight, before)


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077, 0o027])
def test_what_is_written_has_the_permissions_that_umask_gives(mask: int, tmp_path: Path) -> None:
    old = os.umask(mask)
    try:
        model = Transformer(CONFIG)
        save_model(model, tmp_path / "model", max_shard_bytes=2_000)
        add_lora(model, 2, 4.0, ["q_proj"])
        save_lora(model, tmp_path / "adapter")
        save_lora(model, tmp_path / "adapter", replace=True)
        with atomic_file(tmp_path / "one") as stream:
            stream.write(b"1")
        assert os.umask(mask) == mask
    finally:
        os.umask(old)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 5
    assert {stat.S_IMODE(path.stat().st_mode) for path in written} == {0o666 & ~mask}
    folders = [path for path in tmp_path.rglob("*") if path.is_dir()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o777 & ~mask}
    assert not list(tmp_path.glob(".*"))
