"""Who may ask: every route × no key, wrong key, a key with something about it × both headers."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

import httpx2 as httpx
import pytest
from live import Live, serving

from ponder.serve import Served, Settings, create_app
from ponder.serve.http.auth import Keys, is_local, new_key
from ponder.testing.scripted import ScriptedSampler
from ponder.types import InvalidRequest

KEY, OTHER = "sk-ponder-of-a", "sk-ponder-of-b"
KEYS = Keys({name: hashlib.sha256(key.encode()).digest() for name, key in (("a", KEY), ("b", OTHER))})
OPEN = ("/health", "/health/", "/health%2f")  # one path: a slash at the end says nothing
FILES = ("/", "/web/x", "/web/app.js")  # of the application, which a browser loads before it has a key
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


def _served() -> list[Served]:
    return [Served(name="said", sampler=ScriptedSampler(lambda _, index: "Four."))]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    memory = str(tmp_path_factory.mktemp("memory") / "notes.db")
    with serving(_served(), Settings(memory=memory), KEYS) as running:
        yield running


@pytest.fixture(scope="module")
def http(live: Live) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live.root) as client:
        yield client


def _paths(routes: Iterable[object]) -> Iterator[str]:
    """Every path of an application, its parameters filled in."""
    for route in routes:
        inside = getattr(route, "original_router", None) or getattr(route, "app", None)
        if hasattr(route, "path"):
            yield re.sub(r"{[^}]*}", "x", route.path)
        elif hasattr(inside, "routes"):
            yield from _paths(inside.routes)
        else:
            raise AssertionError(f"a route of an unknown kind: {route}")


ROUTES = sorted(set(_paths(create_app(_served()).routes)))
UNKNOWN = ["/nothing", "/v1", "/v2/chat/completions", "/x//health", "/health/", "/HEALTH", "/health;x", "/docs"]
UNKNOWN += ["/web", "/web/app.js/x", "/web/../v1/models"]
UNKNOWN += ["/v1/../health/x", "/%2e%2e/health", "/health%00", "/health%2f", "/%2fhealth", "/redoc", "/v1//models"]
BAD = {
    "no key": {},
    "an empty key": {"authorization": "Bearer", "x-api-key": ""},
    "a wrong key": {"authorization": "Bearer sk-ponder-of-c"},
    "a wrong key in the other header": {"x-api-key": "sk-ponder-of-c"},
    "another scheme": {"authorization": f"Basic {KEY}"},
    "the beginning of a key": {"x-api-key": KEY[:-1]},
    "a key and more": {"x-api-key": KEY + "x"},
    "a digest": {"x-api-key": hashlib.sha256(KEY.encode()).hexdigest()},
    "two users' keys": {"authorization": f"Bearer {KEY}", "x-api-key": OTHER},
    "a long key": {"x-api-key": "x" * 20_000},
    "a key that is no ASCII": {"x-api-key": b"\xff\xfe"},
    "a name for a key": {"x-api-key": "a"},
}


def test_the_routes_are_all_seen() -> None:
    assert {"/health", "/metrics", "/openapi.json", "/ready", "/web/x", "/v1/chat/completions"} <= set(ROUTES)
    assert {"/", "/v1/models/x"} <= set(ROUTES)
    assert len(ROUTES) >= len(create_app(_served()).openapi()["paths"])


@pytest.mark.parametrize("path", [*ROUTES, *UNKNOWN])
def test_nobody_gets_in_without_a_key(http: httpx.Client, path: str) -> None:
    for what, headers in list(BAD.items())[: len(BAD) if path in ROUTES else 3]:
        for method in METHODS:
            answer = http.request(method, path, headers=headers)
            if path in OPEN:
                assert answer.status_code == (200 if method in ("GET", "HEAD") else 405)
                continue
            if path in FILES and method in ("GET", "HEAD"):
                assert answer.status_code == (404 if path.endswith("x") else 200)
                continue
            assert answer.status_code == 401, (what, method)
            assert answer.headers["www-authenticate"] == "Bearer"
            assert method == "HEAD" or answer.json()["error"]["code"] == "invalid_api_key"


def test_a_body_is_not_read_before_it_is_known_who_asks(live: Live) -> None:
    with socket.create_connection(("127.0.0.1", live.port), 10) as wire:
        wire.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000000\r\n\r\n")
        assert wire.recv(100).startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize("key", [KEY, OTHER])
def test_both_headers_are_keys(http: httpx.Client, key: str) -> None:
    ways = {"authorization": f"Bearer {key}"}, {"authorization": f"bearer  {key}"}, {"x-api-key": key}
    for headers in (*ways, {"x-api-key": key, "authorization": f"Bearer {key}"}):
        assert http.get("/v1/models", headers=headers).status_code == 200


def test_with_a_key_what_is_not_there_is_404_and_a_wrong_method_405(http: httpx.Client) -> None:
    headers = {"x-api-key": KEY}
    for path in set(UNKNOWN) - set(OPEN) - {"/web/../v1/models"}:
        assert http.get(path, headers=headers).status_code == 404, path
    for path in ROUTES:
        for method in ("TRACE", "PATCH"):
            answer = http.request(method, path, headers=headers)
            assert answer.status_code == 405
            assert answer.headers["allow"]
            assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_repeated_header_with_another_key_is_refused(http: httpx.Client) -> None:
    for name in ("x-api-key", "authorization"):
        said = [(name, key if name == "x-api-key" else f"Bearer {key}") for key in (KEY, OTHER)]
        assert http.get("/v1/models", headers=said).status_code == 401


def test_keys_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr(hmac, "compare_digest", lambda one, other: compared.append((one, other)) or one == other)
    assert KEYS.owner(KEY) == "a"
    assert len(compared) == 2  # the second is compared although the first was it
    assert KEYS.owner("") is None


@pytest.mark.parametrize(
    "head",
    [
        "GET /v1/models HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
        "GET /health HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n",
    ],
)
def test_nothing_is_upgraded(live: Live, head: str) -> None:
    more = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    with socket.create_connection(("127.0.0.1", live.port), 10) as wire:
        wire.sendall((head + more).encode())
        assert wire.recv(12) in (b"HTTP/1.1 401", b"HTTP/1.1 200")


# Another user's objects -----------------------------------------------------------------------------------------------


ACTIONS = {
    "steer": {"text": "by b"},
    "answer": {"need": "need_1"},
    "extend": {"tokens": 1},
    "branch": {"place": 0, "token": 1},
}


def _stored(http: httpx.Client) -> dict[str, str]:
    """Objects of user a, by the names that paths have for their ids."""
    mine = {"x-api-key": KEY}
    items = [{"role": "user", "content": "hidden from b"}]
    conversation = http.post("/v1/conversations", json={"items": items}, headers=mine).json()["id"]
    item = http.get(f"/v1/conversations/{conversation}/items", headers=mine).json()["data"][0]["id"]
    answer = http.post("/v1/responses", json={"model": "said", "input": "q", "background": True}, headers=mine)
    note = http.post("/v1/memory/notes", json={"text": "hidden from b"}, headers=mine).json()["id"]
    job = {"jobs": [{"model": "said", "input": "hidden from b"}]}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": job["jobs"][0]}
    file = http.post(
        "/v1/files", data={"purpose": "batch"}, files={"file": ("a.jsonl", json.dumps(line).encode())}, headers=mine
    ).json()["id"]
    batch = {"input_file_id": file, "endpoint": "/v1/responses", "completion_window": "24h"}
    return {
        "job_id": http.post("/v1/jobs", json=job, headers=mine).json()["data"][0]["id"],
        "file_id": file,
        "batch_id": http.post("/v1/batches", json=batch, headers=mine).json()["id"],
        "response_id": answer.json()["id"],
        "conversation_id": conversation,
        "item_id": item,
        "note_id": str(note),
        "model": "said",
    }


def test_another_users_objects_are_not_there(live: Live, http: httpx.Client) -> None:
    """Every operation on an id, whatever it does: for b an object of a is as one that never was."""
    ids = _stored(http)
    seen = 0
    for path, methods in live.app.openapi()["paths"].items():
        for method in methods:
            names = re.findall(r"{(\w+)}", path)
            if not names or names in (["model"], ["name"]):
                continue  # a ranking is called by its owner: another's of the same name is another (test_rankings.py)
            seen += 1
            bodies = {"conversations": {"metadata": {}}, "items": {"items": [{"role": "user", "content": "by b"}]}}
            body = bodies["items" if path.endswith("/items") else "conversations"] if method == "post" else None
            body = None if path.endswith("/cancel") else body
            if names == ["job_id"] and method == "post":
                body = ACTIONS.get(path.rpartition("/")[2], {})
            theirs = http.request(method, path.format(**ids), headers={"x-api-key": OTHER}, json=body)
            none = {name: re.sub("[0-9a-f]", "0", id) for name, id in ids.items()} | {"note_id": "999999"}
            never = http.request(method, path.format(**none), headers={"x-api-key": OTHER}, json=body)
            assert theirs.status_code == never.status_code == 404, (method, path, theirs.text)
            assert theirs.json()["error"]["code"] == never.json()["error"]["code"]
            assert "hidden from b" not in theirs.text
    assert seen >= 10
    mine = {"x-api-key": KEY}
    assert http.get(f"/v1/responses/{ids['response_id']}", headers=mine).status_code == 200
    assert len(http.get(f"/v1/conversations/{ids['conversation_id']}/items", headers=mine).json()["data"]) == 1


def test_another_users_objects_are_no_context(http: httpx.Client) -> None:
    ids = _stored(http)
    for more in ({"previous_response_id": ids["response_id"]}, {"conversation": ids["conversation_id"]}):
        body = {"model": "said", "input": "q", **more}
        assert http.post("/v1/responses", json=body, headers={"x-api-key": OTHER}).status_code == 404


# Without keys ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000", "127.8.8.8"])
def test_without_keys_this_machine_is_answered(host: str) -> None:
    for client in (("127.0.0.1", 1), ("::1", 1), None):
        assert is_local({"type": "http", "client": client, "headers": [(b"host", host.encode())]})


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "0.0.0.0", "169.254.169.254", "::1"],
)
def test_without_keys_no_other_name_is_answered(host: str) -> None:
    """A page of evil.example whose name points to this machine is of the same origin for a browser."""
    assert not is_local({"type": "http", "client": ("127.0.0.1", 1), "headers": [(b"host", host.encode())]})


def test_without_keys_no_other_machine_is_answered() -> None:
    for client in ("192.168.1.5", "8.8.8.8", "::ffff:8.8.8.8", "fe80::1"):
        assert not is_local({"type": "http", "client": (client, 1), "headers": [(b"host", b"localhost")]})


def test_without_keys_a_page_of_elsewhere_gets_nowhere() -> None:
    with serving(_served()) as live, httpx.Client(base_url=live.root) as http:
        assert http.get("/v1/models").status_code == 200
        assert http.get("/v1/models", headers={"host": "evil.example"}).status_code == 403
        assert http.get("/v1/models", headers={"x-forwarded-for": "8.8.8.8"}).status_code == 403
        body = b'{"model": "said", "messages": [{"role": "user", "content": "hi"}]}'
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
            answer = http.post("/v1/chat/completions", content=body, headers={"content-type": kind})
            assert answer.status_code == 415  # what a browser sends without asking first
        asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
        answer = http.options("/v1/chat/completions", headers=asked)
        assert answer.status_code == 405
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com", ""])
def test_a_public_address_needs_keys(host: str) -> None:
    with pytest.raises(InvalidRequest, match="no keys"):
        Settings(host=host)
    Settings(host=host, keys="keys")


def test_the_keys_of_the_settings_are_used_by_whoever_makes_the_application(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    new_key("a", file)
    with serving(_served(), Settings(keys=str(file))) as live, httpx.Client(base_url=live.root) as http:
        assert http.get("/v1/models").status_code == 401


# The file -------------------------------------------------------------------------------------------------------------


def test_the_file_holds_hashes_and_is_its_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    key = new_key("a", file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert key not in file.read_text()
    assert key.removeprefix("sk-ponder-") not in file.read_text()
    assert Keys.load(file).owner(key) == "a"
    assert len(key) > 50


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_file_that_others_may_open_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "keys"
    new_key("a", file)
    file.chmod(mode)
    with pytest.raises(InvalidRequest, match="chmod 600"):
        Keys.load(file)
    with pytest.raises(InvalidRequest, match="chmod 600"):
        new_key("b", file)


def test_keys_are_added_to_a_file_that_is_empty_or_lacks_its_last_line_break(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.touch(0o600)
    first = new_key("a", file)
    file.write_text(file.read_text().rstrip("\n"))
    second = new_key("b", file)
    keys = Keys.load(file)
    assert (keys.owner(first), keys.owner(second)) == ("a", "b")
    with pytest.raises(InvalidRequest, match="already"):
        new_key("a", file)


def test_a_line_that_is_taken_out_ends_its_requests_and_its_streams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ponder.serve.http.auth.LOOK", 0.0)
    monkeypatch.setattr("ponder.serve.http.exchange.KEY_CHECK", 0.05)
    file = tmp_path / "keys"
    first, second = new_key("a", file), new_key("b", file)
    lines = file.read_text().splitlines()
    with serving(_served(), keys=Keys.load(file)) as live, httpx.Client(base_url=live.root, timeout=60) as http:
        given = {name: {"authorization": f"Bearer {key}"} for name, key in (("a", first), ("b", second))}
        with http.stream("GET", "/v1/jobs/events", headers=given["a"]) as stream:
            pieces = stream.iter_lines()
            assert next(pieces).startswith("id: ")
            file.write_text(f"{lines[1]}\n")
            end = [line for line in pieces if line.startswith("data: ")][-1]
        assert json.loads(end.removeprefix("data: "))["error"]["code"] == "invalid_api_key"
        assert [http.get("/v1/models", headers=given[name]).status_code for name in "ab"] == [401, 200]
        file.write_text("broken\n")
        assert http.get("/v1/models", headers=given["b"]).status_code == 401, "nobody is let in by a broken file"
        file.write_text(f"{lines[0]}\n")
        assert http.get("/v1/models", headers=given["a"]).status_code == 200


@pytest.mark.parametrize(
    "line", ["a", "a:00", "a b:" + "0" * 64, ":" + "0" * 64, "a:" + "0" * 64 + "x", "ä:" + "0" * 64]
)
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "keys"
    file.touch(0o600)
    file.write_text(f"ok:{'1' * 64}\n{line}\n")
    with pytest.raises(InvalidRequest, match="keys"):
        Keys.load(file)
