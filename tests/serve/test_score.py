"""A reward model served at `/v1/score`: the scores of the model itself, in vLLM's shape."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest
from live import Live, serving

from ponder.cli.serve import load_rewards
from ponder.dialogue import Message, PonderFormat
from ponder.model.scoring import ScoreScale, ScoringHead, ScoringModel
from ponder.serve import Served
from ponder.tasks.verifiers.reward import RewardModel
from ponder.testing.scripted import ScriptedSampler
from ponder.testing.tiny import ByteTokenizer, tiny_model
from ponder.types import InvalidRequest

TOKENIZER = ByteTokenizer()
REWARD = RewardModel(
    ScoringModel(tiny_model(), ScoringHead(32), ScoreScale(gain=2.0, bias=0.5)), TOKENIZER, PonderFormat(TOKENIZER)
)


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with serving([Served(name="said", sampler=ScriptedSampler(["x"]))], rewards={"liked": REWARD}) as running:
        yield running


def post(live: Live, path: str = "/v1/score", **body: Any) -> httpx.Response:
    return httpx.post(live.root + path, json=body, timeout=60)


def rewards(prompts: list[str], answers: list[str]) -> list[float]:
    pairs = zip(prompts, answers, strict=True)
    return [REWARD.reward([Message.user(p)], [Message.assistant(a)]) for p, a in pairs]


@pytest.mark.parametrize("path", ["/v1/score", "/score"])
def test_answers_are_scored_one_by_one_to_one_prompt_or_to_one_each(live: Live, path: str) -> None:
    for one, other, expected in (
        ("q", "a", rewards(["q"], ["a"])),
        ("q", ["a", "longer"], rewards(["q"] * 2, ["a", "longer"])),
        (["q", "r"], ["a", "b"], rewards(["q", "r"], ["a", "b"])),
    ):
        scored = post(live, path, model="liked", text_1=one, text_2=other).json()
        assert [each["score"] for each in scored["data"]] == pytest.approx(expected)
        assert [each["index"] for each in scored["data"]] == [*range(len(expected))]
        assert (scored["object"], scored["model"]) == ("list", "liked")
        assert scored["usage"]["prompt_tokens"] == scored["usage"]["total_tokens"] > len(expected)


def test_a_conversation_is_scored_by_its_last_message_without_any_thinking(live: Live) -> None:
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a", "reasoning_content": "hidden"},
    ]
    (scored,) = post(live, messages=messages).json()["data"]
    assert scored["score"] == pytest.approx(rewards(["q"], ["a"])[0])


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"text_1": "q", "text_2": "a", "model": "said"}, 404, "choose from liked"),
        ({"text_1": "q"}, 400, "give both"),
        ({}, 400, "text_1 and text_2, or messages"),
        ({"text_1": ["q", "r"], "text_2": ["a", "b", "c"]}, 400, "as many as text_2"),
        ({"text_1": "q", "text_2": " "}, 400, "must not be empty"),
        ({"text_1": "q", "text_2": "a" * 600}, 400, "more than the window"),
        ({"messages": [{"role": "user", "content": "q"}, {"role": "user", "content": "r"}]}, 400, "the assistant's"),
        ({"text_1": "q", "text_2": "a", "rank": True}, 400, "rank"),
    ],
)
def test_what_cannot_be_scored_is_refused(live: Live, body: dict[str, Any], status: int, words: str) -> None:
    refused = post(live, **body)
    assert refused.status_code == status
    assert words in refused.json()["error"]["message"]


def test_a_server_without_a_reward_model_says_how_to_give_it_one(live: Live) -> None:
    kept, live.state.rewards = live.state.rewards, {}
    try:
        assert "--reward NAME=FOLDER" in post(live, text_1="q", text_2="a").json()["error"]["message"]
    finally:
        live.state.rewards = kept
    for text in ("x", "=y", "x="):
        with pytest.raises(InvalidRequest, match="NAME=FOLDER"):
            load_rewards([text])
