"""Unmodified clients of others against a server whose answers are known; prints which of them can do what.

python tests/clients/run.py --write                      all, and the table goes into docs/serving.md
python tests/clients/run.py --write codex                one, whose rows of that table are replaced
python tests/clients/run.py openai_python openai_node    these, and nothing is written

`make test-clients` installs them in build/clients first. Exits 1 where a cell fails.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "clients"
RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "serving.md"
BEGIN, END = "<!-- clients -->\n", "<!-- end of clients -->\n"

CELLS = {"chat": "chat", "stream": "stream", "tools": "tools", "structured": "structured", "two_turns": "two turns"}
OURS = {"openai_python", "anthropic_python"}  # installed beside Ponder, by its extra `dev`
AGENTS = {"codex", "pi", "opencode"}  # commands of Node, which a script of Python runs
CLIENTS = (
    *("openai_python", "openai_node", "anthropic_python", "anthropic_node", "langchain_python", "langchain_js"),
    *("ai_sdk", "agents_python", "agents_js", "pydantic_ai_python", "instructor_python", "llm_python"),
    *("inspect_python", "lm_eval_python", "codex", "pi", "opencode"),
)
# Nothing but this machine is reached: any other way leads to a proxy that is not there.
NOWHERE = "http://127.0.0.1:9"
LOCAL = {
    **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
    **dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"), NOWHERE),
    **dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"), "1"),
}
START_SECONDS = 120
CLIENT_SECONDS = 900


@dataclass(frozen=True, slots=True)
class Cell:
    """ran: False where the client has no such thing. why: why it failed, or was not run; "" where it holds."""

    client: str
    version: str
    cell: str
    ran: bool
    why: str

    @property
    def failed(self) -> bool:
        return self.ran and bool(self.why)

    def __str__(self) -> str:
        return "ok" if self.ran and not self.why else self.why.replace("|", "\\|")


@contextmanager
def serving() -> Iterator[str]:
    """The URL of a server that runs, which ends in /v1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "server.log").open("w") as log:
        process = subprocess.Popen([sys.executable, HERE / "server.py", str(port)], stderr=log)
        try:
            wait(process, f"http://127.0.0.1:{port}/health")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait()


def wait(process: subprocess.Popen[bytes], health: str) -> None:
    began = time.monotonic()
    while True:
        try:
            with urllib.request.urlopen(health, timeout=5):
                return
        except OSError:
            if process.poll() is not None or time.monotonic() - began > START_SECONDS:
                raise SystemExit(f"the server did not start: see {BUILD / 'server.log'}") from None
            time.sleep(0.05)


def command(name: str) -> list[str | Path]:
    """Raises FileNotFoundError, saying what is missing."""
    if name not in AGENTS and (HERE / f"{name}.py").exists():
        venv = "venv-instructor" if name == "instructor_python" else "venv"
        python = Path(sys.executable) if name in OURS else BUILD / venv / "bin" / "python"
        return [installed(python), HERE / f"{name}.py"]
    node = shutil.which("node")
    if node is None:
        raise FileNotFoundError("there is no node on this machine")
    installed(BUILD / "node_modules" / ("@openai/codex" if name in AGENTS else "openai"))
    if name in AGENTS:
        return [sys.executable, HERE / f"{name}.py"]
    for script in HERE.glob("*.mjs"):  # modules are looked for beside the script
        shutil.copy(script, BUILD)
    return [node, BUILD / f"{name}.mjs"]


def installed(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"{path.relative_to(ROOT)} is missing: `make test-clients` installs it")
    return path


def cells(name: str, url: str) -> list[Cell]:
    """What a client's script found. Raises FileNotFoundError where it is not installed."""
    try:
        with tempfile.TemporaryDirectory() as home:
            run = subprocess.run(
                command(name),
                cwd=BUILD,
                env={**os.environ, **LOCAL, "HOME": home, "PONDER_URL": url},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=CLIENT_SECONDS,
            )
        printed, error = run.stdout, run.stderr if run.returncode else ""
    except subprocess.TimeoutExpired as late:
        printed, error = (late.stdout or b"").decode(), f"it ran for more than {CLIENT_SECONDS} seconds"
    found = [Cell(**json.loads(line[5:])) for line in printed.splitlines() if line.startswith("CELL ")]
    if error or not found:
        found.append(Cell(name, "", "chat", True, " ".join(error.split())[-300:] or "it said nothing"))
    return found


def table(found: Sequence[Cell]) -> str:
    """Markdown: a row for each client, a column for each cell."""
    rows = ["| client | " + " | ".join(CELLS.values()) + " |", "| --- " * (len(CELLS) + 1) + "|"]
    for client, version in dict.fromkeys((each.client, each.version) for each in found):
        told = {each.cell: str(each) for each in found if each.client == client}
        rows.append(f"| {client} {version} | " + " | ".join(told.get(cell, "") for cell in CELLS) + " |")
    return "\n".join(rows) + "\n"


def replaced(found: Sequence[Cell]) -> list[Cell]:
    """The cells of the last table, with those that were found now in their places."""
    told = json.loads((RESULTS / "clients.json").read_text(encoding="utf-8"))
    before = [Cell(**each) for each in told]
    return list({(each.client, each.cell): each for each in (*before, *found)}.values())


def write(found: Sequence[Cell]) -> None:
    text = table(found)
    told = [{name: getattr(each, name) for name in Cell.__slots__} for each in found]
    (RESULTS / "clients.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "clients.md").write_text(text, encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(re.sub(f"(?<={BEGIN}).*?(?={END})", lambda _: text, page, flags=re.DOTALL), encoding="utf-8")


def main() -> int:
    names = [name for name in sys.argv[1:] if name != "--write"]
    found, missing = list[Cell](), 0
    with serving() as url:
        for name in names or CLIENTS:
            try:
                found += cells(name, url)
            except FileNotFoundError as absent:
                missing += 1
                print(f"{name} was not run: {absent}")
    print(table(found))
    if "--write" in sys.argv and not missing:
        write(replaced(found) if names else found)
    return 1 if any(each.failed for each in found) or not found else 0


if __name__ == "__main__":
    sys.exit(main())
