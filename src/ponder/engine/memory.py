"""How many pages the cache gets: one number, in bytes or as a fraction of what is free."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from ponder.types import InvalidRequest

DEFAULT_FRACTION = 0.25
_UNKNOWN = 2 << 30  # bytes taken to be free where the system does not say


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
            f"memory is {memory!r}: allowed are bytes (an integer above 0) or a fraction of the free memory (a float "
            "above 0 and at most 1)"
        )
    if budget < page_bytes:
        raise InvalidRequest(
            f"memory is {budget} bytes: a page of {page_size} tokens of this model needs {page_bytes}, give more"
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
