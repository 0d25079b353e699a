"""What the engine reports against what training computes: the same model, the same tokens, by two programs.

Axes: T tokens that were generated, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ponder.model.transformer import Transformer
from ponder.types import Segment

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1}  # nats at temperature 1, by what a `tiny_model` computes in


@torch.no_grad()
def training_logprobs(model: Transformer, segment: Segment, temperature: float = 1.0) -> Tensor:
    """What the training forward gives every id at each generated place: (T, V) in float32, on the CPU. A temperature of
    0 is reported as 1."""
    ids_1T = torch.tensor([segment.prompt_ids + segment.ids], device=model.model.embed_tokens.weight.device)
    logits_TV = model(ids_1T)[0, len(segment.prompt_ids) - 1 : -1].float().cpu()
    return (logits_TV / (temperature or 1.0)).log_softmax(-1)


def assert_logprobs_are_those_of_training(
    model: Transformer, segment: Segment, temperature: float = 1.0, *, atol: float | None = None
) -> None:
    """atol: nats at temperature 1; None: more than rounding does to a `tiny_model`."""
    expected_T = training_logprobs(model, segment, temperature).gather(-1, torch.tensor(segment.ids)[:, None])[:, 0]
    atol = TOLERANCE[model.compute_dtype] if atol is None else atol
    torch.testing.assert_close(torch.tensor(segment.logprobs), expected_T, atol=atol / (temperature or 1.0), rtol=0)
