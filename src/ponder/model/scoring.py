"""A score for a text: a transformer with one number for a head, stored as transformers' sequence classification is.

The folder holds config.json, the weights with `score.weight` among them, and reward.json, which says how scores are to
be read.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ponder.model.checkpoint import CONFIG, open_tensors, read_json, write_json, write_tensors
from ponder.model.config import ModelConfig
from ponder.model.hf_config import config_from_hf, config_to_hf
from ponder.model.transformer import LoadedFrom, Transformer
from ponder.types import CheckpointError

HEAD = "score.weight"
RECORD = "reward.json"
_KIND = "ForSequenceClassification"


class Reads(StrEnum):
    """What a head was trained on.

    ANSWER: the visible conversation, scored at the end of its last turn.
    STEPS: the last turn with its thinking, scored at the end of each step.
    """

    ANSWER = "answer"
    STEPS = "steps"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreScale:
    """How the scores of a head are to be read: gain x score + bias.

    For Reads.ANSWER that has the mean 0 and the deviation 1 on reference answers; for Reads.STEPS it is a log-odds.
    shortest, longest: the numbers of ids of what the head was trained on; 0: not known.
    """

    reads: Reads = Reads.ANSWER
    gain: float = 1.0
    bias: float = 0.0
    shortest: int = 0
    longest: int = 0

    def __call__(self, score: float) -> float:
        return self.gain * score + self.bias


class ScoringHead(nn.Module):
    """One number for each hidden state. It stands beside the transformer, whose own head it does not touch."""

    def __init__(self, hidden_size: int, *, seed: int = 0) -> None:
        """Normal, deviation 1 / sqrt(hidden_size + 1) (arXiv 1909.08593)."""
        super().__init__()
        generator = torch.Generator("cpu").manual_seed(seed)
        deviation = 1 / math.sqrt(hidden_size + 1)
        self.weight = nn.Parameter(torch.empty(1, hidden_size).normal_(0.0, deviation, generator=generator))

    def forward(self, x_ND: Tensor) -> Tensor:
        """scores_N, float32."""
        return x_ND.float() @ self.weight[0].float()


@dataclass(frozen=True, slots=True)
class ScoringModel:
    """A transformer, the head that reads its last hidden states, and what the scores mean."""

    model: Transformer
    head: ScoringHead
    scale: ScoreScale

    @torch.no_grad()
    def scores(self, ids: Sequence[int], places: Sequence[int] = (-1,)) -> list[float]:
        """The scores, without gain and bias, at these places of one sequence. It is computed alone, so that a score
        does not depend on what else is scored."""
        device = next(self.model.parameters()).device
        h_TD = self.model.hidden(torch.tensor([list(ids)], device=device))[0]
        scores: list[float] = self.head(h_TD[list(places)]).tolist()
        return scores


def is_scoring_model(folder: str | Path) -> bool:
    """Whether a folder holds a model for sequence classification."""
    path = Path(folder) / CONFIG
    return path.is_file() and any(map(_is_kind, _architectures(read_json(path))))


def write_scoring_model(scoring: ScoringModel, folder: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Put the files into a folder that exists, for use inside `atomic_folder`."""
    config = _without_output(scoring.model.config)
    shapes = config.parameter_shapes()
    tensors = {name: p.detach() for name, p in scoring.model.named_parameters() if name in shapes}
    write_tensors({**tensors, HEAD: scoring.head.weight.detach()}, folder, dtype=dtype)
    raw = config_to_hf(config) | {
        "architectures": [config.family.architecture.replace("ForCausalLM", _KIND)],
        "id2label": {"0": "reward"},
        "label2id": {"reward": 0},
        "torch_dtype": str(dtype).removeprefix("torch."),
    }
    write_json(folder / CONFIG, raw)
    write_json(folder / RECORD, asdict(scoring.scale))


def load_scoring_model(folder: str | Path, *, device: str | torch.device = "cpu") -> ScoringModel:
    """Load a folder, in float32. One that transformers or TRL wrote has no reward.json, and the scale 1.

    Raises CheckpointError naming file and key for what is not a whole model with one score.
    """
    folder = Path(folder)
    raw = read_json(folder / CONFIG)
    config = scoring_config(raw, str(folder / CONFIG))
    shapes = {**config.parameter_shapes(), HEAD: (1, config.hidden_size)}
    with ExitStack() as stack:
        stored = open_tensors(folder, shapes, stack)
        tensors = {name: stored[name].read().to(device, torch.float32) for name in shapes}
    with torch.device("meta"):
        model = Transformer(config)
    head = ScoringHead(config.hidden_size)
    head.load_state_dict({"weight": tensors.pop(HEAD)}, assign=True)
    model.load_state_dict(tensors, assign=True)
    model.loaded_from = LoadedFrom(os.path.abspath(folder), torch.float32)
    return ScoringModel(model.to(device).eval(), head.eval().requires_grad_(False), load_scale(folder))


def scoring_config(raw: dict[str, Any], source: str) -> ModelConfig:
    """The sizes of a model for sequence classification with one label. Raises CheckpointError."""
    architectures = _architectures(raw)
    if len(architectures) != 1 or not _is_kind(architectures[0]):
        raise CheckpointError(
            f"{source}: key 'architectures': must be one that ends in {_KIND} (got {raw.get('architectures')!r:.120}): "
            "name the folder of a reward model"
        )
    labels = raw.get("id2label")
    count = len(labels) if isinstance(labels, dict) else raw.get("num_labels", 2)
    if count != 1:
        raise CheckpointError(f"{source}: key 'id2label': must have one label (got {count}): a reward is one number")
    plain = {**raw, "architectures": [architectures[0].replace(_KIND, "ForCausalLM")]}
    return _without_output(config_from_hf(plain, source=source))


def _architectures(raw: dict[str, Any]) -> list[str]:
    named = raw.get("architectures")
    return [name for name in named if isinstance(name, str)] if isinstance(named, list) else []


def _is_kind(architecture: str) -> bool:
    return architecture.endswith(_KIND)


def _without_output(config: ModelConfig) -> ModelConfig:
    """There is no projection to the vocabulary."""
    return replace(config, tie_embeddings=True)


def load_scale(folder: Path) -> ScoreScale:
    """Raises CheckpointError."""
    path = folder / RECORD
    if not path.is_file():
        return ScoreScale()
    raw = read_json(path)
    try:
        made = ScoreScale(**{**raw, "reads": Reads(raw["reads"])})
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: is not the record of a reward model ({error}): train it again") from error
    numbers = (made.gain, made.bias, made.shortest, made.longest)
    if not all(isinstance(each, int | float) and math.isfinite(each) for each in numbers):
        raise CheckpointError(f"{path}: must hold finite numbers (got {raw}): train it again")
    return made
