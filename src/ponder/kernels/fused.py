"""The whole step of a decoder, token ids to the next ones, in compiled code over its own pages (`cpu/step.cpp`).

Axes: N rows of a step, S rows whose logits are wanted, V vocabulary.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from ponder.gguf.layout import TensorType
from ponder.kernels.adapters import PackedAdapter
from ponder.kernels.build import BuildError, library
from ponder.kernels.machine import PRODUCTS, machine
from ponder.kernels.sampling import NotFinite, Pick

PAGE_SIZE = 16
_PATHS = ("portable", "avx512", "amx")  # the enum Kernel of cpu/attention.h
_FORBIDDEN = 8
_INTEGERS = {16: "AVX2 (maddubs)", 32: "AVX-VNNI", 64: "AVX-512 VNNI"}  # bits of `ponder_kernels`
_EXACT, _ALONE, _BY_INTEGERS = 1, 2, 4  # the enum Flags of cpu/step.cpp
_WIDEST_HEAD, _LARGEST_GROUP = 256, 32
_LAYER = (
    *("input_layernorm.weight", "self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"),
    *("self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"),
    *("self_attn.o_proj.weight", "self_attn.o_proj.bias", "self_attn.q_norm.weight", "self_attn.k_norm.weight"),
    *("post_attention_layernorm.weight", "mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight"),
)

Quantize = Literal["int8", "int4"]
Weights = Mapping[str, Tensor]  # under Hugging Face's names
BlockTypes = Mapping[str, TensorType]  # of those weights that are blocks of a GGUF file: bytes, uint8 (outputs, bytes)
_BFLOAT16, _INT8, _GROUPS4, _GROUPS5, _GROUPS6, _GROUPS8 = range(6)  # the enum Form of cpu/products.h
_FORM_OF = {
    **dict.fromkeys((TensorType.Q4_0, TensorType.Q4_1, TensorType.Q4_K), _GROUPS4),
    **dict.fromkeys((TensorType.Q5_0, TensorType.Q5_1, TensorType.Q5_K), _GROUPS5),
    TensorType.Q6_K: _GROUPS6,
    TensorType.Q8_0: _GROUPS8,
}
_BYTES = {_GROUPS4: 0.625, _GROUPS5: 0.75, _GROUPS6: 1.125, _GROUPS8: 1.0625}  # of a packed weight
_FLOATS, _INTERLEAVED = -1, 256  # of cpu/blocks.h
_MATRICES = (
    ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"),
    ("self_attn.o_proj.weight",),
    ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
    ("mlp.down_proj.weight",),
)
Rotary = Callable[[Tensor], tuple[Tensor, Tensor]]  # positions (1, P) → cos and sin, (1, 1, P, d/2) each


class Run(Protocol):
    """`length` neighbouring tokens of one context, the first at position `start`; `pages` hold that context."""

    @property
    def pages(self) -> array[int]: ...
    @property
    def start(self) -> int: ...
    @property
    def length(self) -> int: ...


class StepShape(Protocol):
    """Sizes of a Llama, Qwen2 or Qwen3 decoder, as `ModelConfig` has them. The weights show which biases there are."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def num_layers(self) -> int: ...
    @property
    def num_heads(self) -> int: ...
    @property
    def num_kv_heads(self) -> int: ...
    @property
    def head_dim(self) -> int: ...
    @property
    def intermediate_size(self) -> int: ...
    @property
    def qk_norm(self) -> bool: ...
    @property
    def rms_norm_eps(self) -> float: ...


class KernelChoice(NamedTuple):
    """kernel: "amx", "avx512" or "portable" of the fused step, "torch", or what an engine has beside them.
    reason: why no faster one; "" if none is."""

    kernel: str
    reason: str


class _Shape(ctypes.Structure):
    """`Shape` of cpu/model.h."""

    _fields_ = (
        *((name, ctypes.c_int) for name in ("vocab_size", "hidden_size", "num_layers", "num_heads", "num_kv_heads")),
        *((name, ctypes.c_int) for name in ("head_dim", "intermediate_size")),
        *(("qk_norm", ctypes.c_int), ("float_weights", ctypes.c_int), ("eps", ctypes.c_float)),
    )


