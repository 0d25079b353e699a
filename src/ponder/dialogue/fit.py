"""Fitting a conversation into the context window: nothing is cut silently."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ponder.dialogue.format import Format
from ponder.dialogue.messages import Conversation, Message, ReasoningPolicy, Role
from ponder.dialogue.rendered import Rendered, Start
from ponder.dialogue.rules import INSTRUCTING
from ponder.dialogue.tools import Tool
from ponder.types import WindowExceeded


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
