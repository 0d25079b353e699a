"""Passes of a fixed size that read everything from where it lies: on a CPU launched kernel by kernel, on a GPU as
recorded graphs. Every step of an engine gives what `Runner` gives."""

from array import array

import pytest
import torch

import ponder.engine.engine as engine_module
from ponder.engine import Engine, FinishEvent
from ponder.engine.blocks import CacheKey
from ponder.engine.graphs import GraphRunner, round_up
from ponder.engine.pages import Chunk, PagedKV, bytes_per_page
from ponder.engine.runner import Runner
from ponder.engine.scheduler import Step
from ponder.engine.sequence import Context
from ponder.kernels.fused import KernelChoice
from ponder.model.lora import add_lora, merge_lora
from ponder.testing.parity import TOLERANCE
from ponder.testing.tiny import ParrotModel, tiny_model
from ponder.types import CouncilTokens, InvalidRequest, Phase, PhaseTokens, SamplingParams, ThinkingLimits

PAGE = 16
TOKENS = PhaseTokens()
CHOICE = KernelChoice("torch", "")
PROMPTS = [[(7 * i * i + 3 * j) % 300 for j in range(1 + i)] for i in range(50)]  # across three page boundaries


def paged(model, num_pages, kind=PagedKV):
    return kind(model.config, num_pages, PAGE, model.compute_dtype, model.model.norm.weight.device)


class Twice(PagedKV):
    """What is copied here is copied in `other` too."""

    other: PagedKV

    def copy(self, source, target):
        super().copy(source, target)
        self.other.copy(source, target)


class Checked(GraphRunner):
    """Runs every step by both, each over separate pages, and holds the logits and the pages to be the same."""

    def __init__(self, model, num_pages, *, capture=False):
        super().__init__(model, paged(model, num_pages + 1, Twice), CHOICE, capture=capture)
        self.plain = Runner(model, paged(model, num_pages), CHOICE, deterministic=False)
        self.pages.other = self.plain.pages
        self.decoded = self.mixed = 0
        self.atol = TOLERANCE[model.compute_dtype]

    def forget(self):
        super().forget()
        for tensor in (*self.plain.pages.keys, *self.plain.pages.values):
            tensor.zero_()

    def logits(self, step):
        logits_SV = super().logits(step)
        torch.testing.assert_close(logits_SV, self.plain.logits(step), atol=self.atol, rtol=0)
        decodes = all(chunk.length == 1 for chunk in step.chunks)
        self.decoded, self.mixed = self.decoded + decodes, self.mixed + (not decodes)
        return logits_SV

    def assert_same_pages(self):
        mine, plain = ((*pages.keys, *pages.values) for pages in (self.pages, self.plain.pages))
        for a, b in zip(mine, plain, strict=True):
            torch.testing.assert_close(a[:-1], b, atol=self.atol, rtol=0)


@pytest.fixture
def opened(request, monkeypatch):
    """Engines run on a `Checked`, used again where it fits; it records where a test says so. All that were opened."""
    opened, capture = [], getattr(request, "param", False)

    def open_runner(model, num_pages, page_size, *, before=None, **options):
        if before is not None and before.fits(model, CHOICE):
            before.forget()
            return before
        opened.append(Checked(model, num_pages, capture=capture))
        return opened[-1]

    monkeypatch.setattr(engine_module, "open_runner", open_runner)
    return opened


def params(seed=0, n=24, **fields):
    return SamplingParams(max_tokens=n, seed=seed, **fields)


def drain(engine):
    finished = {}
    while engine.has_work:
        finished.update((event.request, event) for event in engine.step() if isinstance(event, FinishEvent))
    return finished


def ids(finishes):
    return [finish.ids for finish in finishes]


# What it computes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 7, 16, 50])
def test_contexts_of_every_length_at_every_size(batch, opened):
    running = Engine(tiny_model(), TOKENS, max_batch=batch)
    prompts = PROMPTS if batch > 3 else PROMPTS[10:20] + PROMPTS[28:34]
    running.generate(prompts, [params(i, 5 + i % 14) for i in range(len(prompts))])
    (runner,) = opened
    runner.assert_same_pages()
    assert runner.decoded > 10
    rows, pages = zip(*runner._passes, strict=True)
    assert round_up(batch) in rows
    assert {1, 2, 3} <= set(pages) if batch == 1 else max(pages) >= 3


def test_an_engine_gives_the_ids_that_it_gives_on_the_plain_runner(opened, monkeypatch):
    chosen = [params(i, temperature=0.7 * (i % 3)) for i in range(12)]
    on_graphs = Engine(tiny_model(), TOKENS, max_batch=9).generate(PROMPTS[20:32], chosen)
    assert opened[0].decoded > 20
    monkeypatch.undo()
    plain = Engine(tiny_model(), TOKENS, max_batch=9, kernel="torch").generate(PROMPTS[20:32], chosen)
    assert ids(on_graphs) == ids(plain)
    for a, b in zip(on_graphs, plain, strict=True):
        assert a.segment.logprobs == pytest.approx(b.segment.logprobs, abs=1e-4)


