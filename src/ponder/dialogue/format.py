"""The interface of a dialogue format: what it renders and parses to, the builder of ids, and fitting a window."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol, runtime_checkable

from ponder.dialogue.calls import CallSyntax
from ponder.dialogue.messages import (
    INSTRUCTING,
    Conversation,
    Message,
    Reasoning,
    ReasoningPolicy,
    Role,
    Start,
    Text,
    Voice,
)
from ponder.dialogue.tools import Tool
from ponder.tokenizer import Tokenizer
from ponder.types import PhaseTokens, WindowExceeded

CONTINUATION = "Wait"


class SpanKind(StrEnum):
    """What a run of rendered ids is."""

    HEADER = "header"  # opens a turn: role, name, and what a family writes around them
    TEXT = "text"
    OPEN = "open"  # the token that opens thinking
    REASONING = "reasoning"
    STATE = "state"  # a state of folded thinking, with the tokens that open and close it
    COUNCIL = "council"  # thinking in several voices, with its control tokens
    CLOSE = "close"  # the token that closes thinking
    CALL = "call"
    RESULT = "result"
    END = "end"  # closes a turn
    TOOLS = "tools"  # the tools declared in the first turn, which may be one put in for them (then of message 0)
    PROMPT = "prompt"  # the generation prompt


@dataclass(frozen=True, slots=True)
class Span:
    """`ids[begin:end]` of message `message_index` (for PROMPT: the number of messages), part `part_index` of it.

    sampled: these ids are the assistant's own, what it would have sampled; the supervised loss falls on them.
    """

    begin: int
    end: int
    message_index: int
    part_index: int | None
    kind: SpanKind
    sampled: bool = False


@dataclass(frozen=True, slots=True)
class DroppedReasoning:
    """Reasoning of one message that is left out.

    tokens: how many ids that saved, their control tokens included.
    """

    message_index: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as ids. The spans are in order, do not overlap and cover every id.

    dropped_reasoning: what the policy left out.
    folded_reasoning: what a later state of the same think block replaced.
    """

    ids: tuple[int, ...]
    spans: tuple[Span, ...]
    dropped_reasoning: tuple[DroppedReasoning, ...] = ()
    folded_reasoning: tuple[DroppedReasoning, ...] = ()

    def assistant_mask(self) -> tuple[bool, ...]:
        """One flag per id: True where the supervised loss falls.

        True on the assistant's reasoning, its close, the answer, calls and the end token; False on everything that
        a prompt brings: other speakers, the turn's header and the open token after it, and what an earlier context
        of folded thinking brought: a turn up to its last state.
        """
        mask = [False] * len(self.ids)
        for span in self.spans:
            if span.sampled:
                mask[span.begin : span.end] = [True] * (span.end - span.begin)
        return tuple(mask)

    def with_loss_on(self, message_index: int) -> Rendered:
        """The same, but the supervised loss falls on this message alone."""
        spans = (replace(s, sampled=s.sampled and s.message_index == message_index) for s in self.spans)
        return replace(self, spans=tuple(spans))


class ParseStatus(StrEnum):
    """How generated ids ended."""

    COMPLETE = "complete"  # the turn was closed, its grammar whole
    NO_END = "no_end"  # cut in the visible answer
    OPEN_THINK = "open_think"  # cut, or the turn closed, while thinking was open: there is no answer
    OPEN_CALL = "open_call"  # cut, or the turn closed, within a tool call, which stays as visible text
    STRAY_CONTROL = "stray_control"  # a control token stood where the grammar has none; it stays as spelled text


@dataclass(frozen=True, slots=True)
class Parsed:
    """A generated message and how it ended.

    stray: the positions of control ids that the grammar has no place for.
    """

    message: Message
    status: ParseStatus
    stray: tuple[int, ...] = ()


