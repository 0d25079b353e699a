"""What the end of an attempt makes of its job: done, a person's turn, or the next attempt. And what an answer does."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ponder.evaluate.audit.thinking import thought_holds
from ponder.serve.errors import BadRequest, Conflict
from ponder.serve.store.job_records import AttemptKind, JobAttempt, JobState, StoredJob
from ponder.think.events import Answer
from ponder.think.voting import same_answer

ANSWER_NOW = "Answer now."
LOOK_AGAIN = "The last line of your thought and your answer do not say the same. Look again."
DECLINED = "The call was declined."
DECIDE = "There is no answer: decide it yourself."
ASK_PERSON = {
    "type": "function",
    "name": "ask_person",
    "description": "Asks the person who gave you this task a question, and waits for the answer.",
    "parameters": {
        "type": "object",
        "properties": {"question": {"type": "string"}},
        "required": ["question"],
        "additionalProperties": False,
    },
}
"""The tool of a job that may stop for a `question`."""
Step = tuple[StoredJob, list[JobAttempt]]
"""The job as it goes on, and its new attempts."""


def next_attempt(job: StoredJob, kind: AttemptKind, now: float, **fields: Any) -> Step:
    """The job as it waits for a new attempt. fields: those of the attempt."""
    number = job.attempt + 1
    job = replace(
        job,
        state=JobState.QUEUED,
        attempt=number,
        response_id=None,
        need=None,
        error=None,
        started_at=None,
        ended_at=None,
    )
    return job, [JobAttempt(number=number, kind=kind, created_at=now, **fields)]


def going_on(job: StoredJob, kind: AttemptKind, text: str, now: float, **asked: Any) -> Step:
    """A turn after the response of the attempt that has ended, which the model knows."""
    turn = {"previous_response_id": job.response_id, "input": text, **asked}
    return next_attempt(job, kind, now, text=text, asked=turn)


def steered(job: StoredJob, attempt: JobAttempt, text: str, now: float, *, thought: bool) -> Step:
    """Going on with a note. thought: whether the model has thought or said anything that it keeps."""
    if thought:
        return going_on(job, AttemptKind.STEER, text, now, reasoning={"context": "all_turns"})
    asked = {**attempt.asked, "input": with_note(attempt.asked.get("input", job.request["input"]), text)}
    return next_attempt(job, AttemptKind.STEER, now, text=text, asked=asked)


def answering_now(job: StoredJob, now: float) -> Step:
    """A thought that was ended early: its answer, without more thinking."""
    said = {"strategy": None, "thinking_token_budget": None, "reasoning": {"effort": "none", "context": "all_turns"}}
    return going_on(job, AttemptKind.FINISH, ANSWER_NOW, now, **said)


def with_note(given: str | Sequence[Any], text: str) -> str | list[Any]:
    """An input with a note after it."""
    return f"{given}\n\n{text}" if isinstance(given, str) else [*given, {"role": "user", "content": text}]


def finished(job: StoredJob, state: JobState, now: float) -> Step:
    """The job at its end, unless a follow-up waits."""
    if job.follow_ups:
        first, *rest = job.follow_ups
        return going_on(replace(job, follow_ups=rest), AttemptKind.FOLLOW_UP, first, now)
    return replace(job, state=state, need=None), []


# Needs ----------------------------------------------------------------------------------------------------------------


def need_of(job: StoredJob, answer: Answer | None, output: Sequence[Mapping[str, Any]], *, done: bool) -> Any:
    """What the job waits for after an attempt; None: nothing.

    output: the items of its response.
    done: whether it came to an answer.
    """
    if not done:
        if "budget" not in job.needs:
            return None
        choices = [("accept", "take what there is")]
        if job.budget is not None or "max_output_tokens" in job.request:
            choices.append(("extend", "go on with as many tokens again"))
        best = f"; best so far: {answer.text.strip()[:200]}" if answer is not None and answer.text.strip() else ""
        return _need(job, "budget", f"the tokens are spent{best}", choices)
    calls = [item for item in output if item["type"] == "function_call"]
    if calls and all(_reason_of(each) in job.needs for each in calls):
        return tool_need(job, calls, [])
    tied = _tied(answer)
    if tied and "tie" in job.needs:
        text = ", ".join(f"{count} say {each[:80]}" for each, count in tied)
        return _need(job, "tie", f"the samples are split: {text}", [(each, each) for each, _ in tied])
    if "contradiction" in job.needs and answer is not None and not calls:
        last = next((line for line in reversed(answer.reasoning.splitlines()) if line.strip()), "").strip()
        if thought_holds(last, answer.text, same_answer) is False:
            choices = [("accept", "take the answer"), ("again", "have it look again")]
            text = f"the thought ends with “{last[:200]}”, the answer is “{answer.text.strip()[:200]}”"
            return _need(job, "contradiction", text, choices)
    if "review" in job.needs:
        return _need(job, "review", "look at the answer", [("accept", "take it")])
    return None


def tool_need(job: StoredJob, calls: Sequence[Mapping[str, Any]], results: Sequence[Mapping[str, Any]]) -> Any:
    """The first of the calls that are left. results: of those before it."""
    call = {name: calls[0][name] for name in ("call_id", "name", "arguments")}
    if _reason_of(call) == "question":
        need = _need(job, "question", _question(call["arguments"]), [("decide", "let the model decide")])
    else:
        text = f"the model calls {call['name']}({call['arguments']})"
        need = _need(job, "tool", text, [("decline", "decline the call")])
    return {**need, "call": call, "_left": [dict(each) for each in calls[1:]], "_results": [*results]}


def _reason_of(call: Mapping[str, Any]) -> str:
    return "question" if call["name"] == ASK_PERSON["name"] else "tool"


def _question(arguments: str) -> str:
    """What a call of `ask_person` asks; the arguments themselves where they are not what it takes."""
    try:
        return str(json.loads(arguments)["question"])
    except (ValueError, TypeError, KeyError):
        return arguments


def _need(job: StoredJob, reason: str, text: str, choices: Sequence[tuple[str, str]]) -> dict[str, Any]:
    return {
        "id": f"need_{job.revision + 1}",
        "reason": reason,
        "text": text,
        "choices": [{"id": id, "label": label} for id, label in choices],
        "default": choices[0][0],
        "takes_text": True,
    }


def _tied(answer: Answer | None) -> list[tuple[str, int]]:
    """The answers of the largest votes, where there are several of one size."""
    votes = answer.votes if answer is not None else ()
    most = [(vote.answer, vote.count) for vote in votes if vote.size == votes[0].size]
    return most if len(most) > 1 else []


def replied(job: StoredJob, attempt: JobAttempt, choice: str | None, text: str | None, now: float) -> Step:
    """The job after an answer to its need: a choice, a text, or (neither) the default. Raises BadRequest for a choice
    that there is not."""
    need = job.need
    assert need is not None
    if choice is None and text is None:
        choice = need["default"]
    if choice is not None and choice not in [each["id"] for each in need["choices"]]:
        known = ", ".join(repr(each["id"][:40]) for each in need["choices"])
        raise BadRequest(f"choice must be one of {known} (got {choice[:40]!r})", param="choice")
    match need["reason"]:
        case "budget" if choice == "accept":
            return finished(job, JobState.INCOMPLETE, now)
        case "budget" if choice == "extend":
            return extended(job, job.budget or job.request["max_output_tokens"], now, attempt)
        case "tool":
            return _called(job, need, DECLINED if text is None else text, now)
        case "question":
            return _called(job, need, DECIDE if text is None else text, now)
        case "contradiction" if choice == "again":
            return going_on(job, AttemptKind.FOLLOW_UP, LOOK_AGAIN, now)
        case "contradiction" if choice == "accept":
            return finished(job, JobState.COMPLETED, now)
        case "review" if choice == "accept":
            return finished(job, JobState.COMPLETED, now)
        case "review":
            return going_on(job, AttemptKind.FOLLOW_UP, text or "", now)
        case _:
            return finished(replace(job, answer=choice if text is None else text), JobState.COMPLETED, now)


def _called(job: StoredJob, need: Mapping[str, Any], output: str, now: float) -> Step:
    """The result of a call: the next call's turn, or the model's."""
    result = {"type": "function_call_output", "call_id": need["call"]["call_id"], "output": output}
    results = [*need["_results"], result]
    if need["_left"]:
        return replace(job, need=tool_need(job, need["_left"], results)), []
    asked = {"previous_response_id": job.response_id, "input": results}
    return next_attempt(job, AttemptKind.ANSWER, now, text=output, asked=asked)


def extended(job: StoredJob, tokens: int, now: float, attempt: JobAttempt) -> Step:
    """Asked again with that many tokens more. Raises Conflict where no number of tokens ended it."""
    request = job.request
    if job.budget is not None:
        job = replace(job, budget=job.budget + tokens)
    elif "max_output_tokens" in request:
        job = replace(job, request={**request, "max_output_tokens": request["max_output_tokens"] + tokens})
    else:
        raise Conflict(
            "extend needs a job with a budget or max_output_tokens: the model's window ended this one",
            code="wrong_state",
        )
    return next_attempt(job, AttemptKind.EXTEND, now, asked=attempt.asked)


def shown_need(need: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if need is None else {name: value for name, value in need.items() if not name.startswith("_")}
