"""A `Sampler` over an engine in this process: conversations in, messages out, many at a time."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import torch

from ponder.dialogue import Conversation, Format, Start, fit_to_window, load_format
from ponder.engine import Engine, Event, FailEvent, FinishEvent
from ponder.engine.driver import EngineThread, check_lock
from ponder.engine.kernel import load_to_run
from ponder.engine.requests import check_prompt
from ponder.engine.runner import prompt_certainty, prompt_logprobs
from ponder.engine.scheduler import EngineStats
from ponder.engine.speculation import Speculate
from ponder.model.checkpoint import load_model
from ponder.model.lora import load_lora, merge_lora, read_adapter, remove_lora
from ponder.model.transformer import Transformer
from ponder.sampler.calling import compile_calling, without_calls
from ponder.sampler.delivery import joined
from ponder.sampler.generation import Delivered, Generation, RenderedPrompt, Submission
from ponder.sampler.next_turn import NextTurnCounts, NextTurnPrefill, next_turn_prefill
from ponder.sampler.protocol import (
    AT_ONCE,
    Capabilities,
    Completion,
    Delivery,
    Done,
    NextTurn,
    Request,
    Streamed,
    ToolChoice,
    Truncation,
    check_request,
    texts_of,
)
from ponder.sampler.threads import DeliveryQueue, Mailbox, Sink
from ponder.tokenizer import LONG_TEXT, Tokenizer
from ponder.types import (
    CheckpointError,
    InvalidRequest,
    Phase,
    SamplerError,
    SamplingParams,
    TopLogprobs,
    WindowExceeded,
)

RENDERERS = 2  # threads that render long prompts, beside the event loop
ENDS = Delivery(deltas=False)


def load_sampler(
    folder: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    adapter: str | Path | None = None,
    speculate: Speculate = "auto",
    draft: str | Path | None = None,
    **options: Any,
) -> LocalSampler:
    """Model, tokenizer and dialogue format of a folder in the Hugging Face layout, or of a GGUF file, ready to sample.

    adapter: folder of a LoRA adapter, merged into the weights. draft: where the small model is that guesses. speculate,
    options: those of `LocalSampler`. Raises CheckpointError or TokenizerError naming the file.
    """
    tokenizer = Tokenizer.load(folder)
    if adapter is None:
        running = {key: options[key] for key in ("kernel", "quantize") if key in options}
        model = load_to_run(folder, dtype=dtype, device=device, **running)
    else:
        model = load_model(folder, dtype=dtype, device=device)
        load_lora(model, adapter)
        merge_lora(model)
        remove_lora(model)
        model.loaded_from = None  # its weights are not that folder's any more
    if tokenizer.vocab_size > model.config.vocab_size:
        raise CheckpointError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} ids and the model only "
            f"{model.config.vocab_size}: use the tokenizer that belongs to the model"
        )
    path = Path(os.path.abspath(folder))  # of a link its own name
    options = {"name": path.stem if path.is_file() else path.name, "speculate": speculate, **options}
    if draft is not None:
        options["draft"] = load_to_run(draft, device=device)
    return LocalSampler(model, tokenizer, load_format(tokenizer), **options)


class LocalSampler:
    """Owns an engine and the thread that drives it. Any number of coroutines, of any number of event loops, feed it;
    their sequences run as one batch, and no event loop waits for a step."""

    def __init__(
        self, model: Transformer, tokenizer: Tokenizer, format: Format, *, name: str = "local", **options: Any
    ) -> None:
        """options: those of `Engine`: max_batch, window, memory, max_waiting, deterministic, quantize, speculate, …"""
        self.engine = Engine(model, format.phase_tokens, **options)
        self.tokenizer = tokenizer
        self.format = format
        self.next_turns = NextTurnCounts()
        self._renderers = ThreadPoolExecutor(RENDERERS, "ponder-render")  # of long prompts; starts no thread before one
        self._name = name
        self._driver = EngineThread(self.engine, self._on_events, self._on_error)
        # The rest belongs to the engine thread.
        self._closed = False
        self._generations: dict[int, Generation] = {}
        self._deliveries: DeliveryQueue[Delivered] = DeliveryQueue()
        self._gathering = 0
        self._gathered: list[Submission] = []

    @property
    def name(self) -> str:
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        engine, loaded = self.engine, self.engine.model.loaded_from
        return Capabilities(
            window=engine.window,
            thinking_tokens=engine.model.config.thinking_tokens,
            parameters=engine.model.config.num_parameters,
            repeats=engine.model.config.repeats,
            voices=engine.model.config.voices,
            max_sequences=engine.max_batch,
            tokenizer=self.tokenizer,
            format=self.format,
            weights=loaded.folder if loaded is not None and not engine.weights_version else None,
            scores=engine.quantize is None,
            gathers=True,
            computation=(
                ("kernel", engine.kernel),
                ("quantize", engine.quantize),
                ("weights", engine.weights_version),
            ),
            computes=engine.computes,
        )

    @property
    def num_generations(self) -> int:
        """Completions under way, waiting ones included."""
        return len(self._generations)

    async def stats(self) -> EngineStats | None:
        """The engine's counters and its cache, read between two steps."""
        return await asyncio.wrap_future(self._driver.call(lambda: self.engine.stats))

    async def sample(self, request: Request) -> list[Completion]:
        """Raises InvalidRequest for what cannot be served as asked, WindowExceeded with the counts, Overloaded when too
        much is waiting."""
        done = {item.index: item.completion async for item in self.stream(request, ENDS) if isinstance(item, Done)}
        return [done[index] for index in range(request.n)]

    async def stream(self, request: Request, delivery: Delivery = AT_ONCE) -> AsyncGenerator[Streamed, None]:
        """Text and calls as they come, each completion ending in its Done. A call of a tool that is not declared comes
        as a whole. Raises as `sample`."""
        async with aclosing(self._batches(request, delivery)) as batches:
            async for batch in batches:
                for item in joined(batch) if delivery.gather and len(batch) > 1 else batch:
                    yield item

    async def use_adapter(self, name: str, folder: str | Path) -> None:
        """Requests may name the LoRA adapter of this folder. It is read beside what runs, if it is not there.

        Raises CheckpointError.
        """
        if name in self.engine.adapters:
            return
        adapter = await asyncio.to_thread(read_adapter, self.engine.model, folder)

        def add() -> None:
            if name not in self.engine.adapters:  # another request may have read it too
                self.engine.add_adapter(name, adapter)

        await asyncio.wrap_future(self._driver.call(add))

    async def score(self, ids: Sequence[int], top: int = 0) -> tuple[list[float], list[TopLogprobs]]:
        """The log-probability of each id but the first after those before it, and the `top` likeliest there. Runs
        between two steps. Raises InvalidRequest naming what is out of bounds, WindowExceeded for too many ids."""
        self._check_scored(ids)
        return await asyncio.wrap_future(self._driver.call(lambda: prompt_logprobs(self._scoring_model, ids, top)))

    async def certainty(self, ids: Sequence[int], first: int) -> float:
        """See `Sampler`. Runs between two steps. Raises as `score`."""
        self._check_scored(ids[:-1])
        if not 1 <= first < len(ids):
            raise InvalidRequest(f"first must be from 1 to {len(ids) - 1}, the last of the ids (got {first})")
        return await asyncio.wrap_future(self._driver.call(lambda: prompt_certainty(self._scoring_model, ids, first)))

    def _check_scored(self, ids: Sequence[int]) -> None:
        if self.engine.quantize is not None:
            raise InvalidRequest(
                "log-probabilities of a prompt need unquantized weights (the engine has "
                f"{self.engine.quantize}): load the model without quantize"
            )
        check_prompt(ids, self.engine.model.config.vocab_size, self.engine.window)

    @cached_property
    def _scoring_model(self) -> Transformer:
        """The model that the training forward runs: blocks of a GGUF file become bfloat16 when this is first needed."""
        model = self.engine.model
        if not model.block_types:
            return model
        assert model.loaded_from is not None
        return load_model(model.loaded_from.folder)

    def gather(self, requests: int) -> None:
        """Hold back what comes from now on until that many requests are there; then they begin together, in order.

        0: hold back nothing any more. Which requests share a step then no longer depends on the timing of threads, so
        the same requests give the same samples, to the last bit of a log-probability.
        """
        self._driver.post(partial(self._gather, requests))

    async def count(self, prompt: Conversation | tuple[int, ...]) -> int:
        """Encoded on a separate thread where it is long."""
        texts = texts_of(prompt)
        if not texts:
            return len(prompt)
        if is_long(prompt):
            loop = asyncio.get_running_loop()
            return sum(map(len, await loop.run_in_executor(self._renderers, self.tokenizer.encode_batch, texts)))
        return sum(map(len, self.tokenizer.encode_batch(texts)))

    async def close(self) -> None:
        """Abort what runs and accept nothing more. A second call does nothing."""
        if self._closed:
            return
        await asyncio.wrap_future(self._driver.call(self._shut))
        self._driver.close()
        self._renderers.shutdown(wait=False, cancel_futures=True)

    async def _batches(self, request: Request, delivery: Delivery) -> AsyncGenerator[list[Streamed], None]:
        """The first item at once, each later one at most `delivery.gather` seconds after it came, a Done at once."""
        check_lock()
        mailbox: Mailbox[Delivered] = Mailbox(delivery.gather)
        unfinished = request.n

        def put(item: Delivered) -> None:
            nonlocal unfinished
            if not isinstance(item, Done | BaseException):
                mailbox.put(item)
                return
            mailbox.end(item)
            over = 1 if isinstance(item, Done) else unfinished  # an error ends all of them
            unfinished -= over
            delivery.end(over)

        sink = Sink(asyncio.get_running_loop(), put)
        submission = await self._prepare(request, sink, streamed=delivery.deltas)
        self._driver.post(partial(self._submit, submission))
        left = request.n
        try:
            while left:
                batch = await mailbox.take()
                if not mailbox.ends:
                    yield cast("list[Streamed]", batch)
                    continue
                error = next((item for item in batch if isinstance(item, BaseException)), None)
                items = [item for item in batch if not isinstance(item, BaseException)]
                left = 0 if error else left - mailbox.ends
                if items:
                    yield items
                if error is not None:
                    raise error
        finally:
            if left and delivery.unread is None:
                self._driver.post(partial(self._abort, submission))
            elif left:
                assert delivery.unread is not None
                aborted = await asyncio.shield(asyncio.wrap_future(self._driver.call(partial(self._abort, submission))))
                for done in (*mailbox.left(), *aborted):
                    if isinstance(done, Done):
                        delivery.unread(done)

    # Requests in, on the caller's loop ------------------------------------------------------------------------------

    async def _prepare(self, request: Request, sink: Sink[Delivered], *, streamed: bool) -> Submission:
        check_request(request)
        if request.effort is not None:
            raise InvalidRequest(
                f"effort is for endpoints (got {request.effort}): a local model keeps exact limits, so set "
                "params.thinking"
            )
        began = time.monotonic()
        if request.tool_choice is ToolChoice.NONE:
            request = replace(request, params=without_calls(request.params, self.format.phase_tokens))
        if is_long(request.prompt):
            rendering = asyncio.get_running_loop().run_in_executor(self._renderers, self._render, request)
            prompt, prefill = await rendering
        else:
            prompt, prefill = self._render(request)
        request = replace(request, params=self._with_room(request, len(prompt.ids)))
        submission = Submission(
            request=request,
            prompt=prompt,
            start=Phase.THINK if prompt.start is Start.THINK else Phase.ANSWER,
            sink=sink,
            streamed=streamed,
            deadline=None if request.seconds is None else began + request.seconds,
            prefill=prefill,
        )
        if request.grammar is not None or request.tools:
            size = self.engine.model.config.vocab_size
            submission.constraint = await asyncio.to_thread(
                compile_calling, request, self.tokenizer, self.format, vocab_size=size
            )
        return submission

    def _render(self, request: Request) -> tuple[RenderedPrompt, NextTurnPrefill | None]:
        prompt = self._prompt(request)
        if request.next_turn is NextTurn.NONE:
            return prompt, None
        prefill = next_turn_prefill(self.engine, self.tokenizer, self.format, request, prompt.messages, self.next_turns)
        return prompt, prefill

    def _with_room(self, request: Request, prompt_tokens: int) -> SamplingParams:
        """The parameters with a default room for the answer that a long prompt leaves: a default refuses no request."""
        params, left = request.params, self.engine.window - prompt_tokens
        if "answer_room" not in request.unsaid or left < 1:
            return params
        limit = left if params.max_tokens is None else min(params.max_tokens, left)
        return replace(params, answer_room=min(params.answer_room, limit - 1))

    def _prompt(self, request: Request) -> RenderedPrompt:
        if isinstance(request.prompt[0], int):
            ids = cast(tuple[int, ...], request.prompt)
            return RenderedPrompt(ids, Start.THINK if request.start is Phase.THINK else Start.DIRECT)
        messages = cast(Conversation, request.prompt)
        thinks = request.params.thinking.cap != 0 and self.format.phase_tokens.think_close is not None
        start, window = Start.THINK if thinks else Start.DIRECT, self.engine.window
        fitting = partial(
            fit_to_window, messages, self.format, window, policy=request.policy, start=start, tools=request.tools
        )
        if request.truncation is Truncation.DISABLED:
            fitted = fitting(1)
            return RenderedPrompt(fitted.rendered.ids, start, fitted.messages)
        # Turns are dropped until max_tokens (or a quarter of the window, never more than half) is free for the answer;
        # where the last turn leaves less than that, for whatever it leaves.
        room = min(request.params.max_tokens or window // 4, window // 2)
        try:
            fitted = fitting(room, drop_oldest=True)
        except WindowExceeded as exceeded:
            room = window - exceeded.prompt_tokens
            if room < 1:
                raise
            fitted = fitting(room, drop_oldest=True)
        return RenderedPrompt(fitted.rendered.ids, start, fitted.messages, len(fitted.dropped))

    # On the engine thread -------------------------------------------------------------------------------------------

    def _gather(self, requests: int) -> None:
        self._gathering = requests
        self._release()

    def _release(self) -> None:
        if len(self._gathered) >= self._gathering:
            self._gathering, gathered, self._gathered = 0, self._gathered, []
            for submission in gathered:
                self._submit_now(submission)

    def _submit(self, submission: Submission) -> None:
        self._gathered.append(submission)
        self._release()

    def _submit_now(self, submission: Submission) -> None:
        try:
            if self._closed:
                raise SamplerError(f"sampler '{self._name}' is closed: make a new one")
            for index in range(submission.request.n):
                self._submit_one(submission, index)
        except Exception as error:
            self._abort(submission)
            self._deliveries.add(submission.sink, error)
            self._deliver()

    def _submit_one(self, submission: Submission, index: int) -> None:
        request, constraint = submission.request, submission.constraint
        seed = request.params.seed
        number = self.engine.submit(
            submission.prompt.ids,
            replace(request.params, seed=None if seed is None else seed + index),
            start=submission.start,
            constraint=constraint.fork() if constraint is not None and index else constraint,
            tenant=request.tenant,
            adapter=request.adapter,
            deadline=submission.deadline,
        )
        generation = Generation(self.tokenizer, self.format, self._deliveries, submission, index, number)
        self._generations[number] = generation
        submission.open.add(generation)

    def _on_events(self, events: Sequence[Event]) -> None:
        ended: list[tuple[Generation, FinishEvent, Completion]] = []
        for event in events:
            generation = self._generations.get(event.request)
            if generation is None:
                continue  # it met a stop string in this very step
            try:
                finish = self._follow(generation, event)
                if finish is not None:
                    ended.append((generation, finish, generation.finish(finish)))
                    self._forget(generation)
            except Exception as error:
                self._deliveries.add(generation.submission.sink, error)
                self._abort(generation.submission)
        self._deliver()
        for generation, finish, completion in ended:  # after the completions are out, so that no caller waits for it
            if generation.submission.prefill is not None:
                generation.submission.prefill.end(finish, completion.message)

    def _follow(self, generation: Generation, event: Event) -> FinishEvent | None:
        """What ends the generation, when this event does. Raises what made the request fail."""
        if isinstance(event, FailEvent):
            raise event.error
        if isinstance(event, FinishEvent):
            return event
        return self.engine.abort(generation.number) if generation.feed(event) else None

    def _on_error(self, error: BaseException) -> None:
        submissions = {*(generation.submission for generation in self._generations.values()), *self._gathered}
        for submission in submissions:
            self._deliveries.add(submission.sink, error)
        self._deliver()
        for submission in submissions:
            self._abort(submission)

    def _shut(self) -> None:
        self._closed = True
        self._on_error(SamplerError(f"sampler '{self._name}' was closed"))

    def _deliver(self) -> None:
        closed = self._deliveries.deliver()
        submissions = {generation.submission for generation in self._generations.values()}
        for submission in submissions:
            if submission.sink.loop in closed:
                self._abort(submission)

    def _abort(self, submission: Submission) -> list[Done]:
        """End what is left of a request, with what it cost."""
        ended = []
        if submission in self._gathered:
            self._gathered.remove(submission)
            self._gathering -= 1
        if submission.open and submission.prefill is not None:
            submission.prefill.give_up()
        for generation in list(submission.open):
            self._forget(generation)
            finish = self.engine.abort(generation.number)
            if finish is not None:
                ended.append(generation.aborted(finish))
        return ended

    def _forget(self, generation: Generation) -> None:
        del self._generations[generation.number]
        generation.submission.open.discard(generation)


def is_long(prompt: Conversation | tuple[int, ...]) -> bool:
    """Whether rendering it would keep an event loop from its other work."""
    return sum(map(len, texts_of(prompt))) > LONG_TEXT
