"""The order in which sequences run, and the pages that each step needs.

First come, first served. Every running sequence decodes one token a step, prompts join in chunks, and next-turn
prefixes take what is left. When pages run out, next-turn prefixes are evicted first; then the sequence that came last
is preempted: it waits with its tokens, and what is no longer cached is computed again.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field

from ponder.engine.blocks import BlockCache
from ponder.engine.pages import Chunk, Pages
from ponder.engine.sequence import Context, NextTurnPrefix, Sequence
from ponder.kernels.sampling import Pick

NEXT_TURN_CHUNK = 32  # tokens that a growing next-turn prefix runs at a time
_BLOCK = 64  # ids compared at once


@dataclass(slots=True)
class Counters:
    """Counts since the engine was made. Tokens are rows that went through the model, except `cached_tokens`.

    recomputed_tokens: run once more, after a preemption or a fold.
    cached_tokens: of prompts, found in the tree.
    next_turn_tokens: of next-turn prefixes.
    next_turns_finished: next-turn prefixes that are cached whole.
    next_turns_deferred: steps in which next-turn prefixes waited because of load.
    next_turns_dropped: evictions of next-turn prefixes, because pages were short or too many waited.
    drafted_tokens: guesses that were run beside a known token; those that were right count as decode_tokens too.
    accepted_tokens: guesses that were right.
    """

    steps: int = 0
    prefill_tokens: int = 0
    decode_tokens: int = 0
    recomputed_tokens: int = 0
    cached_tokens: int = 0
    next_turn_tokens: int = 0
    next_turns_finished: int = 0
    next_turns_deferred: int = 0
    next_turns_dropped: int = 0
    preemptions: int = 0
    folds: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """A snapshot of an engine. pages_used + pages_cached + pages_free is the whole cache."""

    counters: Counters
    running: int
    waiting: int
    waiting_tokens: int
    next_turns: int
    page_size: int
    pages_used: int
    pages_cached: int
    pages_free: int
    evictions: int


@dataclass(slots=True)
class Step:
    """One pass through the model: `chunks[i]` are the next tokens of `contexts[i]`.

    ready: sequences whose last token runs in this step: their next token is picked, or one for each voice that speaks.
    rows: whose logits are wanted. The first are those that the picks of `ready` are made from, one for each pick.
    drafts: ids that a context's chunk runs after its last token, as guesses of what comes next.
    ran: the pass was made before, with these tokens as guesses: `rows` count the logits of that pass.
    """

    chunks: list[Chunk] = field(default_factory=list)
    contexts: list[Context] = field(default_factory=list)
    ready: list[Sequence] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    num_rows: int = 0
    drafts: dict[Context, list[int]] = field(default_factory=dict)
    ran: bool = False

    def add(self, context: Context, length: int) -> None:
        """The next `length` tokens of `context` run too."""
        start = context.computed
        self.chunks.append(Chunk(context.pages, start, length))
        self.contexts.append(context)
        self.num_rows += length
        if start + length == len(context.tokens) and isinstance(context, Sequence):
            self.ready.append(context)
            self.rows += [self.num_rows - 1 - back for back in context.sources]

    @property
    def picks(self) -> list[Pick]:
        """Of `ready`, in their order."""
        picks: list[Pick] = []
        for sequence in self.ready:
            if len(sequence.sources) == 1:
                picks.append(sequence.pick)
            else:
                picks += sequence.picks
        return picks

    @property
    def decodes(self) -> bool:
        """Whether every context runs nothing but what its last step said."""
        return all(chunk.length <= context.width for chunk, context in zip(self.chunks, self.contexts, strict=True))

    def ids(self) -> list[int]:
        """Of all rows, in their order."""
        ids: list[int] = []
        for chunk, context in zip(self.chunks, self.contexts, strict=True):
            if chunk.length == 1:
                ids.append(context.tokens[chunk.start])
                continue
            ids += context.tokens[chunk.start : chunk.end]
            if self.drafts:
                ids += self.drafts.get(context, ())
        return ids


class Scheduler:
    def __init__(
        self, blocks: BlockCache, pages: Pages, counters: Counters, max_batch: int, step_tokens: int, share: bool
    ) -> None:
        self._blocks = blocks
        self._pages = pages
        self._counters = counters
        self._max_batch = max_batch
        self._step_tokens = step_tokens
        self._share = share
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.next_turns: dict[int, NextTurnPrefix] = {}

    # Sequences in and out ---------------------------------------------------------------------------------------------

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def add_fork(self, parent: Sequence, fork: Sequence) -> None:
        """The fork shares its parent's pages where it can run at once. Otherwise it waits, and finds them in the tree.
        It also waits while its parent is in prefill, because only one of the two may write those pages."""
        if parent in self.running and parent.num_pending == parent.width and len(self.running) < self._max_batch:
            held = parent.pages[: self._num_pages(parent.computed)]  # not those of guesses
            fork.pages, fork.nodes, fork.computed = held, list(parent.nodes), parent.computed
            self._blocks.retain(fork.pages)
            self.running.append(fork)
        else:
            self.waiting.append(fork)

    def remove(self, sequence: Sequence) -> None:
        """The sequence is finished or aborted. What the tree has of it stays until others need the room."""
        if sequence in self.running:
            self.running.remove(sequence)
            self._release(sequence)
        else:
            self.waiting.remove(sequence)

    def fold(self, sequence: Sequence, keep: int) -> None:
        """Replace the context from token `keep` on: the pages after it are freed at once."""
        whole = keep // self._blocks.page_size
        self._blocks.release(sequence.pages[whole:], forget=True)
        del sequence.pages[whole:], sequence.nodes[whole:]
        sequence.computed = whole * self._blocks.page_size

    def drop_next_turn(self, prefix: NextTurnPrefix) -> None:
        del self.next_turns[prefix.number]
        self._release(prefix)

    def close_next_turn(self, prefix: NextTurnPrefix, ids: Seq[int]) -> None:
        """`ids` is what the next prompt begins with: what else the prefix holds is freed, what is missing will run."""
        size = self._blocks.page_size
        same = common_prefix(prefix.tokens, ids, len(ids))
        if prefix.computed > same:
            whole = same // size
            self._blocks.release(prefix.pages[whole:], forget=True)
            del prefix.pages[whole:], prefix.nodes[whole:]
            prefix.computed = whole * size
        # A partial page cannot be found again, so its tokens are left out.
        prefix.tokens, prefix.closed = list(ids[: len(ids) // size * size]), True
        if not self._finish_next_turn(prefix):
            closed = [each for each in self.next_turns.values() if each.closed]
            if len(closed) > self._max_batch:  # the engine is never idle: drop the oldest
                self._evict(closed[0])

    @property
    def loaded(self) -> bool:
        """Whether a request waits, or more than half of the places are taken: then next turns are not prefilled."""
        return bool(self.waiting) or 2 * len(self.running) > max(2, self._max_batch)

    # One step ---------------------------------------------------------------------------------------------------------

    def schedule(self) -> Step | None:
        """The next step, or None when nothing is left to do."""
        step = Step()
        budget = self._step_tokens
        at = 0
        while at < len(self.running):  # it shrinks when sequences at its end are preempted
            sequence = self.running[at]
            at += 1
            length = _chunk(sequence, max(budget, 0))
            if not length or not self._make_room(sequence, length):
                continue
            budget -= length
            step.add(sequence, length)
        if self.waiting:
            budget = self._admit(step, max(budget, 0))
        if self.next_turns:
            self._add_next_turns(step, max(budget, 0))
        return step if step.chunks else None

    def computed(self, step: Step) -> None:
        """The keys and values of the step are in their pages: whole pages go into the tree."""
        for chunk, context in zip(step.chunks, step.contexts, strict=True):
            length = chunk.length - len(step.drafts[context]) if context in step.drafts else chunk.length
            self._count(context, length)
            context.computed += length
            if self._share:
                self._store(context)
            if isinstance(context, NextTurnPrefix):
                self._finish_next_turn(context)

    def _count(self, context: Context, length: int) -> None:
        counters = self._counters
        if not isinstance(context, Sequence):
            counters.next_turn_tokens += length
        elif not context.num_generated:
            counters.prefill_tokens += length
        elif length <= context.width:
            counters.decode_tokens += length
        else:
            counters.recomputed_tokens += length

    def _admit(self, step: Step, budget: int) -> int:
        """Waiting sequences take the free places while there are pages for all their tokens. One whose prompt is
        largely that of a sequence still in prefill waits for it and shares the result. Returns the budget left."""
        held_back: list[Sequence] = []
        while self.waiting and budget > 0 and len(self.running) + len(held_back) < self._max_batch:
            sequence = self.waiting.popleft()
            if self._share and self._computed_soon(sequence) > self._num_cached(sequence):
                held_back.append(sequence)
                continue
            if not self._place(sequence):
                self.waiting.appendleft(sequence)
                break
            length = _chunk(sequence, budget)
            budget -= length
            step.add(sequence, length)
        self.waiting.extendleft(reversed(held_back))
        return budget

    def _num_cached(self, context: Context) -> int:
        return self._blocks.num_matching(context.key, context.tokens[: -context.width])

    def _computed_soon(self, context: Context) -> int:
        """Tokens in whole pages of the longest prefix that running prefills are about to compute."""
        tokens, size = context.tokens, self._blocks.page_size
        in_prefill = (other for other in self.running if other.num_pending > other.width and other.key == context.key)
        shared = max((common_prefix(other.tokens, tokens, len(tokens) - 1) for other in in_prefill), default=0)
        return shared // size * size

    def _place(self, sequence: Sequence) -> bool:
        """Give a waiting sequence the pages of all its tokens, cached ones first. False: there are not enough."""
        size = self._blocks.page_size
        if self._share:
            sequence.nodes = self._blocks.match(sequence.key, sequence.tokens[: -sequence.width])
        sequence.pages = array("i", (node.page for node in sequence.nodes))
        sequence.computed = len(sequence.pages) * size
        needed = self._num_pages(len(sequence.tokens)) - len(sequence.pages)
        while needed > self._blocks.num_available and self._evict_largest():
            pass
        if needed > self._blocks.num_available:
            self._release(sequence)
            return False
        self._extend(sequence, len(sequence.tokens))
        self._counters.cached_tokens += sequence.computed
        if sequence.num_cached is None:
            sequence.num_cached = sequence.computed
        self.running.append(sequence)
        return True

    # Pages ------------------------------------------------------------------------------------------------------------

    def _make_room(self, sequence: Sequence, length: int) -> bool:
        """Pages for the next `length` tokens of a running sequence. False: it was preempted itself."""
        while not self._extend(sequence, sequence.computed + length):
            if self._evict_largest():
                continue
            victim = self.running[-1]
            self._preempt(victim)
            if victim is sequence:
                return False
        return True

    def _extend(self, context: Context, end: int) -> bool:
        """Pages for the tokens up to `end`. A shared page that would be written into is copied first."""
        size = self._blocks.page_size
        at = context.computed // size
        if at < len(context.pages) and not self._blocks.is_writable(context.pages[at]):
            own = self._blocks.allocate()
            if own is None:
                return False
            self._pages.copy(context.pages[at], own)
            self._blocks.release(context.pages[at : at + 1])
            context.pages[at] = own
        while len(context.pages) * size < end:
            page = self._blocks.allocate()
            if page is None:
                return False
            context.pages.append(page)
        return True

    def room_for_guesses(self, context: Context, wanted: int) -> int:
        """How many of `wanted` tokens after the last one have pages: its own and free ones, so that nothing is evicted
        for them."""
        size = self._blocks.page_size
        room = (len(context.pages) + self._blocks.num_free) * size - len(context.tokens)
        wanted = max(0, min(wanted, room))
        self._extend(context, len(context.tokens) + wanted)
        return wanted

    def give_back(self, context: Context) -> None:
        """Free the pages after the last token that is computed: they were for guesses."""
        held = self._num_pages(context.computed)
        self._blocks.release(context.pages[held:])
        del context.pages[held:]

    def _num_pages(self, num_tokens: int) -> int:
        return -(-num_tokens // self._blocks.page_size)

    def _preempt(self, sequence: Sequence) -> None:
        self._counters.preemptions += 1
        self.running.remove(sequence)
        self._release(sequence)
        self.waiting.appendleft(sequence)

    def _release(self, context: Context) -> None:
        self._blocks.release(context.pages)
        context.pages, context.nodes, context.computed = array("i"), [], 0

    def _store(self, context: Context) -> None:
        size, stored = self._blocks.page_size, len(context.nodes)
        if context.computed < (stored + 1) * size:
            return
        for at in range(stored, context.computed // size):
            parent = context.nodes[-1] if context.nodes else None
            ids = tuple(context.tokens[at * size : (at + 1) * size])
            node = self._blocks.store(context.key, parent, ids, context.pages[at])
            context.pages[at] = node.page
            context.nodes.append(node)

    # Next-turn prefixes -----------------------------------------------------------------------------------------------

    def _add_next_turns(self, step: Step, budget: int) -> None:
        if self.loaded:  # requests come first, and idle time will come
            self._counters.next_turns_deferred += 1
            return
        for prefix in list(self.next_turns.values()):
            if not prefix.started and not self._start_next_turn(prefix):
                continue
            # Beside other work a prefix runs in small chunks, so that no next token waits for it.
            length = min(prefix.num_pending, budget, NEXT_TURN_CHUNK if step.chunks else budget)
            if length <= 0 or not (prefix.closed or length >= NEXT_TURN_CHUNK):
                continue
            if not self._extend(prefix, prefix.computed + length):
                self._evict(prefix)
                continue
            budget -= length
            step.add(prefix, length)

    def _start_next_turn(self, prefix: NextTurnPrefix) -> bool:
        """Take the pages of it that are cached. False: it is too early, or all of it was cached."""
        if not prefix.closed and (prefix.evicted or prefix.num_pending < NEXT_TURN_CHUNK):
            return False
        if self._share and self._computed_soon(prefix) > self._num_cached(prefix):
            return False
        prefix.started = True
        prefix.nodes = self._blocks.match(prefix.key, prefix.tokens)
        prefix.pages = array("i", (node.page for node in prefix.nodes))
        prefix.computed = len(prefix.pages) * self._blocks.page_size
        return not self._finish_next_turn(prefix)

    def _finish_next_turn(self, prefix: NextTurnPrefix) -> bool:
        """A closed prefix that is computed gives its pages to the tree."""
        if not prefix.closed or prefix.num_pending > 0 or not prefix.started:
            return False
        self._counters.next_turns_finished += 1
        self.drop_next_turn(prefix)
        return True

    def _evict_largest(self) -> bool:
        """Evict the next-turn prefix that holds the most pages. False: none holds any."""
        holding = [prefix for prefix in self.next_turns.values() if prefix.pages]
        if holding:
            self._evict(max(holding, key=lambda prefix: len(prefix.pages)))
        return bool(holding)

    def _evict(self, prefix: NextTurnPrefix) -> None:
        self._counters.next_turns_dropped += 1
        if prefix.closed:
            self.drop_next_turn(prefix)
        else:
            self._release(prefix)
            prefix.started, prefix.evicted = False, True


def _chunk(sequence: Sequence, budget: int) -> int:
    """How many of the next tokens run in a step with room for `budget`: all that the last step said, whatever the
    budget, or a part of what is before it. The last step is never cut."""
    pending, width = sequence.num_pending, sequence.width
    if pending <= width:
        return pending
    length = min(pending, budget)
    return length if length == pending else min(length, pending - width)


def common_prefix(a: Seq[int], b: Seq[int], limit: int) -> int:
    """How many leading ids `a` and `b` share, at most `limit`. Both of one type."""
    limit = min(limit, len(a), len(b))
    same = 0
    while same < limit and a[same : same + _BLOCK] == b[same : same + _BLOCK]:
        same += _BLOCK
    while same < limit and a[same] == b[same]:
        same += 1
    return min(same, limit)
