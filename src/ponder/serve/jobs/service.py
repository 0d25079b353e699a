"""Jobs as a service that knows no HTTP: handed over, listed, changed, deleted, followed."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

from ponder.serve.errors import BadRequest, Conflict, NotFound, ServeError
from ponder.serve.jobs.dispatch import Dispatcher
from ponder.serve.jobs.feed import JobFeed
from ponder.serve.jobs.objects import attempt_object, job_object, title_of
from ponder.serve.jobs.trace import bill_of
from ponder.serve.jobs.wire import JobRequest, JobSettings, WholeJob
from ponder.serve.models import Models
from ponder.serve.responses.convert import input_items
from ponder.serve.responses.objects import View
from ponder.serve.responses.service import ResponseService, kept_items
from ponder.serve.responses.wire import Include, ResponseRequest
from ponder.serve.store.database import After
from ponder.serve.store.jobs import (
    JobFilter,
    JobPage,
    JobSort,
    JobState,
    StoredJob,
    attempts_of,
    batches_of,
    count_jobs,
    insert_jobs,
    last_change,
    page_of_jobs,
    put_attempt,
    put_job,
    remove_jobs,
    the_job,
    trace_of,
)

NEEDS = ("budget", "tie", "tool")  # for which a job stops, unless it says otherwise
SHOWN_BATCHES = 50
SAMPLING = ("seed", "temperature", "max_output_tokens", "thinking_token_budget")
RESPONSE_FIELDS = ("model", "input", "instructions", "strategy", *SAMPLING, "tools", "text")
RENAMED_FIELDS = {"reasoning.effort": "effort"}  # fields of a response that a job calls otherwise
ALL_ENTRIES = 100_000  # of a trace that a bill is made from


@dataclass(frozen=True, slots=True)
class BadJob:
    """A job that was left out.

    index: its place in the request.
    """

    index: int
    error: ServeError


class JobService:
    """The jobs of one server. Its methods raise NotFound for what does not exist or belongs to another owner, Conflict
    for what does not fit the job as it is now.

    feed: tells of changes.
    """

    def __init__(self, models: Models, responses: ResponseService) -> None:
        self._models, self._responses = models, responses
        self._dispatcher = Dispatcher(models, responses, self._changed)
        self.feed = JobFeed(responses, self._dispatcher.live)

    async def recover(self) -> None:
        await self._dispatcher.recover()

    def start(self) -> None:
        self._dispatcher.start()

    def drain(self) -> None:
        """Begin nothing more, and end the streams of changes."""
        self._dispatcher.drain()
        self.feed.close()

    async def close(self) -> None:
        self.feed.close()
        await self._dispatcher.close()

    def _changed(self, owner: str) -> None:
        self.feed.changed(owner)
        self._dispatcher.wake()

    # Handing over -----------------------------------------------------------------------------------------------------

    async def hand_over(
        self,
        owner: str,
        given: Sequence[JobRequest | BadRequest],
        defaults: JobSettings | None = None,
        *,
        batch: str | None = None,
        skip: bool = False,
    ) -> tuple[list[StoredJob], list[BadJob]]:
        """Keep jobs. Returns them, and what was left out of them.

        given: a refusal stands for what was not a job at all.
        skip: whether bad ones are left out; otherwise the first of them is raised, named by its place.
        """
        jobs: list[StoredJob] = []
        bad: list[BadJob] = []
        now = time.time()
        for index, each in enumerate(given):
            try:
                if isinstance(each, BadRequest):
                    raise each
                jobs.append(await self._made(owner, each, defaults, batch, now))
            except ServeError as error:
                named = _placed(error, index)
                if not skip:
                    raise named from None
                bad.append(BadJob(index, named))
        expires_at = self._responses.store.expiry()
        kept = await self._responses.store.write(lambda connection: insert_jobs(connection, jobs, expires_at))
        self._changed(owner)
        return kept, bad

    async def _made(
        self, owner: str, given: JobRequest, defaults: JobSettings | None, batch: str | None, now: float
    ) -> StoredJob:
        said = {} if defaults is None else defaults.model_dump(mode="json", by_alias=True, exclude_unset=True)
        said |= given.model_dump(mode="json", by_alias=True, exclude_unset=True)
        if "model" not in said:
            raise BadRequest("model is missing: name one, here or in defaults", param="model")
        request = {name: said[name] for name in RESPONSE_FIELDS if name in said}
        if "effort" in said:
            request["reasoning"] = {"effort": said["effort"]}
        request["background"] = True
        await self._responses.check(ResponseRequest.model_validate(request), owner)
        return StoredJob(
            id=f"job_{secrets.token_hex(16)}",
            owner=owner,
            state=JobState.QUEUED,
            model=said["model"],
            title=title_of(said["input"]),
            created_at=now,
            request=request,
            effort=said.get("effort"),
            strategy=said.get("strategy"),
            budget=said.get("budget"),
            batch=batch,
            custom_id=said.get("custom_id"),
            labels=said.get("labels", ()),
            needs=said.get("needs", NEEDS),
        )

    # Looking ----------------------------------------------------------------------------------------------------------

    async def page(self, owner: str, wanted: JobFilter, sort: JobSort, after: int | None, most: int) -> JobPage:
        return await self._responses.store.read(lambda c: page_of_jobs(c, owner, wanted, sort, after, most))

    async def counts(self, owner: str, wanted: JobFilter) -> tuple[dict[str, int], int, list[tuple[str, int]], int]:
        """(jobs by state, unseen incomplete ones, the latest batches with their jobs, the latest change)."""

        def work(connection: sqlite3.Connection) -> tuple[dict[str, int], int, list[tuple[str, int]], int]:
            states, unseen, last = count_jobs(connection, owner, wanted)
            return states, unseen, batches_of(connection, owner, SHOWN_BATCHES), last

        return await self._responses.store.read(work)

    async def last_change(self, owner: str) -> int:
        return await self._responses.store.read(lambda c: last_change(c, owner))

    async def whole(self, owner: str, id: str, included: Set[Include] = frozenset()) -> WholeJob:
        """The job with its input, output, attempts and bill."""
        store = self._responses.store
        job, attempts, entries = await store.read(
            lambda c: (the_job(c, owner, id), attempts_of(c, id), trace_of(c, id, 0, ALL_ENTRIES))
        )
        watch = self._dispatcher.live.get(id)
        asked = ResponseRequest.model_validate(job.request)
        try:
            window = self._models.get(job.model).capabilities.window
        except NotFound:
            window = None
        whole: Any = {
            **job_object(job),
            "answer": job.answer,
            "input": [item.body for item in input_items(asked, f"resp_{id.partition('_')[2]}", {})],
            "instructions": asked.instructions,
            "output": await self._output(job, included),
            "follow_ups": [*job.follow_ups],
            "attempts": [attempt_object(each) for each in attempts],
            "bill": bill_of(each.data for each in entries),
            "window": window,
            "progress": watch.progress() if watch and watch.begun_at else None,
        }
        return whole

    async def _output(self, job: StoredJob, included: Set[Include]) -> list[Any]:
        if job.response_id is None:
            return []
        try:
            kept = await self._responses.store.response(job.owner, job.response_id)
        except NotFound:
            return []
        view = View(kept.owner, kept.model, "reasoning.content" in included)
        return [view.item(item) for item in kept_items(kept)]

    # Changing ---------------------------------------------------------------------------------------------------------

    async def change(
        self, owner: str, id: str, change: Callable[[StoredJob], StoredJob], revision: int | None = None
    ) -> StoredJob:
        """The job, changed in one transaction by a function that raises where it does not fit."""

        def work(connection: sqlite3.Connection) -> StoredJob:
            job = the_job(connection, owner, id)
            check_revision(job, revision)
            return put_job(connection, change(job))

        changed = await self._responses.store.write(work)
        self._changed(owner)
        return changed

    async def job(self, owner: str, id: str) -> StoredJob:
        return await self._responses.store.read(lambda c: the_job(c, owner, id))

    async def cancel(self, owner: str, id: str, revision: int | None = None) -> None:
        """End a job that has not ended. What it has cost by then is billed."""
        fits = (JobState.QUEUED, JobState.IN_PROGRESS, JobState.NEEDS_INPUT)

        def work(connection: sqlite3.Connection) -> bool:
            """False: it was handed to a model meanwhile."""
            job = the_job(connection, owner, id)
            check_revision(job, revision)
            check_state(job, "cancel", *fits)
            if job.response_id is not None and job.state is not JobState.NEEDS_INPUT:
                return False
            now = time.time()
            last = attempts_of(connection, id)[-1]
            if last.ended_at is None:
                put_attempt(connection, id, replace(last, status="cancelled", ended_at=now))
            put_job(connection, replace(job, state=JobState.CANCELLED, need=None, ended_at=now))
            return True

        if not await self._responses.store.write(work):
            job = await self.job(owner, id)
            watch = self._dispatcher.live.get(id)
            if watch is not None and job.response_id is not None:
                watch.stopping = True
                response = await self._responses.store.response(owner, job.response_id)
                await self._responses.jobs.cancel(owner, response, watch.cancelled)
        self._changed(owner)

    async def seen(self, owner: str, id: str, revision: int | None = None) -> None:
        await self.change(owner, id, lambda job: replace(job, seen=True), revision)

    async def delete(self, owner: str, ids: Sequence[str]) -> list[str]:
        """End the work on jobs, and delete them with all that belongs to them. Returns those that were there."""
        for id in ids:
            watch = self._dispatcher.live.get(id)
            if watch is not None and watch.job.owner == owner:
                watch.stopping = True
                job = await self.job(owner, id)
                if job.response_id is not None:
                    await self._responses.jobs.stop(job.response_id)
        gone = await self._responses.store.write(lambda c: remove_jobs(c, owner, ids), After.ERASED)
        self._changed(owner)
        return gone


def check_revision(job: StoredJob, revision: int | None) -> None:
    if revision is not None and revision != job.revision:
        raise Conflict(
            f"the job is at revision {job.revision} (got {revision}): look at it again", code="revision_conflict"
        )


def check_state(job: StoredJob, action: str, *states: JobState) -> None:
    if job.state not in states:
        raise Conflict(
            f"{action} does not fit a job that is {job.state} (it fits {', '.join(states)}): look at it again",
            code="wrong_state",
        )


def _placed(error: ServeError, index: int) -> ServeError:
    """The error, named by the place of its job in the request."""
    field = "" if error.param is None else f".{RENAMED_FIELDS.get(error.param, error.param)}"
    error.param = f"jobs[{index}]{field}"
    return error
