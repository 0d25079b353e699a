"""A server killed at any moment has kept what it acknowledged, and leaves a sound file.

A killed process loses nothing that the operating system holds, so this shows that an acknowledgement follows the
commit and that no half of a transaction is ever seen; that the disk has it is what `synchronous=FULL` asks of SQLite.
"""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.fault

KILLS = 100


def test_nothing_acknowledged_is_lost_in_a_hundred_kills(tmp_path):
    path = tmp_path / "store.db"
    driver = Path(__file__).with_name("store_writer.py")
    random.seed(7)
    told = []
    with subprocess.Popen([sys.executable, driver, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        for _ in range(KILLS):
            process.stdin.write(b"go\n")
            process.stdin.flush()
            said, child = process.stdout.readline().split()
            assert said == b"child"
            told += (process.stdout.readline().decode().split() for _ in range(random.randrange(60)))
            time.sleep(random.uniform(0, 0.004))
            os.kill(int(child), signal.SIGKILL)
            told += (line.decode().split() for line in iter(process.stdout.readline, b"dead\n"))
        process.stdin.close()
    assert len({words[1] for words in told if words[0] == "completed"}) > 2 * KILLS, "the children hardly wrote"
    with sqlite3.connect(path) as database:
        check(database, told)
    database.close()


def check(database, told):
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert database.execute("PRAGMA foreign_key_check").fetchall() == []
    responses = dict(database.execute("SELECT id, status FROM responses"))
    conversations = {id for (id,) in database.execute("SELECT id FROM conversations")}
    items = set(database.execute("SELECT conversation_id, id FROM items"))
    events = {}
    for id, number, data in database.execute("SELECT response_id, number, data FROM events"):
        assert data == f"{id} {number}"
        events.setdefault(id, []).append(number)
    doomed = {words[1] for words in told if words[0] == "deleting"}
    for what, *ids in told:
        if what == "conversation":
            assert ids[0] in conversations
        elif what == "item":
            assert tuple(ids) in items
        elif what == "deleted":
            assert ids[0] not in responses
        elif ids[0] not in doomed:
            assert responses[ids[0]] in ("in_progress", "completed")
            if what == "completed":
                assert responses[ids[0]] == "completed"
            if what != "added":
                assert events[ids[0]][:5] == [0, 1, 2, 3, 4]
    for id, status in responses.items():  # no half of a transaction
        assert len(events.get(id, [])) in ((6,) if status == "completed" else (0, 5))
