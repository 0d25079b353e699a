"""Responses as a service that knows no HTTP: it makes them, keeps them, and runs those in the background.

Its parts: the store, the key beside it, the locks of conversations, the jobs, and the pruning.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence, Set
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ponder.sampler.protocol import Completion, Done
from ponder.serve.answering import Tally, answer_pieces, served_ask, whole_answer
from ponder.serve.errors import BadRequest, Locked, NotFound, UnknownReference, log
from ponder.serve.metrics import ServerMetrics
from ponder.serve.models import Models
from ponder.serve.responses.convert import (
    ItemReader,
    check_response,
    conversation_of,
    input_items,
    is_stored,
    read_policy,
    read_response,
    read_strategy,
    references,
    response_of,
)
from ponder.serve.responses.events import EventWriter
from ponder.serve.responses.items import (
    ItemPage,
)
from ponder.serve.responses.jobs import BackgroundJobs, Release, ResponseWatch
from ponder.serve.responses.objects import View, failed, failure, page_of, response_error
from ponder.serve.responses.seal import Sealer
from ponder.serve.responses.turn import ResponseTurn
from ponder.serve.responses.wire import (
    ResponseObject,
    ResponseRequest,
)
from ponder.serve.settings import Settings
from ponder.serve.store import (
    ResponseStatus,
    RunMode,
    SortOrder,
    Store,
    StoredEvent,
    StoredItem,
    StoredResponse,
    open_store,
)
from ponder.serve.store.database import Transaction
from ponder.think.strategy import Strategy
from ponder.types import MissingExtra, PonderError

PRUNED_EVERY = 3600.0  # seconds
LAST_SECONDS = 1.0  # that jobs have at least, whatever the drain took

Batches = AsyncGenerator[list[StoredEvent], None]


class ConversationLocks:
    """A conversation takes one response at a time: what comes next must know what came before."""

    def __init__(self) -> None:
        self._held: set[tuple[str, str]] = set()

    def take(self, owner: str, id: str | None) -> Release:
        """Lock the conversation; the result unlocks it, once however often it is called. None locks nothing.

        Raises Locked where it is taken."""
        if id is None:
            return lambda: None
        lock = (owner, id)
        if lock in self._held:
            raise Locked(
                f"another response of conversation '{id}' is in progress: try again when it is done",
                param="conversation",
                code="conversation_locked",
            )
        self._held.add(lock)
        own = [lock]

        def release() -> None:
            while own:
                self._held.discard(own.pop())

        return release


class ResponseService:
    """The responses of one server. Its methods raise ServeError for what cannot be served, NotFound for what does not
    exist or belongs to another owner.

    store, jobs: there while the service runs.
    sealer: there while the service runs; None: reasoning is not sealed.
    """

    store: Store
    jobs: BackgroundJobs
    sealer: Sealer | None

    def __init__(self, models: Models, settings: Settings, metrics: ServerMetrics) -> None:
        self._models, self._settings, self._metrics = models, settings, metrics
        self._locks = ConversationLocks()
        self._running = False
        self._ends = math.inf

    @asynccontextmanager
    async def running(
        self, store: Store | None, opened: Callable[[], Awaitable[object]] | None = None
    ) -> AsyncIterator[None]:
        """Open what is not open, answer for what the last server left, and close all of it at the end.

        opened: awaited when the store is open, before anything of the last server's is run again.
        """
        async with AsyncExitStack() as stack:
            if store is None:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ponder-"))
                store = open_store(self._settings, Path(folder) / "store.db")
            stack.callback(store.close)
            self.store, self.sealer = store, _sealer(store)
            self.jobs = BackgroundJobs(
                self._models, self._settings, self._metrics, store, read=self._read, lock=self._locks.take
            )
            self._running = True
            if opened is not None:
                await opened()
            await self.jobs.recover()
            pruning = asyncio.create_task(_prune(store))
            yield
            pruning.cancel()
            await asyncio.wait([pruning])
            await self.jobs.close(max(LAST_SECONDS, min(self._settings.drain, self._ends - time.monotonic())))

    def drain(self, ends: float) -> None:
        """Take no new jobs.

        ends: when what runs is waited for no longer, on the clock of `time.monotonic`.
        """
        self._ends = ends
        if self._running:
            self.jobs.drain()

    # Making one -----------------------------------------------------------------------------------------------------

    async def whole(self, asked: ResponseRequest, owner: str, tally: Tally) -> ResponseObject:
        """A response, when it is made."""
        release = self._locks.take(owner, conversation_of(asked))
        try:
            turn = await self._new(asked, owner)
            try:
                completions = await whole_answer(self._models, turn.task)
            except Exception as error:
                raise response_error(error) from error
            ended = turn.end(completions[0], EventWriter(turn.id, turn.view))
            if is_stored(asked):
                await self.store.add(turn.record(ended.status, ended), items=ended.items)
            tally.end(completions)
            return ended.shown
        finally:
            release()

    async def streamed(self, asked: ResponseRequest, owner: str, tally: Tally) -> Batches:
        """The events of a response as it is made. What fails before the first piece is raised: no event is sent before
        there is one. Closed early, the response is cancelled."""
        release = self._locks.take(owner, conversation_of(asked))
        try:
            turn = await self._new(asked, owner)
            async with aclosing(self._events(turn, tally)) as batches:
                async for batch in batches:
                    yield batch
        finally:
            release()

    async def begin(self, asked: ResponseRequest, owner: str) -> ResponseObject:
        """A response that is stored as queued, and will be made in the background."""
        self.jobs.check_room(owner, asked.model)
        return await self._begin(asked, owner)

    async def attempt(
        self,
        asked: ResponseRequest,
        owner: str,
        watch: ResponseWatch,
        attach: Callable[[str], Transaction[object]],
        strategy: Strategy | None = None,
    ) -> None:
        """The same for an attempt of a job, which has waited for its room already.

        attach: gives what is written in one transaction with the new response, by its id.
        strategy: what answers, whatever the request names; None: that.
        """
        await self._begin(asked, owner, watch, attach, strategy)

    async def turn_of(self, kept: StoredResponse) -> ResponseTurn:
        """A background response as it was asked: its conversation, its model, its settings."""
        asked = ResponseRequest.model_validate(kept.request)
        return await self._read(asked, kept.owner, kept.id, kept.created_at)

    async def check(self, asked: ResponseRequest, owner: str) -> None:
        """Raises ServeError where the request cannot be served as asked; whether its prompt fits is seen later."""
        await self._new(asked, owner)

    async def _begin(
        self,
        asked: ResponseRequest,
        owner: str,
        watch: ResponseWatch | None = None,
        attach: Callable[[str], Transaction[object]] | None = None,
        strategy: Strategy | None = None,
    ) -> ResponseObject:
        release = self._locks.take(owner, conversation_of(asked))
        try:
            turn = await self._new(asked, owner)
            if strategy is not None:
                turn.task = replace(turn.task, strategy=strategy, demand=strategy.demand(turn.task.ask))
            writer = EventWriter(turn.id, turn.view)
            queued = turn.body(ResponseStatus.QUEUED)
            events = [writer.state("created", queued), writer.state("queued", queued)]
            also = attach(turn.id) if attach else None
            record = turn.record(ResponseStatus.QUEUED)
            if watch is not None:  # its events show the job think; who looks at it later says what to include
                kept = {name: value for name, value in record.request.items() if name != "include"}
                record = replace(record, request=kept)
            await self.store.add(record, events=events, also=also)
        except BaseException:
            release()
            raise
        self.jobs.start(turn, writer, release, watch)
        return queued

    async def _new(self, asked: ResponseRequest, owner: str) -> ResponseTurn:
        """Under an id of 128 random bits, which cannot be guessed."""
        try:
            return await self._read(asked, owner, f"resp_{secrets.token_hex(16)}", int(time.time()))
        except BadRequest as error:
            raise response_error(error) from None

    async def _events(self, turn: ResponseTurn, tally: Tally) -> Batches:
        writer, done = EventWriter(turn.id, turn.view), list[Completion]()
        try:
            async with aclosing(
                answer_pieces(self._models, turn.task, gather=self._settings.coalesce / 1000)
            ) as pieces:
                async for piece in pieces:
                    tally.first_token()
                    events = []
                    if writer.number == 0:
                        if is_stored(turn.asked):
                            await self.store.add(turn.record(ResponseStatus.IN_PROGRESS))
                        begun = turn.body(ResponseStatus.IN_PROGRESS)
                        events = [writer.state("created", begun), writer.state("in_progress", begun)]
                    if isinstance(piece, Done):
                        done.append(piece.completion)
                    else:
                        events += writer.piece(piece)
                    if events:
                        yield events
            ended = turn.end(done[0], writer)
            if is_stored(turn.asked):
                await self.store.move(
                    turn.owner, turn.id, ended.status, ended.stored, output=ended.output, items=ended.items
                )
            tally.end(done)
            yield ended.events
        except (GeneratorExit, asyncio.CancelledError):  # the client left
            await self._end(turn, ResponseStatus.CANCELLED, turn.body(ResponseStatus.CANCELLED))
            raise
        except Exception as error:
            public = response_error(error)
            if writer.number == 0:
                raise public from error
            body = failed(turn.body(ResponseStatus.FAILED), failure(public))
            await self._end(turn, ResponseStatus.FAILED, body)
            yield [writer.state("failed", body)]

    async def _end(self, turn: ResponseTurn, status: ResponseStatus, body: Any) -> None:
        if is_stored(turn.asked):
            await self.store.move(turn.owner, turn.id, status, body)

    # Reading a request ----------------------------------------------------------------------------------------------

    async def _read(self, asked: ResponseRequest, owner: str, id: str, created_at: int) -> ResponseTurn:
        """Raises ServeError naming the field that cannot be served as asked."""
        served = self._models.get(asked.model)
        check_response(asked, self.sealer)
        before = await self._history(asked, owner)
        given = input_items(asked, id, await self._named(asked, owner, before))
        _check_ids(given, before if conversation_of(asked) else [])
        items = [*before, *given]
        if not items:
            raise BadRequest(
                "input: the request has nothing to answer: add a message",
                param="input",
                code="missing_required_parameter",
            )
        items = await self._with_kept_thoughts(items, owner)
        past = ItemReader(owner, served, read_policy(asked), self.sealer).read(asked.instructions, items)
        ask = read_response(asked, past.messages, served, self._settings, owner)
        return ResponseTurn(
            id=id,
            owner=owner,
            served=served,
            created_at=created_at,
            asked=asked,
            task=served_ask(
                ask, served, owner, self._settings, read_strategy(asked, served, self._settings), self._models
            ),
            given=given,
            sealer=self.sealer,
            removed=past.removed,
        )

    async def _history(self, asked: ResponseRequest, owner: str) -> list[StoredItem]:
        """The items before the request's own, oldest first."""
        conversation = conversation_of(asked)
        try:
            if conversation is not None:
                return await self.store.all_items(owner, conversation)
            if asked.previous_response_id is None:
                return []
            chain = await self.store.chain(owner, asked.previous_response_id)
        except NotFound as missing:
            param = "conversation" if conversation else "previous_response_id"
            raise UnknownReference(missing.message, param=param, code=f"{param}_not_found") from None
        for response in chain:
            if response.status.live:
                raise BadRequest(
                    f"response '{response.id}' is not complete: wait until it is", param="previous_response_id"
                )
            if response.conversation_id is not None:
                raise BadRequest(
                    f"response '{response.id}' belongs to conversation '{response.conversation_id}': set "
                    "conversation to that",
                    param="previous_response_id",
                )
        return [
            item
            for response in chain
            for item in (*(StoredItem(body["id"], body) for body in response.input), *kept_items(response))
        ]

    async def _named(self, asked: ResponseRequest, owner: str, before: Sequence[StoredItem]) -> dict[str, StoredItem]:
        """The items that a request refers to, by id, but for those that come before in any case. Raises
        UnknownReference."""
        known = {item.id for item in before}
        found: dict[str, StoredItem] = {}
        for id in references(asked):
            if id in known or id in found:
                continue
            response_id = response_of(id)
            try:
                kept = await self.store.response(owner, response_id) if response_id else None
            except NotFound:
                kept = None
            if kept is not None:
                items = [*(StoredItem(body["id"], body) for body in kept.input), *kept_items(kept)]
                found |= {item.id: item for item in items}
            if id not in found:
                raise UnknownReference(f"there is no item '{id}' here: send the whole item", param="input")
        return found

    async def _with_kept_thoughts(self, items: list[StoredItem], owner: str) -> list[StoredItem]:
        """Items with the thoughts that are kept here, where a reasoning item names one of this server's and holds
        no thoughts itself."""
        found: dict[str, StoredItem] = {}
        for item in items:
            bare = item.body["type"] == "reasoning" and item.hidden is None
            if not bare or {"content", "encrypted_content"} & item.body.keys():
                continue
            response_id = response_of(item.id)
            try:
                kept = await self.store.response(owner, response_id) if response_id else None
            except NotFound:
                continue  # irrelevant, or refused where it is read
            found |= {each.id: each for each in kept_items(kept) if each.id == item.id} if kept else {}
        return [found.get(item.id, item) for item in items]

    # What is kept ---------------------------------------------------------------------------------------------------

    async def shown(self, owner: str, id: str, included: Set[str]) -> dict[str, Any]:
        """A stored response with what was asked to be included, then or now."""
        return self._shown(await self.store.response(owner, id), included)

    async def follow(self, owner: str, id: str, after: int) -> AsyncGenerator[StoredEvent, None]:
        """The events of a background response past number `after`, those to come included."""
        kept = await self.store.response(owner, id)
        if kept.running is not RunMode.BACKGROUND:
            raise BadRequest(
                "stream: only background responses can be streamed again: leave stream out", param="stream"
            )
        return self.jobs.follow(owner, id, after)

    async def cancel(self, owner: str, id: str) -> dict[str, Any]:
        """End a background response. One that has ended stays as it is."""
        kept = await self.store.response(owner, id)
        if kept.running is not RunMode.BACKGROUND:
            raise BadRequest(
                "this response is not a background response: only those can be cancelled", param="response_id"
            )
        if kept.status.live:
            await self.jobs.cancel(owner, kept)
        return await self.shown(owner, id, frozenset())

    async def delete(self, owner: str, id: str) -> None:
        """Delete a response, and stop working on it."""
        await self.store.response(owner, id)
        await self.jobs.stop(id)
        await self.store.delete(owner, id)

    async def input_items(self, owner: str, id: str, *, after: str | None, most: int, order: SortOrder) -> ItemPage:
        """What a response was asked, in pages."""
        kept = await self.store.response(owner, id)
        return page_of(kept.input, after, most, order)

    def _shown(self, kept: StoredResponse, included: Set[str]) -> dict[str, Any]:
        wanted = included | set(kept.request.get("include") or ())
        if "reasoning.encrypted_content" in wanted and self.sealer is None:
            raise BadRequest("include: this server does not encrypt reasoning: leave it out", param="include")
        sealer = self.sealer if "reasoning.encrypted_content" in wanted else None
        view = View(kept.owner, kept.model, "reasoning.content" in wanted, sealer)
        return {**kept.body, "output": [view.item(item) for item in kept_items(kept)]}


def _check_ids(given: Sequence[StoredItem], kept: Sequence[StoredItem]) -> None:
    taken = {item.id for item in kept}
    for place, item in enumerate(given):
        if item.id in taken:
            raise BadRequest(
                f"input[{place}]: the item '{item.id}' is already stored: send only new items, or leave its id out",
                param=f"input[{place}].id",
                code="invalid_value",
            )
        taken.add(item.id)


def kept_items(response: StoredResponse) -> list[StoredItem]:
    """The output of a stored response, with what is hidden of it."""
    hidden = {each["id"]: each["hidden"] for each in response.output}
    return [StoredItem(body["id"], body, hidden.get(body["id"])) for body in response.body["output"]]


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
