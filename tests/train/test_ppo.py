"""Policy optimisation with a critic, and online preferences: closed form, values in their places, exact resume."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from dying import killed_in_the_third_update
from even import Even, recipe, trained
from safetensors.torch import load_file

from ponder.model.checkpoint import load_model
from ponder.model.scoring import ScoreScale, ScoringHead, ScoringModel, write_scoring_model
from ponder.testing.tiny import tiny_model
from ponder.tokenizer import Tokenizer
from ponder.train.algorithms import ppo as module
from ponder.train.algorithms.online_dpo import OnlineDpoRecipe, preferred
from ponder.train.algorithms.ppo import Ppo, PpoLearner, PpoRecipe, critic_for
from ponder.train.loop.stage import StageStart
from ponder.train.policy.direct import Preference
from ponder.train.policy.gradient import SampledTokens
from ponder.train.policy.losses import policy_loss
from ponder.train.policy.values import advantages_and_returns, token_rewards
from ponder.train.recipe.sections import OptimRecipe
from ponder.types import Origin, Phase, RecipeError, Segment, Trajectory

ONE = torch.ones(1, dtype=torch.bool)


def test_one_token_reaches_the_closed_form() -> None:
    """Over all answers of a bandit, by their probabilities, it ends where pi ~ reference x exp(reward / kl)."""
    kl, rewards, reference = 0.5, torch.tensor([1.0, 0.4, -0.3]), torch.tensor([0.2, 0.5, 0.3]).log()
    logits = reference.clone().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.02)
    for _ in range(400):
        old = logits.detach().log_softmax(0)
        scored = [token_rewards(float(rewards[a]), old[a : a + 1] - reference[a : a + 1], ONE, kl) for a in range(3)]
        value = (old.exp() * torch.cat(scored)).sum()[None]
        advantages = torch.cat([advantages_and_returns(each, value, ONE)[0] for each in scored])
        loss, _ = policy_loss(logits.log_softmax(0), old, advantages, old.exp(), clip_low=0.2, clip_high=0.2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    expected = (reference + rewards / kl).softmax(0)
    torch.testing.assert_close(logits.detach().softmax(0), expected, atol=5e-3, rtol=0)


def segment(prompt: int, origins: str, first: int) -> Segment:
    """s: sampled, e: brought by a tool."""
    count = len(origins)
    kinds = {"s": Origin.SAMPLED, "e": Origin.ENV}
    return Segment(
        prompt_ids=tuple(range(first, first + prompt)),
        ids=tuple(range(first + prompt, first + prompt + count)),
        logprobs=(-1.0,) * count,
        phases=(Phase.ANSWER,) * count,
        origins=tuple(kinds[each] for each in origins),
        weights_version=0,
    )


def learner(start: Path, folder: Path, **keys: object) -> PpoLearner:
    whole = recipe(start, folder, PpoRecipe, **keys)
    begun = StageStart(
        recipe=whole,
        stage=whole.section(PpoRecipe),
        folder=folder,
        model=load_model(start, dtype=torch.float32),
        tokenizer=Tokenizer.load(start),
        tokenizer_folder=start,
    )
    return Ppo().learner(begun)


def test_values_and_references_are_those_of_each_token_by_itself(start: Path, even: Even, tmp_path: Path) -> None:
    made = learner(start, tmp_path / "run", temperature=0.7)
    torch.nn.init.normal_(made.critic.head.weight)
    trajectories = [
        Trajectory(segments=(segment(5, "sseess", 10), segment(3, "sss", 50))),
        Trajectory(segments=(segment(9, "s", 100),)),
        Trajectory(segments=(segment(2, "ssssssss", 70),)),
    ]
    values, reference = made._read_all(trajectories)
    at = 0
    for each in (part for whole in trajectories for part in whole.segments):
        ids = torch.tensor([[*each.prompt_ids, *each.ids]])
        with torch.no_grad():
            hidden = made.model.hidden(ids)[0]
            logits = made.model(ids)[0] / 0.7
        for place, origin in enumerate(each.origins):
            before = len(each.prompt_ids) + place - 1  # the position that predicts the token
            sampled = origin is Origin.SAMPLED
            value = float(made.critic.values(hidden[before][None]).detach()) if sampled else 0.0
            logprob = float(logits[before].log_softmax(0)[each.ids[place]]) if sampled else 0.0
            assert float(values[at]) == pytest.approx(value, abs=1e-4)
            assert float(reference[at]) == pytest.approx(logprob, abs=1e-4)
            at += 1
    assert at == len(values)


def weights(folder: Path, name: str = "ppo") -> Mapping[str, torch.Tensor]:
    return load_file(folder / name / "model" / "model.safetensors")


def test_micro_batches_add_up(start: Path, even: Even, tmp_path: Path) -> None:
    one, other = (
        trained(start, tmp_path / str(rows), PpoRecipe, steps=2, epochs=2, batch=rows, critic_alone=0)
        for rows in (1, 12)
    )
    assert [each["loss"] for each in one] == pytest.approx([each["loss"] for each in other], abs=1e-5)
    assert [each["gradient"] for each in one] == pytest.approx([each["gradient"] for each in other], rel=1e-3)


def test_a_critic_that_explains_nothing_learns_alone(
    start: Path, even: Even, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "explained_variance", lambda values, returns: -1.0)
    records = trained(start, tmp_path / "alone", PpoRecipe, steps=2, critic_alone=5)
    before = load_model(start, dtype=torch.float32).state_dict()
    assert all(torch.equal(before[name], value) for name, value in weights(tmp_path / "alone").items())
    assert records[-1]["value_loss"] < records[0]["value_loss"]
    trained(start, tmp_path / "both", PpoRecipe, steps=2, critic_alone=1)
    assert any(not torch.equal(before[name], value) for name, value in weights(tmp_path / "both").items())


def test_rewards_rise_and_the_penalty_follows_its_target(start: Path, even: Even, tmp_path: Path) -> None:
    keys = {"steps": 14, "samples": 8, "prompts": 4, "batch": 8, "epochs": 2, "kl": 0.01, "critic_alone": 1}
    keys["optim"] = OptimRecipe(lr=1e-2, weight_decay=0.0)
    records = trained(start, tmp_path / "run", PpoRecipe, kl_target=1000.0, kl_horizon=100.0, **keys)
    assert records[0]["answer_kl"] == pytest.approx(0, abs=1e-3)
    assert records[1]["kl_coefficient"] == pytest.approx(0.01 * (1 - 0.2 * 32 / 100))
    first, last = (sum(each["reward"] for each in part) / 3 for part in (records[:3], records[-3:]))
    assert last > first + 0.03
    assert records[-1]["value_loss"] < records[0]["value_loss"]


def test_a_reward_model_becomes_the_critic(start: Path, tmp_path: Path) -> None:
    folder = tmp_path / "reward"
    folder.mkdir()
    head = ScoringHead(32, seed=3)
    write_scoring_model(ScoringModel(tiny_model(seed=2), head, ScoreScale(gain=0.5, bias=0.2)), folder)
    policy = tiny_model()
    critic = critic_for(PpoRecipe(critic=str(folder), sequence=64), policy)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        hidden = tiny_model(seed=2).hidden(ids)[0]
        expected = 0.5 + (0.5 * head(hidden) + 0.2) / 4
        torch.testing.assert_close(critic.values(critic.model.hidden(ids)[0]), expected)
    assert all(p.requires_grad for p in critic.parameters())
    with pytest.raises(RecipeError, match="256 positions"):
        critic_for(PpoRecipe(critic=str(folder), sequence=512), policy)


@pytest.mark.parametrize(
    ("kind", "keys", "said"),
    [
        (PpoRecipe, {"redraws": 1}, "redraws must be 0"),
        (PpoRecipe, {"kl": 0.0, "kl_target": 1.0}, "kl_target needs a weight"),
        (OnlineDpoRecipe, {"loss": Preference.KTO}, "must judge pairs"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, kind: type, keys: dict[str, object], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        recipe(tmp_path, tmp_path, kind, **keys)


# Online preferences ---------------------------------------------------------------------------------------------------


def test_the_loss_of_own_answers_by_hand() -> None:
    tokens = SampledTokens(
        old_N=torch.zeros(4),
        advantages_N=torch.zeros(4),
        weights_N=torch.tensor([0.5, 0.5, 0.5, 0.0]),
        trajectories_N=torch.tensor([0, 0, 1, 0]),
        reference_N=torch.tensor([-5.0, -6.0, -11.0, 7.0]),
    )
    loss, _ = preferred(OnlineDpoRecipe(), torch.tensor([-4.0, -6.0, -12.0, 3.0]), tokens)
    assert float(loss) == pytest.approx(0.5 * 0.598139, abs=1e-6)


def test_the_better_of_own_answers_get_likelier(start: Path, even: Even, tmp_path: Path) -> None:
    keys = {"steps": 14, "samples": 8, "prompts": 4, "batch": 8, "optim": OptimRecipe(lr=1e-2, weight_decay=0.0)}
    records = trained(start, tmp_path / "run", OnlineDpoRecipe, **keys)
    assert records[0]["loss"] == pytest.approx(0.693147, abs=1e-5)
    first, last = (sum(each["reward"] for each in part) / 3 for part in (records[:3], records[-3:]))
    assert last > first + 0.03


KEYS = {"steps": 3, "samples": 2, "epochs": 1, "kl_target": 0.1, "critic_alone": 1}


def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(start: Path, even: Even, tmp_path: Path) -> None:
    whole = trained(start, tmp_path / "whole", PpoRecipe, **KEYS)
    parts = recipe(start, tmp_path / "parts", PpoRecipe, minutes=0.0, **KEYS)
    killed_in_the_third_update(parts, "ponder.train.policy.stage.RolloutLearner")
    resumed = trained(start, tmp_path / "parts", PpoRecipe, **KEYS)
    for name in ("loss", "kl_coefficient", "answer_kl", "value_loss"):
        assert [each[name] for each in whole] == [each[name] for each in resumed]
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(one[name], other[name]) for name in one)
