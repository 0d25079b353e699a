"""Who runs next, in which slot, on which tokens.

A slot keeps the keys and values of its last sequence until another takes it, so that a prompt that begins alike takes
over, or copies, what is already computed.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from ponder.engine.cache import Chunk, SlotCache
from ponder.engine.sequence import Sequence

SPARE_SLOTS = 4  # idle prefixes kept before one of them gives way to a new sequence
_BLOCK = 64  # ids compared at once
MIN_COPY = 16  # tokens; recomputing fewer is as fast as copying them


@dataclass(slots=True, eq=False)
class Slot:
    """Room in the cache. The first `length` of `tokens` have their keys and values in it. used: when it was freed."""

    index: int
    tokens: list[int] = field(default_factory=list)
    idle_length: int = 0
    sequence: Sequence | None = None
    used: int = 0

    @property
    def length(self) -> int:
        return self.idle_length if self.sequence is None else self.sequence.computed

    def shared_prefix(self, prompt: list[int]) -> int:
        """How much of the prompt is in the slot. Its last token never counts: its logits are needed."""
        return common_prefix(self.tokens, prompt, min(self.length, len(prompt) - 1))


@dataclass(slots=True)
class Step:
    """One pass through the model: `chunks[i]` are the next tokens of `sequences[i]`, decode rows first."""

    chunks: list[Chunk]
    sequences: list[Sequence]

    def ready(self) -> list[tuple[int, Sequence]]:
        """(row, sequence) of those whose last token runs in this step: their next token is sampled."""
        ready, end = [], 0
        for chunk, sequence in zip(self.chunks, self.sequences, strict=True):
            end += chunk.length
            if chunk.start + chunk.length == len(sequence.tokens):
                ready.append((end - 1, sequence))
        return ready


class Scheduler:
    """First come, first served. Every running sequence decodes one token a step; prompts ride along in chunks, at most
    `prefill_tokens` of them a step."""

    def __init__(self, cache: SlotCache, max_batch: int, prefill_tokens: int) -> None:
        self._cache = cache
        self._max_batch = max_batch
        self._prefill_tokens = prefill_tokens
        self._slots: list[Slot] = []
        self._clock = 0
        self.waiting: deque[Sequence] = deque()
        self.running: dict[Sequence, Slot] = {}

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """The sequence is finished or aborted; its slot is free, its keys and values stay until the slot is taken."""
        slot = self.running.pop(sequence, None)
        if slot is None:
            self.waiting.remove(sequence)
            return
        self._clock += 1
        slot.idle_length, slot.sequence, slot.used = sequence.computed, None, self._clock

    def schedule(self) -> Step | None:
        """The next step, or None when nothing is left to do."""
        self._admit()
        if not self.running:
            return None
        decoding: list[tuple[Chunk, Sequence]] = []
        prefilling: list[tuple[Chunk, Sequence]] = []
        budget = self._prefill_tokens
        for sequence, slot in self.running.items():
            length = len(sequence.tokens) - sequence.computed
            if length > 1:
                length = min(length, budget)
                budget -= length
            if length:
                chunk = Chunk(slot.index, sequence.computed, length)
                (decoding if length == 1 else prefilling).append((chunk, sequence))
        decoding.sort(key=lambda work: work[0].slot)
        chunks, sequences = zip(*decoding, *prefilling, strict=True)
        self._cache.reserve(len(self._slots), max(chunk.start + chunk.length for chunk in chunks))
        return Step(list(chunks), list(sequences))

    def _admit(self) -> None:
        """Waiting sequences take free slots. One whose prompt is largely that of a sequence still in prefill waits for
        it and copies the result."""
        held_back: list[Sequence] = []
        while self.waiting and len(self.running) + len(held_back) < self._max_batch:
            sequence = self.waiting.popleft()
            source, shared = self._best_prefix(sequence)
            if self._computed_soon(sequence) > max(shared, len(sequence.tokens) // 2, MIN_COPY):
                held_back.append(sequence)
                continue
            self._place(sequence, source, shared)
        self.waiting.extendleft(reversed(held_back))

    def _best_prefix(self, sequence: Sequence) -> tuple[Slot | None, int]:
        """The slot that holds the longest prefix of the prompt, and its length."""
        best, longest = None, 0
        for slot in self._slots:
            shared = slot.shared_prefix(sequence.tokens)
            if shared > longest:
                best, longest = slot, shared
        return best, longest

    def _computed_soon(self, sequence: Sequence) -> int:
        """The longest prefix of the prompt that running prefills are about to compute."""
        prompt = sequence.tokens
        in_prefill = (other.tokens for other in self.running if other.computed < len(other.prompt_ids))
        return max((common_prefix(tokens, prompt, len(prompt) - 1) for tokens in in_prefill), default=0)

    def _place(self, sequence: Sequence, source: Slot | None, shared: int) -> None:
        if source is not None and source.sequence is None and 2 * shared >= source.length:
            target = source  # the prompt goes on with most of what the slot holds; what it drops is the smaller part
        else:
            target = self._free_slot()
            if source is not None and source is not target and shared >= MIN_COPY:
                self._cache.reserve(len(self._slots), shared)
                self._cache.copy_prefix(source.index, target.index, shared)
            elif source is not target:
                shared = target.shared_prefix(sequence.tokens)
        target.tokens, target.sequence = sequence.tokens, sequence
        sequence.computed = sequence.num_cached = shared
        self.running[sequence] = target

    def _free_slot(self) -> Slot:
        """The free slot unused for longest; a new one while few are idle and the batch allows it."""
        free = [slot for slot in self._slots if slot.sequence is None]
        if len(free) < SPARE_SLOTS and len(self._slots) < self._max_batch:
            self._slots.append(Slot(len(self._slots)))
            return self._slots[-1]
        return min(free, key=lambda slot: slot.used)


def common_prefix(a: list[int], b: list[int], limit: int) -> int:
    """How many leading ids `a` and `b` share, at most `limit`."""
    limit = min(limit, len(a), len(b))
    same = 0
    while same < limit and a[same : same + _BLOCK] == b[same : same + _BLOCK]:
        same += _BLOCK
    while same < limit and a[same] == b[same]:
        same += 1
    return min(same, limit)
