"""Advantages and policy losses against TRL's own trainers, on the same numbers. Skipped without trl: `make test-peers`.

TRL computes both inside its trainers. A real one stands over a tiny random model; its rewards, and for the loss its
log-probabilities, are put in from outside.
"""

import os
import warnings
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ponder.train.policy.losses import Baseline, Ratio, Weighting, group_advantages, policy_loss, token_weights
from ponder.train.policy.preference import centring_loss, ranking_loss

GOLDEN = Path(__file__).parents[1] / "golden" / "families" / "qwen3"
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("default")]
PROMPTS, SAMPLES, LONGEST = 2, 4, 7
# Ponder's name of a weighting, TRL's name of the loss that has it. Their GRPO loss also divides what ours adds up over
# micro-batches; with one of each they are the same number.
WEIGHTINGS = {"grpo": Weighting.TRAJECTORY, "bnpo": Weighting.TOKEN, "dapo": Weighting.TOKEN}
WEIGHTINGS["dr_grpo"] = Weighting.CONSTANT


@pytest.fixture(scope="module")
def trainer_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """trainer_of("GRPO", **options of its config): over a tiny model on the CPU, in float32."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trl = pytest.importorskip("trl")
        transformers = pytest.importorskip("transformers")
        datasets = pytest.importorskip("datasets")
        os.environ.setdefault("HF_HUB_OFFLINE", "1")

    def make(kind: str, **options: Any) -> Any:
        tokenizer = transformers.AutoTokenizer.from_pretrained(GOLDEN)
        config = transformers.AutoConfig.for_model(
            "qwen3",
            vocab_size=-(-len(tokenizer) // 32) * 32,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        arguments = getattr(trl, f"{kind}Config")(
            output_dir=str(tmp_path_factory.mktemp("trl")),
            per_device_train_batch_size=PROMPTS * SAMPLES,
            num_generations=SAMPLES,
            max_completion_length=LONGEST,
            use_cpu=True,
            bf16=False,
            report_to=[],
            **options,
        )
        return getattr(trl, f"{kind}Trainer")(
            model=transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32),
            reward_funcs=lambda completions, reward, **_: reward,
            args=arguments,
            train_dataset=datasets.Dataset.from_list([{"prompt": "one", "reward": 0.0}] * PROMPTS),
            processing_class=tokenizer,
        )

    return make


@pytest.mark.parametrize(
    ("baseline", "kind", "options"),
    [
        (Baseline.GRPO, "GRPO", {"scale_rewards": "group"}),
        (Baseline.DR_GRPO, "GRPO", {"scale_rewards": "none"}),
        (Baseline.RLOO, "RLOO", {"normalize_advantages": False, "beta": 0.0}),
    ],
)
def test_advantages_are_trls(
    trainer_of: Callable[..., Any], baseline: Baseline, kind: str, options: dict[str, Any]
) -> None:
    rewards_PS = torch.tensor([[0.0, 1.0, 1.0, 0.25], [0.0, 0.0, 0.0, 1.0]])
    trainer = trainer_of(kind, **options)
    inputs = [{"prompt": f"count to {p}", "reward": float(r)} for p in range(PROMPTS) for r in rewards_PS[p]]
    theirs = trainer._generate_and_score_completions(inputs)["advantages"]
    torch.testing.assert_close(group_advantages(rewards_PS, baseline).flatten(), theirs, rtol=1e-5, atol=1e-6)


class Batch:
    """Answers of several lengths as TRL has them, padded, and as Ponder has them, flat."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        rows = PROMPTS * SAMPLES
        self.lengths_M = torch.tensor([1, LONGEST, 3, 5, 2, LONGEST, 4, 6])
        self.mask_MT = torch.arange(LONGEST) < self.lengths_M[:, None]
        self.advantages_M = torch.randn(rows, generator=generator)
        self.old_MT = -torch.rand(rows, LONGEST, generator=generator) * 3
        self.new_MT = self.old_MT + 0.3 * torch.randn(rows, LONGEST, generator=generator)
        self.reference_MT = self.old_MT + 0.2 * torch.randn(rows, LONGEST, generator=generator)
        self.trajectories_N = torch.arange(rows)[:, None].expand(-1, LONGEST)[self.mask_MT]

    def inputs(self) -> dict[str, torch.Tensor]:
        rows = len(self.lengths_M)
        return {
            "prompt_ids": torch.ones(rows, 2, dtype=torch.long),
            "prompt_mask": torch.ones(rows, 2, dtype=torch.long),
            "completion_ids": torch.ones(rows, LONGEST, dtype=torch.long),
            "completion_mask": self.mask_MT.long(),
            "advantages": self.advantages_M,
            "old_per_token_logps": self.old_MT,
            "ref_per_token_logps": self.reference_MT,
            "num_items_in_batch": self.lengths_M.sum(),
        }


