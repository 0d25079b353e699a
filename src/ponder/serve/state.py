"""What the routes of one server share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from starlette.requests import Request

from ponder.serve.metrics import Metrics
from ponder.serve.models import Models
from ponder.serve.settings import Settings


@dataclass(slots=True, kw_only=True)
class State:
    """accepting: False once the server drains."""

    settings: Settings
    models: Models
    metrics: Metrics
    accepting: bool = True

    def drain(self) -> None:
        """Take nothing new; what runs or waits goes on."""
        self.accepting = False
        for admission in self.models.admissions.values():
            admission.close()


def state_of(request: Request) -> State:
    return cast(State, request.app.state.ponder)


def owner_of(request: Request) -> str:
    """Who asks, as `auth` found out."""
    return cast(str, request.state.owner)
