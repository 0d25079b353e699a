"""What the system does not take is said with the path, the reason and what to do, and nothing is left half written."""

import errno
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from ponder.model.checkpoint import atomic_file, atomic_folder, save_tensors
from ponder.model.storage import refusal, write_text, writing
from ponder.types import WriteError

pytestmark = pytest.mark.fault


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may be larger than a thousand bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, r"the disk is full \(No space left on device\): free some space\. Old is whole"),
        (errno.EDQUOT, r"the quota on this disk is used up \(Disk quota exceeded\): free some space, or ask"),
        (errno.EROFS, r"the file system is read-only"),
        (errno.EACCES, r"permission denied"),
    ],
)
def test_an_error_of_the_system_gets_words_and_the_path(number: int, words: str) -> None:
    with pytest.raises(WriteError, match=rf"/a/b: cannot be written, because {words}"), writing("/a/b", "Old is whole"):
        raise OSError(number, os.strerror(number))


def test_what_does_not_concern_the_file_is_passed_on() -> None:
    with pytest.raises(PermissionError), writing("/a/b"):
        raise PermissionError(errno.EACCES, "denied", "/elsewhere/c")
    with pytest.raises(FileNotFoundError), writing("/a/b"):
        raise FileNotFoundError(errno.ENOENT, "none", "/a/b")


def test_the_number_in_the_text_of_a_library_counts() -> None:
    assert "the disk is full" in str(refusal(SafetensorError("I/O error: No space left on device (os error 28)")))
    assert refusal(SafetensorError("another")) is None


@pytest.mark.usefixtures("small_files")
def test_what_does_not_fit_leaves_nothing_and_what_was_there_before(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old").write_text("old")
    (tmp_path / "file").write_text("old")

    def folder() -> None:
        with atomic_folder(tmp_path / "folder", replace=True) as temporary:
            save_tensors({"large": torch.zeros(1000)}, temporary / "model.safetensors")

    def file() -> None:
        with atomic_file(tmp_path / "file", replace=True) as stream:
            stream.write(b"x" * 2000)

    for write, name in ((folder, "folder"), (file, "file")):
        with pytest.raises(
            WriteError, match=rf"/{name}: cannot be written, .*larger than is allowed.*/{name} is as it"
        ):
            write()
    with pytest.raises(WriteError, match=r"report\.md: cannot be written"):
        write_text(tmp_path / "report.md", "x" * 2000)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "old"]
    assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "old").read_text() == "old"
