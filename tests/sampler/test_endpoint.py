"""The remote sampler on good and bad days: dialects, bills, retries, limits, and keys that stay secret."""

import asyncio
import json
import time
from contextlib import aclosing

import pytest

from ponder.dialogue.messages import Message, Reasoning, ReasoningPolicy, Role, Text, ToolCall, ToolResult
from ponder.dialogue.tools import Arguments, Tool
from ponder.sampler.dialect import Dialect, request_body
from ponder.sampler.endpoint import EndpointSampler
from ponder.sampler.http import Url
from ponder.sampler.protocol import (
    Delivery,
    Delta,
    Done,
    JsonSchema,
    NamedTool,
    NextTurn,
    ParallelCalls,
    Regex,
    Request,
    ToolChoice,
    Truncation,
)
from ponder.sampler.replies import Replies, apportion
from ponder.testing.endpoint import Fault, StubEndpoint
from ponder.testing.scripted import Say, ScriptedSampler
from ponder.think import Reasoner
from ponder.types import (
    ConfidenceStop,
    Effort,
    FormatError,
    InvalidRequest,
    Phase,
    RateLimited,
    RefusedByEndpoint,
    SamplerError,
    SamplingParams,
    StopReason,
    ThinkingLimits,
    Usage,
)

THOUGHTFUL = Say(text="It is 42.", reasoning="Six times seven.")


def ask(n=1, text="What is 6 times 7?", **params):
    return Request(prompt=(Message.user(text),), n=n, params=SamplingParams(**params))


def sampler(stub, **options):
    return EndpointSampler(stub.url, "stub", **{"backoff": 0.01, "timeout": 5.0, "dialect": stub.dialect} | options)


def sample(endpoint, request=None):
    return asyncio.run(endpoint.sample(request or ask()))


async def gather_stream(endpoint, request):
    return [event async for event in endpoint.stream(request)]


# Dialects -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "shown"), [("openai", ""), ("vllm", "Six times seven."), ("deepseek", "Six times seven.")]
)
def test_each_dialect_s_reasoning_is_found_and_counted(dialect, shown):
    with StubEndpoint([THOUGHTFUL] * 2, dialect=dialect) as stub:
        (whole,) = sample(sampler(stub))
        *deltas, done = asyncio.run(gather_stream(sampler(stub), ask()))
    assert whole.text == "It is 42."
    assert whole.reasoning == shown
    assert whole.usage.reasoning_tokens == 4  # three words and the close
    assert whole.usage.completion_tokens == 8
    assert not whole.usage_estimated
    assert isinstance(done, Done)
    assert done.completion == whole
    assert "".join(each.text for each in deltas if each.phase is Phase.THINK) == shown


def test_reasoning_that_is_shown_but_not_counted_is_estimated_and_marked():
    with StubEndpoint([THOUGHTFUL], dialect="vllm", bare_usage=True) as stub:
        (completion,) = sample(sampler(stub))
    assert completion.usage_estimated
    assert completion.usage.completion_tokens == 8
    assert 0 < completion.usage.reasoning_tokens < 8


def test_several_completions_share_one_exact_bill():
    with StubEndpoint(["one", "two three four", "five six"]) as stub:
        completions = sample(sampler(stub), ask(n=3))
    assert sum(each.usage.completion_tokens for each in completions) == 2 + 4 + 3
    assert [each.usage.prompt_tokens > 0 for each in completions] == [True, False, False]
    assert all(each.usage_estimated for each in completions)


def test_deepseek_takes_one_request_for_each_completion():
    with StubEndpoint(lambda _, index: "hello", dialect="deepseek") as stub:
        completions = sample(sampler(stub), ask(n=3, seed=5))
        assert sorted(body["seed"] for body in stub.requests) == [5, 6, 7]
        assert all("n" not in body for body in stub.requests)
        events = asyncio.run(gather_stream(sampler(stub), ask(n=2)))
    assert len(completions) == 3
    assert [event.index for event in events if isinstance(event, Done)] == [0, 1]


