"""What is asked, and how: the one request that every front end builds and every strategy takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from fractions import Fraction
from typing import Any, TypedDict, Unpack, cast

from ponder.dialogue.messages import Conversation, Message, ReasoningPolicy, Role
from ponder.dialogue.tools import Tool
from ponder.sampler.protocol import (
    Capabilities,
    Grammar,
    NamedTool,
    NextTurn,
    ParallelCalls,
    Request,
    Sampler,
    ToolChoice,
    Truncation,
)
from ponder.tasks.protocol import Grade, MessageVerifier
from ponder.types import Effort, InvalidRequest, Phase, SamplingParams, ThinkingLimits

Verifier = Callable[[str], Grade] | MessageVerifier
Same = Callable[[str, str], bool]
Asked = str | Message | Sequence[Message]


class Judge(StrEnum):
    """A judge that is not another model. SELF: the one that answers judges its own answers."""

    SELF = "self"


LEAST_SECONDS = 1e-3  # what a request is given whose deadline is now


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One question and how to answer it. It never holds the gold answer.

    prompt: a conversation, or ids that are rendered already.
    n: how many answers the caller wants to see; only a strategy whose answer is one sample takes more than 1.
    effort: how long to think, as a word; None: medium, or an endpoint's own default.
    thinking: the same as limits in tokens, over all contexts of a folded thought.
    min_thinking: THINK tokens before which the thinking may not close (s1, arXiv 2501.19393); not for a direct answer.
    max_voices: the most voices of a council that the thinking may open; None: as many as the model was taught.
    answer_room: tokens kept for the answer; None: an eighth of the window, at most half of `max_tokens`.
    max_tokens: of each completion, thinking included; None: as many as the window holds.
    temperature, top_p: None: the strategy's own and 1, or an endpoint's own defaults.
    top_k, min_p, logit_bias, frequency_penalty, presence_penalty, repetition_penalty, stop_ids, top_logprobs: see
        `SamplingParams`.
    repeats: see `SamplingParams`; None: what the model's own files say, which for most is 0.
    seed: of the first sample; sample i uses seed + i. None: drawn from the operating system.
    stop: strings at which a visible answer ends.
    logprobs: whether the pieces of a streamed answer come with their tokens.
    grammar: what every visible answer must match; thinking is free.
    tools, tool_choice, parallel_calls: see `ponder.sampler.protocol.Request`.
    policy, truncation: how the conversation becomes a prompt.
    deadline: on the clock of `time.monotonic`; what is there then is the answer.
    next_turn: what is known of the prompt after this one.
    tenant: whose cached prefixes may be shared.
    start: the phase in which a prompt of ids ends.
    same: whether two answers agree, for strategies that vote; None: the same text but for white space, or one number.
    verifier: grades an answer, for strategies that choose by a check: a function of the visible text, or what reads the
        conversation and the thinking too, such as a reward model.
    judge: a model that does where there is no verifier; each judgement is a sample more.
    """

    prompt: Conversation | tuple[int, ...]
    n: int = 1
    effort: Effort | None = None
    thinking: ThinkingLimits | None = None
    min_thinking: int = 0
    max_voices: int | None = None
    answer_room: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    logit_bias: tuple[tuple[int, float], ...] = ()
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    repeats: int | None = None
    top_logprobs: int = 0
    logprobs: bool = False
    grammar: Grammar | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | NamedTool = ToolChoice.AUTO
    parallel_calls: ParallelCalls = ParallelCalls.MANY
    policy: ReasoningPolicy = ReasoningPolicy.CURRENT_TURN
    truncation: Truncation = Truncation.DISABLED
    deadline: float | None = None
    next_turn: NextTurn = NextTurn.NONE
    tenant: str = ""
    start: Phase = Phase.THINK
    same: Same | None = None
    verifier: Verifier | None = None
    judge: Sampler | Judge | None = None

    @property
    def is_judged(self) -> bool:
        """Whether a model grades its answers."""
        return self.verifier is None and self.judge is not None

    @classmethod
    def of(cls, asked: Asked, **settings: Unpack[AskSettings]) -> Ask:
        """An ask in the words of the public calls. `asked` is a text, a message or messages. An effort may be given by
        its name, a cap by its number, one stop string without a tuple around it. Raises InvalidRequest."""
        return cls(prompt=_conversation(asked), **_typed(settings))

    def override(self, **settings: Unpack[AskSettings]) -> Ask:
        """This ask with other settings. A new effort replaces limits in tokens, and the other way round."""
        typed = _typed(settings)
        if typed.keys() & {"effort", "thinking"}:
            typed = {"effort": None, "thinking": None} | typed
        return replace(self, **typed)

    def adding(self, words: str) -> Ask:
        """This ask with a paragraph after its last question. Raises InvalidRequest for a prompt of ids."""
        if isinstance(self.prompt[0], int):
            raise InvalidRequest("words can be added to a conversation only (ids were given): give messages")
        *before, last = conversation = cast(Conversation, self.prompt)
        if last.role is not Role.USER:
            return replace(self, prompt=(*conversation, Message.user(words)))
        return replace(self, prompt=(*before, Message.user(f"{last.text}\n\n{words}", last.name)))

    def request(
        self,
        capabilities: Capabilities,
        *,
        n: int,
        temperature: float | None = None,
        max_tokens: int | None = None,
        deadline: float | None = None,
    ) -> Request:
        """What a sampler is asked for `n` samples.

        temperature: where the ask leaves it open; None: greedy, or an endpoint's own default.
        max_tokens: the share of a budget, beside the ask's own limit.
        deadline: the earlier of the ask's and a budget's.
        """
        max_tokens = min((each for each in (self.max_tokens, max_tokens) if each is not None), default=None)
        thinking, room, max_tokens = self._limits(capabilities, max_tokens)
        temperature = temperature if self.temperature is None else self.temperature
        said = {"temperature": temperature, "top_p": self.top_p, "answer_room": self.answer_room}
        return Request(
            prompt=self.prompt,
            params=SamplingParams(
                max_tokens=max_tokens,
                temperature=0.0 if temperature is None else temperature,
                top_k=self.top_k,
                top_p=1.0 if self.top_p is None else self.top_p,
                min_p=self.min_p,
                seed=self.seed,
                stop_ids=self.stop_ids,
                thinking=thinking,
                answer_room=room,
                logit_bias=self.logit_bias,
                frequency_penalty=self.frequency_penalty,
                presence_penalty=self.presence_penalty,
                repetition_penalty=self.repetition_penalty,
                repeats=capabilities.repeats if self.repeats is None else self.repeats,
                top_logprobs=self.top_logprobs,
            ),
            n=n,
            stop=self.stop,
            policy=self.policy,
            truncation=self.truncation,
            start=self.start,
            effort=None if capabilities.exact or self.thinking is not None else self.effort,
            grammar=self.grammar,
            tools=self.tools,
            tool_choice=self.tool_choice,
            parallel_calls=self.parallel_calls,
            logprobs=self.logprobs,
            seconds=None if deadline is None else max(LEAST_SECONDS, deadline - time.monotonic()),
            next_turn=self.next_turn if n == 1 else NextTurn.NONE,
            tenant=self.tenant,
            unsaid=frozenset(name for name, value in said.items() if value is None),
        )

    def _limits(self, capabilities: Capabilities, max_tokens: int | None) -> tuple[ThinkingLimits, int, int | None]:
        """(limits on thinking, room for the answer, max_tokens). Only the effort's word goes to a sampler that keeps no
        exact limits. Thoughts that fold may be longer than the window, so then it is no longer the limit."""
        window, longest = capabilities.window, capabilities.thinking_tokens
        thinking = self.thinking
        if thinking is None:
            thinking = ThinkingLimits() if window is None else limits(self.effort or Effort.MEDIUM, window, longest)
        if self.min_thinking and thinking.cap != 0:
            thinking = replace(thinking, floor=max(thinking.floor, self.min_thinking))
        thinking = replace(thinking, voices=self._voices(capabilities, thinking))
        room = self.answer_room
        if room is None:
            room = 0 if thinking.cap == 0 or window is None else answer_room(window, max_tokens)
        folds = self.thinking is not None or longest is not None
        if folds and thinking.cap and max_tokens is None and window is not None:
            max_tokens = max(thinking.cap + room, window)
        return thinking, room, max_tokens

    def _voices(self, capabilities: Capabilities, thinking: ThinkingLimits) -> int | None:
        """The most voices of a council; None: as many as the model was taught. Raises InvalidRequest for more."""
        if thinking.cap == 0 and (self.max_voices or 0) > 1:
            raise InvalidRequest(f"max_voices must be left out where there is no thinking (got {self.max_voices})")
        if self.max_voices is None:
            return thinking.voices
        if not 1 <= self.max_voices <= max(1, capabilities.voices):
            taught = f"at most {capabilities.voices}" if capabilities.voices else "no"
            raise InvalidRequest(
                f"the model was taught to think in {taught} voices together (got max_voices={self.max_voices}): give "
                "fewer, or let voices speak in turns, council(how='turns')"
            )
        return self.max_voices


