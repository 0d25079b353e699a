"""Strategies by their text: "direct", "consensus(samples=8, temperature=0.7)"."""

from __future__ import annotations

import ast
import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ponder.think.consensus import consensus
from ponder.think.direct import direct
from ponder.think.protocol import Strategy
from ponder.types import InvalidRequest

STRATEGIES: dict[str, Callable[..., Strategy]] = {"direct": direct, "consensus": consensus}
KINDS: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "Effort": (str,)}


def parse_strategy(text: str, **defaults: object) -> Strategy:
    """The strategy that `text` calls for. `defaults` fill arguments that the text leaves out; None fills nothing.

    Raises InvalidRequest on an unknown strategy or argument (with a suggestion), a wrong type, or text that is no call.
    """
    name, arguments = _taken_apart(text)
    if name not in STRATEGIES:
        raise InvalidRequest(f"there is no strategy {name!r}: {_hint(name, STRATEGIES)}")
    make = STRATEGIES[name]
    known = inspect.signature(make).parameters
    for key, value in arguments.items():
        if key not in known:
            raise InvalidRequest(f"{name} takes no {key!r}: {_hint(key, known)}")
        _check_type(name, key, value, str(known[key].annotation))
    return make(**{key: value for key, value in defaults.items() if value is not None} | arguments)


def _taken_apart(text: str) -> tuple[str, dict[str, Any]]:
    complaint = f"{text!r} is no strategy: write it like 'direct' or 'consensus(samples=8)'"
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise InvalidRequest(complaint) from None
    if isinstance(tree, ast.Name):
        return tree.id, {}
    if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name) or tree.args:
        raise InvalidRequest(complaint)
    arguments = {}
    for keyword in tree.keywords:
        if keyword.arg is None:
            raise InvalidRequest(complaint)
        try:
            arguments[keyword.arg] = ast.literal_eval(keyword.value)
        except (ValueError, TypeError, RecursionError, MemoryError):
            raise InvalidRequest(f"{text!r}: the value of {keyword.arg!r} must be a plain number or string") from None
    return tree.func.id, arguments


def _check_type(strategy: str, key: str, value: object, annotation: str) -> None:
    allowed = tuple(kind for word in annotation.split("|") for kind in KINDS.get(word.strip(), ()))
    if isinstance(value, bool) or not isinstance(value, allowed):
        names = " or ".join(dict.fromkeys(kind.__name__ for kind in allowed))
        raise InvalidRequest(f"{strategy}: {key} must be {names}, not {value!r}")


def _hint(name: str, names: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(names)}"
