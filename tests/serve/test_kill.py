"""`kill -9` under load: what was acknowledged is there after a restart, word by word, and the store is whole."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from child import free_port
from scripted_server import forked_server
from talk import ask

pytestmark = pytest.mark.fault

CLIENTS = 6
ENDED = {"completed", "failed", "queued", "in_progress"}


class Ledger:
    """What the server acknowledged: bodies of responses that were done, ids of those in the background."""

    def __init__(self) -> None:
        self.done: dict[str, dict] = {}
        self.background: set[str] = set()

    @property
    def count(self) -> int:
        return len(self.done) + len(self.background)

    @property
    def ids(self) -> set[str]:
        return self.done.keys() | self.background


async def load(port: int, ledger: Ledger, rng: random.Random) -> None:
    """Asks until the server is gone."""
    while True:
        background = rng.random() < 0.3
        body = {"model": "said", "input": f"what is {rng.random()}?", "background": background}
        try:
            answer = await ask(port, "/v1/responses", body)
            told = answer.json
        except (OSError, ValueError, IndexError):
            return  # cut in the middle: not acknowledged
        assert answer.status == 200, told
        if background:
            ledger.background.add(told["id"])
        else:
            ledger.done[told["id"]] = told


async def check(port: int, ledger: Ledger, ids: set[str]) -> None:
    for id in ids & ledger.done.keys():
        answer = await ask(port, f"/v1/responses/{id}")
        assert (answer.status, answer.json) == (200, ledger.done[id])
    for id in ids & ledger.background:
        answer = await ask(port, f"/v1/responses/{id}")
        assert answer.status == 200
        assert answer.json["status"] in ENDED, answer.json
        if answer.json["status"] == "failed":
            assert answer.json["error"]["code"] == "server_restarted"


async def live(process: Any, port: int, ledger: Ledger, fresh: set[str], rng: random.Random) -> None:
    """One life of a server: what the last one acknowledged is there; then load, and in the middle of it the end."""
    await check(port, ledger, fresh)
    until = ledger.count + rng.randrange(1, 20)
    loads = [asyncio.create_task(load(port, ledger, rng)) for _ in range(CLIENTS)]
    while ledger.count < until:
        assert not any(task.done() for task in loads)
        await asyncio.sleep(0.001)
    process.kill()
    await asyncio.gather(*loads)  # what was in the sockets still comes, and counts


def kill(path: Path, times: int) -> None:
    rng, ledger, fresh = random.Random(3), Ledger(), set[str]()
    store = path / "store.db"
    for _ in range(times):
        port, before = free_port(), ledger.ids
        with forked_server(port, store) as process:
            asyncio.run(live(process, port, ledger, fresh, rng))
        fresh = ledger.ids - before
    port = free_port()
    with forked_server(port, store):
        asyncio.run(check(port, ledger, ledger.ids))
    with closing(sqlite3.connect(store)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    print(f"\n{times} kills: {len(ledger.done)} responses and {len(ledger.background)} in the background, none lost")
    assert ledger.done
    assert ledger.background


def test_what_was_acknowledged_is_there_after_a_kill(tmp_path: Path) -> None:
    kill(tmp_path, 4)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_nothing_acknowledged_is_lost_in_100_kills(tmp_path: Path) -> None:
    kill(tmp_path, 100)
