"""The API that programs already speak, over any sampler: `ponder serve`, or `create_app` in a server of one's own.

A request passes `auth` (who is it?), a schema (is it well formed and within bounds?), `admission` (is there room?) and
then a sampler; `streaming` watches whether anybody still waits for the answer.
"""

from ponder.types import MissingExtra

try:
    import fastapi as _fastapi  # noqa: F401
    import prometheus_client as _prometheus_client  # noqa: F401
    import uvicorn as _uvicorn  # noqa: F401
except ImportError as error:
    raise MissingExtra(str(error.name), "serve") from error

from ponder.serve.app import create_app
from ponder.serve.models import Served
from ponder.serve.settings import Settings

__all__ = ["Served", "Settings", "create_app"]
