"""What the routes of one server share, and who is asking."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import cast

from starlette.requests import Request

from ponder.serve.answering import Tally
from ponder.serve.metrics import ServerMetrics
from ponder.serve.models import Models, Served
from ponder.serve.responses.service import ResponseService
from ponder.serve.settings import Settings


@dataclass(slots=True, kw_only=True)
class ServerState:
    """accepting: False when the server drains.
    ends: when it stops waiting for what runs, on the clock of `time.monotonic`."""

    settings: Settings
    models: Models
    metrics: ServerMetrics
    responses: ResponseService
    accepting: bool = True
    ends: float = math.inf

    def drain(self) -> None:
        """Take nothing new; what runs or waits goes on."""
        self.accepting = False
        self.ends = min(self.ends, time.monotonic() + self.settings.drain)
        self.responses.drain(self.ends)
        for admission in self.models.admissions.values():
            admission.close()

    @property
    def idle(self) -> bool:
        """No model computes, and no request waits for one."""
        return all(admission.idle for admission in self.models.admissions.values())


def state_of(request: Request) -> ServerState:
    return cast(ServerState, request.app.state.ponder)


def owner_of(request: Request) -> str:
    """The owner whose key the request came with."""
    return cast(str, request.state.owner)


def tally_of(request: Request, served: Served) -> Tally:
    """A tally whose figures stand in the request's line of the log."""
    return Tally(state_of(request).metrics, served.name, request.state.log)
