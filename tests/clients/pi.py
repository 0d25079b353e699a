"""pi, the coding agent: chat completions, responses and messages. It runs its own tool, and keeps its sessions."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from cells import ECHO, KEY, MODEL, REMEMBER, ROOT, SAID, SAY, URL, WHICH, WORD, equal, row, said_by, shown, streamed

APIS = {
    "chat completions": ("openai-completions", URL),
    "responses": ("openai-responses", URL),
    "messages": ("anthropic-messages", ROOT),
}


def cells(home: Path, api: str, url: str) -> dict[str, object]:
    model = {"id": MODEL, "reasoning": True}
    providers = {"ponder": {"baseUrl": url, "api": api, "apiKey": KEY, "models": [model]}}
    (home / "models.json").write_text(json.dumps({"providers": providers}), encoding="utf-8")

    def pi(*arguments: str) -> str:
        command = ["node_modules/.bin/pi", "--print", "--offline", "--provider", "ponder", "--model", MODEL, *arguments]
        return said_by(command, home, PI_CODING_AGENT_DIR=str(home)).strip()

    def stream() -> None:
        events = [json.loads(line) for line in pi("--mode", "json", SAY).splitlines()]
        updates = [event["assistantMessageEvent"] for event in events if event["type"] == "message_update"]
        streamed([update["delta"] for update in updates if update["type"] == "text_delta"], SAID)

    def two_turns() -> None:
        pi(REMEMBER)
        equal(pi("--continue", WHICH), WORD)

    return {
        "chat": "it always streams",
        "stream": stream,
        "tools": lambda: shown(pi(f"call bash {json.dumps({'command': ECHO})}")),
        "structured": "it asks for no schema",
        "two_turns": two_turns,
    }


for name, (api, url) in APIS.items():
    with tempfile.TemporaryDirectory() as folder:
        row(f"pi, {name}", "node_modules/@mariozechner/pi-coding-agent", **cells(Path(folder), api, url))
