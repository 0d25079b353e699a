"""What the database holds of jobs: a job, its attempts, the entries of its trace; and what is asked of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from ponder.serve.store.records import Json


class JobState(StrEnum):
    """The state of a job. All but NEEDS_INPUT are those of a response."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    NEEDS_INPUT = "needs_input"
    COMPLETED = "completed"
    INCOMPLETE = "incomplete"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self not in (JobState.QUEUED, JobState.IN_PROGRESS, JobState.NEEDS_INPUT)


class AttemptKind(StrEnum):
    """Why an attempt was made."""

    FIRST = "first"
    RESTART = "restart"
    RETRY = "retry"
    EXTEND = "extend"
    STEER = "steer"
    FOLLOW_UP = "follow_up"
    ANSWER = "answer"
    FINISH = "finish"
    BRANCH = "branch"


class JobSort(StrEnum):
    CREATED = "created"
    CREATED_DOWN = "-created"
    CHANGED = "changed"
    CHANGED_DOWN = "-changed"

    @property
    def column(self) -> str:
        return "changed" if self.value.endswith("changed") else "number"

    @property
    def down(self) -> bool:
        return self.value.startswith("-")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredJob:
    """One job.

    number, changed: on the owner's clock; set where it is written.
    request: the body of a `/v1/responses` request that its first attempt makes.
    asked: in lists, `request` is left out and is empty.
    answer: the whole visible answer.
    follow_ups: texts that wait for the end of the attempt.
    """

    id: str
    owner: str
    state: JobState
    model: str
    title: str
    created_at: float
    request: Json = field(default_factory=dict)
    number: int = 0
    changed: int = 0
    revision: int = 1
    attempt: int = 1
    effort: str | None = None
    strategy: str | None = None
    budget: int | None = None
    batch: str | None = None
    custom_id: str | None = None
    labels: Sequence[str] = ()
    needs: Sequence[str] = ()
    need: Json | None = None
    error: Json | None = None
    votes: Json | None = None
    seen: bool = True
    usage: Json | None = None
    response_id: str | None = None
    started_at: float | None = None
    ended_at: float | None = None
    follow_ups: Sequence[str] = ()
    answer: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobAttempt:
    """One attempt of a job.

    asked: fields of the job's request that are others in this attempt. `branch` is not one of a request: it says
        which answer the attempt goes on from (`ponder.serve.jobs.branch`).
    status: of its response; "queued" until there is one.
    """

    number: int
    kind: AttemptKind
    created_at: float
    text: str | None = None
    asked: Json = field(default_factory=dict)
    response_id: str | None = None
    status: str = "queued"
    usage: Json | None = None
    dropped_turns: int = 0
    ended_at: float | None = None


@dataclass(frozen=True, slots=True)
class TraceEntry:
    """n: its place in the trace; 0: the next one."""

    attempt: int
    at: float
    data: Json
    n: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs. Empty fields say nothing; several values of one field mean any of them."""

    states: Sequence[str] = ()
    models: Sequence[str] = ()
    labels: Sequence[str] = ()
    batch: str | None = None
    q: str = ""
    unseen: bool = False


@dataclass(frozen=True, slots=True)
class JobPage:
    """last: the number of the owner's latest change."""

    jobs: Sequence[StoredJob]
    more: bool
    last: int


@dataclass(frozen=True, slots=True)
class JobChanges:
    """What happened after a number: jobs as they are now, ids of deleted ones, both by the number of their change.

    reset: the number is older than what is kept.
    """

    jobs: Sequence[StoredJob]
    deleted: Sequence[tuple[int, str]]
    last: int
    reset: bool = False


@dataclass(frozen=True, slots=True)
class HandOver:
    """A request that was carried out under a key: its jobs are those with numbers from `first` to `last`.

    digest: of its body.
    errors: of the jobs that were left out.
    """

    digest: str
    first: int
    last: int
    errors: Sequence[Json]
