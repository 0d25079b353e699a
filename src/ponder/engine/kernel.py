"""The kernel that runs a model's steps: fused where it covers model and machine, CUDA graphs on a GPU, else torch."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from ponder.engine.graphs import GraphRunner
from ponder.engine.pages import PagedKV, Pages
from ponder.engine.runner import Runner, in_product_dtype
from ponder.engine.scheduler import Step
from ponder.kernels.adapters import PackedAdapter
from ponder.kernels.fused import PAGE_SIZE, FusedStep, KernelChoice, Quantize, choose_kernel
from ponder.model.checkpoint import load_model
from ponder.model.gguf import load_blocks
from ponder.model.lora import Adapter, carried_adapter, lora_scales
from ponder.model.transformer import Transformer
from ponder.types import InvalidRequest

_log = logging.getLogger(__name__)

Kernel = Literal["auto", "torch", "fused"]
GRAPHS = "cuda graphs"


class StepRunner(Protocol):
    """Runs steps over pages that it owns. choice: what it is, and why nothing faster."""

    @property
    def choice(self) -> KernelChoice: ...
    @property
    def pages(self) -> Pages: ...
    def run(self, step: Step) -> None:
        """The sequences that are ready have their picks. Raises NotFinite."""

    def logits(self, step: Step) -> Tensor:
        """Instead of `run`: logits_SV that the picks of the step are made from, in their order."""


def load_to_run(
    path: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    kernel: Kernel = "auto",
    quantize: Quantize | None = None,
) -> Transformer:
    """A model folder, or a GGUF file, for an engine with this kernel and quantize. Arguments as of `load_model`.

    The matrices of a GGUF file stay as it stores them where the fused step is to run and computes with such blocks, and
    no dtype is asked for. Raises CheckpointError.
    """
    if dtype is None and kernel != "torch" and quantize is None and torch.device(device).type == "cpu":
        stored = load_blocks(path)
        if stored is not None and covered(stored).kernel != "torch":
            return stored
    return load_model(path, dtype=dtype, device=device)


class FusedRunner:
    def __init__(
        self,
        model: Transformer,
        num_pages: int,
        choice: KernelChoice,
        *,
        deterministic: bool,
        quantize: Quantize | None,
        adapters: Mapping[str, Adapter],
    ) -> None:
        self.choice = choice
        self._kept = torch.empty(0)
        self._model, self._adapters = model, adapters
        self._packed: dict[str, PackedAdapter] = {}
        self._carries = bool(lora_scales(model))
        self._carried: PackedAdapter | None = None  # what it carries, as it trains
        self._frozen = _frozen(model)
        self.pages = FusedStep(
            model.config,
            _weights(model),
            model.model.rotary,
            num_pages,
            path=choice.kernel,
            exact=deterministic,
            quantize=quantize,
            blocks=model.block_types,
            interleaved=model.interleaved,
            mapped=bool(model.block_types),
        )

    def fits(self, model: Transformer, choice: KernelChoice) -> bool:
        """Whether `forget` is enough to run `model` as it is now."""
        return choice == self.choice and self.pages.fits(model.config, _weights(model))

    def forget(self, model: Transformer) -> None:
        """Frozen weights under an adapter in training stay as they are packed."""
        carried, known = self._carries, self._frozen
        self._model, self._carries, self._carried = model, bool(lora_scales(model)), None
        self._frozen = _frozen(model)
        if carried and self._carries and known is not None and known == self._frozen:
            self.pages.clear()
        else:
            self.pages.forget(_weights(model))

    def _adapt(self, step: Step) -> None:
        """What the next step of the pages runs has its adapters."""
        if self._carries:
            if self._carried is None:
                adapter = carried_adapter(self._model)
                assert adapter is not None
                self._carried = PackedAdapter(self._model.config.num_layers, adapter.pairs)
            self.pages.adapt([self._carried] * len(step.contexts))
        elif any(context.key.adapter for context in step.contexts):
            self.pages.adapt([self._named(context.key.adapter) for context in step.contexts])

    def _named(self, name: str) -> PackedAdapter | None:
        if name and name not in self._packed:
            self._packed[name] = PackedAdapter(self._model.config.num_layers, self._adapters[name].pairs)
        return self._packed[name] if name else None

    def run(self, step: Step) -> None:
        picks = step.picks
        if step.ran:
            self.pages.pick_kept(step.rows, picks)
        else:
            self._adapt(step)
            self.pages.pick(step.ids(), step.chunks, step.rows, picks)

    def logits(self, step: Step) -> Tensor:
        if step.ran:
            return self._kept[step.rows]
        self._adapt(step)
        self._kept = self.pages.run(step.ids(), step.chunks, step.rows)
        return self._kept[: len(step.ready)] if step.drafts else self._kept


def open_runner(
    model: Transformer,
    num_pages: int,
    page_size: int,
    *,
    kernel: Kernel,
    deterministic: bool,
    quantize: Quantize | None = None,
    before: StepRunner | None = None,
    adapters: Mapping[str, Adapter] = MappingProxyType({}),
) -> StepRunner:
    """A runner with an empty cache, for the weights as they are.

    before: the one that ran until now; what it holds is used again where it can be; it was opened with the same
        options.
    adapters: by the name in the key of the contexts that have one; more may come.

    Raises InvalidRequest for kernel "fused", or rounded weights, where the fused step cannot run, with the reason.
    """
    choice = _choose(model, page_size, kernel, deterministic)
    _check_quantize(quantize, choice)
    if model.block_types and choice.kernel in ("torch", GRAPHS):
        raise InvalidRequest(
            "the weights are blocks of a GGUF file, with which only the fused step computes "
            f"({choice.reason or 'the model is not on the CPU'}): load the file with a dtype"
        )
    if before is None or before.choice != choice:
        _log.info("kernel: %s%s", choice.kernel, f" ({choice.reason})" if choice.reason else "")
    if choice.kernel == "torch":
        pages = _paged(model, num_pages, page_size)
        return Runner(in_product_dtype(model), pages, choice, deterministic=deterministic, adapters=adapters)
    if choice.kernel == GRAPHS:
        if isinstance(before, GraphRunner) and before.fits(model, choice):
            before.forget()
            return before
        return GraphRunner(model, _paged(model, num_pages + 1, page_size), choice, adapters=adapters)
    if isinstance(before, FusedRunner) and before.fits(model, choice):
        before.forget(model)
        return before
    return FusedRunner(model, num_pages, choice, deterministic=deterministic, quantize=quantize, adapters=adapters)


def _choose(model: Transformer, page_size: int, kernel: Kernel, deterministic: bool) -> KernelChoice:
    if kernel not in ("auto", "torch", "fused"):
        raise InvalidRequest(f"kernel must be 'auto', 'torch' or 'fused' (got {kernel!r})")
    if kernel == "torch":
        return KernelChoice("torch", "as asked")
    choice = covered(model, page_size)
    if kernel == "auto" and _on_gpu(model) and type(model) is Transformer and not deterministic:
        return KernelChoice(GRAPHS, "")
    if kernel == "fused" and choice.kernel == "torch":
        raise InvalidRequest(f"kernel 'fused' cannot run here ({choice.reason}): choose 'auto' or 'torch'")
    return choice


def _check_quantize(quantize: str | None, choice: KernelChoice) -> None:
    if quantize not in (None, *get_args(Quantize)):
        raise InvalidRequest(
            f"quantize must be 'int8' or 'int4', or None for the weights as they are (got {quantize!r})"
        )
    if quantize and choice.kernel in ("torch", GRAPHS):
        reason = choice.reason or "the model is not on the CPU"
        raise InvalidRequest(
            f"quantize {quantize!r} needs the fused kernel, which cannot run here ({reason}): leave quantize out"
        )


def covered(model: Transformer, page_size: int = PAGE_SIZE) -> KernelChoice:
    """The path of the fused step that runs this model here, or torch and why."""
    if type(model) is not Transformer:
        return KernelChoice("torch", f"the model is a {type(model).__name__}, which may compute something else")
    assert page_size == PAGE_SIZE
    return choose_kernel(model.config, _weights(model), model.compute_dtype)


def _weights(model: Transformer) -> dict[str, torch.Tensor]:
    """The weights that a step computes with, without those that a merged adapter keeps."""
    return {name: each for name, each in model.named_parameters() if name in model.config.parameter_shapes()}


def _frozen(model: Transformer) -> tuple[tuple[int, int], ...] | None:
    """Changes when one of the weights moves or is written; None where some of them train."""
    weights = _weights(model).values()
    if any(weight.requires_grad or weight.is_inference() for weight in weights):
        return None
    return tuple((weight.data_ptr(), weight._version) for weight in weights)


def _on_gpu(model: Transformer) -> bool:
    device: torch.device = model.model.embed_tokens.weight.device
    return device.type == "cuda"


def _paged(model: Transformer, num_pages: int, page_size: int) -> PagedKV:
    device: torch.device = model.model.embed_tokens.weight.device
    return PagedKV(model.config, num_pages, page_size, model.compute_dtype, device)
