"""What a server is started with: flags over `PONDER_*` variables over a TOML file over the defaults here."""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from ponder.types import InvalidRequest

PREFIX = "PONDER_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a server is started with.

    host, port: the address to listen on.
    keys: file of API keys (`ponder serve --new-key`); empty: every request from this machine is answered.
    store: file that keeps responses and conversations; empty: a temporary one, deleted when the server stops.
    memory: file that keeps the notes of each owner; empty: none are kept.
    runs: folder whose training runs are shown, to every key; empty: none are.
    rankings: folder that keeps answers and how people rank them; empty: a temporary one, deleted when the server stops.
    queued_requests, queued_tokens: most requests that wait, and most tokens of theirs; more are refused with 429.
    deadline: seconds that one request may take; 0: no limit.
    drain: seconds that a shutdown waits for running requests.
    coalesce: milliseconds over which streamed text is gathered into one event.
    store_days: days that a response is kept, and a conversation after its last item; 0: for ever.
    cors: origins, separated by commas, whose web pages may use this server from a browser; "*": all; empty: none.
    root_path: what a proxy puts before each path, such as "/ponder".
    keep_alive: seconds for which a connection without a request stays open; longer than the pools of clients keep it.
    body: bytes of the longest request body.
    samples: most answers that one request may ask for, as `n` or by a strategy.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    keys: str = ""
    store: str = ""
    memory: str = ""
    runs: str = ""
    rankings: str = ""
    queued_requests: int = 256
    queued_tokens: int = 1_000_000
    deadline: float = 0.0
    drain: float = 30.0
    coalesce: float = 20.0
    store_days: float = 30.0
    cors: str = ""
    root_path: str = ""
    keep_alive: float = 120.0
    body: int = 8 * 1024 * 1024
    samples: int = 64

    def __post_init__(self) -> None:
        for name in _RANGES:
            check_range(name, getattr(self, name), name)
        if not self.keys and "*" in self.origins:
            raise InvalidRequest(
                "cors is '*' and there are no keys, so any web page could use this server: name the allowed "
                "origins, or add keys"
            )
        if not self.keys and not is_loopback(self.host):
            raise InvalidRequest(
                f"host {self.host} can be reached from other machines, and there are no keys: make one "
                "with `ponder serve --new-key NAME --keys FILE`, or listen on 127.0.0.1"
            )

    @property
    def origins(self) -> tuple[str, ...]:
        """Those of `cors`, as browsers write them."""
        return tuple(each.strip().rstrip("/") for each in self.cors.split(",") if each.strip())


_RANGES = {
    "port": (0, 65535),
    "queued_requests": (0, 100_000),
    "queued_tokens": (0, 1_000_000_000),
    "deadline": (0, 86_400),
    "drain": (0, 3_600),
    "coalesce": (0, 1_000),
    "store_days": (0, 36_500),
    "keep_alive": (1, 86_400),
    "body": (1_024, 1 << 30),
    "samples": (1, 1_024),
}
_OTHERS = frozenset({"API_KEY", "CACHE", "MAX_ISA"})  # variables of other parts of Ponder


def check_range(name: str, value: Any, where: str) -> None:
    """Raises InvalidRequest.

    where: what the value was set by.
    """
    low, high = _RANGES.get(name, (value, value))
    if not low <= value <= high:
        raise InvalidRequest(f"{where} must be from {low} to {high} (got {value})")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def read_settings(file: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any]) -> Settings:
    """Merge the settings.

    Raises InvalidRequest with a suggestion for an unknown key of the file and for a misspelt variable. A value out of
    range is named by where it was set.

    environment: `PONDER_PORT` sets `port`, and so on; other variables are ignored.
    flags: None leaves a setting as it is.
    """
    _check_variables(environment)
    kinds = {name: kind for name, kind in get_type_hints(Settings).items() if name in _NAMES}
    said: dict[str, Any] = {}
    if file is not None:
        said |= _read_file(file, kinds)
        for name, value in said.items():
            check_range(name, value, f"{file}: {name}")
    for name, kind in kinds.items():
        variable = PREFIX + name.upper()
        if variable in environment:
            said[name] = _number_or_text(variable, environment[variable], kind)
            check_range(name, said[name], variable)
    said |= {name: value for name, value in flags.items() if value is not None}
    return Settings(**said)


def _check_variables(environment: Mapping[str, str]) -> None:
    """Raises InvalidRequest for a misspelt variable, which would be ignored without a word."""
    for variable in environment:
        name = variable.removeprefix(PREFIX)
        if variable.startswith(PREFIX) and name.lower() not in _NAMES and name not in _OTHERS:
            close = difflib.get_close_matches(name.lower(), _NAMES, 1, cutoff=0.7)
            if close:
                raise InvalidRequest(f"there is no variable {variable}: did you mean {PREFIX}{close[0].upper()}?")


_NAMES = frozenset(field.name for field in dataclasses.fields(Settings))


def _read_file(file: Path, kinds: Mapping[str, type]) -> dict[str, Any]:
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidRequest(f"{file}: {error}") from None
    for name, value in found.items():
        if name not in kinds:
            close = difflib.get_close_matches(name, kinds, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(kinds))}"
            raise InvalidRequest(f"{file}: there is no setting {name!r}; {hint}")
        wanted = (int, float) if kinds[name] is float else kinds[name]
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise InvalidRequest(f"{file}: {name} must be of type {kinds[name].__name__} (got {value!r})")
    return found


def _number_or_text(variable: str, text: str, kind: type) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise InvalidRequest(f"{variable} must be of type {kind.__name__} (got {text!r})") from None
