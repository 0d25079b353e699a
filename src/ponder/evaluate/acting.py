"""A sampler that acts: after every completion it plays the environment to the end, so that each strategy can be
measured where tasks answer back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING

from ponder.dialogue.messages import Conversation
from ponder.sampler.protocol import AT_ONCE, Capabilities, Completion, Delivery, Done, Request, Sampler, Streamed
from ponder.tasks.protocol import EnvironmentTask, Grade, Problem
from ponder.tasks.turns import Attempt, play
from ponder.think import Answer
from ponder.types import TopLogprobs

if TYPE_CHECKING:
    from ponder.engine.scheduler import EngineStats


class Acting:
    """`sampler` in the environment of one problem. A completion is the last turn, with the bill of all turns."""

    def __init__(self, sampler: Sampler, task: EnvironmentTask, problem: Problem) -> None:
        self._sampler, self._task, self._problem = sampler, task, problem
        self.attempts: list[Attempt] = []

    @property
    def name(self) -> str:
        return self._sampler.name

    @property
    def capabilities(self) -> Capabilities:
        return self._sampler.capabilities

    async def sample(self, request: Request) -> list[Completion]:
        """Raises InvalidRequest for a sampler that does not say how it renders results."""
        attempts = await asyncio.gather(
            *(
                play(
                    *(self._sampler, self._task, self._problem, first),
                    params=request.params,
                    seed=f"{request.params.seed}/{index}",
                )
                for index, first in enumerate(await self._sampler.sample(request))
            )
        )
        self.attempts += attempts
        return [attempt.completion for attempt in attempts]

    async def stream(self, request: Request, delivery: Delivery = AT_ONCE) -> AsyncGenerator[Streamed, None]:
        """Every completion whole, once all are over."""
        for index, completion in enumerate(await self.sample(request)):
            delivery.end()
            yield Done(index, completion)

    async def score(self, ids: Sequence[int], top: int = 0) -> tuple[list[float], list[TopLogprobs]]:
        return await self._sampler.score(ids, top)

    async def certainty(self, ids: Sequence[int], first: int) -> float:
        return await self._sampler.certainty(ids, first)

    def gather(self, requests: int) -> None:
        self._sampler.gather(requests)

    async def count(self, prompt: Conversation | tuple[int, ...]) -> int:
        return await self._sampler.count(prompt)

    async def stats(self) -> EngineStats | None:
        return await self._sampler.stats()

    async def close(self) -> None:
        """The sampler stays open: it belongs to the caller."""

    def grade(self, answer: Answer) -> Grade:
        """What the environment made of the attempt that this answer is from."""
        return next(each.grade for each in self.attempts if each.completion.message is answer.message)
