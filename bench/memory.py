"""Memory outside the window: how often a question recalls what answers it, how long that takes, and what a model makes
of it.

    python bench/memory.py                                # recall of five abilities, without a model; a minute
    python bench/memory.py --size 100000                  # seconds for a recall among that many notes of one user
    python bench/memory.py --model SmolLM2.gguf -n 20     # end to end, beside full context and the truncated window

Histories and questions are drawn (`ponder.evaluate.histories`), in wordings that no default was chosen on. Each remark
and its reply is one note, as `Conversation` notes them; nothing is superseded, so of two versions both are there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from random import Random

import ponder
from ponder.dialogue.messages import Message
from ponder.evaluate.histories import Ability, History, MemoryQuestion, draw_history
from ponder.evaluate.intervals import wilson
from ponder.sampler.protocol import Truncation
from ponder.think import Memory, remembering
from ponder.think.memory.quoting import moment

RESULTS = Path(__file__).parent / "results"
UNKNOWN = ("not known", "don't know", "do not know", "not mentioned", "no information", "not say", "unknown")


def noted(history: History, folder: str) -> tuple[Memory, list[int]]:
    """A memory of a history, and the ids of its notes in their order."""
    memory = Memory(Path(folder) / f"{id(history)}.db")
    ids = []
    for each in history.remarks:
        text = f"User: {each.said}\nAssistant: {each.reply}"
        ids.append(memory.note("someone", text, source="an earlier conversation", at=each.at).id)
    return memory, ids


def share(right: int, n: int) -> str:
    interval = wilson(right, n)
    return f"{right / n:.2f} ({interval.low:.2f}-{interval.high:.2f})"


def recall_at_5(histories: list[History], folder: str) -> dict[Ability, tuple[int, int]]:
    """For each ability, of how many questions all evidence is among the five notes recalled; for ABSTAIN, none is."""
    counts: dict[Ability, list[bool]] = defaultdict(list)
    for history in histories:
        memory, ids = noted(history, folder)
        for question in history.questions:
            at = question.at or history.remarks[-1].at + 1
            found = [each.note.id for each in memory.recall("someone", question.text, at=at, most=5)]
            evidence = {ids[place] for place in question.evidence}
            counts[question.ability].append(evidence <= set(found) if evidence else not found)
        memory.close()
    return {ability: (sum(right), len(right)) for ability, right in counts.items()}


def size(notes: int, folder: str) -> dict[str, float]:
    """Milliseconds of recalls among that many notes of one user, and of forgetting one."""
    rng = Random(0)
    vocabulary = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randrange(3, 10))) for _ in range(20_000)]
    weights = [1 / (rank + 5) for rank in range(len(vocabulary))]  # words are as unequal as those of a language
    memory = Memory(Path(folder) / "large.db")
    connection = memory._connection
    began = time.perf_counter()
    from ponder.think.memory.notes import insert_note

    connection.execute("BEGIN IMMEDIATE")
    for number in range(notes):
        text = " ".join(rng.choices(vocabulary, weights, k=20))
        insert_note(connection, "someone", text, source="bench", at=float(number))
    connection.execute("COMMIT")
    filled = time.perf_counter() - began
    wall, cpu = [], []
    for number in range(200):
        query = " ".join(rng.choices(vocabulary, weights, k=1 + number % 10))
        began, worked = time.perf_counter(), time.process_time()
        memory.recall("someone", query, at=float(notes))
        wall.append(1000 * (time.perf_counter() - began))
        cpu.append(1000 * (time.process_time() - worked))
    began = time.perf_counter()
    memory.forget("someone", notes // 2)
    forgot = time.perf_counter() - began
    megabytes = memory.path.stat().st_size / 1e6
    memory.close()
    wall.sort()
    cpu.sort()
    return {
        "notes": notes,
        "fill_seconds": filled,
        "megabytes": megabytes,
        "recall_ms_median": wall[100],
        "recall_ms_p95": wall[190],
        "recall_cpu_ms_median": cpu[100],
        "recall_cpu_ms_p95": cpu[190],
        "forget_seconds": forgot,
    }


def right(question: MemoryQuestion, answer: str) -> bool:
    said = answer.casefold()
    if question.ability is Ability.ABSTAIN:
        return any(words in said for words in UNKNOWN)
    return question.answer.casefold() in said


SYSTEM = "Answer in one short sentence. If you were not told, say that it is not known."


def end_to_end(model: str, n: int, remarks: int, folder: str) -> dict[str, dict[Ability, tuple[int, int]]]:
    """Accuracy by way and ability: the memory, the window cut to its newest turns, and no history at all. Where the
    whole history fits the window, the truncated window is the full context."""
    counts: dict[str, dict[Ability, list[bool]]] = defaultdict(lambda: defaultdict(list))
    with ponder.load(model) as reasoner:
        window = reasoner.sampler.capabilities.window
        for seed in range(n):
            history = draw_history(Random(10_000 + seed), remarks=remarks)
            memory, _ = noted(history, folder)
            turns = [Message.system(SYSTEM)]
            for each in history.remarks:
                turns += [Message.user(f"[{moment(each.at)}] {each.said}"), Message.assistant(each.reply)]
            for question in history.questions:
                dated = f" (on {moment(question.at)[:10]})" if question.at else ""
                asked = Message.user(question.text + dated)
                layer = remembering(memory=memory, user="someone")
                settings = {"thinking": 0, "max_tokens": 40, "truncation": Truncation.AUTO, "temperature": 0.0}
                half = turns[:1] + turns[len(turns) // 2 + 1 :]
                ways = {
                    "memory": ([turns[0], asked], {"strategy": Dated(layer, question.at)}),
                    "full context": ([*turns, asked], {}),
                    "newest half": ([*half, asked], {}),
                    "nothing": ([turns[0], asked], {}),
                }
                for way, (conversation, more) in ways.items():
                    answer = reasoner.ask(conversation, **settings, **more)
                    if way == "full context" and answer.dropped_turns:
                        way = f"window of {window}"
                    counts[way][question.ability].append(right(question, answer.text))
            memory.close()
            print(f"history {seed + 1} of {n}", file=sys.stderr, flush=True)
    return {way: {each: (sum(all_), len(all_)) for each, all_ in found.items()} for way, found in counts.items()}


class Dated:
    """A memory that is asked for what held at a time, and notes nothing, so that questions do not answer each other."""

    def __init__(self, layer: object, at: float | None) -> None:
        self.layer = replace(layer, memory=self)  # type: ignore[type-var]
        self.memory, self.at, self.name = layer.memory, at, layer.name  # type: ignore[attr-defined]

    def demand(self, ask):
        return self.layer.demand(ask)

    def stream(self, ask, sampler, ledger):
        return self.layer.stream(ask, sampler, ledger)

    async def recall_async(self, user, query, *, at=None, most=5, least=0.3):
        return await self.memory.recall_async(user, query, at=self.at, most=most, least=least)

    async def note_async(self, user, text, *, source):
        from ponder.think import memory

        return memory.notes.Note(id=0, text=text, source=source, at=0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=100, help="histories")
    parser.add_argument("--remarks", type=int, default=200, help="in each history")
    parser.add_argument("--size", type=int, help="notes of one user, to time a recall among")
    parser.add_argument("--model", help="a model that answers from the memory, as `ponder ask --model` takes it")
    args = parser.parse_args()
    lines: list[str] = []
    result: dict[str, object] = {"load": os.getloadavg()[0], "n": args.n, "remarks": args.remarks}
    with tempfile.TemporaryDirectory() as folder:
        if args.size:
            result["size"] = timed = size(args.size, folder)
            lines += [f"{name}: {value:,.1f}" for name, value in timed.items()]
        elif args.model:
            ways = end_to_end(args.model, args.n, args.remarks, folder)
            result |= {"model": args.model, "accuracy": ways}
            lines += ["| way | " + " | ".join(Ability) + " |", "|---" * (len(Ability) + 1) + "|"]
            for way, found in ways.items():
                cells = (share(*found[each]) if each in found else "" for each in Ability)
                lines.append(f"| {way} | " + " | ".join(cells) + " |")
        else:
            lines += ["| wordings | " + " | ".join(Ability) + " |", "|---" * (len(Ability) + 1) + "|"]
            for held_out in (True, False):
                drawn = [draw_history(Random(seed), remarks=args.remarks, held_out=held_out) for seed in range(args.n)]
                found = recall_at_5(drawn, folder)
                name = "held out" if held_out else "of tuning"
                result[f"recall at 5, {name}"] = found
                lines.append(f"| {name} | " + " | ".join(share(*found[each]) for each in Ability) + " |")
    print("\n".join(lines))
    kind = "size" if args.size else "model" if args.model else "recall"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"memory_{kind}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
