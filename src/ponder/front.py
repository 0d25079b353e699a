"""`ponder.load`: from the name of a model to something that can be asked."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ponder.types import InvalidRequest

if TYPE_CHECKING:
    from ponder.think import Reasoner

BUNDLED = "mini"


def load(where: str | Path = BUNDLED, /, **options: Any) -> Reasoner:
    """A `Reasoner` over a model.

    where: "mini" (the model inside the package), a folder in the Hugging Face layout, or the base URL of an
        OpenAI-compatible endpoint ("http://localhost:8000/v1").
    options: those of `ponder.sampler.local.load_sampler` (dtype, device, adapter, max_batch, quantize, …), or of
        `ponder.sampler.endpoint.EndpointSampler` (model, api_key, dialect, timeout, …).
    Raises InvalidRequest when there is no such model, CheckpointError when the folder holds no sound one.
    """
    from ponder.think import Reasoner

    if isinstance(where, str) and where.startswith(("http://", "https://")):
        from ponder.sampler.endpoint import EndpointSampler

        return Reasoner(EndpointSampler(where, **options))
    folder = model_folder(where)
    from ponder.sampler.local import load_sampler

    return Reasoner(load_sampler(folder, **options))


def model_folder(model: str | Path) -> Path:
    """Where the files of a local model lie. A folder called "mini" in the working directory is "./mini"."""
    if model == BUNDLED:
        bundled = Path(str(files("ponder") / BUNDLED))
        if not (bundled / "config.json").is_file():
            raise InvalidRequest(
                f"this build of ponder carries no {BUNDLED!r} model ({bundled} has no config.json): name a model "
                "folder, or make one with `ponder train recipes/mini/all.toml`"
            )
        return bundled
    folder = Path(model)
    if not folder.exists():
        raise InvalidRequest(
            f"there is no model {str(model)!r}: give {BUNDLED!r}, an existing folder, or an endpoint's URL"
        )
    if not (folder / "config.json").is_file():
        adapter = (folder / "adapter_config.json").is_file()
        why = "it holds a LoRA adapter: merge that into its model" if adapter else "it has no config.json"
        raise InvalidRequest(f"{folder} is not a model folder: {why}")
    return folder
