"""The objects of `/v1/jobs`. A field of a request that is not here is refused by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from ponder.serve.common.wire import MOST_NAMES, Efforts, LongText, Name, Strict, TokenId, check_text, closed
from ponder.serve.responses.wire import InputItem, ResponseTool, TextOptions

MOST_JOBS = 1000  # in one request
Tokens = Annotated[int, Field(ge=1, le=10_000_000)]
Label = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(check_text)]
NeedReason = Literal["budget", "tie", "tool", "question", "contradiction", "review"]
Revision = Annotated[int, Field(ge=1, le=2**53)]
JobId = Annotated[str, Field(min_length=1, max_length=96, pattern=r"^[A-Za-z0-9_-]+$")]
StateName = Literal["queued", "in_progress", "needs_input", "completed", "incomplete", "failed", "cancelled"]
Note = Annotated[str, Field(min_length=1, max_length=100_000), AfterValidator(check_text)]


# Requests -------------------------------------------------------------------------------------------------------------


class JobSettings(Strict):
    """How a job is answered. What is not said here is as in `/v1/responses`.

    budget: tokens that all samples of an attempt may take together.
    needs: for which reasons the job may stop and wait for a person.
    """

    model: Name | None = None
    instructions: LongText | None = None
    effort: Efforts | None = None
    strategy: Name | None = None
    budget: Tokens | None = None
    needs: Annotated[list[NeedReason], Field(max_length=6, fail_fast=True)] | None = None
    labels: Annotated[list[Label], Field(max_length=16, fail_fast=True)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    max_output_tokens: Tokens | None = None
    thinking_token_budget: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    tools: Annotated[list[ResponseTool], Field(max_length=128, fail_fast=True)] | None = None
    text: TextOptions | None = None


class JobRequest(JobSettings):
    """One job.

    custom_id: the caller's own name for it.
    """

    input: LongText | Annotated[list[InputItem], Field(max_length=4096, fail_fast=True)]
    custom_id: Name | None = None


AnyObject = Annotated[dict[str, Any], Field(max_length=MOST_NAMES)]
GivenJob = Annotated[JobRequest | AnyObject, Field(union_mode="left_to_right")]


class JobsRequest(Strict):
    """Jobs that are handed over together.

    defaults: hold for each job that does not say otherwise.
    on_error: whether one bad job refuses all, or is left out and listed.
    """

    jobs: Annotated[list[GivenJob], Field(min_length=1, max_length=MOST_JOBS, fail_fast=True)]
    defaults: JobSettings | None = None
    batch: Name | None = None
    on_error: Literal["reject_all", "skip"] = "reject_all"


class ActionRequest(Strict):
    """An action that needs nothing else.

    revision: that of the job as the caller saw it; None: whatever it is.
    """

    revision: Revision | None = None


class SteerRequest(ActionRequest):
    """when: at the next token, or after the end of the attempt."""

    text: Note
    when: Literal["now", "after"] = "now"


class ReplyRequest(ActionRequest):
    """An answer to a need: one of its choices, or a text; neither: its default."""

    need: JobId
    choice: Annotated[str, Field(max_length=100_000), AfterValidator(check_text)] | None = None
    text: Annotated[str, Field(max_length=100_000), AfterValidator(check_text)] | None = None


class ExtendRequest(ActionRequest):
    tokens: Tokens


class RetryRequest(ActionRequest):
    """Settings that are others this time."""

    model: Name | None = None
    effort: Efforts | None = None
    strategy: Name | None = None
    budget: Tokens | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None


class BranchRequest(Strict):
    """Another token at one place of an answer.

    attempt: whose answer; None: the latest.
    place: in the last context of the answer, from 0, as the lens counts.
    token: the id that comes there.
    """

    attempt: Annotated[int, Field(ge=1, le=2**53)] | None = None
    place: Annotated[int, Field(ge=0, le=2**53)]
    token: TokenId


class FilterRequest(Strict):
    """Which jobs: the filters of lists."""

    state: Annotated[list[StateName], Field(max_length=16, fail_fast=True)] | None = None
    model: Annotated[list[Name], Field(max_length=64, fail_fast=True)] | None = None
    label: Annotated[list[Label], Field(max_length=16, fail_fast=True)] | None = None
    batch: Name | None = None
    q: Annotated[str, Field(max_length=200), AfterValidator(check_text)] | None = None
    unseen: bool | None = None


class BulkRequest(Strict):
    """One action on many jobs, with the fields of the action. expected_count: how many jobs the caller means."""

    action: Literal["cancel", "finish", "steer", "extend", "retry", "seen", "delete"]
    ids: Annotated[list[JobId], Field(min_length=1, max_length=10_000, fail_fast=True)] | None = None
    filter: FilterRequest | None = None
    expected_count: Annotated[int, Field(ge=0, le=2**53)]
    text: Note | None = None
    when: Literal["now", "after"] | None = None
    tokens: Tokens | None = None
    model: Name | None = None
    effort: Efforts | None = None
    strategy: Name | None = None
    budget: Tokens | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None


# Answers --------------------------------------------------------------------------------------------------------------


@closed
class JobUsage(TypedDict):
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int


@closed
class NeedChoice(TypedDict):
    id: str
    label: str


@closed
class NeededCall(TypedDict):
    call_id: str
    name: str
    arguments: str


@closed
class NeedObject(TypedDict):
    """What a job waits for.

    default: the id of a choice.
    call: of a tool, whose result is asked for.
    """

    id: str
    reason: NeedReason
    text: str
    choices: list[NeedChoice]
    default: str
    takes_text: bool
    call: NotRequired[NeededCall]


@closed
class JobError(TypedDict):
    code: str
    message: str


@closed
class JobVotes(TypedDict):
    agree: int
    of: int
    margin: float


@closed
class JobObject(TypedDict):
    """A job in lists and events. answer: its first characters."""

    id: str
    object: Literal["job"]
    number: int
    state: StateName
    revision: int
    attempt: int
    model: str
    effort: str | None
    strategy: str | None
    budget: int | None
    batch: str | None
    custom_id: str | None
    labels: list[str]
    title: str
    answer: str | None
    answer_length: int
    need: NeedObject | None
    error: JobError | None
    votes: JobVotes | None
    seen: bool
    usage: JobUsage | None
    response_id: str | None
    created_at: float
    started_at: float | None
    ended_at: float | None
    changed: int


@closed
class AttemptObject(TypedDict):
    attempt: int
    kind: Literal["first", "restart", "retry", "extend", "steer", "follow_up", "answer", "finish", "branch"]
    text: str | None
    response_id: str | None
    status: str
    usage: JobUsage | None
    dropped_turns: int
    created_at: float
    ended_at: float | None


@closed
class BillLine(JobUsage):
    strategy: str
    role: str
    model: str
    refilled_tokens: int


@closed
class SampleCounts(TypedDict):
    begun: int
    done: int
    planned: int


@closed
class JobProgress(TypedDict):
    """What a live job has come to. votes: answers so far, with how many samples gave each."""

    id: str
    phase: Literal["prefill", "think", "answer", "tool"]
    used: int
    budget: int | None
    samples: SampleCounts
    votes: list[tuple[str, int]]
    rate: float
    elapsed: float


@closed
class WholeJob(JobObject):
    """A job by itself. answer: whole."""

    input: list[dict[str, Any]]
    instructions: str | None
    output: list[dict[str, Any]]
    follow_ups: list[str]
    attempts: list[AttemptObject]
    bill: list[BillLine]
    window: int | None
    progress: JobProgress | None


@closed
class RefusedJob(TypedDict):
    index: int
    param: str | None
    code: str | None
    message: str


@closed
class JobList(TypedDict):
    """The jobs of a request, and those of them that were left out."""

    object: Literal["job.list"]
    data: list[JobObject]
    errors: list[RefusedJob]
    last_event: int


@closed
class JobsPage(TypedDict):
    object: Literal["list"]
    data: list[JobObject]
    has_more: bool
    next: str | None
    last_event: int


@closed
class BatchCount(TypedDict):
    batch: str
    total: int


@closed
class JobCounts(TypedDict):
    object: Literal["job.counts"]
    total: int
    states: dict[str, int]
    unseen_incomplete: int
    batches: list[BatchCount]
    last_event: int


@closed
class JobDeleted(TypedDict):
    id: str
    object: Literal["job"]
    deleted: bool


class TraceObject(TypedDict):
    """An entry of a trace. The other fields are those of its type."""

    n: int
    at: float
    attempt: int
    type: str


@closed
class TracePage(TypedDict):
    object: Literal["list"]
    data: list[TraceObject]
    has_more: bool
    next: int


class LensObject(TypedDict):
    """What `drawLens` draws: see `ponder.lens.page`. contexts: those of the answer, the last holds it."""

    title: str
    model: str
    notes: list[str]
    kinds: list[str]
    tokens: dict[str, str]
    contexts: list[dict[str, Any]]


@closed
class RefusedAction(TypedDict):
    id: str
    code: str | None
    message: str


@closed
class BulkResult(TypedDict):
    object: Literal["job.actions"]
    changed: int
    failed: list[RefusedAction]
    last_event: int
