"""Codex, the command: responses. It runs its own tool, and keeps its sessions in its folder."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from cells import (
    CITY,
    ECHO,
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
    shown,
)

CONFIG = f"""
model = "{MODEL}"
model_provider = "ponder"

[model_providers.ponder]
name = "Ponder"
base_url = "{URL}"
env_key = "PONDER_KEY"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
"""
# The one command that the server has it run is `echo 42`: no sandbox is needed, and not every machine has one.
EXEC = ("exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox")


def cells(home: Path) -> dict[str, object]:
    (home / "config.toml").write_text(CONFIG, encoding="utf-8")
    (home / "schema.json").write_text(json.dumps(SCHEMA), encoding="utf-8")
    last = home / "last.txt"

    def codex(*arguments: str) -> str:
        command = ["node_modules/.bin/codex", *EXEC, "--output-last-message", str(last), *arguments]
        said_by(command, home, CODEX_HOME=str(home), PONDER_KEY=KEY)
        return last.read_text(encoding="utf-8").strip()

    def two_turns() -> None:
        codex(REMEMBER)
        equal(codex("resume", "--last", WHICH), WORD)

    return {
        "chat": "it always streams",
        "stream": lambda: equal(codex(SAY), SAID),
        "tools": lambda: shown(codex(f"call exec_command {json.dumps({'cmd': ECHO})}")),
        "structured": lambda: equal(json.loads(codex("--output-schema", str(home / "schema.json"), JSON)), CITY),
        "two_turns": two_turns,
    }


with tempfile.TemporaryDirectory() as folder:
    row("Codex, responses", "node_modules/@openai/codex", **cells(Path(folder)))
