"""Lists in pages, as the API has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ponder.serve.errors import ApiError
from ponder.serve.store import Order


def page_of(items: Sequence[Mapping[str, Any]], after: str | None, most: int, order: Order) -> dict[str, Any]:
    """The `most` items behind the one called `after`. Raises ApiError 404 where there is no such item."""
    ordered = list(items) if order is Order.ASC else list(items)[::-1]
    begin = 0
    if after is not None:
        ids = [item["id"] for item in ordered]
        if after not in ids:
            raise ApiError(404, f"after: there is no item '{after}' here", param="after", code="not_found")
        begin = ids.index(after) + 1
    return listed(ordered[begin : begin + most], more=len(ordered) > begin + most)


def listed(items: Sequence[Mapping[str, Any]], *, more: bool) -> dict[str, Any]:
    """A `list` object."""
    return {
        "object": "list",
        "data": list(items),
        "first_id": items[0]["id"] if items else "",
        "last_id": items[-1]["id"] if items else "",
        "has_more": more,
    }