@pytest.mark.parametrize(
    ("effort", "dialect", "expected"),
    [
        (Effort.NONE, "openai", {"reasoning_effort": "none"}),
        (Effort.HIGH, "openai", {"reasoning_effort": "high"}),
        (Effort.MINIMAL, "openai", {"reasoning_effort": "minimal"}),
        (Effort.NONE, "vllm", {"chat_template_kwargs": {"enable_thinking": False}}),
        (Effort.LOW, "vllm", {"reasoning_effort": "low"}),
        (Effort.NONE, "deepseek", {"thinking": {"type": "disabled"}}),
        (Effort.HIGH, "deepseek", {"thinking": {"type": "enabled"}}),
    ],
)
def test_effort_in_each_dialect_s_words(effort, dialect, expected):
    body = request_body(Request(prompt=(Message.user("hi"),), effort=effort), "m", Dialect(dialect), stream=False)
    assert expected.items() <= body.items()


def test_without_an_effort_the_server_decides():
    for dialect in Dialect:
        body = request_body(ask(), "m", dialect, stream=False)
        assert not {"reasoning_effort", "thinking", "chat_template_kwargs", "thinking_token_budget"} & set(body)


def test_what_only_vllm_can_say():
    request = ask(top_k=5, min_p=0.1, stop_ids=(3,), max_tokens=9, thinking=ThinkingLimits(cap=4), seed=1)
    body = request_body(request, "m", Dialect.VLLM, stream=True)
    assert body["top_k"] == 5
    assert body["min_p"] == 0.1
    assert body["stop_token_ids"] == [3]
    assert body["max_tokens"] == 9
    assert body["thinking_token_budget"] == 4
    assert body["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    with pytest.raises(InvalidRequest) as refused:
        request_body(request, "m", Dialect.OPENAI, stream=True)
    for name in ("top_k", "min_p", "stop_ids", "cap on thinking"):
        assert name in str(refused.value)


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        (ask(thinking=ThinkingLimits(floor=3)), "floor"),
        (ask(answer_room=3), "answer_room"),
        (ask(thinking=ThinkingLimits(confidence=ConfidenceStop(threshold=1.0))), "confidence"),
        (ask(top_logprobs=3), "top_logprobs"),
        (ask(logit_bias=((5, 101.0),)), "logit_bias outside -100 to 100"),
        (ask(logit_bias=((5, float("nan")),)), "logit_bias outside"),
        (ask(logit_bias=((5, 1.0), (5, 2.0))), "each named once"),
        (Request(prompt=(Message.user("hi"),), grammar=Regex("a+")), "regular expression"),
        (Request(prompt=(Message.user("hi"),), tenant="ann"), "tenant"),
        (Request(prompt=(1, 2, 3)), "ids"),
        (Request(prompt=(Message.user("hi"),), truncation=Truncation.AUTO), "truncation"),
    ],
)
@pytest.mark.parametrize("dialect", Dialect)
def test_what_no_wire_can_say_is_refused_by_name(request_, named, dialect):
    with pytest.raises(InvalidRequest, match=named):
        request_body(request_, "m", dialect, stream=False)


SCHEMA = '{"type": "object", "properties": {"é": {"type": "integer"}}}'


@pytest.mark.parametrize("dialect", ["openai", "vllm"])
def test_a_schema_and_biases_go_over_the_wire(dialect):
    request = Request(
        prompt=(Message.user("hi"),),
        grammar=JsonSchema(SCHEMA),
        params=SamplingParams(logit_bias=((5, -100.0), (7, 1.5))),
        next_turn=NextTurn.TEXT,
    )
    with StubEndpoint(["{}"], dialect=dialect) as stub:
        sample(sampler(stub), request)
        (body,) = stub.requests
    schema = {"type": "object", "properties": {"é": {"type": "integer"}}}
    format = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
    assert body["response_format"] == format
    assert body["logit_bias"] == {"5": -100.0, "7": 1.5}
    assert "next_turn" not in body
    assert not {"response_format", "logit_bias"} & request_body(ask(), "m", Dialect(dialect), stream=False).keys()


def test_deepseek_has_no_schemas_and_no_biases():
    request = Request(
        prompt=(Message.user("hi"),), grammar=JsonSchema(SCHEMA), params=SamplingParams(logit_bias=((5, 1.0),))
    )
    with pytest.raises(InvalidRequest, match=r"logit_bias; a JSON schema"):
        request_body(request, "m", Dialect.DEEPSEEK, stream=False)


def test_a_schema_that_is_no_json_never_leaves_the_house():
    with pytest.raises(InvalidRequest, match="not valid JSON"):
        request_body(Request(prompt=(Message.user("hi"),), grammar=JsonSchema("{")), "m", Dialect.OPENAI, stream=False)


