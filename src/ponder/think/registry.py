"""Strategies by name: "direct", "consensus(samples=8, temperature=0.7)", or a function of yours, "file.py:make"."""

from __future__ import annotations

import ast
import difflib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from ponder.sampler.opening import shared_sampler
from ponder.sampler.protocol import Sampler
from ponder.sandbox.objects import load_object
from ponder.think import strategies
from ponder.think.ask import AskSettings, Judge
from ponder.think.strategy import Strategy
from ponder.types import InvalidRequest

# Where a function of another file is named: "path/to/file.py:make" or "module:make", and what it is called with.
OUTSIDE = re.compile(r"(?P<where>[^()]+?:[A-Za-z_][A-Za-z0-9_.]*)\s*(?P<call>\(.*\))?", re.DOTALL)


def strategy_names() -> list[str]:
    """The strategies of the package: a file each in `ponder.think.strategies`."""
    return sorted(module.name for module in pkgutil.iter_modules(strategies.__path__))


Models = Callable[[str], Sampler]


def parse_strategy(text: str, *, files: bool = True, models: Models = shared_sampler) -> Strategy:
    """The strategy that `text` calls for: a name, or a call whose arguments are plain values. Any setting of an ask may
    stand in it, and then holds for its samples.

    A strategy that takes another one has it first: "consensus(refine(samples=2), samples=8)"; one of a file stands
    there as a text: "consensus('file.py:make(n=2)')". Functions are named by their place, verifier='file.py:function',
    a model that verifies by its folder, verifier='reward:FOLDER' (or 'steps:', 'verdict:'), logic by 'logic' or
    'logic:FILE' with premises, other models by theirs, workers='mini'.
    files: whether functions outside the package may be named; not where the text comes from someone else.
    models: what the name of another model stands for. It raises InvalidRequest for one that may not be named.
    Raises InvalidRequest on an unknown strategy or argument (with a suggestion), a wrong type, or text that is not a
    call.
    """
    return _parse(text, Reading(text, files, models), MOST_NESTED)


MOST_NESTED = 8


@dataclass(frozen=True, slots=True)
class Reading:
    """The whole text, and what may be named in it; see `parse_strategy`."""

    whole: str
    files: bool
    models: Models


def _parse(text: str, reading: Reading, levels: int) -> Strategy:
    outside = OUTSIDE.fullmatch(text.strip())
    if outside is not None and reading.files:
        return _made(outside["where"], _tree("make" + (outside["call"] or "()"), reading.whole), reading, levels)
    tree = _tree(text.strip(), reading.whole)
    return _made(_name(tree, reading.whole), tree, reading, levels)


def _made(name: str, tree: ast.expr, reading: Reading, levels: int) -> Strategy:
    """The strategy of this name, made as the call says."""
    if not levels:
        raise InvalidRequest(f"{reading.whole[:80]!r} nests strategies more than {MOST_NESTED} deep: nest fewer")
    if ":" in name:
        make = load_object(name)
        if not callable(make):
            raise InvalidRequest(f"{name!r} is not a function that makes a strategy")
    elif name in strategy_names():
        make = getattr(import_module(f"{strategies.__name__}.{name}"), name)
    else:
        raise InvalidRequest(f"there is no strategy {name!r}: {_hint(name, strategy_names())}")
    made = make(**_checked(name, make, *_arguments(tree, reading, levels - 1), reading))
    if not isinstance(made, Strategy):
        raise InvalidRequest(f"{name!r} must return a strategy, with name, demand and stream (got {made!r})")
    return made


def _complaint(whole: str) -> InvalidRequest:
    return InvalidRequest(f"{whole!r} is not a strategy: write it like 'direct' or 'consensus(samples=8)'")


def _tree(text: str, whole: str) -> ast.expr:
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _complaint(whole) from None


def _name(tree: ast.expr, whole: str) -> str:
    called = tree.func if isinstance(tree, ast.Call) else tree
    if not isinstance(called, ast.Name):
        raise _complaint(whole)
    return called.id


