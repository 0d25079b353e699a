"""`/v1/files` and `/v1/batches`, as the official clients call them."""

from __future__ import annotations

import email.message
from email import message_from_bytes
from email.policy import HTTP
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from typing_extensions import TypedDict

from ponder.serve.batches.service import BatchService, Seen, error_file, output_file
from ponder.serve.common.wire import Metadata, Strict, closed
from ponder.serve.errors import BadRequest
from ponder.serve.http.exchange import owner_of, state_of
from ponder.serve.jobs.wire import JobId
from ponder.serve.responses.wire import answers
from ponder.serve.store.batches import StoredFile
from ponder.serve.store.job_records import JobState

router = APIRouter(prefix="/v1")
Id = Annotated[JobId, Path()]
After = Annotated[JobId | None, Query()]
Limit = Annotated[int, Query(ge=1, le=100)]
LONGEST_NAME = 200
WINDOW = 24 * 3600  # seconds that a batch may take
UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary", "maxLength": 8 << 20},
                        "purpose": {"const": "batch"},
                    },
                    "additionalProperties": False,
                }
            }
        },
    }
}


@closed
class FileObject(TypedDict):
    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    filename: str
    purpose: Literal["batch", "batch_output"]
    status: Literal["processed"]


@closed
class FilePage(TypedDict):
    object: Literal["list"]
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


@closed
class FileDeleted(TypedDict):
    id: str
    object: Literal["file"]
    deleted: bool


class BatchRequest(Strict):
    """completion_window: a batch that takes longer is `expired`."""

    input_file_id: JobId
    endpoint: Literal["/v1/chat/completions", "/v1/responses"]
    completion_window: Literal["24h"]
    metadata: Metadata | None = None


@closed
class BatchLineError(TypedDict):
    code: str
    line: int | None
    message: str
    param: str | None


@closed
class BatchErrors(TypedDict):
    object: Literal["list"]
    data: list[BatchLineError]


@closed
class RequestCounts(TypedDict):
    total: int
    completed: int
    failed: int


@closed
class BatchObject(TypedDict):
    id: str
    object: Literal["batch"]
    endpoint: str
    errors: BatchErrors | None
    input_file_id: str
    completion_window: Literal["24h"]
    status: Literal["in_progress", "completed", "failed", "expired", "cancelling", "cancelled"]
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    metadata: dict[str, str]


@closed
class BatchPage(TypedDict):
    object: Literal["list"]
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


# Files ----------------------------------------------------------------------------------------------------------------


@router.post(
    "/files", response_model=None, responses=answers(FileObject), operation_id="create_file", openapi_extra=UPLOAD
)
async def create_file(http: HttpRequest) -> Response:
    """Upload the lines of a batch, as a form with `purpose` and `file`."""
    fields = read_form(http.headers.get("content-type", ""), await http.body())
    unknown = sorted(fields.keys() - {"purpose", "file"})
    if unknown:
        raise BadRequest(f"{unknown[0][:100]}: unknown or unsupported parameter", param=unknown[0][:100])
    for name in ("purpose", "file"):
        if name not in fields:
            raise BadRequest(f"{name} is missing: send it as a part of the form", param=name)
    if fields["purpose"][1] != b"batch":
        raise BadRequest("purpose must be 'batch': files are for batches alone", param="purpose")
    given, content = fields["file"]
    return JSONResponse(
        file_object(await batch_service(http).add_file(owner_of(http), given or "file", "batch", content))
    )


@router.get("/files", response_model=None, responses=answers(FilePage), operation_id="list_files")
async def list_files(
    http: HttpRequest,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
    order: Literal["desc"] = "desc",
    purpose: Literal["batch"] | None = None,
) -> Response:
    """The files that were uploaded, the newest first."""
    page = await batch_service(http).files(owner_of(http), after, limit)
    return JSONResponse(_listed([file_object(each) for each in page.items], page.more))


@router.get("/files/{file_id}", response_model=None, responses=answers(FileObject), operation_id="get_file")
async def get_file(file_id: Id, http: HttpRequest) -> Response:
    return JSONResponse(file_object(await batch_service(http).file(owner_of(http), file_id)))


CONTENT: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file", "content": {"application/jsonl": {"schema": {"type": "string"}}}}
}


@router.get("/files/{file_id}/content", response_class=Response, responses=CONTENT, operation_id="get_file_content")
async def get_file_content(file_id: Id, http: HttpRequest) -> Response:
    """A file that was uploaded, or the output or the errors of a batch, as far as it has come."""
    service, owner = batch_service(http), owner_of(http)
    await service.file(owner, file_id)
    headers = {"x-content-type-options": "nosniff"}
    return StreamingResponse(service.content(owner, file_id), media_type="application/jsonl", headers=headers)


