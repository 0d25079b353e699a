"""What the Python scripts of this folder share: a client runs its cells of the table, and says how each went."""

from __future__ import annotations

import asyncio
import importlib.metadata
import inspect
import json
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

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
    version = version_of(package)
    for cell, run in cells.items():
        told = {"client": client, "version": version, "cell": cell, "ran": not isinstance(run, str)}
        print("CELL", json.dumps({**told, "why": run if isinstance(run, str) else outcome(run)}), flush=True)


def version_of(package: str) -> str:
    """package: a name of Python's, or the folder of one of Node's."""
    if package.startswith("node_modules/"):
        return json.loads(Path(package, "package.json").read_text(encoding="utf-8"))["version"]
    return importlib.metadata.version(package)


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


# Commands -------------------------------------------------------------------------------------------------------------

ECHO = "echo 42"  # what a coding agent is told to run
COMMAND_SECONDS = 90


def said_by(command: Sequence[str], folder: Path, **environment: str) -> str:
    """What a command prints, run in a folder. Raises RuntimeError where it fails."""
    line = [str(Path(command[0]).absolute()), *command[1:]]
    ran = subprocess.run(
        line,
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
    )
    if ran.returncode:
        raise RuntimeError((ran.stderr or ran.stdout)[-LENGTH:])
    return ran.stdout


def shown(text: str) -> None:
    """The answer after `ECHO` shows its result, perhaps among other words of the agent's tool."""
    if not text.startswith("The tool said:") or "42" not in text.split():
        raise AssertionError(f"{text!r} does not show the result")
