"""LoRA adapters (arXiv 2106.09685): a low-rank correction beside frozen projections. Files as PEFT writes them."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ponder.model.checkpoint import (
    StoredTensor,
    atomic_folder,
    check_shapes,
    open_model,
    open_safetensors,
    read_json,
    refuse_pickles,
    save_tensors,
    write_json,
)
from ponder.model.config import PROJECTIONS
from ponder.model.transformer import Linear, Transformer, project
from ponder.types import CheckpointError, InvalidRequest

TARGETS = PROJECTIONS
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
_PREFIX = "base_model.model."
# Keys of adapter_config.json (PEFT 0.21) that do not change the function computed, whatever they say.
_HARMLESS = frozenset(
    (
        *("auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version", "revision", "task_type"),
        *("ensure_weight_tying", "eva_config", "layers_pattern", "loftq_config", "lora_dropout", "megatron_core"),
        *("qalora_group_size", "runtime_config"),
    )
)
# Keys that change it, and the values under which they do not. Any other key must be null, false or empty.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "bias": (None, "none"),
    # The others change the base's weights: PiSSA, OLoRA, CorDA, LoRA-GA, LoftQ.
    "init_lora_weights": (None, True, False, "gaussian", "eva", "orthogonal", "mica"),
}
_READ = frozenset(("peft_type", "r", "lora_alpha", "target_modules"))


class LoraLinear(Linear):
    """W x + alpha / rank · B A x. The base weight is frozen and keeps its name; A is random and B zero at first, so a
    fresh adapter changes nothing."""

    unmerged_weight: Tensor | None = None

    def __init__(self, base: Linear, rank: int, alpha: float, generator: torch.Generator) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.compute_dtype = base.compute_dtype
        self.weight, self.bias = base.weight.requires_grad_(False), base.bias
        if self.bias is not None:
            self.bias.requires_grad_(False)
        bound = 1 / math.sqrt(base.in_features)  # Kaiming uniform with a = sqrt(5), as in PEFT
        a_RI = torch.empty(rank, base.in_features).uniform_(-bound, bound, generator=generator)
        self.lora_A = nn.Parameter(a_RI.to(base.weight.device))  # float32 over weights of any dtype: they train
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, device=base.weight.device))
        self.rank, self.alpha = rank, alpha

    @property
    def merged(self) -> bool:
        return self.unmerged_weight is not None

    @property
    def adapter_pending(self) -> bool:
        """The weight alone does not say what this projection computes."""
        return not self.merged

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if self.merged:
            return y
        dtype = self.compute_dtype or self.weight.dtype
        low = project(x, self.lora_A, None, dtype)
        return y + project(low, self.lora_B, None, dtype) * (self.alpha / self.rank)

    @torch.no_grad()
    def merge(self) -> None:
        if not self.merged:
            self.unmerged_weight = self.weight.clone()
            exact = torch.promote_types(self.weight.dtype, torch.float32)
            correction = self.lora_B.to(exact) @ self.lora_A.to(exact) * (self.alpha / self.rank)
            self.weight.copy_(self.weight.to(exact) + correction)

    @torch.no_grad()
    def unmerge(self) -> None:
        if self.unmerged_weight is not None:
            self.weight.copy_(self.unmerged_weight)
            self.unmerged_weight = None


def add_lora(
    model: Transformer, rank: int, alpha: float, targets: Sequence[str] = TARGETS, *, seed: int = 0
) -> list[nn.Parameter]:
    """Freeze the model, put an adapter beside every projection named in `targets`, and return what is to be trained.

    Raises InvalidRequest for an unknown target, a rank below 1 or a model that carries an adapter already.
    """
    unknown = sorted(set(targets) - set(TARGETS))
    if unknown or not targets:
        raise InvalidRequest(f"targets of a LoRA adapter must be among {', '.join(TARGETS)} (got {unknown or 'none'})")
    if rank < 1:
        raise InvalidRequest(f"rank of a LoRA adapter must be at least 1 (got {rank})")
    if has_lora(model):
        raise InvalidRequest("the model carries a LoRA adapter already: remove it first (remove_lora)")
    model.requires_grad_(False)
    generator = torch.Generator("cpu").manual_seed(seed)
    for module in list(model.model.modules()):
        for name, child in list(module.named_children()):
            if name in targets and isinstance(child, Linear):
                setattr(module, name, LoraLinear(child, rank, alpha, generator))
    return [p for p in model.parameters() if p.requires_grad]


def has_lora(model: Transformer) -> bool:
    """Whether adapters stand beside the model's projections, merged or not."""
    return any(True for _ in _adapters(model))


