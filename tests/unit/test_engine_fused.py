"""The engine over the fused step: pages that run out, forks, cached prefixes and new weights, bit for bit."""

import pytest
import torch

from ponder.engine import Engine, FinishEvent
from ponder.engine.pages import bytes_per_page
from ponder.model.config import ModelConfig
from ponder.model.transformer import Transformer
from ponder.testing.tiny import tiny_model
from ponder.types import InvalidRequest, PhaseTokens, SamplingParams

TOKENS = PhaseTokens()
CONFIG = ModelConfig(
    vocab_size=320,
    hidden_size=64,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=32,
    intermediate_size=96,
    max_positions=512,
)
PROMPTS = [[(7 * i * i + 3 * j) % 290 for j in range(2 + 5 * i % 70)] for i in range(20)]


def lively_model():
    """Its samples vary and its most likely token stands out."""
    model = Transformer(CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6)
    return model


MODEL = lively_model().to(torch.bfloat16)
pytestmark = pytest.mark.skipif(
    Engine(MODEL, TOKENS).kernel.kernel == "torch", reason=Engine(MODEL, TOKENS).kernel.reason
)


def engine(model=MODEL, **options):
    return Engine(model, TOKENS, kernel="fused", deterministic=True, **options)


def params(seed=0, n=40, **fields):
    return SamplingParams(max_tokens=n, seed=seed, **fields)


def drain(running, on_event=lambda event: None):
    finished = {}
    while running.has_work:
        for event in running.step():
            on_event(event)
            if isinstance(event, FinishEvent):
                finished[event.request] = event
    return finished


def segments(finishes):
    return [(finish.ids, finish.segment.logprobs) for finish in finishes]


def test_preemptions_change_no_bit():
    chosen = [params(i, 60) for i in range(len(PROMPTS))]
    expected = engine().generate(PROMPTS, chosen)
    assert len({finish.ids for finish in expected}) == len(PROMPTS)
    short = engine(memory=14 * bytes_per_page(CONFIG, 16, torch.bfloat16), window=160, max_batch=12, step_tokens=50)
    assert segments(short.generate(PROMPTS, chosen)) == segments(expected)
    assert short.stats.counters.preemptions > 10


def test_forks_and_cached_prefixes_change_no_bit():
    expected = engine().generate([PROMPTS[11]], params(3))[0]
    running = engine(step_tokens=20)
    running.generate([[*PROMPTS[11], 5]], params(8))
    requests = [running.submit(PROMPTS[11], params(3)), running.submit(PROMPTS[5], params(4))]
    for _ in range(9):
        running.step()
    requests += [running.fork(requests[0], seed=3), running.fork(requests[0], seed=99)]
    finished = drain(running)
    assert finished[requests[0]].usage.cached_tokens == 48
    assert segments([finished[requests[0]], finished[requests[2]]]) == segments([expected] * 2)
    assert finished[requests[3]].ids[:9] == expected.ids[:9]
    assert finished[requests[3]].ids != expected.ids


def test_training_weights_of_float32_that_compute_in_bfloat16_are_packed_again_after_a_step():
    model = lively_model()
    model.compute_dtype = torch.bfloat16
    running = engine(model)
    before = running.generate(PROMPTS[:4], params())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    with running.update_weights():
        model(torch.tensor([PROMPTS[7]])).float().square().mean().backward()
        optimizer.step()
    after = running.generate(PROMPTS[:4], params())
    assert running.kernel.kernel != "torch"
    assert segments(after) == segments(engine(model).generate(PROMPTS[:4], params())) != segments(before)


def test_the_kernel_follows_the_model_to_another_precision():
    model = lively_model()
    running = Engine(model, TOKENS)
    assert running.kernel == ("torch", "the model computes in float32; the fused step is for bfloat16")
    with running.update_weights():
        model.to(torch.bfloat16)
    assert running.kernel.kernel != "torch"
    with running.update_weights():
        model.float()
    assert running.kernel.kernel == "torch"
    assert len(running.generate([PROMPTS[3]], params())[0].ids) == 40


def test_a_kernel_that_cannot_run_is_refused_with_the_reason():
    with pytest.raises(InvalidRequest, match="computes in float32"):
        Engine(tiny_model(), TOKENS, kernel="fused")
    with pytest.raises(InvalidRequest, match="kernel is 'fast'"):
        Engine(tiny_model(), TOKENS, kernel="fast")


def test_int8_weights_follow_an_update_and_change_no_bit_between_batches():
    model = lively_model().to(torch.bfloat16)
    running = engine(model, quantize="int8")
    before = segments(running.generate(PROMPTS[:4], params()))
    assert before != segments(engine(model).generate(PROMPTS[:4], params())), "8 bits are fewer than 16"
    with running.update_weights(), torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.mul_(-1)
    after = segments(running.generate(PROMPTS[:4], params()))
    assert after == segments(engine(model, quantize="int8").generate(PROMPTS[:4], params())) != before
    assert segments(running.generate(PROMPTS, params()))[:4] == after


@pytest.mark.parametrize(
    ("model", "options", "reason"),
    [
        (tiny_model(), {}, "computes in float32"),
        (MODEL, {"kernel": "torch"}, "as asked"),
        (MODEL, {"quantize": "int4"}, "choose 'int8'"),
    ],
)
def test_int8_weights_are_refused_where_the_fused_step_does_not_run(model, options, reason):
    with pytest.raises(InvalidRequest, match=reason):
        Engine(model, TOKENS, **{"quantize": "int8", **options})
