"""Responses of OpenAI-compatible servers, whole or in pieces, as completions."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ponder.dialogue.messages import Message, Part, Reasoning, Role, Text, ToolCall
from ponder.sampler.protocol import CallDelta, Completion, Delta, Done, Streamed
from ponder.types import Phase, PonderError, RateLimited, RefusedByEndpoint, SamplerError, StopReason, Usage

FINISHES = {
    "stop": StopReason.END,
    "eos": StopReason.END,
    "end_turn": StopReason.END,
    "tool_calls": StopReason.END,
    "function_call": StopReason.END,
    "stop_sequence": StopReason.STOP,
    "length": StopReason.LENGTH,
    "max_tokens": StopReason.LENGTH,
    "content_filter": StopReason.FILTERED,
}


@dataclass(slots=True)
class PartialCall:
    """A tool call in the making.

    shown: whether its name is; then it cannot change any more.
    """

    name: str = ""
    arguments: str = ""
    id: str | None = None
    shown: bool = False

    def is_over(self, piece: dict[str, Any]) -> bool:
        """Whether a piece of the same index is of another call: it has another id, or it has none, and brings a name
        and arguments after those of this call are whole."""
        if piece.get("id"):
            return bool(piece["id"] != self.id)
        function = piece.get("function") or {}
        if not (function.get("name") and _arguments(function).strip()):
            return False
        try:
            return isinstance(json.loads(self.arguments), dict)
        except ValueError:
            return False


@dataclass(slots=True)
class PartialChoice:
    """One completion in the making. pieces: how many have come of its thinking and of the rest."""

    index: int
    text: str = ""
    refusal: str = ""
    reasoning: str = ""
    pieces: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    finish: str | None = None
    met_stop: bool = False
    calls: dict[int, PartialCall] = field(default_factory=dict)  # by our own number, in the order of their coming
    numbers: dict[int, int] = field(default_factory=dict)  # of the latest call of each index of the server's

    def take(self, piece: dict[str, Any]) -> Iterator[Delta | CallDelta]:
        """A `message` or a streamed `delta`, under any of the reasoning fields."""
        thought, said, refused = _texts(piece)
        self.count(thinking=bool(thought), other=bool(said or refused or piece.get("tool_calls")))
        if thought:
            self.reasoning += thought
            yield Delta(self.index, Phase.THINK, thought)
        if said:
            self.text += said
            yield Delta(self.index, Phase.ANSWER, said)
        if refused:
            self.refusal += refused
            yield Delta(self.index, Phase.ANSWER, refused, refusal=True)
        for place, call in enumerate(piece.get("tool_calls") or []):
            number = self.numbers.get(call.get("index", place))
            if number is None or self.calls[number].is_over(call):
                yield from self._show_names()  # the calls before it are over
                number = self.numbers[call.get("index", place)] = len(self.calls)
                self.calls[number] = PartialCall(id=call.get("id") or None)
            yield from self._take_call(self.calls[number], call, number)

    def _take_call(self, made: PartialCall, call: dict[str, Any], number: int) -> Iterator[CallDelta]:
        function = call.get("function") or {}
        name, arguments = function.get("name") or "", _arguments(function)
        if not made.shown:
            made.name += name
        elif name not in ("", made.name):  # some servers repeat it
            raise SamplerError(f"the endpoint renamed the tool call {made.name[:100]!r} to {name[:100]!r}")
        if arguments:
            made.arguments += arguments
            first, made.shown = not made.shown, True
            named = (made.name, made.id) if first else (None, None)
            yield CallDelta(self.index, number, named[0], arguments, named[1])

    def _show_names(self) -> Iterator[CallDelta]:
        """Calls whose arguments never came."""
        for number, made in enumerate(self.calls.values()):
            if not made.shown:
                yield CallDelta(self.index, number, made.name, "", made.id)
                made.shown = True

    def count(self, *, thinking: bool, other: bool) -> None:
        """A piece has come."""
        self.pieces[True] += thinking
        self.pieces[False] += other

    @property
    def counted(self) -> Usage:
        """Its tokens, if each piece is one: servers stream token by token."""
        return Usage(completion_tokens=sum(self.pieces.values()), reasoning_tokens=self.pieces[True])

    def end(self, choice: dict[str, Any]) -> Iterator[CallDelta]:
        self.finish = choice.get("finish_reason") or self.finish
        self.met_stop = self.met_stop or choice.get("stop_reason") is not None  # vLLM names the stop string here
        if self.finish is not None:
            yield from self._show_names()

    def message(self) -> Message:
        parts: list[Part] = [Reasoning(self.reasoning)] if self.reasoning else []
        if self.text or not (self.calls or self.refusal):
            parts.append(Text(self.text))
        if self.refusal:
            parts.append(Text(self.refusal, refusal=True))
        parts += [ToolCall(call.name, call.arguments, call.id) for call in self.calls.values()]
        return Message(Role.ASSISTANT, tuple(parts))

    def stop_reason(self) -> StopReason:
        reason = FINISHES.get((self.finish or "").lower(), StopReason.OTHER)
        return StopReason.STOP if reason is StopReason.END and self.met_stop else reason


def _arguments(function: dict[str, Any]) -> str:
    """As text. Some servers write the object itself."""
    said = function.get("arguments")
    return json.dumps(said, ensure_ascii=False) if isinstance(said, dict) else said or ""


OVERFLOW_CODE = "context_length_exceeded"
OVERFLOW_WORDS = re.compile(
    r"maximum context length|context[ _](length|window|size)|prompt is too long|too many (input )?tokens"
    r"|maximum model length|exceeds the maximum number of tokens|reduce the length of the (messages|prompt|input)",
    re.IGNORECASE,
)
BUSY_CODES = (429, "429", "rate_limit_exceeded", "rate_limit_error", "RateLimitError")


def error_code(error: Any) -> str | None:
    """The code of an error object. A prompt that is too long is known by its type or words too: few servers give the
    code."""
    fields = error if isinstance(error, dict) else {"message": error}
    code = fields.get("code")
    if OVERFLOW_CODE in (code, fields.get("type")) or OVERFLOW_WORDS.search(str(fields.get("message", fields))):
        return OVERFLOW_CODE
    return code if isinstance(code, str) else None


def told_failure(error: Any) -> PonderError:
    """What an error object in place of an answer, or within one, is to the caller."""
    said = f"the endpoint failed: {str(error)[:500]}"
    if error_code(error) == OVERFLOW_CODE:
        return RefusedByEndpoint(said, code=OVERFLOW_CODE)
    fields = error if isinstance(error, dict) else {}
    busy = fields.get("code") in BUSY_CODES or fields.get("type") in BUSY_CODES
    return RateLimited(said) if busy else SamplerError(said)


def _texts(piece: dict[str, Any]) -> tuple[str, str, str]:
    """(thinking, visible text, refusal) of a piece. Some servers write parts, not a text."""
    thought, said = piece.get("reasoning") or piece.get("reasoning_content") or "", piece.get("content") or ""
    refused = piece.get("refusal") or ""
    if isinstance(said, list):
        refused += "".join(str(part.get("refusal", "")) for part in said if part.get("type") == "refusal")
        thought += "".join(str(part.get("thinking", "")) for part in said if part.get("type") == "thinking")
        said = "".join(str(part.get("text", "")) for part in said)
    return thought, said, refused


class Replies:
    """Gathers the choices and the usage of one response. begun: whether it has come."""

    def __init__(self, n: int) -> None:
        self.begun = False
        self.choices = {index: PartialChoice(index) for index in range(n)}
        self._usage: dict[str, Any] | None = None
        self._running: dict[int, dict[str, Any]] = {}  # the latest count of each choice, from servers that keep one

    def take(self, chunk: dict[str, Any]) -> Iterator[Delta | CallDelta]:
        """A whole response or one event of a stream. Raises SamplerError on an error object or a malformed one."""
        try:
            yield from self._take(chunk)
        except (AttributeError, TypeError) as error:
            raise SamplerError("the endpoint's response does not have the fields of a completion") from error

    def _take(self, chunk: dict[str, Any]) -> Iterator[Delta | CallDelta]:
        if chunk.get("error"):
            raise told_failure(chunk["error"])
        self._usage = dict(chunk.get("usage") or {}) or self._usage
        if chunk.get("usage"):
            self._running |= {choice.get("index", 0): dict(chunk["usage"]) for choice in chunk.get("choices") or []}
        for choice in chunk.get("choices") or []:
            index = choice.get("index", 0)
            if index not in self.choices:
                raise SamplerError(
                    f"the endpoint sent a choice with index {index}, but {len(self.choices)} were asked for"
                )
            yield from self.choices[index].take(choice.get("delta") or choice.get("message") or {})
            yield from self.choices[index].end(choice)

    def spent(self) -> list[Usage] | None:
        """What the server has counted so far, one part per choice. None: it keeps no running count."""
        if not self._running:
            return None
        bills = [share_out(self._running.get(index), [choice])[0][0] for index, choice in sorted(self.choices.items())]
        prompt = max(bills, key=lambda bill: bill.prompt_tokens)
        rest = [replace(bill, prompt_tokens=0, cached_tokens=0) for bill in bills]
        rest[0] = replace(rest[0], prompt_tokens=prompt.prompt_tokens, cached_tokens=prompt.cached_tokens)
        return rest

    def completions(self) -> list[Completion]:
        """All choices, the bill shared out among them. Raises SamplerError where some never came or never ended."""
        missing = [index for index, choice in self.choices.items() if choice.finish is None]
        if missing:
            raise SamplerError(
                f"the endpoint ended its response with {len(missing)} of {len(self.choices)} completions unfinished "
                "(it may not support n, or the connection was cut)"
            )
        choices = [self.choices[index] for index in sorted(self.choices)]
        bills, exact = share_out(self._usage, choices)
        return [
            Completion(
                message=choice.message(),
                stop_reason=choice.stop_reason(),
                usage=bill,
                usage_estimated=not exact,
                server_reason=(choice.finish or "") if choice.stop_reason() is StopReason.OTHER else "",
            )
            for choice, bill in zip(choices, bills, strict=True)
        ]


Bill = Callable[[PartialChoice], Usage]


async def until(
    events: AsyncGenerator[Streamed, None],
    n: int,
    deadline: float | None,
    bill: Bill,
    unread: Callable[[Done], object] | None = None,
) -> AsyncGenerator[Streamed, None]:
    """`events` up to `deadline` (the loop's time; None: all). Then each of the n completions that are not done ends as
    it stands, with StopReason.DEADLINE. `events` are closed at the end.

    bill: what a completion has cost that did not come to its end.
    unread: see `Delivery`.
    """
    choices = {index: PartialChoice(index) for index in range(n)}
    late = False
    try:
        while choices and not late:
            timeout = asyncio.timeout_at(deadline)
            try:
                async with timeout:
                    event = await anext(events)
            except StopAsyncIteration:
                return
            except TimeoutError:
                if not timeout.expired():
                    raise
                late = True
                continue
            _follow(choices, event)
            yield event
    finally:
        await events.aclose()
        if not late and unread is not None:
            for index in list(choices):
                unread(_cut_short(choices.pop(index), StopReason.ABORTED, bill))
    for index in list(choices):
        yield _cut_short(choices.pop(index), StopReason.DEADLINE, bill)


def _follow(choices: dict[int, PartialChoice], event: Streamed) -> None:
    """Add an event to those of the `choices` that are not done."""
    if isinstance(event, Done):
        del choices[event.index]
        return
    choice, thinking = choices[event.index], isinstance(event, Delta) and event.phase is Phase.THINK
    choice.count(thinking=thinking, other=not thinking)
    if isinstance(event, CallDelta):
        call = choice.calls.setdefault(event.call, PartialCall(event.name or "", id=event.id))
        call.arguments += event.arguments
    elif thinking:
        choice.reasoning += event.text
    elif event.refusal:
        choice.refusal += event.text
    else:
        choice.text += event.text


def _cut_short(choice: PartialChoice, reason: StopReason, bill: Bill) -> Done:
    completion = Completion(message=choice.message(), stop_reason=reason, usage=bill(choice), usage_estimated=True)
    return Done(choice.index, completion)


def share_out(usage: dict[str, Any] | None, choices: Sequence[PartialChoice]) -> tuple[list[Usage], bool]:
    """The server's bill, one part per choice, and whether every part is as the server counted.

    The prompt goes to the first. The server counts all choices together, so several are weighed by their characters
    (their sum is exact). Reasoning that it shows but does not count is weighed by characters, too.
    """
    if usage is None:
        return [Usage() for _ in choices], False
    details = usage.get("completion_tokens_details") or {}
    completion = usage.get("completion_tokens") or 0
    thought = [len(choice.reasoning) for choice in choices]
    said = [
        len(choice.text + choice.refusal) + sum(len(call.arguments) for call in choice.calls.values())
        for choice in choices
    ]
    counted = details.get("reasoning_tokens")
    uncounted = not counted and any(thought)
    reasoning = apportion(completion, [sum(thought), sum(said)])[0] if uncounted else counted or 0
    reasonings = apportion(reasoning, thought)
    answers = apportion(completion - reasoning, said)
    cached = (
        (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or usage.get("prompt_cache_hit_tokens") or 0
    )
    bills = [
        Usage(completion_tokens=think + answer, reasoning_tokens=think)
        for think, answer in zip(reasonings, answers, strict=True)
    ]
    bills[0] += Usage(prompt_tokens=usage.get("prompt_tokens") or 0, cached_tokens=cached)
    return bills, not uncounted and len(choices) == 1


def apportion(total: int, weights: Sequence[int]) -> list[int]:
    """`total` in whole parts, in proportion to `weights` (evenly where all are 0), by largest remainders."""
    if not any(weights):
        weights = [1] * len(weights)
    whole = sum(weights)
    parts = [total * weight // whole for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda place: -(total * weights[place] % whole))
    for place in by_remainder[: total - sum(parts)]:
        parts[place] += 1
    return parts
