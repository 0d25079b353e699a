"""A test of the engine runs on every kernel: it makes its models and engines with the fixture `kernel`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import ClassVar

import pytest
import torch

from ponder.engine import Engine
from ponder.engine.kernel import FusedRunner
from ponder.engine.runner import Runner
from ponder.engine.sampling import pick_with_torch
from ponder.model.transformer import Transformer
from ponder.sampler.local import LocalSampler
from ponder.testing.tiny import ParrotModel, tiny_model, tiny_sampler
from ponder.types import PhaseTokens


class TorchKernel:
    """Makes models for which an engine chooses torch by itself, and engines of these models."""

    name = "torch"
    options: ClassVar[dict[str, bool]] = {}

    def tiny_model(self, seed: int = 0, **sizes: int) -> Transformer:
        return self.place(tiny_model(seed, **sizes))

    def parrot(self, script: list[int], prompt_tokens: int, **options: float) -> Transformer:
        return self.place(ParrotModel(script, prompt_tokens, **options))

    def place(self, model: Transformer) -> Transformer:
        return model

    def engine(self, model: Transformer, tokens: PhaseTokens, **options: object) -> Engine:
        return Engine(model, tokens, **{**self.options, **options})

    def sampler(self, max_positions: int, **options: object) -> LocalSampler:
        return tiny_sampler(model=self.tiny_model(max_positions=max_positions), **{**self.options, **options})


class CudaKernel(TorchKernel):
    """The same models on a GPU."""

    name = "cuda"

    def place(self, model: Transformer) -> Transformer:
        return model.to("cuda")


class FusedKernel(TorchKernel):
    """Models in bfloat16, with heads of a size for which an engine chooses the fused step by itself.

    In bfloat16 the rows beside a row can change its next token, in float32 hardly ever: these engines are
    deterministic unless a test says otherwise.
    """

    name = "fused"
    options: ClassVar[dict[str, bool]] = {"deterministic": True}

    def tiny_model(self, seed: int = 0, **sizes: int) -> Transformer:
        return super().tiny_model(seed, head_dim=16, **sizes)

    def place(self, model: Transformer) -> Transformer:
        return model.to(torch.bfloat16)


KERNELS = {kind.name: kind() for kind in (TorchKernel, FusedKernel, CudaKernel)}


@cache
def why_not_fused() -> str:
    """Why the fused step cannot run on this machine; "" if it can."""
    fused = KERNELS["fused"]
    choice = fused.engine(fused.tiny_model(), PhaseTokens()).kernel
    return choice.reason if choice.kernel == "torch" else ""


@pytest.fixture(params=["torch", "fused", pytest.param("cuda", marks=pytest.mark.cuda)])
def kernel(request: pytest.FixtureRequest) -> TorchKernel:
    """Runs a test once on each kernel: `kernel.tiny_model(…)`, `kernel.parrot(…)`, `kernel.engine(model, tokens)`."""
    if request.param == "fused" and why_not_fused():
        pytest.skip(why_not_fused())
    return KERNELS[request.param]


@pytest.fixture
def watch_logits(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., None]], None]:
    """watch_logits(see): from now on each step of every engine calls `see(sequences that are ready, their logits_SV)`.
    What is picked from these logits is picked by the torch rules."""

    def watch(see: Callable[..., None]) -> None:
        def run(runner: Runner, step: object) -> None:
            logits_SV = runner.logits(step)
            see(step.ready, logits_SV)
            pick_with_torch(logits_SV, step.picks)

        for kind in (Runner, FusedRunner):
            monkeypatch.setattr(kind, "run", run)

    return watch
