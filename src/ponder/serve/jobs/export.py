"""Jobs as a file: JSON lines, or CSV that no spreadsheet runs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator
from typing import Any

from ponder.serve.store.job_records import StoredJob

SPENT = ("input_tokens", "output_tokens", "reasoning_tokens")
COLUMNS = (
    *("id", "number", "custom_id", "batch", "labels", "model", "effort", "strategy", "state", "attempt", "input"),
    *("answer", "error", *SPENT, "created_at", "ended_at"),
)
RUNS = ("=", "+", "-", "@", "\t", "\r", "\n")  # a cell that begins so is a formula to some spreadsheet


def record_of(job: StoredJob) -> dict[str, Any]:
    """The job as a line of an export."""
    usage = job.usage or {}
    values = {name: getattr(job, name) for name in COLUMNS if hasattr(job, name)}
    values |= {name: usage.get(name) for name in SPENT}
    values |= {"state": job.state.value, "labels": [*job.labels], "input": job.request["input"]}
    return {name: values[name] for name in COLUMNS}


async def json_lines(jobs: AsyncIterator[StoredJob]) -> AsyncIterator[bytes]:
    async for job in jobs:
        yield json.dumps(record_of(job), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


async def csv_lines(jobs: AsyncIterator[StoredJob]) -> AsyncIterator[bytes]:
    yield _row(COLUMNS)
    async for job in jobs:
        yield _row([_cell(value) for value in record_of(job).values()])


def _cell(value: Any) -> Any:
    if isinstance(value, list | dict):
        value = json.dumps(value, ensure_ascii=False)
    if isinstance(value, str):
        return f"'{value}" if value.startswith(RUNS) else value
    return "" if value is None else value


def _row(values: Any) -> bytes:
    line = io.StringIO()
    csv.writer(line).writerow(values)
    return line.getvalue().encode()
