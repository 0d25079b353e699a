"""The scripted fake: a sampler that says what a script gives it, word by word, under an engine's limits."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from threading import Lock
from typing import cast

from ponder.dialogue.messages import Conversation, Message, Part, Reasoning, Role, Text, ToolCall
from ponder.sampler.delivery import gathered
from ponder.sampler.protocol import (
    AT_ONCE,
    CallDelta,
    Capabilities,
    Completion,
    Delivery,
    Delta,
    Done,
    Grammar,
    NamedTool,
    ParallelCalls,
    Request,
    Streamed,
    ToolChoice,
    check_request,
    estimated_tokens,
)
from ponder.sampler.replies import PartialChoice, until
from ponder.types import InvalidRequest, Phase, SamplerError, StopReason, ThinkingLimits, TopLogprobs, Usage


@dataclass(frozen=True, slots=True)
class Say:
    """One scripted answer.

    seconds: how long it takes, spread over its words.
    refuses: its text is marked as a refusal.
    """

    text: str
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    seconds: float = 0.0
    refuses: bool = False


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
    refuses: bool = False

    def so_far(self, words: int) -> Usage:
        """What the first `words` words have cost: a thought that was closed has cost the close too."""
        thought = min(words, len(self.reasoning))
        if words > len(self.reasoning) and self.reasoning_tokens:
            thought = self.reasoning_tokens
        return Usage(0, thought + max(0, words - len(self.reasoning)), thought)

    def message(self) -> Message:
        parts: list[Part] = [Reasoning("".join(self.reasoning))] if self.reasoning else []
        if self.text or not self.calls:
            parts.append(Text("".join(self.text), refusal=self.refuses))
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


def check_grammar(say: Say, grammar: Grammar) -> None:
    """Raises InvalidRequest where a line is not what the grammar accepts, or that is not a grammar."""
    from ponder.dialogue import PonderFormat
    from ponder.sampler.grammar import compile_grammar
    from ponder.testing.tiny import ByteTokenizer

    tokenizer = ByteTokenizer()
    tokens = PonderFormat(tokenizer).phase_tokens
    constraint = compile_grammar(grammar, tokenizer, tokens)
    try:
        for id in (*tokenizer.encode(say.text), tokens.end[0]):
            constraint.advance(id)
    except InvalidRequest as error:
        raise InvalidRequest(f"the script's line {say.text[:80]!r} does not keep the grammar: {error}") from error


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
        refuses=say.refuses,
    )


def _before_stop(text: str, stop: tuple[str, ...]) -> str:
    found = [place for each in stop if (place := text.find(each)) >= 0]
    return text[: min(found)] if found else text


class ScriptedSampler:
    """Keeps every contract of `Sampler` on a script: a list of answers, or a function (conversation, index) -> answer.

    Tokens are words; the thinking cap, the answer's room, max_tokens and stop strings hold as they do in the engine.
    requests: what was asked so far.
    counted: what was said so far, read or not.
    What would need a model or its ids is refused by name: floors and confidence, stop ids, biases, log-probabilities,
    ids as a prompt, a grammar that the line does not keep. `seconds` is kept; a completion that it cuts is billed by
    the words that were said. Nothing is cached, so any tenant is served and `next_turn` changes nothing. Calls are the
    script's: a line that does not keep `tool_choice` or `parallel_calls` is a SamplerError.
    """

    def __init__(
        self, script: Script, *, name: str = "scripted", window: int = 4096, thinking_tokens: int | None = None
    ) -> None:
        """thinking_tokens: see `Capabilities`."""
        self.requests: list[Request] = []
        self.counted = Usage()
        self._prompter = Prompter(script)
        self._name = name
        self._capabilities = Capabilities(window=window, thinking_tokens=thinking_tokens)
        self._closed = False

    @property
    def name(self) -> str:
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    async def sample(self, request: Request) -> list[Completion]:
        done = {each.index: each.completion async for each in self.stream(request) if isinstance(each, Done)}
        return [done[index] for index in range(request.n)]

    async def stream(self, request: Request, delivery: Delivery = AT_ONCE) -> AsyncGenerator[Streamed, None]:
        async with aclosing(gathered(self._pieces(request, delivery), delivery.gather)) as pieces:
            async for piece in pieces:
                yield piece

    async def _pieces(self, request: Request, delivery: Delivery) -> AsyncGenerator[Streamed, None]:
        self._check(request)
        self.requests.append(request)
        deadline = None if request.seconds is None else asyncio.get_running_loop().time() + request.seconds
        prompt_tokens = count_prompt(cast(Conversation, request.prompt))

        def bill(choice: PartialChoice) -> Usage:
            closed = Usage(completion_tokens=1, reasoning_tokens=1) if all(choice.pieces.values()) else Usage()
            return choice.counted + closed + Usage(prompt_tokens=0 if choice.index else prompt_tokens)

        spoken = until(self._said(request), request.n, deadline, bill, delivery.unread)
        async with aclosing(spoken) as events:
            async for event in events:
                if isinstance(event, Done):
                    delivery.end()
                elif not delivery.deltas:
                    continue
                yield event

    async def _said(self, request: Request) -> AsyncGenerator[Streamed, None]:
        conversation = cast(Conversation, request.prompt)
        params = request.params
        self.counted += Usage(prompt_tokens=count_prompt(conversation))
        for index in range(request.n):
            say = self._prompter.next(conversation, index)
            check_calls(say, request)
            if request.grammar is not None and not say.calls:
                check_grammar(say, request.grammar)
            spoken = speak(
                say,
                max_tokens=params.max_tokens,
                thinking=params.thinking,
                answer_room=params.answer_room,
                stop=request.stop,
            )
            pieces = [(Phase.THINK, word) for word in spoken.reasoning] + [(Phase.ANSWER, word) for word in spoken.text]
            before = Usage()
            for place, (phase, word) in enumerate(pieces):
                await asyncio.sleep(say.seconds / len(pieces))
                before = self._count(before, spoken.so_far(place + 1))
                yield Delta(index, phase, word, refusal=say.refuses and phase is Phase.ANSWER)
            for number, call in enumerate(spoken.calls):
                yield CallDelta(index, number, call.name, "", call.id)
                for word in words(call.arguments):
                    yield CallDelta(index, number, None, word)
            self._count(before, Usage(0, spoken.completion_tokens, spoken.reasoning_tokens))
            yield Done(index, _completion(spoken, count_prompt(conversation) if index == 0 else 0))

    def _count(self, before: Usage, now: Usage) -> Usage:
        """Add what one completion has cost since `before`. Returns `now`."""
        generated = now.completion_tokens - before.completion_tokens
        self.counted += Usage(0, generated, now.reasoning_tokens - before.reasoning_tokens)
        return now

    async def score(self, ids: Sequence[int], top: int = 0) -> tuple[list[float], list[TopLogprobs]]:
        raise InvalidRequest("a scripted sampler has no log-probabilities: use a model")

    async def certainty(self, ids: Sequence[int], first: int) -> float:
        raise InvalidRequest("a scripted sampler has no distributions: use a model")

    def gather(self, requests: int) -> None:
        """Nothing is held back here."""

    async def count(self, prompt: Conversation | tuple[int, ...]) -> int:
        return estimated_tokens(prompt)

    async def stats(self) -> None:
        return None

    async def close(self) -> None:
        self._closed = True

    def _check(self, request: Request) -> None:
        if self._closed:
            raise SamplerError(f"sampler '{self._name}' is closed: make a new one")
        check_request(request)
        if isinstance(request.prompt[0], int):
            raise InvalidRequest("a scripted sampler needs a conversation, not ids")
        refused = {
            "a floor on thinking": request.params.thinking.floor,
            "a confidence at which thinking stops": request.params.thinking.confidence,
            "stop_ids": request.params.stop_ids,
            "logit_bias": request.params.logit_bias,
            "frequency_penalty": request.params.frequency_penalty,
            "presence_penalty": request.params.presence_penalty,
            "repetition_penalty": request.params.repetition_penalty != 1,
            "repeats": request.params.repeats,
            "top_logprobs": request.params.top_logprobs,
            "effort": request.effort,
        }
        named = [name for name, value in refused.items() if value]
        if named:
            raise InvalidRequest(f"a scripted sampler cannot express: {', '.join(named)}")


def _completion(spoken: Spoken, prompt_tokens: int) -> Completion:
    usage = Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=spoken.completion_tokens,
        reasoning_tokens=spoken.reasoning_tokens,
    )
    return Completion(message=spoken.message(), stop_reason=spoken.stop_reason, usage=usage)
