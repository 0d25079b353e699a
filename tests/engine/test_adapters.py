"""Many adapters over one base in one batch: each request is what its adapter computes alone, and no cache is shared."""

from pathlib import Path

import pytest
import torch

from ponder.engine import Engine, FinishEvent
from ponder.engine.kernel import FusedRunner
from ponder.model.lora import Adapter, add_lora, carried_adapter, load_lora, read_adapter, remove_lora, save_lora
from ponder.model.transformer import Transformer
from ponder.testing.parity import assert_logprobs_are_those_of_training
from ponder.types import InvalidRequest, PhaseTokens, SamplingParams

TARGETS = {"a": ("q_proj", "v_proj"), "b": ("k_proj", "gate_proj", "down_proj"), "c": ("o_proj", "up_proj", "q_proj")}
RANKS = {"a": 1, "b": 5, "c": 8}
PROMPT = [5, 9, 2, 77, 30, 121, 8, 64, 3, 250, 17, 33, 90, 41, 7, 12, 60, 100]


def saved(model: Transformer, name: str, folder: Path) -> Path:
    """An adapter that changes what the model says; the model stays as it was."""
    generator = torch.Generator().manual_seed(len(name) + RANKS[name])
    for parameter in add_lora(model, RANKS[name], 2.0 * RANKS[name], TARGETS[name]):
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    save_lora(model, folder / name)
    remove_lora(model)
    return folder / name


def with_adapters(kernel, folder: Path, **options: object) -> tuple[Engine, dict[str, Path]]:
    model = kernel.tiny_model()
    folders = {name: saved(model, name, folder) for name in TARGETS}
    engine = kernel.engine(model, PhaseTokens(), **{"deterministic": True, **options})
    for name, each in folders.items():
        engine.add_adapter(name, read_adapter(model, each))
    return engine, folders


def finished(engine: Engine, asked: list[str], prompts: list[list[int]] | None = None) -> list[FinishEvent]:
    """What each request gives, all of them at once."""
    prompts = prompts or [PROMPT] * len(asked)
    numbers = [
        engine.submit(prompt, SamplingParams(max_tokens=24, seed=7), adapter=name)
        for name, prompt in zip(asked, prompts, strict=True)
    ]
    done = {}
    while engine.has_work:
        done |= {event.request: event for event in engine.step() if isinstance(event, FinishEvent)}
    return [done[number] for number in numbers]


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_each_request_of_a_mixed_batch_is_what_it_is_alone(kernel, tmp_path: Path, quantize: str | None) -> None:
    if quantize and kernel.name != "fused":
        pytest.skip("rounded weights are for the fused step")
    engine, _ = with_adapters(kernel, tmp_path, quantize=quantize, share_prefixes=False)
    asked = ["a", "", "b", "c", "", "a", "c"]
    prompts = [PROMPT[: 3 + 2 * at] * (1 + at % 3) for at in range(len(asked))]
    together = finished(engine, asked, prompts)
    assert len({tuple(event.ids) for event in together}) > 4
    for name, prompt, event in zip(asked, prompts, together, strict=True):
        (alone,) = finished(engine, [name], [prompt])
        assert alone.ids == event.ids
        assert alone.segment.logprobs == event.segment.logprobs  # to the last bit


def test_the_base_beside_adapters_is_the_base_without_any(kernel, tmp_path: Path) -> None:
    engine, _ = with_adapters(kernel, tmp_path)
    bare = kernel.engine(engine.model, PhaseTokens(), deterministic=True)
    (expected,) = finished(bare, [""])
    beside = finished(engine, ["a", "", "b"])[1]
    assert (beside.ids, beside.segment.logprobs) == (expected.ids, expected.segment.logprobs)


def test_an_adapter_computes_what_training_computes(kernel, tmp_path: Path) -> None:
    engine, folders = with_adapters(kernel, tmp_path)
    asked = [*folders]
    for name, event in zip(asked, finished(engine, asked), strict=True):
        load_lora(engine.model, folders[name])
        assert_logprobs_are_those_of_training(engine.model, event.segment)
        remove_lora(engine.model)


def test_cached_prefixes_are_an_adapters_own(kernel, tmp_path: Path) -> None:
    engine, _ = with_adapters(kernel, tmp_path)
    cached = []
    for name in ("a", "b", "", "a", "b", ""):
        finished(engine, [name])
        cached.append(engine.stats.counters.cached_tokens - sum(cached))
    assert cached == [0, 0, 0, 16, 16, 16]


def test_weights_are_not_copied(kernel, tmp_path: Path) -> None:
    engine, _ = with_adapters(kernel, tmp_path)
    finished(engine, ["a", "b", "c"])
    if kernel.name == "fused":
        assert isinstance(engine._runner, FusedRunner)
        assert {*engine._runner._packed} == {"a", "b", "c"}
    else:
        own = {each.data_ptr() for each in engine.model.parameters()}
        assert {each.data_ptr() for each in engine._runner._adapted_model.parameters()} == own


def test_names_are_checked(kernel, tmp_path: Path) -> None:
    engine, folders = with_adapters(kernel, tmp_path)
    with pytest.raises(InvalidRequest, match=r"no adapter 'd' \(there are: a, b, c\)"):
        engine.submit(PROMPT, SamplingParams(), adapter="d")
    with pytest.raises(InvalidRequest, match="must be new"):
        engine.add_adapter("a", read_adapter(engine.model, folders["a"]))
    with pytest.raises(InvalidRequest, match="must be new"):
        engine.add_adapter("", read_adapter(engine.model, folders["a"]))


def test_a_model_in_training_samples_with_the_adapter_that_it_carries(kernel, tmp_path: Path) -> None:
    """As rollouts do: frozen projections in 16 bits beside an embedding in 32, and an adapter that changes."""
    if kernel.name != "fused":
        pytest.skip("torch runs the very modules that train")
    model = kernel.tiny_model().float()
    model.compute_dtype = torch.bfloat16
    trained = add_lora(model, 4, 8.0)
    for name, parameter in model.named_parameters():
        if name.endswith("_proj.weight"):
            parameter.data = parameter.data.bfloat16()
    engine = kernel.engine(model, PhaseTokens())
    assert engine.kernel.kernel != "torch"
    said, packed = [], []
    for _ in range(2):
        (event,) = finished(engine, [""])
        assert_logprobs_are_those_of_training(model, event.segment)
        said.append(event.ids)
        packed.append(engine._runner.pages._packed)
        with engine.update_weights(), torch.no_grad():
            for parameter in trained:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    assert said[0] != said[1]
    assert packed[0] is packed[1]  # the frozen weights are not packed again
    adapter = carried_adapter(model)
    assert isinstance(adapter, Adapter)
    with pytest.raises(InvalidRequest, match="carries a LoRA adapter"):
        engine.add_adapter("x", adapter)
