"""A sampler that acts: behind every completion it plays the environment to the end, so that each strategy can be
measured where tasks answer back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from ponder.sampler.protocol import Completion, Done, Request, Sampler, Streamed
from ponder.tasks.protocol import EnvironmentTask, Grade, Problem
from ponder.tasks.turns import Attempt, play
from ponder.types import Answer


class Acting:
    """`sampler` in the environment of one problem. A completion is the last turn, with the bill of all turns."""

    def __init__(self, sampler: Sampler, task: EnvironmentTask, problem: Problem) -> None:
        self._sampler, self._task, self._problem = sampler, task, problem
        self.thinking_tokens: int | None = getattr(sampler, "thinking_tokens", None)
        self.attempts: list[Attempt] = []

    @property
    def name(self) -> str:
        return self._sampler.name

    @property
    def window(self) -> int | None:
        return self._sampler.window

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

    async def stream(self, request: Request) -> AsyncIterator[Streamed]:
        """Every completion whole, once all are over."""
        for index, completion in enumerate(await self.sample(request)):
            yield Done(index, completion)

    async def close(self) -> None:
        """The sampler is somebody else's."""

    def grade(self, answer: Answer) -> Grade:
        """What the environment made of the attempt that this answer is from."""
        said = answer.trace["message"]
        return next(attempt.grade for attempt in self.attempts if attempt.completion.message is said)
