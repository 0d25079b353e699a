"""`ponder chat`: several turns, the thinking shown as it comes, and what each turn kept and discarded."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from ponder.cli.options import add_asking, load_reasoner, settings
from ponder.cli.terminal import CUT_OFF, DIM, Screen
from ponder.types import Effort, PonderError

if TYPE_CHECKING:
    from ponder.think import Reasoner, RunSettings
    from ponder.think.conversation import TurnAccount

NAME = "chat"
HELP = "a conversation: /effort LEVEL, /reset and /quit are its commands"
COMMANDS = "/effort none|minimal|low|medium|high, /reset, /quit"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_asking(parser)
    parser.add_argument("--system", metavar="TEXT", help="instructions for the whole conversation")
    parser.add_argument("--hide-reasoning", action="store_true", help="show answers only")


def run(args: argparse.Namespace) -> int:
    from ponder.think import parse_strategy

    choices = settings(args)
    choices["strategy"] = parse_strategy(args.strategy)  # a mistake in it is told before the model is loaded
    with load_reasoner(args.model, args.quantize) as reasoner:
        chat = Chat(reasoner, Screen(show_reasoning=not args.hide_reasoning), args.system, choices)
        chat.screen.line(f"{reasoner.name}: {COMMANDS}", DIM)
        while (line := next_line()) is not None:
            if line.startswith("/"):
                if not chat.obey(*line.split()):
                    break
            elif line:
                chat.turn(line)
    return 0


class Chat:
    """A conversation with a person, and what they chose for it."""

    def __init__(self, reasoner: Reasoner, screen: Screen, system: str | None, choices: RunSettings) -> None:
        self.reasoner, self.screen, self.system, self.choices = reasoner, screen, system, choices
        self.conversation = reasoner.conversation(system=system)

    def obey(self, command: str, *values: str) -> bool:
        """Carry a command out. False: the conversation is over."""
        if command == "/quit":
            return False
        if command == "/reset":
            self.conversation = self.reasoner.conversation(system=self.system)
            self.screen.line("forgotten: the next turn starts afresh", DIM)
        elif command == "/effort" and len(values) == 1 and values[0] in list(Effort):
            self.choices["effort"], self.choices["thinking"] = values[0], None
            self.screen.line(f"effort: {values[0]}", DIM)
        else:
            self.screen.line(f"commands: {COMMANDS}", DIM)
        return True

    def turn(self, text: str) -> None:
        """Ask, show the answer as it comes, and account for it. A turn that fails or is stopped is not kept."""
        try:
            with self.conversation.stream(text, **self.choices) as stream:
                for piece in stream:
                    self.screen.piece(piece.phase, piece.text)
                self.screen.end()
                if why := CUT_OFF.get(stream.answer.stop_reason):
                    self.screen.line(f"the answer was cut off: {why}", DIM)
            self.screen.line(told(self.conversation.account), DIM)
        except KeyboardInterrupt:
            self.screen.end()
            self.screen.line("stopped: this turn is not kept", DIM)
        except PonderError as error:
            self.screen.end()
            print(f"ponder chat: {error} (this turn is not kept)", file=sys.stderr)


def next_line() -> str | None:
    """What the person says next; None at the end of the input. The prompt appears on a terminal only."""
    with suppress(ImportError):
        import readline  # noqa: F401  # line editing and history for `input`
    try:
        return input("> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return None


def told(account: tuple[TurnAccount, ...]) -> str:
    """The last turn in tokens: what it was given, what it keeps, and what is gone from the turns before it."""
    turn = account[-1]
    gone = sum(each.reasoning_tokens for each in account if each.reasoning_discarded)
    parts = [
        f"turn {turn.turn}: prompt {turn.prompt_tokens} tokens ({turn.cached_tokens} cached)",
        f"thinking {turn.reasoning_tokens} (discarded when the next turn begins)",
        f"answer {turn.answer_tokens} (kept)",
    ]
    if gone:
        parts.append(f"{gone} tokens of earlier thinking are discarded")
    if turn.dropped_messages:
        parts.append(f"{turn.dropped_messages} of the oldest messages were left out: the window is full")
    return ", ".join(parts)
