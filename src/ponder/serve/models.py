"""The models of a server, by name."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ponder.sampler.local import LocalSampler
from ponder.sampler.protocol import Sampler
from ponder.serve.admission import Admission
from ponder.serve.errors import ApiError, ErrorType
from ponder.serve.settings import Settings
from ponder.tokenizer import Tokenizer
from ponder.types import InvalidRequest

REMOTE_RUNNING = 256  # requests at once to a model behind another server, which has a queue of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One model under the name that requests call it by. created: seconds since 1970. parent: of an adapter, the model
    under it."""

    name: str
    sampler: Sampler
    created: int = field(default_factory=lambda: int(time.time()))
    owned_by: str = "ponder"
    parent: str | None = None

    @property
    def local(self) -> LocalSampler | None:
        """The sampler where its engine runs in this process: then there are ids, log-probabilities and counts."""
        return self.sampler if isinstance(self.sampler, LocalSampler) else None

    @property
    def tokenizer(self) -> Tokenizer | None:
        return self.local.tokenizer if self.local else None

    @property
    def fingerprint(self) -> str:
        """Changes with what computes the answers: model, kernel and rounding."""
        told: dict[str, Any] = {"name": self.sampler.name}
        if self.local is not None:
            engine = self.local.engine
            told |= {"kernel": engine.kernel, "quantize": engine.quantize, "weights": engine.weights_version}
        return "fp_" + hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:12]


class Models:
    """The models of a server, each with its own queue."""

    def __init__(self, served: Iterable[Served], settings: Settings) -> None:
        self._served: dict[str, Served] = {}
        for one in served:
            if one.name in self._served:
                raise InvalidRequest(f"two models are called {one.name!r}: give each a name of its own (NAME=MODEL)")
            self._served[one.name] = one
        self.admissions = {
            name: Admission(
                running=one.local.engine.max_batch if one.local else REMOTE_RUNNING,
                queued_requests=settings.queued_requests,
                queued_tokens=settings.queued_tokens,
            )
            for name, one in self._served.items()
        }

    def __iter__(self) -> Iterator[Served]:
        return iter(self._served.values())

    def get(self, name: str) -> Served:
        """Raises ApiError 404 that lists what there is."""
        if name not in self._served:
            raise ApiError(
                404,
                f"there is no model {name[:100]!r} here; there are: {', '.join(self._served)}",
                type=ErrorType.NOT_FOUND,
                param="model",
                code="model_not_found",
            )
        return self._served[name]

    async def close(self) -> None:
        for each in self._served.values():
            await each.sampler.close()
