"""A message's parts as JSON that is kept and never sent: text, hidden reasoning, and the ids they were sampled as."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from ponder.dialogue.messages import Part, Reasoning, Text, ToolCall
from ponder.serve.models import Served
from ponder.tokenizer import Tokenizer

_VOCABULARIES: WeakKeyDictionary[Tokenizer, str] = WeakKeyDictionary()


def write_parts(parts: Iterable[Part]) -> list[dict[str, Any]]:
    """The parts of an assistant's message."""
    return [_written(part) for part in parts]


def read_parts(written: Sequence[Mapping[str, Any]], *, keep_ids: bool) -> tuple[Part, ...]:
    """The inverse. keep_ids: whether they are ids of the tokenizer that will read them."""
    return tuple(_read(each, tuple(each["ids"]) if keep_ids and "ids" in each else None) for each in written)


def vocabulary(served: Served) -> str | None:
    """What tells one tokenizer's ids from another's; None: there are no ids (a model behind another server)."""
    tokenizer = served.tokenizer
    if tokenizer is not None and tokenizer not in _VOCABULARIES:
        spec = json.dumps(dict(tokenizer.spec), sort_keys=True, default=str)
        _VOCABULARIES[tokenizer] = hashlib.sha256(spec.encode()).hexdigest()[:16]
    return None if tokenizer is None else _VOCABULARIES[tokenizer]


def _written(part: Part) -> dict[str, Any]:
    ids = {} if getattr(part, "ids", None) is None else {"ids": list(part.ids or ())}  # type: ignore[union-attr]
    match part:
        case Text():
            return {"type": "text", "text": part.text, **ids}
        case Reasoning():
            return {"type": "reasoning", "text": part.text, **({"state": True} if part.state else {}), **ids}
        case ToolCall():
            return {"type": "call", "name": part.name, "arguments": part.arguments, "id": part.id, **ids}
        case _:
            raise TypeError(f"no part of an assistant's message: {type(part).__name__}")


def _read(written: Mapping[str, Any], ids: tuple[int, ...] | None) -> Part:
    match written["type"]:
        case "text":
            return Text(written["text"], ids)
        case "reasoning":
            return Reasoning(written["text"], ids, bool(written.get("state")))
        case _:
            return ToolCall(written["name"], written["arguments"], written["id"], ids)
