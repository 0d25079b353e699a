"""A look inside the model that answered a job: the very tokens that were sampled, and another in the place of one."""

from __future__ import annotations

import asyncio
import base64
import json
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from job_client import KEYS, Jobs, cleared
from live import Live, serving

import ponder
from ponder.dialogue.messages import Message, Part, Reasoning, Text
from ponder.sampler.protocol import Sampler
from ponder.serve import Served, Settings
from ponder.serve.answering import DIRECT, ServedAsk
from ponder.serve.jobs.lens import answered_contexts
from ponder.serve.responses.convert import vocabulary_of
from ponder.serve.responses.objects import write_parts
from ponder.serve.responses.turn import ResponseTurn
from ponder.serve.responses.wire import ResponseRequest
from ponder.serve.store import StoredItem
from ponder.testing.scripted import Say, ScriptedSampler
from ponder.testing.tiny import ByteTokenizer, tiny_sampler
from ponder.think.ask import Ask
from ponder.types import Phase, Segment

QUESTION = "What is 48 * 73?"
TYPES = {"f4": np.float32, "u1": np.uint8, "i4": np.int32}


def script(conversation, index):
    return Say("said", reasoning="hm", seconds=30 if conversation[-1].text == "slow" else 0)


@pytest.fixture(scope="module")
def mini() -> Iterator[Sampler]:
    with ponder.load("mini") as model:
        yield model.sampler


@pytest.fixture(scope="module")
def live(mini: Sampler) -> Iterator[Live]:
    served = [Served(name="mini", sampler=mini), Served(name="said", sampler=ScriptedSampler(script))]
    with serving(served, Settings(drain=0.2), KEYS) as running:
        yield running


@pytest.fixture
def jobs(live: Live) -> Iterator[Jobs]:
    with cleared(live.root) as client:
        yield client


def done(jobs: Jobs, text: str = QUESTION, **more: object) -> str:
    (job,) = jobs.hand_over(text, defaults={"model": "mini", **more})
    jobs.until(job["id"], "completed", "incomplete", "needs_input")
    return job["id"]


def column(stored: dict) -> np.ndarray:
    data = zlib.decompress(base64.b64decode(stored["data"]))
    return np.frombuffer(data, TYPES[stored["type"]]).reshape(stored["shape"])


def sampled(mini: Sampler, **settings: object) -> Segment:
    request = Ask.of(QUESTION, **settings).request(mini.capabilities, n=1)
    (completion,) = asyncio.run(mini.sample(request))
    return completion.segments[0]


def test_it_shows_the_very_tokens_that_were_sampled(jobs: Jobs, mini: Sampler) -> None:
    data = jobs.get(f"/{done(jobs)}/lens")
    (context,), segment = data["contexts"], sampled(mini)
    assert column(context["ids"]).tolist() == [*segment.prompt_ids, *segment.ids]
    assert context["begin"] == len(segment.prompt_ids)
    kinds = [data["kinds"][kind] for kind in column(context["kinds"])]
    assert kinds == ["prompt"] * len(segment.prompt_ids) + [phase.value for phase in segment.phases]
    assert np.abs(column(context["logprobs"])[context["begin"] :] - segment.logprobs).max() < 0.5
    assert (data["title"], data["model"], len(context["heads"])) == (QUESTION, "mini", 6)


def test_a_thought_that_was_cut_off_ends_where_it_was_cut(jobs: Jobs, mini: Sampler) -> None:
    (context,) = jobs.get(f"/{done(jobs, max_output_tokens=30)}/lens")["contexts"]
    segment = sampled(mini, max_tokens=30)
    assert (
        column(context["ids"]).tolist()[: context["begin"] + 8]
        == [*segment.prompt_ids, *segment.ids][: context["begin"] + 8]
    )
    assert len(column(context["ids"])) == len(segment.prompt_ids) + 30


def test_a_chosen_answer_says_that_it_was_chosen(jobs: Jobs) -> None:
    id = done(jobs, strategy="consensus(samples=2)", needs=[])
    assert "consensus@2 chose" in jobs.get(f"/{id}/lens")["notes"][0]


def test_another_token_makes_another_job(jobs: Jobs) -> None:
    id = done(jobs, labels=["playground"])
    first = jobs.get(f"/{id}", include="reasoning.content")
    data = jobs.get(f"/{id}/lens")
    (context,) = data["contexts"]
    ids, place = column(context["ids"]).tolist(), context["begin"] + 20
    other = next(id for id in column(context["top_ids"])[place].tolist() if id != ids[place])
    new = jobs.post(f"/{id}/branch", {"place": place, "token": other})
    assert (new["state"], new["labels"], new["attempts"][0]["kind"]) == ("queued", ["playground"], "branch")
    assert new["input"][0]["content"] == first["input"][0]["content"]
    jobs.until(new["id"], "completed", "incomplete")
    again = jobs.get(f"/{new['id']}", include="reasoning.content")
    kept = "".join(data["tokens"][str(id)] for id in (*ids[context["begin"] : place], other))
    assert again["output"][0]["content"][0]["text"].startswith(kept), "what it went on from is part of its thought"
    assert again["usage"]["input_tokens"] == place + 1
    (branched,) = jobs.get(f"/{new['id']}/lens")["contexts"]
    assert column(branched["ids"]).tolist()[: place + 1] == [*ids[:place], other]
    events = [each.body for each in stream(jobs, again["response_id"]) if each.event == "response.reasoning_text.delta"]
    assert "".join(each["delta"] for each in events) == again["output"][0]["content"][0]["text"]
    jobs.post(f"/{new['id']}/retry", {})
    jobs.until(new["id"], "completed", "incomplete")
    retried = jobs.get(f"/{new['id']}", include="reasoning.content")
    assert retried["attempt"] == 2
    assert retried["output"][0]["content"][0]["text"].startswith(kept), "it branches again"


