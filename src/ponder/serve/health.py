"""Whether the server lives, whether it takes requests, what it counts, and which models it has."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from ponder.serve.errors import shutting_down
from ponder.serve.models import Served
from ponder.serve.state import state_of

router = APIRouter()


class Status(BaseModel):
    status: Literal["ok"] = "ok"


class ModelObject(BaseModel):
    """`max_model_len` as vLLM tells it; null for a model behind another server."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    max_model_len: int | None


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelObject]


@router.get("/health")
async def health() -> Status:
    """The process lives. Needs no key."""
    return Status()


@router.get("/ready")
async def ready(request: Request) -> Status:
    """The server takes requests: 503 while it shuts down."""
    if not state_of(request).accepting:
        raise shutting_down()
    return Status()


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """Counters for Prometheus."""
    state = state_of(request)
    engines = {each.name: await each.local.stats() for each in state.models if each.local is not None}
    return Response(state.metrics.page(engines), media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/models")
async def models(request: Request) -> ModelList:
    """The models that requests may name."""
    return ModelList(data=[_model(each) for each in state_of(request).models])


@router.get("/v1/models/{model:path}")
async def model(model: str, request: Request) -> ModelObject:
    """One of them."""
    return _model(state_of(request).models.get(model))


def _model(served: Served) -> ModelObject:
    details: dict[str, Any] = {"id": served.name, "created": served.created, "owned_by": served.owned_by}
    return ModelObject(**details, max_model_len=served.sampler.window)
