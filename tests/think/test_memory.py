"""Notes: kept, recalled by what a question is about, superseded, and forgotten to the byte.

The notes of one user are not those of another."""

import os
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.think.memory.memory import Memory
from ponder.think.memory.notes import NoSuchNote
from ponder.think.memory.words import words_of
from ponder.types import InvalidRequest

MAY = 1777593600.0
DAY = 86400.0


@pytest.fixture
def memory(tmp_path):
    with Memory(tmp_path / "notes.db") as memory:
        yield memory


def recalled(memory, user, query, **options):
    return [found.note.text for found in memory.recall(user, query, **options)]


def held_bytes(memory):
    folder = memory.path.parent
    return b"".join(file.read_bytes() for file in folder.glob(memory.path.name + "*"))


def test_a_question_recalls_what_it_is_about_with_source_and_time(memory):
    memory.note("ann", "My dog is called Rex.", source="turn 1", at=MAY)
    memory.note("ann", "I live in Bergen.", source="turn 2", at=MAY)
    (found,) = memory.recall("ann", "What is the name of my dog?")
    assert (found.note.text, found.note.source, found.note.at) == ("My dog is called Rex.", "turn 1", MAY)
    assert 0 < found.score < 1


def test_what_is_about_something_else_recalls_nothing(memory):
    memory.note("ann", "My dog is called Rex.", source="turn 1")
    for query in ("What is the capital of France?", "What did I tell you?", "", "?!", "the of and"):
        assert memory.recall("ann", query) == []


def test_words_are_one_in_any_case_ending_and_accent():
    assert words_of("She MOVED, moves and is moving") == ["mov"] * 3
    assert words_of("allergic allergies Allergy") == ["allerg"] * 3
    assert words_of("Zürich zurich") == [words_of("zurich")[0]] * 2
    assert set(words_of("東京")) <= set(words_of("東京に住んでいます"))
    assert all(word.replace("_", "").isalnum() and word.isascii() for word in words_of("naïve 東京 Москва x9"))


def test_the_newest_version_is_recalled_and_the_old_one_for_its_time(memory):
    old = memory.note("ann", "I live in Bergen.", source="turn 1", at=MAY - 60 * DAY)
    new = memory.supersede("ann", old.id, "I live in Oslo.", source="turn 9", at=MAY)
    assert new.replaces == old.id
    assert recalled(memory, "ann", "Where do I live?") == ["I live in Oslo."]
    assert recalled(memory, "ann", "Where do I live?", at=MAY - DAY) == ["I live in Bergen."]
    assert memory.recall("ann", "Where do I live?", at=MAY - 90 * DAY) == []
    with pytest.raises(InvalidRequest, match=f"note {old.id} holds from .* until"):
        memory.supersede("ann", old.id, "I live in Rome.", source="turn 10")
    assert len(memory.notes("ann")) == 2


def test_of_two_notes_alike_the_newer_one_stands_first(memory):
    memory.note("ann", "I live in Bergen.", source="turn 1", at=MAY - 200 * DAY)
    memory.note("ann", "I live in Oslo.", source="turn 2", at=MAY)
    assert recalled(memory, "ann", "Where do I live?", at=MAY + DAY) == ["I live in Oslo.", "I live in Bergen."]


def test_a_note_may_hold_for_a_while(memory):
    memory.note("ann", "The heating is broken.", source="x", at=MAY, until=MAY + DAY)
    assert recalled(memory, "ann", "heating?", at=MAY + 60) == ["The heating is broken."]
    assert recalled(memory, "ann", "heating?", at=MAY + DAY) == []


def test_forgotten_is_gone_to_the_byte_with_earlier_versions_and_nothing_else(memory):
    old = memory.note("ann", "My code is quoxel.", source="vault nine")
    new = memory.supersede("ann", old.id, "My code is brimvat.", source="turn 2")
    kept = memory.note("ann", "My hat is plonder.", source="turn 3")
    memory.note("bob", "My code is florit.", source="turn 1")
    assert all(word in held_bytes(memory) for word in (b"quoxel", b"brimvat", b"vault nine"))
    assert memory.forget("ann", new.id) == [old.id, new.id]
    left = held_bytes(memory)
    assert not any(word in left for word in (b"quoxel", b"brimvat", b"vault nine"))
    assert b"plonder" in left
    assert recalled(memory, "ann", "what is my code?") == []
    assert recalled(memory, "ann", "hat?") == [kept.text]
    assert recalled(memory, "bob", "what is my code?") == ["My code is florit."]


