"""Values that cross into a child process as JSON and come back unchanged: tuples, fractions and keys of any kind."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from ponder.types import GraderError


def pack_json(value: Any) -> Any:
    """`value` as JSON that keeps tuples, fractions and all keys. Raises GraderError on anything else."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, list):
        return [pack_json(each) for each in value]
    if isinstance(value, tuple):
        return {"$tuple": [pack_json(each) for each in value]}
    if isinstance(value, Fraction):
        return {"$fraction": str(value)}
    if isinstance(value, dict):
        return {"$dict": [[pack_json(key), pack_json(each)] for key, each in value.items()]}
    raise GraderError(f"an entry must be plain JSON data (got {type(value).__name__})")


def unpack_json(value: Any) -> Any:
    """The inverse of `pack_json`."""
    if isinstance(value, list):
        return [unpack_json(each) for each in value]
    if not isinstance(value, dict):
        return value
    ((tag, inside),) = value.items()
    if tag == "$tuple":
        return tuple(unpack_json(each) for each in inside)
    if tag == "$fraction":
        return Fraction(inside)
    return {unpack_json(key): unpack_json(each) for key, each in inside}
