"""Special tokens from every file in which the Hugging Face layout keeps them, as transformers 5 reads those files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ponder.tokenizer.files import ADDED_FILE, CONFIG_FILE, MAP_FILE, TokenizerError, TokenizerFiles

# In the order in which transformers gives ids to those that have none.
NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
LISTED_TOKENS = ("additional_special_tokens", "extra_special_tokens")


def added_token(id: int, name: str, **flags: bool) -> dict[str, object]:
    """An entry of `added_tokens`; a special token unless the flags say otherwise."""
    usual = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": id, "content": name, **usual, **flags}


def added_tokens(spec: Mapping[str, Any], source: str) -> dict[str, int]:
    """Name → id of every added token of a `tokenizer.json`, ordered by id. Raises TokenizerError naming `source`."""
    model = spec.get("model")
    if (
        not isinstance(model, Mapping)
        or model.get("type", "BPE") != "BPE"
        or not isinstance(model.get("vocab"), Mapping)
    ):
        raise TokenizerError(f"{source}: key 'model' must be a BPE model with a 'vocab'")
    try:
        tokens = {token["content"]: token["id"] for token in spec.get("added_tokens") or ()}
    except (TypeError, KeyError, AttributeError) as error:
        raise TokenizerError(f"{source}: key 'added_tokens' is malformed ({error!r})") from error
    if not all(isinstance(name, str) and type(id) is int and id >= 0 for name, id in tokens.items()):
        raise TokenizerError(f"{source}: key 'added_tokens' must pair a string 'content' with an id of 0 or more")
    ordered = dict(sorted(tokens.items(), key=lambda item: item[1]))
    vocab = spec["model"]["vocab"]
    free = len(vocab)
    for name, id in ordered.items():
        place = vocab.get(name, free)
        if id != place:  # the `tokenizers` library numbers them by place, whatever is written
            raise TokenizerError(
                f"{source}: key 'added_tokens' gives {name!r} the id {id}, but by its place in the list it is {place}"
            )
        free = max(free, id + 1)
    return ordered


def gather_special_tokens(files: TokenizerFiles) -> tuple[dict[str, Any], dict[str, Any]]:
    """`tokenizer.json` and `tokenizer_config.json` of a folder, with the special tokens of its other files.

    A token that another file declares becomes an added token: with the id that the file gives, with its place in the
    vocabulary, or with the next free id. special_tokens_map.json counts, over tokenizer_config.json, and so does
    added_tokens.json, where tokenizer_config.json holds no added_tokens_decoder; that is transformers' rule. What
    `tokenizer.json` lists stays as it is. Raises TokenizerError naming file and key.
    """
    config = dict(files.config)
    if "added_tokens_decoder" not in config:
        for key, value in files.special_tokens_map.items():
            names = [name for name, _ in _declared(value, f"{files.folder / MAP_FILE}: key {key!r}")]
            if names:
                config[key] = names[0] if key in NAMED_TOKENS else names
    known = added_tokens(files.spec, str(files.source))
    vocab = files.spec["model"]["vocab"]
    entries = list(files.spec.get("added_tokens") or ())
    free = max([len(vocab), *(id + 1 for id in known.values())])
    where = f"{files.folder / CONFIG_FILE}: key"
    named = [
        found
        for key in (*NAMED_TOKENS, *LISTED_TOKENS)
        if key in config
        for found in _declared(config[key], f"{where} {key!r}")
    ]
    for id, name, flags in (*_numbered(files, {name for name, _ in named}), *((None, *found) for found in named)):
        if name in known:
            continue
        known[name] = vocab.get(name, free) if id is None else id
        entries.append(added_token(known[name], name, **flags))
        free = max(free, known[name] + 1)
    return {**files.spec, "added_tokens": entries}, config


def _numbered(files: TokenizerFiles, named: set[str]) -> Iterator[tuple[int, str, dict[str, bool]]]:
    """Id, name and flags of the tokens that a file beside tokenizer.json lists by id, in the order of their ids."""
    if "added_tokens_decoder" in files.config:
        where = f"{files.folder / CONFIG_FILE}: key 'added_tokens_decoder'"
        decoder = files.config["added_tokens_decoder"]
        try:
            numbered = sorted((int(id), token) for id, token in decoder.items())
        except (AttributeError, ValueError, TypeError) as error:
            raise TokenizerError(f"{where} must pair different ids with tokens (got {decoder!r:.80})") from error
        for id, token in numbered:
            for name, flags in _declared(token, where):
                yield id, name, {"special": False, **flags}
        return
    for name, id in files.added_tokens.items():
        if type(id) is not int or id < 0:
            raise TokenizerError(
                f"{files.folder / ADDED_FILE}: key {name!r} must be an id of at least 0 (got {id!r:.80})"
            )
    for name, id in sorted(files.added_tokens.items(), key=lambda item: item[1]):
        yield id, name, {"normalized": name not in named, "special": name in named}


def _declared(value: Any, where: str) -> Iterator[tuple[str, dict[str, bool]]]:
    """Name and flags of each token that a file declares: by its text, by an object with `content`, or by a list or an
    object of these."""
    if value is None:
        return
    if isinstance(value, str):
        yield value, {}
    elif isinstance(value, Mapping) and isinstance(value.get("content"), str):
        flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
        yield value["content"], {flag: value[flag] for flag in flags if isinstance(value.get(flag), bool)}
    elif isinstance(value, list | Mapping) and "content" not in value:
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _declared(item, where)
    else:
        raise TokenizerError(
            f"{where} must declare a token by its text or by an object with 'content' (got {value!r:.80})"
        )


def stripping(spec: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, tuple[bool, bool]]:
    """Name → whether an added token takes the white space on its left, and on its right. As in transformers,
    tokenizer_config.json has the last word."""
    tokens = [*(spec.get("added_tokens") or ()), *(config.get("added_tokens_decoder") or {}).values()]
    return {token["content"]: (bool(token.get("lstrip")), bool(token.get("rstrip"))) for token in tokens}


def special_name(config: Mapping[str, Any], key: str) -> str | None:
    """The text of the token that `tokenizer_config.json` names `bos_token`, `eos_token` and the like."""
    value = config.get(key)
    value = value.get("content") if isinstance(value, Mapping) else value
    return value if isinstance(value, str) and value else None
