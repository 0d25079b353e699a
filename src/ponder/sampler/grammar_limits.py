"""What a grammar may ask for. llguidance bounds most of its work itself (fuel, states, items); these are the inputs for
which that was seen not to hold, minutes and gigabytes, and the sizes past which nobody means well."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

from ponder.types import InvalidRequest

MAX_SCHEMA = 128 * 1024  # characters; measured: 150k compile in 0.1 s
MAX_PATTERN = 8 * 1024  # characters
MAX_MULTIPLE = 10_000  # one automaton state for each remainder
MAX_COMBINED = 12  # regular expressions that may be intersected: twice the work for each

ANNOTATIONS = frozenset({"$schema", "$id", "$anchor", "$comment", "$defs", "definitions", "title", "description"}) | {
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
}
COMBINING = frozenset({"$ref", "$dynamicRef", "anyOf", "oneOf"})


def check_pattern(pattern: object) -> None:
    """Raises InvalidRequest unless it is text of a sensible length."""
    if not isinstance(pattern, str):
        raise InvalidRequest(f"the regular expression is a {type(pattern).__name__}: give its text")
    if len(pattern) > MAX_PATTERN:
        raise InvalidRequest(f"the regular expression has {len(pattern)} characters: allowed are {MAX_PATTERN}")


def check_schema(schema: object) -> None:
    """Raises InvalidRequest unless it is the text of a JSON object that can be compiled in a short time."""
    if not isinstance(schema, str):
        raise InvalidRequest(f"the JSON schema is a {type(schema).__name__}: give its text")
    if len(schema) > MAX_SCHEMA:
        raise InvalidRequest(f"the JSON schema has {len(schema)} characters: allowed are {MAX_SCHEMA}")
    try:
        tree = json.loads(schema, parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the JSON schema is not valid JSON: {error}") from error
    if not isinstance(tree, dict):
        raise InvalidRequest("the JSON schema must be a JSON object, such as {} for any value")
    if "x-guidance" in tree:
        raise InvalidRequest("the JSON schema holds 'x-guidance', a setting of the library behind: leave it out")
    _check_costs(tree)


def check_call_schemas(schemas: Sequence[tuple[str, str]]) -> None:
    """`check_schema` for the parameters of tools, each and all together; the error names the tool."""
    for name, schema in schemas:
        try:
            check_schema(schema)
        except InvalidRequest as error:
            raise InvalidRequest(f"the parameters of the tool {name!r}: {error}") from error
    total = sum(len(schema) for _, schema in schemas)
    if total > MAX_SCHEMA:
        raise InvalidRequest(f"the tools' parameters have {total} characters together: allowed are {MAX_SCHEMA}")


def _check_costs(tree: dict[str, Any]) -> None:
    multiple, patterns, combines = 1, set(), False
    for node in _objects(tree):
        divisor = node.get("multipleOf")
        if isinstance(divisor, int | Decimal) and divisor:
            multiple = math.lcm(multiple, _digits(Decimal(divisor)))
        patterns |= {(key, node[key]) for key in ("pattern", "format") if isinstance(node.get(key), str)}
        named = node.get("patternProperties")
        patterns |= {("pattern", key) for key in named} if isinstance(named, dict) else set()
        combines = combines or "allOf" in node or bool(COMBINING & node.keys() and len(node.keys() - ANNOTATIONS) > 1)
    if multiple > MAX_MULTIPLE:
        raise InvalidRequest(
            f"the JSON schema's multipleOf come to a common multiple of {multiple} (digits without trailing zeros): "
            f"allowed are {MAX_MULTIPLE}"
        )
    if combines and len(patterns) > MAX_COMBINED:
        raise InvalidRequest(
            f"the JSON schema combines schemas (allOf, or $ref, anyOf or oneOf beside other keywords) and holds "
            f"{len(patterns)} different patterns and formats: allowed are {MAX_COMBINED} where schemas are combined"
        )


def _objects(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every JSON object in the schema, itself first."""
    pending: list[Any] = [tree]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            yield value
            pending += value.values()
        elif isinstance(value, list):
            pending += value


def _digits(number: Decimal) -> int:
    """The digits of a number, without point, sign and trailing zeros."""
    return int("".join(map(str, number.as_tuple().digits)).rstrip("0"))
