"""Which numbers a recipe may hold: the range stands beside the field, as `Annotated[float, Range(0, 1)]`."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any


@dataclass(frozen=True, slots=True)
class Range:
    """The finite numbers from `low` to `high`.

    above, below: without `low` itself, without `high` itself.
    """

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        """Whether `value` is in the range. Nothing else than a finite number is."""
        over = self.low < value if self.above else self.low <= value
        under = value < self.high if self.below else value <= self.high
        return over and under and abs(value) != math.inf

    def __str__(self) -> str:
        low = f"above {self.low}" if self.above else f"of at least {self.low}"
        if self.high == math.inf:
            return low
        return f"{low} and below {self.high}" if self.below else f"{low} and at most {self.high}"


MOST = 2**53  # of what is counted; larger whole numbers are not exact as floats

Count = Annotated[int, Range(1, MOST)]
CountOrZero = Annotated[int, Range(0, MOST)]
Width = Annotated[int, Range(1, 1 << 20)]  # of a tensor's axis
Length = Annotated[int, Range(1, 1 << 30)]  # of a sequence, tokens
Processes = Annotated[int, Range(1, 1024)]
Share = Annotated[float, Range(0, 1)]
Positive = Annotated[float, Range(0, 1e12, above=True)]  # far from what float32 takes for infinite
Duration = Annotated[float, Range(0)]


@lru_cache(maxsize=256)
def _ranged_types(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def out_of_range(table: Any, name: str) -> Iterator[str]:
    """An error text for every number of the dataclass `table`, or of a dataclass in it, that its range does not hold.

    name: of the table, which the keys are named by.
    """
    kind: type = type(table)
    hints = _ranged_types(kind)
    for field in dataclasses.fields(table):
        key, value = f"{name}.{field.name}", getattr(table, field.name)
        if dataclasses.is_dataclass(value):
            yield from out_of_range(value, key)
        elif isinstance(value, tuple):
            for number, part in enumerate(value):
                if dataclasses.is_dataclass(part):
                    yield from out_of_range(part, f"{key}[{number}]")
        elif (allowed := range_of(hints[field.name])) and value is not None and not allowed.holds(value):
            yield f"{key} must be a number {allowed} (got {value})"


def range_of(hint: Any) -> Range | None:
    """The range in the type of a field, if it has one."""
    parts = (*getattr(hint, "__metadata__", ()), *map(range_of, typing.get_args(hint)))
    return next((part for part in parts if isinstance(part, Range)), None)
