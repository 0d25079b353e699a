"""Plain values: what a function under test returns, as JSON that is compared and never executed or rebuilt."""

from __future__ import annotations

import math
from typing import Any


def plain_value(value: Any) -> Any:
    """A value of plain types as JSON. Tuples become lists, sets and dictionaries are tagged; no method of the value is
    called, so types derived from these are refused. Raises TypeError."""
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind in (list, tuple):
        return [plain_value(each) for each in value]
    if kind in (set, frozenset):
        return {"$set": sorted((plain_value(each) for each in value), key=repr)}
    if kind is dict:
        return {"$dict": [[plain_value(key), plain_value(each)] for key, each in value.items()]}
    if kind is bytes:
        return {"$bytes": value.hex()}
    raise TypeError(f"{kind.__name__} is not plain data: return numbers, texts, lists, tuples, sets or dictionaries")


def same_plain(wanted: Any, got: Any, tolerance: float = 0.0) -> bool:
    """Whether two plain values are equal; the second may be anything that JSON can be.

    Whole numbers and decimals compare as numbers, True and False only with themselves; dictionaries in any order.
    tolerance: of decimals, relative, and absolute around 0.
    """
    if isinstance(wanted, bool) or wanted is None or isinstance(wanted, str):
        return type(wanted) is type(got) and wanted == got
    if isinstance(wanted, int | float):
        if isinstance(got, bool) or not isinstance(got, int | float):
            return False
        if isinstance(wanted, int) and isinstance(got, int):
            return wanted == got
        try:
            a, b = float(wanted), float(got)
        except OverflowError:
            return wanted == got
        return a == b or (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)
    if isinstance(wanted, list):
        return (
            isinstance(got, list)
            and len(wanted) == len(got)
            and all(same_plain(a, b, tolerance) for a, b in zip(wanted, got, strict=True))
        )
    ((tag, inside),) = wanted.items()
    if not isinstance(got, dict) or list(got) != [tag]:
        return False
    if tag != "$dict":
        return same_plain(inside, got[tag], tolerance)
    left = got[tag]
    if (
        not isinstance(left, list)
        or len(left) != len(inside)
        or not all(isinstance(e, list) and len(e) == 2 for e in left)
    ):
        return False
    return all(any(same_plain(k, key) and same_plain(v, value, tolerance) for key, value in left) for k, v in inside)
