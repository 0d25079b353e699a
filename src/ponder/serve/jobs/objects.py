"""Jobs as they are written."""

from __future__ import annotations

from typing import Any, cast

from ponder.serve.jobs.needs import shown_need
from ponder.serve.jobs.wire import AttemptObject, JobObject
from ponder.serve.store.job_records import JobAttempt, StoredJob

PREVIEW = 500  # characters of an answer in lists
TITLE = 200


def job_object(job: StoredJob) -> JobObject:
    """The job as lists and events have it."""
    answer = job.answer
    return cast(
        JobObject,
        {
            "id": job.id,
            "object": "job",
            "number": job.number,
            "state": job.state.value,
            "revision": job.revision,
            "attempt": job.attempt,
            "model": job.model,
            "effort": job.effort,
            "strategy": job.strategy,
            "budget": job.budget,
            "batch": job.batch,
            "custom_id": job.custom_id,
            "labels": [*job.labels],
            "title": job.title,
            "answer": None if answer is None else answer[:PREVIEW],
            "answer_length": len(answer or ""),
            "need": shown_need(job.need),
            "error": job.error,
            "votes": job.votes,
            "seen": job.seen,
            "usage": job.usage,
            "response_id": job.response_id,
            "created_at": job.created_at,
            "started_at": job.started_at,
            "ended_at": job.ended_at,
            "changed": job.changed,
        },
    )


def attempt_object(attempt: JobAttempt) -> AttemptObject:
    return cast(
        AttemptObject,
        {
            "attempt": attempt.number,
            "kind": attempt.kind.value,
            "text": attempt.text,
            "response_id": attempt.response_id,
            "status": attempt.status,
            "usage": attempt.usage,
            "dropped_turns": attempt.dropped_turns,
            "created_at": attempt.created_at,
            "ended_at": attempt.ended_at,
        },
    )


def title_of(given: Any) -> str:
    """The first words of the last text of an input."""
    return " ".join(_last_text(given).split())[:TITLE]


def _last_text(given: Any) -> str:
    if isinstance(given, str):
        return given
    for item in reversed(given):
        content = item.get("content", item.get("output"))
        if isinstance(content, str):
            return content
        if content:
            return " ".join(str(part.get("text", "")) for part in content)
    return ""
