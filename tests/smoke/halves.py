"""`python halves.py "VERB …" "VERB …"` runs `ponder VERB …` one after the other, and fails if any thread multiplies
16-bit floats on the CPU."""

from __future__ import annotations

import shlex
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot", "linear", "matmul", "einsum", "attention")
HALVES = (torch.bfloat16, torch.float16)


class HalfProducts(TorchDispatchMode):
    """Collects the names of operators that multiply matrices of bfloat16 or float16 on the CPU."""

    def __init__(self, found: set[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = func._schema.name.removeprefix("aten::")
        if name in PRODUCTS or any(part in name for part in ("attention", "linear", "matmul")):
            tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
            if any(each.dtype in HALVES and each.device.type == "cpu" for each in tensors):
                self.found.add(name)
        return func(*args, **(kwargs or {}))


@contextmanager
def half_products() -> Iterator[set[str]]:
    """The products of 16-bit floats that this thread, and every thread started inside, dispatches meanwhile."""
    found: set[str] = set()
    run = threading.Thread.run

    def watched(thread: threading.Thread) -> None:
        with HalfProducts(found):
            run(thread)

    threading.Thread.run = watched  # type: ignore[method-assign]
    try:
        with HalfProducts(found):
            yield found
    finally:
        threading.Thread.run = run  # type: ignore[method-assign]


def main() -> int:
    from ponder.cli.main import main as ponder

    for command in sys.argv[1:]:
        with half_products() as found:
            code = ponder(shlex.split(command))
        if code or found:
            print(f"{command}: exit {code}, products of 16-bit floats: {', '.join(sorted(found))}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