def lora_scales(model: Transformer) -> dict[str, float]:
    """alpha / rank of every projection whose adapter stands beside its weight, not merged, by its name."""
    return {path: adapter.alpha / adapter.rank for path, adapter in _adapters(model) if not adapter.merged}


def merge_lora(model: Transformer) -> None:
    """Fold every adapter into its weight. The weight as it was is kept, so that `unmerge_lora` is exact to the bit (a
    subtraction would leave rounding errors); that costs one more copy of the adapted weights until then."""
    for _, adapter in _adapters(model):
        adapter.merge()


@torch.no_grad()
def reread_base(model: Transformer) -> None:
    """Read frozen projections again in float32, from the folder from which the model was loaded. Those that are float32
    already stay. Training rounds them to what it computes in. Raises CheckpointError when the folder holds another
    model by now."""
    rounded = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, Linear) and not module.weight.requires_grad and module.weight.dtype != torch.float32
    }
    if not rounded or model.loaded_from is None:
        return
    with open_model(model.loaded_from.folder) as (config, tensors):
        if config.parameter_shapes() != model.config.parameter_shapes():
            raise CheckpointError(
                f"{model.loaded_from.folder}: holds another model than when it was loaded: load the model again"
            )
        for path, module in rounded.items():
            stored = tensors[f"{path}.weight"].read()
            module.weight.data = stored.to(module.weight.device, torch.float32, copy=True)


def unmerge_lora(model: Transformer) -> None:
    """Undo `merge_lora`, bit for bit."""
    for _, adapter in _adapters(model):
        adapter.unmerge()


def remove_lora(model: Transformer) -> None:
    """Turn adapters back into plain projections with the weights they hold now (merged or not), trainable again."""
    for module in list(model.model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, LoraLinear):
                with torch.device("meta"):
                    plain = Linear(child.in_features, child.out_features, bias=child.bias is not None)
                plain.weight, plain.bias, plain.compute_dtype = child.weight, child.bias, child.compute_dtype
                setattr(module, name, plain)
    model.requires_grad_(True)


def lora_state_dict(model: Transformer) -> dict[str, Tensor]:
    """The adapter's tensors under PEFT's names: base_model.model.<projection>.lora_A.weight (rank, in) and
    lora_B.weight (out, rank)."""
    state = {}
    for path, adapter in _adapters(model):
        state[f"{_PREFIX}{path}.lora_A.weight"] = adapter.lora_A.detach()
        state[f"{_PREFIX}{path}.lora_B.weight"] = adapter.lora_B.detach()
    return state


def save_lora(model: Transformer, folder: str | Path, *, replace: bool = False) -> None:
    """Write the adapter alone, atomically, as PEFT lays it out, with the folder from which the model was loaded as its
    base. Raises InvalidRequest when the model has no adapter."""
    if not has_lora(model):
        raise InvalidRequest("the model carries no LoRA adapter to save")
    with atomic_folder(folder, replace=replace) as temporary:
        write_lora(model, temporary)


def write_lora(model: Transformer, folder: Path) -> None:
    """The files of `save_lora` put into a folder that exists, for use inside `atomic_folder` with other files."""
    adapters = dict(_adapters(model))
    first = next(iter(adapters.values()))
    state = {name: tensor.cpu().contiguous() for name, tensor in lora_state_dict(model).items()}
    save_tensors(state, folder / ADAPTER_WEIGHTS)
    write_json(
        folder / ADAPTER_CONFIG,
        {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": model.loaded_from and model.loaded_from.folder,
            "r": first.rank,
            "lora_alpha": first.alpha,
            "lora_dropout": 0.0,
            "target_modules": sorted({path.rpartition(".")[2] for path in adapters}),
            "bias": "none",
            "inference_mode": True,
        },
    )


