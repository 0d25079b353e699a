"""Who runs next, on which tokens, in which pages.

First come, first served. Every running sequence decodes one token a step; prompts ride along in chunks; shadows take
what is left. When pages run out, shadows give way first, then the sequence that came last: it waits with its tokens,
and what is no longer cached is computed again.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field

from ponder.engine.blocks import BlockCache
from ponder.engine.pages import Chunk, Pages
from ponder.engine.sequence import Context, Sequence, Shadow
from ponder.engine.stats import Counters

SHADOW_CHUNK = 32  # tokens; a shadow that is still growing runs so many at a time
_BLOCK = 64  # ids compared at once


@dataclass(slots=True)
class Step:
    """One pass through the model: `chunks[i]` are the next tokens of `contexts[i]`.

    ready: sequences whose last token runs in this step: their next token is picked. rows: of those last tokens.
    """

    chunks: list[Chunk] = field(default_factory=list)
    contexts: list[Context] = field(default_factory=list)
    ready: list[Sequence] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    num_rows: int = 0

    def add(self, context: Context, length: int) -> None:
        """The next `length` tokens of `context` run too."""
        start = context.computed
        self.chunks.append(Chunk(context.pages, start, length))
        self.contexts.append(context)
        self.num_rows += length
        if start + length == len(context.tokens) and isinstance(context, Sequence):
            self.ready.append(context)
            self.rows.append(self.num_rows - 1)


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
        self.shadows: dict[int, Shadow] = {}

    # Sequences in and out ---------------------------------------------------------------------------------------------

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def add_fork(self, parent: Sequence, fork: Sequence) -> None:
        """The fork shares its parent's pages where it can run at once; else it waits, and finds them in the tree. So it
        does beside a parent in prefill, whose pages are still to be written: by one of them only."""
        if parent in self.running and parent.num_pending == 1 and len(self.running) < self._max_batch:
            fork.pages, fork.nodes, fork.computed = array("i", parent.pages), list(parent.nodes), parent.computed
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
        """The context is replaced from token `keep` on: the pages behind it are freed at once."""
        whole = keep // self._blocks.page_size
        self._blocks.release(sequence.pages[whole:], forget=True)
        del sequence.pages[whole:], sequence.nodes[whole:]
        sequence.computed = whole * self._blocks.page_size

    def drop_shadow(self, shadow: Shadow) -> None:
        del self.shadows[shadow.number]
        self._release(shadow)

    def close_shadow(self, shadow: Shadow, ids: Seq[int]) -> None:
        """`ids` is what the next prompt begins with: whatever else the shadow holds goes, what is missing will run."""
        size = self._blocks.page_size
        same = common_prefix(shadow.tokens, ids, len(ids))
        if shadow.computed > same:
            whole = same // size
            self._blocks.release(shadow.pages[whole:], forget=True)
            del shadow.pages[whole:], shadow.nodes[whole:]
            shadow.computed = whole * size
        # A page that is not whole cannot be found again, so its tokens are left out.
        shadow.tokens, shadow.closed = list(ids[: len(ids) // size * size]), True
        if not self._finish_shadow(shadow):
            closed = [each for each in self.shadows.values() if each.closed]
            if len(closed) > self._max_batch:  # idle time does not come: the oldest gives up
                self._give_way(closed[0])

    @property
    def loaded(self) -> bool:
        """More than half of the places are taken, or somebody waits: next turns are not made warm now."""
        return bool(self.waiting) or 2 * len(self.running) > max(2, self._max_batch)

    # One step ---------------------------------------------------------------------------------------------------------

    def schedule(self) -> Step | None:
        """The next step, or None when nothing is left to do."""
        step = Step()
        budget = self._step_tokens
        at = 0
        while at < len(self.running):  # it grows shorter when sequences at its end have to give way
            sequence = self.running[at]
            at += 1
            length = sequence.num_pending
            if length > 1:
                length = min(length, max(budget, 0))
            if not length or not self._make_room(sequence, length):
                continue
            budget -= length
            step.add(sequence, length)
        if self.waiting:
            budget = self._admit(step, max(budget, 0))
        if self.shadows:
            self._add_shadows(step, max(budget, 0))
        return step if step.chunks else None

    def computed(self, step: Step) -> None:
        """The keys and values of the step are in their pages: whole pages go into the tree."""
        for chunk, context in zip(step.chunks, step.contexts, strict=True):
            self._count(context, chunk.length)
            context.computed += chunk.length
            if self._share:
                self._store(context)
            if isinstance(context, Shadow):
                self._finish_shadow(context)

    def _count(self, context: Context, length: int) -> None:
        counters = self._counters
        if not isinstance(context, Sequence):
            counters.shadow_tokens += length
        elif not context.num_generated:
            counters.prefill_tokens += length
        elif length == 1:
            counters.decode_tokens += 1
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
            length = min(sequence.num_pending, budget)
            budget -= length
            step.add(sequence, length)
        self.waiting.extendleft(reversed(held_back))
        return budget

    def _num_cached(self, context: Context) -> int:
        return self._blocks.num_matching(context.key, context.tokens[:-1])

    def _computed_soon(self, context: Context) -> int:
        """Tokens in whole pages of the longest prefix that running prefills are about to compute."""
        tokens, size = context.tokens, self._blocks.page_size
        in_prefill = (other for other in self.running if other.num_pending > 1 and other.key == context.key)
        shared = max((common_prefix(other.tokens, tokens, len(tokens) - 1) for other in in_prefill), default=0)
        return shared // size * size

    def _place(self, sequence: Sequence) -> bool:
        """Give a waiting sequence the pages of all its tokens, cached ones first. False: there are not enough."""
        size = self._blocks.page_size
        if self._share:
            sequence.nodes = self._blocks.match(sequence.key, sequence.tokens[:-1])
        sequence.pages = array("i", (node.page for node in sequence.nodes))
        sequence.computed = len(sequence.pages) * size
        needed = -(-len(sequence.tokens) // size) - len(sequence.pages)
        while needed > self._blocks.num_available and self._give_way_shadow():
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
        """Pages for the next `length` tokens of a running sequence. False: it had to give way itself."""
        while not self._extend(sequence, sequence.computed + length):
            if self._give_way_shadow():
                continue
            victim = self.running[-1]
            self._preempt(victim)
            if victim is sequence:
                return False
        return True

    def _extend(self, context: Context, end: int) -> bool:
        """Own pages for the tokens up to `end`, and the first that is written into for oneself alone."""
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

    # Shadows ----------------------------------------------------------------------------------------------------------

    def _add_shadows(self, step: Step, budget: int) -> None:
        if self.loaded:  # whoever runs or waits comes first, and idle time will come
            self._counters.shadows_deferred += 1
            return
        for shadow in list(self.shadows.values()):
            if not shadow.started and not self._start_shadow(shadow):
                continue
            # Beside other work a shadow goes by small steps, so that nobody's next token waits for it.
            length = min(shadow.num_pending, budget, SHADOW_CHUNK if step.chunks else budget)
            if length <= 0 or not (shadow.closed or length >= SHADOW_CHUNK):
                continue
            if not self._extend(shadow, shadow.computed + length):
                self._give_way(shadow)
                continue
            budget -= length
            step.add(shadow, length)

    def _start_shadow(self, shadow: Shadow) -> bool:
        """Find what is cached of it. False: it is too early, or it was all there."""
        if not shadow.closed and (shadow.gave_way or shadow.num_pending < SHADOW_CHUNK):
            return False
        if self._share and self._computed_soon(shadow) > self._num_cached(shadow):
            return False
        shadow.started = True
        shadow.nodes = self._blocks.match(shadow.key, shadow.tokens)
        shadow.pages = array("i", (node.page for node in shadow.nodes))
        shadow.computed = len(shadow.pages) * self._blocks.page_size
        return not self._finish_shadow(shadow)

    def _finish_shadow(self, shadow: Shadow) -> bool:
        """A closed shadow that is computed gives its pages to the tree."""
        if not shadow.closed or shadow.num_pending > 0 or not shadow.started:
            return False
        self._counters.shadows_finished += 1
        self.drop_shadow(shadow)
        return True

    def _give_way_shadow(self) -> bool:
        """The shadow that holds most pages gives them back. False: none holds any."""
        holding = [shadow for shadow in self.shadows.values() if shadow.pages]
        if holding:
            self._give_way(max(holding, key=lambda shadow: len(shadow.pages)))
        return bool(holding)

    def _give_way(self, shadow: Shadow) -> None:
        self._counters.shadows_dropped += 1
        if shadow.closed:
            self.drop_shadow(shadow)
        else:
            self._release(shadow)
            shadow.started, shadow.gave_way = False, True


def common_prefix(a: Seq[int], b: Seq[int], limit: int) -> int:
    """How many leading ids `a` and `b` share, at most `limit`. Both of one type."""
    limit = min(limit, len(a), len(b))
    same = 0
    while same < limit and a[same : same + _BLOCK] == b[same : same + _BLOCK]:
        same += _BLOCK
    while same < limit and a[same] == b[same]:
        same += 1
    return min(same, limit)
