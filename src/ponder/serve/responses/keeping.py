"""What a server keeps, from its start to its end: the store, the key beside it, the jobs, and the pruning."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from ponder.serve.responses.claims import Claims
from ponder.serve.responses.jobs import Jobs
from ponder.serve.responses.seal import Sealer
from ponder.serve.settings import Settings
from ponder.serve.state import State
from ponder.serve.store import Store
from ponder.types import MissingExtra, PonderError

log = logging.getLogger("ponder.serve")
PRUNED_EVERY = 3600.0  # seconds
LAST_SECONDS = 1.0  # that jobs have at least, whatever the drain took


def open_store(settings: Settings, otherwise: Path | None = None) -> Store:
    """The one that the settings name, or else the file `otherwise`. Raises StoreError."""
    return Store(settings.store or otherwise or "", days=settings.store_days or None)


@asynccontextmanager
async def keeping(state: State, store: Store | None) -> AsyncIterator[None]:
    """Opens what is not open yet, sees to what the last server left, and closes all of it at the end."""
    async with AsyncExitStack() as stack:
        if store is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ponder-"))
            store = open_store(state.settings, Path(folder) / "store.db")
        stack.callback(store.close)
        state.store, state.claims, state.jobs = store, Claims(), Jobs(state)
        state.sealer = _sealer(store)
        await state.jobs.recover()
        pruning = asyncio.create_task(_prune(store))
        yield
        pruning.cancel()
        await asyncio.wait([pruning])
        await state.jobs.close(max(LAST_SECONDS, min(state.settings.drain, state.ends - time.monotonic())))


def _sealer(store: Store) -> Sealer | None:
    try:
        return Sealer.beside(store.path.with_name(store.path.name + ".key"))
    except MissingExtra:
        return None


async def _prune(store: Store) -> None:
    while True:
        try:
            await store.prune()
        except PonderError:
            log.exception("what is past its time could not be deleted")
        await asyncio.sleep(PRUNED_EVERY)
