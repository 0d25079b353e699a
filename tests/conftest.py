"""What holds for every test: those of the engine run on every kernel, those that need a GPU only where there is one.
How engines are watched."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ponder.model.transformer import Transformer


@pytest.fixture(params=["torch", "fused", pytest.param("cuda", marks=pytest.mark.cuda)])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a test of the engine once on each kernel: the tiny models that it makes are such that an engine chooses that
    kernel by itself.

    In bfloat16 what stands beside a row may tip a token, in float32 hardly ever: engines over the fused step are
    deterministic unless a test says otherwise.
    """
    import torch

    from ponder.engine import Engine
    from ponder.testing import tiny

    if request.param == "torch":
        return request.param
    if request.param == "fused":
        if why_not_fused():
            pytest.skip(why_not_fused())
        sizes, place = {"head_dim": 16}, {"dtype": torch.bfloat16}
        monkeypatch.setitem(Engine.__init__.__kwdefaults__, "deterministic", True)
    else:
        sizes, place = {}, {"device": "cuda"}

    def made(make: Callable[..., Transformer], **fixed: int) -> Callable[..., Transformer]:
        return lambda *args, **options: make(*args, **fixed, **options).to(**place)

    replaced = {"tiny_model": made(tiny.tiny_model, **sizes), "ParrotModel": made(tiny.ParrotModel)}
    for module in (tiny, request.module):
        for name in replaced.keys() & vars(module).keys():
            monkeypatch.setattr(module, name, replaced[name])
    return request.param


@cache
def why_not_fused() -> str:
    """Why the fused step cannot run on this machine; "" if it can."""
    import torch

    from ponder.engine import Engine
    from ponder.testing.tiny import tiny_model
    from ponder.types import PhaseTokens

    choice = Engine(tiny_model(head_dim=16).to(torch.bfloat16), PhaseTokens()).kernel
    return choice.reason if choice.kernel == "torch" else ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    needing_gpu = [item for item in items if item.get_closest_marker("cuda")]
    if not needing_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in needing_gpu:
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.fixture
def watch_logits(monkeypatch):
    """watch_logits(see): from now on each step of every engine calls `see(sequences that are ready, their logits_SV)`.
    What is picked from these logits is picked by the torch rules."""
    from ponder.engine.kernel import FusedRunner
    from ponder.engine.runner import Runner
    from ponder.engine.sampling import pick

    def watch(see):
        def run(runner, step):
            logits_SV = runner.logits(step)
            see(step.ready, logits_SV)
            pick(logits_SV, [sequence.pick for sequence in step.ready])

        for kind in (Runner, FusedRunner):
            monkeypatch.setattr(kind, "run", run)

    return watch
