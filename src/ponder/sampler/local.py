"""The local engine behind the `Sampler` protocol: conversations in, messages out, many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch

from ponder.dialogue import Conversation, Format, Start, fit, load_format
from ponder.engine import COMPUTE_LOCK, Engine, Event, FailEvent, FinishEvent, TokenEvent
from ponder.model.checkpoint import load_model
from ponder.model.transformer import Transformer
from ponder.sampler.job import Item, Job, Outlet, Prompt
from ponder.sampler.protocol import Completion, Delta, Done, Request, Truncation
from ponder.tokenizer import Tokenizer
from ponder.types import CheckpointError, InvalidRequest, Phase, SamplerError, WindowExceeded


def load_sampler(
    folder: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    max_batch: int = 64,
    window: int | None = None,
) -> LocalSampler:
    """Model, tokenizer and dialogue format of a folder in the Hugging Face layout, ready to sample.

    Raises CheckpointError or TokenizerError naming the file.
    """
    tokenizer = Tokenizer.load(folder)
    model = load_model(folder, dtype=dtype, device=device)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise CheckpointError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} ids, the model only {model.config.vocab_size}: "
            "the two do not belong together"
        )
    name = Path(folder).resolve().name
    return LocalSampler(model, tokenizer, load_format(tokenizer), name=name, max_batch=max_batch, window=window)


class LocalSampler:
    """Owns an engine. Any number of coroutines, of any number of event loops, feed it; their sequences run as one
    batch. Each loop that waits for something drives the engine with a task of its own."""

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        format: Format,
        *,
        name: str = "local",
        max_batch: int = 64,
        window: int | None = None,
    ) -> None:
        """max_batch and window: as in `Engine`."""
        self.engine = Engine(model, format.phase_tokens, max_batch=max_batch, window=window)
        self.tokenizer = tokenizer
        self.format = format
        self._name = name
        self._closed = False
        self._jobs: dict[int, Job] = {}
        self._pumps: dict[asyncio.AbstractEventLoop, asyncio.Task[None]] = {}

    @property
    def name(self) -> str:
        return self._name

    @property
    def window(self) -> int:
        return self.engine.window

    async def sample(self, request: Request) -> list[Completion]:
        """Raises InvalidRequest for what cannot be served as asked, WindowExceeded with the counts."""
        done = {
            item.index: item.completion async for item in self._run(request, streamed=False) if isinstance(item, Done)
        }
        return [done[index] for index in range(request.n)]

    def stream(self, request: Request) -> AsyncIterator[Delta | Done]:
        """Text as it comes, each completion ending in its Done. Tool calls come with the Done. Raises as `sample`."""
        return self._run(request, streamed=True)

    async def close(self) -> None:
        """Abort what runs and accept nothing more."""
        with COMPUTE_LOCK:
            self._closed = True
            for job in list(self._jobs.values()):
                self._fail(job, SamplerError(f"sampler '{self._name}' was closed"))

    async def _run(self, request: Request, *, streamed: bool) -> AsyncIterator[Delta | Done]:
        inbox: asyncio.Queue[Item] = asyncio.Queue()
        jobs = self._submit(request, Outlet(asyncio.get_running_loop(), inbox.put_nowait), streamed=streamed)
        try:
            for _ in jobs:
                while not isinstance(item := await inbox.get(), Done):
                    if isinstance(item, BaseException):
                        raise item
                    yield item
                yield item
        finally:
            self._abort(jobs)

    # Requests in ----------------------------------------------------------------------------------------------------

    def _submit(self, request: Request, outlet: Outlet, *, streamed: bool) -> list[Job]:
        check_request(request)
        prompt = self._prompt(request)
        phase = Phase.THINK if prompt.start is Start.THINK else Phase.ANSWER
        jobs: list[Job] = []
        with COMPUTE_LOCK:
            if self._closed:
                raise SamplerError(f"sampler '{self._name}' is closed: make a new one")
            try:
                for index in range(request.n):
                    seed = request.params.seed
                    params = replace(request.params, seed=None if seed is None else seed + index)
                    number = self.engine.submit(prompt.ids, params, start=phase)
                    job = Job(
                        self.tokenizer, self.format, number, index, request.stop, prompt, outlet, streamed=streamed
                    )
                    self._jobs[number] = job
                    jobs.append(job)
            except InvalidRequest:
                self._abort(jobs)
                raise
            if outlet.loop not in self._pumps:
                pump = outlet.loop.create_task(self._pump(outlet.loop))
                pump.add_done_callback(lambda task: self._pump_ended(outlet.loop, task))
                self._pumps[outlet.loop] = pump
        return jobs

    def _prompt(self, request: Request) -> Prompt:
        if isinstance(request.prompt[0], int):
            ids = cast(tuple[int, ...], request.prompt)
            return Prompt(ids, Start.THINK if request.start is Phase.THINK else Start.DIRECT)
        messages = cast(Conversation, request.prompt)
        thinks = request.params.thinking.cap != 0 and self.format.phase_tokens.think_close is not None
        start, window = Start.THINK if thinks else Start.DIRECT, self.engine.window
        if request.truncation is Truncation.DISABLED:
            fitted = fit(messages, self.format, window, 1, policy=request.policy, start=start)
            return Prompt(fitted.rendered.ids, start)
        # Turns are dropped until max_tokens (or a quarter of the window, never more than half) is free for the answer;
        # where the last turn leaves less than that, for whatever it leaves.
        room = min(request.params.max_tokens or window // 4, window // 2)
        try:
            fitted = fit(messages, self.format, window, room, drop_oldest=True, policy=request.policy, start=start)
        except WindowExceeded as exceeded:
            room = window - exceeded.prompt_tokens
            if room < 1:
                raise
            fitted = fit(messages, self.format, window, room, drop_oldest=True, policy=request.policy, start=start)
        return Prompt(fitted.rendered.ids, start, len(fitted.dropped))

    # Events out -----------------------------------------------------------------------------------------------------

    async def _pump(self, loop: asyncio.AbstractEventLoop) -> None:
        """Drive the engine for as long as this loop waits for something."""
        try:
            while any(job.outlet.loop is loop for job in list(self._jobs.values())):
                with COMPUTE_LOCK:
                    self._dispatch(self.engine.step())
                await asyncio.sleep(0)
        finally:
            del self._pumps[loop]

    def _pump_ended(self, loop: asyncio.AbstractEventLoop, pump: asyncio.Task[None]) -> None:
        """Whoever still waits is told why nothing comes any more."""
        error = asyncio.CancelledError() if pump.cancelled() else pump.exception()
        if error is not None:
            with COMPUTE_LOCK:
                for job in [job for job in self._jobs.values() if job.outlet.loop is loop]:
                    self._fail(job, error)

    def _dispatch(self, events: Sequence[Event]) -> None:
        for event in events:
            job = self._jobs.get(event.request)
            if job is None:
                continue  # it met a stop string in this very step
            if isinstance(event, TokenEvent):
                if job.feed(event):
                    ended = self.engine.abort(job.number)
                    if ended is not None:
                        self._finish(job, ended)
            elif isinstance(event, FailEvent):
                self._fail(job, event.error)
            else:
                self._finish(job, event)

    def _finish(self, job: Job, event: FinishEvent) -> None:
        del self._jobs[job.number]
        job.finish(event)

    def _fail(self, job: Job, error: BaseException) -> None:
        del self._jobs[job.number]
        self.engine.abort(job.number)
        job.outlet.send(error)

    def _abort(self, jobs: Sequence[Job]) -> None:
        with COMPUTE_LOCK:
            for job in jobs:
                if self._jobs.pop(job.number, None) is not None:
                    self.engine.abort(job.number)


def check_request(request: Request) -> None:
    """What the engine does not see. Raises InvalidRequest naming field, value and allowed range."""
    if type(request.n) is not int or request.n < 1:
        raise InvalidRequest(f"n is {request.n!r}: allowed are integers of 1 or more")
    for stop in request.stop:
        if not isinstance(stop, str) or not stop:
            raise InvalidRequest(f"stop holds {stop!r}: allowed are strings of at least one character")
    if request.effort is not None:
        raise InvalidRequest(f"effort is {request.effort}: exact limits are kept here, set params.thinking instead")
    if not request.prompt:
        raise InvalidRequest("prompt is empty: give at least one message or one id")
