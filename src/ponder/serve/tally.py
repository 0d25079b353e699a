"""What one request cost, for the metrics and the log."""

from __future__ import annotations

import time
from collections.abc import Sequence

from starlette.requests import Request

from ponder.sampler.protocol import Completion
from ponder.serve.state import State
from ponder.types import Usage


class Tally:
    """Begins with the request. http: None: nobody waits for it, and no line of the log is its own."""

    def __init__(self, http: Request | None, state: State, model: str) -> None:
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
        if self._http is None:
            return
        self._http.state.log = {
            "model": self._model,
            "first_token": None if self._first is None else round(self._first, 4),
            "prompt_tokens": bill.prompt_tokens,
            "cached_tokens": bill.cached_tokens,
            "completion_tokens": bill.completion_tokens,
            "reasoning_tokens": bill.reasoning_tokens,
            "ended": reasons,
        }
