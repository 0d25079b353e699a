"""One attempt of a job while it runs: what it has come to, its trace, and what its end makes of the job."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ponder.sampler.protocol import CallDelta, Delta, Done
from ponder.serve.jobs.needs import Step, answering_now, finished, need_of, steered
from ponder.serve.jobs.trace import added, entry_of, job_usage
from ponder.serve.jobs.wire import JobProgress, JobUsage
from ponder.serve.responses.turn import EndedTurn
from ponder.serve.responses.wire import ResponseError
from ponder.serve.store import ResponseStatus
from ponder.serve.store.database import Transaction
from ponder.serve.store.job_records import JobAttempt, JobState, StoredJob, TraceEntry
from ponder.serve.store.jobs import add_trace, attempts_of, find_job, put_attempt, put_job
from ponder.think.events import Answer, Answered, Event, Graded, Started, bill
from ponder.think.strategy import Demand
from ponder.types import Budget, Phase, Usage

GATHER = 0.25  # seconds over which the text of a job is gathered into one event
RATE_OVER = 5.0  # seconds
SHOWN_VOTES = 5
VOTE_LENGTH = 80  # characters of an answer in the figures


class AttemptWatch:
    """Follows the response of an attempt. See `ponder.serve.responses.jobs.ResponseWatch`.

    moved: called when the job has changed in the store.
    over: whether its end is in the store.
    stopping: whether an action ends it, and writes that.
    left: set when nothing of it runs any more.
    begun_at: when it had a place; None: it waits for one.
    steering: a note that the attempt is stopped for.
    """

    gather = GATHER

    def __init__(self, job: StoredJob, notify: Callable[[], None], gone: Callable[[], None]) -> None:
        self.job, self.number = job, job.attempt
        self.budget = None if job.budget is None else Budget(tokens=job.budget)
        self.moved, self._gone = notify, gone
        self.over = self.stopping = False
        self.left = asyncio.Event()
        self.begun_at: float | None = None
        self.keeps = False
        self.steering: str | None = None
        self.answer: Answer | None = None
        self._finish: Callable[[], object] | None = None
        self._planned = 1
        self._bill: list[Event] = []
        self._entries: list[TraceEntry] = []
        self._phase = "prefill"
        self._open: Counter[int] = Counter()  # pieces of the samples under way
        self._spent = 0
        self._begun = self._done = 0
        self._votes: Counter[str] = Counter()
        self._rates: deque[tuple[float, int]] = deque()
        self._shown: object = None

    @property
    def used(self) -> int:
        return self._spent + sum(self._open.values())

    # While it runs ----------------------------------------------------------------------------------------------------

    def begin(self, demand: Demand, finish: Callable[[], object]) -> None:
        self._finish, self._planned = finish, demand.in_all
        if self.keeps:
            finish()

    def finish(self, steering: str | None = None) -> None:
        """End it with the best it has. steering: a note with which the job goes on."""
        self.keeps, self.steering = True, steering
        if self._finish is not None:
            self._finish()

    def see(self, event: Event) -> None:
        if type(event) is Delta or type(event) is CallDelta:
            self._open[event.index] += event.pieces if type(event) is Delta else 1
            self._phase = event.phase.value if type(event) is Delta else Phase.TOOL.value
            return
        entry = entry_of(event)
        if entry is not None:
            self._entries.append(TraceEntry(self.number, time.time(), entry))
        if type(event) is Started:
            self._begun += 1
            self._bill.append(event)
        elif type(event) is Done:
            self._done += 1
            self._open.pop(event.index, None)
            self._spent += event.completion.usage.completion_tokens
            if event.completion.answers:
                self._votes[event.completion.text.strip()] += 1
            self._bill.append(event)
        elif type(event) is Graded:
            self._spent += event.grade.usage.completion_tokens
            self._bill.append(event)
        elif type(event) is Answered:
            self.answer = event.answer

    def progress(self) -> JobProgress:
        now, used = time.monotonic(), self.used
        self._rates.append((now, used))
        while len(self._rates) > 2 and now - self._rates[0][0] > RATE_OVER:
            self._rates.popleft()
        (first, before), seconds = self._rates[0], now - self._rates[0][0]
        del first
        votes = [(text[:VOTE_LENGTH], count) for text, count in self._votes.most_common(SHOWN_VOTES)]
        return {
            "id": self.job.id,
            "phase": self._phase,  # type: ignore[typeddict-item]
            "used": used,
            "budget": self.job.budget,
            "samples": {"begun": self._begun, "done": self._done, "planned": self._planned},
            "votes": votes if self._planned > 1 else [],
            "rate": round((used - before) / seconds, 1) if seconds else 0.0,
            "elapsed": round(now - (self.begun_at or now), 1),
        }

    def flush(self) -> Transaction[None] | None:
        """What is written now and then, so that a server that is killed leaves the trace and a bill. None: nothing."""
        if not self._entries and not self.used:
            return None
        entries = self._taken()
        usage = self._usage()

        def work(connection: sqlite3.Connection) -> None:
            add_trace(connection, self.job.id, entries)
            attempt = _attempt(connection, self.job.id, self.number)
            if attempt is not None and attempt.status == "in_progress":
                put_attempt(connection, self.job.id, replace(attempt, usage=usage))

        return work

    def gone(self) -> None:
        self.left.set()
        self._gone()

    # Its turns --------------------------------------------------------------------------------------------------------

    def begun(self) -> Transaction[object]:
        self.begun_at = time.monotonic()
        now = time.time()

        def change(job: StoredJob, attempt: JobAttempt) -> Step:
            job = replace(job, state=JobState.IN_PROGRESS, started_at=now)
            return job, [replace(attempt, status="in_progress")]

        return self._change(change)

    def ended(self, ended: EndedTurn) -> Transaction[object]:
        return self._change(lambda job, attempt: self._settled(job, attempt, ended))

    def failed(self, error: ResponseError) -> Transaction[object]:
        return self._change(lambda job, attempt: self._over(replace(job, error=dict(error)), attempt, JobState.FAILED))

    def cancelled(self) -> Transaction[object]:
        return self._change(lambda job, attempt: self._over(job, attempt, JobState.CANCELLED))

    def _change(self, change: Callable[[StoredJob, JobAttempt], Step]) -> Transaction[object]:
        """The job and its attempts, changed; nothing where the job is gone, or this attempt is not its latest."""

        def work(connection: sqlite3.Connection) -> None:
            job = find_job(connection, self.job.owner, self.job.id)
            if job is None or job.attempt != self.number or job.state.final:
                return
            attempt = _attempt(connection, job.id, self.number)
            assert attempt is not None
            add_trace(connection, job.id, self._taken())
            job, attempts = change(job, attempt)
            for each in attempts:
                put_attempt(connection, job.id, each)
            put_job(connection, job)

        return work

    def _over(self, job: StoredJob, attempt: JobAttempt, state: JobState) -> Step:
        job, attempt = self._closed(job, replace(attempt, status=state.value))
        return replace(job, state=state), [attempt]

    def _settled(self, job: StoredJob, attempt: JobAttempt, ended: EndedTurn) -> Step:
        """What the end of the response makes of the job."""
        dropped, output = ended.stored.get("dropped_turns", 0), ended.stored["output"]
        attempt = replace(attempt, status=ended.status.value, dropped_turns=dropped)
        text = self.answer.text if self.answer is not None else ""
        job, attempt = self._closed(replace(job, votes=_votes(self.answer)), attempt)
        now = time.time()
        if self.steering is not None:
            job, attempts = steered(job, attempt, self.steering, now, thought=bool(output))
            return job, [attempt, *attempts]
        if self.keeps and not text.strip() and any(item["type"] == "reasoning" for item in output):
            job, attempts = answering_now(job, now)
            return job, [attempt, *attempts]
        job = replace(job, answer=text or job.answer)
        done = ended.status is ResponseStatus.COMPLETED or (self.keeps and bool(text.strip()))
        why = ended.stored["incomplete_details"]
        asks = done or (why is not None and why["reason"] == "max_output_tokens")
        need = need_of(job, self.answer, output, done=done) if asks else None
        if need is not None:
            return replace(job, state=JobState.NEEDS_INPUT, need=need, ended_at=None), [attempt]
        job, attempts = finished(job, JobState.COMPLETED if done else JobState.INCOMPLETE, now)
        return job, [attempt, *attempts]

    def _closed(self, job: StoredJob, attempt: JobAttempt) -> tuple[StoredJob, JobAttempt]:
        """Both with the end's time and the bill."""
        self.over = True
        now, usage = time.time(), self._usage()
        job = replace(job, ended_at=now, usage=added(job.usage, usage), seen=False)
        return job, replace(attempt, ended_at=now, usage=usage)

    def _usage(self) -> JobUsage:
        """The bill so far; of samples under way, about what they have sampled."""
        total = bill(self._bill) + Usage(completion_tokens=sum(self._open.values()))
        return job_usage(total)

    def _taken(self) -> Sequence[TraceEntry]:
        entries, self._entries = self._entries, []
        return entries


def _votes(answer: Answer | None) -> dict[str, Any] | None:
    if answer is None or not answer.votes:
        return None
    counts = [vote.count for vote in answer.votes]
    return {"agree": counts[0], "of": sum(counts), "margin": answer.margin or 0.0}


def _attempt(connection: sqlite3.Connection, id: str, number: int) -> JobAttempt | None:
    return next((each for each in attempts_of(connection, id) if each.number == number), None)
