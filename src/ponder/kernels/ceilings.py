"""What this machine can do at most: bytes read from memory and operations of matrix products per second.

A figure stands beside its ceiling only where both come from one run: call these between the contenders' rounds.

    python -m ponder.kernels.ceilings
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import torch

from ponder.kernels.machine import machine, product_dtype

GIB = 1 << 30

# Each thread adds up its own part of `bytes` bytes: from front to back; in eight places by turns, so that as many pages
# are open; the same with lines asked for ahead of time.
_SOURCE = """
#include <stdint.h>
#define STREAMS 8
typedef float vf __attribute__((vector_size(64), aligned(64)));
static inline float total(vf v) { float x = 0; for (int i = 0; i < 16; i++) x += v[i]; return x; }

float in_a_row(const char* from, long bytes, int threads) {
  float sum = 0;
#pragma omp parallel for num_threads(threads) reduction(+ : sum)
  for (int t = 0; t < threads; t++) {
    const vf* at = (const vf*)(from + bytes / threads * t);
    vf s[8] = {};
    for (long i = 0; i < bytes / threads / 64; i += 8)
      for (int k = 0; k < 8; k++) s[k] += at[i + k];
    for (int k = 0; k < 8; k++) sum += total(s[k]);
  }
  return sum;
}

static inline float by_turns(const char* from, long bytes, int threads, long ahead) {
  float sum = 0;
#pragma omp parallel for num_threads(threads) reduction(+ : sum)
  for (int t = 0; t < threads; t++) {
    const vf* at = (const vf*)(from + bytes / threads * t);
    const long each = bytes / threads / 64 / STREAMS;
    vf s[STREAMS] = {};
    for (long i = 0; i < each; i++)
      for (int k = 0; k < STREAMS; k++) {
        if (ahead) __builtin_prefetch(at + k * each + i + ahead, 0, 3);
        s[k] += at[k * each + i];
      }
    for (int k = 0; k < STREAMS; k++) sum += total(s[k]);
  }
  return sum;
}
float in_turns(const char* from, long bytes, int threads) { return by_turns(from, bytes, threads, 0); }
float announced(const char* from, long bytes, int threads) { return by_turns(from, bytes, threads, 16); }
"""


@cache
def _buffer(size: int) -> torch.Tensor:
    """`size` bytes, written once, in large pages where the system has them."""
    floats = torch.empty(size // 4)
    with contextlib.suppress(OSError, AttributeError):  # a system without it
        begin = -(-floats.data_ptr() // 4096) * 4096
        ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), ctypes.c_size_t(size - 4096), 14)
    return floats.fill_(1e-9)


@cache
def _compiled() -> tuple[Callable[..., float], ...]:
    """The loops above; none without a compiler."""
    compiler = shutil.which("gcc")
    if compiler is None:
        return ()
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / "read.c", Path(folder) / "read.so"
        source.write_text(_SOURCE, encoding="utf-8")
        flags = ("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC", "-Wno-psabi")
        subprocess.run([compiler, *flags, str(source), "-o", str(made)], check=True)
        library = ctypes.CDLL(str(made))
    loops = (library.in_a_row, library.in_turns, library.announced)
    for loop in loops:
        loop.argtypes, loop.restype = (ctypes.c_void_p, ctypes.c_long, ctypes.c_int), ctypes.c_float
    return loops


def _best(run: Callable[[], object], times: int, device: str = "cpu", enough: float = math.inf) -> float:
    """Seconds of the fastest of `times` calls, or of fewer, but at least 3, that together took `enough` seconds."""
    took: list[float] = []
    while len(took) < times and (len(took) < 3 or sum(took) < enough):
        began = time.perf_counter()
        run()
        if device != "cpu":
            torch.cuda.synchronize(device)
        took.append(time.perf_counter() - began)
    return min(took)


def dram_reads(threads: int, size: int = GIB, times: int = 3, device: str = "cpu") -> dict[str, float]:
    """Bytes per second of each kernel over `size` bytes: torch's sum, dot product and maximum, and on a CPU the
    compiled loops."""
    buffer = _buffer(size) if device == "cpu" else torch.full((size // 4,), 1e-9, device=device)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    kernels: dict[str, Callable[[], object]] = {
        "torch sum": buffer.sum,
        "torch dot": lambda: torch.dot(buffer, buffer),
        "torch max": buffer.max,
    }
    for loop in _compiled() if device == "cpu" else ():
        kernels[loop.__name__] = partial(loop, buffer.data_ptr(), size, threads)
    found = {name: size / _best(run, times, device) for name, run in kernels.items()}
    torch.set_num_threads(before)
    return found


def dram_read_bytes_per_second(threads: int, device: str = "cpu") -> float:
    """The best of six kernels, or three without a compiler or on a GPU, over 1 GiB (8 on a GPU). About a second."""
    if device == "cpu":
        return max(dram_reads(threads).values())
    return max(dram_reads(threads, 8 * GIB, 10, device).values())


def matmul_flops(n: int = 2048, device: str = "cpu") -> float:
    """Floating-point operations per second of torch's (n, n) x (n, n) product: the best of a few, torch's threads.

    In bfloat16; on a CPU in what `machine` says that it multiplies. About a second."""
    dtype = product_dtype(torch.bfloat16, torch.device(device).type)
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, n, generator=generator).to(device, dtype) for _ in range(2))
    out = torch.empty(n, n, dtype=dtype, device=device)
    return 2 * n**3 / _best(lambda: torch.mm(a, b, out=out), max(5, min(50, int(2e11 / n**3))), device, 1.0)


def main() -> None:
    threads = torch.get_num_threads()
    for name, rate in dram_reads(threads).items():
        print(f"DRAM read, {threads} threads, {name}: {rate / 1e9:.1f} GB/s")
    print(f"processor: {machine()}")
    for n in (512, 1024, 2048):
        print(f"product {n} x {n} x {n}: {matmul_flops(n) / 1e12:.2f} TFLOP/s")


if __name__ == "__main__":
    main()
