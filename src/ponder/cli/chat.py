"""`ponder chat`: several turns, the thinking shown as it comes, and what each turn kept and discarded."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import closing, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ponder.cli.options import add_asking, load_reasoner, settings
from ponder.cli.terminal import CUT_OFF, DIM, Screen
from ponder.types import Effort, InvalidRequest, PonderError

if TYPE_CHECKING:
    from ponder.think import Conversation, Memory, Reasoner, RunSettings
    from ponder.think.conversation import TurnAccount

NAME = "chat"
HELP = "a conversation: /effort LEVEL, /reset and /quit are its commands"
COMMANDS = "/effort none|minimal|low|medium|high, /reset, /quit"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_asking(parser)
    parser.add_argument("--system", metavar="TEXT", help="instructions for the whole conversation")
    parser.add_argument(
        "--memory", type=Path, metavar="FILE", help="note every turn there, and recall what a turn is about"
    )
    parser.add_argument("--user", metavar="NAME", help="whose notes they are, with --memory (default: me)")
    parser.add_argument("--hide-reasoning", action="store_true", help="show answers only")


def run(args: argparse.Namespace) -> int:
    from ponder.think import Memory, parse_strategy

    choices = settings(args)
    choices["strategy"] = parse_strategy(args.strategy)  # a mistake in it is told before the model is loaded
    if args.user is not None and args.memory is None:
        raise InvalidRequest("--user says whose notes a memory holds: add --memory FILE, or leave it out")
    memory = None if args.memory is None else Memory(args.memory)
    with (
        load_reasoner(args.model, args.quantize, args.speculate, args.draft) as reasoner,
        closing(memory) if memory else nullcontext(),
    ):
        screen = Screen(show_reasoning=not args.hide_reasoning)
        chat = Chat(lambda: new_conversation(reasoner, args.system, memory, args.user or "me"), screen, choices)
        screen.line(f"{reasoner.name}: {COMMANDS}", DIM)
        while (line := next_line()) is not None:
            if line.startswith("/"):
                if not chat.obey(*line.split()):
                    break
            elif line:
                chat.turn(line)
    return 0


def new_conversation(reasoner: Reasoner, system: str | None, memory: Memory | None, user: str) -> Conversation:
    """A new conversation, with the memory where there is one."""
    if memory is None:
        return reasoner.conversation(system=system)
    return reasoner.conversation(system=system, memory=memory, user=user)


class Chat:
    """A conversation with a person, and what they chose for it."""

    def __init__(self, begin: Callable[[], Conversation], screen: Screen, choices: RunSettings) -> None:
        self.begin, self.screen, self.choices = begin, screen, choices
        self.conversation = begin()

    def obey(self, command: str, *values: str) -> bool:
        """Carry a command out. False: the conversation is over."""
        if command == "/quit":
            return False
        if command == "/reset":
            self.conversation = self.begin()
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
                    self.screen.piece(piece.phase, piece.text, piece.voice)
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
