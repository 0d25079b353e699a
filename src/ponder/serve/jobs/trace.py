"""What a strategy did, as the entries of a trace, and the bill that they add up to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ponder.sampler.protocol import Done
from ponder.serve.jobs.wire import BillLine, JobUsage
from ponder.think.events import (
    VERIFIER,
    Answered,
    Asked,
    Event,
    Graded,
    Noted,
    Planned,
    Recalled,
    Started,
    Stopped,
    Voted,
)
from ponder.types import Usage

COUNTS = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens", "refilled_tokens")


def entry_of(event: Event) -> dict[str, Any] | None:
    """The entry of an event; None: pieces of text have none."""
    match event:
        case Asked():
            return {"type": "asked", "strategy": event.strategy}
        case Started():
            return {
                "type": "started",
                "sample": event.sample,
                "choice": event.choice,
                "strategy": event.strategy,
                "role": event.role,
                "model": event.model,
            }
        case Done():
            done = event.completion
            return {
                "type": "done",
                "sample": event.index,
                "stop_reason": done.stop_reason.value,
                "text": done.text,
                "reasoning": done.reasoning,
                "usage": _counts(done.usage),
            }
        case Graded():
            grade = event.grade
            return {
                "type": "graded",
                "sample": event.sample,
                "strategy": event.strategy,
                "score": grade.score,
                "status": str(grade.status),
                "why": grade.why,
                "usage": _counts(grade.usage),
            }
        case Voted():
            votes = [{"answer": each.answer, "samples": [*each.samples], "weight": each.weight} for each in event.votes]
            return {"type": "voted", "strategy": event.strategy, "votes": votes, "margin": event.margin}
        case Planned():
            return {"type": "planned", "strategy": event.strategy, "steps": [*event.steps]}
        case Recalled():
            return {
                "type": "recalled",
                "strategy": event.strategy,
                "notes": [each.note.text for each in event.found],
            }
        case Noted():
            return {"type": "noted", "strategy": event.strategy, "notes": [each.text for each in event.notes]}
        case Stopped():
            return {"type": "stopped", "strategy": event.strategy, "cut": event.cut.value, "why": event.why}
        case Answered(answer):
            return {
                "type": "answered",
                "text": answer.text,
                "stop_reason": answer.stop_reason.value,
                "cut": None if answer.cut is None else answer.cut.value,
                "margin": answer.margin,
                "usage": _counts(answer.usage),
            }
        case _:
            return None


def shown_entry(data: Mapping[str, Any], *, reasoning: bool) -> dict[str, Any]:
    """An entry as it is sent, its bill in the API's names. reasoning: whether the thoughts of samples are."""
    shown = {name: value for name, value in data.items() if reasoning or name != "reasoning"}
    if "usage" in shown:
        usage = Usage(**shown["usage"])
        shown["usage"] = {**job_usage(usage), "refilled_tokens": usage.refilled_tokens}
    return shown


def bill_of(entries: Iterable[Mapping[str, Any]]) -> list[BillLine]:
    """The bill by strategy, role and model: what `ponder.think.events.bills` is for events."""
    of: dict[int, tuple[str, str, str]] = {}
    found: dict[tuple[str, str, str], Usage] = {}
    for entry in entries:
        if entry["type"] == "started":
            of[entry["sample"]] = (entry["strategy"], entry["role"], entry["model"])
        elif entry["type"] == "asked":
            of = {}  # samples are counted from 0 in each attempt
        if entry["type"] == "done":
            key = of.get(entry["sample"], ("", "sample", ""))
        elif entry["type"] == "graded":
            key = (entry["strategy"], VERIFIER, "")
        else:
            continue
        found[key] = found.get(key, Usage()) + Usage(**entry["usage"])
    return [
        {
            "strategy": strategy,
            "role": role,
            "model": model,
            **job_usage(usage),
            "refilled_tokens": usage.refilled_tokens,
        }
        for (strategy, role, model), usage in found.items()
        if usage != Usage()
    ]


def job_usage(usage: Usage) -> JobUsage:
    return {
        "input_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
    }


def added(first: Mapping[str, Any] | None, second: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Two bills together; None: there is none."""
    if first is None or second is None:
        found = first or second
        return None if found is None else dict(found)
    return {name: first[name] + second[name] for name in first}


def _counts(usage: Usage) -> dict[str, int]:
    return {name: getattr(usage, name) for name in COUNTS}
