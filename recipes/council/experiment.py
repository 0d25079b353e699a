"""Does a council reach the accuracy of one voice in fewer steps? Trains every arm from scratch with every seed, solves
the same held-out products with each, and prints the table; what is trained or measured already is not done again.

    python recipes/council/experiment.py                   # 6 arms x 3 seeds, about 20 minutes each on two cores
    python recipes/council/experiment.py --arms one,four --seeds 1
    python recipes/council/experiment.py --small           # two digits by three, minutes each
    python recipes/council/experiment.py --tiny            # the whole line in a minute; learns nothing

All arms have the same size, tokens and problems. `blind` is the layout of `four` in which no voice hears another one;
in `apart` no voice needs to, since the columns are added after all have left, and `apart_blind` makes sure of it. The
vote is over 2 and 4 samples of `one`. Steps are passes through the model after the prompt, tokens what they drew.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from ponder.dialogue import Message, Start, load_format
from ponder.evaluate.intervals import wilson
from ponder.model.checkpoint import load_model
from ponder.sandbox.objects import load_object
from ponder.tasks.families.products import Products
from ponder.tasks.protocol import Problem
from ponder.tokenizer import Tokenizer
from ponder.train import run
from ponder.train.loop.folder import RunFolder
from ponder.train.pipeline import load_recipe

HERE = Path(__file__).parent
BATCH = 50  # problems that are decoded together
TEMPERATURE = 0.7  # of the samples that vote
ROOM = 64  # slots beyond the longest demonstration


@dataclass(frozen=True)
class Arm:
    voices: int
    task: str = "Pair"
    hear: bool = True


ARMS = {
    "one": Arm(1),
    "two": Arm(2),
    "four": Arm(4),
    "blind": Arm(4, hear=False),
    "apart": Arm(4, "Apart"),
    "apart_blind": Arm(4, "Apart", hear=False),
}
SMALL = [
    "model.size=96",
    "model.layers=3",
    "sft.tokens=1_800_000",
    "sft.sequence=256",
    "sft.batch=12",
    f'tokenizer.text=[{{source="task:{HERE / "tasks.py"}:SmallPair", samples=200}}]',
]
TINY = ["model.size=32", "model.layers=2", "sft.tokens=32_768", "sft.batch=4"]


@dataclass(frozen=True)
class Solved:
    """What came of one problem. right: of each sample; steps: the longest of the samples; tokens: of all of them."""

    answers: tuple[str, ...]
    right: bool
    steps: int
    tokens: int


def train(name: str, seed: int, root: Path, overrides: Sequence[str], size: str) -> Path:
    """The model folder of an arm, trained where it is not there yet."""
    arm, folder = ARMS[name], root / f"{name}-{seed}"
    mix = f'[{{task="{HERE / "tasks.py"}:{size}{arm.task}", voices={arm.voices}}}]'
    chosen = [f"run.folder={folder}", f"run.seed={seed}", f"sft.mix={mix}", *overrides]
    if arm.hear:
        model = run(HERE / "all.toml", chosen, resume=folder.exists()).model
    else:
        run(HERE / "all.toml", [*chosen, 'run.stages=["tokenizer"]'], resume=folder.exists())
        recipe = load_recipe(HERE / "all.toml", [*chosen, "run.compile=false"])
        blind = load_object(f"{HERE / 'voices.py'}:BlindSft")()
        if not blind.complete(RunFolder(folder)):
            blind.run(recipe, RunFolder(folder))
        model = RunFolder(folder).model
    assert model is not None, f"{folder} is not complete: run it again"
    return model


def solve(
    folder: Path, arm: Arm, task: Products, problems: Sequence[Problem], *, samples: int = 1, seed: int = 0
) -> list[Solved]:
    """Each problem, greedily, or by the vote of several samples."""
    decode, context = (load_object(f"{HERE / 'voices.py'}:{name}") for name in ("decode", "Context"))
    model, tokenizer = load_model(folder).eval(), Tokenizer.load(folder)
    form = load_format(tokenizer)
    shown = [task.demonstrate_council(problem, Random(0), arm.voices) for problem in problems[:20]]
    found = []
    for begin in range(0, len(problems), BATCH):
        batch = problems[begin : begin + BATCH]
        prompts = [form.render([Message.user(each.question)], start=Start.THINK).ids for each in batch]
        longest = max(map(len, prompts)) + max(len(each.text) for each in shown) + ROOM
        made = decode(
            model,
            [context.of(prompt) for prompt in prompts for _ in range(samples)],
            form.phase_tokens,
            hear=arm.hear,
            longest=min(longest, model.config.max_positions),
            temperature=TEMPERATURE if samples > 1 else 0.0,
            seed=seed + begin,
        )
        for number, problem in enumerate(batch):
            own = made[number * samples : (number + 1) * samples]
            answers = [
                form.parse_generated(each.ids[each.prompt :], start=Start.THINK).message.text.strip() for each in own
            ]
            voted = Counter(answer for answer in answers if answer)
            chosen = voted.most_common(1)[0][0] if voted else ""
            found.append(
                Solved(
                    tuple(answers),
                    task.grade(problem, chosen).solved,
                    max(each.steps for each in own),
                    sum(len(each.ids) - each.prompt for each in own),
                )
            )
    return found


def measure(row: str, folder: Path, arm: Arm, problems: Sequence[Problem], samples: int, seed: int) -> dict[str, float]:
    """The row of one arm and seed, kept beside the model."""
    stored = folder.parent / f"{row.replace(' ', '_')}-{len(problems)}.json"
    if not stored.exists():
        task = load_object(f"{HERE / 'tasks.py'}:{arm.task}")()
        solved = solve(folder, arm, task, problems, samples=samples, seed=seed)
        told = {
            "solved": sum(each.right for each in solved),
            "steps": sum(each.steps for each in solved) / len(solved),
            "tokens": sum(each.tokens for each in solved) / len(solved),
        }
        stored.write_text(json.dumps(told))
    return json.loads(stored.read_text())


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", default=",".join(ARMS), help="which arms, with commas between them (default: all)")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("-n", type=int, default=500, help="problems (default: 500)")
    parser.add_argument("--folder", type=Path, default=Path("runs/council"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe")
    parser.add_argument("--small", action="store_true", help="a model of 96 that multiplies two digits by three")
    parser.add_argument("--tiny", action="store_true", help="a model of 32 that is trained for a moment")
    args = parser.parse_args(argv)
    seeds, names = list(map(int, args.seeds.split(","))), args.arms.split(",")
    size = "Small" if args.small else ""
    task = load_object(f"{HERE / 'tasks.py'}:{size}Pair")()
    rng = Random("held out")  # training draws from other seeds
    problems = [task.sample(rng, 1.0) for _ in range(args.n)]
    overrides = [*(SMALL if args.small else TINY if args.tiny else ()), *args.set]
    rows: dict[str, list[dict[str, float]]] = {}
    for name in names:
        for seed in seeds:
            folder = train(name, seed, args.folder, overrides, size)
            for samples in (1, 2, 4) if name == "one" else (1,):
                row = name if samples == 1 else f"one, vote of {samples}"
                rows.setdefault(row, []).append(measure(row, folder, ARMS[name], problems, samples, seed))
    print(table(rows, args.n, seeds))


def table(rows: dict[str, list[dict[str, float]]], n: int, seeds: Sequence[int]) -> str:
    lines = [
        f"n = {n} problems, seeds {', '.join(map(str, seeds))}; 95% intervals over the problems of all seeds",
        "",
        "| arm | solved | by seed | steps | of one's | tokens |",
        "|---|---|---|---|---|---|",
    ]
    base = mean([each["steps"] for each in rows["one"]]) if "one" in rows else None
    for name, found in rows.items():
        right, steps = sum(int(each["solved"]) for each in found), mean([each["steps"] for each in found])
        interval = wilson(right, n * len(found))
        by_seed = ", ".join(f"{each['solved'] / n:.3f}" for each in found)
        share = "" if base is None else f"{steps / base:.0%}"
        tokens = mean([each["tokens"] for each in found])
        solved = f"{right / n / len(found):.3f} ({interval.low:.3f}-{interval.high:.3f})"
        lines.append(f"| {name} | {solved} | {by_seed} | {steps:.0f} | {share} | {tokens:.0f} |")
    return "\n".join(lines)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    main()
