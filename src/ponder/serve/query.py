"""What stands behind the question mark: parameters that a route has, each once. No other is accepted and ignored."""

from __future__ import annotations

from starlette.requests import Request

from ponder.serve.errors import ApiError, unsupported

LONGEST_QUERY = 4096


def check_query(request: Request) -> None:
    """A dependency of every route. Raises ApiError 400 naming the parameter."""
    if len(request.scope.get("query_string", b"")) > LONGEST_QUERY:
        raise ApiError(400, f"the query is too long: allowed are {LONGEST_QUERY} characters", code="query_too_long")
    if not request.query_params:
        return
    known = {field.alias for field in request.scope["route"].dependant.query_params}
    for name, _ in request.query_params.multi_items():
        if name not in known:
            raise unsupported(name[:100], "unknown or unsupported parameter of the query")