def test_messages_with_tools_and_reasoning():
    conversation = (
        Message(Role.DEVELOPER, (Text("Be brief."),)),
        Message.user("old", name="ann"),
        Message.assistant("old answer", "old thought"),
        Message.user("new"),
        Message(Role.ASSISTANT, (Reasoning("new thought"), ToolCall("add", '{"a": 1}', "c1"))),
        Message(Role.TOOL, (ToolResult("add", "2", "c1"),)),
    )
    messages = request_body(Request(prompt=conversation), "m", Dialect.DEEPSEEK, stream=False)["messages"]
    assert [each["role"] for each in messages] == ["system", "user", "assistant", "user", "assistant", "tool"]
    assert messages[1]["name"] == "ann"
    assert "reasoning_content" not in messages[2], "reasoning before the last user message is dropped"
    assert messages[4]["reasoning_content"] == "new thought"
    assert messages[4]["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a": 1}'}
    assert messages[5] == {"role": "tool", "tool_call_id": "c1", "content": "2"}
    everything = Request(prompt=conversation, policy=ReasoningPolicy.ALL_TURNS)
    assert request_body(everything, "m", Dialect.VLLM, stream=False)["messages"][2]["reasoning"] == "old thought"
    with pytest.raises(InvalidRequest, match="reasoning of earlier messages"):
        request_body(everything, "m", Dialect.OPENAI, stream=False)


@pytest.mark.parametrize("dialect", Dialect)
def test_tool_calls_come_back_as_parts(dialect):
    line = Say(text="", calls=(ToolCall("add", '{"a": 1}', "c1"), ToolCall("sub", "{}", "c2")))
    with StubEndpoint([line] * 2, dialect=dialect) as stub:
        (whole,) = sample(sampler(stub))
        *_, done = asyncio.run(gather_stream(sampler(stub), ask()))
    assert [part for part in whole.message.parts if isinstance(part, ToolCall)] == list(line.calls)
    assert done.completion.message == whole.message


ADD = Tool("add", "Adds.", '{"type": "object", "required": ["a"]}')
WIRE = {"name": "add", "description": "Adds.", "parameters": {"type": "object", "required": ["a"]}}


def declaring(*tools, **fields):
    return Request(prompt=(Message.user("hi"),), tools=tools, **fields)


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize(
    ("choice", "written"),
    [
        (ToolChoice.AUTO, None),
        (ToolChoice.NONE, "none"),
        (ToolChoice.REQUIRED, "required"),
        (NamedTool("add"), {"type": "function", "function": {"name": "add"}}),
    ],
)
def test_tools_and_their_choice_go_over_the_wire(dialect, choice, written):
    line = Say(text="", calls=(ToolCall("add", "{}"),))
    with StubEndpoint([line], dialect=dialect) as stub:
        sample(sampler(stub), declaring(ADD, tool_choice=choice))
        (body,) = stub.requests
    assert body["tools"] == [{"type": "function", "function": WIRE}]
    assert body.get("tool_choice") == written
    assert "parallel_tool_calls" not in body
    assert not {"tools", "tool_choice"} & request_body(ask(), "m", dialect, stream=False).keys()


def test_what_not_every_dialect_can_say_of_tools():
    strict = declaring(Tool("add", arguments=Arguments.STRICT))
    function = request_body(strict, "m", Dialect.OPENAI, stream=False)["tools"][0]["function"]
    assert function["strict"] is True
    one = declaring(ADD, parallel_calls=ParallelCalls.ONE)
    for dialect in (Dialect.OPENAI, Dialect.VLLM):
        assert request_body(one, "m", dialect, stream=False)["parallel_tool_calls"] is False
    for dialect in (Dialect.VLLM, Dialect.DEEPSEEK):
        with pytest.raises(InvalidRequest, match="tools whose arguments are strict"):
            request_body(strict, "m", dialect, stream=False)
    with pytest.raises(InvalidRequest, match="parallel_calls one"):
        request_body(one, "m", Dialect.DEEPSEEK, stream=False)
    with pytest.raises(FormatError, match="tool 'add': its parameters are not valid JSON"):
        request_body(declaring(Tool("add", "", "{")), "m", Dialect.OPENAI, stream=False)


