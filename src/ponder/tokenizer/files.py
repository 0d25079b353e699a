"""Tokenizer files in the Hugging Face layout: read with typed errors, written atomically."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from ponder.types import PonderError

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
MAP_FILE = "special_tokens_map.json"
ADDED_FILE = "added_tokens.json"
TEMPLATE_FILE = "chat_template.jinja"
TEMPLATE_FOLDER = "additional_chat_templates"
END_FILES = ("config.json", "generation_config.json")
DEFAULT_TEMPLATE = "default"


class TokenizerError(PonderError, ValueError):
    """A tokenizer file that is missing, malformed or of an unknown kind, or a control token that it lacks."""


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """What a folder says about its tokenizer. A file that is not there is empty.

    spec, config, special_tokens_map, added_tokens: the content of the files of these names. The chat templates, in
    any of the places where the Hugging Face layout keeps them, stand in `config`.
    ends: the ids that the model's config.json and generation_config.json declare to end a generation.
    source: the path of `spec`.
    """

    spec: dict[str, Any]
    config: dict[str, Any]
    special_tokens_map: dict[str, Any]
    added_tokens: dict[str, Any]
    ends: tuple[int, ...]
    source: Path

    @property
    def folder(self) -> Path:
        return self.source.parent


def read_folder(path: Path) -> TokenizerFiles:
    """Read a folder, or the folder of a `tokenizer.json`. Raises TokenizerError naming the file."""
    file = path / TOKENIZER_FILE if path.is_dir() else path
    folder = file.parent
    spec = _read_json(file)
    config, special_map, added = (_read_optional(folder / name) for name in (CONFIG_FILE, MAP_FILE, ADDED_FILE))
    templates = _read_templates(folder)
    if templates:
        config["chat_template"] = _written(templates)
    check_templates(config, str(folder / CONFIG_FILE))
    ends = dict.fromkeys(id for name in END_FILES for id in _read_ends(folder / name))
    return TokenizerFiles(spec, config, special_map, added, tuple(ends), file)


def check_templates(config: Mapping[str, Any], source: str) -> dict[str, str]:
    """Name → text of the chat templates of a `tokenizer_config.json`, which holds one text, or a list of texts with
    names. Raises TokenizerError naming `source`."""
    written = config.get("chat_template")
    if written is None:
        return {}
    if isinstance(written, str):
        return {DEFAULT_TEMPLATE: written}
    try:
        entries = written.items() if isinstance(written, Mapping) else ((e["name"], e["template"]) for e in written)
        templates = dict(entries)
    except (TypeError, KeyError, ValueError):
        templates = {"": None}
    if not all(isinstance(name, str) and isinstance(text, str) for name, text in templates.items()):
        raise TokenizerError(
            f"{source}: key 'chat_template' must be a text, or a list of objects with 'name' and 'template' "
            f"(got {written!r:.80})"
        )
    return templates


def write_folder(folder: Path, spec: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Write both files; each appears whole or not at all. What a folder that was read said of its special tokens is
    written again as it was."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1 << 30,
    }
    _write_json(folder / TOKENIZER_FILE, spec)
    _write_json(folder / CONFIG_FILE, plain | dict(config))


def build_tokenizer(spec: Mapping[str, Any], source: str) -> tokenizers.Tokenizer:
    """Build a `tokenizers.Tokenizer`. The library's one exception type for a bad file is `Exception` itself."""
    try:
        return tokenizers.Tokenizer.from_str(json.dumps(spec))
    except Exception as error:
        if type(error) is not Exception:
            raise
        raise TokenizerError(
            f"{source}: not a tokenizer that `tokenizers` {tokenizers.__version__} reads ({error})"
        ) from error


def _read_templates(folder: Path) -> dict[str, str]:
    """The templates that have their own files. Where there is one, those of tokenizer_config.json do not count."""
    named = {file.stem: file for file in sorted((folder / TEMPLATE_FOLDER).glob("*.jinja"))}
    if (folder / TEMPLATE_FILE).is_file():
        named = {DEFAULT_TEMPLATE: folder / TEMPLATE_FILE, **named}
    return {name: _read_text(file) for name, file in named.items()}


def _written(templates: Mapping[str, str]) -> str | list[dict[str, str]]:
    """Templates as `tokenizer_config.json` holds them."""
    if set(templates) == {DEFAULT_TEMPLATE}:
        return templates[DEFAULT_TEMPLATE]
    return [{"name": name, "template": text} for name, text in templates.items()]


def _read_ends(file: Path) -> list[int]:
    written = _read_optional(file).get("eos_token_id")
    ids = [] if written is None else written if isinstance(written, list) else [written]
    if any(type(id) is not int or id < 0 for id in ids):
        raise TokenizerError(f"{file}: key 'eos_token_id' must be a token id or a list of them (got {written!r:.80})")
    return ids


def _read_optional(file: Path) -> dict[str, Any]:
    return _read_json(file) if file.is_file() else {}


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise TokenizerError(
            f"{file}: cannot be read ({error.strerror}); a tokenizer folder holds {TOKENIZER_FILE}"
        ) from error
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{file}: not UTF-8 ({error}): save it as UTF-8") from error


def _read_json(file: Path) -> dict[str, Any]:
    text = _read_text(file)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{file}: not JSON ({error})") from error
    if not isinstance(content, dict):
        raise TokenizerError(f"{file}: must be a JSON object (got {type(content).__name__})")
    return content


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    os.replace(temporary, file)
