"""A stage of reinforcement learning on a tiny model and a task that random weights can be rewarded for."""

from pathlib import Path
from random import Random

from ponder.tasks.protocol import Grade, Problem
from ponder.train.algorithms import ALGORITHMS
from ponder.train.algorithms.grpo import GrpoRecipe
from ponder.train.loop.display import read_metrics
from ponder.train.loop.folder import RunFolder
from ponder.train.policy.stage import RolloutRecipe
from ponder.train.recipe.sections import MixRecipe, OptimRecipe, Precision, Recipe, RunRecipe, resolve


class Even:
    """Rewards the share of an answer's characters with an even code. `spoil` is asked about every grade."""

    name = "even"

    def __init__(self, spoil=None) -> None:
        self.spoil = spoil
        self.graded: list[str] = []

    def sample(self, rng: Random, level: float) -> Problem:
        return Problem(task=self.name, question=f"{rng.randrange(100)}?", answer="")

    def grade(self, problem: Problem, answer: str) -> Grade:
        self.graded.append(answer)
        score = sum(ord(letter) % 2 == 0 for letter in answer) / max(1, len(answer))
        grade = Grade(score=score)
        return self.spoil(len(self.graded), grade) if self.spoil else grade

    def same(self, a: str, b: str) -> bool:
        return a == b


def recipe(
    start: Path, folder: Path, kind: type[RolloutRecipe] = GrpoRecipe, *, minutes: float = 60, **keys: object
) -> Recipe:
    settings: dict[str, object] = {"steps": 4, "prompts": 3, "samples": 4, "max_tokens": 10, "sequence": 64, "batch": 2}
    optim = OptimRecipe(lr=3e-3, weight_decay=0.0)
    settings |= {"start": str(start), "mix": (MixRecipe(task="even"),), "thinking": 0, "optim": optim}
    run = RunRecipe(
        folder=str(folder),
        stages=(kind.name,),
        device="cpu",
        compile=False,
        precision=Precision.FP32,
        checkpoint_minutes=minutes,
    )
    return resolve(Recipe(run=run, sections=(kind(**{**settings, **keys}),)))  # type: ignore[arg-type]


def train(whole: Recipe) -> None:
    (name,) = whole.run.stages
    ALGORITHMS[name].run(whole, RunFolder(Path(whole.run.folder)))


def trained(
    start: Path, folder: Path, kind: type[RolloutRecipe] = GrpoRecipe, **keys: object
) -> list[dict[str, float]]:
    train(recipe(start, folder, kind, **keys))
    return read_metrics(folder / kind.name / "metrics.jsonl")


def unclocked(records: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{key: value for key, value in each.items() if "second" not in key} for each in records]