def taken(*pieces):
    """The calls' pieces that chunks give, and the calls in the end."""
    replies = Replies(1)
    chunks = [{"choices": [{"delta": {"tool_calls": [piece]}}]} for piece in pieces]
    chunks.append({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]})
    events = [(each.call, each.name, each.arguments) for chunk in chunks for each in replies.take(chunk)]
    (completion,) = replies.completions()
    return events, [(part.name, part.arguments) for part in completion.message.parts if isinstance(part, ToolCall)]


def piece(index, name=None, arguments=None):
    return {"index": index, "function": {"name": name, "arguments": arguments}}


def test_calls_are_taken_however_a_server_cuts_them():
    events, calls = taken(piece(3, "ge"), piece(3, "t", ""), piece(3, "", "{"), piece(3, "get", "}"), piece(1, "now"))
    assert events == [(0, "get", "{"), (0, None, "}"), (1, "now", "")]
    assert calls == [("get", "{}"), ("now", "")]
    with pytest.raises(SamplerError, match="renamed the tool call 'get' to 'put'"):
        taken(piece(0, "get", "{"), piece(0, "put", "}"))


def test_a_script_that_does_not_keep_the_choice_is_an_error():
    for line, fields in (
        ("no call", {"tool_choice": ToolChoice.REQUIRED}),
        (Say("", calls=(ToolCall("sub", "{}"),)), {"tool_choice": NamedTool("add")}),
        (Say("", calls=(ToolCall("add", "{}"),)), {"tool_choice": ToolChoice.NONE}),
        (Say("", calls=(ToolCall("add", "{}"),) * 2), {"parallel_calls": ParallelCalls.ONE}),
    ):
        with pytest.raises(SamplerError, match="write a line that keeps them"):
            asyncio.run(ScriptedSampler([line]).sample(declaring(ADD, **fields)))


# Bad days -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=429),
        Fault(status=500),
        Fault(status=503, body="<html>busy</html>"),
        Fault(garbage="{not json"),
        Fault(garbage="[1, 2]"),
        Fault(cut_after=0),
        Fault(cut_after=20),
    ],
)
@pytest.mark.parametrize("way", ["whole", "streamed"])
def test_a_passing_fault_is_survived(fault, way):
    with StubEndpoint(["fine", "fine"], faults=[fault]) as stub:
        if way == "whole":
            (completion,) = sample(sampler(stub))
        else:
            completion = asyncio.run(gather_stream(sampler(stub), ask()))[-1].completion
        assert completion.text == "fine"
        assert len(stub.requests) == 2


def test_a_lasting_fault_is_an_error_that_says_where_and_how_often():
    with StubEndpoint(faults=[Fault(status=500)] * 9) as stub:
        with pytest.raises(SamplerError, match=r"127.0.0.1.* failed after 3 attempts: status 500: scripted fault"):
            sample(sampler(stub, retries=2))
        assert len(stub.requests) == 3


def test_nobody_there():
    with pytest.raises(SamplerError, match="failed after 2 attempts"):
        sample(EndpointSampler("http://127.0.0.1:9/v1", "m", retries=1, backoff=0.01))


def test_silence_is_a_timeout():
    with (
        StubEndpoint(["late"], faults=[Fault(delay=1.0)]) as stub,
        pytest.raises(SamplerError, match=r"nothing came for 0.1 s"),
    ):
        sample(sampler(stub, timeout=0.1, retries=0))


def test_retry_after_is_honoured():
    with StubEndpoint(["fine"], faults=[Fault(status=429, headers={"Retry-After": "0.3"})]) as stub:
        began = time.monotonic()
        sample(sampler(stub))
        assert time.monotonic() - began >= 0.3


def test_a_retry_after_that_is_too_long_is_an_error_at_once():
    with (
        StubEndpoint(["fine"], faults=[Fault(status=429, headers={"Retry-After": "3600"})]) as stub,
        pytest.raises(SamplerError, match="asks to wait 3600 s"),
    ):
        sample(sampler(stub))


def test_a_date_in_retry_after():
    past = "Wed, 21 Oct 2015 07:28:00 GMT"
    with StubEndpoint(["fine"], faults=[Fault(status=503, headers={"Retry-After": past})]) as stub:
        assert sample(sampler(stub))[0].text == "fine"


@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_refused_request_is_not_tried_again(status):
    with StubEndpoint(faults=[Fault(status=status)] * 2) as stub:
        with pytest.raises(InvalidRequest, match="scripted fault"):
            sample(sampler(stub))
        assert len(stub.requests) == 1


