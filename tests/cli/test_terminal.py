"""What a person sees on a terminal, and what a program reads from a pipe."""

from __future__ import annotations

import io

import pytest

from ponder.cli.terminal import Screen, bill_text
from ponder.types import Phase, Usage


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")


PIECES = [(Phase.THINK, "2 + 2"), (Phase.THINK, " = 4"), (Phase.ANSWER, "4"), (Phase.ANSWER, "!"), (Phase.THINK, " ")]


def shown(stream: io.StringIO, **options: bool) -> str:
    screen = Screen(stream, **options)
    for phase, text in PIECES:
        screen.piece(phase, text)
    screen.end()
    return stream.getvalue()


def test_a_blank_line_separates_thinking_from_the_answer() -> None:
    assert shown(io.StringIO()) == "2 + 2 = 4\n\n4!\n"


def test_thinking_is_dimmed_on_a_terminal() -> None:
    assert shown(Terminal()) == "\x1b[2m2 + 2\x1b[0m\x1b[2m = 4\x1b[0m\n\n4!\n"


def test_hidden_reasoning_leaves_the_answer_alone() -> None:
    assert shown(io.StringIO(), show_reasoning=False) == "4!\n"


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in shown(Terminal())


def test_a_model_cannot_command_the_terminal() -> None:
    stream = Terminal()
    Screen(stream).piece(Phase.ANSWER, "a\x1b[2Jb\x07\x9b\n\tc")
    assert stream.getvalue() == "a␛[2Jb␇�\n\tc"


@pytest.mark.parametrize("cut", [False, True])
def test_voices_that_speak_at_once_are_shown_below_each_other(cut: bool) -> None:
    stream = io.StringIO()
    screen = Screen(stream)
    screen.piece(Phase.THINK, "split")
    for voice, text in ((0, "1"), (1, "a"), (0, "2"), (1, "b")):
        screen.piece(Phase.THINK, text, voice)
    if not cut:
        screen.piece(Phase.ANSWER, "ok")
    screen.end()
    assert stream.getvalue() == "split\n[1] 12\n[2] ab\n" + ("\n" if cut else "\n\nok\n")


def test_the_bill_adds_up() -> None:
    usage = Usage(prompt_tokens=10, completion_tokens=50, reasoning_tokens=42, cached_tokens=4)
    assert bill_text(usage) == "prompt 10 (4 cached) + thinking 42 + answer 8 tokens"
    together = Usage(prompt_tokens=10, completion_tokens=50, reasoning_tokens=42, parallel_tokens=20)
    assert bill_text(together) == "prompt 10 + thinking 42 + answer 8 tokens in 30 steps"
