"""Calls of a model's function, in a sealed child: inputs in, plain values out; what they should be stays outside."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from ponder.sandbox.plain import plain_value

# All that the code can import: a sealed child opens no file. The fork server imports them, its children have them.
MODULES = """
abc array ast base64 binascii bisect builtins calendar cmath codecs collections collections.abc colorsys contextlib
copy ctypes csv dataclasses datetime decimal difflib enum errno fractions functools gc graphlib hashlib heapq hmac
html inspect io ipaddress itertools json keyword linecache locale logging math numbers operator os pprint queue random
re reprlib secrets signal statistics string struct sys textwrap threading time timeit token tokenize traceback types
typing unicodedata uuid warnings weakref zlib encodings.ascii encodings.cp1252 encodings.idna encodings.latin_1
encodings.utf_16 encodings.utf_32 concurrent.futures.thread
"""


def warm_modules(_: None) -> None:
    """Import them, once, in the fork server."""
    for name in MODULES.split():
        importlib.import_module(name)


def run_calls(payload: dict[str, Any]) -> list[dict[str, Any]]:
    """For each list of arguments: `{"value"}` of the function in plain form, or `{"error"}`.

    payload: code, function, inputs. Raises what the code raises, NameError where it defines no such function.
    """
    module = ModuleType("solution")
    sys.modules["solution"] = module
    exec(compile(payload["code"], "solution.py", "exec"), module.__dict__)
    function = module.__dict__.get(payload["function"])
    if not callable(function):
        raise NameError(f"the code defines no function {payload['function']!r}")
    answers: list[dict[str, Any]] = []
    for arguments in payload["inputs"]:
        try:
            answers.append({"value": plain_value(function(*arguments))})
        except MemoryError:
            raise
        except Exception as error:
            answers.append({"error": f"{type(error).__name__}: {error}"[:300]})
    return answers


def try_to_leave(_: None) -> list[str]:
    """What a sealed child can do and must not: names of attempts that worked."""
    import os
    import resource
    import socket

    attempts = {
        "read a file": lambda: os.close(os.open("/etc/passwd", os.O_RDONLY)),
        "write a file": lambda: os.close(os.open(f"/tmp/ponder-seal-{os.getpid()}", os.O_CREAT | os.O_WRONLY)),
        "open a socket": lambda: socket.socket().close(),
        "start a process": lambda: os.fork() or os._exit(0),
        "signal its parent": lambda: os.kill(os.getppid(), 0),
        "raise its limits": lambda: resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2),
    }
    worked = []
    for name, attempt in attempts.items():
        try:
            attempt()
        except (OSError, ValueError):
            continue
        worked.append(name)
    return worked
