"""What the Python scripts of this folder share: a client runs its cells of the table, and says how each went."""

from __future__ import annotations

import asyncio
import importlib.metadata
import inspect
import json
import os
from collections.abc import Callable

URL = os.environ.get("PONDER_URL", "http://127.0.0.1:8000/v1")
ROOT = URL.removesuffix("/v1")
MODEL, KEY = "said", "none"
LENGTH = 200  # of a reason, in characters

# The cells' questions, and what a client has to make of the answers.
SAY, SAID = "say The answer is four.", "The answer is four."
CALL, CALLED = 'call multiply {"a": 6, "b": 7}', "The tool said: 42"
CITY = {"city": "Paris", "people": 2100000}
JSON = f"say {json.dumps(CITY)}"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["city", "people"],
    "additionalProperties": False,
}
REMEMBER, WHICH, WORD = "remember cobalt", "which word", "cobalt"


def multiply(a: int, b: int) -> str:
    """The product of two numbers."""
    return str(a * b)


def row(client: str, package: str, **cells: Callable[[], object] | str) -> None:
    """Run a client's cells. A text in the place of a function is the reason why the client has no such cell."""
    version = importlib.metadata.version(package)
    for cell, run in cells.items():
        told = {"client": client, "version": version, "cell": cell, "ran": not isinstance(run, str)}
        print("CELL", json.dumps({**told, "why": run if isinstance(run, str) else outcome(run)}), flush=True)


def outcome(run: Callable[[], object]) -> str:
    """ "" where the cell holds, else why not, on one line."""
    try:
        result = run()
        if inspect.iscoroutine(result):
            asyncio.run(result)
    except Exception as error:
        return " ".join(f"{type(error).__name__}: {error}".split())[:LENGTH]
    return ""


def equal(found: object, expected: object) -> None:
    if found != expected:
        raise AssertionError(f"{found!r}, not {expected!r}")


def streamed(pieces: list[str], expected: str) -> None:
    """The pieces join to the text, and there is more than one."""
    equal("".join(pieces), expected)
    if len([piece for piece in pieces if piece]) < 2:
        raise AssertionError("the stream came in one piece")
