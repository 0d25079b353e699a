"""From the name of a model to a sampler over it: the bundled one, a folder, a file, Hugging Face's cache, a URL."""

from __future__ import annotations

import os
import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from ponder.sampler.endpoint import EndpointSampler
from ponder.sampler.protocol import Sampler
from ponder.types import InvalidRequest

BUNDLED = "mini"
ENDPOINT = re.compile(r"(?:([a-z]+)\+)?(https?://[^#]*)(?:#(.+))?")  # dialect+URL#MODEL
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


def open_sampler(where: str | Path = BUNDLED, /, **options: Any) -> Sampler:
    """A sampler over the model that `ponder.load` takes by this name, with the same options. Raises the same errors."""
    endpoint = ENDPOINT.fullmatch(where) if isinstance(where, str) else None
    if endpoint is not None:
        dialect, address, model = endpoint.groups()
        named: dict[str, Any] = {"dialect": dialect, "model": model}
        return EndpointSampler(address, **{name: value for name, value in named.items() if value} | options)
    path = find_model(where)
    from ponder.sampler.local import load_sampler

    name = {} if Path(where).exists() or where == BUNDLED else {"name": str(where)}
    return load_sampler(path, **name | options)


@cache
def shared_sampler(where: str) -> Sampler:
    """`open_sampler` for a model that the text of a strategy names: opened once, and kept as long as the process."""
    return open_sampler(where)


def find_model(model: str | Path) -> Path:
    """The folder of a local model, or its GGUF file. A folder called "mini" in the working directory is "./mini"; a
    name of the form "org/name" that is not a path is looked up in Hugging Face's local cache."""
    if model == BUNDLED:
        bundled = Path(str(files("ponder") / BUNDLED))
        if not (bundled / "config.json").is_file():
            raise InvalidRequest(
                f"this installation of ponder has no bundled model {BUNDLED!r} ({bundled} holds no "
                "config.json): name a model folder, or make one with `ponder train recipes/mini/all.toml`"
            )
        return bundled
    path = Path(model)
    if not path.exists():
        return _cached(str(model))
    if path.is_file():
        from ponder.gguf.reading import is_gguf

        if not is_gguf(path):
            raise InvalidRequest(f"{path} is a file, but not a GGUF file: name that, or the folder of a model")
        return path
    if not (path / "config.json").is_file():
        raise InvalidRequest(f"{path} is not a model folder: {_what_it_is(path)}")
    return path


def _what_it_is(folder: Path) -> str:
    """Why a folder without config.json is not a model's."""
    if (folder / "adapter_config.json").is_file():
        return "it holds a LoRA adapter: merge that into its model"
    files = sorted(file.name for file in folder.glob("*.gguf"))
    if files:
        return f"it has no config.json; name the GGUF file in it ({', '.join(files[:4])})"
    return "it has no config.json"


def _cached(name: str) -> Path:
    """The newest snapshot of "org/name" in Hugging Face's cache (huggingface_hub's layout: models--org--name with refs
    and snapshots). Nothing is downloaded."""
    if not _REPOSITORY.fullmatch(name):
        raise InvalidRequest(
            f"there is no model {name!r}: give {BUNDLED!r}, an existing folder or GGUF file, the name of a model in "
            "Hugging Face's cache (org/name), or an endpoint's URL"
        )
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    cache = Path(os.path.expanduser(os.environ.get("HF_HUB_CACHE") or home / "hub"))  # stays ~ without a home folder
    repository = cache / f"models--{name.replace('/', '--')}"
    main = repository / "refs" / "main"
    snapshots = repository / "snapshots"
    folder = snapshots / main.read_text(encoding="utf-8").strip() if main.is_file() else snapshots / "none"
    if not folder.is_dir():
        raise InvalidRequest(
            f"there is no model {name!r}, neither here nor in Hugging Face's cache ({cache}): fetch it with "
            f"`hf download {name}` (package huggingface_hub)"
        )
    if (folder / "config.json").is_file():
        return folder
    files = sorted(folder.glob("*.gguf"))
    if len(files) == 1:
        return files[0]
    raise InvalidRequest(f"{folder} is not a model folder: {_what_it_is(folder)}")
