"""Compile the C++ of `cpu/` for this machine, once: the library is kept by what it was built from and for."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

from ponder.kernels.machine import InstructionSet, machine

_SOURCES = Path(__file__).parent / "cpu"
# Not -ffast-math: it may set flush-to-zero for the whole process, and changes the order of sums.
_FLAGS = (
    *("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-ffp-contract=fast"),
    *("-fopenmp", "-shared", "-fPIC", "-fvisibility=hidden", "-Wno-psabi"),
)
_SECONDS = 300
_DAY, _UNUSED_DAYS = 86_400, 30


class BuildError(RuntimeError):
    """The fused step cannot be built here. The text is the reason, to be shown to the user."""


def library(target: str | None = None, source: str = "step") -> ctypes.CDLL:
    """What `cpu/SOURCE.cpp` compiles to.

    target: what `-march` takes, of something that runs on this machine; None: as `machine` says.
    Raises BuildError.
    """
    if target is None and machine().instructions is InstructionSet.OTHER:
        raise BuildError(f"the fused step is for x86-64 with AVX2: {machine().reason}")
    built = _library(target or machine().march, source)
    if isinstance(built, BuildError):
        raise built
    return built


@cache
def _library(target: str, source: str) -> ctypes.CDLL | BuildError:
    try:
        return ctypes.CDLL(str(_built(target, source)))
    except BuildError as error:
        return error
    except OSError as error:
        return BuildError(f"the fused step was built but cannot be used: {error}")


def cache_folder() -> Path:
    """Where built libraries are kept: $PONDER_CACHE, else the user's cache folder. Raises BuildError without either."""
    base = os.environ.get("PONDER_CACHE")
    if base:
        return Path(base) / "kernels"
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ponder" / "kernels"
    except RuntimeError as error:  # a user without a home folder, as in some containers
        raise BuildError(f"the fused step cannot be kept: {error}: set PONDER_CACHE to a folder") from error


def _built(target: str, source: str = "step") -> Path:
    """Path of the library, compiled if it is not there yet."""
    if not sys.platform.startswith("linux") or sys.byteorder != "little":
        raise BuildError(f"the fused step is for Linux, this is {sys.platform}")
    sources = [_SOURCES / f"{source}.cpp", *sorted(_SOURCES.glob("*.h"))]
    made_of = [*_FLAGS, target, _processor(), *(each.read_text(encoding="utf-8") for each in sources)]
    key = hashlib.sha256("\0".join(made_of).encode()).hexdigest()[:24]
    folder = cache_folder()
    path = folder / f"{source}-{key}.so"
    if _touched(path):
        return path
    compiler = shutil.which("g++")
    if compiler is None:
        raise BuildError("the fused step needs a compiler: g++ is not installed")
    import fcntl  # here, because Windows has none

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / f"{source}-{key}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a second process waits, and finds what the first has built
            if not path.exists():
                _compile(compiler, target, source, path)
                _remove_unused(folder)
    except OSError as error:
        raise BuildError(f"the fused step cannot be kept in {folder}: {error}: set PONDER_CACHE to a folder") from error
    return path


def _touched(path: Path) -> bool:
    """Whether the library is there; if it is, its time says that it is in use."""
    if not path.exists():
        return False
    with suppress(OSError):  # a cache that others own
        if time.time() - path.stat().st_mtime > _DAY:
            os.utime(path)
    return True


def _remove_unused(folder: Path) -> None:
    """Libraries of other versions, and their locks, are removed when they were not opened for a month. A process that
    still has one open keeps it: the file itself exists until then."""
    for file in (file for source in _SOURCES.glob("*.cpp") for file in folder.glob(f"{source.stem}-*.so")):
        with suppress(OSError):
            if time.time() - file.stat().st_mtime > _UNUSED_DAYS * _DAY:
                file.with_suffix(".lock").unlink(missing_ok=True)
                file.unlink()


def _compile(compiler: str, target: str, source: str, path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        command = [compiler, *_FLAGS, f"-march={target}", str(_SOURCES / f"{source}.cpp"), "-o", str(made)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            raise BuildError(f"{compiler} did not finish the fused step within {_SECONDS} s") from None
        if done.returncode:
            raise BuildError(f"{compiler} failed on the fused step: {done.stderr.strip()[-500:]}")
        os.replace(made, path)


def _processor() -> str:
    """What distinguishes processors that need different code."""
    wanted = ("flags", "Features", "model name")
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return os.uname().machine
    return "\n".join(next((line for line in lines if line.startswith(name)), "") for name in wanted)
