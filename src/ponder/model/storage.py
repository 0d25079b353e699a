"""Plain words for a file system that takes no more: what could not be written, why, and what is still whole."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from ponder.types import WriteError

_REASONS = {
    errno.ENOSPC: ("the disk is full", "free some space"),
    errno.EDQUOT: ("the quota on this disk is used up", "free some space, or ask for more"),
    errno.EFBIG: (
        "the file would be larger than is allowed here",
        "raise the limit (`ulimit -f`), or write to another disk",
    ),
    errno.EROFS: ("the file system is read-only", "write to another place"),
    errno.EACCES: ("permission denied", "write to another place, or change the permissions"),
    errno.EPERM: ("permission denied", "write to another place, or change the permissions"),
    errno.EIO: ("the disk failed", "write to another disk"),
}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NUMBER = re.compile(r"os error (\d+)")  # in the texts of libraries that are written in Rust


@contextmanager
def writing(path: str | Path, whole: str = "") -> Iterator[None]:
    """Raises WriteError where the system takes no more while the block writes to `path`.

    whole: what is still whole and usable then, as a sentence.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        text = refusal(error)
        if text is None or not _concerns(error, Path(os.path.abspath(path))):
            raise
        raise WriteError(f"{path}: cannot be written, because {text}" + (f". {whole}" if whole else "")) from error


def refusal(error: OSError | SafetensorError) -> str | None:
    """Why the system takes no more, and what to do; None for another kind of error."""
    number = _number(error)
    if number not in _REASONS:
        return None
    why, remedy = _REASONS[number]
    return f"{why} ({os.strerror(number)}): {remedy}"


def _concerns(error: OSError | SafetensorError, path: Path) -> bool:
    """Whether the file that an error names, if it names one, is that which is written, or a folder on the way to it."""
    if not isinstance(error, OSError) or not isinstance(error.filename, str | os.PathLike):
        return True
    named = Path(os.path.abspath(error.filename))
    return named.is_relative_to(path.parent) or path.is_relative_to(named)


def _number(error: OSError | SafetensorError) -> int | None:
    """The system's number of an error, which safetensors gives in its text alone."""
    if isinstance(error, OSError):
        return error.errno
    found = _NUMBER.search(str(error))
    return int(found[1]) if found else None


def write_text(file: Path, text: str) -> None:
    """Write a file in UTF-8, and the folders on the way to it. Raises WriteError; a full disk leaves no half of it."""
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            file.write_text(text, encoding="utf-8")
        except OSError as error:
            if error.errno in _FULL:
                file.unlink(missing_ok=True)
            raise
