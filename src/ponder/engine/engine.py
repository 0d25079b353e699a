"""Ids in, ids out. `step()` is schedule → run → sample → emit."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from contextlib import contextmanager

import torch
from torch import Tensor

from ponder.engine.cache import SlotCache
from ponder.engine.events import Event, FinishEvent
from ponder.engine.phases import Phases
from ponder.engine.requests import check_params, check_prompt, check_thinking
from ponder.engine.runner import Runner
from ponder.engine.sampling import logprobs, sample, uniforms
from ponder.engine.scheduler import Scheduler, Step
from ponder.engine.sequence import Sequence
from ponder.model.transformer import Transformer
from ponder.types import InvalidRequest, Origin, Phase, PhaseTokens, PonderError, SamplingParams, StopReason

COMPUTE_LOCK = threading.RLock()  # one model computes at a time in a process: two would only share the same cores


class Engine:
    """Continuous batching over one model. Single-threaded: `submit`, `step` and `abort` are called one at a time (hold
    `COMPUTE_LOCK` to drive one engine from several threads)."""

    def __init__(
        self,
        model: Transformer,
        phase_tokens: PhaseTokens,
        *,
        max_batch: int = 32,
        window: int | None = None,
        prefill_tokens: int = 2048,
    ) -> None:
        """max_batch: sequences that run at once. window: tokens of prompt and answer together; None: the longest that
        the model was made for. prefill_tokens: prompt tokens computed in one step, at most.

        Raises InvalidRequest for sizes that are impossible.
        """
        self._check_sizes(model, phase_tokens, max_batch, window, prefill_tokens)
        self.model = model
        self.window = window or model.config.max_positions
        self.weights_version = 0
        self._max_batch = max_batch
        self._prefill_tokens = prefill_tokens
        self._phases = Phases(phase_tokens)
        self._sequences: dict[int, Sequence] = {}
        self._next_request = 0
        self._updating = False
        self._forget()

    @property
    def has_work(self) -> bool:
        """Whether a request is unfinished."""
        return bool(self._sequences)

    @property
    def num_running(self) -> int:
        """Requests that hold a slot."""
        return len(self._scheduler.running)

    @property
    def num_waiting(self) -> int:
        return len(self._scheduler.waiting)

    def submit(self, prompt_ids: Seq[int], params: SamplingParams, *, start: Phase = Phase.ANSWER) -> int:
        """Queue a request and return its number. start: THINK when the prompt ends inside thinking.

        Raises InvalidRequest naming field, value and allowed range; WindowExceeded for a prompt that is too long.
        """
        if self._updating:
            raise InvalidRequest("cannot submit while the weights change: leave update_weights() first")
        self._check_weights()
        vocab_size = self.model.config.vocab_size
        check_prompt(prompt_ids, vocab_size, self.window)
        check_params(params, vocab_size)
        room = self.window - len(prompt_ids)
        limit = room if params.max_tokens is None else min(params.max_tokens, room)
        check_thinking(params, start, self._phases.tokens, limit)
        sequence = Sequence(
            request=self._next_request,
            prompt_ids=tuple(prompt_ids),
            params=params,
            seed=secrets.randbits(64) if params.seed is None else params.seed,
            limit=limit,
            phase=start,
            weights_version=self.weights_version,
            tokens=list(prompt_ids),
        )
        self._next_request += 1
        self._sequences[sequence.request] = sequence
        self._scheduler.add(sequence)
        return sequence.request

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """One pass: every running sequence moves on. Returns what happened, in order; empty when idle.

        Raises PonderError, and drops every request, when the model's output is not a number.
        """
        with COMPUTE_LOCK:
            step = self._scheduler.schedule()
            if step is None:
                return []
            logits_SV = self._runner.run(step)
            for chunk, sequence in zip(step.chunks, step.sequences, strict=True):
                sequence.computed += chunk.length
            return self._sample_and_emit(step, logits_SV)

    def abort(self, request: int) -> FinishEvent | None:
        """End a request wherever it is and free its slot. Returns what it has so far; None when it is finished."""
        with COMPUTE_LOCK:
            sequence = self._sequences.get(request)
            return None if sequence is None else self._finish(sequence, StopReason.ABORTED)

    @contextmanager
    def update_weights(self) -> Iterator[None]:
        """Change the model's weights inside this context, and only there. Afterwards nothing computed with the old ones
        is served, and `weights_version` is one more.

        Raises InvalidRequest when a request is unfinished.
        """
        with COMPUTE_LOCK:
            if self._sequences:
                raise InvalidRequest(
                    f"cannot update the weights while {len(self._sequences)} requests are unfinished: "
                    "finish or abort them first"
                )
            self._updating = True
            try:
                yield
            finally:
                self._updating = False
                self.weights_version += 1
                self._forget()

    def generate(
        self, prompts: Seq[Seq[int]], params: SamplingParams | Seq[SamplingParams], *, start: Phase = Phase.ANSWER
    ) -> list[FinishEvent]:
        """Run prompts to their ends and return the results in their order. params: one for all, or one per prompt."""
        if self._sequences:
            raise InvalidRequest(f"generate() needs an idle engine, {len(self._sequences)} requests are unfinished")
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

    def _sample_and_emit(self, step: Step, logits_SV: Tensor) -> list[Event]:
        ready = [sequence for _, sequence in step.ready()]
        if not ready:
            return []
        if not torch.isfinite(logits_SV.amax()):
            self._sequences.clear()
            self._forget()
            raise PonderError(
                "the model gave logits that are not finite: its weights are broken, or too large for "
                f"{str(logits_SV.dtype).removeprefix('torch.')} (try float32)"
            )
        rules = [self._phases.rule(sequence) for sequence in ready]
        banned = [(row, id) for row, rule in enumerate(rules) if rule for id in rule.banned]
        uniform_S = uniforms([sequence.seed for sequence in ready], [sequence.num_generated for sequence in ready])
        ids_S, scaled_SV = sample(logits_SV, [sequence.params for sequence in ready], uniform_S, banned)
        ids, origins = ids_S.tolist(), [Origin.SAMPLED] * len(ready)
        for row, rule in enumerate(rules):
            put_in = rule and self._phases.resolve(ready[row], rule, ids[row])
            if put_in is not None:
                ids[row], origins[row] = put_in, Origin.FORCED
        if Origin.FORCED in origins:
            ids_S = torch.tensor(ids, device=ids_S.device)
        events: list[Event] = []
        for sequence, id, logprob, origin in zip(ready, ids, logprobs(scaled_SV, ids_S).tolist(), origins, strict=True):
            phase = self._phases.advance(sequence, id)
            events.append(sequence.append(id, logprob, phase, origin))
            reason = self._ending(sequence, id)
            if reason is not None:
                events.append(self._finish(sequence, reason))
        return events

    def _ending(self, sequence: Sequence, id: int) -> StopReason | None:
        if id in self._phases.tokens.end:
            return StopReason.END
        if id in sequence.params.stop_ids:
            return StopReason.STOP
        return StopReason.LENGTH if sequence.num_generated == sequence.limit else None

    def _finish(self, sequence: Sequence, reason: StopReason) -> FinishEvent:
        del self._sequences[sequence.request]
        self._scheduler.remove(sequence)
        return sequence.finish(reason)

    def _forget(self) -> None:
        """Start from an empty cache, in the dtype that the model computes in now."""
        config, embedding = self.model.config, self.model.model.embed_tokens.weight
        cache = SlotCache(
            config.num_layers,
            config.num_kv_heads,
            config.head_dim,
            self.window,
            self.model.compute_dtype or embedding.dtype,
            embedding.device,
        )
        self._scheduler = Scheduler(cache, self._max_batch, self._prefill_tokens)
        self._runner = Runner(self.model, cache)
        self._stamp = self._weights_stamp()

    def _weights_stamp(self) -> tuple[int, int]:
        """Changes whenever a parameter is replaced or written in place by torch's own operations."""
        parameters = [p for p in self.model.parameters() if not p.is_inference()]
        return sum(map(id, parameters)), sum(p._version for p in parameters)

    def _check_weights(self) -> None:
        if self._weights_stamp() != self._stamp:
            raise InvalidRequest(
                "the model's weights changed outside update_weights(), so the cache may hold stale keys and values: "
                "change them inside `with engine.update_weights():`"
            )

    @staticmethod
    def _check_sizes(
        model: Transformer, tokens: PhaseTokens, max_batch: int, window: int | None, prefill_tokens: int
    ) -> None:
        longest, vocab_size = model.config.max_positions, model.config.vocab_size
        if window is not None and not 2 <= window <= longest:
            raise InvalidRequest(f"window is {window}: allowed are 2 to {longest}, the most this model was made for")
        for name, value in (("max_batch", max_batch), ("prefill_tokens", prefill_tokens)):
            if value < 1:
                raise InvalidRequest(f"{name} is {value}: allowed are integers of 1 or more")
        single = (tokens.think_open, tokens.think_close, tokens.call_open, tokens.call_close)
        for id in (*single, *tokens.continuation, *tokens.end):
            if id is not None and not 0 <= id < vocab_size:
                raise InvalidRequest(f"the format's token id {id} is outside the model's vocabulary of {vocab_size}")
