"""What is held while something new is learned: weights that old examples depend on, and a share of the old model."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from even import train
from safetensors.torch import load_file

from ponder.model.checkpoint import load_model
from ponder.model.loss import Backend, next_token_loss
from ponder.testing.tiny import tiny_model
from ponder.train.algorithms.sft import SftRecipe, average
from ponder.train.data.packing import Batch, Example, fill
from ponder.train.loop.anchor import Anchored, AnchorRecipe, fisher
from ponder.train.loop.display import read_metrics
from ponder.train.loop.learner import NextToken, on
from ponder.train.recipe.sections import LoraRecipe, MixRecipe, OptimRecipe, Precision, Recipe, RunRecipe, resolve
from ponder.types import RecipeError

OLD = [
    Example(ids=[5, 6, 7, 8], learned=[False, True, True, True]),
    Example(ids=[9, 4, 3], learned=[False, False, True]),
]


def batch(example: Example) -> Batch:
    made = Batch.empty(1, len(example.ids) - 1, 0)
    fill(made, 0, [example])
    return made


def test_the_importance_of_a_weight_is_the_mean_squared_gradient_of_whole_examples() -> None:
    model = tiny_model()
    found = fisher(model, OLD)["model.norm.weight"]
    expected = torch.zeros_like(found)
    for example in OLD:
        loss = next_token_loss(model, *on(torch.device("cpu"), batch(example)), total_weight=1.0)
        (gradient,) = torch.autograd.grad(loss, model.model.norm.weight)
        expected += gradient.square() / 2
    torch.testing.assert_close(found, expected)
    assert all(p.grad is None for p in model.parameters())


def test_the_penalty_and_its_gradient_by_hand() -> None:
    model = tiny_model()
    importance = fisher(model, OLD)
    anchored = Anchored(model, importance, weight=3.0)
    with torch.no_grad():
        model.model.norm.weight.add_(0.5)
    expected = 3.0 / 2 * importance["model.norm.weight"] * 0.25
    losses = list(anchored.losses(model, [batch(OLD[0])], Backend.TORCH))
    plain = list(NextToken().losses(model, [batch(OLD[0])], Backend.TORCH))
    assert len(losses) == len(plain) + 1
    torch.testing.assert_close(losses[-1].detach(), expected.sum())
    (gradient,) = torch.autograd.grad(losses[-1], model.model.norm.weight)
    torch.testing.assert_close(gradient, 3.0 * importance["model.norm.weight"] * 0.5)
    assert anchored.report().metrics["anchor"] == pytest.approx(float(expected.sum()))


def recipe(start: Path, folder: Path, **keys: object) -> Recipe:
    settings: dict[str, object] = {
        "start": str(start),
        "sequence": 200,
        "batch": 2,
        "tokens": 1200,
        "watch_problems": 0,
    }
    settings |= {"mix": (MixRecipe(task="products", max_level=0.0),), "optim": OptimRecipe(lr=1e-2, weight_decay=0.0)}
    run = RunRecipe(
        folder=str(folder),
        stages=("sft",),
        device="cpu",
        compile=False,
        precision=Precision.FP32,
        checkpoint_minutes=60,
    )
    return resolve(Recipe(run=run, sections=(SftRecipe(**{**settings, **keys}),)))  # type: ignore[arg-type]


ANCHOR = AnchorRecipe(weight=1e5, mix=(MixRecipe(task="products", max_level=0.0),), examples=3)


def test_what_is_held_moves_less(start: Path, tmp_path: Path) -> None:
    moved = {}
    before = load_model(start, dtype=torch.float32)
    for name, keys in {"free": {}, "held": {"anchor": ANCHOR}, "half": {"average": 0.5}}.items():
        train(recipe(start, tmp_path / name, **keys))
        after = load_file(tmp_path / name / "sft" / "model" / "model.safetensors")
        moved[name] = {key: value - before.state_dict()[key] for key, value in after.items()}
    name = "model.layers.0.mlp.down_proj.weight"
    assert float(moved["held"][name].norm()) < 0.9 * float(moved["free"][name].norm())
    for key, value in moved["half"].items():
        torch.testing.assert_close(value, moved["free"][key] / 2, atol=1e-5, rtol=1e-3)
    records = read_metrics(tmp_path / "held" / "sft" / "metrics.jsonl")
    assert records[0]["anchor"] == 0 < records[-1]["anchor"]


def test_averaging_goes_part_of_the_way() -> None:
    model, other = tiny_model(), tiny_model(seed=1)
    expected = 0.75 * model.model.norm.weight + 0.25 * other.model.norm.weight
    average(model, other, 0.25)
    torch.testing.assert_close(model.model.norm.weight, expected)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"anchor": replace(ANCHOR, mix=())}, "anchor.mix is empty"),
        ({"anchor": replace(ANCHOR, weight=0.0)}, "weight is 0, but there is a mix"),
        ({"average": 0.5, "origin": "random"}, "start is random"),
        ({"average": 0.5, "lora": LoraRecipe(rank=2)}, "do not apply with lora"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, keys: dict[str, object], said: str) -> None:
    start = Path(str(keys.get("origin", tmp_path)))
    with pytest.raises(RecipeError, match=said):
        recipe(start, tmp_path, **{key: value for key, value in keys.items() if key != "origin"})
