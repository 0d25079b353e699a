"""A local HTTP server that plays an OpenAI-compatible endpoint, its faults included."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ponder.dialogue.messages import Message, Reasoning, Role, Text
from ponder.sampler.dialect import REASONING_FIELD, Dialect
from ponder.testing.scripted import Prompter, Script, Spoken, count_prompt, speak, words
from ponder.types import Phase, StopReason, ThinkingLimits, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What goes wrong with one request.

    status: answer with this error, `body` and `headers`.
    delay: seconds of silence first.
    cut_after: close the connection after that many bytes of the response's body.
    garbage: send this as the body of a successful response.
    stall_after: a stream falls silent after that many words, until the client hangs up.
    """

    status: int | None = None
    body: str = '{"error": {"message": "scripted fault"}}'
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut_after: int | None = None
    garbage: str | None = None
    stall_after: int | None = None


class StubEndpoint:
    """Serves `script` (see `ScriptedSampler`) on a free port, on the loopback interface only.

    with StubEndpoint(["Hello."]) as stub: EndpointSampler(stub.url, "stub")

    dialect: whose fields it speaks; under OPENAI reasoning is counted but hidden.
    faults: met by the first requests, in order, None for none.
    bare_usage: whether the bill lacks the count of reasoning tokens.
    requests: the bodies received so far, with `headers` beside them.
    most_at_once: the largest number of requests under way together.
    counted: what it would bill: every word that it has said, those of streams included that broke off or were closed.
    """

    def __init__(
        self,
        script: Script = (),
        *,
        dialect: Dialect | str = Dialect.OPENAI,
        faults: Iterable[Fault | None] = (),
        models: Iterable[str] = ("stub",),
        bare_usage: bool = False,
    ) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.hung_up = threading.Event()
        self.most_at_once = 0
        self.counted = Usage()
        self.dialect = Dialect(dialect)
        self.models = list(models)
        self.bare_usage = bare_usage
        self._prompter = Prompter(script)
        self._faults: Iterator[Fault | None] = iter(faults)
        self._lock = threading.Lock()
        self._at_once = 0
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> StubEndpoint:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    # What a handler asks ----------------------------------------------------------------------------------------------

    def arrived(self, body: dict[str, Any], headers: dict[str, str]) -> Fault:
        with self._lock:
            self.requests.append(body)
            self.headers.append(headers)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            return next(self._faults, None) or Fault()

    def left(self) -> None:
        with self._lock:
            self._at_once -= 1

    def spoken(self, body: dict[str, Any]) -> list[tuple[Spoken, float]]:
        """What each choice says, and how long it takes."""
        conversation = _conversation(body)
        off = (
            body.get("reasoning_effort") == "none"
            or body.get("thinking") == {"type": "disabled"}
            or body.get("chat_template_kwargs") == {"enable_thinking": False}
        )
        lines = [self._prompter.next(conversation, index) for index in range(body.get("n", 1))]
        return [
            (
                speak(
                    line,
                    max_tokens=body.get("max_tokens", body.get("max_completion_tokens")),
                    thinking=ThinkingLimits(cap=0 if off else body.get("thinking_token_budget")),
                    stop=tuple(body.get("stop", ())),
                ),
                line.seconds,
            )
            for line in lines
        ]

    def is_busy(self) -> bool:
        """Whether a request is under way."""
        return self._at_once > 0

    def count(self, usage: Usage) -> None:
        with self._lock:
            self.counted += usage

    def usage(self, body: dict[str, Any], spoken: list[Spoken]) -> dict[str, Any]:
        bill: dict[str, Any] = {
            "prompt_tokens": count_prompt(_conversation(body)),
            "completion_tokens": sum(each.completion_tokens for each in spoken),
        }
        if not self.bare_usage:
            bill["completion_tokens_details"] = {"reasoning_tokens": sum(each.reasoning_tokens for each in spoken)}
        return bill

    def wire(self, spoken: Spoken) -> dict[str, Any]:
        """A message in the dialect's fields."""
        message: dict[str, Any] = {"role": "assistant", "content": "".join(spoken.text)}
        if spoken.reasoning and self.dialect in REASONING_FIELD:
            message[REASONING_FIELD[self.dialect]] = "".join(spoken.reasoning)
        if spoken.calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in spoken.calls
            ]
        return message

    def ending(self, spoken: Spoken) -> dict[str, Any]:
        """How a choice ends."""
        end: dict[str, Any] = {"finish_reason": "length" if spoken.stop_reason is StopReason.LENGTH else "stop"}
        if spoken.calls:
            end["finish_reason"] = "tool_calls"
        if self.dialect is Dialect.VLLM:
            end["stop_reason"] = "stop string" if spoken.stop_reason is StopReason.STOP else None
        return end


def _more(now: Usage, before: Usage) -> Usage:
    return Usage(
        completion_tokens=now.completion_tokens - before.completion_tokens,
        reasoning_tokens=now.reasoning_tokens - before.reasoning_tokens,
    )


def _wire_usage(so_far: Usage, prompt_tokens: int) -> dict[str, Any]:
    """The running count of one choice."""
    details = {"reasoning_tokens": so_far.reasoning_tokens}
    tokens = {"prompt_tokens": prompt_tokens, "completion_tokens": so_far.completion_tokens}
    return {"usage": {**tokens, "completion_tokens_details": details}}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # many connections at once do not wait for each other


