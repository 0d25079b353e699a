"""Direct preference optimisation: where it starts, that packing and micro-batches change nothing, and exact resume."""

import json
import math
from pathlib import Path

import pytest
import torch
from dying import killed_in_the_third_update
from even import train
from safetensors.torch import load_file

from ponder.dialogue import load_format
from ponder.model.checkpoint import load_model
from ponder.model.loss import Backend
from ponder.tokenizer import Tokenizer
from ponder.train.algorithms import dpo as module
from ponder.train.algorithms.dpo import DirectLearner, DpoRecipe, ReferenceFrom, unmatched
from ponder.train.data.comparisons import learned_answer, load_comparisons
from ponder.train.loop.display import read_metrics
from ponder.train.loop.stage import StageStart
from ponder.train.policy.direct import Preference
from ponder.train.recipe.sections import LoraRecipe, OptimRecipe, Precision, Recipe, RunRecipe, resolve
from ponder.types import DataError, RecipeError


def judgements(path: Path, count: int = 24, **more: object) -> Path:
    """Even digits are preferred."""
    lines = [
        json.dumps(
            {"prompt": f"{n}?", "chosen": f"{n} 2468"[: 3 + n % 5], "rejected": f"{n} 13579 1"[: 4 + n % 6], **more}
        )
        for n in range(count)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def recipe(start: Path, folder: Path, *, minutes: float = 60.0, **keys: object) -> Recipe:
    data = folder.parent / f"{folder.name}.jsonl"
    settings: dict[str, object] = {"start": str(start), "sequence": 64, "batch": 2, "rankings": 6, "held_out": 0.0}
    settings |= {"optim": OptimRecipe(lr=3e-3, weight_decay=0.0), "preferences": str(data)}
    if not data.exists():
        judgements(data)
    run = RunRecipe(
        folder=str(folder),
        stages=("dpo",),
        device="cpu",
        compile=False,
        precision=Precision.FP32,
        checkpoint_minutes=minutes,
    )
    return resolve(Recipe(run=run, sections=(DpoRecipe(**{**settings, **keys}),)))  # type: ignore[arg-type]


def trained(start: Path, folder: Path, **keys: object) -> list[dict[str, float]]:
    train(recipe(start, folder, **keys))
    return read_metrics(folder / "dpo" / "metrics.jsonl")


def learner(start: Path, folder: Path, **keys: object) -> DirectLearner:
    whole = recipe(start, folder, **keys)
    stage, tokenizer = whole.section(DpoRecipe), Tokenizer.load(start)
    (folder / "dpo").mkdir(parents=True)
    begun = StageStart(
        recipe=whole,
        stage=stage,
        folder=folder / "dpo",
        model=load_model(start, dtype=torch.float32),
        tokenizer=tokenizer,
        tokenizer_folder=start,
    )
    return DirectLearner(begun, load_comparisons(stage, learned_answer(load_format(tokenizer)), stage.read))


def gradient(made: DirectLearner, start: Path) -> tuple[float, torch.Tensor]:
    """Of the first update, with the policy moved away from the reference."""
    model = load_model(start, dtype=torch.float32)
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            generator = torch.Generator().manual_seed(number)
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    total = 0.0
    for loss in made.losses(model, next(made.batches(0)), Backend.TORCH):
        loss.backward()
        total += float(loss.detach())
    return total, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("lora", [0, 2])
@pytest.mark.parametrize("reference", ReferenceFrom)
def test_it_starts_at_the_logarithm_of_two(start: Path, tmp_path: Path, reference: ReferenceFrom, lora: int) -> None:
    """With an adapter the reference is the base, which does not move."""
    records = trained(start, tmp_path / "run", reference=reference, lora=LoraRecipe(rank=lora), epochs=2)
    assert records[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert records[0]["chosen_reward"] == pytest.approx(0, abs=1e-5)
    assert records[0]["chosen_reward"] == pytest.approx(records[0]["rejected_reward"], abs=1e-5)
    assert records[1]["loss"] != pytest.approx(math.log(2), abs=1e-6)
    assert records[-1]["loss"] < records[0]["loss"]
    assert len(records) == 8


def test_stored_or_computed_the_reference_is_the_same(start: Path, tmp_path: Path) -> None:
    one, other = (
        trained(start, tmp_path / reference.value, reference=reference, epochs=2, rankings=5)
        for reference in ReferenceFrom
    )
    assert [each["loss"] for each in one] == pytest.approx([each["loss"] for each in other], abs=1e-5)
    assert sum(each["compute"] for each in one[-1:]) < sum(each["compute"] for each in other[-1:])


def test_what_was_stored_from_other_weights_or_ids_is_computed_again(start: Path, tmp_path: Path) -> None:
    made = learner(start, tmp_path / "run")
    gradient(made, start)
    path = tmp_path / "run" / "dpo" / "reference.npz"
    assert module._read_stored(path, made._key).keys() == {each.number for each in made.comparisons.train}
    assert module._read_stored(path, "another") == {}
    model = load_model(start, dtype=torch.float32)
    assert module._key_of(model, made.comparisons.train) == made._key
    assert module._key_of(model, made.comparisons.train[1:]) != made._key
    with torch.no_grad():
        model.model.norm.weight[0] += 1
    assert module._key_of(model, made.comparisons.train) != made._key


@pytest.mark.parametrize("loss", Preference)
def test_packing_and_micro_batches_change_nothing(start: Path, tmp_path: Path, loss: Preference) -> None:
    made = [
        gradient(learner(start, tmp_path / f"{batch}-{sequence}", loss=loss, batch=batch, sequence=sequence), start)
        for batch, sequence in ((64, 24), (2, 24), (1, 200))
    ]
    for total, vector in made[1:]:
        assert total == pytest.approx(made[0][0], abs=1e-5)
        torch.testing.assert_close(vector, made[0][1], atol=2e-6, rtol=1e-3)


def test_a_ranking_is_the_mean_of_its_pairs(start: Path, tmp_path: Path) -> None:
    answers = ["2 4", "31", "5 777"]
    (tmp_path / "whole.jsonl").write_text(
        json.dumps({"prompt": "q", "completions": answers, "ranks": [1, 3, 2]}) + "\n"
    )
    pairs = [(0, 1), (0, 2), (2, 1)]
    lines = [json.dumps({"prompt": "q", "chosen": answers[a], "rejected": answers[b]}) for a, b in pairs]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines) + "\n")
    whole, apart = (gradient(learner(start, tmp_path / name), start) for name in ("whole", "pairs"))
    assert whole[0] == pytest.approx(apart[0], abs=1e-6)
    torch.testing.assert_close(whole[1], apart[1], atol=1e-6, rtol=1e-3)


