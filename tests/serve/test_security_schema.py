"""What the OpenAPI document says holds: zero server errors, every answer conforms, what it forbids is refused."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from live import Live, serving
from pydantic import TypeAdapter, ValidationError
from walk import Found, walk

from ponder.serve import Served, Settings, create_app
from ponder.serve.common.wire import No
from ponder.serve.http.auth import Keys
from ponder.testing.scripted import Say, ScriptedSampler
from ponder.testing.tiny import tiny_sampler

KEY = "key-of-a"
KEYS = Keys({"a": hashlib.sha256(KEY.encode()).digest()})
CHAT = "POST /v1/chat/completions"
ENDLESS = "/v1/jobs/events"  # a stream that never ends is not walked: test_jobs.py reads it


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    models = [
        Served(name="tiny", sampler=tiny_sampler(max_positions=128)),
        Served(name="said", sampler=ScriptedSampler(lambda _, index: Say("Four.", reasoning=f"Two {index}."))),
    ]
    with serving(models, Settings(samples=4), KEYS) as running:
        yield running


def _document(live: Live, *without: str) -> dict[str, Any]:
    """The document, with the models' names for `model`. without: fields of requests that are left out."""
    document = copy.deepcopy(live.app.openapi())
    del document["paths"][ENDLESS]
    for schema in document["components"]["schemas"].values():
        properties = schema.get("properties", {})
        if "model" in properties and schema.get("additionalProperties") is False:
            properties["model"] = {"enum": ["tiny", "said"]}
            for name in without:
                properties.pop(name, None)
    return document


def _assert_sound(found: Found) -> None:
    assert not found.wrong, "\n".join(f"{what}\n  {how[:600]}" for what, how in found.wrong.items())
    assert not [each for each in found.answered if each[1] >= 500]


def test_a_few_requests_of_every_kind(live: Live) -> None:
    found = walk(_document(live), live.root, KEY, examples=10, phases=("fuzzing",))
    _assert_sound(found)
    assert set(found.sent) == {
        f"{method.upper()} {path}" for path, methods in _document(live)["paths"].items() for method in methods
    }
    assert found.answered[CHAT, 200]
    assert found.answered[CHAT, 400]


def test_the_walk_sees_what_is_wrong(live: Live) -> None:
    """A document that promises what the server does not keep: so a walk without findings says something."""
    document = _document(live)
    document["paths"] = {"/health": document["paths"]["/health"]}
    document["components"]["schemas"]["Health"]["required"] = ["more"]
    assert walk(document, live.root, KEY, examples=2, phases=("fuzzing",), mode="positive").wrong


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("phase", ["coverage", "fuzzing", "stateful"])
def test_many_requests_of_every_kind(live: Live, phase: str) -> None:
    _assert_sound(walk(_document(live), live.root, KEY, examples=200, phases=("examples", phase)))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_requests_that_can_be_answered(live: Live) -> None:
    """Without the fields that only go with others, most requests reach the sampler."""
    without = "top_logprobs stream_options max_tokens strategy thinking_token_budget frequency_penalty presence_penalty"
    document = _document(live, *without.split(), "tools", "tool_choice", "stop_token_ids", "logit_bias")
    found = walk(document, live.root, KEY, examples=200, phases=("coverage", "fuzzing"), mode="positive")
    _assert_sound(found)
    assert found.answered[CHAT, 200] >= 100


@pytest.mark.parametrize("wrong", [0, 0.0, None, ""])
def test_zero_is_not_false(wrong: object) -> None:
    assert TypeAdapter(No).validate_python(False) is False
    with pytest.raises(ValidationError):
        TypeAdapter(No).validate_python(wrong)


# The document's own bounds --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app([Served(name="said", sampler=ScriptedSampler(()))]).openapi()


def test_everything_that_a_request_may_hold_has_an_upper_bound(document: dict[str, Any]) -> None:
    unbounded = [
        f"{place}: {what}" for place, schema in _asked(document) for what in _unbounded(schema, document, place, set())
    ]
    assert not unbounded, "\n".join(unbounded)


def _asked(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The schemas of all bodies and parameters."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for parameter in operation.get("parameters", ()):
                yield f"{method} {path} ?{parameter['name']}", parameter["schema"]
            for kind, content in operation.get("requestBody", {}).get("content", {}).items():
                assert kind == ("multipart/form-data" if path == "/v1/files" else "application/json")
                yield f"{method} {path}", content["schema"]


def _unbounded(schema: dict[str, Any], document: dict[str, Any], place: str, seen: set[str]) -> Iterator[str]:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name not in seen:
            seen.add(name)
            yield from _unbounded(document["components"]["schemas"][name], document, name, seen)
        return
    if "enum" in schema or "const" in schema:
        return
    kinds = [schema[name] for name in ("anyOf", "oneOf", "allOf") if name in schema]
    for each in (kind for some in kinds for kind in some):
        yield from _unbounded(each, document, place, seen)
    needed = {"string": ["maxLength"], "array": ["maxItems"], "integer": ["minimum", "maximum"], "object": []}
    needed |= {"number": [], "boolean": [], "null": []}
    kind = schema.get("type")
    if kind is None:
        if not kinds:
            yield f"{place}: anything at all"
        return
    yield from (f"{place} has no {bound}" for bound in needed[kind] if bound not in schema)
    if kind == "number":
        for low_or_high in ("inimum", "aximum"):
            if not any(low_or_high in name for name in schema):
                yield f"{place} has no bound"
    if kind == "array" and schema.get("maxItems"):
        yield from _unbounded(schema["items"], document, f"{place}[]", seen)
    if kind == "object":
        for name, each in schema.get("properties", {}).items():
            yield from _unbounded(each, document, f"{place}.{name}", seen)
        for each in schema.get("patternProperties", {}).values():
            yield from _unbounded(each, document, f"{place}.*", seen)
        if schema.get("additionalProperties") is not False and "maxProperties" not in schema:
            yield f"{place} has no maxProperties"


def test_every_operation_documents_its_errors_and_its_key() -> None:
    document = create_app([Served(name="said", sampler=ScriptedSampler(()))], keys=KEYS).openapi()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for kind in ("4XX", "5XX"):
                schema = operation["responses"][kind]["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/ErrorObject"}, (path, method)
            assert bool(operation["security"]) is (path != "/health")
            good = operation["responses"]["200"]["content"]
            assert all(content.get("schema") for content in good.values()), (path, method, "200 says nothing")
