"""Prompts to answer, from a file: a text on each line, or JSON lines with a `prompt`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ponder.dialogue.interchange import from_dicts
from ponder.dialogue.messages import Message, Role
from ponder.types import DataError, FormatError

JSON_LINES = frozenset({".jsonl", ".ndjson"})


def prompts_of_file(path: Path) -> list[tuple[str, tuple[Message, ...]]]:
    """(place, conversation) for each prompt of a file, empty lines aside. Records of JSON lines have a `prompt`, a
    string or messages; other keys are not read. Raises DataError naming file and line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}): give a text file in UTF-8") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        found.append((where, _from_json(line, where) if path.suffix in JSON_LINES else (Message.user(line),)))
    if not found:
        raise DataError(f"{path}: holds no prompt: write one on each line")
    return found


def _from_json(line: str, where: str) -> tuple[Message, ...]:
    try:
        record: Any = json.loads(line)
        prompt = record["prompt"]
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: is not valid JSON: {error}") from error
    except (KeyError, TypeError) as error:
        raise DataError(f'{where}: must be a JSON object with a "prompt"') from error
    if isinstance(prompt, str):
        messages: tuple[Message, ...] = (Message.user(prompt),)
    else:
        try:
            messages = from_dicts(prompt)
        except (FormatError, TypeError) as error:
            raise DataError(f"{where}: {error}") from error
    if not messages or messages[-1].role is not Role.USER or not messages[-1].text.strip():
        raise DataError(f"{where}: a prompt must end with a message of the user, and not be empty")
    return messages
