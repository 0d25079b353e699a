"""Ids in, ids out: continuous batching over one model, with the thinking under control. Never text.

`step()` reads schedule → run → sample → emit; each is a module: `scheduler`, `runner` over `cache`, `sampling` under
the rules of `phases`, `events`.
"""

from ponder.engine.engine import COMPUTE_LOCK, Engine
from ponder.engine.events import Event, FailEvent, FinishEvent, TokenEvent

__all__ = ["COMPUTE_LOCK", "Engine", "Event", "FailEvent", "FinishEvent", "TokenEvent"]