class AskSettings(TypedDict, total=False):
    """The fields of `Ask` as the public calls take them; `None` says nothing."""

    n: int
    effort: Effort | str | None
    thinking: ThinkingLimits | int | None
    min_thinking: int
    max_voices: int | None
    answer_room: int | None
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int
    min_p: float
    seed: int | None
    stop: str | Sequence[str]
    stop_ids: Sequence[int]
    logit_bias: Sequence[tuple[int, float]]
    frequency_penalty: float
    presence_penalty: float
    repetition_penalty: float
    repeats: int | None
    top_logprobs: int
    logprobs: bool
    grammar: Grammar | None
    tools: Sequence[Tool]
    tool_choice: ToolChoice | NamedTool
    parallel_calls: ParallelCalls
    policy: ReasoningPolicy
    truncation: Truncation
    deadline: float | None
    next_turn: NextTurn
    tenant: str
    start: Phase
    same: Same | None
    verifier: Verifier | None
    judge: Sampler | Judge | str | None


def checked(settings: AskSettings) -> AskSettings:
    """Settings in the types of `Ask`, for a strategy to keep. Raises InvalidRequest."""
    return cast(AskSettings, _typed(settings))


def _typed(settings: AskSettings) -> dict[str, Any]:
    """Settings as fields of `Ask`. Raises InvalidRequest, TypeError for a name that is not a setting."""
    typed: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
    unknown = typed.keys() - _NAMES
    if unknown:
        raise TypeError(f"there is no setting {min(unknown)!r}: there are {', '.join(sorted(_NAMES))}")
    if {"effort", "thinking"} <= typed.keys():
        raise InvalidRequest("effort and thinking both say how long to think: give an effort, or thinking in tokens")
    if "effort" in typed:
        typed["effort"] = parse_effort(typed["effort"])
    if isinstance(typed.get("thinking"), int):
        typed["thinking"] = ThinkingLimits(cap=typed["thinking"])
    if isinstance(typed.get("stop"), str):
        typed["stop"] = (typed["stop"],)
    if isinstance(typed.get("judge"), str):
        typed["judge"] = _judge(typed["judge"])
    for name in ("stop", "stop_ids", "logit_bias", "tools"):
        if name in typed:
            typed[name] = tuple(typed[name])
    return typed


