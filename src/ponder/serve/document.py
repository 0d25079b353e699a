"""The OpenAPI document of an application, with what the code alone does not say: which paths need a key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI

from ponder.serve.auth import OPEN_PATHS

SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def document(app: FastAPI, *, keys: bool) -> Callable[[], dict[str, Any]]:
    """What `app.openapi` should be. keys: whether requests need one."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None and keys:
            told = plain()
            told["components"]["securitySchemes"] = SCHEMES
            for path, methods in told["paths"].items():
                for operation in methods.values():
                    operation["security"] = [] if path in OPEN_PATHS else [{name: []} for name in SCHEMES]
        return plain()

    return described