def load_lora(model: Transformer, folder: str | Path) -> None:
    """Put a saved adapter (Ponder's or PEFT's) beside the model's projections, not merged.

    Raises CheckpointError naming file and key when the adapter does not fit the model or asks for more than plain LoRA.
    """
    rank, alpha, targets = _read_adapter_config(Path(folder) / ADAPTER_CONFIG)
    with _open_adapter(model, Path(folder), rank, targets) as tensors:
        add_lora(model, rank, alpha, targets)
        _fill(model, tensors)


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """An adapter apart from any model, for an engine that runs many beside one base.

    pairs: A (rank, in) and B (out, rank) times alpha / rank, by the name of the projection.
    """

    pairs: Mapping[str, tuple[Tensor, Tensor]]


def read_adapter(model: Transformer, folder: str | Path) -> Adapter:
    """A saved adapter in the dtype that the model computes in; the model stays as it is.

    Raises CheckpointError as `load_lora`.
    """
    folder = Path(folder)
    rank, alpha, targets = _read_adapter_config(folder / ADAPTER_CONFIG)
    dtype, device = model.compute_dtype, model.model.embed_tokens.weight.device
    pairs = {}
    with _open_adapter(model, folder, rank, targets) as tensors:
        for name in _projection_shapes(model, targets):
            a_RI, b_OR = (tensors[f"{_PREFIX}{name}.lora_{letter}.weight"].read().float() for letter in "AB")
            pairs[name] = a_RI.to(device, dtype), (b_OR * (alpha / rank)).to(device, dtype)
    return Adapter(pairs)


def check_adapter(model: Transformer, folder: str | Path) -> None:
    """Raises CheckpointError where `read_adapter` would, without reading the weights."""
    rank, _, targets = _read_adapter_config(Path(folder) / ADAPTER_CONFIG)
    with _open_adapter(model, Path(folder), rank, targets):
        pass


@torch.no_grad()
def carried_adapter(model: Transformer) -> Adapter | None:
    """A copy of the adapter that stands beside the model's weights now. None: it has none, or it is merged."""
    scales = lora_scales(model)
    dtype = model.compute_dtype
    pairs = {
        path: (each.lora_A.detach().to(dtype), (each.lora_B.detach() * scales[path]).to(dtype))
        for path, each in _adapters(model)
        if path in scales
    }
    return Adapter(pairs) if pairs else None


@dataclass(slots=True, eq=False)
class AdaptedRows:
    """Which rows of a pass have which adapter; set before the pass.

    parts: an adapter, and the places of its rows in the pass.
    exact: products run over all rows of the pass, so that what a row gets does not depend on the others.
    """

    parts: list[tuple[Adapter, slice]] = field(default_factory=list)
    exact: bool = False


class _AdaptedLinear(Linear):
    """A projection of the base, and beside it what each row's own adapter adds."""

    def __init__(self, base: Linear, path: str, rows: AdaptedRows) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.compute_dtype, self.weight, self.bias = base.compute_dtype, base.weight, base.bias
        self._path, self._rows = path, rows

    def forward(self, x_1ND: Tensor) -> Tensor:
        y_1NO = super().forward(x_1ND)
        dtype = self.compute_dtype or self.weight.dtype
        for adapter, own in self._rows.parts:
            if self._path in adapter.pairs:
                a_RI, b_OR = adapter.pairs[self._path]
                low = project(x_1ND if self._rows.exact else x_1ND[:, own], a_RI, None, dtype)
                added = project(low, b_OR, None, dtype)
                y_1NO[:, own] += added[:, own] if self._rows.exact else added
        return y_1NO


def adapted_model(model: Transformer, rows: AdaptedRows) -> Transformer:
    """A second model over the same weights, whose projections add to each row of a pass what `rows` says."""
    memo: dict[int, Any] = {id(each): each for each in model.parameters()}
    copied = copy.deepcopy(model, memo)
    for path, module in list(copied.named_modules()):
        if isinstance(module, Linear) and path.rpartition(".")[2] in TARGETS:
            parent, _, name = path.rpartition(".")
            setattr(copied.get_submodule(parent), name, _AdaptedLinear(module, path, rows))
    return copied