def _judge(name: str) -> Judge:
    try:
        return Judge(name)
    except ValueError:
        raise InvalidRequest(f"judge must be a sampler, or {Judge.SELF.value!r} (got {name!r})") from None


_NAMES = frozenset(field.name for field in fields(Ask)) - {"prompt"}


def _conversation(asked: Asked) -> Conversation:
    if isinstance(asked, str):
        return (Message.user(asked),)
    if isinstance(asked, Message):
        return (asked,)
    messages = tuple(asked)
    if not messages or not all(isinstance(each, Message) for each in messages):
        raise InvalidRequest(f"a question must be a text, a Message, or a list of at least one Message (got {asked!r})")
    return messages


# Effort: a word for the caller, exact token counts for the engine -----------------------------------------------------

FRACTIONS = {
    Effort.NONE: Fraction(0),
    Effort.MINIMAL: Fraction(1, 32),
    Effort.LOW: Fraction(1, 8),
    Effort.MEDIUM: Fraction(1, 2),
    Effort.HIGH: Fraction(1),
}
"""The share that thinking may take of the window less the answer's room, or of what a model that folds was made for."""

ANSWER_SHARE = Fraction(1, 8)
"""The share of the window that is kept for the answer."""


def parse_effort(text: str) -> Effort:
    """Raises InvalidRequest that lists the"""
    try:
        return Effort(text)
    except ValueError:
        raise InvalidRequest(f"there is no effort {text!r}: choose {', '.join(Effort)}") from None


def answer_room(window: int, max_tokens: int | None = None) -> int:
    """Tokens kept for the answer: an eighth of the window, at most half of `max_tokens`."""
    room = int(window * ANSWER_SHARE)
    return room if max_tokens is None else min(room, max_tokens // 2)


def limits(effort: Effort | str, window: int, longest: int | None = None) -> ThinkingLimits:
    """The cap of an effort in a window of `window` tokens: its share (`FRACTIONS`) of what the answer's room leaves.

    longest: the thinking that a model which folds its thoughts was made for; the share is of that instead.

    "none" is 0, a direct prompt; any other effort has at least one token, the close.
    """
    effort = parse_effort(effort)
    most = window - answer_room(window) if longest is None else longest
    return ThinkingLimits(cap=0 if effort is Effort.NONE else max(1, int(most * FRACTIONS[effort])))