@runtime_checkable
class Format(Protocol):
    """How conversations become ids, and generated ids messages."""

    @property
    def name(self) -> str: ...

    @property
    def instructs_anywhere(self) -> bool:
        """Whether instructions can stand after the first message."""
        ...

    @property
    def has_developer(self) -> bool:
        """Whether a developer's instructions can be told from the system's."""
        ...

    @property
    def phase_tokens(self) -> PhaseTokens: ...

    @property
    def calls(self) -> CallSyntax | None:
        """How a call is written between its open and close tokens. None: the format has no calls."""
        ...

    def render(
        self,
        messages: Conversation,
        *,
        policy: ReasoningPolicy = ReasoningPolicy.CURRENT_TURN,
        start: Start = Start.NONE,
        train: bool = False,
        tools: Sequence[Tool] = (),
    ) -> Rendered:
        """The conversation as ids, then the generation prompt of `start`.

        Folded thinking is rendered as an engine holds it after the last fold.

        train: a supervised example; the conversation must end with the assistant and take no generation prompt.
        tools: declared before everything that is said.
        Raises FormatError for what the format cannot express.
        """
        ...

    def contexts(
        self,
        messages: Conversation,
        *,
        policy: ReasoningPolicy = ReasoningPolicy.CURRENT_TURN,
        tools: Sequence[Tool] = (),
    ) -> tuple[Rendered, ...]:
        """The last message as the contexts it was thought in, a supervised example each: n + 1 where it holds n states.

        It must be the assistant's.

        All but the last end with the fold of a state. The loss falls on what the last message brings new in each, so
        on each id that was sampled once. Raises as `render`.
        """
        ...

    def parse(self, ids: Sequence[int], *, start: Start, declared: Collection[str] = ()) -> Message:
        """The message of ids that were generated after the prompt of `start`. Never raises on sampled ids.

        declared: names of tools; a call is one of theirs from its name on, also where it is cut off or broken. Any
        other call must be whole, or it is text.
        """
        ...

    def parse_generated(self, ids: Sequence[int], *, start: Start, declared: Collection[str] = ()) -> Parsed:
        """`parse`, with how the ids ended."""
        ...


# Into the window: nothing is cut silently -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fitted:
    """A prompt that fits, the messages it holds, and the messages that had to go, oldest first.

    Indices in `rendered` count `messages`.
    """

    rendered: Rendered
    messages: tuple[Message, ...]
    dropped: tuple[Message, ...] = ()


def fit_to_window(
    messages: Conversation,
    format: Format,
    window: int,
    reserve: int = 0,
    *,
    drop_oldest: bool = False,
    policy: ReasoningPolicy = ReasoningPolicy.CURRENT_TURN,
    start: Start = Start.NONE,
    tools: Sequence[Tool] = (),
) -> Fitted:
    """Render `messages` into at most `window - reserve` ids; `reserve` is the room kept for the answer.

    tools: declared in any case.
    drop_oldest: drop whole turns (a user message and everything up to the next one) from the oldest on, never the
    system message and never the turn of the last user message. Raises WindowExceeded with the counts when the
    conversation does not fit, or would not even so.
    """
    room = window - reserve
    head = 1 if messages and messages[0].role in INSTRUCTING else 0

    def cut_at(cut: int) -> Fitted:
        kept = (*messages[:head], *messages[cut:])
        return Fitted(format.render(kept, policy=policy, start=start, tools=tools), kept, tuple(messages[head:cut]))

    def fits(fitted: Fitted) -> bool:
        return len(fitted.rendered.ids) <= room

    fitted = cut_at(head)
    cuts = list(_cuts(messages, head)) if drop_oldest and not fits(fitted) else []
    if cuts:
        fitted = cut_at(cuts[-1])
    if fits(fitted):
        # The first cut from which on it fits, in few renderings: each later one leaves less.
        first = bisect_left(cuts, True, hi=max(len(cuts) - 1, 0), key=lambda cut: fits(cut_at(cut)))
        return cut_at(cuts[first]) if cuts else fitted
    rendered, dropped = fitted.rendered, len(fitted.dropped)
    advice = "shorten it, or let the oldest turns be dropped" if not drop_oldest else "shorten the last turn"
    left_out = f" after dropping the oldest {dropped} messages" if dropped else ""
    raise WindowExceeded(
        f"the conversation takes {len(rendered.ids)} tokens{left_out}, but the window of {window} leaves room for "
        f"{max(room, 0)} ({reserve} are reserved for the answer): {advice}",
        prompt_tokens=len(rendered.ids),
        window=window,
    )


