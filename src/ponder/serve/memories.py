"""`/v1/memory`: the notes of the owner of a request, kept, listed, recalled, superseded and deleted to the byte."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field
from starlette.requests import Request as HttpRequest

from ponder.serve.common.wire import LongText, Strict
from ponder.serve.errors import BadRequest, NotFound, Unsupported
from ponder.serve.http.exchange import owner_of, state_of
from ponder.think.memory.memory import Memory
from ponder.think.memory.notes import LEAST, MOST, NoSuchNote, Note
from ponder.types import InvalidRequest

router = APIRouter(prefix="/v1/memory")
NoteId = Annotated[int, Path(ge=1, le=2**53)]
Source = Annotated[str, Field(min_length=1, max_length=200)]
Seconds = Annotated[float, Field(ge=-1e11, le=1e11, allow_inf_nan=False)]


class NoteRequest(Strict):
    """What to keep.

    source: where it comes from.
    at, until: since when and until when it holds, in seconds since 1970; `at` is now unless said.
    replaces: the id of a note that it supersedes from then on.
    """

    text: LongText
    source: Source = "the API"
    at: Seconds | None = None
    until: Seconds | None = None
    replaces: Annotated[int, Field(ge=1, le=2**53)] | None = None


class NoteObject(BaseModel):
    """A note. score: how much of the question it holds, where it was recalled."""

    id: int
    object: Literal["memory.note"] = "memory.note"
    text: str
    source: str
    at: float
    until: float | None
    replaces: int | None
    score: float | None = None


class NoteList(BaseModel):
    object: Literal["list"] = "list"
    data: list[NoteObject]


class NotesDeleted(BaseModel):
    object: Literal["memory.deleted"] = "memory.deleted"
    deleted: int


@router.post("/notes")
def add_note(body: NoteRequest, http: HttpRequest) -> NoteObject:
    """Keep a note."""
    memory, owner = memory_of(http), owner_of(http)
    try:
        if body.replaces is None:
            note = memory.note(owner, body.text, source=body.source, at=body.at, until=body.until)
        elif body.until is not None:
            raise Unsupported("until", "a note that replaces another holds as long as that did: leave it out")
        else:
            note = memory.supersede(owner, body.replaces, body.text, source=body.source, at=body.at)
    except NoSuchNote as error:
        raise NotFound(str(error)) from None
    except InvalidRequest as error:
        raise BadRequest(str(error)) from None
    return _shown(note)


@router.get("/notes")
def list_notes_of_owner(
    http: HttpRequest,
    after: Annotated[int, Query(ge=0, le=2**53)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> NoteList:
    """The notes in the order of their ids, those that no longer hold included."""
    return NoteList(data=[_shown(note) for note in memory_of(http).notes(owner_of(http), after=after, most=limit)])


@router.get("/recall")
def recall_by_query(
    http: HttpRequest,
    query: Annotated[str, Query(max_length=1_000)],
    at: Annotated[float | None, Query(ge=-1e11, le=1e11, allow_inf_nan=False)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = MOST,
) -> NoteList:
    """The notes that a question is about, the best first, among those that hold at a time."""
    found = memory_of(http).recall(owner_of(http), query, at=at, most=limit, least=LEAST)
    return NoteList(data=[_shown(each.note, each.score) for each in found])


@router.delete("/notes/{note_id}")
def delete_note(note_id: NoteId, http: HttpRequest) -> NotesDeleted:
    """Delete a note and the versions that it replaced."""
    try:
        return NotesDeleted(deleted=len(memory_of(http).forget(owner_of(http), note_id)))
    except NoSuchNote as error:
        raise NotFound(str(error)) from None


@router.delete("/notes")
def delete_notes(http: HttpRequest) -> NotesDeleted:
    """Delete all notes of the owner."""
    return NotesDeleted(deleted=memory_of(http).forget_all(owner_of(http)))


def memory_of(http: HttpRequest) -> Memory:
    """The server's memory. Raises NotFound where it has none."""
    memory = state_of(http).memory
    if memory is None:
        raise NotFound("this server keeps no memory: start it with `ponder serve --memory FILE`")
    return memory


def _shown(note: Note, score: float | None = None) -> NoteObject:
    return NoteObject(
        id=note.id,
        text=note.text,
        source=note.source,
        at=note.at,
        until=note.until,
        replaces=note.replaces,
        score=score,
    )
