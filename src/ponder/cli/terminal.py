"""What a person sees: colours where the stream is a terminal, thinking dimmed and told apart from the answer."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from ponder.types import Phase, StopReason, Usage

DIM, BOLD, GREEN, RED, CYAN = "2", "1", "32", "31", "36"

CUT_OFF = {
    StopReason.LENGTH: "the token limit or the context window was reached",
    StopReason.REPEATED: "the model repeated itself",
}
"""Why an answer that is not whole ended."""

# A model's text must not command the terminal: control characters, but for line breaks and tabs, are shown, not sent.
HARMLESS = dict.fromkeys(range(0x7F, 0xA0), 0xFFFD) | {
    code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"
}


class Screen:
    """Writes text of the two phases to a stream as it arrives."""

    def __init__(self, stream: TextIO | None = None, *, show_reasoning: bool = True) -> None:
        self.stream = stream or sys.stdout
        self.colours = self.stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self.show_reasoning = show_reasoning
        self._phase: Phase | None = None
        self._lanes: dict[int, str] = {}  # what each voice of the council that is open has said

    def paint(self, text: str, style: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if self.colours and text else text

    def line(self, text: str = "", style: str | None = None) -> None:
        print(self.paint(text, style) if style else text, file=self.stream, flush=True)

    def piece(self, phase: Phase, text: str, voice: int | None = None) -> None:
        """A piece of a stream. A blank line separates the thinking from what follows it. Voices that speak at once are
        shown below each other, once they are done.

        The very end of the thinking (white space, half a character) may come after the answer has begun: left out.
        """
        if voice is not None:
            self._lanes[voice] = self._lanes.get(voice, "") + text
            return
        self._end_council()
        if phase is Phase.THINK and (not self.show_reasoning or self._phase is Phase.ANSWER):
            return
        if self._phase is Phase.THINK and phase is not Phase.THINK:
            self.stream.write("\n\n")
        self._phase = phase
        shown = text.translate(HARMLESS) if self.stream.isatty() else text
        self.stream.write(self.paint(shown, DIM) if phase is Phase.THINK else shown)
        self.stream.flush()

    def _end_council(self) -> None:
        lanes, self._lanes = self._lanes, {}
        for voice, said in sorted(lanes.items()):
            self.piece(Phase.THINK, f"\n[{voice + 1}] {said}" + "\n" * (voice == max(lanes)))

    def end(self) -> None:
        """The stream is over: close its last line."""
        self._end_council()
        if self._phase is not None:
            self.line()
        self._phase = None


def bill_text(usage: Usage) -> str:
    """The token bill in words."""
    answer = usage.completion_tokens - usage.reasoning_tokens
    prompt = f"prompt {usage.prompt_tokens}" + (f" ({usage.cached_tokens} cached)" if usage.cached_tokens else "")
    steps = f" in {usage.steps} steps" if usage.parallel_tokens else ""
    return f"{prompt} + thinking {usage.reasoning_tokens} + answer {answer} tokens{steps}"