def test_a_stream_that_breaks_after_its_first_words_is_not_started_again():
    pieces = []

    async def read(endpoint):
        async for event in endpoint.stream(ask()):
            pieces.append(event.text)

    with StubEndpoint(["one two three four"] * 2, faults=[Fault(cut_after=150)]) as stub:
        with pytest.raises(SamplerError, match="the stream broke off"):
            asyncio.run(read(sampler(stub)))
        assert pieces
        assert len(stub.requests) == 1


def test_an_error_inside_a_stream():
    with (
        StubEndpoint(faults=[Fault(garbage='data: {"error": {"message": "overloaded"}}\n\n')]) as stub,
        pytest.raises(SamplerError, match="overloaded"),
    ):
        asyncio.run(gather_stream(sampler(stub), ask()))


def test_fewer_completions_than_asked_for():
    one = '{"choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}], "usage": {}}'
    with (
        StubEndpoint(faults=[Fault(garbage=one)]) as stub,
        pytest.raises(SamplerError, match="1 of 2 completions unfinished"),
    ):
        sample(sampler(stub), ask(n=2))


def answered(message, finish="stop"):
    """The one completion of a server that answers like this."""
    body = json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": {}})
    with StubEndpoint(faults=[Fault(garbage=body)]) as stub:
        return sample(sampler(stub))[0]


@pytest.mark.parametrize(
    ("word", "reason", "kept"),
    [
        ("content_filter", StopReason.FILTERED, ""),
        ("MAX_TOKENS", StopReason.LENGTH, ""),
        ("eos", StopReason.END, ""),
        ("insufficient_system_resource", StopReason.OTHER, "insufficient_system_resource"),
    ],
)
def test_any_finish_reason_is_carried_through(word, reason, kept):
    completion = answered({"content": "a"}, word)
    assert (completion.text, completion.stop_reason, completion.server_reason) == ("a", reason, kept)


def test_a_refusal_and_text_in_parts_are_the_visible_text():
    assert answered({"content": None, "refusal": "I cannot."}).text == "I cannot."
    parts = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    completion = answered({"content": parts})
    assert (completion.reasoning, completion.text) == ("hm", "ab")


def test_parallel_calls_that_share_an_index_are_told_apart_by_their_ids():
    def piece(id, arguments):
        function = {"name": "f" if id else None, "arguments": arguments}
        return {"tool_calls": [{"index": 0, "id": id, "function": function}]}

    deltas = [piece("a", '{"x": 1}'), piece("b", '{"x":'), piece(None, " 2}")]
    chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}], "usage": {}})
    replies = Replies(1)
    pieces = [piece for chunk in chunks for piece in replies.take(chunk)]
    assert [(each.call, each.name, each.id, each.arguments) for each in pieces] == [
        (0, "f", "a", '{"x": 1}'),
        (1, "f", "b", '{"x":'),
        (1, None, None, " 2}"),
    ]
    calls = replies.completions()[0].message.parts
    assert [(call.id, call.arguments) for call in calls] == [("a", '{"x": 1}'), ("b", '{"x": 2}')]


def test_what_nobody_said_is_not_sent():
    with StubEndpoint(["a"] * 3) as stub:
        reasoner = Reasoner(sampler(stub))
        reasoner.ask("x")
        reasoner.ask("x", temperature=0.0, top_p=0.5)
        reasoner.ask("x", strategy="consensus(samples=1)")
    first, second, third = ({key: body.get(key) for key in ("temperature", "top_p")} for body in stub.requests)
    assert first == {"temperature": None, "top_p": None}
    assert second == {"temperature": 0.0, "top_p": 0.5}
    assert third == {"temperature": 1.0, "top_p": None}


def test_a_full_server_says_when_to_come_back():
    fault = Fault(status=429, headers={"Retry-After": "90"})
    with StubEndpoint(faults=[fault]) as stub, pytest.raises(RateLimited) as full:
        sample(sampler(stub))
    assert full.value.retry_after == 90


def test_the_code_of_a_refusal_is_kept():
    body = '{"error": {"message": "too long", "code": "context_length_exceeded"}}'
    with StubEndpoint(faults=[Fault(status=400, body=body)]) as stub, pytest.raises(RefusedByEndpoint) as refused:
        sample(sampler(stub))
    assert refused.value.code == "context_length_exceeded"


