"""llm, the command: chat completions, set up by its file of further models; its conversations in its own database."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from cells import (
    CALL,
    CALLED,
    CITY,
    JSON,
    KEY,
    MODEL,
    REMEMBER,
    SAID,
    SAY,
    SCHEMA,
    URL,
    WHICH,
    WORD,
    equal,
    row,
    said_by,
)

PRODUCT = '''def multiply(a: int, b: int) -> str:
    """The product of two numbers."""
    return str(a * b)
'''


def cells(home: Path, **more: bool) -> dict[str, object]:
    model = {"model_id": MODEL, "model_name": MODEL, "api_base": URL, "supports_schema": True, "supports_tools": True}
    (home / "extra-openai-models.yaml").write_text(json.dumps([{**model, **more}]), encoding="utf-8")  # JSON is YAML

    def llm(*arguments: str) -> str:
        command = [str(Path(sys.executable).with_name("llm")), "--model", MODEL, "--key", KEY, *arguments]
        return said_by(command, home, LLM_USER_PATH=str(home)).strip()

    def two_turns() -> None:
        llm(REMEMBER)
        equal(llm("--continue", WHICH), WORD)

    return {
        "chat": lambda: equal(llm("--no-stream", SAY), SAID),
        "stream": lambda: equal(llm(SAY), SAID),
        "tools": lambda: equal(llm("--functions", PRODUCT, CALL), CALLED),
        "structured": lambda: equal(json.loads(llm("--schema", json.dumps(SCHEMA), JSON)), CITY),
        "two_turns": two_turns,
    }


for name, more in (("chat completions", {}), ("responses", {"responses": True})):
    with tempfile.TemporaryDirectory() as home:
        row(f"llm, {name}", "llm", **cells(Path(home), **more))
