"""The vocabulary of a GGUF file as a `tokenizer.json` and a `tokenizer_config.json` in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any

from ponder.gguf.reading import GgufFile
from ponder.tokenizer.files import TokenizerError
from ponder.tokenizer.special import added_token
from ponder.tokenizer.splitting import SPLITTING_RULES, SplittingRule

_KEY = "tokenizer.ggml."
_NAMED = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
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
    tokens = file.texts(_KEY + "tokens")
    ids = {token: id for id, token in enumerate(tokens)}
    if len(ids) != len(tokens):
        twice = next(token for id, token in enumerate(tokens) if ids[token] != id)
        raise TokenizerError(f"{file.path}: key '{_KEY}tokens': holds {twice!r:.80} twice")
    if model != "gpt2":
        raise TokenizerError(f"{file.path}: key '{_KEY}model': {model!r:.80} is not supported; supported: gpt2")
    rule = _rule(file)
    named = {key: _named(file, f"{name}_token_id", tokens) for key, name in _NAMED.items()}
    adds_bos = file.boolean(_KEY + "add_bos_token", rule.adds_bos)
    config: dict[str, Any] = {key: name for key, name in named.items() if name is not None}
    config |= {"add_bos_token": adds_bos, **_templates(file)}
    special = [ids[name] for key, name in named.items() if name is not None]
    added = list(_added(file, tokens, special))
    return _byte_level(
        file, ids, rule, added, config["bos_token"] if adds_bos and "bos_token" in config else None
    ), config


def _rule(file: GgufFile) -> SplittingRule:
    name = file.text(_KEY + "pre", "default")
    if name not in SPLITTING_RULES:
        known = ", ".join(SPLITTING_RULES)
        raise TokenizerError(f"{file.path}: key '{_KEY}pre': {name!r:.80} is not supported; supported: {known}")
    return SPLITTING_RULES[name]


def _named(file: GgufFile, name: str, tokens: Sequence[str]) -> str | None:
    key = _KEY + name
    if key not in file.fields:
        return None
    id = file.integer(key)
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
    file: GgufFile, ids: Mapping[str, int], rule: SplittingRule, added: list[dict[str, object]], bos: str | None
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
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, byte_level]},
        "post_processor": _begins_with(bos, ids),
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


def _templates(file: GgufFile) -> dict[str, Any]:
    """The chat templates, as `tokenizer_config.json` holds them: the usual one, and others by their names."""
    named = {name: file.text(f"{_TEMPLATE}.{name}") for name in file.texts(_TEMPLATES)}
    usual = file.text(_TEMPLATE, "")
    if not named:
        return {"chat_template": usual} if usual else {}
    named = ({"default": usual} if usual else {}) | named
    return {"chat_template": [{"name": name, "template": text} for name, text in named.items()]}