def _cuts(messages: Conversation, head: int) -> Iterator[int]:
    """Where the kept part may begin: after the system message, then at each later user message."""
    yield head
    yield from (index for index in range(head + 1, len(messages)) if messages[index].role is Role.USER)


# For the formats ------------------------------------------------------------------------------------------------------


def verbatim_ids(tokenizer: Tokenizer, part: Text | Reasoning | Voice) -> tuple[int, ...] | None:
    """The ids a part was sampled as, when they may stand in a prompt as they are: ordinary ids that decode to its text.

    None otherwise: the text was edited, comes from another vocabulary, or a control token was sampled into it.
    """
    if part.ids is None or any(map(tokenizer.is_control, part.ids)) or tokenizer.decode(part.ids) != part.text:
        return None
    return part.ids


@dataclass(frozen=True, slots=True)
class _Mark:
    """Where a span's label starts to hold."""

    message_index: int
    part_index: int | None
    kind: SpanKind
    sampled: bool


class Builder:
    """Collects control ids, text and verbatim ids into `Rendered`.

    Neighbouring texts are encoded together, as one string, because merges cross the seams (the reference tokenizers
    see whole strings); each id belongs to the text in which it begins. Text can never yield a control id.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._spans: list[Span] = []
        self._run: list[tuple[str, _Mark]] = []
        self.dropped: list[DroppedReasoning] = []
        self.folded: list[DroppedReasoning] = []
        self._mark = _Mark(0, None, SpanKind.HEADER, False)

    def mark(self, message_index: int, part_index: int | None, kind: SpanKind, *, sampled: bool = False) -> Builder:
        """What follows belongs to this span."""
        self._mark = _Mark(message_index, part_index, kind, sampled)
        return self

    def control(self, *names: str) -> Builder:
        self.seam()
        self._append([self._tokenizer.control_id(name) for name in names], self._mark)
        return self

    def text(self, text: str) -> Builder:
        if text:
            self._run.append((text, self._mark))
        return self

    def ids(self, ids: tuple[int, ...]) -> Builder:
        self.seam()
        self._append(list(ids), self._mark)
        return self

    def seam(self) -> Builder:
        """No merge crosses this point."""
        run, self._run = self._run, []
        if len(run) == 1:
            self._append(self._tokenizer.encode(run[0][0]), run[0][1])
        elif run:
            ids, begins = self._tokenizer.encode_with_offsets("".join(text for text, _ in run))
            at, limit = 0, 0
            for text, mark in run:
                limit += len(text)
                first = at
                while at < len(ids) and begins[at] < limit:
                    at += 1
                self._append(ids[first:at], mark)
        return self

    def rendered(self) -> Rendered:
        self.seam()
        return Rendered(tuple(self._ids), tuple(self._spans), tuple(self.dropped), tuple(self.folded))

    def __len__(self) -> int:
        self.seam()
        return len(self._ids)

    def _append(self, ids: list[int], mark: _Mark) -> None:
        if not ids:
            return
        begin = len(self._ids)
        self._ids += ids
        previous = self._spans[-1] if self._spans else None
        label = (mark.message_index, mark.part_index, mark.kind, mark.sampled)
        if previous and label == (previous.message_index, previous.part_index, previous.kind, previous.sampled):
            self._spans[-1] = Span(previous.begin, len(self._ids), *label)
        else:
            self._spans.append(Span(begin, len(self._ids), *label))