# Limits ---------------------------------------------------------------------------------------------------------------


def test_no_more_requests_at_once_than_allowed():
    async def many(endpoint):
        return await asyncio.gather(*(endpoint.sample(ask()) for _ in range(9)))

    with StubEndpoint(lambda *_: Say("ok", seconds=0.05)) as stub:
        asyncio.run(many(sampler(stub, concurrency=3)))
        assert stub.most_at_once == 3
        assert len(stub.requests) == 9


def test_cancelling_hangs_up():
    async def cancelled(endpoint):
        stream = endpoint.stream(ask())
        async for event in stream:
            assert isinstance(event, Delta)
            break
        await stream.aclose()

    with StubEndpoint(lambda *_: Say("word " * 200, seconds=20.0)) as stub:
        asyncio.run(cancelled(sampler(stub)))
        assert stub.hung_up.wait(10), "long before the answer would have ended"


# Deadlines ------------------------------------------------------------------------------------------------------------

SLOW = Say("word " * 40, reasoning="Hm hm. ", seconds=4.0)


def in_time(seconds, n=1):
    return Request(prompt=(Message.user("hi"),), n=n, seconds=seconds)


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize("n", [1, 2])
def test_when_the_time_is_up_what_came_is_given_back(dialect, n):
    with StubEndpoint(lambda *_: SLOW, dialect=dialect) as stub:
        began = time.monotonic()
        completions = sample(sampler(stub), in_time(0.7, n))
        assert 0.7 <= time.monotonic() - began < 2
        assert stub.hung_up.wait(5), "the server is told by hanging up"
    assert [each.stop_reason for each in completions] == [StopReason.DEADLINE] * n
    first = completions[0]
    assert SLOW.text.startswith(first.text)
    assert 0 < len(first.text) < len(SLOW.text)
    assert first.usage.completion_tokens >= len(first.text.split()), "billed by what came"
    assert first.usage_estimated


def test_a_stream_whose_time_is_up_ends_with_what_was_passed_on():
    with StubEndpoint([SLOW], dialect="vllm") as stub:
        *deltas, done = asyncio.run(gather_stream(sampler(stub), in_time(0.6)))
    assert "".join(each.text for each in deltas if each.phase is Phase.ANSWER) == done.completion.text
    assert done.completion.reasoning == "Hm hm. "
    assert done.completion.stop_reason is StopReason.DEADLINE


def test_an_answer_in_time_is_the_same_as_without_a_deadline():
    with StubEndpoint([THOUGHTFUL] * 2, dialect="vllm") as stub:
        assert sample(sampler(stub), in_time(30.0)) == sample(sampler(stub), ask(text="hi"))


def test_retries_do_not_go_past_the_deadline():
    with StubEndpoint(faults=[Fault(status=503)] * 99) as stub:
        began = time.monotonic()
        (completion,) = sample(sampler(stub, retries=99, backoff=0.1), in_time(0.4))
        assert time.monotonic() - began < 2
    assert completion.stop_reason is StopReason.DEADLINE
    assert completion.text == ""


def test_an_error_before_the_deadline_is_an_error():
    with StubEndpoint(faults=[Fault(status=400)]) as stub, pytest.raises(InvalidRequest):
        sample(sampler(stub), in_time(30.0))
    with StubEndpoint(faults=[Fault(delay=1.0)]) as stub, pytest.raises(SamplerError, match="nothing came"):
        sample(sampler(stub, timeout=0.1, retries=0), in_time(30.0))


# Names and keys -------------------------------------------------------------------------------------------------------


def test_the_only_model_served_is_found():
    with StubEndpoint(["hi"], models=["lonely"]) as stub:
        endpoint = EndpointSampler(stub.url)
        assert sample(endpoint)[0].text == "hi"
        assert endpoint.name == "lonely"
        assert stub.requests[0]["model"] == "lonely"


def test_of_several_models_one_must_be_named():
    with StubEndpoint(models=["a", "b"]) as stub, pytest.raises(InvalidRequest, match="serves a, b"):
        sample(EndpointSampler(stub.url))


