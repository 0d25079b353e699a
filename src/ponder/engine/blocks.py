"""The owners of pages: reference counts, the tree of cached prefixes, eviction, and how many pages fit; no tensors.

A page holds the keys and values of `page_size` neighbouring tokens. Each page is in exactly one of three states: *used*
(referenced), *cached* (not referenced, but the tree knows its contents) or *free*. Only whole pages enter
the tree, and a page in the tree is never written again.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ponder.types import InvalidRequest

DEFAULT_FRACTION = 0.25
_UNKNOWN = 2 << 30  # bytes taken to be free where the system does not say


@dataclass(frozen=True, slots=True)
class CacheKey:
    """What besides the ids decides whether keys and values may be shared."""

    version: int = 0
    adapter: str = ""
    tenant: str = ""


class Node:
    """A page in the tree: the path from the root spells the ids up to its last token."""

    __slots__ = ("children", "ids", "page", "parent", "used")

    def __init__(self, parent: Node | None, ids: tuple[int, ...], page: int) -> None:
        self.parent = parent
        self.ids = ids
        self.page = page
        self.children: dict[tuple[int, ...], Node] = {}
        self.used = 0  # when its last reference was given back


class BlockCache:
    """References are taken by `match`, `allocate` and `retain`, and given back by `release`."""

    def __init__(self, num_pages: int, page_size: int) -> None:
        self.num_pages = num_pages
        self.page_size = page_size
        self.num_cached = 0
        self.num_evicted = 0
        self._free = list(range(num_pages - 1, -1, -1))
        self._references = [0] * num_pages
        self._nodes: list[Node | None] = [None] * num_pages
        self._roots: dict[CacheKey, Node] = {}
        self._idle: list[tuple[int, int]] = []  # heap of (used, page); entries go stale and are skipped
        self._clock = 0

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_used(self) -> int:
        """Pages that are referenced."""
        return self.num_pages - self.num_cached - self.num_free

    @property
    def num_available(self) -> int:
        """Pages that `allocate` can give, by evicting what is only cached."""
        return self.num_free + self.num_cached

    def match(self, key: CacheKey, ids: Sequence[int]) -> list[Node]:
        """The longest path in the tree that `ids` begin with, a reference taken on each of its pages."""
        path = self._path(key, ids)
        for node in path:
            self._take(node.page)
        return path

    def num_matching(self, key: CacheKey, ids: Sequence[int]) -> int:
        """How many leading tokens of `ids` the tree holds."""
        return len(self._path(key, ids)) * self.page_size

    def allocate(self) -> int | None:
        """An unshared page. If none is free, the least recently used cached page is evicted. None: all are used."""
        if not self._free and not self._evict():
            return None
        page = self._free.pop()
        self._references[page] = 1
        return page

    def retain(self, pages: Iterable[int]) -> None:
        """One more reference to each of these used pages."""
        for page in pages:
            assert self._references[page] > 0
            self._references[page] += 1

    def release(self, pages: Sequence[int], *, forget: bool = False) -> None:
        """Give back one reference to each. Pages of the tree stay cached; with `forget`, those that are not
        referenced any more, and that nothing in the tree builds on, are freed at once."""
        for page in reversed(pages):
            assert self._references[page] > 0
            self._references[page] -= 1
            if self._references[page]:
                continue
            node = self._nodes[page]
            if node is None:
                self._free.append(page)
                continue
            self._clock += 1
            node.used = self._clock
            self.num_cached += 1
            if not node.children:
                if forget:
                    self._remove(node)
                else:
                    self._push(node)

    def is_writable(self, page: int) -> bool:
        """Whether its one owner may write into the page."""
        return self._references[page] == 1 and self._nodes[page] is None

    def store(self, key: CacheKey, parent: Node | None, ids: tuple[int, ...], page: int) -> Node:
        """Put a whole page that its owner holds into the tree, after `parent` (None: first of its key).

        Where the tree has the same ids already, the owner's reference moves to that page, and its own is freed.
        """
        assert len(ids) == self.page_size
        if parent is None:
            parent = self._roots.setdefault(key, Node(None, (), -1))
        node = parent.children.get(ids)
        if node is None:
            node = parent.children[ids] = self._nodes[page] = Node(parent, ids, page)
        elif node.page != page:
            self._take(node.page)
            self.release([page])
        return node

    def forget(self, key: CacheKey, ids: Sequence[int], keep: int) -> int:
        """Free the cached pages on the path of `ids` that reach beyond its first `keep` tokens and that nothing else
        in the tree stands on. Returns how many."""
        freed = 0
        for node in reversed(self._path(key, ids)[keep // self.page_size :]):
            if node.children or self._references[node.page]:
                break
            self._remove(node)
            freed += 1
        return freed

    def _path(self, key: CacheKey, ids: Sequence[int]) -> list[Node]:
        node, path, size = self._roots.get(key), [], self.page_size
        for begin in range(0, len(ids) - size + 1, size):
            node = node and node.children.get(tuple(ids[begin : begin + size]))
            if node is None:
                break
            path.append(node)
        return path

    def _take(self, page: int) -> None:
        if not self._references[page]:
            self.num_cached -= 1
        self._references[page] += 1

    def _push(self, node: Node) -> None:
        if len(self._idle) > 4 * self.num_pages:
            self._idle = [entry for entry in self._idle if self._is_idle(*entry)]
            heapq.heapify(self._idle)
        heapq.heappush(self._idle, (node.used, node.page))

    def _is_idle(self, used: int, page: int) -> bool:
        node = self._nodes[page]
        return node is not None and node.used == used and not node.children and not self._references[page]

    def _evict(self) -> bool:
        while self._idle:
            used, page = heapq.heappop(self._idle)
            if self._is_idle(used, page):
                node = self._nodes[page]
                assert node is not None
                self._remove(node)
                self.num_evicted += 1
                return True
        return False

    def _remove(self, node: Node) -> None:
        """A cached leaf leaves the tree, and its page is free."""
        parent = node.parent
        assert parent is not None
        assert not node.children
        del parent.children[node.ids]
        self._nodes[node.page] = None
        self._free.append(node.page)
        self.num_cached -= 1
        if parent.children:
            return
        if parent.parent is None:
            self._roots = {key: root for key, root in self._roots.items() if root is not parent}
        elif not self._references[parent.page]:
            self._push(parent)


def num_pages(
    memory: int | float | None, page_bytes: int, page_size: int, wanted_tokens: int, device: torch.device
) -> int:
    """Pages that `memory` holds: bytes (an int), or a fraction of what is free on the device (a float).

    None: enough for wanted_tokens, but at most a quarter of what is free. Raises InvalidRequest for what holds no page.
    """
    if memory is None:
        budget = min(-(-wanted_tokens // page_size) * page_bytes, int(DEFAULT_FRACTION * free_bytes(device)))
    elif type(memory) is int and memory > 0:
        budget = memory
    elif type(memory) is float and 0 < memory <= 1:
        budget = int(memory * free_bytes(device))
    else:
        raise InvalidRequest(
            "memory must be bytes (an integer above 0) or a fraction of the free memory (a float above 0 "
            f"and at most 1), got {memory!r}"
        )
    if budget < page_bytes:
        raise InvalidRequest(
            f"memory of {budget} bytes is too small: a page of {page_size} tokens of this model takes {page_bytes}"
        )
    return budget // page_bytes


def free_bytes(device: torch.device) -> int:
    """Memory that could be taken now, on the device; on a CPU within the limits of the process's control group."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = _available() or _UNKNOWN
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        return min(free, max(0, limit - int(Path("/sys/fs/cgroup/memory.current").read_text())))
    except (OSError, ValueError):  # no control groups, or no limit ("max")
        return free


def _available() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2  # macOS says only what is built in
    except (AttributeError, ValueError, OSError):
        return None
