"""Watch an answer while it is written, stop thinking early, and see what the next turn keeps.

python examples/stream.py
"""

from __future__ import annotations

import ponder
from ponder.types import Phase

DIM, PLAIN = "\033[2m", "\033[0m"


def main() -> None:
    with ponder.load("mini") as model:
        pieces = model.stream("What is 47 * 85?")
        for piece in pieces:
            print(f"{DIM}{piece.text}{PLAIN}" if piece.phase is Phase.THINK else piece.text, end="", flush=True)
        print(f"\n{pieces.answer.usage}")

        # Leaving a `with` closes the stream: the engine drops the request and frees its memory.
        with model.stream("What is 4821 * 7093?") as pieces:
            print(f"the first piece: {next(pieces).text!r}")

        chat = model.conversation()
        for question in ("What is 12 * 34?", "What is 56 * 78?"):
            print(chat.say(question).text)
        first, second = chat.account
        print(f"turn 1 thought for {first.reasoning_tokens} tokens, discarded: {first.reasoning_discarded}")
        print(f"turn 2 found {second.cached_tokens} of its {second.prompt_tokens} prompt tokens in the cache")


if __name__ == "__main__":
    main()
