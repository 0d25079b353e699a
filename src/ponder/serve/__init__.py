"""The API that programs already speak, over any sampler: `ponder serve`, or `create_app` in your own server.

A request passes `http` (key, body, errors), its endpoint (`chat`, `completions`, `responses`: wire objects, conversion
to an ask, routes) and `answering` (a place in the queue of `admission`, then a strategy over a sampler).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ponder.types import MissingExtra

if TYPE_CHECKING:
    from ponder.serve.app import create_app as create_app
    from ponder.serve.models import Served as Served
    from ponder.serve.settings import Settings as Settings

for _package in ("fastapi", "uvicorn", "prometheus_client"):
    try:
        import_module(_package)
    except ImportError as error:
        raise MissingExtra(_package, "serve") from error

_HOMES = {"create_app": "ponder.serve.app", "Served": "ponder.serve.models", "Settings": "ponder.serve.settings"}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    """Names are imported when first used: settings and keys need neither the models nor torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ponder.serve' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
