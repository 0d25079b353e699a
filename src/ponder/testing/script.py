"""What the fakes say: texts whose tokens are words, cut to limits as an engine would cut them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from threading import Lock

from ponder.dialogue.messages import Conversation, Message, Part, Reasoning, Role, Text, ToolCall
from ponder.sampler.protocol import NamedTool, ParallelCalls, Request, ToolChoice
from ponder.types import SamplerError, StopReason, ThinkingLimits


@dataclass(frozen=True, slots=True)
class Say:
    """One scripted answer. seconds: how long it takes, spread over its words."""

    text: str
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    seconds: float = 0.0


Line = Say | str
Script = Iterable[Line] | Callable[[Conversation, int], Line]


class Prompter:
    """Gives out a script's lines: a list one after the other, or a function of the conversation and the sample's index.

    Raises SamplerError when a list has no line left.
    """

    def __init__(self, script: Script) -> None:
        self._function = script if callable(script) else None
        self._lines: Iterator[Line] = iter(() if callable(script) else script)
        self._lock = Lock()

    def next(self, conversation: Conversation, index: int) -> Say:
        with self._lock:
            line = self._function(conversation, index) if self._function else next(self._lines, None)
        if line is None:
            raise SamplerError("the script has no lines left: give it one for each completion")
        return Say(line) if isinstance(line, str) else line


@dataclass(frozen=True, slots=True)
class Spoken:
    """A line as it was said under limits: words, their sum counted as tokens."""

    reasoning: tuple[str, ...]
    text: tuple[str, ...]
    calls: tuple[ToolCall, ...] = field(default=())
    stop_reason: StopReason = StopReason.END
    reasoning_tokens: int = 0
    completion_tokens: int = 0

    def message(self) -> Message:
        parts: list[Part] = [Reasoning("".join(self.reasoning))] if self.reasoning else []
        if self.text or not self.calls:
            parts.append(Text("".join(self.text)))
        return Message(Role.ASSISTANT, (*parts, *self.calls))


def check_calls(say: Say, request: Request) -> None:
    """Raises SamplerError where a line calls other tools, or other numbers of them, than the request asks for."""
    names, choice = [call.name for call in say.calls], request.tool_choice
    if choice is ToolChoice.NONE:
        kept = not names
    elif isinstance(choice, NamedTool):
        kept = names == [choice.name]
    else:
        kept = bool(names) or choice is ToolChoice.AUTO
    if not kept or (request.parallel_calls is ParallelCalls.ONE and len(names) > 1):
        raise SamplerError(
            f"the script calls {', '.join(names) or 'no tool'}, but tool_choice is {choice} and parallel_calls "
            f"{request.parallel_calls}: write a line that keeps them"
        )


def words(text: str) -> list[str]:
    """The text cut before each word, so that the pieces join to it."""
    return re.findall(r"\s*\S+|\s+$", text)


def count_prompt(conversation: Conversation) -> int:
    """Words of all visible parts, and one for each message."""
    return sum(1 + len(words(message.text)) for message in conversation)


def speak(
    say: Say,
    *,
    max_tokens: int | None = None,
    thinking: ThinkingLimits | None = None,
    answer_room: int = 0,
    stop: tuple[str, ...] = (),
) -> Spoken:
    """Cut a line to its limits. The close of the thinking and the end of the turn are a token each."""
    limit = sys.maxsize if max_tokens is None else max_tokens
    cap = sys.maxsize if thinking is None or thinking.cap is None else thinking.cap
    thought = words(say.reasoning) if cap else []
    spent = min(len(thought) + 1, cap, limit - answer_room) if thought else 0
    text = _before_stop(say.text, stop)
    said = words(text)
    left = limit - spent
    if text != say.text and len(said) <= left:
        reason = StopReason.STOP
    elif text == say.text and len(said) < left:
        reason = StopReason.END
    else:
        reason = StopReason.LENGTH
    said = said[:left]
    return Spoken(
        reasoning=tuple(thought[: spent - 1]) if spent else (),
        text=tuple(said),
        calls=say.calls if reason is StopReason.END else (),
        stop_reason=reason,
        reasoning_tokens=spent,
        completion_tokens=spent + len(said) + (reason is StopReason.END),
    )


def _before_stop(text: str, stop: tuple[str, ...]) -> str:
    found = [place for each in stop if (place := text.find(each)) >= 0]
    return text[: min(found)] if found else text
