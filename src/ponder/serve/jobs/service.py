"""Jobs as a service that knows no HTTP: handed over, listed, changed, deleted, followed."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ponder.serve.errors import BadRequest, Conflict, NotFound, ServeError
from ponder.serve.jobs.actions import JobActions
from ponder.serve.jobs.branch import branched_answer
from ponder.serve.jobs.dispatch import Dispatcher
from ponder.serve.jobs.feed import JobFeed
from ponder.serve.jobs.lens import JobLens, ended_attempt
from ponder.serve.jobs.needs import ASK_PERSON
from ponder.serve.jobs.objects import attempt_object, job_object, title_of
from ponder.serve.jobs.trace import bill_of
from ponder.serve.jobs.wire import BranchRequest, JobRequest, JobSettings, WholeJob
from ponder.serve.models import Models
from ponder.serve.responses.convert import input_items
from ponder.serve.responses.objects import View
from ponder.serve.responses.service import ResponseService, kept_items
from ponder.serve.responses.wire import Include, ResponseRequest
from ponder.serve.store.job_records import (
    AttemptKind,
    HandOver,
    JobAttempt,
    JobFilter,
    JobPage,
    JobSort,
    JobState,
    StoredJob,
    TraceEntry,
)
from ponder.serve.store.jobs import (
    attempts_of,
    batches_of,
    count_jobs,
    find_hand_over,
    insert_jobs,
    jobs_between,
    keep_hand_over,
    last_change,
    page_of_jobs,
    put_attempt,
    the_job,
    trace_of,
)
from ponder.serve.store.records import Json

NEEDS = ("budget", "tie", "tool")  # for which a job stops, unless it says otherwise
SHOWN_BATCHES = 50
EXPORTED_AT_ONCE = 200
CHECKED_AT_ONCE = 50
SAMPLING = ("seed", "temperature", "max_output_tokens", "thinking_token_budget")
RESPONSE_FIELDS = ("model", "input", "instructions", "strategy", *SAMPLING, "tools", "text")
RENAMED_FIELDS = {"reasoning.effort": "effort"}  # fields of a response that a job calls otherwise
ALL_ENTRIES = 100_000  # of a trace that a bill is made from


@dataclass(frozen=True, slots=True)
class RequestKey:
    """The name of a request that may be sent again. digest: of its body."""

    key: str
    digest: str


class JobService:
    """The jobs of one server. Its methods raise NotFound for what does not exist or belongs to another owner, Conflict
    for what does not fit the job as it is now.

    feed: tells of changes. actions: make them. lens: looks into the model.
    """

    def __init__(self, models: Models, responses: ResponseService) -> None:
        self._models, self._responses = models, responses
        self._dispatcher = Dispatcher(models, responses, self._changed)
        self.feed = JobFeed(responses, self._dispatcher.live)
        self.actions = JobActions(responses, self._dispatcher.live, self._changed)
        self.lens = JobLens(responses)

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
        self.lens.close()
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
        key: RequestKey | None = None,
    ) -> tuple[list[StoredJob], list[Json]]:
        """Keep jobs. Returns them, and why others were left out.

        given: a refusal stands for what was not a job at all.
        skip: whether bad ones are left out; otherwise the first of them is raised, named by its place.
        key: under which the same request again gives the same jobs. Raises Conflict where another one had it.
        """
        store = self._responses.store
        if key is not None and (made := await store.read(lambda c: _again(c, owner, key))) is not None:
            return made
        jobs: list[StoredJob] = []
        bad: list[Json] = []
        now = time.time()
        for index, each in enumerate(given):
            try:
                if isinstance(each, BadRequest):
                    raise each
                jobs.append(await self._made(owner, each, defaults, batch, now))
            except ServeError as error:
                error.param = _placed(error.param, index)
                if not skip:
                    error.message = f"jobs[{index}]: {error.message}"
                    raise
                bad.append({"index": index, "param": error.param, "code": error.code, "message": error.message})
        expires_at = store.expiry()

        def work(connection: sqlite3.Connection) -> tuple[list[StoredJob], list[Json]]:
            if key is not None and (made := _again(connection, owner, key)) is not None:
                return made
            kept = insert_jobs(connection, jobs, expires_at)
            if key is not None:
                numbers = (kept[0].number, kept[-1].number) if kept else (0, 0)
                keep_hand_over(connection, owner, key.key, HandOver(key.digest, *numbers, bad), expires_at)
            return kept, bad

        made = await store.write(work)
        self._changed(owner)
        return made

    async def hand_over_lines(
        self,
        owner: str,
        asked: Sequence[tuple[str, Mapping[str, Any] | ServeError]],
        *,
        batch: str,
        also: Callable[[sqlite3.Connection], None],
    ) -> None:
        """Keep the jobs of a batch, which wait for no person.

        asked: for each its own name, and the request; an error: why there is none, and then the job has failed.
        also: what is written in the same transaction.
        """
        jobs: list[StoredJob] = []
        now = time.time()
        for number, (custom_id, request) in enumerate(asked):
            if number % CHECKED_AT_ONCE == 0:
                await asyncio.sleep(0)  # others are answered meanwhile
            jobs.append(await self._line(owner, custom_id, request, batch, now))
        expires_at = self._responses.store.expiry()

        def work(connection: sqlite3.Connection) -> None:
            also(connection)
            insert_jobs(connection, jobs, expires_at)

        await self._responses.store.write(work)
        self._changed(owner)

    async def _line(
        self, owner: str, custom_id: str, request: Mapping[str, Any] | ServeError, batch: str, now: float
    ) -> StoredJob:
        refused = request if isinstance(request, ServeError) else None
        said: Mapping[str, Any] = {} if isinstance(request, ServeError) else request
        if refused is None:
            try:
                await self._responses.check(ResponseRequest.model_validate(said), owner)
            except ServeError as error:
                refused = error
        job = StoredJob(
            id=f"job_{secrets.token_hex(16)}",
            owner=owner,
            state=JobState.QUEUED,
            model=said.get("model", ""),
            title=title_of(said.get("input", "")),
            created_at=now,
            request=said,
            effort=said.get("reasoning", {}).get("effort"),
            strategy=said.get("strategy"),
            batch=batch,
            custom_id=custom_id,
        )
        if refused is None:
            return job
        why = {"code": refused.code or "invalid_value", "message": refused.message}
        empty = {"model": job.model or "none", "input": said.get("input", ""), "background": True}
        return replace(job, state=JobState.FAILED, error=why, ended_at=now, seen=False, request=empty)

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
        if "question" in said.get("needs", ()):
            request["tools"] = [*request.get("tools", ()), ASK_PERSON]
        try:
            await self._responses.check(ResponseRequest.model_validate(request), owner)
        except BadRequest as error:
            if error.param == "tools" and "tools" not in said:
                error.param = "needs"
                error.message = f"needs: question is asked by a call of a tool. {error.message}"
            raise
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

    async def branch(self, owner: str, id: str, asked: BranchRequest) -> str:
        """A new job, which goes on from another token of an answer of this one. Returns its id. Raises as
        `branched_answer`."""
        job, _, response_id = await ended_attempt(self._responses, owner, id, asked.attempt)
        branch = {"response_id": response_id, "place": asked.place, "token": asked.token}
        await branched_answer(self._responses, owner, branch)
        kept = await self._responses.store.response(owner, response_id)
        request = {name: value for name, value in kept.request.items() if name not in ("strategy", "include")}
        now = time.time()
        new = StoredJob(
            id=f"job_{secrets.token_hex(16)}",
            owner=owner,
            state=JobState.QUEUED,
            model=kept.model,
            title=job.title,
            created_at=now,
            request=request,
            effort=job.effort,
            budget=job.budget,
            batch=None if (job.batch or "").startswith("batch_") else job.batch,
            labels=job.labels,
            needs=job.needs,
        )
        text = f"token {asked.token} at place {asked.place} of job {job.number}"
        first = JobAttempt(number=1, kind=AttemptKind.BRANCH, created_at=now, text=text, asked={"branch": branch})
        expires_at = self._responses.store.expiry()

        def work(connection: sqlite3.Connection) -> None:
            insert_jobs(connection, [new], expires_at)
            put_attempt(connection, new.id, first)

        await self._responses.store.write(work)
        self._changed(owner)
        return new.id

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

    async def job(self, owner: str, id: str) -> StoredJob:
        return await self._responses.store.read(lambda c: the_job(c, owner, id))

    async def trace(self, owner: str, id: str, after: int, most: int) -> list[TraceEntry]:
        """Entries past number `after`; one more than `most` where there are more."""
        watch = self._dispatcher.live.get(id)
        flush = watch.flush() if watch is not None and watch.job.owner == owner else None
        if flush is not None:
            await self._responses.store.write(flush)
        return await self._responses.store.read(lambda c: (the_job(c, owner, id), trace_of(c, id, after, most + 1))[1])

    async def whole_rows(self, owner: str, wanted: JobFilter) -> AsyncGenerator[StoredJob, None]:
        """All jobs of a filter, in the order of handing over, whole."""
        after = 0
        while True:
            page = await self._responses.store.read(
                partial(
                    page_of_jobs,
                    owner=owner,
                    wanted=wanted,
                    sort=JobSort.CREATED,
                    after=after,
                    most=EXPORTED_AT_ONCE,
                    whole=True,
                )
            )
            for job in page.jobs:
                yield job
                after = job.number
            if not page.more:
                return


def _again(connection: sqlite3.Connection, owner: str, key: RequestKey) -> tuple[list[StoredJob], list[Json]] | None:
    """What a request with this key was answered, as its jobs are now; None: there was none."""
    made = find_hand_over(connection, owner, key.key)
    if made is None:
        return None
    if made.digest != key.digest:
        raise Conflict(
            f"another request was sent with the Idempotency-Key {key.key[:100]!r}: take a new key",
            code="idempotency_conflict",
        )
    return jobs_between(connection, owner, made.first, made.last), [*made.errors]


def _placed(param: str | None, index: int) -> str:
    """A field, named by the place of its job in the request."""
    return f"jobs[{index}]" if param is None else f"jobs[{index}].{RENAMED_FIELDS.get(param, param)}"
