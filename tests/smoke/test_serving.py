"""What docs/serving.md shows is what works: its Python and its curl run against a server, its commands parse or run."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import Live, serving

from ponder.cli.main import build_parser, main
from ponder.kernels.machine import machine
from ponder.serve import Served, Settings
from ponder.serve.settings import PREFIX, read_settings
from ponder.testing.tiny import tiny_sampler

pytestmark = pytest.mark.smoke

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
HERE = "http://localhost:8000"


def blocks(kind: str, text: str = PAGE) -> list[str]:
    """The code blocks of one language ("": none is named)."""
    return [body for name, body in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) if name == kind]


PYTHON = [*blocks("python"), *(each for each in blocks("python", README) if HERE in each)]
COMMANDS = [line for block in blocks("") for line in block.splitlines() if line.startswith("ponder ")]
CURL = re.compile(r"^curl (?:[^'\n]*'[^']*')*[^'\n]*$", re.MULTILINE)
CURLS = [found for block in blocks("") for found in CURL.findall(block)]


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    """A server whose `mini` babbles, but keeps every contract. Its window has room for a turn after long babble."""
    with serving([Served(name="mini", sampler=tiny_sampler(max_positions=16_384))]) as running:
        yield running


def test_the_page_shows_what_it_is_meant_to_show() -> None:
    assert len(PYTHON) >= 5
    assert len(COMMANDS) >= 6
    assert len(CURLS) == 5


def test_the_table_of_clients_is_what_the_last_run_of_all_of_them_found() -> None:
    shown = re.search("<!-- clients -->\n(.*?)<!-- end of clients -->\n", PAGE, re.DOTALL)
    assert shown is not None
    assert shown[1] == (ROOT / "bench" / "results" / "clients.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_the_python_runs(live: Live, number: int, capsys: pytest.CaptureFixture[str]) -> None:
    code = PYTHON[number].replace(HERE, live.root)
    scope: dict[str, object] = {"__name__": "__page__"}
    try:
        exec(code.replace("api_key=", "timeout=100, api_key="), scope)
    finally:
        if "client" in scope:
            scope["client"].close()  # type: ignore[attr-defined]
    assert capsys.readouterr().out


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
@pytest.mark.parametrize("number", range(len(CURLS)))
def test_the_curl_commands_run(live: Live, number: int) -> None:
    command = shlex.split(CURLS[number].replace(HERE, live.root))
    said = subprocess.run([*command, "--fail"], capture_output=True, text=True, timeout=100, check=True).stdout
    if "/metrics" in CURLS[number]:
        names = re.search(r"`ponder:` \((.*?)\)", PAGE)
        assert names is not None
        for name in re.findall(r"`(\w+)`", names[1]):
            assert f"ponder:{name}" in said
    else:
        assert "error" not in json.loads(said)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_parse(command: str) -> None:
    program, *arguments = shlex.split(command, comments=True)
    assert program == "ponder"
    assert build_parser().parse_args(arguments).verb == "serve"


def test_a_key_is_made_as_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (command,) = (each for each in COMMANDS if "--new-key" in each)
    assert main(shlex.split(command)[1:]) == 0
    assert capsys.readouterr().out.startswith("sk-ponder-")
    assert (tmp_path / "keys.txt").exists()


def test_the_settings_are_those_that_there_are(tmp_path: Path) -> None:
    file = tmp_path / "serve.toml"
    (text,) = blocks("toml")
    file.write_text(text, encoding="utf-8")
    read = read_settings(file, {}, {})
    assert {name: getattr(read, name) for name in tomllib.loads(text)} == tomllib.loads(text)
    named = set(re.findall(rf"`{PREFIX}([A-Z_]+)`", PAGE)) - {"API_KEY"}
    assert named == {name.upper() for name in Settings.__dataclass_fields__}
    for flag in re.findall(r"`--([a-z-]+)`", PAGE.split("## Settings")[1].split("```")[0]):
        assert flag in {"config", "help"} or flag.replace("-", "_") in Settings.__dataclass_fields__


def test_editors_are_pointed_at_the_base_url() -> None:
    (zed,) = blocks("json")
    provider = json.loads(zed)["language_models"]["openai_compatible"]["Ponder"]
    assert provider["api_url"] == f"{HERE}/v1"
    assert f"apiBase: {HERE}/v1" in blocks("yaml")[0]


@pytest.mark.skipif(not (ROOT / "src/ponder/mini/config.json").is_file(), reason="this checkout has no bundled model")
def test_the_command_serves_and_a_signal_ends_it() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "ponder.cli", "serve", "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            told = ask(process, f"http://127.0.0.1:{port}/v1/models")
            assert [each["id"] for each in told["data"]] == ["mini"]
        finally:
            process.send_signal(signal.SIGTERM)
            lines = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == 0
    assert any('"route": "/v1/models"' in line for line in lines)
    assert f"processor {machine()}" in next(line for line in lines if line.startswith("mini: kernel "))


def ask(process: subprocess.Popen[str], url: str) -> dict:
    for _ in range(600):
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.loads(answer.read())
        except OSError:
            assert process.poll() is None, "the server ended by itself"
        try:
            process.wait(0.2)
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError("the server never answered")
