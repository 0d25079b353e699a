"""Health of the server: whether it lives and takes requests, what it counts, and which models it has."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from ponder.serve.errors import ShuttingDown
from ponder.serve.http.exchange import state_of
from ponder.serve.models import Served

router = APIRouter()
TEXT = {"text/plain": {"schema": {"type": "string"}}}


class Health(BaseModel):
    status: Literal["ok"] = "ok"


class ModelObject(BaseModel):
    """`max_model_len` is the window, as in vLLM; null for a model on another server. `parent` is the model under an
    adapter or a strategy."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    max_model_len: int | None
    parent: str | None = None


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelObject]


@router.get("/health")
async def health() -> Health:
    """The process lives. Needs no key."""
    return Health()


@router.get("/ready")
async def ready(request: Request) -> Health:
    """The server takes requests: 503 while it shuts down."""
    if not state_of(request).accepting:
        raise ShuttingDown()
    return Health()


@router.get("/metrics", response_class=Response, responses={200: {"content": TEXT}})
async def metrics(request: Request) -> Response:
    """Counters for Prometheus."""
    state = state_of(request)
    found = {name: await sampler.stats() for name, sampler in state.models.samplers().items()}
    engines = {name: stats for name, stats in found.items() if stats is not None}
    return Response(state.metrics.page(engines), media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/models")
async def models(request: Request) -> ModelList:
    """The models that requests may name."""
    return ModelList(data=[_model(each) for each in state_of(request).models])


@router.get("/v1/models/{model:path}")
async def model(model: Annotated[str, Path(max_length=512)], request: Request) -> ModelObject:
    """One of them."""
    return _model(state_of(request).models.get(model))


def _model(served: Served) -> ModelObject:
    return ModelObject(
        id=served.name,
        created=served.created,
        owned_by=served.owned_by,
        max_model_len=served.capabilities.window,
        parent=served.parent,
    )
