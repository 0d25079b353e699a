"""What the container runs: the entry point of the Containerfile makes a key, serves mini, and asks for the key."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

pytestmark = pytest.mark.smoke

TEXT = (Path(__file__).parents[2] / "Containerfile").read_text(encoding="utf-8")


def status(url: str, key: str | None = None) -> int:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_what_is_copied_into_the_image_exists() -> None:
    root = Path(__file__).parents[2]
    copied = [name for line in re.findall(r"^COPY (.*)$", TEXT, re.MULTILINE) for name in line.split()[:-1]]
    assert copied
    assert all((root / name).exists() for name in copied)
    ignored = (root / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert all(f"!{name}" in ignored for name in copied)


def test_the_entry_point_serves_and_wants_the_key_that_it_printed(tmp_path: Path) -> None:
    (found,) = re.findall(r"^ENTRYPOINT (.*)$", TEXT, re.MULTILINE)
    command = [part.replace("/data", str(tmp_path)) for part in json.loads(found)]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = Path(sys.executable).parent
    environ = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    process = subprocess.Popen(
        [*command, "mini", "--port", str(port)], env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        key = process.stdout.readline().decode().strip()
        deadline = time.monotonic() + 120
        while True:
            try:
                assert status(f"http://127.0.0.1:{port}/health") == 200
                break
            except urllib.error.URLError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
        assert status(f"http://127.0.0.1:{port}/v1/models") == 401
        assert status(f"http://127.0.0.1:{port}/v1/models", key) == 200
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()  # type: ignore[union-attr]
