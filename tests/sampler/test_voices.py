"""A council is streamed voice by voice: joined by voice, the pieces equal what the message says that each said."""

import asyncio

import pytest

from ponder.dialogue import Message, Reasoning
from ponder.sampler.delivery import joined
from ponder.sampler.protocol import Delta, Done, Request
from ponder.testing.tiny import ByteTokenizer, tiny_sampler
from ponder.types import Phase, SamplingParams, ThinkingLimits

CONTROL = ByteTokenizer().control
SPAWN, LEAVE, JOIN = CONTROL["<|spawn|>"], CONTROL["<|reserved_0|>"], CONTROL["<|join|>"]


def request(seed, *, voices, cap=50):
    bias = ((SPAWN, 9.0), (LEAVE, 4.0), (JOIN, 2.0), *((id, -6.0) for id in range(127, 256)))
    limits = ThinkingLimits(voices=voices, cap=cap)
    params = SamplingParams(max_tokens=70, temperature=1.0, seed=seed, thinking=limits, logit_bias=bias)
    return Request(prompt=(Message.user("q"),), params=params, n=4)


async def streamed(sampler, asked):
    return [item async for item in sampler.stream(asked)]


@pytest.fixture(scope="module")
def items():
    """What is streamed of four completions each."""
    sampler = tiny_sampler()
    return [asyncio.run(streamed(sampler, request(seed, voices=4))) for seed in range(0, 12, 4)]


def test_pieces_joined_by_voice_are_the_voices_of_the_message(items):
    heard = 0
    for stream in items:
        for done in (item for item in stream if isinstance(item, Done)):
            thinking = [p for p in stream if type(p) is Delta and p.index == done.index and p.phase is Phase.THINK]
            for pieces in (thinking, joined(thinking)):
                said = {}
                for piece in pieces:
                    said[piece.voice] = said.get(piece.voice, "") + piece.text
                parts = [part for part in done.completion.message.parts if isinstance(part, Reasoning)]
                expected = {}
                for part in parts:
                    for voice, text in [(n, v.text) for n, v in enumerate(part.voices)] or [(None, part.text)]:
                        expected[voice] = expected.get(voice, "") + text
                assert {k: v for k, v in said.items() if v} == {k: v for k, v in expected.items() if v}
                heard += len(said) > 2
            usage = done.completion.usage
            tokens = sum(len(segment.ids) for segment in done.completion.segments)
            assert usage.completion_tokens == tokens
            assert usage.steps < tokens or not any(part.voices for part in parts)
    assert heard > 4
