"""Record mini's greedy answers again, after its weights have changed: `python tests/golden/record_mini.py`."""

from __future__ import annotations

import json
from pathlib import Path

import ponder

QUESTIONS = (
    "What is 4821 * 7093?",
    "What is 12 times 34?",
    "State the final answer to the following arithmetic problem: 880 - 617 + 424 - 822 =",
    "How many 1 bits are there in the binary representation of the number 12345?",
    "How many r's are in strawberry?",
    "Spell this word backward (example: sun -> nus): ruralite",
    "Calculate 8 * 7 - 20.",
)


def main() -> None:
    with ponder.load("mini") as mini:
        answers = mini.ask_many(QUESTIONS, effort="high")
    recorded = [
        {"question": question, "answer": answer.text, "last_line": answer.reasoning.splitlines()[-1]}
        for question, answer in zip(QUESTIONS, answers, strict=True)
    ]
    path = Path(__file__).with_name("mini_answers.json")
    path.write_text(json.dumps(recorded, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(path.read_text())


if __name__ == "__main__":
    main()