def adapter_base(folder: str | Path) -> str | None:
    """The model that a saved adapter says it is for, where that is a folder on this machine. Raises CheckpointError."""
    base = read_json(Path(folder) / ADAPTER_CONFIG).get("base_model_name_or_path")
    return base if isinstance(base, str) and (Path(base) / "config.json").is_file() else None


def restore_lora(model: Transformer, folder: str | Path) -> None:
    """Read a saved adapter into the one that the model carries. Raises CheckpointError when it is another one."""
    path = Path(folder) / ADAPTER_CONFIG
    rank, alpha, targets = _read_adapter_config(path)
    adapters = dict(_adapters(model))
    wanted = {(a.rank, a.alpha, name.rpartition(".")[2]) for name, a in adapters.items()}
    if wanted != {(rank, alpha, target) for target in targets}:
        raise CheckpointError(
            f"{path}: rank, alpha or targets differ from those of the adapter that is trained: resume with "
            "the recipe that the run began with"
        )
    with _open_adapter(model, Path(folder), rank, targets) as tensors:
        _fill(model, tensors)


@contextmanager
def _open_adapter(
    model: Transformer, folder: Path, rank: int, targets: Sequence[str]
) -> Iterator[dict[str, StoredTensor]]:
    """The adapter's tensors by name, checked against the model's projections."""
    weights = folder / ADAPTER_WEIGHTS
    if not weights.exists():
        refuse_pickles(folder)
    with ExitStack() as stack:
        tensors = open_safetensors(weights, stack)
        shapes: dict[str, tuple[int, ...]] = {}
        for name, (rows, columns) in _projection_shapes(model, targets).items():
            shapes[f"{_PREFIX}{name}.lora_A.weight"] = (rank, columns)
            shapes[f"{_PREFIX}{name}.lora_B.weight"] = (rows, rank)
        check_shapes(tensors, shapes, weights)
        for name in tensors.keys() - shapes.keys():
            raise tensors[name].fail(f"unexpected: {folder / ADAPTER_CONFIG} describes no such tensor")
        yield tensors


@torch.no_grad()
def _fill(model: Transformer, tensors: Mapping[str, StoredTensor]) -> None:
    for name, adapter in _adapters(model):
        adapter.lora_A.copy_(tensors[f"{_PREFIX}{name}.lora_A.weight"].read())
        adapter.lora_B.copy_(tensors[f"{_PREFIX}{name}.lora_B.weight"].read())


def _adapters(model: Transformer) -> Iterator[tuple[str, LoraLinear]]:
    for path, module in model.named_modules():
        if isinstance(module, LoraLinear):
            yield path, module


def _projection_shapes(model: Transformer, targets: Sequence[str]) -> dict[str, tuple[int, int]]:
    return {
        path: (module.out_features, module.in_features)
        for path, module in model.named_modules()
        if isinstance(module, Linear) and path.rpartition(".")[2] in targets
    }


def _says_nothing(value: Any) -> bool:
    return value is None or value is False or value in ("", [], {})


def _read_adapter_config(path: Path) -> tuple[int, float, list[str]]:
    raw = read_json(path)

    def fail(key: str, why: str) -> CheckpointError:
        return CheckpointError(f"{path}: key '{key}': {why}")

    if raw.get("peft_type") != "LORA":
        raise fail("peft_type", f"{raw.get('peft_type')!r:.80} is not supported; only 'LORA' is")
    for key, value in raw.items():
        plain = value in _PLAIN[key] if key in _PLAIN else key in _HARMLESS | _READ or _says_nothing(value)
        if not plain:
            raise fail(
                key,
                f"{value!r:.80} is not supported, only plain LoRA is: merge the adapter into its model with "
                "PEFT (merge_and_unload), and use that",
            )
    rank, alpha, targets = raw.get("r"), raw.get("lora_alpha"), raw.get("target_modules")
    if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= 1 << 16:
        raise fail("r", f"must be a positive integer (got {rank!r:.80})")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise fail("lora_alpha", f"must be a finite number (got {alpha!r:.80})")
    if not isinstance(targets, list) or not targets or not all(isinstance(t, str) and t in TARGETS for t in targets):
        raise fail("target_modules", f"must be a list of {', '.join(TARGETS)} (got {targets!r:.120})")
    return rank, float(alpha), targets
