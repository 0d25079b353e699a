"""A tokenizer in llama.cpp's terms: tokens with types, merges, and the splitting rule by its name there.

llama.cpp (src/llama-vocab.cpp) has its splitting rules built in, so only a rule that it knows can be exported; any
other is refused, since a model would read other ids than it was trained on. tests/export/test_llama_cpp.py holds the
two to equal ids.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ponder.tokenizer import Tokenizer
from ponder.tokenizer.gguf import TokenType
from ponder.tokenizer.splitting import EACH_DIGIT, GPT2_REGEX, SPLITTING_RULES
from ponder.types import InvalidRequest

# (the regular expressions that split, in turn; whether a piece that is a token needs no merges) → llama.cpp's name
PRE_TOKENIZERS = {
    (rule.regexes, rule.ignore_merges): name for name, rule in reversed(SPLITTING_RULES.items()) if name != "tekken"
}  # llama.cpp splits tekken's texts otherwise at combining marks
# As llama.cpp's own converter has it: what looks like this is not text, whether the file flags it or not (DeepSeek's).
_LOOKS_CONTROL = re.compile(r"<[|｜].*[|｜]>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """notes: in what llama.cpp reads text differently, a sentence each."""

    tokens: list[str]
    types: list[int]
    merges: list[str]
    pre_tokenizer: str
    adds_bos: bool
    notes: list[str]


def llama_cpp_vocabulary(tokenizer: Tokenizer, size: int, names: Mapping[str, str]) -> Vocabulary:
    """The tokenizer's vocabulary as llama.cpp stores it.

    size: rows of the model's embedding; ids that the tokenizer lacks become unused tokens.
    names: of control tokens, where they are to differ.
    Raises InvalidRequest naming what llama.cpp does not have.
    """
    spec = tokenizer.spec
    model = spec["model"]
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(key):
            raise _refused(f"model.{key} {model[key]!r}")
    if tokenizer.vocab_size > size:
        raise InvalidRequest(
            f"the tokenizer has {tokenizer.vocab_size} ids and the model only {size}: export the tokenizer "
            "that belongs to the model"
        )
    special = {token["content"]: bool(token.get("special")) for token in spec.get("added_tokens") or ()}
    tokens = [f"[PAD{id}]" for id in range(size)]
    types = [TokenType.UNUSED] * size
    for token, id in model["vocab"].items():
        tokens[id], types[id] = token, TokenType.NORMAL
    for name, id in tokenizer.control.items():
        tokens[id] = names.get(name, name)
        control = special[name] or _LOOKS_CONTROL.fullmatch(name)
        types[id] = TokenType.CONTROL if control else TokenType.USER_DEFINED
    if len(set(tokens)) != size:
        twice = next(token for token, count in Counter(tokens).items() if count > 1)
        raise InvalidRequest(
            f"two tokens would both be called {twice!r} in the exported vocabulary: rename one in tokenizer.json"
        )
    return Vocabulary(
        tokens,
        [int(type) for type in types],
        [" ".join(_pair(merge)) for merge in model.get("merges") or ()],
        pre_tokenizer_name(spec),
        _adds_bos(tokenizer),
        list(_notes(spec)),
    )


def pre_tokenizer_name(spec: Mapping[str, Any]) -> str:
    """What llama.cpp calls the splitting rule of a tokenizer.json. Raises InvalidRequest when it has none that splits
    every text alike."""
    rule = tuple(_regexes(spec.get("pre_tokenizer")))
    key = rule, bool(spec["model"].get("ignore_merges"))
    if key not in PRE_TOKENIZERS:
        raise _refused(f"pre_tokenizer {rule!r:.300} with ignore_merges {key[1]}")
    return PRE_TOKENIZERS[key]


def _regexes(step: Mapping[str, Any] | None) -> Iterator[str]:
    """The regular expressions by which a pre-tokenizer splits, one after another."""
    match step:
        case {"type": "Sequence", "pretokenizers": list(steps)}:
            for inner in steps:
                yield from _regexes(inner)
        case {"type": "Split", "pattern": {"Regex": str(regex)}, "behavior": "Isolated", "invert": False}:
            yield regex
        case {"type": "Digits", "individual_digits": True}:
            yield EACH_DIGIT
        case {"type": "ByteLevel", "add_prefix_space": False, **rest}:
            if rest.get("use_regex", True):
                yield GPT2_REGEX
        case _:
            raise _refused(f"pre_tokenizer {step!r:.300}")


def _notes(spec: Mapping[str, Any]) -> Iterator[str]:
    normalizer = spec.get("normalizer")
    if isinstance(normalizer, Mapping) and normalizer.get("type") == "NFC":
        yield "this tokenizer converts text to Unicode's NFC, and llama.cpp does not: give it text in NFC"
    elif normalizer is not None:
        raise _refused(f"normalizer {normalizer!r:.300}")
    stripped = [t["content"] for t in spec.get("added_tokens") or () if t.get("lstrip") or t.get("rstrip")]
    if stripped:
        yield f"llama.cpp keeps the white space beside {', '.join(stripped)}, which this tokenizer removes"


def _adds_bos(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer itself puts a token before every text (Llama 3's does)."""
    said = tokenizer.config.get("add_bos_token")
    if isinstance(said, bool):
        return said
    processor = tokenizer.spec.get("post_processor") or {}
    steps = processor.get("processors", [processor])
    templates = [step.get("single") or [{}] for step in steps if step.get("type") == "TemplateProcessing"]
    return any("SpecialToken" in single[0] for single in templates)


def _pair(merge: str | list[str]) -> list[str]:
    return merge.split(" ", 1) if isinstance(merge, str) else merge


def _refused(what: str) -> InvalidRequest:
    known = ", ".join(sorted(set(PRE_TOKENIZERS.values())))
    return InvalidRequest(f"llama.cpp has no tokenizer like this one: {what}; those it shares with Ponder: {known}")
