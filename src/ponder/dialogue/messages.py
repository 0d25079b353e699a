"""Messages and their typed parts: reasoning is a separate part, never a substring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


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


@dataclass(frozen=True, slots=True)
class Text:
    """Visible text. `ids`: the tokens it was sampled as, rendered verbatim when present (token in, token out)."""

    text: str
    ids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Thinking, without its open and close tokens. `ids` as in `Text`.

    state: this is a state, in which the thinking before it was folded; `think_blocks` says which parts belong together.
    """

    text: str
    ids: tuple[int, ...] | None = None
    state: bool = False


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
    """What a tool answered. `id`: that of its call."""

    name: str
    content: str
    id: str | None = None


Part = Text | Reasoning | ToolCall | ToolResult


def is_state(part: Part) -> bool:
    """Whether `part` is a state of folded thinking."""
    return isinstance(part, Reasoning) and part.state


def think_blocks(parts: Sequence[Part]) -> list[range]:
    """The parts that make up each think block, in order: one `Reasoning`, or several that states tie together.

    A state continues the block of the `Reasoning` directly before it, and a `Reasoning` directly after a state
    continues the state's block. Two thoughts in a row are two blocks.
    """
    blocks: list[range] = []
    for number, part in enumerate(parts):
        if not isinstance(part, Reasoning):
            continue
        before = parts[number - 1] if number else None
        if isinstance(before, Reasoning) and (part.state or before.state):
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
        """The visible text, all `Text` parts joined."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def reasoning(self) -> str:
        """The thinking, all `Reasoning` parts joined, thoughts and states."""
        return "".join(part.text for part in self.parts if isinstance(part, Reasoning))


Conversation = Sequence[Message]
