"""What a stage learns from, by fingerprint: a run that is resumed notices that a file has changed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b, file_digest
from pathlib import Path

from ponder.train.loop.folder import write_atomically
from ponder.types import CheckpointError, DataError

_SHOWN = 5  # changes in an error


def refuse_changes(record: Path, files: Mapping[str, Sequence[Path]], stage: str) -> None:
    """Write down at `record` what the files hold; where it is written already, raise DataError for what has changed.

    files: what a stage learns from, by the names that errors use. stage: its name.
    """
    now = {name: _fingerprint(each) for name, each in files.items()}
    before = _recorded(record)
    if before is None:
        record.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(record, (json.dumps(now, indent=1) + "\n").encode())
        return
    changes = [
        *(f"{name} has changed" for name in before.keys() & now.keys() if before[name] != now[name]),
        *(f"{name} is gone" for name in before.keys() - now.keys()),
        *(f"{name} is new" for name in now.keys() - before.keys()),
    ]
    if changes:
        more = f" and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else ""
        raise DataError(
            f"{', '.join(sorted(changes)[:_SHOWN])}{more} since {stage} began: restore what it learned from, remove "
            f"{record.parent} to begin {stage} again, or remove {record} to go on with what is there now"
        )


def _recorded(record: Path) -> dict[str, str] | None:
    if not record.is_file():
        return None
    try:
        written = json.loads(record.read_bytes())
    except ValueError as error:
        raise CheckpointError(f"{record}: is not valid JSON ({error}): remove it") from error
    if not isinstance(written, dict):
        raise CheckpointError(f"{record}: is not a JSON object: remove it")
    return written


def _fingerprint(files: Sequence[Path]) -> str:
    digest = blake2b(digest_size=16)
    for file in files:
        with file.open("rb") as stream:
            digest.update(file_digest(stream, lambda: blake2b(digest_size=16)).digest())
    return digest.hexdigest()
