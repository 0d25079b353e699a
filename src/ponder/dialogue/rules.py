"""Rules of every format: which parts a message may carry, which reasoning is kept, how results pair with calls."""

from __future__ import annotations

from ponder.dialogue.messages import (
    Conversation,
    Message,
    Part,
    Reasoning,
    ReasoningPolicy,
    Role,
    Text,
    ToolCall,
    ToolResult,
    is_state,
)
from ponder.dialogue.rendered import Start
from ponder.types import FormatError

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


def check_conversation(messages: Conversation, *, start: Start, train: bool) -> None:
    """Raises FormatError, naming the message, for a conversation that no format can express."""
    for index, message in enumerate(messages):
        _check_message(index, message)
    _check_pairing(messages)
    if train and start is not Start.NONE:
        raise FormatError(
            f"a training example takes no generation prompt, but start is {start.value!r}: use Start.NONE"
        )
    if train and (not messages or messages[-1].role is not Role.ASSISTANT):
        raise FormatError("a training example must end with an assistant message: drop what follows the last one")


def _check_message(index: int, message: Message) -> None:
    where = f"message {index} ({message.role.value})"
    if message.role in INSTRUCTING and index > 0:
        raise FormatError(f"{where}: a system or developer message can only come first; merge it into the first one")
    if message.name == "":
        raise FormatError(f"{where}: the name is empty; leave it out (None)")
    for number, part in enumerate(message.parts):
        if not isinstance(part, _ALLOWED[message.role]):
            allowed = ", ".join(kind.__name__ for kind in _ALLOWED[message.role])
            raise FormatError(f"{where}, part {number}: a {type(part).__name__} cannot stand here; allowed: {allowed}")
        if isinstance(part, ToolCall | ToolResult) and not part.name:
            raise FormatError(f"{where}, part {number}: the tool's name is empty")


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
                    f"message {index} (tool), part {number}: the result has id {part.id!r}, but the next call to be "
                    f"answered has {call.id!r}; give results in the order of their calls"
                )


def check_no_states(family: str, messages: Conversation) -> None:
    """For formats without folding. Raises FormatError naming message and part."""
    for index, message in enumerate(messages):
        for number, part in enumerate(message.parts):
            if is_state(part):
                raise FormatError(
                    f"message {index} ({message.role.value}), part {number}: {family} cannot express a state of folded "
                    "thinking; join the turn's thinking into one Reasoning, or use the ponder format"
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
                    f"message {index} (tool), part {number}: {family} cannot name a result; where it stands it "
                    f"{expected}, but its name is {part.name!r}: give results in the order of their calls"
                )