def test_a_whole_user_is_forgotten_to_the_byte(memory):
    for number in range(50):
        memory.note("annabel@example.org", f"Entry {number} is wombat{number}x.", source="x")
    memory.note("bob", "mine is kept", source="x")
    assert memory.forget_all("annabel@example.org") == 50
    left = held_bytes(memory)
    assert b"wombat" not in left
    assert b"annabel" not in left
    assert memory.notes("annabel@example.org") == []
    assert recalled(memory, "bob", "kept?") == ["mine is kept"]


def test_a_note_of_another_user_is_not_there(memory):
    note = memory.note("ann", "secret one", source="x")
    for attempt in (
        lambda: memory.find("bob", note.id),
        lambda: memory.forget("bob", note.id),
        lambda: memory.supersede("bob", note.id, "changed", source="x"),
    ):
        with pytest.raises(NoSuchNote, match=f"no note {note.id} of this user"):
            attempt()
    assert memory.find("ann", note.id).text == "secret one"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"user": ""}, "user must be a text"),
        ({"user": None}, "user must be a text"),
        ({"text": " "}, "text must be a text"),
        ({"text": "x" * 100_001}, "at most 100000 characters"),
        ({"text": "\ud800"}, "not valid Unicode"),
        ({"source": ""}, "source must be a text"),
        ({"at": float("nan")}, "at must be a time"),
        ({"at": 5.0, "until": 4.0}, "until must be after at"),
    ],
)
def test_what_cannot_be_noted_is_refused_and_nothing_is_kept(memory, arguments, why):
    given = {"user": "ann", "text": "a fact", "source": "x"} | arguments
    with pytest.raises(InvalidRequest, match=why):
        memory.note(given.pop("user"), given.pop("text"), **given)
    assert memory.notes("ann") == []


def test_a_file_of_another_program_is_refused(tmp_path):
    (tmp_path / "text").write_text("hello, this is not a database" * 50)
    with pytest.raises(InvalidRequest, match="cannot be used as a memory"):
        Memory(tmp_path / "text")
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE mine (x)")
    other.close()
    with pytest.raises(InvalidRequest, match="database of another program"):
        Memory(tmp_path / "other.db")
    with pytest.raises(InvalidRequest, match="cannot be used as a memory"):
        Memory(tmp_path / "no folder" / "x.db")


def test_without_a_file_the_notes_end_with_the_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Memory() as memory:
        memory.note("ann", "The dog is Rex.", source="x")
        assert memory.recall("ann", "the dog?")[0].note.text == "The dog is Rex."
        assert memory.forget("ann", 1) == [1]
    with Memory() as memory:
        assert memory.notes("ann") == []
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_its_owner_s_alone(memory):
    assert memory.path.stat().st_mode & 0o077 == 0


@pytest.mark.property
@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=()), max_size=80))
def test_no_query_raises(noted, query):
    noted.recall("ann", query)


@pytest.fixture(scope="module")
def noted(tmp_path_factory):
    with Memory(tmp_path_factory.mktemp("noted") / "notes.db") as memory:
        for text in ("AND OR NOT NEAR", 'a "quoted" note', "column: value", "x* ^y (z)", "plain words"):
            memory.note("ann", text, source="x")
        yield memory


@pytest.mark.parametrize(
    "query",
    [
        '"',
        "a AND",
        "NEAR(a b)",
        "words:plain",
        "x*",
        "^x",
        "(",
        "a - b",
        "'; DROP TABLE notes; --",
        "\0",
        "\ud800 plain",
    ],
)
def test_what_is_syntax_to_the_index_is_text_in_a_query(noted, query):
    noted.recall("ann", query)
    assert recalled(noted, "ann", f"{query} plain words", least=0.2)


WORDS = "dog cat bergen oslo code blue green wifi sister allergy 東京 naïve x9 the".split()  # noqa: SIM905


