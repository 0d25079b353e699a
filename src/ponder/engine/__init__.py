"""Ids in, ids out: continuous batching over one model, with the thinking under control. Never text.

`step()` reads schedule → ask → run → emit; each is a module: `scheduler`, `choosing` under the rules of `phases`, a
`runner` over its pages (it samples too), `events`.
"""

from ponder.engine.engine import COMPUTE_LOCK, Engine
from ponder.engine.events import Event, FailEvent, FinishEvent, TokenEvent

__all__ = ["COMPUTE_LOCK", "Engine", "Event", "FailEvent", "FinishEvent", "TokenEvent"]
