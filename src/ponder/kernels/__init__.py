"""The step of a decoder on the processor's own matrix units: built on first use, torch where that cannot be.

Tensors, sizes and picks in, logits or ids out: kernels know nothing of models or engines.
"""

from ponder.kernels.build import BuildError
from ponder.kernels.fused import FusedStep, KernelChoice, Quantize, StepShape, choose_kernel
from ponder.kernels.sampling import NotFinite, Pick, Rule

__all__ = [
    "BuildError",
    "FusedStep",
    "KernelChoice",
    "NotFinite",
    "Pick",
    "Quantize",
    "Rule",
    "StepShape",
    "choose_kernel",
]