def _arguments(tree: ast.expr, reading: Reading, levels: int) -> tuple[Strategy | None, dict[str, Any]]:
    """The strategy that a call has first, if it has one, and its keyword arguments, which are plain values."""
    whole = reading.whole
    if isinstance(tree, ast.Name):
        return None, {}
    if not isinstance(tree, ast.Call) or len(tree.args) > 1:
        raise _complaint(whole)
    inner = None
    for first in tree.args:
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            inner = _parse(first.value, reading, levels)
        else:
            inner = _made(_name(first, whole), first, reading, levels)
    arguments = {}
    for keyword in tree.keywords:
        if keyword.arg is None:
            raise _complaint(whole)
        try:
            arguments[keyword.arg] = ast.literal_eval(keyword.value)
        except (ValueError, TypeError, RecursionError, MemoryError):
            raise InvalidRequest(f"{whole!r}: {keyword.arg} must be a plain number or string") from None
    return inner, arguments


def _checked(
    name: str, make: Callable[..., object], inner: Strategy | None, arguments: dict[str, Any], reading: Reading
) -> dict[str, Any]:
    """The arguments, each of the type that the function says, or the ask's setting of its name."""
    signature = inspect.signature(make).parameters
    known = {key: hint for key, hint in get_type_hints(make).items() if key in signature}
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in signature.values()):
        known |= {key: hint for key, hint in SETTINGS.items() if key not in known}
    if inner is not None and INNER not in known:
        raise InvalidRequest(f"{name} takes no strategy inside it, and got {inner.name}: leave it out")
    for key, value in arguments.items():
        if key not in known or key == INNER:
            raise InvalidRequest(f"{name} has no argument {key!r}: {_hint(key, known)}")
        if key in FUNCTIONS:
            arguments = arguments | {key: _function(name, key, value, reading.files)}
            continue
        if key in MODELS:
            arguments = arguments | {key: _model(name, key, value, reading.models)}
            continue
        kinds = _plain(known[key])
        if isinstance(value, bool) != (kinds == (bool,)) or not isinstance(value, kinds):
            names = " or ".join(kind.__name__ for kind in kinds if kind is not int or float not in kinds)
            raise InvalidRequest(f"{name}: {key} must be {names} (got {value!r})")
    return arguments if inner is None else arguments | {INNER: inner}


INNER = "inner"  # the parameter of a strategy that takes another one
FUNCTIONS = ("verifier", "check")  # parameters that are functions, named by their place
MODELS = ("workers", "judge")  # parameters that are other models
VERIFIERS = ("reward", "steps", "verdict")  # before the folder of a model that is a verifier
LOGIC = "logic:"  # before the file of its premises


def _model(name: str, key: str, where: object, models: Models) -> Sampler | Judge:
    if key == "judge" and where == Judge.SELF:
        return Judge.SELF
    if not isinstance(where, str):
        raise InvalidRequest(f"{name}: {key} must be the name of a model (got {where!r})")
    return models(where)


def _function(name: str, key: str, where: object, files: bool) -> Any:
    """The function of a file that checks answers."""
    if not files or not isinstance(where, str):
        raise InvalidRequest(f"{name}: {key} must be a function of a file on the server's machine (got {where!r})")
    if key == "verifier" and where.partition(":")[0] in VERIFIERS:
        from ponder.tasks.verifiers import load_verifier

        return load_verifier(Path(where.partition(":")[2]))
    if key == "verifier" and (where == "logic" or where.startswith(LOGIC)):
        from ponder.tasks.prove.verifiers import LogicVerifier

        return LogicVerifier.load(where.removeprefix("logic").removeprefix(":"))
    found = load_object(where)
    if not callable(found):
        raise InvalidRequest(f"{where!r} is not a function that grades an answer")
    return found


def _plain(hint: object) -> tuple[type, ...]:
    """The types of which a value of this type can be written in a text."""
    if get_origin(hint) in (Union, UnionType):
        return tuple(dict.fromkeys(kind for each in get_args(hint) for kind in _plain(each)))
    if hint is float:
        return (int, float)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return (str,)
    return (cast(type, hint),) if hint in (bool, int, str) else ()


# What stands in an ask for its caller alone: how many answers, whose they are, how they are asked for, and how long the
# caller waits. The text of a strategy may come from an HTTP request.
OF_THE_CALLER = frozenset(
    [
        "n",
        "tenant",
        "start",
        "deadline",
        "policy",
        "truncation",
        "tool_choice",
        "parallel_calls",
        "next_turn",
        "logprobs",
        "top_logprobs",
    ]
)
SETTINGS: Mapping[str, object] = {
    key: hint
    for key, hint in get_type_hints(AskSettings).items()
    if key in FUNCTIONS or key in MODELS or (key not in OF_THE_CALLER and _plain(hint))
}


def _hint(name: str, names: Iterable[str]) -> str:
    names = list(names)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(names)}"
