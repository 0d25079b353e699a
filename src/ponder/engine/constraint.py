"""What the ANSWER phase may say, as the engine sees it: allowed ids, token by token. `sampler.grammar` makes them."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Constraint(Protocol):
    """The state of one sequence's answer under a grammar. The engine asks in the ANSWER phase only: thinking, the token
    that closes it and whatever is forced before the answer never reach a constraint.

    A method that raises a PonderError ends its own request, with a FailEvent.
    """

    def allowed(self) -> Tensor:
        """allowed_V: True for each id that may come next, on the CPU. The format's end ids are among them where the
        text may end here; at least one id always is."""
        ...

    def advance(self, id: int) -> None:
        """Token `id`, one of the allowed, was produced. End ids included."""
        ...

    def fork(self) -> Constraint:
        """An independent copy at the same place."""
        ...
