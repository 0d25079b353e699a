"""The vocabulary of a GGUF file as a `tokenizer.json` and a `tokenizer_config.json` in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any

import numpy as np

from ponder.gguf.layout import FILE_NAMES, OWN_NAMES
from ponder.gguf.reading import GgufFile
from ponder.tokenizer.files import TokenizerError
from ponder.tokenizer.sentencepiece import merges_by_score, sentencepiece_spec
from ponder.tokenizer.special import added_token
from ponder.tokenizer.splitting import SPLITTING_RULES, SplittingRule

_KEY = "tokenizer.ggml."
_NAMED = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
_SPECIAL_IDS: dict[str, dict[str, int]] = {"gpt2": {}, "llama": {"bos": 1, "eos": 2, "unknown": 0}}  # where unnamed
_TEMPLATE, _TEMPLATES = "tokenizer.chat_template", "tokenizer.chat_templates"


class TokenType(IntEnum):
    """llama.cpp's types. CONTROL: text spells it only where a program says so. USER_DEFINED: text always does."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


def read_vocabulary(file: GgufFile) -> tuple[dict[str, Any], dict[str, Any]]:
    """The content of `tokenizer.json` and `tokenizer_config.json`. Raises TokenizerError naming the file and what is
    wrong in it or not supported."""
    model = file.text(_KEY + "model")
    renamed = _own_names(file)
    tokens = [renamed.get(token, token) for token in file.texts(_KEY + "tokens")]
    ids = {token: id for id, token in enumerate(tokens)}
    if len(ids) != len(tokens):
        twice = next(token for id, token in enumerate(tokens) if ids[token] != id)
        raise TokenizerError(f"{file.path}: key '{_KEY}tokens': holds {twice!r:.80} twice")
    if model not in _SPECIAL_IDS:
        known = ", ".join(_SPECIAL_IDS)
        raise TokenizerError(f"{file.path}: key '{_KEY}model': {model!r:.80} is not supported; supported: {known}")
    usual = _SPECIAL_IDS[model]
    named = {key: _named(file, f"{name}_token_id", tokens, usual.get(name)) for key, name in _NAMED.items()}
    config: dict[str, Any] = {key: name for key, name in named.items() if name is not None} | _templates(file, renamed)
    added = list(_added(file, tokens, [ids[name] for name in named.values() if name is not None]))
    rule = _rule(file) if model == "gpt2" else None
    config["add_bos_token"] = file.boolean(_KEY + "add_bos_token", rule is None or rule.adds_bos)
    begin = _begins_with(named["bos_token"], ids) if config["add_bos_token"] else None
    if rule is not None:
        return _byte_level(file, ids, rule, added, begin), config
    merges = merges_by_score(_scored(file, tokens, added), ids)
    prefix = file.boolean(_KEY + "add_space_prefix", True)
    return sentencepiece_spec(ids, merges, added, begin, prefix=prefix), config


def _own_names(file: GgufFile) -> dict[str, str]:
    """The tokens that the export renamed for llama.cpp, each with the name that it has in its own format."""
    names, own = file.texts(FILE_NAMES), file.texts(OWN_NAMES)
    if len(names) != len(own):
        raise TokenizerError(f"{file.path}: key '{OWN_NAMES}': has {len(own)} entries for {len(names)} names")
    return dict(zip(names, own, strict=True))


def _scored(file: GgufFile, tokens: Sequence[str], added: Sequence[Mapping[str, object]]) -> dict[str, float]:
    """The pieces that text may become, with their scores."""
    scores = file.numbers(_KEY + "scores")
    if scores is None or len(scores) != len(tokens):
        count = 0 if scores is None else len(scores)
        raise TokenizerError(f"{file.path}: key '{_KEY}scores': has {count} entries for {len(tokens)} tokens")
    if not np.isfinite(scores).all():
        raise TokenizerError(f"{file.path}: key '{_KEY}scores': must be finite numbers")
    without = {each["id"] for each in added}
    return {token: float(scores[id]) for id, token in enumerate(tokens) if id not in without}


def _rule(file: GgufFile) -> SplittingRule:
    name = file.text(_KEY + "pre", "default")
    if name not in SPLITTING_RULES:
        known = ", ".join(SPLITTING_RULES)
        raise TokenizerError(f"{file.path}: key '{_KEY}pre': {name!r:.80} is not supported; supported: {known}")
    return SPLITTING_RULES[name]


def _named(file: GgufFile, name: str, tokens: Sequence[str], usual: int | None) -> str | None:
    key = _KEY + name
    if key not in file.fields and usual is None:
        return None
    id = file.integer(key, usual)
    if not 0 <= id < len(tokens):
        raise TokenizerError(f"{file.path}: key '{key}': {id} is not one of {len(tokens)} tokens")
    return tokens[id]


def _added(file: GgufFile, tokens: Sequence[str], special: Sequence[int]) -> Iterator[dict[str, object]]:
    """Every token that is not ordinary text."""
    types = file.integers(_KEY + "token_type") or [TokenType.NORMAL] * len(tokens)
    if len(types) != len(tokens):
        raise TokenizerError(f"{file.path}: key '{_KEY}token_type': has {len(types)} entries for {len(tokens)} tokens")
    for id, (token, type) in enumerate(zip(tokens, types, strict=True)):
        if type in (TokenType.NORMAL, TokenType.BYTE) and (id not in special or len(token) == 1):
            continue
        yield added_token(id, token, special=type != TokenType.USER_DEFINED)


def _byte_level(
    file: GgufFile,
    ids: Mapping[str, int],
    rule: SplittingRule,
    added: Sequence[Mapping[str, object]],
    begin: Mapping[str, Any] | None,
) -> dict[str, Any]:
    splits = [
        {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
        for regex in rule.regexes
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": list(added),
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, byte_level]},
        "post_processor": begin,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": rule.ignore_merges,
            "vocab": dict(ids),
            "merges": list(_merges(file)),
        },
    }


def _merges(file: GgufFile) -> Iterator[list[str]]:
    key = _KEY + "merges"
    for merge in file.texts(key):
        at = merge.find(" ", 1)
        if at < 0 or at + 1 == len(merge):
            raise TokenizerError(f"{file.path}: key '{key}': {merge!r:.80} is not two tokens with a space between them")
        yield [merge[:at], merge[at + 1 :]]


def _begins_with(bos: str | None, ids: Mapping[str, int]) -> dict[str, Any] | None:
    """How other programs learn that a text begins with `bos`."""
    if bos is None:
        return None
    token, text = {"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    second = {"Sequence": {"id": "B", "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [token, text],
        "pair": [token, text, second],
        "special_tokens": {bos: {"id": bos, "ids": [ids[bos]], "tokens": [bos]}},
    }


def _templates(file: GgufFile, renamed: Mapping[str, str]) -> dict[str, Any]:
    """The chat templates, as `tokenizer_config.json` holds them: the usual one, and others by their names."""

    def template(key: str, default: str | None = None) -> str:
        text = file.text(key, default)
        for name, own in renamed.items():
            text = text.replace(name, own)
        return text

    named = {name: template(f"{_TEMPLATE}.{name}") for name in file.texts(_TEMPLATES)}
    usual = template(_TEMPLATE, "")
    if not named:
        return {"chat_template": usual} if usual else {}
    named = ({"default": usual} if usual else {}) | named
    return {"chat_template": [{"name": name, "template": text} for name, text in named.items()]}
