"""`/v1/jobs`: hand over, list, count, follow, look at, change and delete."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Query
from pydantic import ValidationError
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse

from ponder.serve.common.wire import Name, event_schema
from ponder.serve.errors import BadRequest
from ponder.serve.http.errors import invalid
from ponder.serve.http.exchange import EventStreamResponse, answered, owner_of, state_of
from ponder.serve.jobs.actions import JobActions
from ponder.serve.jobs.export import csv_lines, json_lines
from ponder.serve.jobs.objects import job_object
from ponder.serve.jobs.service import RequestKey
from ponder.serve.jobs.trace import shown_entry
from ponder.serve.jobs.wire import (
    ActionRequest,
    BranchRequest,
    BulkRequest,
    BulkResult,
    ExtendRequest,
    JobCounts,
    JobDeleted,
    JobId,
    JobList,
    JobRequest,
    JobsPage,
    JobsRequest,
    Label,
    LensObject,
    ReplyRequest,
    RetryRequest,
    StateName,
    SteerRequest,
    TracePage,
    WholeJob,
)
from ponder.serve.responses.wire import Include, answers
from ponder.serve.store.job_records import JobFilter, JobSort

router = APIRouter(prefix="/v1/jobs")
Id = Annotated[JobId, Path()]
Includes = Annotated[list[Include], Query(max_length=16)]
States = Annotated[list[StateName], Query(max_length=16)]
Names = Annotated[list[Name], Query(max_length=64)]
Labels = Annotated[list[Label], Query(max_length=16)]
Search = Annotated[str, Query(max_length=200)]
MOST_IN_PAGE = 200


def filter_of(
    state: States = [],  # noqa: B006
    model: Names = [],  # noqa: B006
    label: Labels = [],  # noqa: B006
    batch: Annotated[Name | None, Query()] = None,
    q: Search = "",
    unseen: bool = False,
) -> JobFilter:
    return JobFilter(states=state, models=model, labels=label, batch=batch, q=q, unseen=unseen)


Wanted = Annotated[JobFilter, Depends(filter_of)]


@router.post("", response_model=None, responses=answers(JobList), operation_id="create_jobs")
async def create_jobs(
    asked: JobsRequest,
    http: HttpRequest,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200)] = None,
) -> Response:
    """Hand over jobs. They wait in the store until a model has room."""
    jobs = state_of(http).jobs
    if asked.batch is not None and asked.batch.startswith("batch_"):
        raise BadRequest("batch must not begin with 'batch_': the batches of /v1/batches are called so", param="batch")
    kept, bad = await jobs.hand_over(
        owner_of(http),
        [given if isinstance(given, JobRequest) else refused(given) for given in asked.jobs],
        asked.defaults,
        batch=asked.batch,
        skip=asked.on_error == "skip",
        key=None if idempotency_key is None else await _request_key(idempotency_key, http),
    )
    last = kept[-1].changed if kept else await jobs.last_change(owner_of(http))
    return JSONResponse(
        {
            "object": "job.list",
            "data": [job_object(job) for job in kept],
            "errors": [*map(dict, bad)],
            "last_event": last,
        }
    )


async def _request_key(key: str, http: HttpRequest) -> RequestKey:
    return RequestKey(key, hashlib.sha256(await http.body()).hexdigest())


def refused(given: dict[str, Any]) -> BadRequest:
    """Why an object is not a job."""
    try:
        JobRequest.model_validate(given)
    except ValidationError as error:
        errors = [{**each, "loc": ("body", *each["loc"])} for each in error.errors()]
        return invalid(errors, given, "the job")
    raise AssertionError("it is a job")


@router.get("", response_model=None, responses=answers(JobsPage), operation_id="list_jobs")
async def list_jobs(
    http: HttpRequest,
    wanted: Wanted,
    sort: JobSort = JobSort.CREATED_DOWN,
    limit: Annotated[int, Query(ge=1, le=MOST_IN_PAGE)] = 100,
    after: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """A page of the owner's jobs."""
    page = await state_of(http).jobs.page(owner_of(http), wanted, sort, read_cursor(sort, after), limit)
    last = page.jobs[-1] if page.jobs else None
    key = None if last is None else last.changed if sort.column == "changed" else last.number
    return JSONResponse(
        {
            "object": "list",
            "data": [job_object(job) for job in page.jobs],
            "has_more": page.more,
            "next": f"{sort.value}:{key}" if page.more else None,
            "last_event": page.last,
        }
    )


