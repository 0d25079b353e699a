"""Whatever is sampled under a grammar, the text is in its language: random walks over the allowed ids."""

import json
import random
import re
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ponder.dialogue import load_format
from ponder.dialogue.load import train_tokenizer
from ponder.sampler.grammar import compile_grammar
from ponder.sampler.protocol import JsonSchema, Regex
from ponder.testing.tiny import ByteTokenizer
from ponder.tokenizer import Tokenizer

pytestmark = pytest.mark.property

FAMILIES = Path(__file__).parents[1] / "golden" / "families"
WORDS = '{"name": "value", "list": [1, 2, 3]} true false null hello world "," ": <|end|> \\n'
TOKENIZERS = {
    "bytes": ByteTokenizer(),
    "trained": train_tokenizer([WORDS] * 50, 512),
    **{family: Tokenizer.load(FAMILIES / family) for family in ("qwen3", "llama3", "deepseek_r1")},
}
FORMATS = {name: load_format(tokenizer) for name, tokenizer in TOKENIZERS.items()}


def walk(grammar, name, seed, longest=2000):
    """The text of ids drawn at random from the allowed, which end with some probability wherever they may; None where
    that took more than `longest` ids."""
    tokenizer, ends = TOKENIZERS[name], FORMATS[name].phase_tokens.end
    constraint = compile_grammar(grammar, tokenizer, FORMATS[name].phase_tokens, vocab_size=tokenizer.vocab_size + 7)
    rng, said = random.Random(seed), []
    while len(said) < longest:
        allowed = constraint.allowed().nonzero().flatten().tolist()
        assert allowed, "at least one id is always allowed"
        assert len(set(allowed) & set(ends)) in (0, len(ends)), "all end ids or none"
        assert all(id in ends or not tokenizer.is_control(id) for id in allowed)
        assert max(allowed) < tokenizer.vocab_size
        if rng.random() < 0.02:
            constraint = constraint.fork()
        closing = [id for id in allowed if id in ends or tokenizer.token_bytes(id) in (b'"', b"]", b"}", b'"}')]
        id = rng.choice(closing if closing and rng.random() < 0.4 else allowed)
        constraint.advance(id)
        if id in ends:
            return tokenizer.decode(said)
        said.append(id)
    return None


# JSON -----------------------------------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(
    ["<|end|>", "<|im_end|>", "<think>", "é", "e\u0301", "好", "\U0001f600", '"', "\\", "\n", "/", "\u2028"]
)


def objects(schemas):
    return st.tuples(st.dictionaries(TEXTS, schemas, max_size=3), st.booleans()).map(
        lambda given: {
            "type": "object",
            "properties": given[0],
            "required": list(given[0])[: len(given[0]) if given[1] else 1],
            "additionalProperties": False,
        }
    )


def arrays(schemas):
    return st.tuples(schemas, st.integers(0, 2), st.integers(0, 2)).map(
        lambda given: {"type": "array", "items": given[0], "minItems": given[1], "maxItems": given[1] + given[2]}
    )


LEAVES = (
    st.sampled_from([{"type": "null"}, {"type": "boolean"}, {"type": "number"}, {"type": "integer"}])
    | st.tuples(st.integers(0, 3), st.integers(0, 3)).map(
        lambda given: {"type": "string", "minLength": given[0], "maxLength": given[0] + given[1]}
    )
    | st.tuples(st.integers(-50, 50), st.integers(0, 100)).map(
        lambda given: {"type": "integer", "minimum": given[0], "maximum": given[0] + given[1]}
    )
    | st.lists(TEXTS | st.integers(-9, 9) | st.none(), min_size=1, max_size=3).map(lambda values: {"enum": values})
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda schemas: (
        objects(schemas)
        | arrays(schemas)
        | st.lists(schemas, min_size=1, max_size=3).map(lambda options: {"anyOf": options})
    ),
    max_leaves=6,
)


