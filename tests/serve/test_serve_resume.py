"""A hundred streams, each cut somewhere and taken up again: the same bytes, none twice, none missing."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor

import httpx2
from live import serving

from ponder.serve import Served
from ponder.testing.script import Say
from ponder.testing.scripted import ScriptedSampler

STREAMS, WORDS = 100, 12


def script(conversation, index):
    return Say(" ".join(f"word{n}" for n in range(WORDS)), reasoning="hm hm", seconds=0.2)


def read(client: httpx2.Client, method: str, path: str, cuts: random.Random | None, **options: object) -> list[str]:
    """The data of a stream's events, up to its end or a random place of it."""
    events: list[str] = []
    most = cuts.randrange(1, WORDS) if cuts else 10**9
    with client.stream(method, path, **options) as response:
        assert response.status_code == 200
        for line in response.iter_lines():
            if line.startswith("data: "):
                events.append(line)
                if len(events) == most:
                    break
    return events


def test_a_hundred_streams_are_cut_and_taken_up_again() -> None:
    with serving([Served(name="said", sampler=ScriptedSampler(script))]) as live:

        def cut_again_and_again(number: int) -> None:
            cuts = random.Random(number)
            body = {"model": "said", "input": "go", "background": True, "stream": True}
            with httpx2.Client(base_url=live.url, timeout=60) as client:
                seen = read(client, "POST", "/responses", cuts, json=body)
                id = json.loads(seen[0][6:])["response"]["id"]
                while "response.completed" not in seen[-1]:
                    after = json.loads(seen[-1][6:])["sequence_number"]
                    query = {"stream": "true", "starting_after": after}
                    seen += read(client, "GET", f"/responses/{id}", cuts, params=query)
                assert seen == read(client, "GET", f"/responses/{id}", None, params={"stream": "true"})
            numbers = [json.loads(event[6:])["sequence_number"] for event in seen]
            assert numbers == list(range(len(seen)))

        with ThreadPoolExecutor(20) as pool:
            list(pool.map(cut_again_and_again, range(STREAMS)))
        assert not live.state.jobs._jobs