def choose_kernel(
    shape: StepShape, weights: Weights, compute_dtype: torch.dtype, *, target: str | None = None
) -> KernelChoice:
    """The fastest path that this model and this machine allow, and what stands in the way of a faster one.

    target: what to compile for, as g++'s `-march`; None: as `machine` says.
    """
    reason = _uncovered(shape, weights, compute_dtype)
    if reason:
        return KernelChoice("torch", reason)
    try:
        found = _open_library(target).ponder_kernels()
    except BuildError as error:
        return KernelChoice("torch", str(error))
    best = max(at for at in range(len(_PATHS)) if found >> at & 1)
    if best == len(_PATHS) - 1:
        return KernelChoice(_PATHS[best], "")
    if found & _FORBIDDEN:
        return KernelChoice(_PATHS[best], "the system does not permit this process to use AMX")
    lacking = "AMX tiles" if _PATHS[best] == "avx512" else "bfloat16 instructions (AVX-512 BF16, AMX)"
    reason = machine().reason if target is None else ""
    return KernelChoice(_PATHS[best], reason or f"the processor that it was compiled for has no {lacking}")


def choose_integers(*, target: str | None = None) -> KernelChoice:
    """What weights of 4 to 8 bits meet in the fused step: "integers", or "floats", and by what, or why.

    target: as `choose_kernel` has it. Raises BuildError.
    """
    if target is None and not machine().integers:
        return KernelChoice("floats", f"{PRODUCTS} is float")
    found = _open_library(target).ponder_kernels()
    for bit, name in _INTEGERS.items():
        if found & bit:
            return KernelChoice("integers", name)
    return KernelChoice("floats", "the processor that it was compiled for has no dot products of integers")


def _uncovered(shape: StepShape, weights: Weights, compute_dtype: torch.dtype) -> str:
    """Why the fused step cannot run this model; "" if it can."""
    tensors = list(weights.values())
    dtypes = {tensor.dtype for tensor in tensors} - {torch.uint8}  # blocks
    if weights["model.embed_tokens.weight"].dtype == torch.float32:
        dtypes -= {torch.bfloat16}  # frozen projections of a model that trains by LoRA
    if any(tensor.device.type != "cpu" for tensor in tensors):
        return "the model is not on the CPU"
    if compute_dtype != torch.bfloat16:
        return f"the model computes in {str(compute_dtype).removeprefix('torch.')}; the fused step is for bfloat16"
    if len(dtypes) > 1 or not dtypes <= {torch.bfloat16, torch.float32}:
        return f"weights of {', '.join(sorted(map(str, dtypes)))}: the fused step takes all bfloat16 or all float32"
    if shape.head_dim % 16 or shape.head_dim > _WIDEST_HEAD:
        return f"head_dim {shape.head_dim}: the fused step takes multiples of 16 up to {_WIDEST_HEAD}"
    if shape.num_heads // shape.num_kv_heads > _LARGEST_GROUP:
        return f"more than {_LARGEST_GROUP} query heads share a key/value head"
    return ""


