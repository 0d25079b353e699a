"""`/v1/rankings`: people rank answers in a browser, into the very files that `ponder rank` writes and `ponder train`
reads. Each owner has a folder of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi import Path as InPath
from pydantic import BaseModel, Field
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from ponder.dialogue.messages import Message
from ponder.evaluate.rank import MOST, Session, Shown, different, parse_ranks
from ponder.evaluate.raters import Agreed, ordinal_alpha, pairs_alike, self_agreement
from ponder.serve.common.wire import LongText, Strict
from ponder.serve.errors import BadRequest, Locked
from ponder.serve.http.exchange import owner_of, state_of
from ponder.serve.ranking_files import RankingFiles, check_file_room, read_answers, without_folder
from ponder.train.data.preferences import read_rankings, trl_pairs
from ponder.types import DataError, InvalidRequest

router = APIRouter(prefix="/v1/rankings")
MOST_RANKINGS = 1_000  # of an owner
MOST_BYTES = 128 << 20  # of a file
NAMES = "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
RankingName = Annotated[str, InPath(max_length=64, pattern=NAMES)]
Rater = Annotated[str, Field(min_length=1, max_length=64)]
LINES = {200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}}


class OfferedAnswer(Strict):
    """made: how it was made; it is never shown to a rater."""

    text: LongText
    reasoning: LongText | None = None
    made: Annotated[str, Field(max_length=500)] = "given"


class OfferedSet(Strict):
    prompt: Annotated[str, Field(min_length=1, max_length=1_000_000)]
    answers: Annotated[list[OfferedAnswer], Field(min_length=1, max_length=MOST, fail_fast=True)]


class AddSets(Strict):
    sets: Annotated[list[OfferedSet], Field(min_length=1, max_length=500, fail_fast=True)]


class LeftOut(BaseModel):
    """number: of the set in the request, from 0."""

    number: int
    why: str


class SetsAdded(BaseModel):
    object: Literal["ranking.sets"] = "ranking.sets"
    added: int
    left_out: list[LeftOut]


class RankingObject(BaseModel):
    """kept: whether it outlives the server."""

    id: str
    object: Literal["ranking"] = "ranking"
    sets: int
    judgements: int
    kept: bool


class RankingList(BaseModel):
    object: Literal["list"] = "list"
    data: list[RankingObject]
    kept: bool


class ShownTurn(BaseModel):
    role: str
    text: str


class ShownSet(BaseModel):
    """What is to be judged: blind, in an order of this rater's own. `ticket` goes back with the judgement."""

    ticket: str
    prompt: list[ShownTurn]
    answers: list[str]


class NextSet(BaseModel):
    object: Literal["ranking.next"] = "ranking.next"
    rater: str
    judged: int
    left: int
    shown: ShownSet | None


class JudgementRequest(Strict):
    """order: letters of the answers as they were shown, the best first: "b > a = c" (or "b a=c"); those that are left
    out were not judged. skip: judge nothing of this set."""

    rater: Rater
    ticket: Annotated[str, Field(min_length=1, max_length=64)]
    order: Annotated[str, Field(max_length=200)] | None = None
    skip: bool = False
    reason: Annotated[str, Field(max_length=4_000)] = ""
    seconds: Annotated[float, Field(ge=0, le=86_400)] | None = None


class AgreedObject(BaseModel):
    value: float
    low: float | None
    high: float | None
    count: int


class RaterObject(BaseModel):
    rater: str
    judged: int
    skipped: int


class AgreementObject(BaseModel):
    """pairs: the share of pairs of answers that two raters ordered alike. alpha: Krippendorff's, with the ordinal
    metric. with_self: the share of pairs that a rater ordered alike both times."""

    object: Literal["ranking.agreement"] = "ranking.agreement"
    raters: list[RaterObject]
    pairs: AgreedObject | None
    alpha: AgreedObject | None
    with_self: AgreedObject | None


class RankingDeleted(BaseModel):
    id: str
    object: Literal["ranking.deleted"] = "ranking.deleted"
    deleted: bool = True


@router.get("")
def list_rankings(http: HttpRequest) -> RankingList:
    """The owner's rankings, by name."""
    files, owner = state_of(http).rankings, owner_of(http)
    return RankingList(data=[_ranking(files, owner, name) for name in files.names(owner)], kept=files.kept)


@router.post("/{name}/sets")
def add_sets(name: RankingName, body: AddSets, http: HttpRequest) -> SetsAdded:
    """Add answers to prompts; the first ones make the ranking. Equal and empty answers are left out, and so is a prompt
    that has answers already."""
    files, owner = state_of(http).rankings, owner_of(http)
    path = files.answers_path(owner, name)
    left_out = []
    with files.lock:
        if not path.is_file() and len(files.names(owner)) >= MOST_RANKINGS:
            raise BadRequest(f"there are {MOST_RANKINGS} rankings already: delete one first")
        file = read_answers(path)
        held = {each.prompt for each in file.sets}
        for number, offered in enumerate(body.sets):
            made = different(
                (Message.user(offered.prompt),),
                [(Message.assistant(each.text, each.reasoning or ""), each.made) for each in offered.answers],
            )
            if made.prompt in held:
                left_out.append(LeftOut(number=number, why="this prompt has answers already"))
            elif len(made.answers) < 2:
                left_out.append(LeftOut(number=number, why="it has fewer than 2 different answers"))
            else:
                check_file_room(path)
                held.add(made.prompt)
                file.add(made)
    return SetsAdded(added=len(body.sets) - len(left_out), left_out=left_out)


