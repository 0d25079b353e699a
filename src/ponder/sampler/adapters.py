"""LoRA adapters beside one local model: each is a `Sampler` over the same engine, and they run in one batch."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

from ponder.dialogue import Conversation
from ponder.engine.scheduler import EngineStats
from ponder.model.lora import check_adapter
from ponder.sampler.local import LocalSampler
from ponder.sampler.protocol import AT_ONCE, Capabilities, Completion, Delivery, Request, Streamed
from ponder.types import InvalidRequest, TopLogprobs


class AdapterSampler:
    """A local model with a saved adapter, whose weights are read when the first request comes."""

    def __init__(self, base: LocalSampler, name: str, folder: str | Path) -> None:
        """base: the model, which this closes too. Raises CheckpointError when the adapter does not fit it."""
        check_adapter(base.engine.model, folder)
        self.base = base
        self._name, self._folder = name, folder

    @property
    def name(self) -> str:
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        known = self.base.capabilities
        return replace(known, weights=None, scores=False, computation=(*known.computation, ("adapter", self._name)))

    async def sample(self, request: Request) -> list[Completion]:
        """Raises as `LocalSampler.sample`, CheckpointError where the files have changed."""
        await self.base.use_adapter(self._name, self._folder)
        return await self.base.sample(replace(request, adapter=self._name))

    async def stream(self, request: Request, delivery: Delivery = AT_ONCE) -> AsyncGenerator[Streamed, None]:
        await self.base.use_adapter(self._name, self._folder)
        async with aclosing(self.base.stream(replace(request, adapter=self._name), delivery)) as items:
            async for item in items:
                yield item

    async def score(self, ids: Sequence[int], top: int = 0) -> tuple[list[float], list[TopLogprobs]]:
        raise self._no_scores()

    async def certainty(self, ids: Sequence[int], first: int) -> float:
        raise self._no_scores()

    def gather(self, requests: int) -> None:
        self.base.gather(requests)

    async def count(self, prompt: Conversation | tuple[int, ...]) -> int:
        return await self.base.count(prompt)

    async def stats(self) -> EngineStats | None:
        """The counters of the engine, for all its adapters."""
        return await self.base.stats()

    async def close(self) -> None:
        await self.base.close()

    def _no_scores(self) -> InvalidRequest:
        return InvalidRequest(
            f"log-probabilities of a prompt are not computed with an adapter ({self._name}): merge it into its model"
        )
