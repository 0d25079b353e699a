"""What real clients send and expect, beyond what the documents of the API say."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, get_type_hints

import anthropic
import httpx2 as httpx
import pytest
from live import Live, serving

import ponder.serve
from ponder.dialogue import ToolCall, load_format
from ponder.sampler.endpoint import EndpointSampler
from ponder.serve import Served, Settings
from ponder.serve.chat.convert import read_chat_messages
from ponder.serve.chat.wire import ChatRequest
from ponder.serve.common.wire import Strict
from ponder.serve.errors import BadRequest
from ponder.serve.http.auth import Keys
from ponder.testing.scripted import Say, ScriptedSampler
from ponder.testing.tiny import tiny_sampler
from ponder.tokenizer import Tokenizer
from ponder.types import InvalidRequest

CHAT, TEXT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"
USER = {"role": "user", "content": "2+2?"}
ASKED = {
    CHAT: {"model": "said", "messages": [USER]},
    TEXT: {"model": "tiny", "prompt": "ab", "max_tokens": 2},
    RESPONSES: {"model": "said", "input": "2+2?"},
    MESSAGES: {"model": "said", "messages": [USER], "max_tokens": 50},
}
CALLS = [{"id": f"c{n}", "type": "function", "function": {"name": "f", "arguments": "{}"}} for n in (1, 2)]
CACHED = {"cache_control": {"type": "ephemeral"}}
FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}


def script(messages: Any, index: int) -> Say:
    """Says what it was given, so that a test sees it."""
    if messages[-1].text == "call":
        return Say("", calls=(ToolCall("f", "{}"), ToolCall("f", '{"x": 1}')))
    said = (each.text or [getattr(part, "content", "") for part in each.parts] for each in messages)
    return Say(" ".join(f"{each.role.value[0]}:{text}" for each, text in zip(messages, said, strict=True)))


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    models = [
        Served(name="said", sampler=ScriptedSampler(script)),
        Served(name="tiny", sampler=tiny_sampler(max_positions=128)),
    ]
    with serving(models) as running:
        yield running


def post(live: Live, path: str, **more: Any) -> dict[str, Any]:
    answer = httpx.post(live.root + path, json={**ASKED[path], **more}, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("path", ASKED)
def test_null_in_any_optional_field_means_that_it_was_not_given(live: Live, path: str) -> None:
    document = live.app.openapi()
    schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    fields = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    optional = set(fields["properties"]) - set(fields["required"]) - {*ASKED[path]}
    assert len(optional) > 10
    post(live, path, **dict.fromkeys(optional))


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        (CHAT, {"metadata": {"a": "b"}, "store": True, "verbosity": "medium", "prompt_cache_retention": "24h"}),
        (CHAT, {"service_tier": "flex", "modalities": ["text"], "top_logprobs": 0, "parallel_tool_calls": True}),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi", **CACHED}], **CACHED}]}),
        (CHAT, {"tools": [{"type": "function", "function": {"name": "f"}, **CACHED}], "tool_choice": "auto"}),
        (CHAT, {"tools": [], "tool_choice": "none", "repetition_penalty": 1.0}),
        (RESPONSES, {"client_metadata": {"s": "t"}, "text": {"verbosity": "medium"}, "max_tool_calls": 3}),
        (RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_text", "text": "hi", **CACHED}]}]}),
    ],
)
def test_a_hint_changes_nothing(live: Live, path: str, hint: dict[str, Any]) -> None:
    post(live, path, **hint)


def test_tools_that_only_other_servers_have_are_left_out_beside_functions(live: Live) -> None:
    namespace = {"type": "namespace", "name": "n", "description": "d", "tools": [FUNCTION]}
    answer = post(live, RESPONSES, tools=[FUNCTION, {"type": "web_search", "external_web_access": False}, namespace])
    assert [tool["type"] for tool in answer["tools"]] == ["function"]


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "content": "4", "refusal": None, "annotations": [], "audio": None, "tool_calls": None},
        {"role": "assistant", "content": "4", "tool_calls": [], "function_call": None, "annotations": None},
        {"role": "assistant", "content": "4", "parsed": {"sum": [4]}},
        {"role": "assistant", "content": [{"type": "text", "text": "4", "role": "assistant", "refusal": None}]},
    ],
)
def test_a_message_comes_back_as_clients_dump_it(live: Live, turn: dict[str, Any]) -> None:
    said = post(live, CHAT, messages=[USER, turn, USER])["choices"][0]["message"]["content"]
    assert said == "u:2+2? a:4 u:2+2?"


def test_results_come_in_any_order(live: Live) -> None:
    made = {"role": "assistant", "content": None, "tool_calls": [{**call, "index": 0} for call in CALLS]}
    results = [{"role": "tool", "tool_call_id": f"c{n}", "name": "f", "content": f"r{n}"} for n in (2, 1)]
    said = post(live, CHAT, messages=[USER, made, *results])["choices"][0]["message"]["content"]
    assert said.endswith("t:['r1', 'r2']")


@pytest.mark.parametrize("made", [None, {"x": [1, {"y": None}]}])
def test_what_an_sdk_made_of_the_arguments_comes_back_beside_them(live: Live, made: object) -> None:
    calls = [{**CALLS[0], "function": {**CALLS[0]["function"], "parsed_arguments": made}}]
    turns = [USER, {"role": "assistant", "content": None, "tool_calls": calls, "parsed": None}]
    said = post(live, CHAT, messages=[*turns, {"role": "tool", "tool_call_id": "c1", "content": "r"}])
    assert said["choices"][0]["message"]["content"].endswith("t:['r']")


def test_every_item_comes_back_and_may_be_named_instead(live: Live) -> None:
    user = {"role": "user", "content": "call"}
    first = post(live, RESPONSES, input=[user], tools=[FUNCTION])["output"]
    results = [{"type": "function_call_output", "call_id": each["call_id"], "output": "r"} for each in first]
    dumped = [{**each, "namespace": None, "caller": None, "phase": None} for each in first]
    named = [{"type": "item_reference", "id": each["id"]} for each in first]
    bare = [{"id": each["id"]} for each in first]
    parsed = [{**each, "parsed_arguments": json.loads(each["arguments"])} for each in first]
    histories = (dumped, named, bare, parsed)
    told = [post(live, RESPONSES, input=[user, *calls, *results])["output"][0] for calls in histories]
    assert len({each["content"][0]["text"] for each in told}) == 1
    message = {**told[0], "phase": None}
    post(live, RESPONSES, input=[USER, message, USER])
    (part,) = message["content"]
    post(live, RESPONSES, input=[USER, {**message, "content": [{**part, "parsed": {"sum": 4}}]}, USER])
    missing = httpx.post(f"{live.url}/responses", json={**ASKED[RESPONSES], "input": [{"id": "msg_none_0"}]})
    assert missing.status_code == 404
    assert missing.json()["error"]["param"] == "input"


@pytest.mark.parametrize("role", ["system", "developer"])
def test_instructions_stay_where_they_stand(live: Live, role: str) -> None:
    turns = [USER, {"role": "assistant", "content": "4"}, {"role": role, "content": "Be terse."}, USER]
    said = f"u:2+2? a:4 {role[0]}:Be terse. u:2+2?"
    assert post(live, CHAT, messages=turns)["choices"][0]["message"]["content"] == said
    assert post(live, RESPONSES, input=turns)["output"][0]["content"][0]["text"] == said


FAMILIES = Path(__file__).parents[1] / "golden" / "families"


@pytest.mark.parametrize(("family", "late"), [("qwen3", True), ("llama3", True), ("deepseek_r1", False)])
def test_a_model_is_given_instructions_as_its_format_has_them(family: str, late: bool) -> None:
    format = load_format(Tokenizer.load(FAMILIES / family))
    turns = [{"role": "developer", "content": "d"}, USER, {"role": "assistant", "content": "4"}]
    turns += [{"role": "developer", "content": "Be terse."}, USER]
    asked = ChatRequest.model_validate({"model": "x", "messages": turns})
    if late:
        read = read_chat_messages(asked.messages, format)
        assert [message.role.value for message in read] == ["system", "user", "assistant", "system", "user"]
        assert format.render(read).ids
        return
    with pytest.raises(BadRequest, match=r"messages\[3\].*at the beginning only") as refused:
        read_chat_messages(asked.messages, format)
    assert refused.value.param == "messages[3]"


@pytest.mark.parametrize("size", [100, 110, 118])
def test_a_prompt_that_fits_is_answered_however_little_it_leaves(live: Live, size: int) -> None:
    for path, field in ((CHAT, "messages"), (RESPONSES, "input")):
        text = "x" * size
        prompt = [{"role": "user", "content": text}] if path == CHAT else text
        post(live, path, model="tiny", **{field: prompt})


def test_penalties_hold(live: Live) -> None:
    ask = {"temperature": 0, "max_tokens": 40, "reasoning_effort": "none", "model": "tiny", "logit_bias": {"65": 5}}
    plain = post(live, CHAT, **ask)["choices"][0]["message"]["content"]
    assert len(set(plain)) == 1
    for penalty in ({"presence_penalty": 2, "frequency_penalty": 2}, {"repetition_penalty": 100.0}):
        assert post(live, CHAT, **ask, **penalty)["choices"][0]["message"]["content"] != plain


SERVE = Path(ponder.serve.__file__).parent
PAGES = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("api", ["chat", "completions", "responses", "messages", "common"])
def test_a_field_that_nothing_reads_is_listed_as_one_without_effect(api: str) -> None:
    read = "".join(file.read_text() for file in SERVE.rglob("*.py") if file.name != "wire.py")
    quoted = re.findall(r"`([^`]*)`", (PAGES / "serving.md").read_text())
    listed = {word for text in quoted for word in re.findall(r"\w+", text)}
    wire = importlib.import_module(f"ponder.serve.{api}.wire")
    checked = 0
    for kind in vars(wire).values():
        strict = getattr(kind, "__pydantic_config__", {}).get("strict")
        if not inspect.isclass(kind) or not (strict or issubclass(kind, Strict)):
            continue
        for name, hint in get_type_hints(kind).items():
            if hint is type(None) or name in ("model_config", "schema_"):  # null alone is accepted
                continue
            checked += 1
            assert re.search(rf'\.{name}\b|"{name}"', read) or name in listed, f"{kind.__name__}.{name}"
    assert checked > 5


# Browsers and gateways ------------------------------------------------------------------------------------------------

ORIGIN = "http://localhost:5173"


def test_pages_of_named_origins_may_ask_and_others_may_not() -> None:
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    keys = Keys({"a": hashlib.sha256(b"k").digest()})
    with serving([Served(name="said", sampler=ScriptedSampler(script))], Settings(cors=f"{ORIGIN}/, x"), keys) as live:
        allowed = httpx.request("OPTIONS", live.root + CHAT, headers={"Origin": ORIGIN, **asks})
        assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, ORIGIN)
        for key, status in (("k", 200), ("none", 401)):
            listed = httpx.get(f"{live.url}/models", headers={"Origin": ORIGIN, "X-API-Key": key})
            assert (listed.status_code, listed.headers["access-control-allow-origin"]) == (status, ORIGIN)
        other = httpx.request("OPTIONS", live.root + CHAT, headers={"Origin": "http://evil.example", **asks})
        assert "access-control-allow-origin" not in other.headers


def test_all_origins_need_keys() -> None:
    with pytest.raises(InvalidRequest, match="name the allowed origins"):
        Settings(cors="*")


def test_head_slashes_and_a_prefix_of_the_path() -> None:
    with serving([Served(name="said", sampler=ScriptedSampler(script))], Settings(root_path="/ponder")) as live:
        for path in ("/v1/models", "/v1/models/", "/ponder/v1/models", "/ponder/health/"):
            assert httpx.get(live.root + path).status_code == 200, path
            head = httpx.head(live.root + path)
            assert (head.status_code, head.content) == (200, b""), path
        assert httpx.get(f"{live.root}/ponderous/v1/models").status_code == 404
        assert httpx.post(f"{live.root}/ponder{CHAT}/", json=ASKED[CHAT]).status_code == 200


def test_a_connection_rests_for_two_minutes() -> None:
    with serving([Served(name="said", sampler=ScriptedSampler(script))]) as live:
        assert live.server.config.timeout_keep_alive == 120


# In front of another server -------------------------------------------------------------------------------------------


@contextmanager
def proxy(
    status: int, answer: dict[str, Any] | list[dict[str, Any]], **headers: str
) -> Iterator[tuple[Live, list[dict[str, Any]]]]:
    """A server of ours before one that gives this answer (a list: a stream), and the bodies that that one gets."""
    asked: list[dict[str, Any]] = []

    class Upstream(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            data = json.dumps(answer).encode()
            if isinstance(answer, list):
                data = (
                    b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in answer) + b"data: [DONE]\n\n"
                )
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(data)

    upstream = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    try:
        sampler = EndpointSampler(f"http://127.0.0.1:{upstream.server_address[1]}/v1", "m", retries=0)
        with serving([Served(name="said", sampler=sampler)]) as running:
            yield running, asked
    finally:
        upstream.shutdown()
        upstream.server_close()


def told(finish: str, message: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": message or {"content": "Hi"}, "finish_reason": finish}], **more}


def chunks(*deltas: dict[str, Any], finish: str = "stop") -> list[dict[str, Any]]:
    """A stream of one choice."""
    told = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    return [*told, {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}]


@pytest.mark.parametrize("word", ["content_filter", "insufficient_system_resource"])
def test_the_reason_and_the_unknown_bill_of_a_server_behind_are_passed_on(word: str) -> None:
    with proxy(200, told(word)) as (live, asked):
        answer = post(live, CHAT)
        assert answer["choices"][0]["finish_reason"] == word
        assert answer["usage"] is None
        assert post(live, RESPONSES)["usage"] is None
    assert not asked[0].keys() & {"temperature", "top_p"}


def client_of(live: Live) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=live.root, api_key="none", max_retries=0)


def test_a_bill_that_does_not_exist_is_estimated_where_the_api_wants_numbers() -> None:
    asked: Any = {"model": "said", "max_tokens": 9, "messages": [{"role": "user", "content": "word " * 40}]}
    with proxy(200, told("stop")) as (live, _):
        usage = client_of(live).messages.create(**asked).usage
        assert (usage.input_tokens, usage.output_tokens, usage.model_extra) == (50, 1, {"estimated": True})
        assert client_of(live).messages.count_tokens(model="said", messages=asked["messages"]).input_tokens == 50
    with proxy(200, chunks({"content": "Hi"})) as (live, _), client_of(live).messages.stream(**asked) as stream:
        first, *_, last = (event for event in stream if event.type in ("message_start", "message_delta"))
        assert first.message.usage.input_tokens == 50
        assert (last.usage.input_tokens, last.usage.output_tokens) == (50, 1)


REFUSED: dict[str, Any] = {"content": None, "refusal": "I will not."}


def test_a_refusal_is_carried_through() -> None:
    with proxy(200, told("stop", REFUSED)) as (live, asked), live.client() as client:
        message = client.chat.completions.create(model="said", messages=[USER]).choices[0].message
        assert (message.content, message.refusal) == (None, "I will not.")
        response = client.responses.create(model="said", input="2+2?")
        assert response.output[0].content[0].to_dict() == {"type": "refusal", "refusal": "I will not."}
        named = [USER, {"type": "item_reference", "id": response.output[0].id}, USER]
        for history in ([USER, message.to_dict(), USER], [USER, response.output[0].to_dict(), USER], named):
            if history[1] == message.to_dict():
                client.chat.completions.create(model="said", messages=history)
            else:
                client.responses.create(model="said", input=history)
            assert asked[-1]["messages"][1] == {"role": "assistant", **REFUSED}
        told_in_messages = client_of(live).messages.create(model="said", max_tokens=9, messages=[USER])
        assert (told_in_messages.content[0].text, told_in_messages.stop_reason) == ("I will not.", "refusal")


def test_a_refusal_is_streamed_as_one() -> None:
    with proxy(200, chunks({"refusal": "I will"}, {"refusal": " not."})) as (live, _), live.client() as client:
        with client.chat.completions.stream(model="said", messages=[USER]) as chat:
            kinds = {event.type for event in chat}
            message = chat.get_final_completion().choices[0].message
        assert "refusal.done" in kinds
        assert (message.content, message.refusal) == (None, "I will not.")
        with client.responses.stream(model="said", input="2+2?") as response:
            kinds = {event.type for event in response}
            assert {"response.refusal.delta", "response.refusal.done"} <= kinds
            assert response.get_final_response().output[0].content[0].refusal == "I will not."


def test_calls_whose_arguments_come_in_turns_are_whole_blocks() -> None:
    turns = [(0, '{"x"'), (1, '{"x":'), (0, ": 1}"), (1, " 2}")]
    begun: set[int] = set()
    deltas = []
    for index, arguments in turns:
        named = {} if index in begun else {"id": f"c{index}", "type": "function"}
        function = {"arguments": arguments} if index in begun else {"name": "f", "arguments": arguments}
        deltas.append({"tool_calls": [{"index": index, **named, "function": function}]})
        begun.add(index)
    tools: Any = [{"name": "f", "input_schema": {"type": "object", "properties": {}}}]
    with proxy(200, chunks(*deltas, finish="tool_calls")) as (live, _):
        asked: Any = {"model": "said", "max_tokens": 9, "messages": [USER], "tools": tools}
        with client_of(live).messages.stream(**asked) as stream:
            blocks = [event.index for event in stream if event.type.startswith("content_block")]
            calls = stream.get_final_message().content
    assert blocks == sorted(blocks)
    assert [(call.id, call.input) for call in calls] == [("c0", {"x": 1}), ("c1", {"x": 2})]


def test_an_error_in_the_middle_of_a_stream_is_seen() -> None:
    broken = [*chunks({"content": "Hi"})[:1], {"error": {"message": "gone"}}]
    asked: Any = {"model": "said", "max_tokens": 9, "messages": [USER]}
    with (
        proxy(200, broken) as (live, _),
        client_of(live).messages.stream(**asked) as stream,
        pytest.raises(anthropic.APIStatusError) as caught,
    ):
        list(stream)
    assert caught.value.body["type"] == "error"
    assert caught.value.body["error"]["type"] == "api_error"


def test_an_error_has_the_shape_of_its_api(live: Live) -> None:
    long = {"role": "user", "content": "word " * 200}
    refused = httpx.post(live.root + MESSAGES, json={**ASKED[MESSAGES], "model": "tiny", "messages": [long]}).json()
    assert (refused["type"], refused["error"]["code"]) == ("error", "context_length_exceeded")
    assert refused["error"]["message"].startswith("prompt is too long: ")
    assert "type" not in httpx.post(live.root + CHAT, json={}).json()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, RESPONSES, MESSAGES])
def test_a_rate_limit_of_a_server_behind_is_passed_on(path: str, stream: bool) -> None:
    with proxy(429, {"error": {"message": "slow"}}, Retry_After="90") as (live, _):
        answer = httpx.post(live.root + path, json={**ASKED[path], "stream": stream})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "90")


@pytest.mark.parametrize(
    "said",
    [
        {"code": "context_length_exceeded"},
        {"message": "This model's maximum context length is 9"},
        {"message": "The prompt (total length 9) is longer than the maximum model length of 4"},
        {"message": "Input token count (9) exceeds the maximum number of tokens allowed (4)"},
        {"message": "Please reduce the length of the messages or completion."},
        {"message": "x", "type": "context_length_exceeded"},
    ],
)
def test_an_overflow_of_a_server_behind_is_known(said: dict[str, str]) -> None:
    with proxy(400, {"error": said}) as (live, _):
        error = httpx.post(live.root + CHAT, json=ASKED[CHAT]).json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert "maximum context length" in error["message"]


def test_an_error_object_within_a_stream_is_what_it_is_outside_one() -> None:
    for said, status in (({"code": "context_length_exceeded", "message": "x"}, 400), ({"code": 429}, 429)):
        with proxy(200, [{"error": said}]) as (live, _):
            answer = httpx.post(live.root + CHAT, json={**ASKED[CHAT], "stream": True})
        assert answer.status_code == status
        assert status != 400 or answer.json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize("arguments", [['{"x":1}', '{"x":2}'], [{"x": 1}, {"x": 2}]])
def test_calls_of_one_index_without_ids_are_several_when_each_is_whole(arguments: list[Any]) -> None:
    """And nothing is sent that was not asked for."""
    made = [{"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": each}}]} for each in arguments]
    with proxy(200, chunks(*made, finish="tool_calls")) as (live, asked), live.client() as client:
        tools: Any = [{"type": "function", "function": {"name": "f"}}]
        with client.chat.completions.stream(model="said", messages=[USER], tools=tools) as stream:
            calls = stream.get_final_completion().choices[0].message.tool_calls
    assert [json.loads(call.function.arguments) for call in calls] == [{"x": 1}, {"x": 2}]
    assert asked[0].keys() == {
        "model",
        "messages",
        "tools",
        "stream",
        "stream_options",
    }
