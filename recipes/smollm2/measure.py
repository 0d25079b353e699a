r"""Before and after: word problems on held-out templates, and what the model could do before.

    python recipes/smollm2/measure.py --untouched MODEL.gguf --thinks runs/smollm2/model \
        --direct runs/smollm2-direct/model

prints one table with 95% intervals. Word problems: `tasks.py:HeldOutGsm` and `HeldOutStories`, the answer's last number
counts. The untouched model answers under each prompt of PROMPTS; the best of them on problems of the training templates
is the one that is measured. The control that never thinks answers once, and by votes for as many tokens as thinking
takes. Kept abilities: instructions.jsonl, thirty requests each, graded by the rules beside them (`follows`).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ponder import load
from ponder.evaluate.intervals import wilson
from ponder.evaluate.problems import held_out
from ponder.tasks.protocol import Problem
from ponder.think import Reasoner

HERE = Path(__file__).parent
PROMPTS = {
    "direct": "{}\nAnswer with the number only.",
    "plain": "{}",
    "step by step": "{}\nLet's think step by step.",
    "solve and end": "{}\nSolve this step by step. End with: The answer is N.",
    "worked example": "Question: Tom has 3 bags of 4 pears and eats 2. How many are left?\n"
    "Solution: In the bags: 3 * 4 = 12. Left: 12 - 2 = 10. The answer is 10.\n\nQuestion: {}\nSolution:",
}


def tasks() -> ModuleType:
    """tasks.py beside this file."""
    spec = importlib.util.spec_from_file_location("smollm2_tasks", HERE / "tasks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def instructions() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (HERE / "instructions.jsonl").read_text(encoding="utf-8").splitlines()]


def follows(rule: Mapping[str, Any], said: str) -> bool:
    """Whether an answer keeps a rule: every pattern of `must` occurs, in any case unless `case` says otherwise; at most
    `most_words` words; and it is not the request again."""
    flags = 0 if rule.get("case") else re.IGNORECASE
    if not all(re.search(pattern, said, flags) for pattern in rule["must"]):
        return False
    source = rule["prompt"].partition(": ")[2]
    if rule["kind"] != "facts" and " ".join(said.split()).strip('". ') == source.strip('". '):
        return False
    return len(said.split()) <= rule.get("most_words", 10**6)


@dataclass(frozen=True, slots=True)
class Arm:
    """One row of the table: right of asked, by column, and the tokens that a word problem took."""

    name: str
    right: Mapping[str, tuple[int, int]]
    tokens: float

    def cells(self, columns: Sequence[str]) -> list[str]:
        return [
            self.name,
            *(share(*self.right[each]) if each in self.right else "" for each in columns),
            f"{self.tokens:.0f}",
        ]


def share(right: int, asked: int) -> str:
    interval = wilson(right, asked)
    return f"{right / asked:.3f} ({interval.low:.3f}-{interval.high:.3f})"


def graded(
    model: Reasoner, suites: Mapping[str, Sequence[Problem]], prompt: str, **settings: Any
) -> tuple[dict[str, tuple[int, int]], float]:
    grade, right, tokens, asked = tasks().WordProblems().grade, {}, 0, 0
    for name, problems in suites.items():
        answers = model.ask_many([prompt.format(each.question) for each in problems], **settings)
        scores = [grade(problem, answer.text).score for problem, answer in zip(problems, answers, strict=True)]
        right[name] = (int(sum(scores)), len(problems))
        tokens += sum(answer.usage.completion_tokens for answer in answers)
        asked += len(problems)
    return right, tokens / asked


def abilities(model: Reasoner, most: int) -> dict[str, tuple[int, int]]:
    """Kept abilities, answered directly. most: requests of each kind."""
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for rule in instructions():
        by_kind.setdefault(rule["kind"], []).append(rule)
    rules = [rule for each in by_kind.values() for rule in each[:most]]
    answers = model.ask_many([rule["prompt"] for rule in rules], thinking=0, max_tokens=96, temperature=0.0)
    kept: dict[str, tuple[int, int]] = {}
    for rule, answer in zip(rules, answers, strict=True):
        right, asked = kept.get(rule["kind"], (0, 0))
        kept[rule["kind"]] = (right + follows(rule, answer.text), asked + 1)
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--untouched", required=True, help="the model before")
    parser.add_argument("--thinks", required=True, help="the model that was trained")
    parser.add_argument("--direct", help="the control that learned bare answers")
    parser.add_argument("-n", type=int, default=500, help="held-out word problems, three in five of gsm_symbolic")
    parser.add_argument("--choose", type=int, default=100, help="problems of training templates that choose a prompt")
    parser.add_argument("--requests", type=int, default=30, help="of each kind of kept ability")
    parser.add_argument("--max-tokens", type=int, default=288)
    args = parser.parse_args()
    known = tasks()
    suites = {
        "gsm": held_out(known.HeldOutGsm(), max(1, args.n * 3 // 5)),
        "stories": held_out(known.HeldOutStories(), max(1, args.n * 2 // 5)),
    }
    chosen_on = {"choice": held_out(known.Gsm(), args.choose)}
    greedy = {"max_tokens": args.max_tokens, "temperature": 0.0}
    columns = ["gsm", "stories", *dict.fromkeys(rule["kind"] for rule in instructions())]
    arms: list[Arm] = []
    with load(args.untouched) as model:
        kept = abilities(model, args.requests)
        tried = {
            name: graded(model, chosen_on, text, thinking=0, **greedy)[0]["choice"][0] for name, text in PROMPTS.items()
        }
        best = max(tried, key=lambda name: tried[name])
        for name in dict.fromkeys(("direct", best)):
            right, tokens = graded(model, suites, PROMPTS[name], thinking=0, **greedy)
            arms.append(Arm(f"untouched, {name}", {**right, **kept}, tokens))
    with load(args.thinks) as model:
        kept = abilities(model, args.requests)
        right, spent = graded(model, suites, "{}", thinking=args.max_tokens - 32, **greedy)
        arms.append(Arm("trained, thinking", {**right, **kept}, spent))
        right, tokens = graded(model, suites, "{}", thinking=0, **greedy)
        arms.append(Arm("trained, thinking off", {**right, **kept}, tokens))
    if args.direct:
        with load(args.direct) as model:
            kept = abilities(model, args.requests)
            right, tokens = graded(model, suites, "{}", thinking=0, **greedy)
            arms.append(Arm("trained on bare answers", {**right, **kept}, tokens))
            votes = max(2, round(spent / max(1.0, tokens)))
            voting = {"thinking": 0, "max_tokens": args.max_tokens, "strategy": f"consensus(samples={votes})"}
            right, tokens = graded(model, suites, "{}", **voting)
            arms.append(Arm(f"the same, {votes} votes", {**right, **kept}, tokens))
    print(f"prompts of the untouched model, right of {args.choose}: {tried}\n")
    print("| " + " | ".join(["model", *columns, "tokens"]) + " |\n|" + " --- |" * (len(columns) + 2))
    for arm in arms:
        print("| " + " | ".join(arm.cells(columns)) + " |")


if __name__ == "__main__":
    main()
