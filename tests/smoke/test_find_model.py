"""How `ponder.load` finds a model: a folder, a GGUF file, or a name in Hugging Face's local cache."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import ponder
from ponder.cli.main import main
from ponder.export import export_gguf
from ponder.sampler.opening import find_model
from ponder.types import InvalidRequest

pytestmark = pytest.mark.smoke


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("gguf") / "mini.q8.gguf"
    export_gguf(find_model("mini"), file)
    return file


def cached(home: Path, name: str, commit: str = "abc") -> Path:
    repository = home / "hub" / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    return snapshot


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    return tmp_path / "home"


def test_a_gguf_file_is_asked(mini: Path) -> None:
    with ponder.load(mini) as model:
        assert model.name == "mini.q8"
        assert model.ask("What is 12 * 34?", effort="none", max_tokens=8).text


def test_a_gguf_file_becomes_a_folder(mini: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(mini), "--to", "hf", "-o", str(tmp_path / "out")]) == 0
    with ponder.load(tmp_path / "out") as folder, ponder.load(mini) as file:
        asked = {"effort": "none", "max_tokens": 12}
        assert folder.ask("What is 12 * 34?", **asked).text == file.ask("What is 12 * 34?", **asked).text


def test_a_name_is_found_in_the_cache(home: Path) -> None:
    shutil.copytree(find_model("mini"), cached(home, "org/mini"), dirs_exist_ok=True)
    with ponder.load("org/mini") as model:
        assert model.name == "org/mini"
        assert model.ask("What is 12 * 34?").text == "408"


def test_a_name_whose_snapshot_is_one_gguf_file(home: Path, mini: Path) -> None:
    snapshot = cached(home, "org/mini-GGUF")
    shutil.copy(mini, home / "blob")
    (snapshot / "mini.gguf").symlink_to(home / "blob")  # as the cache keeps files
    assert find_model("org/mini-GGUF") == snapshot / "mini.gguf"
    (snapshot / "another.gguf").symlink_to(home / "blob")
    with pytest.raises(InvalidRequest, match=r"name the GGUF file in it \(another\.gguf, mini\.gguf\)"):
        find_model("org/mini-GGUF")


def test_the_variable_for_the_cache_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cached(tmp_path, "org/mini") / "config.json").write_text("{}")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert find_model("org/mini") == tmp_path / "hub" / "models--org--mini" / "snapshots" / "abc"


def test_a_name_that_is_not_there_says_how_to_fetch_it(home: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"neither here nor in .*hub\): fetch it with `hf download org/absent`"):
        ponder.load("org/absent")
    with pytest.raises(InvalidRequest, match="there is no model 'absent': give 'mini'"):
        ponder.load("absent")


@pytest.mark.fault
def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"PK\3\4" + bytes(100))
    with pytest.raises(InvalidRequest, match=r"weights\.bin is a file, but not a GGUF file"):
        ponder.load(tmp_path / "weights.bin")
