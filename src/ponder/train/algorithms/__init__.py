"""The training algorithms, one file each. The registry below has their stages, in the order in which they run."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from ponder.train.loop.stage import Algorithm

_CLASSES = (
    "tokenizer.BytePairs",
    "pretrain.Pretrain",
    "sft.Sft",
    "reward.RewardTraining",
    "process.ProcessTraining",
    "dpo.Dpo",
    "grpo.Grpo",
    "rejection.Rejection",
    "pass_at_k.PassAtK",
    "online_dpo.OnlineDpo",
    "ppo.Ppo",
    "distill.Distill",
)


def _made(name: str) -> Algorithm[Any]:
    module, _, cls = name.partition(".")
    algorithm: Algorithm[Any] = getattr(import_module(f"{__name__}.{module}"), cls)()
    return algorithm


ALGORITHMS: Mapping[str, Algorithm[Any]] = {algorithm.name: algorithm for algorithm in map(_made, _CLASSES)}
"""Every algorithm by the name of its stage."""
