"""Grammars as constraints: what is allowed, where the answer may end, and what is refused."""

import gc
import json
import re
import sys
import time
import weakref

import pytest
import torch

from ponder.dialogue import CONTROL_TOKENS, load_format
from ponder.engine.sequence import Constraint
from ponder.sampler.grammar import MAX_COMBINED, MAX_PATTERN, MAX_SCHEMA, compile_grammar
from ponder.sampler.protocol import JsonSchema, Regex
from ponder.testing.tiny import ByteTokenizer
from ponder.tokenizer import Tokenizer
from ponder.types import InvalidRequest, MissingExtra, PhaseTokens

TOKENIZER = ByteTokenizer()
TOKENS = load_format(TOKENIZER).phase_tokens
POINT = json.dumps(
    {
        "type": "object",
        "properties": {"x": {"type": "integer"}, "tags": {"type": "array", "items": {"enum": ["a", "b"]}}},
        "required": ["x", "tags"],
        "additionalProperties": False,
    }
)


def compiled(grammar, **options):
    return compile_grammar(grammar, TOKENIZER, TOKENS, **options)


def allowed_ids(constraint):
    return constraint.allowed().nonzero().flatten().tolist()


def say(constraint, text):
    """Advance over `text`, one byte an id. Every id must be among the allowed."""
    for id in TOKENIZER.encode(text):
        assert constraint.allowed()[id], f"{TOKENIZER.decode([id])!r} of {text!r}"
        constraint.advance(id)


def takes(grammar, text):
    """Whether the whole of `text` may be said, and the answer end there."""
    constraint = compiled(grammar)
    for id in TOKENIZER.encode(text):
        if not constraint.allowed()[id]:
            return False
        constraint.advance(id)
    return bool(constraint.allowed()[TOKENS.end[0]])


# What is allowed ------------------------------------------------------------------------------------------------------


def test_the_mask_covers_the_models_vocabulary():
    constraint: Constraint = compiled(Regex("ab|c"), vocab_size=352)
    mask = constraint.allowed()
    assert mask.dtype is torch.bool
    assert mask.shape == (352,)
    assert sorted(map(TOKENIZER.token_bytes, allowed_ids(constraint))) == [b"a", b"c"]


def test_every_end_id_is_allowed_where_the_text_may_end_and_only_they_where_it_must():
    constraint = compiled(Regex("ab?"))
    assert not set(TOKENS.end) & set(allowed_ids(constraint))
    say(constraint, "a")
    assert set(allowed_ids(constraint)) == {*TOKENIZER.encode("b"), *TOKENS.end}
    say(constraint, "b")
    assert set(allowed_ids(constraint)) == set(TOKENS.end)


@pytest.mark.parametrize("end", TOKENS.end)
def test_nothing_breaks_behind_the_end(end):
    constraint = compiled(Regex("a+"))
    say(constraint, "a")
    constraint.advance(end)
    constraint.advance(end)
    assert set(allowed_ids(constraint)) == set(TOKENS.end)
    assert set(allowed_ids(constraint.fork())) == set(TOKENS.end)
    with pytest.raises(InvalidRequest, match="must end here"):
        constraint.advance(TOKENIZER.encode("a")[0])


@pytest.mark.parametrize("id", [TOKENIZER.encode("x")[0], TOKENS.end[0], TOKENS.think_open, -1, 10_000])
def test_an_id_that_is_not_allowed_is_refused(id):
    with pytest.raises(InvalidRequest):
        compiled(Regex("ab?")).advance(id)


def test_forks_go_their_own_ways():
    first = compiled(JsonSchema(POINT))
    say(first, '{"x": 1')
    second = first.fork()
    say(first, '2, "tags":["a"]}')
    assert set(allowed_ids(first)) == set(TOKENS.end)
    say(second, ',"tags":[]}')
    assert set(allowed_ids(second)) == set(TOKENS.end)


def test_an_id_outside_the_mask_leads_out_of_the_grammar():
    constraint = compiled(JsonSchema('{"type": "array", "items": {"type": "boolean"}}'))
    say(constraint, "[true")
    mask = constraint.allowed()
    for id in range(TOKENIZER.vocab_size):
        fork = constraint.fork()
        if mask[id]:
            fork.advance(id)
        else:
            with pytest.raises(InvalidRequest):
                fork.advance(id)


# JSON as it is written ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ['{"x":1,"tags":["a","b"]}', '{"x": 1, "tags": ["a", "b"]}', '{"x":-10, "tags":[]}'])
def test_json_may_have_one_space_behind_commas_and_colons(text):
    assert takes(JsonSchema(POINT), text)


