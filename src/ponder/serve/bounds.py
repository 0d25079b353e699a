"""Upper bounds that several routes share: no string, list or tree of a request is larger than these."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import AfterValidator, Field

LONGEST_TEXT = 4 * 1024 * 1024  # characters
LARGEST_TREE = 256 * 1024  # characters of JSON
DEEPEST_TREE = 64


def check_text(text: str) -> str:
    """Raises ValueError for what cannot be written as UTF-8 (half of a surrogate pair, which JSON can spell)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("is no valid Unicode: it holds half of a surrogate pair") from None
    return text


def check_tree(tree: dict[str, Any]) -> dict[str, Any]:
    """Free JSON inside a request: a schema, metadata. Raises ValueError where it is too deep or too large."""
    pending: list[tuple[Any, int]] = [(tree, 1)]
    while pending:
        value, depth = pending.pop()
        if depth > DEEPEST_TREE:
            raise ValueError(f"is nested more than {DEEPEST_TREE} deep")
        if isinstance(value, dict):
            pending += ((each, depth + 1) for each in value.values())
        elif isinstance(value, list):
            pending += ((each, depth + 1) for each in value)
    try:
        size = len(json.dumps(tree, ensure_ascii=False, allow_nan=False).encode())
    except ValueError:
        raise ValueError("holds a number or a text that is no JSON") from None
    if size > LARGEST_TREE:
        raise ValueError(f"is {size} bytes of JSON: allowed are {LARGEST_TREE}")
    return tree


Name = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(check_text)]
LongText = Annotated[str, Field(max_length=LONGEST_TEXT), AfterValidator(check_text)]
