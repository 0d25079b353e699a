"""Rankings as rows: drawn in epochs, laid out whole, reported by line where they cannot be learned from."""

import json
from pathlib import Path

import pytest
import torch

from ponder.dialogue import Message, PonderFormat, Start
from ponder.testing.tiny import ByteTokenizer
from ponder.train.data.comparisons import (
    ComparisonRecipe,
    Comparisons,
    Unusable,
    lay_out_comparisons,
    learned_answer,
    load_comparisons,
)
from ponder.train.policy.preference import centring_loss, ranking_loss
from ponder.types import DataError

TOKENIZER = ByteTokenizer()
FORMAT = PonderFormat(TOKENIZER)


class Judged(ComparisonRecipe):
    name = "judged"


def recipe(path: Path, **more: object) -> ComparisonRecipe:
    return Judged(preferences=str(path), sequence=64, **more)  # type: ignore[arg-type]


def written(path: Path, records: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def many(path: Path, count: int = 40) -> Path:
    return written(
        path,
        [
            {"prompt": f"{n}?", "completions": [str(n), "x" * (n % 7 + 1), "no"], "ranks": [1, 2, 2 + n % 2]}
            for n in range(count)
        ],
    )


def loaded(path: Path, **more: object) -> Comparisons:
    return load_comparisons(recipe(path, **more), learned_answer(FORMAT))


def test_an_epoch_has_every_ranking_once_in_an_order_of_its_own(tmp_path: Path) -> None:
    made = loaded(many(tmp_path / "x.jsonl"))
    assert not {each.prompt for each in made.train} & {each.prompt for each in made.held_out}
    count = len(made.train)
    assert count + len(made.held_out) == 40
    assert count < 40
    steps = made.steps(7, 2)
    drawn = [each.number for step in range(steps) for each in made.draw(step, 7, 2, "s")]
    assert len(drawn) == 2 * count
    assert set(drawn[:count]) == set(drawn[count:]) == {each.number for each in made.train}
    assert drawn[:count] != drawn[count:]
    assert drawn != [each.number for step in range(steps) for each in made.draw(step, 7, 2, "t")]


def test_an_answer_follows_the_prompt_that_it_would_be_sampled_after(tmp_path: Path) -> None:
    asked = {"role": "user", "content": "q"}
    thoughtful = {"role": "assistant", "content": "a", "reasoning_content": "t"}
    path = written(tmp_path / "x.jsonl", [{"prompt": [asked], "chosen": [thoughtful], "rejected": "b"}])
    ((made,),) = (loaded(path, held_out=0.0).train,)
    for (example,), start in zip(made.answers, (Start.THINK, Start.DIRECT), strict=True):
        prompt = FORMAT.render((Message.user("q"),), start=start).ids
        assert tuple(example.ids[: len(prompt)]) == prompt
        assert [bool(each) for each in example.learned] == [at >= len(prompt) for at in range(len(example.ids))]


def test_all_answers_of_a_ranking_are_in_one_micro_batch_and_each_position_knows_its_own(tmp_path: Path) -> None:
    made = loaded(many(tmp_path / "x.jsonl"))
    drawn = made.draw(0, 20, 1, "s")
    batches = lay_out_comparisons(drawn, rows=2, sequence=64, pad=0)
    assert len(batches) > 1
    assert [int(n) for each in batches for n in each.numbers_G] == [each.number for each in drawn]
    for each in batches:
        for group, number in enumerate(each.numbers_G):
            source = next(one for one in drawn if one.number == number)
            own = (each.groups_M == group).nonzero()[0]
            assert tuple(each.ranks_M[own]) == source.ranks
            for answer, (example,) in zip(own, source.answers, strict=True):
                here = (each.answers_BT == answer) & (each.batch.weights_BT > 0)
                learned = [id for id, counts in zip(example.ids, example.learned, strict=True) if counts]
                assert each.batch.targets_BT[here].tolist() == learned


def test_what_cannot_be_learned_from_is_reported_by_line_or_left_out_and_counted(tmp_path: Path) -> None:
    path = many(tmp_path / "x.jsonl", 20)
    with path.open("a") as stream:
        for texts, ranks in (
            (["a", "a"], [1, 2]),
            (["a", ""], [1, 2]),
            (["a", "b" * 80], [1, 2]),
            (["a", "b"], [1, 1]),
        ):
            stream.write(json.dumps({"prompt": "r", "completions": texts, "ranks": ranks}) + "\n")
    with pytest.raises(DataError, match="3 judgements cannot") as error:
        loaded(path)
    for line, why in ((21, "answers 1 and 2 are equal"), (22, "answer 2 is empty"), (23, "more than")):
        assert f"{path}:{line}: " in str(error.value)
        assert why in str(error.value)
    made = loaded(path, unusable=Unusable.LEAVE_OUT)
    assert (len(made.train) + len(made.held_out), made.ties, len(made.left_out)) == (20, 1, 3)


def value(scores: list[float], ranks: list[int], *, margin: float = 0.0) -> float:
    loss, _ = ranking_loss(
        torch.tensor(scores),
        torch.zeros(len(scores), dtype=torch.long),
        torch.tensor(ranks),
        torch.tensor([margin]),
        torch.ones(1),
    )
    return float(loss)


def test_the_ranking_loss_equals_values_computed_by_hand() -> None:
    """docs/alignment.md: Bradley-Terry of 1.2 against 0.5, and Plackett-Luce of the scores 2, 1, 0, over two stages."""
    assert value([1.2, 0.5], [1, 2]) == pytest.approx(0.403186, abs=1e-6)
    assert value([0.5, 1.2], [2, 1]) == pytest.approx(0.403186, abs=1e-6)
    assert value([1.2, 0.5], [1, 2], margin=0.5) == pytest.approx(0.598139, abs=1e-6)
    assert 2 * value([2, 1, 0], [1, 2, 3]) == pytest.approx(0.720868, abs=1e-6)
    assert value([2, 1, 0], [1, 2, 2]) == pytest.approx(0.407606, abs=1e-6)  # the best of them alone
    assert value([0.0, 1.0], [2, 2]) == 0  # ties are not compared
    one = torch.ones(1)
    assert float(
        centring_loss(torch.tensor([1.2, 0.5]), torch.zeros(2, dtype=torch.long), 0.01 * one)
    ) == pytest.approx(0.0289)


def test_rankings_add_up_by_weight_and_pairs_are_counted() -> None:
    scores = torch.tensor([2.0, 1.0, 0.0, 0.5, 1.2])
    groups, ranks = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([1, 2, 3, 1, 2])
    loss, stats = ranking_loss(scores, groups, ranks, torch.zeros(2), torch.tensor([1.0, 3.0]))
    assert float(loss) == pytest.approx(0.720868 / 2 + 3 * 1.103186, abs=1e-5)
    assert (float(stats.pairs), float(stats.right)) == (4.0, 1.0)
    _, tied = ranking_loss(torch.zeros(2), groups[:2], ranks[:2], torch.zeros(1), torch.ones(1))
    assert float(tied.right) == 0.5
