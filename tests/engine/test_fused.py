"""When an engine runs the fused step, and with which weights. What it computes there, the tests of the engine ask of
every kernel."""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from ponder.engine import Engine, FailEvent, FinishEvent
from ponder.model.config import ModelConfig
from ponder.model.transformer import Transformer
from ponder.testing.tiny import tiny_model
from ponder.types import (
    ConfidenceStop,
    InvalidRequest,
    Origin,
    Phase,
    PhaseTokens,
    PonderError,
    SamplingParams,
    ThinkingLimits,
)

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
    with pytest.raises(InvalidRequest, match=r"kernel must be .*got 'fast'"):
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
        (MODEL, {"quantize": "int3"}, "must be 'int8' or 'int4'"),
    ],
)
def test_int8_weights_are_refused_where_the_fused_step_does_not_run(model, options, reason):
    with pytest.raises(InvalidRequest, match=reason):
        Engine(model, TOKENS, **{"quantize": "int8", **options})


# Sampling inside the step ------------------------------------------------------------------------------------------

FORMAT = PhaseTokens(
    think_open=300,
    think_close=301,
    state_open=302,
    fold=303,
    call_open=304,
    call_close=305,
    continuation=(310, 311),
    lead=(312,),
    end=(306,),
)
LOST = ThinkingLimits(confidence=ConfidenceStop(threshold=6.0, window=4, top=5))


class Even:
    """Ids divisible by two, then the end; gives up at the seventh."""

    def __init__(self, gives_up=False, seen=0):
        self.gives_up, self.seen = gives_up, seen

    def allowed(self):
        if self.gives_up and self.seen == 7:
            raise InvalidRequest("too many")
        allowed_V = torch.zeros(CONFIG.vocab_size, dtype=torch.bool)
        allowed_V[torch.arange(0, 290, 2) if self.seen < 9 else [306]] = True
        return allowed_V

    def advance(self, id):
        assert self.allowed()[id]
        self.seen += 1

    def fork(self):
        return Even(self.gives_up, self.seen)


def everything():
    """One request of each kind: (params, options of `submit`)."""
    think = {"start": Phase.THINK}
    yield params(1), {}
    yield params(2, temperature=0.0), {}
    yield params(3, temperature=0.6, top_k=20), {}
    yield params(4, top_p=0.8, min_p=0.01, temperature=1.5), think
    yield params(5, thinking=ThinkingLimits(cap=9)), think
    yield params(6, thinking=ThinkingLimits(floor=30), logit_bias=((301, 40.0),)), think
    yield params(7, answer_room=25, temperature=2.0), think
    yield params(8, thinking=LOST, temperature=3.0), think
    yield params(9, top_logprobs=6, logit_bias=((7, 9.0), (8, -3.0))), {}
    yield params(10), {"constraint": Even()}
    yield params(11, thinking=ThinkingLimits(cap=5), top_p=0.9), {"constraint": Even(), **think}
    yield params(12), {"constraint": Even(gives_up=True)}
    yield params(13, logit_bias=((302, 12.0), (303, 12.0)), temperature=0.9), think
    yield params(14, top_k=3, stop_ids=tuple(range(60))), {}
    yield params(15, frequency_penalty=0.7, presence_penalty=0.5, temperature=0.7), think
    yield params(16, repetition_penalty=1.4, temperature=0.0), {}


def outcome(threads):
    """What becomes of everything, running together on this number of threads."""
    torch.set_num_threads(threads)
    running = Engine(MODEL, FORMAT, kernel="fused", deterministic=True)
    for (chosen, options), prompt in zip(everything(), PROMPTS, strict=False):
        running.submit(prompt, chosen, **options)
    ends = []
    while running.has_work:
        for event in running.step():
            if isinstance(event, FailEvent):
                ends.append((event.request, str(event.error), event.so_far))
            elif isinstance(event, FinishEvent):
                ends.append((event.request, event.stop_reason, event))
    return ends


def test_sampling_inside_the_step_is_what_the_torch_rules_sample(watch_logits):
    inside = outcome(2)
    watch_logits(lambda ready, logits_SV: None)
    outside = outcome(2)
    assert len(inside) == len(list(everything()))
    forced = confident = 0
    for (request, why, end), (other_request, other_why, expected) in zip(inside, outside, strict=True):
        assert (request, why, end.ids, end.usage) == (other_request, other_why, expected.ids, expected.usage)
        for segment, other in zip(end.segments, expected.segments, strict=True):
            assert (segment.origins, segment.phases) == (other.origins, other.phases)
            assert segment.logprobs == pytest.approx(other.logprobs, abs=1e-5)
            assert [[id for id, _ in top] for top in segment.top_logprobs] == [
                [id for id, _ in top] for top in other.top_logprobs
            ]
            forced += segment.origins.count(Origin.FORCED)
        confident += request == 7 and Origin.FORCED in end.segment.origins
    assert forced > 20
    assert confident == 1
    assert sum("too many" in str(why) for _, why, _ in inside) == 1


def test_threads_change_no_bit():
    assert outcome(1) == outcome(2) == outcome(5) == outcome(1)


def test_a_forked_process_computes_and_ends():
    running = engine()
    expected = segments(running.generate(PROMPTS[:4], params()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 3.12 warns where a process has threads
        child = os.fork()
    if not child:
        try:
            same = segments(running.generate(PROMPTS[:4], params())) == expected
            del running
            os._exit(0 if same else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert segments(running.generate(PROMPTS[:4], params())) == expected


def test_two_engines_compute_at_once_in_two_threads():
    expected = segments(engine().generate(PROMPTS[:6], params()))
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(engine().generate, PROMPTS[:6], params()) for _ in range(2)]
        assert [segments(each.result()) for each in both] == [expected, expected]


def test_logits_that_are_not_finite_drop_every_request_and_the_engine_goes_on():
    model = lively_model().to(torch.bfloat16)
    running = engine(model)
    good = segments(running.generate(PROMPTS[:3], params()))
    with running.update_weights(), torch.no_grad():
        kept = model.model.norm.weight[0].clone()
        model.model.norm.weight[0] = float("nan")
    for prompt in PROMPTS[:3]:
        running.submit(prompt, params())
    with pytest.raises(PonderError, match=r"not finite.*bfloat16"):
        drain(running)
    assert not running.has_work
    with running.update_weights(), torch.no_grad():
        model.model.norm.weight[0] = kept
    assert segments(running.generate(PROMPTS[:3], params())) == good