@pytest.mark.parametrize("kl", [0.0, 0.04])
@pytest.mark.parametrize("ratio", Ratio)
@pytest.mark.parametrize("loss_type", WEIGHTINGS)
def test_losses_and_gradients_are_trls(trainer_of: Callable[..., Any], loss_type: str, ratio: Ratio, kl: float) -> None:
    trainer = trainer_of(
        "GRPO", loss_type=loss_type, importance_sampling_level=str(ratio), epsilon=0.2, epsilon_high=0.28
    )
    trainer.beta = kl  # given to its config, it would load a reference model by name
    trainer.args.use_bias_correction_kl = False  # TRL's default follows arXiv 2512.02556, not GRPO's equation 4
    trainer.current_gradient_accumulation_steps = 1
    batch = Batch(seed=3)
    theirs_MT = batch.new_MT.clone().requires_grad_()
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (theirs_MT, torch.zeros_like(theirs_MT), None)
    expected = trainer._compute_loss(trainer.model, batch.inputs())
    expected.backward()

    ours_MT = batch.new_MT.clone().requires_grad_()
    mask, rows_N = batch.mask_MT, batch.trajectories_N
    weights_M = token_weights(batch.lengths_M, WEIGHTINGS[loss_type], LONGEST)
    loss, stats = policy_loss(
        ours_MT[mask],
        batch.old_MT[mask],
        batch.advantages_M[rows_N],
        weights_M[rows_N],
        clip_low=0.2,
        clip_high=0.28,
        ratio=ratio,
        trajectories_N=rows_N,
        reference_N=batch.reference_MT[mask] if kl else None,
        kl=kl,
    )
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    assert theirs_MT.grad is not None
    torch.testing.assert_close(ours_MT.grad, theirs_MT.grad, rtol=1e-4, atol=1e-7)
    metrics = SimpleNamespace(**{key.replace("/", "_"): value for key, value in trainer._metrics["train"].items()})
    if loss_type in ("bnpo", "dapo") and ratio is Ratio.TOKEN:  # the weighting under which both take the same mean
        assert float(stats.clipped) == pytest.approx(metrics.clip_ratio_region_mean[-1], abs=1e-6)
        if kl:
            assert float(stats.reference_kl) == pytest.approx(metrics.kl[-1], rel=1e-5)


@pytest.mark.parametrize(("margin", "centring"), [(None, None), ([0.5, 0.0, 1.0, 0.25], None), (None, 0.01)])
def test_the_loss_of_rewards_is_trls(margin: list[float] | None, centring: float | None) -> None:
    """`RewardTrainer.compute_loss` over a model whose scores are put in from outside."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trl = pytest.importorskip("trl")
        compute_loss = trl.RewardTrainer.compute_loss
    scores_M = torch.randn(8, generator=torch.Generator().manual_seed(3))  # better ones, then worse ones
    theirs_M, ours_M = (scores_M.clone().requires_grad_() for _ in range(2))
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=False),
        args=SimpleNamespace(center_rewards_coefficient=centring),
        accelerator=SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x),
        _total_train_tokens=0,
        _metrics={"eval": defaultdict(list)},
    )
    inputs = {} if margin is None else {"margin": torch.tensor(margin)}
    loss = compute_loss(trainer, lambda **_: SimpleNamespace(logits=theirs_M[:, None]), inputs)
    loss.backward()
    groups_M, ranks_M = torch.arange(4).repeat(2), torch.tensor([1] * 4 + [2] * 4)
    margins_G, weights_G = torch.tensor(margin or [0.0] * 4), torch.ones(4)
    ranked, stats = ranking_loss(ours_M, groups_M, ranks_M, margins_G, weights_G)
    ours = (ranked + (centring or 0.0) * centring_loss(ours_M, groups_M, weights_G)) / 4
    ours.backward()
    torch.testing.assert_close(ours, loss)
    torch.testing.assert_close(ours_M.grad, theirs_M.grad)
    (accuracy,) = trainer._metrics["eval"]["accuracy"]
    assert float(stats.right / stats.pairs) == pytest.approx(accuracy)
