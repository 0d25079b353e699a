"""What the untouched model says to ordinary requests, as dialogues to learn beside new ones: `keep.py MODEL FILE`.

Its own answers change it least, so that what it learns beside them costs less of what it could do. The requests are put
together from the parts below, and are none of those that measure.py grades.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path

from ponder import load

SUBJECTS = (
    *("a lighthouse", "a winter market", "an old bicycle", "a hospital", "a small island", "a violin", "the desert"),
    *("a railway station", "a beehive", "a chess game", "a rainforest", "a bakery", "a volcano", "a school trip"),
    *("a telescope", "a harbour", "a family dinner", "a marathon", "a snowstorm", "a bookshop", "a garden", "a robot"),
)
REQUESTS = (
    "Write two sentences about {}.",
    "Explain to a child what {} is.",
    "Give me three words that describe {}.",
    "Write a short title for a story about {}.",
    "Say something interesting about {} in one sentence.",
    "Ask me a question about {}.",
    "What could one do with {}?",
    "Rewrite more formally: I really liked {}.",
    "Translate into French: {}.",
    "Summarise in five words: yesterday we talked for an hour about {} and forgot the time.",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("file", type=Path)
    parser.add_argument("-n", type=int, default=len(SUBJECTS) * len(REQUESTS), help="requests at most")
    args = parser.parse_args()
    requests = [request.format(subject) for subject, request in product(SUBJECTS, REQUESTS)][: args.n]
    with load(args.model) as model:
        answers = model.ask_many(requests, thinking=0, max_tokens=160, temperature=0.0)
    kept = [(asked, said.text) for asked, said in zip(requests, answers, strict=True) if said.text and not said.cut]
    args.file.parent.mkdir(parents=True, exist_ok=True)
    with args.file.open("w", encoding="utf-8") as file:
        for asked, said in kept:
            messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
            file.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
    print(f"{args.file}: {len(kept)} of {len(requests)} answers; the others did not end within 160 tokens")


if __name__ == "__main__":
    main()
