"""Ids in, ids out: continuous batching over one model, with the thinking under control. Never text.

`step()` reads schedule → constrain → run → emit: `scheduler`, the rules of `phases`, a `runner` over its pages (it also
samples), and the events of `sequence`.
"""

from ponder.engine.engine import COMPUTE_LOCK, Engine
from ponder.engine.sequence import Event, FailEvent, FinishEvent, TokenEvent

__all__ = ["COMPUTE_LOCK", "Engine", "Event", "FailEvent", "FinishEvent", "TokenEvent"]
