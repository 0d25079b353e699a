"""The rankings that a server keeps: a folder for each owner, and in it the two files of `ponder rank` for each."""

from __future__ import annotations

import threading
from pathlib import Path
from tempfile import TemporaryDirectory

from ponder.evaluate.rank import AnswerFile, Session
from ponder.serve.errors import BadRequest, NotFound
from ponder.types import DataError

MOST_BYTES = 128 << 20  # of a file
ANSWERS = ".answers.jsonl"


class RankingFiles:
    """FOLDER/OWNER/NAME.jsonl holds judgements, FOLDER/OWNER/NAME.answers.jsonl the answers.

    root: None: a temporary folder, removed when the server stops.
    lock: held while something is written: what was shown must still be what is judged.
    """

    def __init__(self, root: Path | None) -> None:
        self._root = root
        self._temporary: TemporaryDirectory[str] | None = None
        self.kept = root is not None
        self.lock = threading.Lock()
        self._making = threading.Lock()  # of the temporary folder, made when it is first needed

    def close(self) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()

    def judgements(self, owner: str, name: str) -> Path:
        return self._folder(owner) / f"{name}.jsonl"

    def answers_path(self, owner: str, name: str) -> Path:
        return self._folder(owner) / f"{name}{ANSWERS}"

    def names(self, owner: str) -> list[str]:
        return sorted(path.name.removesuffix(ANSWERS) for path in self._folder(owner).glob(f"*{ANSWERS}"))

    def answers(self, owner: str, name: str) -> AnswerFile:
        """Raises NotFound, BadRequest."""
        path = self.answers_path(owner, name)
        if not path.is_file():
            raise NotFound(f"there is no ranking {name!r}: add answers to it first", param="name")
        return read_answers(path)

    def session(self, owner: str, name: str, rater: str) -> Session:
        """Raises NotFound, BadRequest."""
        sets = self.answers(owner, name).sets
        try:
            return Session(self.judgements(owner, name), sets, rater=rater)
        except DataError as error:
            raise BadRequest(without_folder(error)) from None

    def _folder(self, owner: str) -> Path:
        if not owner.strip("."):  # the names of keys may be made of points
            raise BadRequest(f"the key's name {owner!r} cannot be the name of a folder: use another key")
        with self._making:
            if self._root is None:
                self._temporary = TemporaryDirectory(prefix="ponder-rankings-")
                self._root = Path(self._temporary.name)
            return self._root / owner


def read_answers(path: Path) -> AnswerFile:
    """Raises BadRequest."""
    try:
        return AnswerFile(path)
    except DataError as error:
        raise BadRequest(without_folder(error)) from None


def without_folder(error: DataError) -> str:
    """The text of an error of a file, without the folder of the file, which clients need not know."""
    return str(error).rpartition("/")[2]


def check_file_room(path: Path) -> None:
    """Raises BadRequest where a file holds as much as one may."""
    if path.is_file() and path.stat().st_size > MOST_BYTES:
        raise BadRequest(f"this ranking holds more than {MOST_BYTES >> 20} MiB: begin another one")