def fits(value, schema):
    """What a value of the schemas above must be, written out by hand."""
    if "anyOf" in schema:
        return any(fits(value, option) for option in schema["anyOf"])
    if "enum" in schema:
        return any(type(value) is type(each) and value == each for each in schema["enum"])
    match schema["type"]:
        case "null":
            return value is None
        case "boolean":
            return isinstance(value, bool)
        case "number":
            return type(value) in (int, float)
        case "integer":
            return type(value) is int and schema.get("minimum", value) <= value <= schema.get("maximum", value)
        case "string":
            return isinstance(value, str) and schema["minLength"] <= len(value) <= schema["maxLength"]
        case "array":
            within = isinstance(value, list) and schema["minItems"] <= len(value) <= schema["maxItems"]
            return within and all(fits(each, schema["items"]) for each in value)
    named = isinstance(value, dict) and set(schema["required"]) <= value.keys() <= schema["properties"].keys()
    return named and all(fits(each, schema["properties"][key]) for key, each in value.items())


@settings(max_examples=150, deadline=None)
@given(SCHEMAS, st.sampled_from(list(TOKENIZERS)), st.integers(0, 2**32))
def test_what_a_schema_lets_through_parses_and_fits(schema, name, seed):
    text = walk(JsonSchema(json.dumps(schema)), name, seed)
    assert text is not None, "these schemas are finite, numbers aside"
    assert fits(json.loads(text), schema), (text, schema)
    assert not re.search(r"^\s|\s$|[\[{]\s(?=[\]}])", text)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_any_json_parses(name):
    texts = [walk(JsonSchema("{}"), name, seed) for seed in range(25)]
    done = [json.loads(text) for text in texts if text is not None]
    assert len(done) > 12, "most walks end"
    assert any(isinstance(value, dict | list) and value for value in done)


@settings(max_examples=40, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=4, unique=True), st.sampled_from(list(TOKENIZERS)), st.integers(0, 2**32))
def test_an_enum_gives_one_of_its_texts_spelled_control_tokens_too(texts, name, seed):
    control = next(iter(TOKENIZERS[name].control))
    said = walk(JsonSchema(json.dumps({"enum": [*texts, control]})), name, seed)
    assert json.loads(said) in {*texts, control}


# Regular expressions --------------------------------------------------------------------------------------------------

ATOMS = st.sampled_from(["a", "b", "é", "好", "[a-c]", "[^a]", ".", "[0-9]", r"\n", "/", r"\.", '"', " ", r"\|", "<"])
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: (
        st.tuples(inner, inner).map("".join)
        | st.tuples(inner, inner).map(lambda two: f"(?:{two[0]}|{two[1]})")
        | st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}"])).map(lambda two: f"(?:{two[0]}){two[1]}")
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(PATTERNS, st.sampled_from(list(TOKENIZERS)), st.integers(0, 2**32))
def test_what_a_pattern_lets_through_matches_it_whole(pattern, name, seed):
    text = walk(Regex(pattern), name, seed, longest=300)
    assume(text is not None)  # `[^a]*` may go on
    assert re.fullmatch(pattern, text), (pattern, text)


@settings(max_examples=60, deadline=None)
@given(PATTERNS, st.integers(0, 2**32), st.data())
def test_a_byte_is_allowed_just_where_some_match_goes_on_with_it(pattern, seed, data):
    """Any match of the pattern can be said, id by id, and the answer end there."""
    tokenizer, tokens = TOKENIZERS["bytes"], FORMATS["bytes"].phase_tokens
    text = data.draw(st.from_regex(pattern, fullmatch=True))
    constraint = compile_grammar(Regex(pattern), tokenizer, tokens)
    for id in tokenizer.encode(text):
        assert constraint.allowed()[id], (pattern, text)
        constraint.advance(id)
    assert constraint.allowed()[list(tokens.end)].all()
