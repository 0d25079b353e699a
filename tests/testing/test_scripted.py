"""What the scripted sampler keeps, and what it refuses because there is no model under it."""

import asyncio
import time

import pytest

from ponder.dialogue.messages import Message, ToolCall
from ponder.dialogue.tools import Tool
from ponder.sampler.protocol import JsonSchema, NextTurn, Request
from ponder.testing.scripted import Say, ScriptedSampler
from ponder.types import (
    ConfidenceStop,
    Effort,
    InvalidRequest,
    SamplingParams,
    StopReason,
    ThinkingLimits,
)

QUESTION = (Message.user("What is 6 times 7?"),)


def sample(script, request):
    return asyncio.run(ScriptedSampler(script).sample(request))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"params": SamplingParams(thinking=ThinkingLimits(floor=1))}, "floor"),
        ({"params": SamplingParams(thinking=ThinkingLimits(confidence=ConfidenceStop(threshold=1.0)))}, "confidence"),
        ({"params": SamplingParams(stop_ids=(1,))}, "stop_ids"),
        ({"params": SamplingParams(logit_bias=((1, 1.0),))}, "logit_bias"),
        ({"params": SamplingParams(top_logprobs=1)}, "top_logprobs"),
        ({"effort": Effort.LOW}, "effort"),
        ({"prompt": (1, 2)}, "conversation"),
    ],
)
def test_what_needs_a_model_is_refused_by_name(fields, named):
    with pytest.raises(InvalidRequest, match=named):
        sample(["x"], Request(**{"prompt": QUESTION} | fields))


def test_a_grammar_that_the_line_keeps_is_served():
    schema = JsonSchema('{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}')
    kept, call = '{"n": 42}', ToolCall("f", "{}")
    tools = (Tool("f", "", "{}"),)
    assert sample([kept], Request(prompt=QUESTION, grammar=schema))[0].text == kept
    assert sample([Say("", calls=(call,))], Request(prompt=QUESTION, grammar=schema, tools=tools))
    for line in ('{"n": "x"}', '{"n": 42', "It is 42.", '{"n": 42} and more'):
        with pytest.raises(InvalidRequest, match="does not keep the grammar"):
            sample([line], Request(prompt=QUESTION, grammar=schema))


def test_tenants_and_hints_change_nothing():
    (completion,) = sample(["It is 42."], Request(prompt=QUESTION, tenant="ann", next_turn=NextTurn.VERBATIM))
    assert completion.text == "It is 42."


def test_when_the_time_is_up_what_was_said_is_given_back():
    quick, slow = Say("It is 42."), Say("word " * 100, seconds=20.0)
    began = time.monotonic()
    done, cut = sample([quick, slow], Request(prompt=QUESTION, n=2, seconds=0.5))
    assert time.monotonic() - began < 5
    assert done.stop_reason is StopReason.END
    assert done.text == "It is 42."
    assert cut.stop_reason is StopReason.DEADLINE
    assert 0 < len(cut.text) < len(slow.text)
    assert slow.text.startswith(cut.text)
    assert cut.usage_estimated