@router.delete("/files/{file_id}", response_model=None, responses=answers(FileDeleted), operation_id="delete_file")
async def delete_file(file_id: Id, http: HttpRequest) -> Response:
    """Delete an uploaded file. The jobs of its batches stay."""
    await batch_service(http).delete_file(owner_of(http), file_id)
    return JSONResponse({"id": file_id, "object": "file", "deleted": True})


# Batches --------------------------------------------------------------------------------------------------------------


@router.post("/batches", response_model=None, responses=answers(BatchObject), operation_id="create_batch")
async def create_batch(asked: BatchRequest, http: HttpRequest) -> Response:
    """Make jobs of the lines of a file."""
    made = await batch_service(http).create(owner_of(http), asked.endpoint, asked.input_file_id, asked.metadata or {})
    return JSONResponse(batch_object(made))


@router.get("/batches", response_model=None, responses=answers(BatchPage), operation_id="list_batches")
async def list_batches(http: HttpRequest, after: After = None, limit: Limit = 20) -> Response:
    """The newest first."""
    page = await batch_service(http).batches(owner_of(http), after, limit)
    return JSONResponse(_listed([batch_object(each) for each in page.items], page.more))


@router.get("/batches/{batch_id}", response_model=None, responses=answers(BatchObject), operation_id="get_batch")
async def get_batch(batch_id: Id, http: HttpRequest) -> Response:
    return JSONResponse(batch_object(await batch_service(http).batch(owner_of(http), batch_id)))


@router.post(
    "/batches/{batch_id}/cancel", response_model=None, responses=answers(BatchObject), operation_id="cancel_batch"
)
async def cancel_batch(batch_id: Id, http: HttpRequest) -> Response:
    """Cancel what has not ended."""
    return JSONResponse(batch_object(await batch_service(http).cancel(owner_of(http), batch_id)))


# ----------------------------------------------------------------------------------------------------------------------


def batch_service(http: HttpRequest) -> BatchService:
    return state_of(http).batches


def file_object(file: StoredFile) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created_at,
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",
    }


def batch_object(seen: Seen) -> dict[str, Any]:
    """A batch as its jobs are now."""
    batch, tally = seen
    total, ended = sum(tally.states.values()), int(tally.ended_at or batch.created_at)
    live = sum(tally.states.get(state, 0) for state in JobState if not state.final)
    done = tally.states.get(JobState.COMPLETED, 0) + tally.states.get(JobState.INCOMPLETE, 0)
    if batch.errors:
        status = "failed"
    elif batch.cancelling_at is not None:
        status = "cancelling" if live else "cancelled"
    elif live:
        status = "in_progress"
    else:
        status = "expired" if tally.expired else "completed"
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": {"object": "list", "data": [*batch.errors]} if batch.errors else None,
        "input_file_id": batch.input_file_id,
        "completion_window": "24h",
        "status": status,
        "output_file_id": output_file(batch, tally) if not live else None,
        "error_file_id": error_file(batch, tally) if not live else None,
        "created_at": batch.created_at,
        "in_progress_at": None if tally.began_at is None else int(tally.began_at),
        "expires_at": batch.created_at + WINDOW,
        "completed_at": ended if status == "completed" else None,
        "failed_at": batch.created_at if status == "failed" else None,
        "expired_at": ended if status == "expired" else None,
        "cancelling_at": batch.cancelling_at,
        "cancelled_at": ended if status == "cancelled" else None,
        "request_counts": {"total": total, "completed": done, "failed": total - live - done},
        "metadata": dict(batch.metadata),
    }


def _listed(data: list[dict[str, Any]], more: bool) -> dict[str, Any]:
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": more}


def read_form(kind: str, body: bytes) -> dict[str, tuple[str | None, bytes]]:
    """The fields of a multipart form, each with the name of its file. Raises BadRequest for what is not one."""
    if not kind.lower().startswith("multipart/form-data"):
        raise BadRequest("the body must be a form: set Content-Type to multipart/form-data")
    head = f"Content-Type: {kind}\r\nMIME-Version: 1.0\r\n\r\n".encode("latin-1", "replace")
    form = message_from_bytes(head + body, policy=HTTP)
    if not form.is_multipart() or form.defects:
        raise BadRequest("the body is not a whole multipart form: it must end with its boundary")
    found: dict[str, tuple[str | None, bytes]] = {}
    for part in form.iter_parts():
        name = part.get_param("name", header="content-disposition")
        if not isinstance(part, email.message.EmailMessage) or not isinstance(name, str) or name in found:
            raise BadRequest("each part of the form must have a name, and no two the same")
        content = part.get_payload(decode=True)
        named = part.get_filename()
        found[name] = (named and named[:LONGEST_NAME], content if isinstance(content, bytes) else b"")
    return found
