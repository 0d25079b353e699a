"""Keep freed memory in the process. A compiled CPU step of mini: 1.42 → 1.02 s, 204,000 → 9,000 page faults."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # glibc, malloc.h


def keep_freed_memory() -> None:
    """Tell glibc not to hand large freed blocks back to the kernel, which every training step would fault in anew.

    The process keeps its peak memory until it ends. Elsewhere than under glibc: does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
