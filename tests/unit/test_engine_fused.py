"""When the engine chooses the fused step. What it computes there, every engine test asks of every kernel."""

import pytest
import torch

from ponder.engine import Engine
from ponder.testing.tiny import tiny_model
from ponder.types import InvalidRequest, PhaseTokens, SamplingParams

TOKENS = PhaseTokens()
PROMPTS = [[(7 * i * i + 3 * j) % 290 for j in range(2 + 5 * i % 70)] for i in range(8)]
PARAMS = SamplingParams(max_tokens=40, seed=0)
pytestmark = [pytest.mark.usefixtures("kernel"), pytest.mark.parametrize("kernel", ["fused"], indirect=True)]


def generate(engine):
    return [(finish.ids, finish.segment.logprobs) for finish in engine.generate(PROMPTS, PARAMS)]


def test_training_weights_of_float32_that_compute_in_bfloat16_are_packed_again_after_a_step():
    model = tiny_model().float()
    model.compute_dtype = torch.bfloat16
    running = Engine(model, TOKENS, kernel="fused")
    before = generate(running)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    with running.update_weights():
        model(torch.tensor([PROMPTS[7]])).float().square().mean().backward()
        optimizer.step()
    assert generate(running) == generate(Engine(model, TOKENS, kernel="fused")) != before


def test_the_kernel_follows_the_model_to_another_precision():
    model = tiny_model().float()
    running = Engine(model, TOKENS)
    assert running.kernel == ("torch", "the model computes in float32; the fused step is for bfloat16")
    with running.update_weights():
        model.to(torch.bfloat16)
    assert running.kernel.kernel != "torch"
    with running.update_weights():
        model.float()
    assert running.kernel.kernel == "torch"
    assert len(generate(running)[0][0]) == 40


def test_a_kernel_that_cannot_run_is_refused_with_the_reason():
    with pytest.raises(InvalidRequest, match="computes in float32"):
        Engine(tiny_model().float(), TOKENS, kernel="fused")
    with pytest.raises(InvalidRequest, match="kernel is 'fast'"):
        Engine(tiny_model(), TOKENS, kernel="fast")
