"""Where a setting comes from, and what is told of one that cannot be."""

from pathlib import Path

import pytest

from ponder.serve.settings import Settings, read_settings
from ponder.types import InvalidRequest


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "ponder.toml"
    path.write_text('port = 1\ndrain = 2\ndeadline = 3.5\nstore = "kept"\n')
    return path


def test_flags_win_over_variables_over_the_file_over_the_defaults(file: Path) -> None:
    environment = {"PONDER_PORT": "10", "PONDER_DRAIN": "20"}
    settings = read_settings(file, environment, {"port": 100, "drain": None, "host": None})
    assert (settings.port, settings.drain, settings.deadline, settings.store) == (100, 20.0, 3.5, "kept")
    assert settings.samples == Settings().samples
    assert read_settings(None, {}, {}) == Settings()


def test_a_flag_of_zero_is_said(file: Path) -> None:
    assert read_settings(file, {}, {"port": 0, "deadline": 0.0}).deadline == 0.0


def test_other_variables_are_none_of_ours() -> None:
    environment = {"PONDER_API_KEY": "x", "PONDER_CACHE": "x", "PONDER_MAX_ISA": "x", "PONDER_THE_QUESTION": "x"}
    assert read_settings(None, {**environment, "PORT": "x", "HOST": "0.0.0.0", "ponder_port": "x"}, {}) == Settings()


@pytest.mark.parametrize(
    ("variable", "meant"),
    [("PONDER_PROT", "PORT"), ("PONDER_KEY", "KEYS"), ("PONDER_HOSTS", "HOST"), ("PONDER_QUEUED_REQUEST", "REQUESTS")],
)
def test_a_misspelt_variable_is_named(variable: str, meant: str) -> None:
    """A server whose PONDER_KEY=… is not read would run without keys."""
    with pytest.raises(InvalidRequest, match=f"{variable}.*{meant}"):
        read_settings(None, {variable: "1"}, {})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("prot = 1", "prot.*port"),
        ("[serve]\nport = 1", "serve"),
        ('port = "1"', "port must be of type int.*'1'"),
        ("port = 1.5", "port.*int"),
        ("port = true", "port.*int"),
        ("port = 99999", "port must be .*65535.*99999"),
        ("deadline = nan", "deadline must be .*got nan"),
        ("deadline = inf", "deadline must be .*got inf"),
        ("samples = 0", "samples must be .*got 0"),
        ("port = 1\nport = 2", ""),
        ("port", ""),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_name(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "odd.toml"
    path.write_text(text)
    with pytest.raises(InvalidRequest, match=rf"(?s)odd\.toml.*{told}"):
        read_settings(path, {}, {})


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(InvalidRequest, match=str(path)):
            read_settings(path, {}, {})
    (tmp_path / "b.toml").write_bytes(b"\xff")
    with pytest.raises(InvalidRequest, match=r"b\.toml"):
        read_settings(tmp_path / "b.toml", {}, {})


@pytest.mark.parametrize("value", ["x", "", "1.5", "99999", "-1", "0x10"])
def test_a_variable_that_is_no_port_is_named(value: str) -> None:
    with pytest.raises(InvalidRequest, match="PONDER_PORT"):
        read_settings(None, {"PONDER_PORT": value}, {})


def test_a_public_address_from_anywhere_needs_keys(file: Path) -> None:
    for environment, flags in (({"PONDER_HOST": "0.0.0.0"}, {}), ({}, {"host": "0.0.0.0"})):
        with pytest.raises(InvalidRequest, match="no keys"):
            read_settings(file, environment, flags)
        assert read_settings(file, {**environment, "PONDER_KEYS": "keys"}, flags).keys == "keys"