def read_cursor(sort: JobSort, after: str | None) -> int | None:
    """Raises BadRequest for a cursor that no page of this sorting gave."""
    if after is None:
        return None
    name, _, key = after.rpartition(":")
    if name != sort.value or not key.isascii() or not key.isdigit() or len(key) > 15:
        raise BadRequest(
            f"after must be the `next` of a page sorted by {sort.value} (got {after[:64]!r})", param="after"
        )
    return int(key)


@router.get("/counts", response_model=None, responses=answers(JobCounts), operation_id="count_jobs")
async def count_jobs_by_state(
    http: HttpRequest,
    wanted: Wanted,
) -> Response:
    """How many jobs are in each state."""
    states, unseen_incomplete, batches, last = await state_of(http).jobs.counts(owner_of(http), wanted)
    return JSONResponse(
        {
            "object": "job.counts",
            "total": sum(states.values()),
            "states": states,
            "unseen_incomplete": unseen_incomplete,
            "batches": [{"batch": name, "total": total} for name, total in batches],
            "last_event": last,
        }
    )


FEED: dict[int | str, dict[str, Any]] = {
    200: {"description": "The stream", "content": event_schema("`open`, `job`, `deleted`, `progress`, `reset`")}
}


@router.get("/events", response_class=Response, responses=FEED, operation_id="follow_jobs")
async def follow_jobs(
    http: HttpRequest,
    after: Annotated[int | None, Query(ge=0, le=2**53)] = None,
    last_event_id: Annotated[str | None, Header(max_length=20)] = None,
) -> Response:
    """What happens to the owner's jobs, without end: changes by number, and the figures of those that run."""
    if last_event_id is not None:
        if not (last_event_id.isascii() and last_event_id.isdigit()):
            raise BadRequest(f"Last-Event-ID must be a number (got {last_event_id!r})", param="Last-Event-ID")
        after = int(last_event_id)
    return EventStreamResponse(state_of(http).jobs.feed.follow(owner_of(http), after))


EXPORT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file",
        "content": {
            "application/jsonl": {"schema": {"type": "string"}},
            "text/csv": {"schema": {"type": "string"}},
        },
    }
}


@router.get("/export", response_class=Response, responses=EXPORT, operation_id="export_jobs")
async def export_jobs(
    http: HttpRequest,
    wanted: Wanted,
    format: Literal["jsonl", "csv"] = "jsonl",
) -> Response:
    """The jobs of a filter as a file, in the order of handing over."""
    rows = state_of(http).jobs.whole_rows(owner_of(http), wanted)
    body, kind = (csv_lines(rows), "text/csv") if format == "csv" else (json_lines(rows), "application/jsonl")
    headers = {"content-disposition": f'attachment; filename="jobs.{format}"', "x-content-type-options": "nosniff"}
    return StreamingResponse(body, media_type=kind, headers=headers)


@router.get("/{job_id}", response_model=None, responses=answers(WholeJob), operation_id="get_job")
async def get_job(
    job_id: Id,
    http: HttpRequest,
    include: Includes = [],  # noqa: B006
) -> Response:
    """A job whole."""
    return JSONResponse(await state_of(http).jobs.whole(owner_of(http), job_id, {*include}))


@router.delete("/{job_id}", response_model=None, responses=answers(JobDeleted), operation_id="delete_job")
async def delete_job(job_id: Id, http: HttpRequest) -> Response:
    """Delete a job with its attempts, responses and trace."""
    jobs, owner = state_of(http).jobs, owner_of(http)
    await jobs.job(owner, job_id)
    await jobs.actions.delete(owner, [job_id])
    return JSONResponse({"id": job_id, "object": "job", "deleted": True})


