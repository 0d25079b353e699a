"""What a run may spend: reserved before a call, settled after it, shared out among the strategies inside it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Protocol

from ponder.sampler.protocol import AT_ONCE, Completion, Delivery
from ponder.think.events import Cut
from ponder.types import Budget, InvalidRequest, StopReason


class Spent(InvalidRequest):
    """Nothing of a budget is left, or the run was stopped.

    cut: which of them, and why.
    """

    def __init__(self, cut: Cut, budget: Budget) -> None:
        super().__init__(f"the budget is used up ({budget.tokens} tokens, {budget.samples} samples; {cut}): give more")
        self.cut = cut


class TooDeep(InvalidRequest):
    """A strategy runs more strategies inside each other than the budget's depth allows."""

    def __init__(self, strategy: str, depth: int, allowed: int) -> None:
        super().__init__(
            f"{strategy} runs strategies {depth} deep, and the budget's depth is {allowed}: allow more, or nest less"
        )


class Closable(Protocol):
    """What is closed with a run: a sampler's stream, or runs inside the run."""

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Share:
    """What samples were promised.

    tokens: for each of them; None: no limit of the budget's.
    """

    samples: int
    tokens: int | None


class Ledger:
    """What one run may spend. A strategy gives those inside it slices (`child`), which come back with `refund`.

    budget: see `Budget`; `seconds` is the wall time from now on.
    delivery: how the pieces of samples reach the strategy.
    path: the names of the strategies around and of this one, with a slash between them.
    Raises InvalidRequest for a budget that allows nothing.
    """

    def __init__(self, budget: Budget | None = None, *, delivery: Delivery = AT_ONCE) -> None:
        self.budget = budget or Budget()
        self.delivery = delivery
        self.path = ""
        for field in ("tokens", "samples", "depth", "seconds"):
            value = getattr(self.budget, field)
            if value is not None and value <= 0:
                raise InvalidRequest(
                    f"{field} of a budget must be above 0 (got {value}): give more, or None for no limit"
                )
        seconds = self.budget.seconds
        self.deadline = None if seconds is None else time.monotonic() + seconds
        self._tokens, self._samples, self._depth = self.budget.tokens, self.budget.samples, self.budget.depth
        self.owner: asyncio.Task[object] | None = None  # reads the events of the whole run, and may be cancelled
        self._parent: Ledger | None = None
        self._cut: Cut | None = None
        self._numbered = 0
        self._open: list[Closable] = []

    @property
    def cut(self) -> Cut | None:
        """Why nothing more may begin. None: more may."""
        if self.stopped is None and self.deadline is not None and time.monotonic() >= self.deadline:
            return Cut.SECONDS
        return self._spent

    @property
    def _spent(self) -> Cut | None:
        """`cut` without the clock, which might pass the deadline between a look at `cut` and the call."""
        if self.stopped is not None:
            return self.stopped
        if self._tokens is not None and self._tokens < 1:
            return Cut.TOKENS
        return Cut.SAMPLES if self._samples is not None and self._samples < 1 else None

    def _check(self) -> None:
        if self._spent is not None:
            raise Spent(self._spent, self.budget)

    @property
    def is_cancelling(self) -> bool:
        """Whether a cancellation of the whole run is on its way."""
        if self._parent is not None:
            return self._parent.is_cancelling
        return self.owner is not None and self.owner.cancelling() > 0

    @property
    def stopped(self) -> Cut | None:
        """Why this run or one around it was stopped. None: it was not, whatever is spent."""
        return self._cut or (self._parent.stopped if self._parent is not None else None)

    @property
    def tokens(self) -> int | None:
        """Tokens that are left to promise. None: no limit."""
        return self._tokens

    def stop(self, cut: Cut) -> Cut:
        """Let nothing more begin in this run, nor, unless it is one that is not needed, in those around it. Returns why
        it stopped: an earlier reason stays."""
        cut = self.stopped or cut
        self._cut = cut
        if cut is not Cut.DECIDED and self._parent is not None:
            self._parent.stop(cut)
        return cut

    def take_cancel(self) -> Cut:
        """`stop` for a cancellation that was caught in the current task: the run ends with its best, and goes on until
        it has. Returns why it stopped."""
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()
        return self.stop(Cut.CANCELLED)

    def limit(self, deadline: float | None) -> None:
        """End at `deadline` (on the clock of `time.monotonic`) at the latest."""
        self.deadline = min((each for each in (self.deadline, deadline) if each is not None), default=None)

    def enter(self, strategy: str, depth: int) -> None:
        """The strategy of this name begins, with as many inside each other as `depth` says. Raises TooDeep."""
        if self._depth is not None and depth > self._depth:
            raise TooDeep(strategy, depth, self._depth)
        self.path = f"{self._parent.path}/{strategy}" if self._parent is not None else strategy

    # Slices -----------------------------------------------------------------------------------------------------------

    def child(self, parts: int) -> Ledger:
        """A slice for a strategy inside this one: one of `parts` equal ones of what is left. Raises Spent."""
        child = self.slice(parts)
        child._depth = None if self._depth is None else self._depth - 1
        return child

    def slice(self, parts: int) -> Ledger:
        """The same for a part of this strategy's own work. Raises Spent."""
        self._check()
        child = Ledger(delivery=self.delivery)
        child.budget, child.deadline, child.path, child._parent = self.budget, self.deadline, self.path, self
        if self._tokens is not None:
            child._tokens = max(1, self._tokens // parts)
            self._tokens -= child._tokens
        if self._samples is not None:
            child._samples = max(1, self._samples // parts)
            self._samples -= child._samples
        child._depth = self._depth
        return child

    def refund(self) -> None:
        """Give back what is left of a slice."""
        parent = self._parent
        assert parent is not None
        if parent._tokens is not None and self._tokens is not None:  # below 0 where verifiers took more than was left
            parent._tokens += self._tokens
            self._tokens = 0
        if parent._samples is not None and self._samples is not None:
            parent._samples += self._samples
            self._samples = 0

    # Calls ------------------------------------------------------------------------------------------------------------

    def reserve(self, samples: int) -> Share:
        """At most `samples`, and as many as the budget has left, each with an equal part of its tokens. Raises Spent
        where nothing is left, or nothing may begin any more."""
        self._check()
        samples = min(each for each in (samples, self._samples, self._tokens) if each is not None)
        tokens = None if self._tokens is None else self._tokens // samples
        if self._tokens is not None and tokens is not None:
            self._tokens -= tokens * samples
        if self._samples is not None:
            self._samples -= samples
        return Share(samples, tokens)

    def settle(self, share: Share, completion: Completion) -> None:
        """One sample of the share is over: what it left of its tokens is free again. A sample that ended without a
        server's own count took all that it was promised."""
        spent, cut_short = completion.usage.completion_tokens, (StopReason.DEADLINE, StopReason.ABORTED)
        uncounted = completion.usage_estimated and (completion.stop_reason in cut_short or not spent)
        if self._tokens is not None and share.tokens is not None and not uncounted:
            self._tokens += share.tokens - spent

    def charge(self, tokens: int) -> None:
        """Tokens that were sampled elsewhere, by a verifier."""
        if self._tokens is not None:
            self._tokens -= tokens

    def number(self, samples: int) -> int:
        """The number of the first of `samples` new samples: they are counted over the whole run."""
        if self._parent is not None:
            return self._parent.number(samples)
        self._numbered += samples
        return self._numbered - samples

    def opened(self, closable: Closable) -> None:
        """Close this with the whole run, if it has not ended by then."""
        if self._parent is not None:
            self._parent.opened(closable)
        else:
            self._open.append(closable)

    def ended(self, closable: Closable) -> None:
        """It has ended by itself."""
        if self._parent is not None:
            self._parent.ended(closable)
        elif closable in self._open:
            self._open.remove(closable)

    async def close(self) -> None:
        """Abort what still runs."""
        while self._open:
            await self._open.pop(0).aclose()  # runs before the streams inside them, which they close themselves
