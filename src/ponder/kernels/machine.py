"""What this machine computes in, and why: every choice of a precision or a kernel for a processor starts here.

Torch emulates bfloat16 products where the processor has none, at a fortieth of the speed of float32 (docs/LOG.md).
"""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import torch

from ponder.types import InvalidRequest

SWITCH = "PONDER_MAX_ISA"
PRODUCTS = "PONDER_PRODUCTS"  # "float": weights of 4 to 8 bits meet no integers


class InstructionSet(StrEnum):
    """The classes of processors, from the slowest to the fastest.

    OTHER: not x86-64 with AVX2, or macOS. AVX_VNNI: AVX2 with dot products of integers. AVX512: without bfloat16
    products; those of integers where the processor has them. AVX512_BF16: dot products of integers, and of bfloat16
    pairs. AMX: tiles of bfloat16.
    """

    OTHER = "other"
    AVX2 = "avx2"
    AVX_VNNI = "avx_vnni"
    AVX512 = "avx512"
    AVX512_BF16 = "avx512_bf16"
    AMX = "amx"


_ORDER = list(InstructionSet)
_MARCH = {
    InstructionSet.AVX2: "x86-64-v3",
    InstructionSet.AVX_VNNI: "alderlake",
    InstructionSet.AVX512: "x86-64-v4",
    InstructionSet.AVX512_BF16: "cooperlake",
}
_ONEDNN = {
    InstructionSet.OTHER: "SSE41",
    InstructionSet.AVX2: "AVX2",
    InstructionSet.AVX_VNNI: "AVX2_VNNI",
    InstructionSet.AVX512: "AVX512_CORE",
    InstructionSet.AVX512_BF16: "AVX512_CORE_BF16",
}
_MKL = {InstructionSet.OTHER: "SSE4_2", InstructionSet.AVX2: "AVX2", InstructionSet.AVX_VNNI: "AVX2"}


@dataclass(frozen=True, slots=True)
class Machine:
    """instructions: the class of the processor, or a lower one that $PONDER_MAX_ISA asks for.
    reason: why it is not a higher one; empty for the highest.
    march: what to compile for, as g++'s `-march`; empty for OTHER.
    integers: whether weights of 4 to 8 bits may meet integers; not where $PONDER_PRODUCTS is "float".
    """

    instructions: InstructionSet
    reason: str
    march: str
    integers: bool

    @property
    def dtype(self) -> torch.dtype:
        """What torch multiplies on the CPU: bfloat16 where the processor has such products, else float32."""
        has = self.instructions in (InstructionSet.AVX512_BF16, InstructionSet.AMX)
        return torch.bfloat16 if has else torch.float32

    @property
    def products(self) -> str:
        """The name of `dtype`."""
        return str(self.dtype).removeprefix("torch.")

    def __str__(self) -> str:
        said = f"{self.instructions}, products in {self.products}"
        return f"{said}: {self.reason}" if self.reason else said


_found: Machine | None = None  # a global, not a cache around `machine`: torch.compile reads it, and skips a cache


def machine() -> Machine:
    """This machine. Raises InvalidRequest for a $PONDER_MAX_ISA that names no class, or an unknown $PONDER_PRODUCTS."""
    global _found
    if _found is None:
        _found = _find()
    return _found


def _find() -> Machine:
    own, reason = _own()
    asked = os.environ.get(SWITCH, "")
    if asked and asked not in _ORDER:
        raise InvalidRequest(f"{SWITCH} must be one of {', '.join(_ORDER)} (got {asked!r})")
    products = os.environ.get(PRODUCTS, "")
    if products not in ("", "float"):
        raise InvalidRequest(f"{PRODUCTS} must be float, or not be set (got {products!r})")
    integers = not products
    if asked and _ORDER.index(InstructionSet(asked)) < _ORDER.index(own):
        lower = InstructionSet(asked)
        if lower is InstructionSet.AVX_VNNI and not _has_avx_vnni():
            lower = InstructionSet.AVX2
        return Machine(lower, f"{SWITCH} is {asked}", _MARCH.get(lower, ""), integers)
    return Machine(own, reason, "" if own is InstructionSet.OTHER else "native", integers)


def product_dtype(dtype: torch.dtype, device: str) -> torch.dtype:
    """What torch multiplies numbers of `dtype` in on a device of this type: `dtype`, or float32 where the processor has
    no such products."""
    if device != "cpu" or dtype not in (torch.bfloat16, torch.float16) or dtype == machine().dtype:
        return dtype
    return torch.float32


def held_to(instructions: InstructionSet) -> dict[str, str]:
    """Variables of the environment under which a new process, torch included, runs as on a processor of this class."""
    held = {SWITCH: str(instructions)}
    if instructions in _ONEDNN:
        held["ONEDNN_MAX_CPU_ISA"] = _ONEDNN[instructions]
        if instructions in _MKL:  # on processors of Intel, the products of float32
            held["MKL_ENABLE_INSTRUCTIONS"] = _MKL[instructions]
        torch_has = {InstructionSet.OTHER: "default", InstructionSet.AVX2: "avx2", InstructionSet.AVX_VNNI: "avx2"}
        held["ATEN_CPU_CAPABILITY"] = torch_has.get(instructions, "avx512")
    return held


def _own() -> tuple[InstructionSet, str]:
    """(the processor's class, why not a higher one)."""
    if sys.platform == "darwin" or platform.machine().lower() not in ("x86_64", "amd64"):
        return InstructionSet.OTHER, f"this is {platform.system()} on {platform.machine()}, not x86-64 Linux or Windows"
    if not torch.cpu._is_avx2_supported():
        return InstructionSet.OTHER, "the processor has no AVX2"
    if not torch.cpu._is_avx512_supported():
        own = InstructionSet.AVX_VNNI if _has_avx_vnni() else InstructionSet.AVX2
        return own, "the processor has no AVX-512, and no products of bfloat16"
    if not torch.cpu._is_avx512_bf16_supported():
        return InstructionSet.AVX512, "the processor has no products of bfloat16 (AVX-512 BF16, AMX)"
    if not torch.cpu._is_amx_tile_supported():
        return InstructionSet.AVX512_BF16, "the processor has no AMX tiles"
    return InstructionSet.AMX, ""


def _has_avx_vnni() -> bool:
    """Dot products of integers in vectors of AVX2: torch does not say, Linux does."""
    try:
        return " avx_vnni " in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
