"""Fitting the window: counts in the error, whole oldest turns dropped, nothing silent."""

import pytest

from ponder.dialogue import (
    Message,
    PonderFormat,
    ReasoningPolicy,
    Role,
    Start,
    ToolCall,
    ToolResult,
    fit_to_window,
    train_tokenizer,
)
from ponder.types import WindowExceeded

FORMAT = PonderFormat(train_tokenizer([], 320))
SYSTEM = Message.system("s")
TURNS = [
    *(Message.user("old"), Message.assistant("a")),
    *(Message.user("calls"), Message(Role.ASSISTANT, (ToolCall("f", "{}"),))),
    *(Message(Role.TOOL, (ToolResult("f", "1"),)), Message.assistant("b")),
    Message.user("last"),
]


def size(messages: list[Message], start: Start = Start.NONE) -> int:
    return len(FORMAT.render(messages, start=start).ids)


def test_what_fits_is_rendered_as_it_is() -> None:
    fitted = fit_to_window(TURNS, FORMAT, size(TURNS, Start.THINK), start=Start.THINK)
    assert fitted.rendered == FORMAT.render(TURNS, start=Start.THINK)
    assert fitted.messages == tuple(TURNS)
    assert fitted.dropped == ()


def test_over_the_window_is_an_error_with_the_counts() -> None:
    with pytest.raises(WindowExceeded, match=r"takes \d+ tokens.* 10 .*room for 6 \(4 are reserved") as caught:
        fit_to_window(TURNS, FORMAT, 10, reserve=4)
    assert caught.value.prompt_tokens == size(TURNS)
    assert caught.value.window == 10


def test_the_reserve_counts() -> None:
    window = size(TURNS)
    fit_to_window(TURNS, FORMAT, window)
    with pytest.raises(WindowExceeded):
        fit_to_window(TURNS, FORMAT, window, reserve=1)


@pytest.mark.parametrize("head", [[], [SYSTEM]], ids=["no system message", "system message"])
def test_the_oldest_whole_turns_are_dropped_and_reported(head: list[Message]) -> None:
    messages = [*head, *TURNS]
    one_less = fit_to_window(messages, FORMAT, size(messages) - 1, drop_oldest=True)
    assert one_less.messages == (*head, *TURNS[2:])
    assert one_less.dropped == tuple(TURNS[:2])
    assert one_less.rendered == FORMAT.render(one_less.messages)
    only_last = fit_to_window(messages, FORMAT, size([*head, TURNS[-1]]), drop_oldest=True)
    assert only_last.messages == (*head, TURNS[-1])
    assert only_last.dropped == tuple(TURNS[:-1])


def test_no_more_is_dropped_than_needed() -> None:
    for window in range(size([SYSTEM, TURNS[-1]]), size([SYSTEM, *TURNS]) + 1):
        fitted = fit_to_window([SYSTEM, *TURNS], FORMAT, window, drop_oldest=True)
        assert len(fitted.rendered.ids) <= window
        assert (SYSTEM, *fitted.dropped, *fitted.messages[1:]) == (SYSTEM, *TURNS)
        kept_longer = [size([SYSTEM, *TURNS[cut:]]) for cut in (0, 2, 6) if cut < len(fitted.dropped)]
        assert all(longer > window for longer in kept_longer)


def test_the_last_user_turn_is_never_dropped() -> None:
    with pytest.raises(WindowExceeded, match=r"dropping the oldest 6 messages.*shorten the last turn") as caught:
        fit_to_window([SYSTEM, *TURNS], FORMAT, 5, drop_oldest=True)
    assert caught.value.prompt_tokens == size([SYSTEM, TURNS[-1]])


def test_a_conversation_without_a_user_message_is_not_cut() -> None:
    with pytest.raises(WindowExceeded):
        fit_to_window([SYSTEM, Message.assistant("a long monologue")], FORMAT, 5, drop_oldest=True)


def test_the_policy_counts_before_anything_is_dropped() -> None:
    messages = [Message.user("a"), Message.assistant("b", "a long thought"), Message.user("c")]
    window = size(messages)
    assert fit_to_window(messages, FORMAT, window, drop_oldest=True).dropped == ()
    with_all = fit_to_window(messages, FORMAT, window, drop_oldest=True, policy=ReasoningPolicy.ALL_TURNS)
    assert with_all.dropped == tuple(messages[:2])


def test_an_empty_conversation_fits() -> None:
    assert fit_to_window([], FORMAT, 0).rendered.ids == ()


def test_many_turns_are_rendered_few_times() -> None:
    """Of a conversation of thousands of turns not every cut is rendered."""
    rendered = []

    class Counting(PonderFormat):
        def render(self, messages, **options):
            rendered.append(len(messages))
            return super().render(messages, **options)

    format = Counting(train_tokenizer([], 320))
    turns = [message for n in range(500) for message in (Message.user(f"q{n}"), Message.assistant(f"a{n}"))]
    fitted = fit_to_window([*turns, Message.user("last")], format, 100, drop_oldest=True)
    assert len(rendered) < 15
    one_more = [*fitted.dropped[-2:], *fitted.messages]
    assert len(fitted.rendered.ids) <= 100 < len(format.render(one_more).ids)
