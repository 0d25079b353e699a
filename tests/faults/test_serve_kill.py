"""A server killed with -9 under load answers, once it is back, for everything that it had acknowledged."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

CLIENTS = 8
ENDED = ("completed", "failed")


@contextlib.contextmanager
def driver(store: Path) -> Iterator[subprocess.Popen]:
    file = Path(__file__).with_name("response_server.py")
    with subprocess.Popen([sys.executable, file, store], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process
        process.stdin.close()


@contextlib.contextmanager
def killed_in_the_end(process: subprocess.Popen) -> Iterator[openai.OpenAI]:
    process.stdin.write(b"go\n")
    process.stdin.flush()
    child, port = int(process.stdout.readline()), int(process.stdout.readline())
    try:
        with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="x", max_retries=0, timeout=30) as client:
            yield client
    finally:
        os.kill(child, signal.SIGKILL)
        assert process.stdout.readline() == b"dead\n"


def ask(client: openai.OpenAI, name: str, kept: dict, queued: set, events: dict) -> None:
    """Asks in every way until the server is gone; notes what it was told."""
    number = 0
    with contextlib.suppress(Exception):  # whatever a connection that is cut raises
        while True:
            text = f"{name} {number}"
            answer = client.responses.create(model="said", input=text)
            kept[answer.id] = answer.to_dict()
            queued.add(client.responses.create(model="said", input=text, background=True).id)
            seen = []
            for event in client.responses.create(model="said", input=text, background=True, stream=True):
                seen.append(event.to_dict())
                events[seen[0]["response"]["id"]] = seen
            number += 1


def check(client: openai.OpenAI, kept: dict, queued: set, events: dict) -> None:
    for id, told in kept.items():
        assert client.responses.retrieve(id).to_dict() == told
    for id in queued:
        until_ended(client, id)
    for id, seen in events.items():
        answer = until_ended(client, id)
        whole = [event.to_dict() for event in client.responses.retrieve(id, stream=True)]
        assert whole[: len(seen)] == seen, "what was sent is sent again, byte for byte"
        assert [event["sequence_number"] for event in whole] == list(range(len(whole)))
        assert whole[-1]["type"] == f"response.{answer.status}"


def until_ended(client: openai.OpenAI, id: str) -> openai.types.responses.Response:
    for _ in range(600):
        answer = client.responses.retrieve(id)
        if answer.status in ENDED:
            assert answer.status == "completed" or answer.error.code == "server_restarted"
            return answer
        time.sleep(0.02)
    raise AssertionError(f"{id} did not end")


def rounds(store: Path, kills: int) -> int:
    """How many responses were acknowledged."""
    random.seed(5)
    total = 0
    with driver(store) as process:
        kept, queued, events = {}, set(), {}
        for number in range(kills + 1):
            with killed_in_the_end(process) as client:
                check(client, kept, queued, events)
                total += len(kept) + len(queued) + len(events)
                kept, queued, events = {}, set(), {}
                if number == kills:
                    break
                threads = [
                    threading.Thread(target=ask, args=(client, f"{number}.{each}", kept, queued, events))
                    for each in range(CLIENTS)
                ]
                for thread in threads:
                    thread.start()
                wanted, patience = random.randrange(1, 25), time.monotonic() + 20
                while len(kept) + len(queued) + len(events) < wanted and time.monotonic() < patience:
                    time.sleep(0.002)
                time.sleep(random.uniform(0, 0.02))
            for thread in threads:
                thread.join()
    with contextlib.closing(sqlite3.connect(store)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert not database.execute("SELECT 1 FROM responses WHERE status IN ('queued', 'in_progress')").fetchall()
        for (body,) in database.execute("SELECT body FROM responses"):
            json.loads(body)
    return total


def test_what_was_acknowledged_is_there_after_a_few_kills(tmp_path: Path) -> None:
    assert rounds(tmp_path / "store.db", 3) > 3


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_what_was_acknowledged_is_there_after_a_hundred_kills(tmp_path: Path) -> None:
    assert rounds(tmp_path / "store.db", 100) > 500
