"""The constants of the format (ggml's docs/gguf.md): types of fields, and types of tensors by their blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum, IntEnum

MAGIC, VERSION, ALIGNMENT = b"GGUF", 3, 32
BLOCK = 32  # values that share a scale in Q8_0 and its relatives
SUPERBLOCK = 256  # values of a block of the K types
# Keys of Ponder's own, which other programs pass over: what its models have and the format has no word for.
PONDER_KEY = "ponder."
FILE_NAMES, OWN_NAMES = "ponder.tokens.in_file", "ponder.tokens.own"  # control tokens that were renamed for llama.cpp


class FieldType(IntEnum):
    """The types of a field's value, by their numbers in the format."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


class TensorType(Enum):
    """How a tensor's values are stored: the format's number, values in a block, bytes of a block."""

    F32 = (0, 1, 4)
    F16 = (1, 1, 2)
    Q4_0 = (2, BLOCK, 2 + 16)
    Q4_1 = (3, BLOCK, 4 + 16)
    Q5_0 = (6, BLOCK, 2 + 4 + 16)
    Q5_1 = (7, BLOCK, 4 + 4 + 16)
    Q8_0 = (8, BLOCK, 2 + 32)
    Q4_K = (12, SUPERBLOCK, 4 + 12 + 128)
    Q5_K = (13, SUPERBLOCK, 4 + 12 + 32 + 128)
    Q6_K = (14, SUPERBLOCK, 128 + 64 + 16 + 2)
    BF16 = (30, 1, 2)

    @property
    def number(self) -> int:
        return self.value[0]

    @property
    def block(self) -> int:
        """Values in a block."""
        return self.value[1]

    def num_bytes(self, shape: Sequence[int]) -> int:
        _, values, size = self.value
        return math.prod(shape) // values * size


TYPES = {type.number: type for type in TensorType}
# Other types by their numbers, so that an error can name them.
UNSUPPORTED_TYPES = {
    9: "Q8_1",
    10: "Q2_K",
    11: "Q3_K",
    15: "Q8_K",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    20: "IQ4_NL",
    21: "IQ3_S",
    22: "IQ2_S",
    23: "IQ4_XS",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    29: "IQ1_M",
    34: "TQ1_0",
    35: "TQ2_0",
    39: "MXFP4",
    40: "NVFP4",
}