class FusedStep:
    """One model's packed weights and paged cache, and the step over them.

    `run` is not to be called from two threads at once. The weights are read when they are packed: at the first `run`,
    and the first after `forget`; in between they must neither change nor move.

    share_pages: attention reads a page that several contexts hold once for all of them; not where `exact`.
    """

    def __init__(
        self,
        shape: StepShape,
        weights: Weights,
        rotary: Rotary,
        num_pages: int,
        *,
        path: str,
        exact: bool = False,
        quantize: Quantize | None = None,
        blocks: BlockTypes | None = None,
        interleaved: Collection[str] = (),
        mapped: bool = False,
        integers: bool | None = None,
        target: str | None = None,
    ) -> None:
        """weights: all parameters, of one dtype, but for those in `blocks`. path: one that `choose_kernel` says, or a
        slower one. exact: a row's logits do not depend, bit for bit, on what else the step runs or how a prompt is cut.
        quantize: "int8" packs the matrices, the head included, in 8 bits with a scale for each output (symmetric, round
        to nearest), "int4" in 4 bits with a scale and an offset for each 32 inputs. The embedding is read as it is.
        integers: whether rows are rounded to 8 bits where weights are of 4 to 8 bits; None: as `choose_integers` says.
        blocks: types of the weights that stay as a GGUF file stores them, where `packable` allows it.
        interleaved: those of them whose rows are in llama.cpp's order, 2 i and 2 i + 1 of a head turned together.
        mapped: the blocks are in a private mapping of their file, which gives its memory back once they are packed.

        Raises BuildError, MemoryError.
        """
        self._library = _open_library(target)
        self._path, self._exact = _PATHS.index(path), exact
        self.share_pages = True
        if not self._library.ponder_kernels() >> self._path & 1:
            raise BuildError(f"the fused step's path '{path}' cannot run on this processor")
        self._integers = choose_integers(target=target).kernel == "integers" if integers is None else integers
        self._shape, self._weights, self._rotary, self._blocks = shape, weights, rotary, blocks or {}
        self._interleaved, self._mapped = interleaved, mapped
        floats = _dtype(weights) == torch.float32
        sizes = _Shape(
            *(shape.vocab_size, shape.hidden_size, shape.num_layers, shape.num_heads, shape.num_kv_heads),
            *(shape.head_dim, shape.intermediate_size, shape.qk_norm, floats, shape.rms_norm_eps),
        )
        forms = array("i", _forms(shape, self._blocks, _head(weights), quantize))
        self._handle = self._library.ponder_open(ctypes.byref(sizes), forms.buffer_info()[0], num_pages)
        if not self._handle:
            raise MemoryError(f"no memory for the packed weights and {num_pages} pages of the fused step")
        self._width = -(-shape.vocab_size // 32) * 32
        self._rope, self._known = torch.empty(0, shape.head_dim), 0  # positions that are in the table
        self._logits = torch.empty(0, self._width)  # of steps whose logits are not asked for
        self._packed: list[Tensor | None] | None = None

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._library.ponder_close(self._handle)
            self._handle = None

    def copy(self, source: int, target: int) -> None:
        """Page `target` becomes what page `source` is."""
        self._library.ponder_copy(self._handle, source, target)

    def fits(self, shape: StepShape, weights: Weights) -> bool:
        """Whether `forget(weights)` is allowed."""
        return shape == self._shape and _dtype(weights) == _dtype(self._weights)

    def clear(self) -> None:
        """Every page is zero again; the weights stay packed."""
        self._library.ponder_clear(self._handle)

    def forget(self, weights: Weights) -> None:
        """Every page is zero again, and `weights`, of the same shapes and dtype, are packed when they are needed."""
        self._library.ponder_clear(self._handle)
        self._weights, self._packed = weights, None

    def adapt(self, adapters: Sequence[PackedAdapter | None]) -> None:
        """The runs of the next step have these adapters, one for each run; later ones have none again."""
        table = (ctypes.c_void_p * len(adapters))(*(None if each is None else each.address for each in adapters))
        self._library.ponder_adapt(self._handle, len(adapters), table, max(each.width for each in adapters if each))

    def run(self, ids: Sequence[int], runs: Sequence[Run], rows: Sequence[int]) -> Tensor:
        """ids: tokens of all runs, one after the other. float32 logits_SV of the rows asked for, in their order."""
        logits = torch.empty(_padded(len(rows)), self._width)
        self._run(ids, runs, rows, logits, None)
        return logits[: len(rows), : self._shape.vocab_size]

    def pick(self, ids: Sequence[int], runs: Sequence[Run], rows: Sequence[int], picks: Sequence[Pick]) -> None:
        """As `run`; then the ids that these logits give, one pick for each of the first rows asked for. Where there are
        more rows than picks, the others' logits are kept for `pick_kept`.

        Raises NotFinite.
        """
        _check_masks(picks, self._shape.vocab_size)
        if self._logits.shape[0] < len(rows):
            self._logits = torch.empty(_padded(len(rows)), self._width)
        addresses = array("Q", [pick.address for pick in picks])
        if len(rows) > len(picks):
            addresses.extend([0] * (len(rows) - len(picks)))
        self._run(ids, runs, rows, self._logits, addresses)

    def pick_kept(self, rows: Sequence[int], picks: Sequence[Pick]) -> None:
        """Make each pick from one of the rows of logits that the last `pick` asked for; they are counted in its order.

        Raises NotFinite.
        """
        _check_masks(picks, self._shape.vocab_size)
        wanted, addresses = array("i", rows), array("Q", [pick.address for pick in picks])
        failed = self._library.ponder_pick(
            *(self._handle, len(wanted), wanted.buffer_info()[0]),
            *(self._logits.data_ptr(), addresses.buffer_info()[0]),
        )
        if failed:
            raise _failure(failed)

    def _run(
        self,
        ids: Sequence[int],
        runs: Sequence[Run],
        rows: Sequence[int],
        logits: Tensor,
        picks: array[int] | None,
    ) -> None:
        if self._packed is None:
            self._pack()
        # Arrays of the standard library: numpy's take several times as long to make and to address.
        tokens, wanted = array("i", ids), array("i", rows)
        starts, lengths = array("i", [run.start for run in runs]), array("i", [run.length for run in runs])
        tables = array("Q", [run.pages.buffer_info()[0] for run in runs])
        assert len(tokens) == sum(lengths), "one id for each token of the runs"
        self._know_positions(max(map(int.__add__, starts, lengths)))
        flags = _EXACT * self._exact + _ALONE * (not self.share_pages) + _BY_INTEGERS * self._integers
        failed = self._library.ponder_run(
            *(self._handle, torch.get_num_threads(), self._path, flags),
            *(len(tokens), tokens.buffer_info()[0], len(runs), tables.buffer_info()[0]),
            *(starts.buffer_info()[0], lengths.buffer_info()[0], len(wanted), wanted.buffer_info()[0]),
            *(self._rope.data_ptr(), logits.data_ptr(), None if picks is None else picks.buffer_info()[0]),
        )
        if failed:
            raise _failure(failed)

    def _type(self, name: str) -> int:
        if name not in self._blocks:
            return _FLOATS
        return self._blocks[name].number + _INTERLEAVED * (name in self._interleaved)

    def _know_positions(self, count: int) -> None:
        """Angles of the positions below `count` are in the table."""
        known = self._known
        if count > known:
            self._known = max(count, 2 * known, 1024)
            positions = torch.arange(self._known)
            cos, sin = self._rotary(positions[None])
            self._rope = torch.cat((cos[0, 0], sin[0, 0]), dim=-1).float().contiguous()

    @torch.no_grad()
    def _pack(self) -> None:
        names = [f"model.layers.{layer}.{name}" for layer in range(self._shape.num_layers) for name in _LAYER]
        names += ["model.embed_tokens.weight", "model.norm.weight", _head(self._weights)]
        own = _dtype(self._weights)
        tensors = [None if (found := self._weights.get(name)) is None else _packed_from(found, own) for name in names]
        addresses = (ctypes.c_void_p * len(tensors))(*(None if t is None else t.data_ptr() for t in tensors))
        types = array("i", map(self._type, names))
        at, threads = types.buffer_info()[0], torch.get_num_threads()
        self._library.ponder_pack(self._handle, addresses, at, threads, self._mapped)
        self._packed = tensors[-3:-2]  # the embedding is read in place


def packed_bytes(type: TensorType) -> float:
    """Bytes of a weight of this type, scales included, as it is packed."""
    return _BYTES[_FORM_OF[type]]


def pick_compiled(logits_SV: Tensor, picks: Sequence[Pick], *, target: str | None = None) -> None:
    """What `FusedStep.pick` does with logits that are there: float32, on the CPU.

    target: as `choose_kernel` has it.

    Raises NotFinite, BuildError, MemoryError.
    """
    assert logits_SV.dtype == torch.float32
    assert logits_SV.stride(1) == 1
    assert len(picks) == len(logits_SV)
    addresses = array("Q", [each.address for each in picks])
    rows, vocab_size = logits_SV.shape
    _check_masks(picks, vocab_size)
    failed = _open_library(target).ponder_choose(
        vocab_size, rows, logits_SV.data_ptr(), logits_SV.stride(0), addresses.buffer_info()[0]
    )
    if failed:
        raise _failure(failed)


def _check_masks(picks: Sequence[Pick], vocab_size: int) -> None:
    for each in picks:
        if each.allowed_V is not None and each.allowed_V.numel() != vocab_size:
            raise ValueError(f"a mask of {each.allowed_V.numel()} ids for a vocabulary of {vocab_size}")


def _padded(rows: int) -> int:
    return -(-rows // 16) * 16


def _failure(code: int) -> Exception:
    match code:
        case 1:
            return MemoryError("no memory, or no threads, for the step")
        case 2:
            return IndexError("an id beyond the vocabulary")
    return NotFinite("the step gave logits that are not finite")


def _dtype(weights: Weights) -> torch.dtype:
    """Of the weights that are not blocks. bfloat16 among float32 becomes float32 while it is packed."""
    dtypes = {tensor.dtype for tensor in weights.values() if tensor.dtype != torch.uint8}
    return torch.float32 if torch.float32 in dtypes else torch.bfloat16


def _packed_from(weight: Tensor, dtype: torch.dtype) -> Tensor:
    return (weight if weight.dtype == torch.uint8 else weight.to(dtype)).contiguous()


def _head(weights: Weights) -> str:
    return "lm_head.weight" if "lm_head.weight" in weights else "model.embed_tokens.weight"


def joined_matrices(num_layers: int) -> Iterator[list[str]]:
    """The names of the weights that the step packs as one matrix, for every matrix of every layer in order."""
    for layer in range(num_layers):
        for names in _MATRICES:
            yield [f"model.layers.{layer}.{name}" for name in names]


def packable(types: Sequence[TensorType]) -> bool:
    """Whether weights of these types can be packed as one matrix, as they are stored."""
    forms = {_FORM_OF.get(type) for type in types}
    return len(forms) == 1 and None not in forms


def _forms(shape: StepShape, blocks: BlockTypes, head: str, quantize: Quantize | None) -> Iterator[int]:
    """How each matrix is packed: those of each layer, then the head."""
    rounded = {None: _BFLOAT16, "int8": _INT8, "int4": _GROUPS4}[quantize]
    for names in (*joined_matrices(shape.num_layers), [head]):
        types = [blocks[name] for name in names if name in blocks]
        assert not types or (len(types) == len(names) and packable(types))
        yield _FORM_OF[types[0]] if types else rounded


def _open_library(target: str | None) -> ctypes.CDLL:
    lib = library(target)
    if lib.ponder_open.restype is not ctypes.c_void_p:
        integer, pointer = ctypes.c_int, ctypes.c_void_p
        lib.ponder_kernels.argtypes, lib.ponder_kernels.restype = (), integer
        lib.ponder_open.argtypes, lib.ponder_open.restype = (pointer, pointer, ctypes.c_long), pointer
        lib.ponder_close.argtypes = lib.ponder_clear.argtypes = (pointer,)
        lib.ponder_copy.argtypes = (pointer, integer, integer)
        lib.ponder_adapt.argtypes, lib.ponder_adapt.restype = (pointer, integer, pointer, ctypes.c_long), None
        lib.ponder_pack.argtypes = (pointer, pointer, pointer, integer, integer)
        lib.ponder_run.argtypes = (
            *(pointer, integer, integer, integer, integer, pointer, integer, pointer, pointer, pointer, integer),
            *(pointer, pointer, pointer, pointer),
        )
        lib.ponder_pick.argtypes = (pointer, integer, pointer, pointer, pointer)
        lib.ponder_choose.argtypes = (integer, integer, pointer, ctypes.c_long, pointer)
        lib.ponder_close.restype = lib.ponder_clear.restype = lib.ponder_copy.restype = lib.ponder_pack.restype = None
    return lib
