"""A model's Python, run on inputs: its values come back as plain data, and nothing else comes out.

What the values should be never enters the process that runs the code, so no trick inside can know or forge a grade: the
caller compares (`plain.same_plain`). Where a platform cannot seal a process, this is refused with SandboxUnavailable,
and never run with less.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ponder.sandbox.isolate import CallOutcome, CallResult, run_isolated, submit_isolated
from ponder.types import MissingExtra, PonderError

SECONDS = 5.0
MEMORY = 1 << 28
_WARM = ("ponder.sandbox.code_child:warm_modules", None)


class CodeEngine(StrEnum):
    """What runs a model's Python.

    SEALED: CPython in a sealed child process, with the standard library's modules of `code_child.MODULES`.
    MONTY: Monty, an interpreter of a part of Python without any access, for platforms that cannot seal: the extra
        `monty`.
    """

    SEALED = "sealed"
    MONTY = "monty"


class SandboxUnavailable(PonderError):
    """This machine cannot run a model's code safely, so it was not run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeLimits:
    """What one run may take, over all inputs together.

    seconds: of wall time.
    memory: bytes.
    engine: what runs the code.
    """

    seconds: float = SECONDS
    memory: int = MEMORY
    engine: CodeEngine = CodeEngine.SEALED


def submit_code(
    code: str, function: str, inputs: Sequence[Sequence[Any]], limits: CodeLimits | None = None
) -> Future[CallResult]:
    """Call `function`, which `code` defines, with each of the lists of arguments; many may run at once.

    inputs: plain JSON data.
    The result's value is a list: for each input `{"value"}` in plain form, or `{"error"}`. Raises SandboxUnavailable,
    MissingExtra.
    """
    limits = limits or CodeLimits()
    payload = {"code": code, "function": function, "inputs": [list(each) for each in inputs]}
    if limits.engine is CodeEngine.MONTY:
        return _threads().submit(_run_in_monty, payload, limits)
    check_seal()
    return submit_isolated(
        "ponder.sandbox.code_child:run_calls",
        payload,
        timeout=limits.seconds,
        memory=limits.memory,
        warm=_WARM,
        sealed=True,
    )


@functools.cache
def check_seal() -> None:
    """Once a process: seal a child and try to leave it. Raises SandboxUnavailable that says what is missing."""
    tried = run_isolated("ponder.sandbox.code_child:try_to_leave", None, timeout=30.0, warm=_WARM, sealed=True)
    if tried.outcome is CallOutcome.DONE and not tried.value:
        return
    missing = f"it could {', '.join(tried.value)}" if tried.outcome is CallOutcome.DONE else tried.why
    raise SandboxUnavailable(
        f"a process that runs a model's code cannot be sealed here ({missing}), so none is run: use Linux on x86-64 "
        "with Landlock and seccomp, or the engine \"monty\" (pip install 'ponder[monty]')"
    )


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="ponder-monty")


@functools.cache
def _monty() -> Any:
    try:
        from pydantic_monty import Monty
    except ImportError as error:
        raise MissingExtra("pydantic-monty", "monty") from error
    return Monty().__enter__()


def _run_in_monty(payload: dict[str, Any], limits: CodeLimits) -> CallResult:
    """The same by Monty, whose workers are separate processes without access to anything."""
    pool = _monty()
    from pydantic_monty import CollectString, MontyCrashedError, MontyError

    from ponder.sandbox.plain import plain_value

    bounds = {"max_feed_duration_secs": limits.seconds, "max_memory": limits.memory}
    answers: list[dict[str, Any]] = []
    late = CallResult(CallOutcome.TIMEOUT, why=f"took longer than {limits.seconds:g} s")
    deadline = time.monotonic() + limits.seconds
    try:
        with pool.checkout(limits=bounds) as session:
            session.feed_run(payload["code"], print_callback=CollectString())
            for arguments in payload["inputs"]:
                names = {f"argument_{place}": each for place, each in enumerate(arguments)}
                call = f"{payload['function']}({', '.join(names)})"
                try:
                    value = session.feed_run(call, inputs=names, print_callback=CollectString())
                    answers.append({"value": plain_value(value)})
                except MontyCrashedError:
                    raise
                except (MontyError, TypeError) as error:
                    if "TimeoutError" in str(error):
                        return late
                    answers.append({"error": str(error)[:300]})
                if time.monotonic() > deadline:
                    return late
    except MontyCrashedError as error:
        return CallResult(CallOutcome.DIED, why=str(error)[:300])
    except MontyError as error:
        return late if "TimeoutError" in str(error) else CallResult(CallOutcome.RAISED, why=str(error)[:300])
    return CallResult(CallOutcome.DONE, answers)
