"""Notes in SQLite: the statements, each on a connection that its caller opened and whose transactions are the caller's.

Each user has a separate full-text index (FTS5), so that what others wrote can neither be found nor change a rank.
The index holds words of `words.py`; its ranking chooses candidates, and `recall_notes` scores those again.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ponder.think.memory.words import words_of
from ponder.types import InvalidRequest

SCHEMA = (
    "CREATE TABLE note_users (number INTEGER PRIMARY KEY AUTOINCREMENT, user TEXT NOT NULL UNIQUE) STRICT",
    """CREATE TABLE notes (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        user INTEGER NOT NULL REFERENCES note_users (number),
        text TEXT NOT NULL,
        source TEXT NOT NULL,
        at REAL NOT NULL,
        until REAL,
        replaces INTEGER
    ) STRICT""",
    "CREATE INDEX notes_by_user ON notes (user, id)",
    "CREATE INDEX notes_by_replaced ON notes (replaces) WHERE replaces IS NOT NULL",
)
MOST = 5  # notes that a question recalls
LEAST = 0.3  # the score from which on a note is recalled
HALF_LIFE = 90 * 86400.0  # seconds in which a note loses a quarter of its rank
CANDIDATES = 50
MAX_TEXT = 100_000  # characters of a note
MAX_WORDS = 64  # of a question: the rarest of its LOOKED_UP longest ones
LOOKED_UP = 256
BACKGROUND = 20  # notes about other things that every collection is taken to have: in a small one each word is common
_SATURATION, _LENGTH = 1.2, 0.5  # k1 and b of BM25


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What was noted for a user.

    source: where it comes from, in the words of what noted it.
    at: since when it holds, in seconds since 1970 (UTC).
    until: from when on it no longer holds; None: it still does.
    replaces: the id of the note that this one superseded.
    """

    id: int
    text: str
    source: str
    at: float
    until: float | None = None
    replaces: int | None = None


@dataclass(frozen=True, slots=True)
class Recollection:
    """A note that a question recalls.

    score: the share of what the question asks about that the note holds, its rare words weighing more; in (0, 1].
    """

    note: Note
    score: float


class NoSuchNote(InvalidRequest):
    """A user has no note of this id."""

    def __init__(self, id: int) -> None:
        super().__init__(f"there is no note {id} of this user: give the id of one that `note` or `recall` returned")
        self.id = id


def insert_note(
    connection: sqlite3.Connection,
    user: str,
    text: str,
    *,
    source: str,
    at: float | None = None,
    until: float | None = None,
    replaces: int | None = None,
) -> Note:
    """Keep a text for a user. `at` is now by default. Raises InvalidRequest for an empty text or user, or bad times."""
    _check_text("text", text, MAX_TEXT)
    _check_text("source", source, 1000)
    at = time.time() if at is None else _time("at", at)
    if until is not None and _time("until", until) <= at:
        raise InvalidRequest(f"until must be after at (got {until:g}, at {at:g})")
    number = _number(connection, user)
    if number is None:
        connection.execute("INSERT INTO note_users (user) VALUES (?)", (user,))
        number = _number(connection, user)
        connection.execute(
            f"CREATE VIRTUAL TABLE note_words_{number} USING fts5(words, content='', tokenize=\"ascii tokenchars '_'\")"
        )
    row = (number, text, source, at, until, replaces)
    inserted = connection.execute(
        "INSERT INTO notes (user, text, source, at, until, replaces) VALUES (?, ?, ?, ?, ?, ?)", row
    )
    id = inserted.lastrowid
    assert id is not None
    connection.execute(f"INSERT INTO note_words_{number} (rowid, words) VALUES (?, ?)", (id, " ".join(words_of(text))))
    return Note(id=id, text=text, source=source, at=at, until=until, replaces=replaces)