def test_forks_next_turns_chunks_and_preemptions(opened):
    """Pages are shared, copied, freed and written by others, and steps that only decode come between mixed ones."""
    model = tiny_model()
    memory = 22 * bytes_per_page(model.config, PAGE, model.compute_dtype)
    running = Engine(model, TOKENS, memory=memory, window=96, max_batch=9, step_tokens=24)
    requests = [running.submit(PROMPTS[30 + i], params(i, 40)) for i in range(3)]
    next_turn = running.open_next_turn(PROMPTS[49])
    for _ in range(14):
        running.step()
    requests += [running.fork(requests[i], seed=50 + i) for i in (0, 0, 2)]
    requests += [running.submit(PROMPTS[33 + i], params(i, 40)) for i in range(3)]
    running.close_next_turn(next_turn, PROMPTS[49])
    requests += [running.submit(PROMPTS[i], params(i)) for i in (49, 48, 2)]
    finished = drain(running)
    assert finished.keys() == set(requests)
    (runner,) = opened
    runner.assert_same_pages()
    assert runner.decoded > 10
    assert runner.mixed > 3
    counters = running.stats.counters
    assert counters.preemptions > 0
    assert counters.next_turn_tokens > 0
    assert running.stats.pages_used == 0


def test_a_step_with_nothing_ready_and_rows_of_one_token_that_are_no_decoding(opened):
    running = Engine(tiny_model(), TOKENS, step_tokens=1)
    assert ids(running.generate([PROMPTS[20]], params(3))) == ids(
        Engine(tiny_model(), TOKENS).generate([PROMPTS[20]], params(3))
    )
    assert (opened[0].decoded, opened[0].mixed) == (21 + 23, 0)


def test_rows_that_are_not_ready_may_stand_between_those_that_are():
    model = tiny_model()
    runner = Checked(model, 3)
    contexts = [Context(key=CacheKey(), tokens=[id], pages=array("i", [at])) for at, id in enumerate((5, 9, 30))]
    step = Step([Chunk(context.pages, 0, 1) for context in contexts], contexts)
    for rows in ([], [1], [0, 2], [0, 1, 2]):
        step.rows = rows
        assert len(runner.logits(step)) == len(rows)


def test_contexts_too_many_and_too_long_to_be_padded_alike_run_as_the_plain_runner_runs_them(opened, monkeypatch):
    monkeypatch.setattr("ponder.engine.graphs.MOST_PAGES", 12)
    running = Engine(tiny_model(), TOKENS)
    running.generate([PROMPTS[40], *PROMPTS[:5]], [params(i, 24 - 3 * i) for i in range(6)])
    sizes = opened[0]._passes.keys()
    assert opened[0].decoded > 20
    assert sizes
    assert all(rows * pages <= 12 for rows, pages in sizes)


def test_bfloat16(opened):
    Engine(tiny_model().to(torch.bfloat16), TOKENS).generate(PROMPTS[20:30], [params(i) for i in range(10)])
    assert opened[0].decoded > 20


def test_sizes_grow_by_a_third_or_a_half():
    sizes = sorted({round_up(count) for count in range(1, 2000)})
    assert sizes[:9] == [1, 2, 3, 4, 6, 8, 12, 16, 24]
    assert all(round_up(size) == size for size in sizes)
    assert all(count <= round_up(count) < 1.5 * count for count in range(3, 2000))


# Weights -----------------------------------------------------------------------------------------------------------


def optimizer_step(model):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model(torch.tensor([PROMPTS[40]], device=model.model.norm.weight.device)).square().mean().backward()
    optimizer.step()


def test_weights_that_change_in_place_are_computed_with(opened):
    model = tiny_model()
    running = Engine(model, TOKENS)
    before = running.generate(PROMPTS[20:24], params())
    sizes = set(opened[0]._passes)
    with running.update_weights():
        optimizer_step(model)
    after = running.generate(PROMPTS[20:24], params())
    assert len(opened) == 1, "the same runner goes on"
    assert sizes == set(opened[0]._passes)
    assert ids(after) == ids(Engine(model, TOKENS).generate(PROMPTS[20:24], params())) != ids(before)


def test_nothing_stays_in_the_pages_when_weights_change(opened):
    model = tiny_model()
    running = Engine(model, TOKENS)
    running.generate(PROMPTS[20:24], params())
    with running.update_weights():
        pass
    assert not any(tensor.any() for tensor in (*opened[0].pages.keys, *opened[0].pages.values))


@torch.no_grad()
def moved(model):
    weight = model.model.layers[1].mlp.up_proj.weight
    weight.data = weight.data.clone()


def replaced(model):
    weight = model.model.layers[0].input_layernorm.weight
    model.model.layers[0].input_layernorm.weight = torch.nn.Parameter(weight.detach() * 2)


