"""Models as they are stored: folders in Hugging Face's layout (config.json and safetensors, whole or in shards), and
GGUF files.

What is read from outside is never trusted: names, shapes and sizes are checked against config.json before anything of
that size is allocated, and pickles are not opened at all.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ponder.gguf.reading import GgufFile, is_gguf
from ponder.model.config import ModelConfig
from ponder.model.gguf import gguf_config, open_gguf
from ponder.model.hf_config import config_from_hf, config_to_hf, end_token_ids
from ponder.model.storage import writing
from ponder.model.transformer import LoadedFrom, Transformer
from ponder.types import CheckpointError, InvalidRequest

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
_MAX_JSON_BYTES = 64 << 20
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


class StoredParameter(Protocol):
    """A tensor of an open model, known by its header and not read yet. dtype: as safetensors names it."""

    @property
    def path(self) -> Path: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> str: ...
    def read(self) -> Tensor: ...
    def fail(self, why: str) -> CheckpointError: ...


def load_config(folder: str | Path) -> ModelConfig:
    """Read and check config.json; its end tokens and those of generation_config.json, where there is one, are the
    model's. Or the sizes that a GGUF file declares. Raises CheckpointError naming file and key."""
    if is_gguf(folder):
        return gguf_config(GgufFile(folder))
    path, generation = Path(folder) / CONFIG, Path(folder) / GENERATION_CONFIG
    config = config_from_hf(read_json(path), source=str(path))
    if not generation.is_file():
        return config
    ends = end_token_ids(read_json(generation), source=str(generation))
    return dataclasses.replace(config, eos_token_ids=tuple(dict.fromkeys((*config.eos_token_ids, *ends))))


def load_model(
    folder: str | Path, *, dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
) -> Transformer:
    """Load a model folder, or a GGUF file. dtype None: that of the embedding in the folder, for all tensors; of a file,
    float32 if it holds nothing else, else bfloat16.

    Raises CheckpointError naming file and key when there is not exactly one whole model.
    """
    with open_model(folder) as (config, tensors):
        stored = _DTYPES[tensors["model.embed_tokens.weight"].dtype]
        dtype = dtype or stored
        state = {name: tensor.read().to(device, dtype, copy=True) for name, tensor in tensors.items()}
    with torch.device("meta"):
        model = Transformer(config)
    model.load_state_dict(state, assign=True)
    model.loaded_from = LoadedFrom(os.path.abspath(folder), stored)
    return model.to(device)


@contextmanager
def open_model(folder: str | Path) -> Iterator[tuple[ModelConfig, Mapping[str, StoredParameter]]]:
    """The configuration and the parameters of a model folder or a GGUF file, checked and not read yet. Raises as
    `load_model`."""
    folder = Path(folder)
    if is_gguf(folder):
        yield open_gguf(folder)
        return
    config = load_config(folder)
    shapes = config.parameter_shapes()
    with ExitStack() as stack:
        tensors = open_tensors(folder, shapes, stack, tied=config.tie_embeddings)
        if config.tie_embeddings and "lm_head.weight" in tensors:
            _check_tied(tensors["lm_head.weight"], tensors["model.embed_tokens.weight"])
        yield config, {name: tensors[name] for name in shapes}


def open_tensors(
    folder: Path, shapes: Mapping[str, tuple[int, ...]], stack: ExitStack, *, tied: bool = False
) -> dict[str, StoredTensor]:
    """The weights of a folder by their headers: all of `shapes`, and nothing else. tied: a copy of the embedding may be
    there as the head. Raises CheckpointError naming file and key."""
    tensors = _open_weights(folder, stack)
    _check_tensors(tensors, shapes, tied)
    return tensors


def save_model(
    model: Transformer,
    folder: str | Path,
    *,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = 5 << 30,
    replace: bool = False,
) -> None:
    """Write a model folder that Ponder and transformers load. All of it appears at once, or nothing.

    dtype None: each tensor as it is. Raises CheckpointError when `folder` holds something and `replace` is False,
    InvalidRequest when the model carries adapters that are not merged.
    """
    with atomic_folder(folder, replace=replace) as temporary:
        write_model(model, temporary, dtype=dtype, max_shard_bytes=max_shard_bytes)