@router.get("/{name}/next")
def next_set(name: RankingName, http: HttpRequest, rater: Annotated[Rater, Query()]) -> NextSet:
    """What this rater is to judge now; `shown` is null when nothing is left."""
    return _next(state_of(http).rankings.session(owner_of(http), name, rater))


@router.post("/{name}/judgements")
def judge_set(name: RankingName, body: JudgementRequest, http: HttpRequest) -> NextSet:
    """Write a judgement down, and get the next set. 409: that set was judged meanwhile, in another window."""
    files, owner = state_of(http).rankings, owner_of(http)
    with files.lock:
        session = files.session(owner, name, body.rater)
        shown = session.next()
        if shown is None or body.ticket != _ticket(session, shown):
            raise Locked("this set was judged meanwhile, perhaps in another window: load the next one", param="ticket")
        if body.skip is (body.order is not None):
            raise BadRequest("say either order or skip", param="order")
        try:
            ranks: Sequence[int | None] = (
                [None] * len(shown.order) if body.order is None else parse_ranks(body.order, len(shown.order))
            )
        except InvalidRequest as error:
            raise BadRequest(str(error), param="order") from None
        check_file_room(session.path)
        session.add(shown, ranks, body.reason.strip(), seconds=body.seconds)
    return _next(session)


@router.get("/{name}/agreement")
def agreement_of_raters(name: RankingName, http: HttpRequest) -> AgreementObject:
    """How far the raters agree with each other and with themselves."""
    records = state_of(http).rankings.session(owner_of(http), name, "").records
    with_self = self_agreement(records)
    raters = []
    for rater in dict.fromkeys(str(record.get("rater")) for record in records):
        own = [record["ranks"] for record in records if record.get("rater") == rater and not record.get("repeat")]
        skipped = sum(all(rank is None for rank in ranks) for ranks in own)
        raters.append(RaterObject(rater=rater, judged=len(own) - skipped, skipped=skipped))
    return AgreementObject(
        raters=raters,
        pairs=_agreed(pairs_alike(records)),
        alpha=_agreed(ordinal_alpha(records)),
        with_self=None
        if with_self is None
        else AgreedObject(value=with_self[0], low=None, high=None, count=with_self[1]),
    )


@router.get("/{name}/export", response_class=Response, responses=LINES)  # type: ignore[arg-type]
def export_judgements(
    name: RankingName, http: HttpRequest, kind: Literal["rankings", "pairs"] = "rankings"
) -> Response:
    """The judgements as JSON lines that `ponder train` reads, or as pairs, as TRL reads them."""
    files, owner = state_of(http).rankings, owner_of(http)
    session = files.session(owner, name, "")
    records: Sequence[Any] = session.records
    if kind == "pairs" and records:
        try:
            records = [pair for _, ranking in read_rankings(session.path) for pair in trl_pairs(ranking)]
        except DataError as error:
            raise BadRequest(without_folder(error)) from None
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    return Response(lines, media_type="application/x-ndjson")


@router.delete("/{name}")
def delete_ranking(name: RankingName, http: HttpRequest) -> RankingDeleted:
    """Delete answers and judgements."""
    files, owner = state_of(http).rankings, owner_of(http)
    path = files.judgements(owner, name)
    with files.lock:
        files.answers(owner, name)
        path.unlink(missing_ok=True)
        files.answers_path(owner, name).unlink()
    return RankingDeleted(id=name)


def _ranking(files: RankingFiles, owner: str, name: str) -> RankingObject:
    sets, judgements = _lines(files.answers_path(owner, name)), _lines(files.judgements(owner, name))
    return RankingObject(id=name, sets=sets, judgements=judgements, kept=files.kept)


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def _next(session: Session) -> NextSet:
    shown = session.next()
    judged = sum(record.get("rater") == session.rater for record in session.records)
    return NextSet(
        rater=session.rater, judged=judged, left=session.left, shown=None if shown is None else _shown(session, shown)
    )


def _shown(session: Session, shown: Shown) -> ShownSet:
    answers = session.sets[shown.number]
    return ShownSet(
        ticket=_ticket(session, shown),
        prompt=[ShownTurn(role=each.role.value, text=each.text) for each in answers.prompt],
        answers=[answers.answers[place].text for place in shown.order],
    )


def _ticket(session: Session, shown: Shown) -> str:
    """What names a set as it was shown to one person, without telling whether it is shown again."""
    told = f"{session.rater}/{shown.number}/{shown.repeat}/{shown.order}"
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def _agreed(found: Agreed | None) -> AgreedObject | None:
    if found is None:
        return None
    ends = (None, None) if found.interval is None else (found.interval.low, found.interval.high)
    return AgreedObject(value=found.value, low=ends[0], high=ends[1], count=found.count)
