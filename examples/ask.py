"""Ask the bundled model, see what it cost, let several answers vote, and watch a strategy at work."""

from __future__ import annotations

import ponder


def main() -> None:
    with ponder.load("mini") as model:
        answer = model.ask("What is 47 * 85?")
        print(f"{answer.text}   (thought for {answer.usage.reasoning_tokens} tokens: {answer.reasoning[:40]!r}…)")

        voted = model.ask("What is 47 * 85?", strategy="consensus(samples=4)", seed=0)
        votes = ", ".join(f"{vote.answer}: {vote.count}" for vote in voted.votes)
        print(f"{voted.text}   (votes: {votes}; {voted.usage.completion_tokens} tokens in all)")

        with model.events("What is 47 * 85?", strategy="consensus(samples=2)", seed=0) as events:
            kinds = [type(event).__name__ for event in events]
        print("events:", ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)))


if __name__ == "__main__":
    main()
