"""The application's files: who gets them, with which headers, and that other sites' pages change nothing."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import httpx2 as httpx
import pytest
from live import Live, serving

from ponder.serve import Served, Settings
from ponder.serve.pages import FOLDER, POLICY, built_files
from ponder.testing.scripted import ScriptedSampler

BODY = {"model": "said", "messages": [{"role": "user", "content": "hi"}]}
CHAT = "/v1/chat/completions"
FRIEND = "https://friend.example"


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    served = Served(name="said", sampler=ScriptedSampler(lambda _, index: "Four."))
    with serving([served], Settings(cors=FRIEND)) as running:
        yield running


@pytest.fixture(scope="module")
def http(live: Live) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live.root) as client:
        yield client


def test_the_page_and_each_of_its_files_is_sent_under_the_policy(http: httpx.Client) -> None:
    assert http.get("/").content == (FOLDER / "index.html").read_bytes()
    for name, file in built_files().items():
        answer = http.get(f"/web/{name}")
        assert answer.content == file.body
        assert answer.headers["content-type"] == file.kind
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_every_built_file_is_of_a_kind_that_is_sent() -> None:
    assert {file.name for file in FOLDER.iterdir()} == set(built_files())


def test_a_file_is_asked_for_again_and_sent_only_where_it_changed(http: httpx.Client) -> None:
    first = http.get("/web/app.js")
    assert first.headers["cache-control"] == "no-cache"
    again = http.get("/web/app.js", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert http.get("/web/app.js", headers={"if-none-match": '"another"'}).status_code == 200


def test_a_browser_that_takes_gzip_gets_it(live: Live) -> None:
    with httpx.stream("GET", f"{live.root}/web/app.js", headers={"accept-encoding": "gzip"}) as answer:
        assert answer.headers["content-encoding"] == "gzip"
        assert gzip.decompress(b"".join(answer.iter_raw())) == built_files()["app.js"].body
    plain = httpx.get(f"{live.root}/web/app.js", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers


@pytest.mark.parametrize("name", ["x", "..%2fpages.py", "%2e%2e%2fpages.py", "index.html%00", "licenses", ""])
def test_nothing_beside_the_built_files_is_sent(http: httpx.Client, name: str) -> None:
    assert http.get(f"/web/{name}").status_code == 404


def test_without_keys_a_page_under_a_foreign_name_is_refused(http: httpx.Client) -> None:
    for path in ("/", "/web/app.js"):
        assert http.get(path, headers={"host": "evil.example"}).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:1", "sec-fetch-site": "same-origin"},
        {"origin": f"{FRIEND}.evil.example", "sec-fetch-site": "cross-site"},
    ],
)
def test_a_change_that_another_sites_page_asks_for_is_refused(http: httpx.Client, headers: dict[str, str]) -> None:
    answer = http.post(CHAT, json=BODY, headers=headers)
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "cross_site"


def test_the_page_itself_programs_and_friends_may_change_things(live: Live, http: httpx.Client) -> None:
    same = {"origin": live.root, "sec-fetch-site": "same-origin"}
    for headers in ({}, same, {"sec-fetch-site": "none"}, {"origin": FRIEND, "sec-fetch-site": "cross-site"}):
        assert http.post(CHAT, json=BODY, headers=headers).status_code == 200
    assert http.get("/v1/models", headers={"origin": "https://evil.example"}).status_code == 200  # nothing changes
