"""A client of `/v1/jobs`, for tests."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2 as httpx

from ponder.serve.http.auth import Keys

KEYS = Keys({name: hashlib.sha256(f"key-{name}".encode()).digest() for name in "ab"})


class Jobs:
    """Asks as one owner; "": without a key."""

    def __init__(self, root: str, owner: str) -> None:
        headers = {"authorization": f"Bearer key-{owner}"} if owner else {}
        self.http = httpx.Client(base_url=root, headers=headers, timeout=60)

    def get(self, path: str = "", **query: Any) -> dict:
        answer = self.http.get(f"/v1/jobs{path}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str = "", body: dict | None = None, status: int = 200) -> dict:
        answer = self.http.post(f"/v1/jobs{path}", json=body or {})
        assert answer.status_code == status, answer.text
        return answer.json()

    def hand_over(self, *texts: str, **more: Any) -> list[dict]:
        defaults = {"model": "said", **more.pop("defaults", {})}
        return self.post(body={"defaults": defaults, "jobs": [{"input": each} for each in texts], **more})["data"]

    def until(self, id: str, *states: str) -> dict:
        """The job, when it is in one of these states."""
        for _ in range(600):
            job = self.get(f"/{id}")
            if job["state"] in states:
                return job
            time.sleep(0.02)
        raise AssertionError(f"the job stayed {job['state']}: {job}")

    def events(self, after: int | None = None) -> Iterator[dict]:
        """The events of the feed, each with its `event` and `id`."""
        query = {} if after is None else {"after": after}
        with self.http.stream("GET", "/v1/jobs/events", params=query) as answer:
            event: dict[str, Any] = {}
            for line in answer.iter_lines():
                if line.startswith(":"):
                    continue
                if not line:
                    yield event
                    event = {}
                    continue
                name, _, value = line.partition(": ")
                event[name] = json.loads(value) if name == "data" else value


@contextmanager
def cleared(root: str) -> Iterator[Jobs]:
    """A client of owner "a", whose jobs are deleted in the end."""
    client = Jobs(root, "a")
    with client.http:
        yield client
        ids = [job["id"] for job in client.get(limit=200)["data"]]
        if ids:
            client.post("/actions", {"action": "delete", "ids": ids, "expected_count": len(ids)})