def supersede_note(
    connection: sqlite3.Connection, user: str, id: int, text: str, *, source: str, at: float | None = None
) -> Note:
    """Keep a text in place of a note, which from `at` on no longer holds and stays to be found for the time before.

    Raises NoSuchNote; InvalidRequest where the note no longer held at that time.
    """
    old = find_note(connection, user, id)
    at = time.time() if at is None else _time("at", at)
    if at <= old.at or (old.until is not None and old.until <= at):
        ends = "" if old.until is None else f" until {old.until:g}"
        raise InvalidRequest(f"note {id} holds from {old.at:g}{ends}: supersede it at a time in between (got {at:g})")
    new = insert_note(connection, user, text, source=source, at=at, until=old.until, replaces=id)
    connection.execute("UPDATE notes SET until = ? WHERE id = ?", (at, id))
    return new


def recall_notes(
    connection: sqlite3.Connection,
    user: str,
    query: str,
    *,
    at: float | None = None,
    most: int = MOST,
    least: float = LEAST,
) -> list[Recollection]:
    """The notes of a user that a question is about, the best first, among those that hold at a time.

    query: any text.
    at: seconds since 1970; None: now.
    most: how many. least: the lowest score; see `Recollection`.
    Raises InvalidRequest for a `most` below 1, a query that is not a text, and a time that is not a number.

    The rank is BM25 with this user's notes as the collection, times ½ + ½·2^(-age / half-life).
    """
    if most < 1:
        raise InvalidRequest(f"most must be at least 1 (got {most})")
    if not isinstance(query, str):
        raise InvalidRequest(f"query must be a text (got {query!r:.80})")
    number = _number(connection, user)
    at = time.time() if at is None else _time("at", at)
    if number is None:
        return []
    weights = _weights(connection, number, set(words_of(query)))
    whole = sum(weights.values())
    rows = _candidates(connection, number, _needed(weights, least * whole), at)
    said = [(_note(row), Counter(words_of(row["text"]))) for row in rows]
    usual = sum(count.total() for _, count in said) / len(said) if said else 0.0
    ranked = []
    for note, count in said:
        score = sum(weight for word, weight in weights.items() if word in count) / whole
        if score >= least:
            age = max(0.0, at - note.at)
            rank = _bm25(weights, count, usual) * (0.5 + 0.5 * 2 ** (-age / HALF_LIFE))
            ranked.append((rank, note.id, Recollection(note, score)))
    return [found for _, _, found in sorted(ranked, key=lambda each: each[:2], reverse=True)[:most]]


def forget_notes(connection: sqlite3.Connection, user: str, ids: Iterable[int]) -> list[int]:
    """Delete notes of a user, and the versions that they replaced: the rows and what the index held of them.

    Returns the ids of what was deleted. Raises NoSuchNote, and deletes nothing then. The bytes are gone where the
    connection has `secure_delete` on, once the write-ahead log is truncated.
    """
    doomed: dict[int, Note] = {}
    for id in ids:
        note = find_note(connection, user, id)
        while note.id not in doomed:
            doomed[note.id] = note
            if note.replaces is None:
                break
            note = find_note(connection, user, note.replaces)
    if not doomed:
        return []
    number = _number(connection, user)
    for note in doomed.values():
        words = " ".join(words_of(note.text))
        connection.execute(
            f"INSERT INTO note_words_{number} (note_words_{number}, rowid, words) VALUES ('delete', ?, ?)",
            (note.id, words),
        )
        connection.execute("UPDATE notes SET replaces = NULL WHERE replaces = ?", (note.id,))
        connection.execute("DELETE FROM notes WHERE id = ?", (note.id,))
    if connection.execute("SELECT 1 FROM notes WHERE user = ? LIMIT 1", (number,)).fetchone() is None:
        _drop(connection, number)
    else:  # before SQLite 3.42 a deleted word stays in the index until its segments are merged
        connection.execute(f"INSERT INTO note_words_{number} (note_words_{number}) VALUES ('optimize')")
    return sorted(doomed)


def forget_user(connection: sqlite3.Connection, user: str) -> int:
    """Delete all notes of a user, and return their number."""
    number = _number(connection, user)
    if number is None:
        return 0
    count = connection.execute("DELETE FROM notes WHERE user = ?", (number,)).rowcount
    _drop(connection, number)
    return count


