"""What one request cost, for the metrics and the log."""

from __future__ import annotations

import time
from collections.abc import Sequence

from starlette.requests import Request

from ponder.sampler.protocol import Completion
from ponder.serve.state import State
from ponder.types import Usage


class Tally:
    """Begins with the request."""

    def __init__(self, http: Request, state: State, model: str) -> None:
        self._http = http
        self._metrics = state.metrics
        self._model = model
        self._began = time.monotonic()
        self._first: float | None = None

    def first_token(self) -> None:
        """Something came: the first time counts."""
        if self._first is None:
            self._first = time.monotonic() - self._began

    def end(self, completions: Sequence[Completion]) -> None:
        bill = sum((each.usage for each in completions), Usage())
        reasons = [each.stop_reason.value for each in completions]
        self._metrics.finished(self._model, bill, reasons, time.monotonic() - self._began, self._first)
        self._http.state.log = {
            "model": self._model,
            "prompt_tokens": bill.prompt_tokens,
            "completion_tokens": bill.completion_tokens,
            "reasoning_tokens": bill.reasoning_tokens,
            "ended": reasons,
        }
