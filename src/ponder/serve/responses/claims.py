"""A conversation takes one response at a time: what comes next must know what came before."""

from __future__ import annotations

from collections.abc import Callable

from ponder.serve.errors import ApiError


class Claims:
    """The conversations that a response is being made for, with their owners."""

    def __init__(self) -> None:
        self._taken: set[tuple[str, str]] = set()

    def take(self, owner: str, id: str | None) -> Callable[[], None]:
        """Claim the conversation; the result gives it back, once however often it is called. None claims nothing.

        Raises ApiError 409 where it is taken."""
        if id is None:
            return lambda: None
        claim = (owner, id)
        if claim in self._taken:
            raise ApiError(
                409,
                f"another response of conversation '{id}' is in progress: try again when it is done",
                param="conversation",
                code="conversation_locked",
            )
        self._taken.add(claim)
        held = [claim]

        def release() -> None:
            while held:
                self._taken.discard(held.pop())

        return release
