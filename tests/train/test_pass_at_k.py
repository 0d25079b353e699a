"""pass@k: advantages as they are defined, the gradient of the best of k answers, and a stage that learns by it."""

from dataclasses import replace
from itertools import combinations, product
from pathlib import Path

import pytest
import torch
from even import Even, recipe, trained

from ponder.train.algorithms.pass_at_k import PassAtKRecipe, gains
from ponder.train.recipe.sections import OptimRecipe
from ponder.types import RecipeError


@pytest.mark.parametrize("k", [2, 3, 5])
def test_an_answer_is_worth_what_it_adds_to_k_less_one_others(k: int) -> None:
    torch.manual_seed(0)
    rewards = torch.cat([torch.rand(2, 5), torch.randint(0, 2, (4, 5)).float(), torch.ones(1, 5)])
    expected = torch.empty_like(rewards)
    for row, group in enumerate(rewards.tolist()):
        for i, own in enumerate(group):
            rests = [max(rest) for rest in combinations(group[:i] + group[i + 1 :], k - 1)]
            expected[row, i] = k * sum(max(own, best) - best for best in rests) / len(rests)
    torch.testing.assert_close(gains(rewards, k), expected)
    assert not gains(torch.ones(1, 5), k).any()


@pytest.mark.parametrize("k", [2, 3])
def test_their_gradient_is_that_of_the_expected_best_of_k(k: int) -> None:
    """Over all groups of four answers of a policy with three of them."""
    rewards = torch.tensor([0.0, 0.3, 1.0])
    logits = torch.tensor([0.5, 0.1, -1.0], requires_grad=True)
    logprobs = logits.log_softmax(0)
    best = sum(logprobs[list(group)].sum().exp() * rewards[list(group)].max() for group in product(range(3), repeat=k))
    (exact,) = torch.autograd.grad(best, logits, retain_graph=True)
    estimate = torch.zeros(3)
    for group in product(range(3), repeat=4):
        chosen = logprobs[list(group)]
        advantages = gains(rewards[list(group)][None], k)[0]
        (gradient,) = torch.autograd.grad((advantages * chosen).mean(), logits, retain_graph=True)
        estimate += chosen.sum().exp().detach() * gradient
    torch.testing.assert_close(estimate, exact)


def test_what_is_rarely_solved_is_solved_more_often(start: Path, even: Even, tmp_path: Path) -> None:
    even.spoil = lambda number, grade: replace(grade, score=float(grade.score > 0.6))
    optim = OptimRecipe(lr=1e-2, weight_decay=0.0)
    records = trained(start, tmp_path / "run", PassAtKRecipe, steps=12, samples=8, batch=8, k=3, optim=optim)
    first, last = (sum(each["solved"] for each in part) / 3 for part in (records[:3], records[-3:]))
    assert last > first + 0.1
    assert max(each["engine_difference"] for each in records if each["trained"]) < 1e-4


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"k": 1}, r"k must be .*got 1"),
        ({"k": 9}, r"at most pass_at_k\.samples \(got 9 and 4\)"),
        ({"epochs": 2}, "must be 1"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, keys: dict[str, object], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        recipe(tmp_path, tmp_path, PassAtKRecipe, **keys)
