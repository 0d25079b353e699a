"""What the calls of a task must give, held to at every call of a task from a user's file, and by `check`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ponder.dialogue.messages import Voice
from ponder.sandbox.objects import described
from ponder.tasks.protocol import Demonstration, Fold, Problem
from ponder.types import InvalidRequest, PonderError, TaskError

_REQUIRED = {"sample": ("rng", "level"), "grade": ("problem", "answer"), "same": ("a", "b")}
_OPTIONAL = {
    "demonstrate": ("problem", "rng"),
    "demonstrate_council": ("problem", "rng", "voices"),
    "start": ("problem",),
    "show": ("problem", "rng"),
    "tries": ("problem", "reasoning"),
}


def check_methods(task: object, spec: str) -> None:
    """Raises InvalidRequest for an object that is not a task: what it lacks, or a method that cannot be called as the
    protocol calls it, with its place."""
    lacks = [name for name in ("name", *_REQUIRED) if not hasattr(task, name)]
    if lacks:
        raise InvalidRequest(
            f"{spec!r} is not a task: it needs name, sample, grade and same (ponder.tasks.protocol.Task), and lacks "
            + ", ".join(lacks)
        )
    name = task.name  # type: ignore[attr-defined]
    if not isinstance(name, str) or not name.strip() or not _is_unicode(name):
        raise InvalidRequest(f"{spec!r}: name must be a string that is not empty (got {name!r:.80})")
    for method, arguments in {**_REQUIRED, **_OPTIONAL}.items():
        if hasattr(task, method):
            _check_method(getattr(task, method), method, arguments, spec)


def _check_method(method: Any, name: str, arguments: Sequence[str], spec: str) -> None:
    where = place_of(method)
    wanted = f"{name}({', '.join(arguments)})"
    if not callable(method):
        raise InvalidRequest(f"{spec!r}: {name} must be a method (got {method!r:.80}): write {wanted}")
    if inspect.iscoroutinefunction(method) or inspect.isgeneratorfunction(method):
        raise InvalidRequest(f"{spec!r}: {name} gives no result by itself{where}: write it without async and yield")
    try:
        inspect.signature(method).bind(*arguments)
    except TypeError as error:
        why = f"{spec!r}: {name} cannot be called as {wanted}, {error}{where}: mend its arguments"
        raise InvalidRequest(why) from error
    except ValueError:  # written in C: it does not say
        return


def place_of(function: object) -> str:
    """The file and the line of a Python function, in parentheses; nothing where it has none."""
    code = getattr(function, "__code__", None)
    return f" ({code.co_filename}, line {code.co_firstlineno})" if code else ""


@contextmanager
def calling(task: str, call: str) -> Iterator[None]:
    """What the task's own code raises, as a TaskError with its place: it may raise anything."""
    try:
        yield
    except PonderError:
        raise
    except Exception as error:
        raise TaskError(f"task {task!r}: {call} raised {described(error)}") from error


def checked_problem(problem: object, task: str, call: str) -> Problem:
    """`problem`. Raises TaskError for what is not a Problem, or has fields of another type."""
    if not isinstance(problem, Problem):
        raise TaskError(f"task {task!r}: {call} must return a Problem (got {problem!r:.80})")
    for key in ("task", "question", "answer"):
        _check_text(getattr(problem, key), f"task {task!r}: {call}: the problem's {key}")
    if not isinstance(problem.metadata, Mapping):
        raise TaskError(f"task {task!r}: {call}: the problem's metadata must be a dict (got {problem.metadata!r:.80})")
    return problem


def checked_demonstration(shown: object, where: str) -> Demonstration:
    """`shown`. Raises TaskError for what is not a Demonstration, or has fields of another type."""
    if not isinstance(shown, Demonstration):
        raise TaskError(f"{where}: demonstrate must return a Demonstration (got {shown!r:.80})")
    folds = shown.folds if isinstance(shown.folds, tuple | list) else [shown.folds]
    if not all(isinstance(fold, Fold) for fold in folds):
        raise TaskError(f"{where}: the demonstration's folds must be a tuple of Folds (got {shown.folds!r:.80})")
    if not isinstance(shown.pieces, tuple | list):
        raise TaskError(f"{where}: the demonstration's pieces must be a tuple of strings (got {shown.pieces!r:.80})")
    if not isinstance(shown.voices, tuple | list) or not all(isinstance(voice, Voice) for voice in shown.voices):
        raise TaskError(f"{where}: the demonstration's voices must be a tuple of Voices (got {shown.voices!r:.80})")
    if (shown.opening and not shown.voices) or (shown.voices and shown.folds):
        raise TaskError(f"{where}: a demonstration with an opening has voices, and one with voices has no folds")
    texts = {"reasoning": shown.reasoning, "answer": shown.answer, "opening": shown.opening}
    texts |= {f"voice {number}": voice.text for number, voice in enumerate(shown.voices)}
    texts |= {f"piece {number}": piece for number, piece in enumerate(shown.pieces)}
    texts |= {f"thought {number}": fold.thought for number, fold in enumerate(folds)}
    texts |= {f"state {number}": fold.state for number, fold in enumerate(folds)}
    for key, text in texts.items():
        _check_text(text, f"{where}: the demonstration's {key}")
    if shown.pieces and "".join(shown.pieces) != shown.answer:
        joined = "".join(shown.pieces)
        raise TaskError(
            f"{where}: the demonstration's pieces must join to its answer {shown.answer!r} (got {joined!r})"
        )
    return shown


def _check_text(text: object, what: str) -> None:
    if not isinstance(text, str):
        raise TaskError(f"{what} must be a string (got {text!r:.80}, {type(text).__name__}): give str(…)")
    if not _is_unicode(text):
        raise TaskError(f"{what} holds half of a surrogate pair ({text!r:.80}): give text that UTF-8 can express")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
