"""`ponder.load`: from the name of a model to something that can be asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ponder.think import Reasoner


def load(where: str | Path = "mini", /, **options: Any) -> Reasoner:
    """A `Reasoner` over a model.

    where: "mini" (the model inside the package), a folder in the Hugging Face layout, a GGUF file, a model in Hugging
        Face's local cache by its name ("org/name"), or the base URL of an OpenAI-compatible endpoint
        ("http://localhost:8000/v1"), with "#MODEL" after it and its dialect before it ("vllm+") where it needs them.
    options: those of `ponder.sampler.local.load_sampler` (dtype, device, adapter, max_batch, quantize, …), or of
        `ponder.sampler.endpoint.EndpointSampler` (model, api_key, dialect, timeout, …).
    Raises InvalidRequest when there is no such model, CheckpointError when the folder holds no sound one.
    """
    from ponder.sampler.opening import open_sampler
    from ponder.think import Reasoner

    return Reasoner(open_sampler(where, **options))