def in_another_precision(model):
    model.to(torch.float64)


def computing_in_another_precision(model):
    model.compute_dtype = torch.bfloat16


def beside_an_adapter(model):
    add_lora(model, 2, 4.0)


@pytest.mark.parametrize(
    "change", [moved, replaced, in_another_precision, computing_in_another_precision, beside_an_adapter]
)
def test_what_was_recorded_is_void_when_the_model_reads_other_memory_or_computes_something_else(change):
    model = tiny_model()
    runner = GraphRunner(model, paged(model, 4), CHOICE, capture=False)
    optimizer_step(model)
    assert runner.fits(model, CHOICE), "an optimizer step moves nothing"
    change(model)
    assert not runner.fits(model, CHOICE)


def test_an_adapter_that_is_merged_or_set_apart_again_makes_it_void():
    model = tiny_model()
    add_lora(model, 2, 4.0)
    runner = GraphRunner(model, paged(model, 4), CHOICE, capture=False)
    assert runner.fits(model, CHOICE)
    merge_lora(model)
    assert not runner.fits(model, CHOICE)


def test_another_model_or_another_choice_needs_another_runner():
    model = tiny_model()
    runner = GraphRunner(model, paged(model, 4), CHOICE, capture=False)
    assert not runner.fits(tiny_model(), CHOICE)
    assert not runner.fits(model, KernelChoice("torch", "for another reason"))


def test_weights_that_moved_are_found_by_the_next_runner(opened):
    model = tiny_model()
    running = Engine(model, TOKENS)
    running.generate(PROMPTS[20:24], params())
    with running.update_weights():
        moved(model)
        optimizer_step(model)
    after = running.generate(PROMPTS[20:24], params())
    assert len(opened) == 2
    assert ids(after) == ids(Engine(model, TOKENS).generate(PROMPTS[20:24], params()))


# Graphs ------------------------------------------------------------------------------------------------------------


def test_a_gpu_gets_graphs_where_nothing_is_asked_that_they_cannot_do(monkeypatch):
    """Chosen as on a GPU, run as on a CPU."""
    monkeypatch.setattr("ponder.engine.kernel._on_gpu", lambda model: True)
    monkeypatch.setattr(GraphRunner.__init__, "__kwdefaults__", {"capture": False})
    model = tiny_model()
    assert Engine(model, TOKENS).kernel == ("cuda graphs", "")
    assert Engine(model, TOKENS, deterministic=True).kernel.kernel == "torch"
    assert Engine(model, TOKENS, kernel="torch").kernel == ("torch", "as asked")
    assert Engine(ParrotModel([1], 1), TOKENS).kernel.kernel == "torch"
    with pytest.raises(InvalidRequest, match="the model is not on the CPU"):
        Engine(model, TOKENS, quantize="int8")
    plain = Engine(model, TOKENS, kernel="torch").generate(PROMPTS[:5], params())
    assert ids(Engine(model, TOKENS).generate(PROMPTS[:5], params())) == ids(plain)


@pytest.mark.cuda
@pytest.mark.parametrize("opened", [True], indirect=True)
def test_recorded_graphs_give_what_the_plain_runner_gives_and_follow_the_weights(opened):
    model = tiny_model().to("cuda")
    running = Engine(model, TOKENS, max_batch=9, step_tokens=24)

    def generate():
        requests = [running.submit(prompt, params(i, 10 + i)) for i, prompt in enumerate(PROMPTS[20:36])]
        running.step()
        running.fork(requests[0], seed=99)
        drain(running)

    generate()
    (first,) = opened
    assert first.decoded > 10
    graphs = {size: known.graph for size, known in first._passes.items()}
    assert len(graphs) > 3
    assert None not in graphs.values()
    with running.update_weights():
        optimizer_step(model)
    generate()
    assert opened == [first], "the graphs go on, with the weights as they are now"
    assert graphs.items() <= {size: known.graph for size, known in first._passes.items()}.items()
    with running.update_weights():
        moved(model)
    generate()
    assert len(opened) == 2
    assert opened[1].decoded > 10


def test_the_voices_of_a_council_are_rows_of_a_pass(opened):
    tokens = CouncilTokens(
        spawn=300, numbers=tuple(range(301, 309)), address=309, leave=310, join=311, closing=(), banned=()
    )
    running = Engine(tiny_model(), PhaseTokens(think_open=312, think_close=313, council=tokens))
    for voices in (2, 3, 8):
        bias = ((310, 3.0), (311, -9.0))
        chosen = params(voices, 50, thinking=ThinkingLimits(voices=8), logit_bias=bias)
        running.submit([*PROMPTS[20], 300, 300 + voices], chosen, start=Phase.THINK)
    assert len(drain(running)) == 3
    (runner,) = opened
    runner.assert_same_pages()
    assert any(rows > 3 for rows, _ in runner._passes)
