"""Upper bounds that several routes share: no string, list or tree of a request is larger than these."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import AfterValidator, Field

HEAD_BYTES = 32 * 1024  # path, query and headers of a request
LONGEST_TEXT = 4 * 1024 * 1024  # characters
LARGEST_TREE = 256 * 1024  # bytes of JSON
DEEPEST = 64  # lists and objects in each other, of a whole body
MOST_VALUES = 500_000  # of a whole body; a prompt of ids is a list of so many at most
MOST_TEXTS = 50_000  # of a whole body, names included; and as many objects
MOST_NAMES = 1024  # of one object
LONGEST_INTEGER = 100  # digits


def check_text(text: str) -> str:
    """Raises ValueError for what cannot be written as UTF-8: half of a surrogate pair, which JSON can spell."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("is no valid Unicode: it holds half of a surrogate pair") from None
    return text


def check_tree(tree: dict[str, Any]) -> dict[str, Any]:
    """Free JSON inside a request: a schema, metadata. Raises ValueError where it is too large."""
    size = len(json.dumps(tree, ensure_ascii=False).encode())
    if size > LARGEST_TREE:
        raise ValueError(f"is {size} bytes of JSON: allowed are {LARGEST_TREE}")
    return tree


Name = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(check_text)]
LongText = Annotated[str, Field(max_length=LONGEST_TEXT), AfterValidator(check_text)]
Tree = Annotated[dict[str, Any], Field(max_length=MOST_NAMES), AfterValidator(check_tree)]