def test_a_margin_is_kept_to_or_refused(start: Path, tmp_path: Path) -> None:
    judgements(tmp_path / "wide.jsonl", margin=1.0)
    judgements(tmp_path / "ipo.jsonl", margin=1.0)
    first = trained(start, tmp_path / "wide")[0]
    assert first["loss"] == pytest.approx(math.log1p(math.exp(1.0)), abs=1e-5)
    with pytest.raises(DataError, match=r"ipo\.jsonl:1: has a margin of 1"):
        trained(start, tmp_path / "ipo", loss=Preference.IPO)


def test_better_answers_get_likelier_than_worse_ones_of_prompts_that_were_held_out(start: Path, tmp_path: Path) -> None:
    records = trained(start, tmp_path / "run", epochs=8, held_out=0.3, sft=0.1)
    assert records[-1]["held_out_accuracy"] > 0.8
    assert records[-1]["margin"] > records[0]["margin"] + 0.1


@pytest.mark.parametrize("labels", [[True], [True, False], [True] * 5, [True, False, True]])
def test_answers_that_stand_alone_are_learned_in_any_number(start: Path, tmp_path: Path, labels: list[bool]) -> None:
    lines = [json.dumps({"prompt": f"{n}?", "completion": f"{n} 24", "label": label}) for n, label in enumerate(labels)]
    (tmp_path / "run.jsonl").write_text("\n".join(lines) + "\n")
    records = trained(start, tmp_path / "run", loss=Preference.KTO, epochs=3, rankings=len(labels))
    assert records[0]["loss"] == pytest.approx(0.5, abs=1e-5)
    assert records[-1]["loss"] < records[0]["loss"]


def test_answers_are_compared_with_those_to_other_prompts(start: Path, tmp_path: Path) -> None:
    made = learner(start, tmp_path / "run", loss=Preference.KTO)
    drawn = made.comparisons.draw(0, 6, 1, "s")
    for own, mixed in zip(drawn, unmatched(drawn, 64), strict=True):
        (example,), (asked,) = mixed.answers[0], own.answers[0]
        begin = list(asked.learned).index(True)
        assert list(example.ids[:begin]) == list(asked.ids[:begin])
        others = {
            tuple(e.ids[list(e.learned).index(True) :]) for o in drawn if o.prompt != own.prompt for (e,) in o.answers
        }
        assert tuple(example.ids[begin:]) in others
    assert unmatched(drawn[:1], 64) == []


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"loss": Preference.IPO, "smoothing": 0.1}, "smoothing must be 0 for ipo"),
        ({"gamma": 1.0}, "gamma must be 0 for sigmoid"),
        ({"loss": Preference.SIMPO, "reference": ReferenceFrom.STORED}, "simpo has no reference"),
        ({"loss": Preference.KTO, "reference": ReferenceFrom.STORED}, 'must be "computed" for kto'),
        ({"wanted": 2.0}, "do not apply to sigmoid"),
        ({"tokens": 5}, "tokens does not apply"),
    ],
)
def test_what_makes_no_sense_is_refused(start: Path, tmp_path: Path, keys: dict[str, object], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        recipe(start, tmp_path / "run", **keys)


KILLED = {"epochs": 1, "minutes": 0.0, "lora": LoraRecipe(rank=2)}


def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(start: Path, tmp_path: Path) -> None:
    whole = trained(start, tmp_path / "whole", **KILLED)
    parts = recipe(start, tmp_path / "parts", **KILLED)
    killed_in_the_third_update(parts, "ponder.train.algorithms.dpo.DirectLearner")
    stored = (tmp_path / "parts" / "dpo" / "reference.npz").read_bytes()
    resumed = trained(start, tmp_path / "parts", **KILLED)
    assert [each["loss"] for each in whole] == [each["loss"] for each in resumed]
    assert (tmp_path / "parts" / "dpo" / "reference.npz").read_bytes() == stored
    one, other = (load_file(tmp_path / name / "dpo" / "model" / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)
