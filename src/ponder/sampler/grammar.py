"""Grammars as constraints: a JSON schema, a regular expression or a tool call, followed id by id by `llguidance`.

How JSON is written: on one line, with at most one space, and that only after a comma or a colon. `{"a": 1, "b": [2]}`
and `{"a":1,"b":[2]}` are both allowed; white space can never run on. Properties come in the order of the schema.

Where the grammar leaves only one continuation, the ids allowed are those the tokenizer encodes it as.
"""

from __future__ import annotations

import json
import math
import weakref
from collections.abc import Iterator, Sequence
from decimal import Decimal
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ponder.dialogue.calls import CallSyntax
from ponder.engine.sequence import Constraint
from ponder.sampler.protocol import Grammar, JsonSchema, Regex
from ponder.tokenizer import Tokenizer
from ponder.types import InvalidRequest, MissingExtra, PhaseTokens

if TYPE_CHECKING:
    import llguidance

JSON_STYLE = {
    "item_separator": ", ?",
    "key_separator": ": ?",
    "whitespace_flexible": False,
    "whitespace_pattern": None,
    "coerce_one_of": False,  # a `oneOf` that cannot be kept exactly is refused, not approximated
    "lenient": False,  # so is a keyword that is not supported
}
MESSAGE_LENGTH = 300
KEPT_FORMATS = frozenset(
    {"date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "unknown", "uri", "uuid"}
)
SUBSCHEMAS = (
    *("additionalItems", "additionalProperties", "allOf", "anyOf", "contains", "else", "if", "items", "not", "oneOf"),
    *("prefixItems", "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties"),
)
NAMED_SUBSCHEMAS = ("$defs", "definitions", "dependentSchemas", "patternProperties", "properties")


def compile_grammar(
    grammar: Grammar, tokenizer: Tokenizer, phase_tokens: PhaseTokens, *, vocab_size: int | None = None
) -> Constraint:
    """The constraint of one sequence's answer, at its beginning; `fork` gives the others of the same grammar.

    vocab_size: of the model, at least the tokenizer's (None: that); ids beyond the tokenizer's are never allowed.
    Control ids never stand for text, whatever the grammar spells; `phase_tokens.end` are allowed where it may end.
    Raises InvalidRequest for what is not a schema or pattern, is not supported, matches nothing or is too large;
    MissingExtra without `llguidance`. The constraint raises InvalidRequest when the grammar turns out too complex on
    the way.
    """
    library = _llguidance()
    match grammar:
        case JsonSchema(schema):
            what, source = "the JSON schema", _json_source(library, schema)
        case Regex(pattern):
            check_pattern(pattern)
            what, source = "the regular expression", library.LLMatcher.grammar_from_regex(pattern)
        case _:
            raise InvalidRequest(f"grammar must be a JsonSchema or a Regex (got {type(grammar).__name__})")
    return _constraint(library, source, tokenizer, phase_tokens.end, vocab_size, what)


def compile_calls(
    schemas: Sequence[tuple[str, str]],
    syntax: CallSyntax,
    tokenizer: Tokenizer,
    phase_tokens: PhaseTokens,
    *,
    vocab_size: int | None = None,
) -> Constraint:
    """The constraint of what stands between a call's open and close tokens: one of the tools' names, and arguments that
    its schema accepts. After them the close token is allowed.

    schemas: (name, JSON schema as JSON text) of each tool. Raises as `compile_grammar`, naming the tool.
    """
    library = _llguidance()
    check_call_schemas(schemas)
    assert phase_tokens.call_close is not None
    end = (phase_tokens.call_close,)
    try:
        source = _calls_source(library, schemas, syntax)
        return _constraint(library, source, tokenizer, end, vocab_size, "the tools' parameters")
    except InvalidRequest:
        for name, schema in schemas if len(schemas) > 1 else ():  # which of them was it?
            alone = _calls_source(library, [(name, schema)], syntax)
            _constraint(library, alone, tokenizer, end, vocab_size, f"the parameters of the tool {name!r}")
        raise


def _constraint(
    library: ModuleType, source: str, tokenizer: Tokenizer, end: tuple[int, ...], vocab_size: int | None, what: str
) -> GrammarConstraint:
    size = tokenizer.vocab_size if vocab_size is None else vocab_size
    if size < tokenizer.vocab_size or not end:
        raise InvalidRequest(
            f"a grammar needs a model with the tokenizer's ids (it has {size} of {tokenizer.vocab_size}) and a "
            f"format with an end token (it has {len(end)})"
        )
    limits = library.LLParserLimits(verbose_errors=False)
    matcher = library.LLMatcher(_vocabulary(library, tokenizer), source, log_level=0, limits=limits)
    if matcher.is_error():
        raise InvalidRequest(f"{what} cannot be used: {_said(matcher)}")
    constraint = GrammarConstraint(matcher, tokenizer, end, size, what)
    constraint.allowed()  # raises where nothing matches
    return constraint


class GrammarConstraint:
    """See `ponder.engine.sequence.Constraint`. `advance` also takes end ids again after the end."""

    def __init__(
        self, matcher: llguidance.LLMatcher, tokenizer: Tokenizer, end: tuple[int, ...], vocab_size: int, what: str
    ) -> None:
        self._matcher = matcher
        self._tokenizer = tokenizer  # the matcher's vocabulary only holds it weakly
        self._end = list(end)
        self._vocab_size = vocab_size
        self._what = what
        self._ended = False

    def allowed(self) -> Tensor:
        """Raises InvalidRequest when the grammar is too complex to go on, or leads nowhere."""
        allowed_V = torch.zeros(self._vocab_size, dtype=torch.bool)
        ends = self._ended
        if not ends:
            packed = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
            if self._matcher.is_error():
                raise self._lost()
            mask = np.unpackbits(packed, bitorder="little").view(np.bool_)
            num_ids = self._tokenizer.vocab_size
            allowed_V[:num_ids] = torch.from_numpy(mask[:num_ids])
            ends = bool(mask[num_ids])  # the id beyond the vocabulary stands for the end
        if ends:
            allowed_V[self._end] = True
        return allowed_V

    def advance(self, id: int) -> None:
        """Raises InvalidRequest when `id` is not allowed, or the grammar is too complex to go on."""
        if id in self._end:
            if not (self._ended or self._matcher.is_accepting()):
                raise InvalidRequest(f"the text cannot end here, {self._what} asks for more (id {id} is not allowed)")
            self._ended = True
        elif self._ended or not 0 <= id < self._tokenizer.vocab_size:
            raise InvalidRequest(f"the text must end here, {self._what} allows no more (id {id} is not allowed)")
        elif not self._matcher.consume_token(id):
            raise self._lost()

    def fork(self) -> GrammarConstraint:
        copy = GrammarConstraint(
            self._matcher.deep_copy(), self._tokenizer, tuple(self._end), self._vocab_size, self._what
        )
        copy._ended = self._ended
        return copy

    def _lost(self) -> InvalidRequest:
        said = _said(self._matcher)
        if "NoExtension" in said:
            return InvalidRequest(f"{self._what} matches no text from here on: loosen it")
        return InvalidRequest(f"{self._what} has become too complex to follow: simplify it ({said})")


def _llguidance() -> ModuleType:
    try:
        import llguidance
    except ImportError as error:
        raise MissingExtra("llguidance", "structured") from error
    return llguidance


def _json_source(library: ModuleType, schema: str) -> str:
    check_schema(schema)
    try:
        return library.LLMatcher.grammar_from_json_schema(_with_kept_formats(schema), overrides=JSON_STYLE)
    except ValueError as error:
        raise InvalidRequest(f"the JSON schema cannot be read: {str(error)[:MESSAGE_LENGTH]}") from error


def _calls_source(library: ModuleType, schemas: Sequence[tuple[str, str]], syntax: CallSyntax) -> str:
    """A Lark grammar of the calls of these tools. `<[id]>` is a control token."""
    rules = [f"start: {' | '.join(f'call_{number}' for number in range(len(schemas)))}"]
    for number, (name, schema) in enumerate(schemas):
        frame = syntax.frame(name)
        before, after = (
            " ".join(
                f"<[{piece}]>" if isinstance(piece, int) else json.dumps(piece, ensure_ascii=False) for piece in side
            )
            for side in (frame.before, frame.after)
        )
        styled = json.dumps({**json.loads(_with_kept_formats(schema)), "x-guidance": JSON_STYLE})
        rules += [f"call_{number}: {before} args_{number} {after}", f"args_{number}: %json {styled}"]
    return library.LLMatcher.grammar_from_lark("\n".join(rules))


def _with_kept_formats(schema: str) -> str:
    """The schema without the formats that the library cannot keep: `format` is an annotation (JSON Schema 2020-12,
    section 7.2.1), which a validator may leave out."""
    tree = json.loads(schema)
    return json.dumps(tree) if _drop_formats(tree) else schema


def _drop_formats(schema: object) -> bool:
    """Whether there were any. Looks only where schemas stand: a property may be called "format"."""
    pending, dropped = [schema], False
    while pending:
        node = pending.pop()
        if isinstance(node, list):
            pending += node
        if not isinstance(node, dict):
            continue
        if isinstance(node.get("format"), str) and node["format"] not in KEPT_FORMATS:
            del node["format"]
            dropped = True
        pending += (node[name] for name in SUBSCHEMAS if name in node)
        for name in NAMED_SUBSCHEMAS:
            if isinstance(node.get(name), dict):
                pending += node[name].values()
    return dropped


def _said(matcher: llguidance.LLMatcher) -> str:
    """The library's complaint, on one line."""
    said = " ".join(matcher.get_error().split("\n<", 1)[0].split())[:MESSAGE_LENGTH]
    if "coerce_one_of" in said:  # an option of the library that Ponder does not pass on
        return "oneOf is followed only where its options exclude each other: use anyOf"
    return said


# What a grammar may ask for. llguidance bounds most of its work itself (fuel, states, items); these are the inputs that
# were seen to take minutes and gigabytes all the same, and sizes past any sensible use --------------------------------

MAX_SCHEMA = 128 * 1024  # characters; measured: 150k compile in 0.1 s
MAX_PATTERN = 8 * 1024  # characters
MAX_MULTIPLE = 10_000  # one automaton state for each remainder
MAX_COMBINED = 12  # regular expressions that may be intersected: twice the work for each

ANNOTATIONS = frozenset({"$schema", "$id", "$anchor", "$comment", "$defs", "definitions", "title", "description"}) | {
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
}
COMBINING = frozenset({"$ref", "$dynamicRef", "anyOf", "oneOf"})


def check_pattern(pattern: object) -> None:
    """Raises InvalidRequest unless it is text of a sensible length."""
    if not isinstance(pattern, str):
        raise InvalidRequest(f"the regular expression must be text (got {type(pattern).__name__})")
    if len(pattern) > MAX_PATTERN:
        raise InvalidRequest(
            f"the regular expression is too long ({len(pattern)} characters): give at most {MAX_PATTERN}"
        )


def check_schema(schema: object) -> None:
    """Raises InvalidRequest unless it is the text of a JSON object that can be compiled in a short time."""
    if not isinstance(schema, str):
        raise InvalidRequest(f"the JSON schema must be text (got {type(schema).__name__})")
    if len(schema) > MAX_SCHEMA:
        raise InvalidRequest(f"the JSON schema is too long ({len(schema)} characters): give at most {MAX_SCHEMA}")
    try:
        tree = json.loads(schema, parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the JSON schema is not valid JSON: {error}") from error
    if not isinstance(tree, dict):
        raise InvalidRequest("the JSON schema must be a JSON object, such as {} for any value")
    if "x-guidance" in tree:
        raise InvalidRequest("the JSON schema holds 'x-guidance', a setting of the grammar library: leave it out")
    _check_costs(tree)


def check_call_schemas(schemas: Sequence[tuple[str, str]]) -> None:
    """`check_schema` for the parameters of tools, each and all together; the error names the tool."""
    for name, schema in schemas:
        try:
            check_schema(schema)
        except InvalidRequest as error:
            raise InvalidRequest(f"the parameters of the tool {name!r}: {error}") from error
    total = sum(len(schema) for _, schema in schemas)
    if total > MAX_SCHEMA:
        raise InvalidRequest(
            f"the tools' parameters are too long ({total} characters together): give at most {MAX_SCHEMA}"
        )


def _check_costs(tree: dict[str, Any]) -> None:
    multiple, patterns, combines = 1, set(), False
    for node in _objects(tree):
        divisor = node.get("multipleOf")
        if isinstance(divisor, int | Decimal) and divisor:
            multiple = math.lcm(multiple, _digits(Decimal(divisor)))
        patterns |= {(key, node[key]) for key in ("pattern", "format") if isinstance(node.get(key), str)}
        named = node.get("patternProperties")
        patterns |= {("pattern", key) for key in named} if isinstance(named, dict) else set()
        combines = combines or "allOf" in node or bool(COMBINING & node.keys() and len(node.keys() - ANNOTATIONS) > 1)
    if multiple > MAX_MULTIPLE:
        raise InvalidRequest(
            f"the JSON schema's multipleOf have too large a common multiple ({multiple} without trailing "
            f"zeros): keep it to at most {MAX_MULTIPLE}"
        )
    if combines and len(patterns) > MAX_COMBINED:
        raise InvalidRequest(
            "the JSON schema combines schemas (allOf, or $ref, anyOf or oneOf beside other keywords) and "
            f"holds {len(patterns)} different patterns and formats: keep to at most {MAX_COMBINED}, or do "
            "not combine"
        )


def _objects(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every JSON object in the schema, itself first."""
    pending: list[Any] = [tree]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            yield value
            pending += value.values()
        elif isinstance(value, list):
            pending += value


def _digits(number: Decimal) -> int:
    """The digits of a number, without point, sign and trailing zeros."""
    return int("".join(map(str, number.as_tuple().digits)).rstrip("0"))


# The vocabulary as llguidance reads it: built once for each tokenizer -------------------------------------------------

_VOCABULARIES: weakref.WeakKeyDictionary[Tokenizer, llguidance.LLTokenizer] = weakref.WeakKeyDictionary()


def _vocabulary(library: ModuleType, tokenizer: Tokenizer) -> llguidance.LLTokenizer:
    if tokenizer not in _VOCABULARIES:
        _VOCABULARIES[tokenizer] = library.LLTokenizer(library.TokenizerWrapper(_Vocabulary(tokenizer)))
    return _VOCABULARIES[tokenizer]


class _Vocabulary:
    """Every id's bytes, as `llguidance.TokenizerWrapper` wants them: nothing for ids that are not text, and one more id
    for the end. Holds the tokenizer weakly, as it is kept under it."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = weakref.ref(tokenizer)
        self.tokens = [*_texts(tokenizer), b""]
        self.eos_token_id = tokenizer.vocab_size
        self.special_token_ids = [self.eos_token_id]
        self._ids = {token: id for id, token in enumerate(self.tokens) if token}
        self._longest = max(map(len, self._ids), default=0)

    def __call__(self, text: str) -> list[int]:
        """The ids of forced text. A tokenizer that rewrites text (NFC) has none for some texts: then the longest
        tokens from the left."""
        tokenizer = self._tokenizer()
        assert tokenizer is not None, "a constraint keeps its tokenizer alive"
        ids, data = tokenizer.encode(text), text.encode()
        if b"".join(self.tokens[id] for id in ids) == data:
            return ids
        return list(self._longest_first(data))

    def _longest_first(self, data: bytes) -> Iterator[int]:
        at = 0
        while at < len(data):
            sizes = range(min(self._longest, len(data) - at), 0, -1)
            size = next((size for size in sizes if data[at : at + size] in self._ids), None)
            if size is None:
                return  # what has no token is left to the mask
            yield self._ids[data[at : at + size]]
            at += size


def _texts(tokenizer: Tokenizer) -> Iterator[bytes]:
    """The text of each id; empty for control ids, for ids that the vocabulary leaves out, and for the byte 0xFF, which
    is in no text and means a control token to llguidance."""
    replacement = "\N{REPLACEMENT CHARACTER}"
    its_ids = tokenizer.encode(replacement)
    for id in range(tokenizer.vocab_size):
        token = tokenizer.token_bytes(id)
        left_out = token == replacement.encode() and its_ids != [id]
        yield b"" if tokenizer.is_control(id) or left_out or token.startswith(b"\xff") else token
