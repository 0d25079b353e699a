"""The models of a server, by name."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ponder.sampler.protocol import Capabilities, Sampler
from ponder.serve.admission import Admission
from ponder.serve.errors import NotFound
from ponder.serve.settings import Settings
from ponder.think.strategy import Strategy
from ponder.tokenizer import Tokenizer
from ponder.types import InvalidRequest

REMOTE_RUNNING = 256  # requests at once to a model on another server, which has its own queue


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A model under the name that requests call it by. Several names may share one sampler.

    strategy: how this name answers; None: as a request says, or directly.
    created: seconds since 1970.
    parent: the model under an adapter.
    engine: the sampler whose engine it shares, and its queue; None: its own.
    """

    name: str
    sampler: Sampler
    strategy: Strategy | None = None
    created: int = field(default_factory=lambda: int(time.time()))
    owned_by: str = "ponder"
    parent: str | None = None
    engine: Sampler | None = None

    @property
    def capabilities(self) -> Capabilities:
        return self.sampler.capabilities

    @property
    def tokenizer(self) -> Tokenizer | None:
        """None: the model is on another server, which has its tokens."""
        return self.sampler.capabilities.tokenizer

    @property
    def fingerprint(self) -> str:
        """Changes with what computes the answers: model, kernel, rounding, strategy."""
        facts = {"name": self.sampler.name, **dict(self.capabilities.computation)}
        if self.strategy is not None:
            facts["strategy"] = self.strategy.name
        return "fp_" + hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:12]


class Models:
    """The models of a server, and a queue for each sampler."""

    def __init__(self, served: Iterable[Served], settings: Settings) -> None:
        self._served: dict[str, Served] = {}
        self._queues: dict[str, str] = {}  # by name, the first name that has the same sampler
        first: dict[int, str] = {}
        for one in served:
            if one.name in self._served:
                raise InvalidRequest(f"two models are called {one.name!r}: give each its own name (NAME=MODEL)")
            self._served[one.name] = one
            self._queues[one.name] = first.setdefault(id(one.engine or one.sampler), one.name)
        self.admissions = {
            name: Admission(
                running=self._served[name].capabilities.max_sequences or REMOTE_RUNNING,
                queued_requests=settings.queued_requests,
                queued_tokens=settings.queued_tokens,
            )
            for name in first.values()
        }

    def __iter__(self) -> Iterator[Served]:
        return iter(self._served.values())

    def get(self, name: str) -> Served:
        """Raises NotFound, which lists the models that there are."""
        if name not in self._served:
            raise NotFound(
                f"there is no model {name[:100]!r} here: choose from {', '.join(self._served)}",
                param="model",
                code="model_not_found",
            )
        return self._served[name]

    def admission(self, served: Served) -> Admission:
        """The queue of its sampler."""
        return self.admissions[self._queues[served.name]]

    def samplers(self) -> dict[str, Sampler]:
        """Each sampler once, by the first name that has it."""
        return {name: self._served[name].sampler for name in self.admissions}

    async def close(self) -> None:
        for sampler in self.samplers().values():
            await sampler.close()