def leaks(path, queries):
    """Queries of two users with notes of the same words: those that return what is not the user's."""
    rng = Random(5)
    with Memory(path) as memory:
        for user in ("ann", "bob"):
            for _ in range(40):
                memory.note(user, f"{user}: {' '.join(rng.choices(WORDS, k=4))}", source=user)
        found = wrong = 0
        for _ in range(queries):
            query = " ".join([*rng.choices(WORDS, k=rng.randrange(1, 5)), chr(rng.randrange(0x3000))])
            for user in ("ann", "bob"):
                got = memory.recall(user, query, least=rng.random() / 2, most=rng.randrange(1, 50))
                found += len(got)
                wrong += sum(not each.note.text.startswith(f"{user}:") for each in got)
    assert found > queries
    return wrong


def test_no_query_of_one_user_returns_a_note_of_another(tmp_path):
    assert leaks(tmp_path / "notes.db", 200) == 0


@pytest.mark.slow
def test_no_query_of_ten_thousand_returns_a_note_of_another(tmp_path):
    assert leaks(tmp_path / "notes.db", 10_000) == 0


def test_what_others_note_changes_no_score(memory):
    memory.note("ann", "My dog is called Rex.", source="x", at=MAY)
    before = memory.recall("ann", "what is the dog called?", at=MAY + 1)
    for number in range(30):
        memory.note("bob", f"a dog is called {number}", source="x")
    assert memory.recall("ann", "what is the dog called?", at=MAY + 1) == before


WRITER = """
import sys
from ponder.think.memory.memory import Memory
with Memory(sys.argv[1]) as memory:
    number = 0
    while number < int(sys.argv[3]):
        note = memory.note(sys.argv[2], f"number {number} of {sys.argv[2]}", source="x")
        number += 1
        if number % 5 == 0:
            note = memory.supersede(sys.argv[2], note.id, f"number {number} again", source="x", at=note.at + 1)
        print(note.id, flush=True)
"""


def writer(path, user, count):
    command = [sys.executable, "-c", WRITER, path, user, str(count)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def check_file(path):
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        for (table,) in database.execute(
            "SELECT name FROM sqlite_schema WHERE name GLOB 'note_words_[0-9]*'"
        ).fetchall():
            if table.rpartition("_")[2].isdigit():
                database.execute(f"INSERT INTO {table} ({table}) VALUES ('integrity-check')")
    database.close()


def kill_writers(path, kills, rng):
    acknowledged = set()
    for number in range(kills):
        with writer(path, f"user {number % 3}", 10_000) as process:
            for _ in range(rng.randrange(1, 12)):
                acknowledged.add((f"user {number % 3}", int(process.stdout.readline())))
            process.send_signal(signal.SIGKILL)
            acknowledged |= {(f"user {number % 3}", int(line)) for line in process.stdout if line.endswith("\n")}
    check_file(path)
    with Memory(path) as memory:
        for user, id in acknowledged:
            assert memory.find(user, id)
    return len(acknowledged)


@pytest.mark.fault
def test_a_kill_loses_nothing_that_was_acknowledged(tmp_path):
    assert kill_writers(tmp_path / "notes.db", 4, Random(3)) > 4


@pytest.mark.slow
@pytest.mark.fault
def test_two_hundred_kills_lose_nothing_that_was_acknowledged(tmp_path):
    assert kill_writers(tmp_path / "notes.db", 200, Random(4)) > 200


@pytest.mark.fault
def test_eight_writers_on_one_file_lose_nothing(tmp_path):
    path, each = tmp_path / "notes.db", 10
    with Memory(path) as memory, ThreadPoolExecutor(4) as threads:
        processes = [writer(path, f"process {number}", each) for number in range(4)]
        list(
            threads.map(
                lambda n: [memory.note(f"thread {n}", f"number {i}", source="x") for i in range(each)], range(4)
            )
        )
        assert [process.wait(timeout=120) for process in processes] == [0] * 4
        for process in processes:
            process.stdout.close()
        assert [len(memory.notes(f"thread {n}")) for n in range(4)] == [each] * 4
        assert [len(memory.notes(f"process {n}")) for n in range(4)] == [each + each // 5] * 4
    check_file(path)