def _conversation(body: dict[str, Any]) -> list[Message]:
    return [
        Message(
            Role(each["role"]),
            (Text(each.get("content") or ""), Reasoning(each.get("reasoning") or each.get("reasoning_content") or "")),
        )
        for each in body["messages"]
    ]


def _call_pieces(calls: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Calls as they are streamed: name and id first, then the arguments word by word."""
    for index, call in enumerate(calls):
        function = call["function"]
        yield {"index": index, **call, "function": {"name": function["name"], "arguments": ""}}
        for word in words(function["arguments"]):
            yield {"index": index, "function": {"arguments": word}}


def _handler(stub: StubEndpoint) -> Callable[..., BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        left_to_send: int | None = None
        stall_after: int | None = None

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing is logged."""

        def do_GET(self) -> None:
            self.whole(200, {"data": [{"id": name} for name in stub.models]} if self.path == "/v1/models" else {})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            fault = stub.arrived(body, dict(self.headers))
            try:
                self.answer(body, fault)
            except (BrokenPipeError, ConnectionResetError):
                stub.hung_up.set()
            finally:
                stub.left()

        def answer(self, body: dict[str, Any], fault: Fault) -> None:
            time.sleep(fault.delay)
            self.left_to_send, self.stall_after = fault.cut_after, fault.stall_after
            if fault.status is not None:
                return self.raw(fault.status, fault.body, fault.headers)
            if fault.garbage is not None:
                return self.raw(200, fault.garbage, {})
            spoken = stub.spoken(body)
            if body.get("stream"):
                return self.events(body, spoken)
            time.sleep(max(seconds for _, seconds in spoken))
            said = [each for each, _ in spoken]
            choices = [
                {"index": index, "message": stub.wire(each), **stub.ending(each)} for index, each in enumerate(said)
            ]
            for each in said:
                stub.count(Usage(completion_tokens=each.completion_tokens, reasoning_tokens=each.reasoning_tokens))
            stub.count(Usage(prompt_tokens=count_prompt(_conversation(body))))
            return self.whole(200, {"choices": choices, "usage": stub.usage(body, said)})

        def events(self, body: dict[str, Any], spoken: list[tuple[Spoken, float]]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            shown = REASONING_FIELD.get(stub.dialect)
            prompt = count_prompt(_conversation(body))
            stub.count(Usage(prompt_tokens=prompt))
            if self.counts(body):
                self.event({"choices": [{"index": 0, "delta": {"role": "assistant"}}], **_wire_usage(Usage(), prompt)})
            for index, (each, seconds) in enumerate(spoken):
                pieces = [(Phase.THINK, word) for word in each.reasoning]
                pieces += [(Phase.ANSWER, word) for word in each.text]
                for place, (phase, word) in enumerate(pieces):
                    if place == self.stall_after:
                        self.stall()
                    time.sleep(seconds / len(pieces))
                    so_far = each.so_far(place + 1)
                    name = shown if phase is Phase.THINK else "content"
                    if name is not None:
                        running = _wire_usage(so_far, prompt) if self.counts(body) else {}
                        self.event({"choices": [{"index": index, "delta": {name: word}}], **running})
                    stub.count(_more(so_far, each.so_far(place)))
                stub.count(_more(Usage(0, each.completion_tokens, each.reasoning_tokens), each.so_far(len(pieces))))
                for piece in _call_pieces(stub.wire(each).get("tool_calls", [])):
                    self.event({"choices": [{"index": index, "delta": {"tool_calls": [piece]}}]})
                self.event({"choices": [{"index": index, "delta": {}, **stub.ending(each)}]})
            self.event({"choices": [], "usage": stub.usage(body, [each for each, _ in spoken])})
            self.chunk(b"data: [DONE]\n\n")
            self.wfile.write(b"0\r\n\r\n")

        def counts(self, body: dict[str, Any]) -> bool:
            return bool(body.get("stream_options", {}).get("continuous_usage_stats"))

        def stall(self) -> None:
            """Say nothing more. The client says nothing either, unless it hangs up."""
            self.connection.recv(1)
            raise BrokenPipeError

        def event(self, data: dict[str, Any]) -> None:
            self.chunk(f"data: {json.dumps(data)}\n\n".encode())

        def chunk(self, data: bytes) -> None:
            self.cut(f"{len(data):x}\r\n".encode() + data + b"\r\n")

        def whole(self, status: int, data: dict[str, Any]) -> None:
            self.raw(status, json.dumps(data), {})

        def raw(self, status: int, text: str, headers: dict[str, str]) -> None:
            data = text.encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.cut(data)

        def cut(self, data: bytes) -> None:
            """Send, until the fault's limit is reached."""
            if self.left_to_send is not None:
                data = data[: self.left_to_send]
                self.left_to_send -= len(data)
            self.wfile.write(data)
            self.wfile.flush()
            if self.left_to_send == 0:
                raise BrokenPipeError

        def finish(self) -> None:
            try:
                super().finish()
            except (BrokenPipeError, ConnectionResetError):
                stub.hung_up.set()

    return Handler