def test_the_key_is_sent_and_never_told():
    secret = "sk-verysecret"
    echo = Fault(status=401, body=f'{{"error": {{"message": "bad key {secret}"}}}}')
    with StubEndpoint(["hi"], faults=[None, echo, Fault(status=400, body=secret)]) as stub:
        endpoint = sampler(stub, api_key=secret)
        assert secret not in repr(endpoint)
        sample(endpoint)
        assert stub.headers[0]["Authorization"] == f"Bearer {secret}"
        for _ in range(2):
            with pytest.raises((SamplerError, InvalidRequest)) as caught:
                sample(endpoint)
            assert secret not in str(caught.value)


def test_the_key_from_the_environment_goes_where_it_belongs(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "openai-only")
    monkeypatch.delenv("PONDER_API_KEY", raising=False)
    with StubEndpoint(["a", "b"]) as stub:
        sample(sampler(stub))
        assert "Authorization" not in stub.headers[0], "a key of one service is not sent to another host"
        monkeypatch.setenv("PONDER_API_KEY", "for-any")
        sample(sampler(stub))
        assert stub.headers[1]["Authorization"] == "Bearer for-any"


def test_a_key_with_a_line_break_is_refused_without_showing_it():
    with pytest.raises(InvalidRequest) as refused:
        EndpointSampler("http://localhost/v1", "m", "sk-x\r\nHost: evil")
    assert "sk-x" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/v1",
        "localhost:8000",
        "http://",
        "http://user:pw@host/v1",
        "http://h/v1?x=1",
        "http://h:99999/v1",
        "http://h/a b",
    ],
)
def test_bad_addresses(url):
    with pytest.raises(InvalidRequest, match="not an endpoint address"):
        Url.parse(url)


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"timeout": 0}, {"retries": -1}, {"dialect": "klingon"}])
def test_bad_options(options):
    with pytest.raises(InvalidRequest):
        EndpointSampler("http://localhost/v1", "m", **options)


def test_shares_add_up():
    assert apportion(10, [1, 1, 1]) == [4, 3, 3]
    assert apportion(7, [0, 0]) == [4, 3]
    assert apportion(0, [5, 1]) == [0, 0]
    assert apportion(5, [0, 9]) == [0, 5]


def test_stop_reason_of_a_stop_string_where_the_server_tells():
    with StubEndpoint(["a b STOP c"], dialect="vllm") as stub:
        (completion,) = sample(sampler(stub), Request(prompt=(Message.user("x"),), stop=("STOP",)))
    assert completion.stop_reason is StopReason.STOP


# What is paid for and not read ----------------------------------------------------------------------------------------


def killed(stub, after, **settings):
    """Cancel a stream after that many pieces: the ends that were not read."""
    sampler = EndpointSampler(stub.url, "stub", dialect=stub.dialect, backoff=0.0, **settings)

    async def run():
        unread, seen = [], 0
        delivery = Delivery(unread=unread.append)
        async with aclosing(sampler.stream(Request(prompt=(Message.user("Go on."),)), delivery)) as stream:
            async for _ in stream:
                seen += 1
                if seen == after:
                    break
        return unread

    return asyncio.run(run())


def test_a_stream_that_is_closed_is_billed_as_the_server_counts_it():
    line = Say("five six seven eight", reasoning="one two three four")
    with StubEndpoint([line], dialect="vllm", faults=[Fault(stall_after=6)]) as stub:
        (done,) = killed(stub, 6)
    assert done.completion.usage == stub.counted == Usage(3, 7, 5)
    assert (done.completion.stop_reason, done.completion.text) == (StopReason.ABORTED, "five six")


def test_a_server_that_keeps_no_running_count_is_billed_by_its_pieces():
    with StubEndpoint(["one two three four"], faults=[Fault(stall_after=2)]) as stub:
        (done,) = killed(stub, 2)
    assert done.completion.usage.completion_tokens == stub.counted.completion_tokens == 2
    assert done.completion.usage_estimated


def test_an_attempt_that_broke_off_is_billed_with_the_one_that_came_through():
    with StubEndpoint(["one two", "one two"], dialect="vllm", faults=[Fault(status=500), Fault(cut_after=250)]) as stub:
        sampler = EndpointSampler(stub.url, "stub", dialect="vllm", backoff=0.0)

        async def run():
            async with aclosing(sampler.stream(Request(prompt=(Message.user("Go on."),)))) as stream:
                return [event async for event in stream][-1].completion

        usage = asyncio.run(run()).usage
        assert usage == stub.counted == Usage(2 * 3, 3), "the broken one was read to its first word"
        assert len(stub.requests) == 3
