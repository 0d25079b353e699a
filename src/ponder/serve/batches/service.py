"""Files and batches as a service: a batch is the jobs that its lines are, seen together."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import AsyncGenerator, Mapping
from functools import partial

from ponder.serve.batches.lines import MOST_LINES, line_error, output_line, read_batch_line, request_of
from ponder.serve.errors import BadRequest, NotFound, ServeError
from ponder.serve.jobs.service import JobService
from ponder.serve.responses.service import ResponseService
from ponder.serve.store import Page, StoredResponse
from ponder.serve.store.batches import (
    BatchTally,
    StoredBatch,
    StoredFile,
    file_content,
    find_batch,
    find_file,
    insert_batch,
    insert_file,
    mark_cancelling,
    page_of_batches,
    page_of_files,
    remove_file,
)
from ponder.serve.store.database import After
from ponder.serve.store.job_records import JobFilter, JobState, StoredJob
from ponder.serve.store.jobs import ids_of
from ponder.serve.store.records import missing

OUTPUT, ERRORS = "file-output_", "file-errors_"  # of files that are written from a batch's jobs
DONE = (JobState.COMPLETED, JobState.INCOMPLETE)
Seen = tuple[StoredBatch, BatchTally]


class BatchService:
    """The files and batches of one server. Its methods raise NotFound for what does not exist or belongs to another
    owner."""

    def __init__(self, responses: ResponseService, jobs: JobService) -> None:
        self._responses, self._jobs = responses, jobs

    # Files ------------------------------------------------------------------------------------------------------------

    async def add_file(self, owner: str, name: str, purpose: str, content: bytes) -> StoredFile:
        file = StoredFile(
            id=f"file-{secrets.token_hex(16)}",
            owner=owner,
            name=name,
            purpose=purpose,
            bytes=len(content),
            created_at=int(time.time()),
        )
        store = self._responses.store
        await store.write(partial(insert_file, file=file, content=content, expires_at=store.expiry()))
        return file

    async def file(self, owner: str, id: str) -> StoredFile:
        batch_id = batch_of(id)
        if batch_id is None:
            return await self._responses.store.read(lambda c: find_file(c, owner, id))
        batch, tally = await self.batch(owner, batch_id)
        if id not in (output_file(batch, tally), error_file(batch, tally)):
            raise missing("file", id)
        size = 0
        async for line in self.content(owner, id):
            size += len(line)
        name = f"{batch.id}_{'output' if id.startswith(OUTPUT) else 'errors'}.jsonl"
        made = int(tally.ended_at or batch.created_at)
        return StoredFile(id=id, owner=owner, name=name, purpose="batch_output", bytes=size, created_at=made)

    async def files(self, owner: str, after: str | None, most: int) -> Page[StoredFile]:
        """What was uploaded. The outputs of batches are named by their batches."""
        return await self._responses.store.read(lambda c: page_of_files(c, owner, after, most))

    async def delete_file(self, owner: str, id: str) -> None:
        if batch_of(id) is not None:
            raise BadRequest(f"the file '{id}' is written from jobs: delete those", param="file_id")
        if not await self._responses.store.write(lambda c: remove_file(c, owner, id), After.ERASED):
            raise missing("file", id)

    async def content(self, owner: str, id: str) -> AsyncGenerator[bytes, None]:
        """A file, piece by piece; the output of a batch as far as it has come."""
        batch_id = batch_of(id)
        if batch_id is None:
            yield await self._responses.store.read(lambda c: file_content(c, owner, id))
            return
        batch, _ = await self.batch(owner, batch_id)
        done = id.startswith(OUTPUT)
        states = DONE if done else (JobState.FAILED, JobState.CANCELLED)
        async for job in self._jobs.whole_rows(owner, JobFilter(batch=batch.id, states=states)):
            yield output_line(job, await self._response(job) if done else None, batch.endpoint)

    async def _response(self, job: StoredJob) -> StoredResponse | None:
        if job.response_id is None:
            return None
        try:
            return await self._responses.store.response(job.owner, job.response_id)
        except NotFound:
            return None

    # Batches ----------------------------------------------------------------------------------------------------------

    async def create(self, owner: str, endpoint: str, file_id: str, metadata: Mapping[str, str]) -> Seen:
        """A batch of the lines of a file. Lines that are not requests at all refuse the batch: it has failed, and names
        them. A request that cannot be served is a failed job."""
        try:
            content = await self._responses.store.read(lambda c: file_content(c, owner, file_id))
        except NotFound as error:
            raise BadRequest(f"input_file_id: {error.message}", param="input_file_id", code="not_found") from None
        id = f"batch_{secrets.token_hex(16)}"
        asked: list[tuple[str, Mapping[str, object] | ServeError]] = []
        errors = []
        seen: set[str] = set()
        lines = content.splitlines()
        if len(lines) > MOST_LINES:
            raise BadRequest(f"the file has {len(lines)} lines: send at most {MOST_LINES}", param="input_file_id")
        for number, text in enumerate(lines, 1):
            if not text.strip():
                continue
            try:
                line = read_batch_line(text, endpoint)
                if line.custom_id in seen:
                    raise BadRequest(f"custom_id {line.custom_id[:100]!r} stands in two lines", param="custom_id")
            except ServeError as error:
                errors.append(line_error(number, error))
                continue
            seen.add(line.custom_id)
            try:
                asked.append((line.custom_id, request_of(line)))
            except ServeError as error:
                asked.append((line.custom_id, error))
        if not asked and not errors:
            errors.append({"code": "empty_file", "line": None, "message": "the file has no lines", "param": None})
        batch = StoredBatch(
            id=id,
            owner=owner,
            endpoint=endpoint,
            input_file_id=file_id,
            created_at=int(time.time()),
            metadata=metadata,
            errors=errors,
        )
        also = partial(insert_batch, batch=batch, expires_at=self._responses.store.expiry())
        await self._jobs.hand_over_lines(owner, [] if errors else asked, batch=id, also=also)
        return await self.batch(owner, id)

    async def batch(self, owner: str, id: str) -> Seen:
        return await self._responses.store.read(lambda c: find_batch(c, owner, id))

    async def batches(self, owner: str, after: str | None, most: int) -> Page[Seen]:
        return await self._responses.store.read(lambda c: page_of_batches(c, owner, after, most))

    async def cancel(self, owner: str, id: str) -> Seen:
        """End what has not ended. A batch that has ended stays as it is."""
        _, tally = await self.batch(owner, id)
        unended = [str(state) for state in JobState if not state.final]
        if any(tally.states.get(state) for state in unended):
            now = int(time.time())

            def work(connection: sqlite3.Connection) -> list[str]:
                mark_cancelling(connection, owner, id, now)
                return ids_of(connection, owner, JobFilter(batch=id, states=unended))  # some began since the tally

            for job_id in await self._responses.store.write(work):
                try:
                    await self._jobs.actions.cancel(owner, job_id)
                except ServeError:
                    continue  # it ended by itself
        return await self.batch(owner, id)


def batch_of(file_id: str) -> str | None:
    """The batch whose output, or errors, the file is; None: it was uploaded."""
    for prefix in (OUTPUT, ERRORS):
        if file_id.startswith(prefix):
            return f"batch_{file_id.removeprefix(prefix)}"
    return None


def output_file(batch: StoredBatch, tally: BatchTally) -> str | None:
    """None: nothing is done yet."""
    done = any(tally.states.get(state) for state in DONE)
    return f"{OUTPUT}{batch.id.partition('_')[2]}" if done else None


def error_file(batch: StoredBatch, tally: BatchTally) -> str | None:
    bad = tally.states.get(JobState.FAILED) or tally.states.get(JobState.CANCELLED)
    return f"{ERRORS}{batch.id.partition('_')[2]}" if bad else None