@router.get("/{job_id}/trace", response_model=None, responses=answers(TracePage), operation_id="get_trace")
async def get_trace(
    job_id: Id,
    http: HttpRequest,
    after: Annotated[int, Query(ge=0, le=2**53)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 500,
    include: Includes = [],  # noqa: B006
) -> Response:
    """What its strategy did, and what was done to it."""
    entries = await state_of(http).jobs.trace(owner_of(http), job_id, after, limit)
    shown = [
        {
            "n": each.n,
            "at": each.at,
            "attempt": each.attempt,
            **shown_entry(each.data, reasoning="reasoning.content" in include),
        }
        for each in entries[:limit]
    ]
    last = shown[-1]["n"] if shown else after
    return JSONResponse({"object": "list", "data": shown, "has_more": len(entries) > limit, "next": last})


@router.get("/{job_id}/lens", response_model=None, responses=answers(LensObject), operation_id="get_lens")
async def get_lens(
    job_id: Id,
    http: HttpRequest,
    attempt: Annotated[int | None, Query(ge=1, le=2**53)] = None,
) -> Response:
    """What the model computed at every token of an answer."""

    async def drawn() -> Response:
        data = await state_of(http).jobs.lens.data(owner_of(http), job_id, attempt)
        return Response(data, media_type="application/json")

    return await answered(http, drawn())


# Actions --------------------------------------------------------------------------------------------------------------


@router.post("/actions", response_model=None, responses=answers(BulkResult), operation_id="act_on_jobs")
async def act_on_jobs(asked: BulkRequest, http: HttpRequest) -> Response:
    """One action on many jobs."""
    jobs, owner = state_of(http).jobs, owner_of(http)
    changed, refused = await jobs.actions.on_many(owner, asked)
    failed = [{"id": id, "code": error.code, "message": error.message} for id, error in refused]
    last = await jobs.last_change(owner)
    return JSONResponse({"object": "job.actions", "changed": changed, "failed": failed, "last_event": last})


@router.post("/{job_id}/cancel", response_model=None, responses=answers(WholeJob), operation_id="cancel_job")
async def cancel_job(job_id: Id, asked: ActionRequest, http: HttpRequest) -> Response:
    """End a job that has not ended."""
    return await _done(http, job_id, actions_of(http).cancel(owner_of(http), job_id, asked.revision))


@router.post("/{job_id}/finish", response_model=None, responses=answers(WholeJob), operation_id="finish_job")
async def finish_job(job_id: Id, asked: ActionRequest, http: HttpRequest) -> Response:
    """Answer now, with the best there is."""
    return await _done(http, job_id, actions_of(http).finish(owner_of(http), job_id, asked.revision))


@router.post("/{job_id}/steer", response_model=None, responses=answers(WholeJob), operation_id="steer_job")
async def steer_job(job_id: Id, asked: SteerRequest, http: HttpRequest) -> Response:
    """A note for the model, at the next token or after the end."""
    return await _done(http, job_id, actions_of(http).steer(owner_of(http), job_id, asked))


@router.post("/{job_id}/answer", response_model=None, responses=answers(WholeJob), operation_id="answer_job")
async def answer_job(job_id: Id, asked: ReplyRequest, http: HttpRequest) -> Response:
    """Answer what a job waits for."""
    return await _done(http, job_id, actions_of(http).reply(owner_of(http), job_id, asked))


@router.post("/{job_id}/extend", response_model=None, responses=answers(WholeJob), operation_id="extend_job")
async def extend_job(job_id: Id, asked: ExtendRequest, http: HttpRequest) -> Response:
    """Again, with more tokens."""
    return await _done(http, job_id, actions_of(http).extend(owner_of(http), job_id, asked.tokens, asked.revision))


@router.post("/{job_id}/retry", response_model=None, responses=answers(WholeJob), operation_id="retry_job")
async def retry_job(job_id: Id, asked: RetryRequest, http: HttpRequest) -> Response:
    """Again, with other settings."""
    return await _done(http, job_id, actions_of(http).retry(owner_of(http), job_id, asked))


@router.post("/{job_id}/branch", response_model=None, responses=answers(WholeJob), operation_id="branch_job")
async def branch_job(job_id: Id, asked: BranchRequest, http: HttpRequest) -> Response:
    """A new job, which goes on from another token of an answer of this one."""
    jobs, owner = state_of(http).jobs, owner_of(http)
    return JSONResponse(await jobs.whole(owner, await jobs.branch(owner, job_id, asked)))


@router.post("/{job_id}/seen", response_model=None, responses=answers(WholeJob), operation_id="see_job")
async def see_job(job_id: Id, asked: ActionRequest, http: HttpRequest) -> Response:
    """Note that its end was looked at."""
    return await _done(http, job_id, actions_of(http).seen(owner_of(http), job_id, asked.revision))


def actions_of(http: HttpRequest) -> JobActions:
    return state_of(http).jobs.actions


async def _done(http: HttpRequest, id: str, acting: Awaitable[None]) -> Response:
    """The job after an action."""
    await acting
    return JSONResponse(await state_of(http).jobs.whole(owner_of(http), id))
