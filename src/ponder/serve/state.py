"""What the routes of one server share."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from starlette.requests import Request

from ponder.serve.metrics import Metrics
from ponder.serve.models import Models
from ponder.serve.settings import Settings

if TYPE_CHECKING:
    from ponder.serve.responses.claims import Claims
    from ponder.serve.responses.jobs import Jobs
    from ponder.serve.responses.seal import Sealer
    from ponder.serve.store import Store


@dataclass(slots=True, kw_only=True)
class State:
    """accepting: False once the server drains; ends: when it waits no longer, on the clock of `time.monotonic`.
    store, claims, jobs: there while the server runs.
    sealer: None: reasoning is not sealed."""

    settings: Settings
    models: Models
    metrics: Metrics
    accepting: bool = True
    ends: float = math.inf
    store: Store = field(init=False)
    claims: Claims = field(init=False)
    jobs: Jobs = field(init=False)
    sealer: Sealer | None = None

    def drain(self) -> None:
        """Take nothing new; what runs or waits goes on."""
        self.accepting = False
        self.ends = min(self.ends, time.monotonic() + self.settings.drain)
        for admission in self.models.admissions.values():
            admission.close()

    @property
    def idle(self) -> bool:
        """No model computes, and nobody waits for one."""
        return all(admission.idle for admission in self.models.admissions.values())


def state_of(request: Request) -> State:
    return cast(State, request.app.state.ponder)


def owner_of(request: Request) -> str:
    """Who asks, as `auth` found out."""
    return cast(str, request.state.owner)
