"""Ponder: train language models to think before they answer, run and serve them with the thinking under control.

    import ponder

    model = ponder.load("mini")                                  # or a model folder, or the URL of an endpoint
    model.ask("What is 4711 * 815?").text                        # thinks, answers, discards the thinking
    model.ask("What is 4711 * 815?", effort="none")              # answers at once
    model.ask("…", strategy="consensus(samples=8)")              # asks eight times, takes the majority
    model.ask("…", grammar=ponder.Regex("[0-9]+"))               # an answer of that form, and free thinking
    model.ask_many(["…", "…"])                                   # batched
    chat = model.conversation(); chat.say("…"); chat.account     # several turns, and what they kept

    for event in model.events("…", strategy="consensus(samples=4)"): …   # everything a strategy does, event by event

What stands where, and which part may import which: docs/architecture.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ponder.front import load as load
    from ponder.sampler.protocol import JsonSchema as JsonSchema
    from ponder.sampler.protocol import Regex as Regex
    from ponder.think import Answer as Answer
    from ponder.think import Ask as Ask
    from ponder.think import Conversation as Conversation
    from ponder.think import Reasoner as Reasoner
    from ponder.think import consensus as consensus
    from ponder.think import direct as direct
    from ponder.types import Budget as Budget
    from ponder.types import Effort as Effort
    from ponder.types import PonderError as PonderError
    from ponder.types import Usage as Usage

_HOMES = {
    "load": "ponder.front",
    "JsonSchema": "ponder.sampler.protocol",
    "Regex": "ponder.sampler.protocol",
    "Answer": "ponder.think",
    "Ask": "ponder.think",
    "Conversation": "ponder.think",
    "Reasoner": "ponder.think",
    "consensus": "ponder.think",
    "direct": "ponder.think",
    "Budget": "ponder.types",
    "Effort": "ponder.types",
    "PonderError": "ponder.types",
    "Usage": "ponder.types",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    """Names are imported when first used, so that `import ponder` stays instant and torch stays away."""
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'ponder' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
