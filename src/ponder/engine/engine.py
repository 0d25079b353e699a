"""The engine: ids in, ids out, many requests at once; `step()` is schedule → constrain → run → emit."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from contextlib import contextmanager
from dataclasses import replace

from ponder.engine.blocks import BlockCache, CacheKey
from ponder.engine.kernel import Kernel, StepRunner, open_runner
from ponder.engine.pages import size_cache
from ponder.engine.phases import Phases
from ponder.engine.requests import (
    check_deadline,
    check_ids,
    check_num_waiting,
    check_params,
    check_prompt,
    check_seed,
    check_sizes,
    check_speculation,
    check_thinking,
    check_waiting_tokens,
)
from ponder.engine.scheduler import Counters, EngineStats, Scheduler, common_prefix
from ponder.engine.sequence import Constraint, Event, FailEvent, FinishEvent, NextTurnPrefix, Sequence
from ponder.engine.speculation import Speculate, Speculation
from ponder.kernels.fused import KernelChoice, Quantize, choose_integers
from ponder.kernels.machine import machine
from ponder.kernels.sampling import NotFinite, Pick
from ponder.model.lora import Adapter, lora_scales
from ponder.model.transformer import Transformer
from ponder.types import InvalidRequest, Phase, PhaseTokens, PonderError, SamplingParams, StopReason

COMPUTE_LOCK = threading.RLock()  # one model computes at a time in a process: two would only share the same cores
PAGE_SIZE = 16


class Engine:
    """Continuous batching over one model, with a paged cache. Single-threaded: its methods are called one at a time
    (hold `COMPUTE_LOCK`, or drive it by an `EngineThread`)."""

    def __init__(
        self,
        model: Transformer,
        phase_tokens: PhaseTokens,
        *,
        max_batch: int = 64,
        window: int | None = None,
        memory: int | float | None = None,
        step_tokens: int = 2048,
        max_waiting: int | None = None,
        max_waiting_tokens: int | None = None,
        deterministic: bool = False,
        share_prefixes: bool = True,
        kernel: Kernel = "auto",
        quantize: Quantize | None = None,
        speculate: Speculate = "off",
        draft: Transformer | None = None,
    ) -> None:
        """max_batch: sequences that run at once.
        window: tokens of one context, prompt and answer together. None: as many as the model was made for and the
            memory holds.
        memory: of the cache, in bytes (int) or as a fraction of what is free (float). None: enough for max_batch
            windows, but at most a quarter of what is free. It is never exceeded, and taken as it is used.
        step_tokens: rows of one step, at most (but every running sequence may decode).
        max_waiting: requests that may wait; further ones are refused.
        max_waiting_tokens: tokens of the requests that wait; a request that would exceed it is refused.
        deterministic: logits do not depend on batch, chunking or cache, bit for bit; slower.
        share_prefixes: False computes every prompt from its first token.
        kernel: "fused" is compiled for bfloat16 on this processor; "auto" takes it where it covers model and machine,
            CUDA graphs for decoding on a GPU, else "torch". `Engine.kernel` says what runs and why.
        quantize: "int8" has the fused kernel compute with weights rounded to 8 bits: half the memory to read, at a
            little loss (bench/results/int8_quality.md); "int4" with 4 bits, a scale and an offset for each 32 inputs: a
            third of the memory, at a greater loss. Rows are rounded to 8 bits where the processor has products of
            integers. The model's own weights stay as they are.
        speculate: "auto" guesses later tokens and runs them beside the known one where that pays: few sequences, and
            guesses that have been right. The tokens are the same, to rounding; in a deterministic engine, bit for bit.
        draft: a small model of the same vocabulary that guesses where nothing is found.

        Raises InvalidRequest for sizes that are impossible, and for kernel "fused" or rounded weights where that kernel
        cannot run.
        """
        check_sizes(
            model.config,
            phase_tokens,
            window,
            {"max_batch": max_batch, "step_tokens": step_tokens},
            {"max_waiting": max_waiting, "max_waiting_tokens": max_waiting_tokens},
        )
        self.model = model
        self.weights_version = 0
        self._options = (max_batch, step_tokens, share_prefixes)
        self._max_waiting = max_waiting
        self._max_waiting_tokens = max_waiting_tokens
        self._deterministic = deterministic
        self._kernel: Kernel = kernel
        self.quantize: Quantize | None = quantize
        self._speculate: Speculate = speculate
        self._adapters: dict[str, Adapter] = {}
        self._sequences: dict[int, Sequence] = {}
        self._next_number = 0
        self._num_deadlines = 0
        self._updating = False
        self._counters = Counters()
        self._num_pages, self.window = size_cache(model, PAGE_SIZE, memory, window, max_batch)
        self._phases = Phases(phase_tokens, self.window, model.config.vocab_size)
        check_speculation(speculate, model.config, None if draft is None else draft.config)
        self._draft = None if draft is None else Engine(draft, PhaseTokens(), max_batch=1, kernel=kernel)
        self._forget()

    @property
    def has_work(self) -> bool:
        """Whether a request, or the prefill of a next turn, is unfinished."""
        return bool(self._sequences) or any(prefix.closed for prefix in self._scheduler.next_turns.values())

    @property
    def max_batch(self) -> int:
        """Sequences that run at once."""
        return self._options[0]

    @property
    def num_running(self) -> int:
        """Requests that hold pages."""
        return len(self._scheduler.running)

    @property
    def num_waiting(self) -> int:
        return len(self._scheduler.waiting)

    @property
    def loaded(self) -> bool:
        """Whether requests leave no time to prefill next turns."""
        return self._scheduler.loaded

    @property
    def kernel(self) -> KernelChoice:
        """What computes the steps, and why nothing faster does."""
        return self._runner.choice

    @property
    def computes(self) -> str:
        """The kernel and, on a CPU, the class of the processor and what it multiplies; each with the reason."""
        kernel, reason = self.kernel
        on_cpu = self.model.model.embed_tokens.weight.device.type == "cpu"
        said = f"kernel {kernel} ({reason})" if reason else f"kernel {kernel}"
        if self.products:
            said += f"; weights meet {self.products.kernel} ({self.products.reason})"
        return f"{said}; processor {machine()}" if on_cpu else said

    @property
    def products(self) -> KernelChoice | None:
        """What weights of 4 to 8 bits meet in the fused step, and why; None without such weights."""
        return choose_integers() if self.quantize or self.model.block_types else None

    @property
    def stats(self) -> EngineStats:
        """A snapshot of the counters and of the cache."""
        return EngineStats(
            counters=replace(self._counters),
            running=self.num_running,
            waiting=self.num_waiting,
            waiting_tokens=self._waiting_tokens(),
            next_turns=len(self._scheduler.next_turns),
            page_size=PAGE_SIZE,
            pages_used=self._blocks.num_used,
            pages_cached=self._blocks.num_cached,
            pages_free=self._blocks.num_free,
            evictions=self._blocks.num_evicted,
        )

    # Requests ---------------------------------------------------------------------------------------------------------

    def submit(
        self,
        prompt_ids: Seq[int],
        params: SamplingParams,
        *,
        start: Phase = Phase.ANSWER,
        constraint: Constraint | None = None,
        deadline: float | None = None,
        tenant: str = "",
        adapter: str = "",
    ) -> int:
        """Queue a request and return its number.

        start: THINK when the prompt ends inside thinking.
        constraint: governs the answer and its calls.
        deadline: on the clock of `time.monotonic()`.
        tenant: cached keys and values are shared only among equal ones.
        adapter: the name of one that was added; "" for the model as it is. Cached keys and values are its own.
        Raises InvalidRequest naming field, value and allowed range; WindowExceeded for a prompt that is too long;
        Overloaded when too much is waiting already.
        """
        self._check_open()
        vocab_size = self.model.config.vocab_size
        check_prompt(prompt_ids, vocab_size, self.window)
        check_params(params, vocab_size)
        self._check_adapter(adapter)
        if deadline is not None:
            check_deadline(deadline)
        self._check_load(len(prompt_ids))
        room = self.window - len(prompt_ids)
        folds = self._phases.tokens.fold is not None
        limit = room if params.max_tokens is None else params.max_tokens if folds else min(params.max_tokens, room)
        check_thinking(params, start, self._phases.tokens, min(limit, room))
        sequence = Sequence(
            key=CacheKey(self.weights_version, adapter, tenant),
            tokens=list(prompt_ids),
            num_prompt=len(prompt_ids),
            request=self._number(),
            prompt_ids=tuple(prompt_ids),
            params=params,
            pick=Pick(params, secrets.randbits(64) if params.seed is None else params.seed),
            limit=limit,
            phase=start,
            think_at=self._phases.think_at(prompt_ids, start),
            voices=self._phases.councils.voices(params.thinking, self.model.config.voices),
            constraint=constraint,
            deadline=deadline,
        )
        if start is Phase.THINK:
            self._phases.councils.begin(sequence, self._phases.think_left(sequence))
        if sequence.pick.penalises:
            sequence.pick.read(id for id in prompt_ids if id not in self._phases.control)
        self._add(sequence)
        self._scheduler.add(sequence)
        return sequence.request

    def fork(self, request: int, *, seed: int | None = None) -> int:
        """A second request that continues from where `request` is, sharing its pages until the two differ.

        Its FinishEvent holds the tokens before the fork too; its usage bills only what comes after. Raises
        InvalidRequest when `request` is not running or waiting, Overloaded as `submit`.
        """
        parent = self._sequences.get(request)
        if parent is None:
            raise InvalidRequest(
                f"request {request} cannot be forked, because it does not run: fork it before it finishes"
            )
        if seed is not None:
            check_seed(seed)
        self._check_load(len(parent.tokens))
        fork = parent.fork(self._number(), secrets.randbits(64) if seed is None else seed)
        self._add(fork)
        self._scheduler.add_fork(parent, fork)
        return fork.request

    def abort(self, request: int) -> FinishEvent | None:
        """End a request wherever it is and free its pages. Returns what it has so far; None when it is finished."""
        with COMPUTE_LOCK:
            sequence = self._sequences.get(request)
            return None if sequence is None else self._finish(sequence, StopReason.ABORTED)

    def step(self) -> list[Event]:
        """One pass: every running sequence moves on. After a pass with right guesses only their sequences move on,
        without a pass. Returns what happened, in order; empty when idle.

        Raises PonderError, and drops every request, when the model's output is not a number.
        """
        with COMPUTE_LOCK:
            events = self._past_deadline()
            step = self._speculation.known() or self._speculation.guess(self._scheduler.schedule())
            if step is None:
                return events
            self._counters.steps += not step.ran
            for sequence in step.ready:
                self._phases.constrain(sequence)
            try:
                self._runner.run(step)
            except NotFinite:
                raise self._broken() from None
            self._scheduler.computed(step)
            for sequence in step.ready:
                self._emit(sequence, events)
            self._speculation.settle()
            return events

    def generate(
        self, prompts: Seq[Seq[int]], params: SamplingParams | Seq[SamplingParams], *, start: Phase = Phase.ANSWER
    ) -> list[FinishEvent]:
        """Run prompts to their ends and return the results in their order.

        params: one for all, or one per prompt.
        """
        with COMPUTE_LOCK:  # all of it: no other thread may step, and take the events
            if self._sequences:
                raise InvalidRequest(
                    f"generate() needs an idle engine ({len(self._sequences)} requests are unfinished): "
                    "finish or abort them first"
                )
            each = [params] * len(prompts) if isinstance(params, SamplingParams) else params
            finished: dict[int, FinishEvent] = {}
            requests: list[int] = []
            try:
                for prompt, chosen in zip(prompts, each, strict=True):
                    requests.append(self.submit(prompt, chosen, start=start))
                while self._sequences:
                    finished.update((event.request, event) for event in self.step() if isinstance(event, FinishEvent))
            finally:
                for request in requests:
                    self.abort(request)
            return [finished[request] for request in requests]

    # Next turns -------------------------------------------------------------------------------------------------------

    def open_next_turn(self, ids: Seq[int], *, tenant: str = "", adapter: str = "") -> int:
        """Begin to prefill the next turn's prompt: `ids` are what it will begin with, as far as is known.

        They run through the model beside other work, in chunks, sharing every page that is cached. Returns a number.
        """
        self._check_open()
        self._check_adapter(adapter)
        self._check_next_turn(len(ids), ids)
        number = self._number()
        key = CacheKey(self.weights_version, adapter, tenant)
        self._scheduler.next_turns[number] = NextTurnPrefix(key=key, tokens=list(ids), number=number)
        return number

    def extend_next_turn(self, number: int, ids: Seq[int]) -> None:
        """`ids` come next. Raises InvalidRequest after `close_next_turn`, and beyond the window."""
        known = self._scheduler.next_turns.get(number)
        if known is None or known.closed:
            raise InvalidRequest(f"next turn {number} is not open: open another")
        self._check_next_turn(len(known.tokens) + len(ids), ids)
        known.tokens += ids

    def close_next_turn(self, number: int, ids: Seq[int] | None) -> None:
        """The turn is over. What is missing runs as soon as there is time (`has_work`), then the pages stay cached.

        ids: exactly what the next prompt will begin with. None: there is no next turn.
        """
        with COMPUTE_LOCK:
            known = self._scheduler.next_turns.get(number)
            if known is None:
                return
            if ids is None:
                self._scheduler.drop_next_turn(known)
            else:
                self._check_next_turn(len(ids), ids)
                self._scheduler.close_next_turn(known, ids)

    def end_turn(self, spent_ids: Seq[int], next_ids: Seq[int], *, tenant: str = "", adapter: str = "") -> int:
        """Free what the cache holds of `spent_ids` (a prompt and all that was generated) beyond what `next_ids`, the
        next prompt's beginning, shares with it. Pages that others use, or build on, stay. Returns the pages freed."""
        with COMPUTE_LOCK:
            spent, following = list(spent_ids), list(next_ids)
            keep = common_prefix(spent, following, len(spent))
            return self._blocks.forget(CacheKey(self.weights_version, adapter, tenant), spent, keep)

    # Adapters ---------------------------------------------------------------------------------------------------------

    @property
    def adapters(self) -> frozenset[str]:
        """The names that requests may give."""
        return frozenset(self._adapters)

    def add_adapter(self, name: str, adapter: Adapter) -> None:
        """Requests may name it from now on. It costs its own weights and no others.

        Raises InvalidRequest for a name that is taken, or where the model carries an adapter itself.
        """
        if not name or name in self._adapters:
            raise InvalidRequest(f"the name of an adapter must be new and not empty (got {name!r}): choose another")
        if lora_scales(self.model):
            raise InvalidRequest("the model carries a LoRA adapter itself: merge or remove it first")
        self._adapters[name] = adapter

    def _check_adapter(self, name: str) -> None:
        if name and name not in self._adapters:
            raise InvalidRequest(
                f"there is no adapter {name!r} (there are: {', '.join(self._adapters) or 'none'}): add it first"
            )

    # Weights ----------------------------------------------------------------------------------------------------------

    @contextmanager
    def update_weights(self) -> Iterator[None]:
        """Change the model's weights inside this context, and only there. Afterwards nothing computed with the old ones
        is served, and `weights_version` is one more.

        Raises InvalidRequest when a request is unfinished.
        """
        with COMPUTE_LOCK:
            if self._sequences:
                raise InvalidRequest(
                    f"cannot update the weights ({len(self._sequences)} requests are unfinished): finish "
                    "or abort them first"
                )
            self._updating = True
            try:
                yield
            finally:
                self._updating = False
                self.weights_version += 1
                self._forget(self._runner)

    # Inside -----------------------------------------------------------------------------------------------------------

    def _number(self) -> int:
        self._next_number += 1
        return self._next_number - 1

    def _add(self, sequence: Sequence) -> None:
        self._sequences[sequence.request] = sequence
        self._num_deadlines += sequence.deadline is not None

    def _finish(self, sequence: Sequence, reason: StopReason) -> FinishEvent:
        del self._sequences[sequence.request]
        self._num_deadlines -= sequence.deadline is not None
        self._scheduler.remove(sequence)
        return sequence.finish(reason)

    def _emit(self, sequence: Sequence, events: list[Event]) -> None:
        """The sequence has its next token, or one of each voice that speaks: it continues, folds or ends."""
        said = self._phases.councils.said(sequence)
        for at, (pick, voice) in enumerate(said):
            self._phases.follow(sequence, pick)
            if sequence.error is not None:
                events.append(FailEvent(sequence.error, self._finish(sequence, StopReason.ABORTED)))
                return
            event = sequence.append(self._phases.advance(sequence, pick.id), pick, voice)
            events.append(event)
            sequence.num_parallel += at > 0
            reason = self._phases.ending(sequence, event.id)
            if reason is not None:
                events.append(self._finish(sequence, reason))
                return
        self._phases.councils.stepped(sequence, len(said))
        if self._phases.folds(sequence, event.id):
            self._fold(sequence)

    def _broken(self) -> PonderError:
        """Every request is dropped."""
        self._sequences.clear()
        self._forget(self._runner)
        return PonderError(
            "the model gave logits that are not finite: its weights are broken, or too large for "
            f"{str(self.model.compute_dtype).removeprefix('torch.')} (try float32)"
        )

    def _past_deadline(self) -> list[Event]:
        if not self._num_deadlines:
            return []
        now = time.monotonic()
        late = [each for each in self._sequences.values() if each.deadline is not None and each.deadline <= now]
        return [self._finish(sequence, StopReason.DEADLINE) for sequence in late]

    def _check_next_turn(self, length: int, ids: Seq[int]) -> None:
        check_ids(ids, self.model.config.vocab_size)
        if length > self.window:
            raise InvalidRequest(
                f"a next turn that begins with {length} tokens does not fit the window of {self.window}: shorten it"
            )

    def _fold(self, sequence: Sequence) -> None:
        """The context becomes what stood before the thinking, and the state. The state's keys and values are computed
        again after it, so that what follows equals a fresh prefill."""
        assert sequence.state_at is not None
        before, state = sequence.tokens[: sequence.think_at], sequence.tokens[sequence.state_at :]
        sequence.end_segment()
        self._scheduler.fold(sequence, len(before))
        sequence.tokens = [*before, *state]
        sequence.num_prompt, sequence.state_at = len(sequence.tokens), None
        sequence.num_refilled += sequence.num_pending
        self._counters.folds += 1

    def _forget(self, before: StepRunner | None = None) -> None:
        """Start from an empty cache, with the weights and in the dtype that the model has now."""
        max_batch, step_tokens, share = self._options
        self._num_deadlines = 0
        self._blocks = BlockCache(self._num_pages, PAGE_SIZE)
        exact = self._deterministic
        self._runner = open_runner(
            self.model,
            self._num_pages,
            PAGE_SIZE,
            kernel=self._kernel,
            deterministic=exact,
            quantize=self.quantize,
            before=before,
            adapters=self._adapters,
        )
        self._scheduler = Scheduler(self._blocks, self._runner.pages, self._counters, max_batch, step_tokens, share)
        tokens = self._phases.tokens
        self._speculation = Speculation(
            self._speculate, self._scheduler, self._counters, tokens, self.window, self._draft
        )
        self._stamp = self._weights_stamp()

    def _weights_stamp(self) -> tuple[int, int]:
        """Changes whenever a parameter is replaced or written in place by torch's own operations."""
        parameters = [p for p in self.model.parameters() if not p.is_inference()]
        return sum(map(id, parameters)), sum(p._version for p in parameters)

    def _check_open(self) -> None:
        if self._updating:
            raise InvalidRequest("cannot submit while the weights change: leave update_weights() first")
        if self._weights_stamp() != self._stamp:
            raise InvalidRequest(
                "the model's weights changed outside update_weights(), so the cache may hold stale keys and values: "
                "change them inside `with engine.update_weights():`"
            )

    def _waiting_tokens(self) -> int:
        return sum(len(sequence.tokens) for sequence in self._scheduler.waiting)

    def _check_load(self, num_tokens: int) -> None:
        """Raises Overloaded where a request of `num_tokens` would wait among too many."""
        free = max(0, self.max_batch - self.num_running)  # requests that the next step takes do not count
        if self.num_waiting < free:
            return
        check_num_waiting(self.num_waiting - free, self._max_waiting)
        if self._max_waiting_tokens is not None and self.num_waiting:
            check_waiting_tokens(self._waiting_tokens(), num_tokens, self._max_waiting_tokens)