def write_model(
    model: Transformer, folder: str | Path, *, dtype: torch.dtype | None = None, max_shard_bytes: int = 5 << 30
) -> None:
    """The files of `save_model` put into a folder that exists, for use inside `atomic_folder` with other files."""
    folder = Path(folder)
    shapes = model.config.parameter_shapes()
    tensors = {name: p.detach() for name, p in model.named_parameters() if name in shapes}
    if any(getattr(module, "adapter_pending", False) for module in model.modules()):
        raise InvalidRequest("the model carries LoRA adapters: merge them first, or save the adapter by itself")
    write_tensors(tensors, folder, dtype=dtype, max_shard_bytes=max_shard_bytes)
    stored = str(dtype or tensors["model.embed_tokens.weight"].dtype).removeprefix("torch.")
    write_json(folder / CONFIG, config_to_hf(model.config) | {"torch_dtype": stored})


def write_tensors(
    tensors: Mapping[str, Tensor], folder: Path, *, dtype: torch.dtype | None = None, max_shard_bytes: int = 5 << 30
) -> None:
    """Weights under their names, in one file or in shards with an index. dtype None: each as it is."""
    dtype_of = {name: dtype or t.dtype for name, t in tensors.items()}
    shards = _split({name: t.numel() * dtype_of[name].itemsize for name, t in tensors.items()}, max_shard_bytes)
    names = (
        [WEIGHTS]
        if len(shards) == 1
        else [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    )
    for name, keys in zip(names, shards, strict=True):
        shard = {key: tensors[key].to("cpu", dtype_of[key]).contiguous() for key in keys}
        save_tensors(shard, folder / name)
    if len(shards) > 1:
        total = sum(t.numel() * dtype_of[name].itemsize for name, t in tensors.items())
        where = {key: name for name, keys in zip(names, shards, strict=True) for key in keys}
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": where})


@contextmanager
def atomic_folder(folder: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """Yields a temporary folder beside `folder`. On success its files are synced and it is renamed to `folder`; on an
    error it is removed and `folder` is as it was.

    Raises CheckpointError when `folder` exists, is not empty, and `replace` is False; WriteError for a full disk.
    """
    folder = Path(os.path.abspath(folder))
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder}: a file of that name exists: choose another name")
    if folder.is_dir() and any(folder.iterdir()) and not replace:
        raise CheckpointError(f"{folder}: exists and is not empty: choose another folder or remove it")
    temporary = _beside(folder, "tmp")
    try:
        with writing(folder, _as_it_was(folder)):
            temporary.mkdir(parents=True)
            yield temporary
            for path in sorted(temporary.rglob("*"), reverse=True):
                _sync(path)
            _sync(temporary)
            _move_into_place(temporary, folder)
            _sync(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def atomic_file(file: str | Path, *, replace: bool = False) -> Iterator[BinaryIO]:
    """Yields a temporary file beside `file`. On success it is synced and renamed to `file`; on an error it is removed
    and `file` is as it was. Raises CheckpointError when `file` exists and `replace` is False; WriteError for a full
    disk."""
    file = Path(os.path.abspath(file))
    if file.is_dir() or (file.exists() and not replace):
        raise CheckpointError(f"{file}: exists: choose another name{'' if file.is_dir() else ' or remove it'}")
    temporary = _beside(file, "tmp")
    try:
        with writing(file, _as_it_was(file)):
            file.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as stream:
                yield stream
            _sync(temporary)
            temporary.rename(file)
            _sync(file.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _as_it_was(path: Path) -> str:
    return f"{path} is as it was" if path.exists() else "Nothing is left of it"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises CheckpointError naming the file."""
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise CheckpointError(
                f"{path}: too large ({path.stat().st_size} bytes): this is not the file of a model folder"
            )
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: must hold a JSON object (got {type(value).__name__})")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file with the permissions that any new file gets; the library leaves 0600."""
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(mode)


class StoredTensor:
    """One tensor of an open safetensors file, known by its header and not read yet."""

    def __init__(self, handle: Any, path: Path, name: str) -> None:
        self.handle, self.path, self.name = handle, path, name
        header = handle.get_slice(name)
        self.shape: tuple[int, ...] = tuple(header.get_shape())
        self.dtype: str = header.get_dtype()

    def read(self) -> Tensor:
        try:
            return self.handle.get_tensor(self.name)
        except SafetensorError as error:
            raise self.fail(f"cannot be read: {error}") from error

    def fail(self, why: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: key '{self.name}': {why}")


def open_safetensors(path: Path, stack: ExitStack) -> dict[str, StoredTensor]:
    """The headers of one file; the library checks lengths, offsets and overlaps. Raises CheckpointError."""
    try:
        handle = stack.enter_context(safe_open(path, framework="pt"))
        return {name: StoredTensor(handle, path, name) for name in handle.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: is not a whole safetensors file: {error}") from error


def check_shapes(tensors: Mapping[str, StoredTensor], shapes: Mapping[str, tuple[int, ...]], where: Path) -> None:
    """Every name of `shapes` is there, in its shape and a floating dtype. Raises CheckpointError naming file, key."""
    for name, shape in shapes.items():
        if name not in tensors:
            raise CheckpointError(f"{where}: key '{name}': missing")
        tensor = tensors[name]
        if tensor.shape != shape:
            raise tensor.fail(f"must have the shape {shape}, by config.json (got {tensor.shape})")
        if tensor.dtype not in _DTYPES:
            raise tensor.fail(f"has dtype {tensor.dtype}; supported: {', '.join(_DTYPES)}")


def _open_weights(folder: Path, stack: ExitStack) -> dict[str, StoredTensor]:
    if (folder / WEIGHTS).exists():
        return open_safetensors(folder / WEIGHTS, stack)
    if (folder / INDEX).exists():
        return _open_shards(folder, stack)
    refuse_pickles(folder)
    raise CheckpointError(f"{folder}: holds neither {WEIGHTS} nor {INDEX}")


def refuse_pickles(folder: Path) -> None:
    """For a folder without safetensors. Raises CheckpointError naming the pickle that it holds instead."""
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise CheckpointError(
            f"{folder / pickles[0]}: a pickle can run code and is never loaded: convert it to safetensors"
        )


def _open_shards(folder: Path, stack: ExitStack) -> dict[str, StoredTensor]:
    index = folder / INDEX
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: key 'weight_map': must be a non-empty object")
    shards: dict[str, dict[str, StoredTensor]] = {}
    for name, file in weight_map.items():
        if not isinstance(file, str) or not file.endswith(".safetensors") or file != os.path.basename(file):
            raise CheckpointError(
                f"{index}: key '{name}': {file!r:.120} must be the name of a safetensors file beside it"
            )
        if file not in shards:
            shards[file] = open_safetensors(folder / file, stack)
        if name not in shards[file]:
            raise CheckpointError(f"{folder / file}: key '{name}': missing, though {INDEX} places it there")
    for tensors in shards.values():
        for name, tensor in tensors.items():
            if name not in weight_map or shards[weight_map[name]] is not tensors:
                raise tensor.fail(f"{INDEX} does not place it there")
    return {name: shards[file][name] for name, file in weight_map.items()}


def _check_tensors(tensors: Mapping[str, StoredTensor], shapes: Mapping[str, tuple[int, ...]], tied: bool) -> None:
    where = next(iter(tensors.values())).path.parent if tensors else Path(WEIGHTS)
    check_shapes(tensors, shapes, where)
    for name, tensor in tensors.items():
        if name in shapes or name.endswith("rotary_emb.inv_freq"):  # derived from config.json; old files carry it
            continue
        if not (tied and name == "lm_head.weight"):
            raise tensor.fail("unexpected: config.json describes no such tensor")
        check_shapes(tensors, {name: shapes["model.embed_tokens.weight"]}, where)


def _check_tied(head: StoredTensor, embedding: StoredTensor) -> None:
    if not torch.equal(head.read(), embedding.read()):
        raise head.fail("differs from model.embed_tokens.weight, though tie_word_embeddings is true in config.json")


def _split(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > limit:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def _move_into_place(temporary: Path, folder: Path) -> None:
    """Rename over `folder`. One that holds something is moved aside first and put back if the rename fails."""
    if not folder.exists():
        temporary.rename(folder)
        return
    aside = _beside(folder, "old")
    folder.rename(aside)
    try:
        temporary.rename(folder)
    except OSError:
        aside.rename(folder)
        raise
    shutil.rmtree(aside)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path, ending: str) -> Path:
    """A name in the same folder that nothing has."""
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.{ending}")
