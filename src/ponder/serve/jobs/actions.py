"""What a person does to jobs. Each action is one transaction that looks at the job first, so that of two that do not
fit together the second is refused."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ponder.serve.errors import BadRequest, Conflict, NotFound, ServeError
from ponder.serve.jobs.attempt import AttemptWatch
from ponder.serve.jobs.needs import Step, extended, going_on, next_attempt, replied, with_note
from ponder.serve.jobs.wire import BulkRequest, FilterRequest, ReplyRequest, RetryRequest, SteerRequest
from ponder.serve.responses.service import ResponseService
from ponder.serve.responses.wire import ResponseRequest
from ponder.serve.store.database import After
from ponder.serve.store.job_records import AttemptKind, JobAttempt, JobFilter, JobState, StoredJob, TraceEntry
from ponder.serve.store.jobs import add_trace, attempts_of, ids_of, put_attempt, put_job, remove_jobs, the_job

MOST_FOLLOW_UPS = 20
FINISHING = 10.0  # seconds that an action waits for the end of what it ends
WAITING = (JobState.QUEUED, JobState.IN_PROGRESS, JobState.NEEDS_INPUT)
ENDED = (JobState.COMPLETED, JobState.INCOMPLETE, JobState.FAILED, JobState.CANCELLED)
Change = Callable[[StoredJob, JobAttempt], Step]


class JobActions:
    """The methods raise NotFound, Conflict where the job is in another state or at another revision, BadRequest.

    live: attempts under way, by the id of their job.
    changed: called with the owner of jobs that have changed.
    """

    def __init__(
        self, responses: ResponseService, live: Mapping[str, AttemptWatch], changed: Callable[[str], None]
    ) -> None:
        self._responses, self._live, self._changed = responses, live, changed

    async def cancel(self, owner: str, id: str, revision: int | None = None) -> None:
        """End a job that has not ended. What it has cost by then is billed."""

        def work(connection: sqlite3.Connection) -> str | None:
            """The response that runs, or waits in the queue of its model."""
            job = _fitting(connection, owner, id, "cancel", revision, WAITING)
            if job.response_id is not None and job.state is not JobState.NEEDS_INPUT:
                return job.response_id
            now = time.time()
            last = attempts_of(connection, id)[-1]
            if last.ended_at is None:
                put_attempt(connection, id, replace(last, status="cancelled", ended_at=now))
            put_job(connection, replace(job, state=JobState.CANCELLED, need=None, ended_at=now))
            return None

        response_id = await self._responses.store.write(work)
        watch = self._live.get(id)
        if response_id is not None and watch is not None:
            watch.stopping = True
            response = await self._responses.store.response(owner, response_id)
            await self._responses.jobs.cancel(owner, response, watch.cancelled)
        self._changed(owner)

    async def finish(self, owner: str, id: str, revision: int | None = None) -> None:
        """End a running job with the best it has."""
        await self._responses.store.read(lambda c: _fitting(c, owner, id, "finish", revision, (JobState.IN_PROGRESS,)))
        await self._stop(id, None)
        self._changed(owner)

    async def steer(self, owner: str, id: str, asked: SteerRequest) -> None:
        """A note, at the next token or after the end."""
        text, now = asked.text, time.time()
        if asked.when == "after":
            await self._change(
                owner, id, "steer", asked.revision, (*WAITING, *ENDED[:2]), lambda j, a: _follow(j, text, now)
            )
            return

        def work(connection: sqlite3.Connection) -> bool:
            """Whether the job runs."""
            fits = (JobState.QUEUED, JobState.IN_PROGRESS)
            job = _fitting(connection, owner, id, "steer", asked.revision, fits)
            watch = self._live.get(id)
            used = watch.used if watch is not None else 0
            entry = {"type": "steered", "text": text, "used": used}
            add_trace(connection, id, [TraceEntry(job.attempt, now, entry)])
            if job.response_id is not None:
                return True
            last = attempts_of(connection, id)[-1]
            if "branch" in last.asked:
                raise Conflict("the job goes on within an answer: steer it when it runs", code="wrong_state")
            given = with_note(last.asked.get("input", job.request["input"]), text)
            put_attempt(connection, id, replace(last, asked={**last.asked, "input": given}))
            put_job(connection, job)
            return False

        if await self._responses.store.write(work):
            await self._stop(id, text)
        self._changed(owner)

    async def _stop(self, id: str, steering: str | None) -> None:
        """End an attempt early, and wait for that."""
        watch = self._live.get(id)
        if watch is not None:
            watch.finish(steering)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FINISHING):
                    await watch.left.wait()

    async def reply(self, owner: str, id: str, asked: ReplyRequest) -> None:
        """An answer to what the job waits for."""
        now = time.time()

        def change(job: StoredJob, attempt: JobAttempt) -> Step:
            if job.need is None or job.need["id"] != asked.need:
                raise Conflict(f"the job does not wait for {asked.need!r}: look at it again", code="revision_conflict")
            if asked.choice is not None and asked.text is not None:
                raise BadRequest("choice and text both answer: give one of them", param="text")
            return replied(job, attempt, asked.choice, asked.text, now)

        said = asked.text if asked.text is not None else asked.choice
        await self._change(owner, id, "answer", asked.revision, (JobState.NEEDS_INPUT,), change, "replied", said)

    async def extend(self, owner: str, id: str, tokens: int, revision: int | None = None) -> None:
        """Again, with more tokens."""
        now = time.time()

        def change(job: StoredJob, attempt: JobAttempt) -> Step:
            if job.need is not None and job.need["reason"] != "budget":
                raise Conflict(f"extend does not fit a job that waits for a {job.need['reason']}", code="wrong_state")
            return extended(job, tokens, now, attempt)

        fits = (JobState.INCOMPLETE, JobState.NEEDS_INPUT)
        await self._change(owner, id, "extend", revision, fits, change, "extended", str(tokens))

    async def retry(self, owner: str, id: str, asked: RetryRequest) -> None:
        """Again, with other settings. Raises BadRequest for settings that cannot be served."""
        said = asked.model_dump(exclude={"revision"}, exclude_none=True)
        now = time.time()

        def settings(job: StoredJob) -> StoredJob:
            request: dict[str, Any] = {
                **job.request,
                **{name: said[name] for name in ("model", "strategy", "seed") if name in said},
            }
            if "effort" in said:
                request["reasoning"] = {**request.get("reasoning", {}), "effort": said["effort"]}
            fields = {name: said[name] for name in ("model", "strategy", "effort", "budget") if name in said}
            return replace(job, request=request, **fields)

        job = await self._responses.store.read(lambda c: _fitting(c, owner, id, "retry", asked.revision, ENDED))
        await self._responses.check(ResponseRequest.model_validate(settings(job).request), owner)

        def change(job: StoredJob, attempt: JobAttempt) -> Step:
            asked = dict(attempt.asked)
            if {"model", "strategy"} & said.keys():
                asked.pop("branch", None)  # another model, or another way, begins at the question
            return next_attempt(settings(job), AttemptKind.RETRY, now, asked=asked)

        text = ", ".join(f"{name}={value}" for name, value in said.items())
        await self._change(owner, id, "retry", asked.revision, ENDED, change, "retried", text)

    async def seen(self, owner: str, id: str, revision: int | None = None) -> None:
        """Its end was looked at."""
        await self._change(owner, id, "seen", revision, tuple(JobState), lambda job, _: (replace(job, seen=True), []))

    async def delete(self, owner: str, ids: Sequence[str]) -> list[str]:
        """End the work on jobs, and delete them with all that belongs to them. Returns those that were there."""
        for id in ids:
            watch = self._live.get(id)
            if watch is not None and watch.job.owner == owner:
                watch.stopping = True
                job = await self._responses.store.read(lambda c, id=id: the_job(c, owner, id))  # type: ignore[misc]
                if job.response_id is not None:
                    await self._responses.jobs.stop(job.response_id)
        gone = await self._responses.store.write(lambda c: remove_jobs(c, owner, ids), After.ERASED)
        self._changed(owner)
        return gone

    async def _change(
        self,
        owner: str,
        id: str,
        action: str,
        revision: int | None,
        fits: Sequence[JobState],
        change: Change,
        entry: str | None = None,
        text: str | None = None,
    ) -> None:
        """Change the job and its attempts. entry: the type of what stands in its trace."""

        def work(connection: sqlite3.Connection) -> None:
            job = _fitting(connection, owner, id, action, revision, fits)
            changed, attempts = change(job, attempts_of(connection, id)[-1])
            if entry is not None:
                add_trace(
                    connection, id, [TraceEntry(job.attempt, time.time(), {"type": entry, "text": text, "used": 0})]
                )
            for each in attempts:
                put_attempt(connection, id, each)
            ends = changed.state.final and not job.state.final
            put_job(connection, replace(changed, ended_at=time.time(), seen=True) if ends else changed)

        await self._responses.store.write(work)
        self._changed(owner)

    # Many at once -----------------------------------------------------------------------------------------------------

    async def on_many(self, owner: str, asked: BulkRequest) -> tuple[int, list[tuple[str, ServeError]]]:
        """(how many it was done to, those that refused it). Raises Conflict where the jobs are not as many as the
        caller means, and then nothing is done."""
        act = self._of(owner, asked)
        if (asked.ids is None) == (asked.filter is None):
            raise BadRequest("give either ids or filter: which jobs are meant", param="ids")
        if asked.ids is not None:
            ids = list(dict.fromkeys(asked.ids))
        else:
            wanted = _filter(asked.filter)
            ids = await self._responses.store.read(lambda c: ids_of(c, owner, wanted))
        if len(ids) != asked.expected_count:
            raise Conflict(
                f"{len(ids)} jobs match (expected_count is {asked.expected_count}): nothing was done; look again",
                code="count_conflict",
            )
        if asked.action == "delete":
            gone = set(await self.delete(owner, ids))
            return len(gone), [(id, NotFound(f"job '{id}' does not exist")) for id in ids if id not in gone]
        refused: list[tuple[str, ServeError]] = []
        for id in ids:
            try:
                await act(id)
            except ServeError as error:
                refused.append((id, error))
        return len(ids) - len(refused), refused

    def _of(self, owner: str, asked: BulkRequest) -> Callable[[str], Awaitable[None]]:
        """The action on one job. Raises BadRequest for a field that it lacks or does not take."""
        takes = {"steer": {"text", "when"}, "extend": {"tokens"}, "retry": {*RetryRequest.model_fields} - {"revision"}}
        given = asked.model_fields_set - {"action", "ids", "filter", "expected_count"}
        for name in sorted(given - takes.get(asked.action, set())):
            raise BadRequest(f"{name} does not go with {asked.action}: leave it out", param=name)
        for name, needed in (("text", "steer"), ("tokens", "extend")):
            if asked.action == needed and getattr(asked, name) is None:
                raise BadRequest(f"{name} is missing: {needed} needs it", param=name)
        match asked.action:
            case "cancel":
                return lambda id: self.cancel(owner, id)
            case "finish":
                return lambda id: self.finish(owner, id)
            case "steer":
                note = SteerRequest(text=asked.text or "", when=asked.when or "now")
                return lambda id: self.steer(owner, id, note)
            case "extend":
                return lambda id: self.extend(owner, id, asked.tokens or 0)
            case "retry":
                settings = RetryRequest(**asked.model_dump(include={*RetryRequest.model_fields}, exclude_unset=True))
                return lambda id: self.retry(owner, id, settings)
            case _:
                return lambda id: self.seen(owner, id)


def _fitting(
    connection: sqlite3.Connection, owner: str, id: str, action: str, revision: int | None, fits: Sequence[JobState]
) -> StoredJob:
    job = the_job(connection, owner, id)
    if revision is not None and revision != job.revision:
        raise Conflict(
            f"the job is at revision {job.revision} (got {revision}): look at it again", code="revision_conflict"
        )
    if job.state not in fits:
        raise Conflict(
            f"{action} does not fit a job that is {job.state} (it fits {', '.join(fits)}): look at it again",
            code="wrong_state",
        )
    return job


def _follow(job: StoredJob, text: str, now: float) -> Step:
    """A follow-up: at once where the job has ended."""
    if job.state.final:
        return going_on(job, AttemptKind.FOLLOW_UP, text, now)
    if len(job.follow_ups) >= MOST_FOLLOW_UPS:
        raise Conflict(f"{MOST_FOLLOW_UPS} follow-ups wait already: let them be answered first", code="wrong_state")
    return replace(job, follow_ups=[*job.follow_ups, text]), []


def _filter(asked: FilterRequest | None) -> JobFilter:
    asked = asked or FilterRequest()
    return JobFilter(
        states=asked.state or (),
        models=asked.model or (),
        labels=asked.label or (),
        batch=asked.batch,
        q=asked.q or "",
        unseen=bool(asked.unseen),
    )
