"""opencode, the coding agent: chat completions. It runs its own tool, and keeps its sessions."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from cells import ECHO, KEY, MODEL, REMEMBER, SAID, SAY, URL, WHICH, WORD, equal, row, said_by, shown

PACKAGE = "node_modules/opencode-linux-x64"
PROVIDER = "@ai-sdk/openai-compatible"


def cells(home: Path) -> dict[str, object]:
    options = {"baseURL": URL, "apiKey": KEY}
    known = {"ponder": {"npm": PROVIDER, "name": "Ponder", "options": options, "models": {MODEL: {"name": MODEL}}}}
    config = {"autoupdate": False, "share": "disabled", "small_model": f"ponder/{MODEL}", "provider": known}

    def opencode(text: str, *arguments: str) -> str:
        # A word is an argument: what has spaces would come with quotation marks around it.
        command = [f"{PACKAGE}/bin/opencode", "run", *arguments, "--format", "json", "--model", f"ponder/{MODEL}"]
        environment = {"OPENCODE_CONFIG_CONTENT": json.dumps(config), "OPENCODE_DISABLE_MODELS_FETCH": "1"}
        printed = said_by([*command, *text.split()], home, HOME=str(home), **environment)
        events = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
        failed = [event["error"] for event in events if event["type"] == "error"]
        if failed:
            raise RuntimeError(json.dumps(failed[0]))
        return "".join(event["part"]["text"] for event in events if event["type"] == "text").strip()

    def two_turns() -> None:
        opencode(REMEMBER)
        equal(opencode(WHICH, "--continue"), WORD)

    arguments = json.dumps({"command": ECHO, "description": "echo"})
    return {
        "chat": "it always streams",
        "stream": lambda: equal(opencode(SAY), SAID),
        "tools": lambda: shown(opencode(f"call bash {arguments}")),
        "structured": "it asks for no schema",
        "two_turns": two_turns,
    }


if Path(PACKAGE).exists():
    with tempfile.TemporaryDirectory() as folder:
        row("opencode, chat completions", PACKAGE, **cells(Path(folder)))
