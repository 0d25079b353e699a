"""Processes that are forked from one that has imported torch and Ponder already: for tests that kill or signal one.
Importing takes seconds, forking milliseconds."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.context import ForkServerProcess
from pkgutil import resolve_name

FORKS = multiprocessing.get_context("forkserver")
LOADED = ("torch._dynamo", "ponder.cli.serve", "ponder.serve.app", "ponder.serve.http.server", "ponder.train")
FORKS.set_forkserver_preload([*LOADED, "ponder.testing.scripted", "ponder.testing.tiny"])


def forked(function: str, *arguments: object) -> ForkServerProcess:
    """A process that calls `function` ("module:name"), started."""
    process = FORKS.Process(target=_call, args=(function, arguments))
    process.start()
    return process


def exit_code(function: str, *arguments: object) -> int | None:
    """How such a process ends: its exit code, negative for a signal."""
    process = forked(function, *arguments)
    process.join()
    return process.exitcode


def _call(function: str, arguments: tuple[object, ...]) -> None:
    import torch

    torch.set_num_threads(1)
    resolve_name(function)(*arguments)


def ponder(arguments: list[str]) -> None:
    """The command line, without what it says."""
    from ponder.cli.main import main

    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1), os.dup2(null, 2)
    raise SystemExit(main(arguments))
