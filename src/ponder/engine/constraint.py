"""What an answer and its calls may say, as the engine sees it: allowed ids, token by token. `sampler` makes them."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Constraint(Protocol):
    """The state of one sequence's answer under a grammar. The engine asks in the ANSWER and TOOL phases: thinking, the
    token that closes it and whatever is forced before the answer never reach a constraint. A token that opens thinking
    or a call does, if it is allowed. While a sequence with a constraint thinks, its turn cannot end.

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
