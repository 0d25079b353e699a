"""The step of a decoder on the processor's own matrix units: built on first use, torch where that cannot be.

Tensors and sizes in, logits out: kernels know nothing of models or engines.
"""

from ponder.kernels.build import BuildError
from ponder.kernels.fused import Choice, FusedStep, Quantize, StepShape, choose_kernel

__all__ = ["BuildError", "Choice", "FusedStep", "Quantize", "StepShape", "choose_kernel"]
