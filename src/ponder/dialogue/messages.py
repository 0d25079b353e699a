"""Messages, their typed parts, and the rules that hold for them in every format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from ponder.types import FormatError


class Role(StrEnum):
    """Who speaks. DEVELOPER and SYSTEM both instruct; a conversation has at most one of either, first."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class ReasoningPolicy(StrEnum):
    """Which reasoning is rendered into a prompt.

    CURRENT_TURN: reasoning before the last user message is dropped, reasoning since it is kept (the o1 rule).
    ALL_TURNS: all of it is kept.
    """

    CURRENT_TURN = "current_turn"
    ALL_TURNS = "all_turns"


class Start(StrEnum):
    """The generation prompt to append.

    NONE: none. THINK: an assistant's turn with its thinking open. DIRECT: an assistant's turn without thinking.
    """

    NONE = "none"
    THINK = "think"
    DIRECT = "direct"


@dataclass(frozen=True, slots=True)
class Text:
    """Visible text.

    ids: the tokens it was sampled as, rendered verbatim when present (token in, token out).
    refusal: the assistant declines to answer, and its server marks the text so. Formats render it as any other text.
    """

    text: str
    ids: tuple[int, ...] | None = None
    refusal: bool = False


class LaneEnd(StrEnum):
    """How a voice of a council ended.

    LEFT: it left, and the others went on. JOINED: it ended the council. CUT: another ended it, or it was cut off.
    """

    LEFT = "left"
    JOINED = "joined"
    CUT = "cut"


@dataclass(frozen=True, slots=True)
class Voice:
    """What one voice of a council said, without the tokens that open and end its lane. `ids` as in `Text`."""

    text: str
    end: LaneEnd
    ids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Thinking, without its open and close tokens. `ids` as in `Text`.

    state: this is a state, in which the thinking before it was folded; `think_blocks` says which parts belong together.
    voices: this is a council (`Reasoning.council`), and `text` is what its voices said, one below the other.
    """

    text: str
    ids: tuple[int, ...] | None = None
    state: bool = False
    voices: tuple[Voice, ...] = ()

    @classmethod
    def council(cls, voices: Sequence[Voice]) -> Reasoning:
        return cls("\n".join(voice.text for voice in voices), voices=tuple(voices))


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The assistant asks for a tool. `arguments` is JSON text, kept as written.

    id: a handle that pairs call and result for the caller; it is checked, never rendered.
    ids: what was sampled between the call's open and close tokens, rendered verbatim when present.
    """

    name: str
    arguments: str
    id: str | None = None
    ids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool answered.

    id: that of its call.
    """

    name: str
    content: str
    id: str | None = None


Part = Text | Reasoning | ToolCall | ToolResult


def is_state(part: Part) -> bool:
    """Whether `part` is a state of folded thinking."""
    return isinstance(part, Reasoning) and part.state


def is_council(part: Part) -> bool:
    """Whether `part` is thinking in several voices."""
    return isinstance(part, Reasoning) and bool(part.voices)


def is_structured(part: Part) -> bool:
    """Whether `part` is thinking that is more than text: a state or a council."""
    return is_state(part) or is_council(part)


def think_blocks(parts: Sequence[Part]) -> list[range]:
    """The parts that make up each think block, in order: one `Reasoning`, or several that states and councils tie
    together.

    A state or a council continues the block of the `Reasoning` directly before it, and a `Reasoning` directly after
    one continues its block. Two thoughts in a row are two blocks.
    """
    blocks: list[range] = []
    for number, part in enumerate(parts):
        if not isinstance(part, Reasoning):
            continue
        before = parts[number - 1] if number else None
        if isinstance(before, Reasoning) and any(map(is_structured, (before, part))):
            blocks[-1] = range(blocks[-1].start, number + 1)
        else:
            blocks.append(range(number, number + 1))
    return blocks


@dataclass(frozen=True, slots=True)
class Message:
    """The parts of one turn of one speaker. `name` distinguishes speakers of one role."""

    role: Role
    parts: tuple[Part, ...]
    name: str | None = None

    @classmethod
    def system(cls, text: str) -> Message:
        return cls(Role.SYSTEM, (Text(text),))

    @classmethod
    def user(cls, text: str, name: str | None = None) -> Message:
        return cls(Role.USER, (Text(text),), name)

    @classmethod
    def assistant(cls, text: str, reasoning: str = "") -> Message:
        thought: tuple[Part, ...] = (Reasoning(reasoning),) if reasoning else ()
        return cls(Role.ASSISTANT, (*thought, Text(text)))

    @property
    def text(self) -> str:
        """The visible text, all `Text` parts joined, refusals included."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def refusal(self) -> str:
        """What of the visible text is marked as a refusal."""
        return "".join(part.text for part in self.parts if isinstance(part, Text) and part.refusal)

    @property
    def answer(self) -> str:
        """The visible text without what is marked as a refusal."""
        return "".join(part.text for part in self.parts if isinstance(part, Text) and not part.refusal)

    @property
    def reasoning(self) -> str:
        """The thinking, all `Reasoning` parts joined, thoughts and states."""
        return "".join(part.text for part in self.parts if isinstance(part, Reasoning))


Conversation = Sequence[Message]


