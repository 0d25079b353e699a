"""Tokenizer files in the Hugging Face layout: read with typed errors, written atomically."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from ponder.types import PonderError

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
TEMPLATE_FILE = "chat_template.jinja"


class TokenizerError(PonderError, ValueError):
    """A tokenizer file that is missing, malformed or of an unknown kind, or a control token that it lacks."""


def read_folder(path: Path) -> tuple[dict[str, Any], dict[str, Any], str]:
    """(tokenizer.json, tokenizer_config.json or {}, the path read). The chat template, in either of the two places
    where the Hugging Face layout keeps it, ends up in the config. Raises TokenizerError naming the file."""
    file = path / TOKENIZER_FILE if path.is_dir() else path
    spec = _read_json(file)
    folder = file.parent
    config = _read_json(folder / CONFIG_FILE) if (folder / CONFIG_FILE).is_file() else {}
    if (folder / TEMPLATE_FILE).is_file():
        config["chat_template"] = (folder / TEMPLATE_FILE).read_text(encoding="utf-8")
    return spec, config, str(file)


def write_folder(folder: Path, spec: Mapping[str, Any], config: Mapping[str, Any], control: Sequence[str]) -> None:
    """Write both files; each appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "additional_special_tokens": list(control),
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


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise TokenizerError(
            f"{file}: cannot be read ({error.strerror}); a tokenizer folder holds {TOKENIZER_FILE}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{file}: not JSON ({error})") from error
    if not isinstance(content, dict):
        raise TokenizerError(f"{file}: must be a JSON object, is a {type(content).__name__}")
    return content


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    os.replace(temporary, file)