class Streamed:
    def __init__(self, event: str, body: dict) -> None:
        self.event, self.body = event, body


def stream(jobs: Jobs, response: str) -> list[Streamed]:
    answer = jobs.http.get(f"/v1/responses/{response}", params={"stream": "true"})
    found = []
    for block in answer.text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        found.append(Streamed(lines["event"], json.loads(lines["data"])))
    return found


def test_a_steered_thought_goes_on_over_what_is_cached(jobs: Jobs) -> None:
    for _ in range(10):  # on a fast machine a thought may end before the note comes
        (job,) = jobs.hand_over("What is 48213*70931?", defaults={"model": "mini", "needs": [], "budget": 2000})
        while (jobs.get(f"/{job['id']}")["progress"] or {"used": 0})["used"] < 80:
            if jobs.get(f"/{job['id']}")["ended_at"]:
                break
        answer = jobs.http.post(f"/v1/jobs/{job['id']}/steer", json={"text": "be quick"})
        if answer.status_code == 200:
            break
    jobs.until(job["id"], "completed", "incomplete")
    first, second = jobs.get(f"/{job['id']}")["attempts"]
    kept = first["usage"]["input_tokens"] + first["usage"]["output_tokens"]
    assert second["usage"]["cached_tokens"] >= kept - 64, "the thought is not computed again, but for a part of a page"


def test_what_cannot_be_gone_on_from_is_refused(jobs: Jobs) -> None:
    id = done(jobs)
    (context,) = jobs.get(f"/{id}/lens")["contexts"]
    end = int(column(context["ids"])[-1])
    for body, param in (
        ({"place": 0, "token": 5}, "place"),
        ({"place": context["begin"], "token": 10**6}, "place"),
        ({"place": context["length"] - 1, "token": end}, "token"),
        ({"place": 20}, "token"),
    ):
        assert jobs.post(f"/{id}/branch", body, status=400)["error"]["param"] == param
    assert jobs.get("/counts")["total"] == 1


def test_where_there_is_nothing_to_look_into_it_is_said(live: Live, jobs: Jobs) -> None:
    (elsewhere,) = jobs.hand_over("quick")
    jobs.until(elsewhere["id"], "completed")
    for method, path in (("GET", "lens"), ("POST", "branch")):
        body = {"json": {"place": 3, "token": 3}} if method == "POST" else {}
        answer = jobs.http.request(method, f"/v1/jobs/{elsewhere['id']}/{path}", **body)
        assert answer.status_code == 400
        assert "not available for 'said'" in answer.json()["error"]["message"]
    (running,) = jobs.hand_over("slow")
    answer = jobs.http.get(f"/v1/jobs/{running['id']}/lens")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "wrong_state")
    assert jobs.http.get(f"/v1/jobs/{elsewhere['id']}/lens", params={"attempt": 2}).status_code == 404
    other = Jobs(live.root, "b")
    with other.http:
        for path in (elsewhere["id"], "job_of_nobody"):
            assert other.http.get(f"/v1/jobs/{path}/lens").status_code == 404
            assert other.http.post(f"/v1/jobs/{path}/branch", json={"place": 1, "token": 1}).status_code == 404


def test_an_answer_that_is_too_long_is_refused(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    id = done(jobs)
    monkeypatch.setattr("ponder.serve.jobs.lens.MOST_TOKENS", 50)
    answer = jobs.http.get(f"/v1/jobs/{id}/lens")
    assert answer.status_code == 400
    assert "too long for the lens" in answer.json()["error"]["message"]


def test_a_folded_thought_is_the_contexts_it_was_thought_in() -> None:
    tokenizer = ByteTokenizer()
    served = Served(name="tiny", sampler=tiny_sampler())
    encoded = {text: tuple(tokenizer.encode(text)) for text in ("sum?", "three", "3", "four", "7")}
    parts: list[Part] = [
        Reasoning("three", encoded["three"]),
        Reasoning("3", encoded["3"], state=True),
        Reasoning("four", encoded["four"]),
        Text("7", encoded["7"]),
    ]
    asked = ResponseRequest(model="tiny", input="sum?")
    ask = Ask(prompt=(Message.user("sum?"),))
    task = ServedAsk(owner="a", served=served, ask=ask, strategy=DIRECT, demand=DIRECT.demand(ask))
    turn = ResponseTurn(id="r", owner="a", served=served, created_at=0, asked=asked, task=task, given=[], sealer=None)
    hidden = {"model": "tiny", "vocabulary": vocabulary_of(served), "parts": write_parts(parts)}
    first, last = answered_contexts(turn, [StoredItem("i", {"status": "completed"}, hidden)], 0)
    spelled = [tokenizer.decode(segment.prompt_ids) + "|" + tokenizer.decode(segment.ids) for segment in (first, last)]
    prompt = "<|user|>sum?<|end|><|assistant|><|think|>"
    assert spelled == [
        f"{prompt}|three<|state|>3<|fold|>",
        f"{prompt}<|state|>3<|fold|>|four<|/think|>7<|end|>",
    ]
    assert last.phases == (Phase.THINK,) * 5 + (Phase.ANSWER,) * 2
    asyncio.run(served.sampler.close())