# Rules of every format: which parts a message may carry, which reasoning is kept, how results pair with calls ---------

INSTRUCTING = (Role.SYSTEM, Role.DEVELOPER)
_ALLOWED: dict[Role, tuple[type[Part], ...]] = {
    Role.SYSTEM: (Text,),
    Role.DEVELOPER: (Text,),
    Role.USER: (Text,),
    Role.ASSISTANT: (Reasoning, Text, ToolCall),
    Role.TOOL: (ToolResult,),
}


def first_kept_reasoning(messages: Conversation, policy: ReasoningPolicy) -> int:
    """The index of the first message whose reasoning is rendered: all, or those after the last user message."""
    if policy is ReasoningPolicy.ALL_TURNS:
        return 0
    return max((index for index, message in enumerate(messages) if message.role is Role.USER), default=0)


def check_conversation(messages: Conversation, *, start: Start, train: bool, instructs_anywhere: bool = False) -> None:
    """Raises FormatError, naming the message, for a conversation that no format can express.

    instructs_anywhere: whether this format can express instructions after the first message.
    """
    for index, message in enumerate(messages):
        _check_message(index, message, instructs_anywhere)
    _check_pairing(messages)
    if train and start is not Start.NONE:
        raise FormatError(
            f"a training example takes no generation prompt, but start is {start.value!r}: use Start.NONE"
        )
    if train and (not messages or messages[-1].role is not Role.ASSISTANT):
        raise FormatError("a training example must end with an assistant message: drop what follows the last one")


def _check_message(index: int, message: Message, instructs_anywhere: bool) -> None:
    where = f"message {index} ({message.role.value})"
    if message.role in INSTRUCTING and index > 0 and not instructs_anywhere:
        raise FormatError(f"{where}: a system or developer message can only come first; merge it into the first one")
    if message.name == "":
        raise FormatError(f"{where}: the name is empty; leave it out (None)")
    for number, part in enumerate(message.parts):
        if not isinstance(part, _ALLOWED[message.role]):
            allowed = ", ".join(kind.__name__ for kind in _ALLOWED[message.role])
            raise FormatError(f"{where}, part {number}: a {type(part).__name__} cannot stand here; allowed: {allowed}")
        if isinstance(part, ToolCall | ToolResult) and not part.name:
            raise FormatError(f"{where}, part {number}: the tool's name is empty")
        if isinstance(part, Reasoning) and part.voices:
            _check_council(f"{where}, part {number}", part, message.parts[number + 1 : number + 2])


def _check_council(where: str, part: Reasoning, following: Sequence[Part]) -> None:
    if part.state or part.ids is not None or part != Reasoning.council(part.voices):
        raise FormatError(
            f"{where}: a council is what its voices said, and neither a state nor other text: use Reasoning.council"
        )
    ends = {voice.end for voice in part.voices}
    ended = LaneEnd.JOINED in ends or ends == {LaneEnd.LEFT}
    goes_on = following and isinstance(following[0], Reasoning) and following[0] != Reasoning("", following[0].ids)
    if not ended and goes_on:
        raise FormatError(
            f"{where}: thinking goes on after a council that has not ended: let a voice join, or all of them leave"
        )


def _check_pairing(messages: Conversation) -> None:
    """Call and result ids are never rendered: results answer calls in order, and ids that say otherwise are refused."""
    pending: list[ToolCall] = []
    for index, message in enumerate(messages):
        if message.role is not Role.TOOL:
            pending = [part for part in message.parts if isinstance(part, ToolCall)]
            continue
        for number, part in enumerate(message.parts):
            if not isinstance(part, ToolResult) or not pending:
                continue
            call = pending.pop(0)
            if call.id is not None and part.id is not None and call.id != part.id:
                raise FormatError(
                    f"message {index} (tool), part {number}: the result is for the call {part.id!r}, but "
                    f"the next call without a result is {call.id!r}: give results in the order of their "
                    "calls"
                )


def check_plain_thinking(family: str, messages: Conversation) -> None:
    """For formats without folding and councils. Raises FormatError naming message and part."""
    for index, message in enumerate(messages):
        for number, part in enumerate(message.parts):
            if is_structured(part):
                kind = "a state of folded thinking" if is_state(part) else "a council"
                raise FormatError(
                    f"message {index} ({message.role.value}), part {number}: {family} cannot express {kind}; "
                    "join the turn's thinking into one Reasoning, or use the ponder format"
                )


def check_result_names(family: str, messages: Conversation) -> None:
    """For formats that write no name with a result: it answers the next open call, so their names must agree."""
    pending: list[ToolCall] = []
    for index, message in enumerate(messages):
        if message.role is not Role.TOOL:
            pending = [part for part in message.parts if isinstance(part, ToolCall)]
        for number, part in enumerate(message.parts):
            if not isinstance(part, ToolResult):
                continue
            call = pending.pop(0) if pending else None
            if call is None or call.name != part.name:
                expected = f"answers {call.name!r}" if call else "answers no call"
                raise FormatError(
                    f"message {index} (tool), part {number}: {family} matches results to calls by their "
                    f"order, and this one {expected} (its name is {part.name!r}): give results in the "
                    "order of their calls"
                )