@pytest.mark.parametrize(
    "text",
    [
        ' {"x":1,"tags":[]}',
        '{ "x":1,"tags":[]}',
        '{"x":  1,"tags":[]}',
        '{"x":1,\n"tags":[]}',
        '{"x":1,"tags":[]} ',
        '{"tags":[],"x":1}',  # the schema's order
        '{"x":1.5,"tags":[]}',
        '{"x":1,"tags":["c"]}',
        '{"x":1,"tags":[],"y":1}',
    ],
)
def test_what_the_schema_or_the_style_has_no_place_for(text):
    assert not takes(JsonSchema(POINT), text)


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({}, ["1", '"é"', "[null, {}]"], ["", "tru", "[1"]),
        ({"const": "é\n"}, ['"é\\n"'], ['"é\n"', '"é"']),
        ({"type": "string", "maxLength": 2}, ['""', '"好e"'], ['"abc"']),
        ({"type": "string", "pattern": "^a+$"}, ['"aa"'], ['"b"', '""']),
        ({"type": "integer", "minimum": 3, "maximum": 12}, ["3", "12"], ["2", "13", "03"]),
        ({"type": "integer", "multipleOf": 7}, ["0", "21"], ["20"]),
        ({"anyOf": [{"type": "null"}, {"type": "array", "maxItems": 1}]}, ["null", "[]", "[1]"], ["1", "[1,2]"]),
        ({"type": "string", "format": "date"}, ['"2024-02-29"'], ['"2024-13-01"']),
        ({"type": "array", "items": {"$ref": "#"}}, ["[]", "[[], [[]]]"], ["[1]", "[[]"]),
    ],
)  # fmt: skip
def test_keywords(schema, good, bad):
    grammar = JsonSchema(json.dumps(schema))
    assert all(takes(grammar, text) for text in good)
    assert not any(takes(grammar, text) for text in bad)


def test_a_pattern_may_be_anchored_and_hold_slashes():
    assert takes(Regex(r'^a/b"\d$'), 'a/b"7')
    assert not takes(Regex(r'^a/b"\d$'), 'xa/b"7')


# Control tokens -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*CONTROL_TOKENS[:12], "\N{BYTE ORDER MARK}", "\N{REPLACEMENT CHARACTER}"])
def test_text_that_spells_a_control_token_is_ordinary_text(name):
    constraint = compiled(JsonSchema(json.dumps({"enum": [name]})))
    say(constraint, json.dumps(name, ensure_ascii=False))
    assert set(allowed_ids(constraint)) == set(TOKENS.end)


@pytest.mark.parametrize(
    "grammar", [Regex(r"(?s).*"), Regex("[^a]+"), JsonSchema("{}"), JsonSchema('{"type":"string"}')]
)
def test_control_ids_are_never_text(grammar):
    constraint = compiled(grammar, vocab_size=400)
    for text in ('"', "<", "|"):
        assert not [id for id in allowed_ids(constraint) if TOKENIZER.is_control(id) and id not in TOKENS.end]
        assert not constraint.allowed()[TOKENIZER.vocab_size :].any()
        if constraint.allowed()[TOKENIZER.encode(text)[0]]:
            say(constraint, text)


# Tokenizers -----------------------------------------------------------------------------------------------------------


def test_a_grammar_does_not_keep_its_tokenizer_alive():
    tokenizer = ByteTokenizer()
    constraint = compile_grammar(Regex("a"), tokenizer, load_format(tokenizer).phase_tokens)
    gone = weakref.ref(tokenizer)
    del tokenizer
    gc.collect()
    assert gone() is not None, "the constraint needs it"
    assert constraint.allowed().any()
    del constraint
    gc.collect()
    assert gone() is None


def test_forced_text_that_the_tokenizer_would_rewrite_is_said_all_the_same():
    spec = {**TOKENIZER._spec, "normalizer": {"type": "NFC"}}
    tokenizer = Tokenizer(spec)
    decomposed = "e\N{COMBINING ACUTE ACCENT}"
    assert tokenizer.decode(tokenizer.encode(decomposed)) != decomposed
    constraint = compile_grammar(Regex(decomposed), tokenizer, load_format(tokenizer).phase_tokens)
    said = []
    while (ids := allowed_ids(constraint))[0] not in TOKENS.end:
        constraint.advance(ids[0])
        said.append(ids[0])
    assert tokenizer.decode(said) == decomposed


def test_ids_that_the_vocabulary_leaves_out_are_not_allowed():
    spec = json.loads(json.dumps(TOKENIZER._spec))
    control = {token["content"]: token["id"] for token in spec["added_tokens"]}
    ids = {**spec["model"]["vocab"], **control}
    spec["model"]["vocab"] = {token: id + (id >= 50) for token, id in ids.items()}
    spec["added_tokens"] = [{**token, "id": token["id"] + 1} for token in spec["added_tokens"]]
    tokenizer = Tokenizer(spec)
    assert tokenizer.decode([50]) == "\N{REPLACEMENT CHARACTER}"
    mask = compile_grammar(Regex(r"(?s).+"), tokenizer, load_format(tokenizer).phase_tokens).allowed()
    assert mask[48:52].tolist() == [True, True, False, True]


# Refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ("{", "not valid JSON"),
        ("[]", "must be a JSON object"),
        (7, "int"),
        ('{"type": "strin"}', "Invalid type: strin"),
        ('{"type": "array", "uniqueItems": true}', "uniqueItems"),
        ('{"oneOf": [{"type": "string"}, {"type": "string", "maxLength": 3}]}', "use anyOf"),
        ('{"type": "string", "minLength": 3, "maxLength": 2}', "minLength"),
        ('{"$ref": "#"}', "matches no text"),
        ('{"$ref": "#/$defs/gone"}', "gone"),
        ('{"$ref": "https://example.com/schema"}', "example.com"),
        ('{"const": 1e999}', "out of range"),
        ('{"x-guidance": {"whitespace_flexible": true}}', "x-guidance"),
    ],
)
def test_a_schema_that_cannot_be_kept_is_refused_and_the_text_says_why(schema, told):
    with pytest.raises(InvalidRequest, match=told.replace("$", r"\$")):
        compiled(JsonSchema(schema))


def test_a_format_that_cannot_be_kept_is_an_annotation():
    assert compiled(JsonSchema('{"type": "string", "format": "klingon"}')).allowed().any()


@pytest.mark.parametrize(
    ("pattern", "told"),
    [("(", "unclosed group"), ("(?=a)b", "look-ahead"), (r"\bfoo", "lookarounds"), ("[a&&b]", "matches no text")],
)
def test_a_pattern_that_cannot_be_kept_is_refused_and_the_text_says_why(pattern, told):
    with pytest.raises(InvalidRequest, match=told):
        compiled(Regex(pattern))


def test_a_model_without_the_tokenizers_ids_is_refused():
    with pytest.raises(InvalidRequest, match="ids"):
        compiled(Regex("a"), vocab_size=TOKENIZER.vocab_size - 1)


def test_a_format_without_an_end_is_refused():
    with pytest.raises(InvalidRequest, match="end token"):
        compile_grammar(Regex("a"), TOKENIZER, PhaseTokens())


def test_without_the_library_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingExtra, match=r"ponder\[structured\]"):
        compiled(Regex("a"))


# Hostile grammars end in an error, or they are harmless; and soon -----------------------------------------------------


def nested(depth):
    return '{"properties": {"a": ' * depth + "{}" + "}}" * depth


HOSTILE_SCHEMAS = {
    "too long": '{"enum": ["' + "a" * MAX_SCHEMA + '"]}',
    "nested past the parser": nested(50_000 // 20),
    "nested past the library": nested(70),
    "remainders": '{"type": "integer", "multipleOf": 999983}',
    "remainders of several": json.dumps({"allOf": [{"type": "integer", "multipleOf": n} for n in (97, 89, 83)]}),
    "an exponent": '{"type": "number", "multipleOf": 1e999999999}',
    "patterns intersected": json.dumps({"allOf": [{"pattern": f"a{{{n + 2}}}", "type": "string"} for n in range(30)]}),
    "patterns behind references": json.dumps(
        {"$defs": {f"d{n}": {"pattern": f"a{{{n}}}", "$ref": f"#/$defs/d{n + 1}"} for n in range(1, 30)} | {"d30": {}},
         "$ref": "#/$defs/d1"}
    ),
    "choices intersected": json.dumps({"allOf": [{"anyOf": [{"minimum": n}, {"maximum": -n}]} for n in range(40)]}),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_SCHEMAS)
def test_a_hostile_schema_is_refused_soon(name):
    began = time.monotonic()
    with pytest.raises(InvalidRequest):
        compiled(JsonSchema(HOSTILE_SCHEMAS[name]))
    assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    "grammar",
    [
        JsonSchema('{"type": "array", "maxItems": 1000000000, "items": {"type": "string", "minLength": 1000000}}'),
        JsonSchema(json.dumps({"enum": [f"value {n}" for n in range(4000)]})),
        JsonSchema(json.dumps({"allOf": [{"type": "string", "pattern": f"[{n}a]*a"} for n in range(MAX_COMBINED)]})),
        JsonSchema('{"type": "string", "pattern": "^(a{1,1000}){1,1000}$"}'),
        Regex("((a{1,1000}){1,1000}){1,1000}"),
        Regex("(.*a){200}"),
        Regex("(a|b)*a(a|b){25}c"),
        Regex(r"(\p{L}*\p{N}*){100}!"),
        Regex("(?:x+x+)+y"),
    ],
    ids=lambda grammar: str(grammar)[:50],
)  # fmt: skip
def test_a_large_grammar_is_followed_quickly_or_refused(grammar):
    """Along one path; where the library runs out of its fuel the error says so."""
    began = time.monotonic()
    try:
        constraint = compiled(grammar)
        for step in range(150):
            ids = allowed_ids(constraint)
            constraint.advance(ids[step % len(ids)])
            if ids[step % len(ids)] in TOKENS.end:
                break
    except InvalidRequest as error:
        assert re.search("cannot be used|too complex to follow", str(error))  # noqa: PT017
    assert time.monotonic() - began < 3


def test_a_pattern_that_is_too_long():
    with pytest.raises(InvalidRequest, match=str(MAX_PATTERN)):
        compiled(Regex("a" * (MAX_PATTERN + 1)))


def test_many_patterns_that_never_meet_are_no_harm():
    properties = {f"p{n}": {"type": "string", "pattern": f"^a{{{n}}}$"} for n in range(1, 40)}
    assert takes(JsonSchema(json.dumps({"type": "object", "properties": properties})), '{"p3": "aaa"}')