def find_note(connection: sqlite3.Connection, user: str, id: int) -> Note:
    """Raises NoSuchNote."""
    number = _number(connection, user)
    row = connection.execute("SELECT * FROM notes WHERE id = ? AND user = ?", (id, number)).fetchone()
    if row is None:
        raise NoSuchNote(id)
    return _note(row)


def list_notes(connection: sqlite3.Connection, user: str, *, after: int = 0, most: int = 100) -> list[Note]:
    """The notes of a user in the order of their ids, those no longer holding included.

    after: the id of the last note that was listed before. most: how many.
    """
    number = _number(connection, user)
    rows = connection.execute(
        "SELECT * FROM notes WHERE user = ? AND id > ? ORDER BY id LIMIT ?", (number, after, most)
    )
    return [_note(row) for row in rows]


def _number(connection: sqlite3.Connection, user: str) -> int | None:
    _check_text("user", user, 1000)
    row = connection.execute("SELECT number FROM note_users WHERE user = ?", (user,)).fetchone()
    return None if row is None else int(row[0])


def _drop(connection: sqlite3.Connection, number: int | None) -> None:
    connection.execute(f"DROP TABLE note_words_{number}")
    connection.execute("DELETE FROM note_users WHERE number = ?", (number,))


def _weights(connection: sqlite3.Connection, number: int, words: set[str]) -> dict[str, float]:
    """How much each word says: ln(1 + (N + BACKGROUND - n + ½) / (n + ½)), where n of the user's N notes hold it.

    The most common first; of very many words, the rarest."""
    total = connection.execute("SELECT count(*) FROM notes WHERE user = ?", (number,)).fetchone()[0]
    table = f"note_words_{number}"
    statement = f"SELECT count(*) FROM {table} WHERE {table} MATCH ?"
    weights = {}
    for word in sorted(words, key=lambda word: (-len(word), word))[:LOOKED_UP]:
        holding = connection.execute(statement, (f'"{word}"',)).fetchone()[0]
        weights[word] = math.log(1 + (total + BACKGROUND - holding + 0.5) / (holding + 0.5))
    ordered = sorted(weights, key=lambda word: (weights[word], word))
    return {word: weights[word] for word in ordered[-MAX_WORDS:]}


def _needed(weights: dict[str, float], least: float) -> list[str]:
    """Words of which a note must hold at least one to weigh `least`: all but common ones that together weigh less."""
    left_out = 0.0
    needed = []
    for word, weight in weights.items():
        left_out += weight
        if left_out >= least:
            needed.append(word)
    return needed


def _candidates(connection: sqlite3.Connection, number: int, words: Sequence[str], at: float) -> list[sqlite3.Row]:
    if not words:
        return []
    table = f"note_words_{number}"
    return connection.execute(
        f"SELECT notes.* FROM {table} JOIN notes ON notes.id = {table}.rowid WHERE {table} MATCH ? AND notes.user = ?"
        f" AND notes.at <= ? AND (notes.until IS NULL OR notes.until > ?) ORDER BY {table}.rank LIMIT ?",
        (" OR ".join(f'"{word}"' for word in words), number, at, at, CANDIDATES),
    ).fetchall()


def _bm25(weights: dict[str, float], count: Counter[str], usual: float) -> float:
    """usual: the mean length of the candidates, in words."""
    penalty = _SATURATION * (1 - _LENGTH + _LENGTH * count.total() / usual)
    return sum(weight * count[word] / (count[word] + penalty) for word, weight in weights.items() if word in count)


def _note(row: sqlite3.Row) -> Note:
    return Note(**{name: row[name] for name in ("id", "text", "source", "at", "until", "replaces")})


def _check_text(name: str, text: str, most: int) -> None:
    if not isinstance(text, str) or not text.strip():
        raise InvalidRequest(f"{name} must be a text that is not empty (got {text!r:.80})")
    if len(text) > most:
        raise InvalidRequest(f"{name} must be at most {most} characters (got {len(text)}): note it in parts")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{name} is not valid Unicode ({error.reason} at {error.start}): mend it") from None


def _time(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidRequest(f"{name} must be a time in seconds since 1970 (got {value!r})")
    return float(value)
