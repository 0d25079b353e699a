"""SentencePiece vocabularies (Llama 2, Mistral, TinyLlama): pieces with `▁` for a space, and 256 tokens of bytes.

GGUF files give scores, from which merges follow: the pair whose piece has the highest score is joined first, which is
llama.cpp's rule (src/llama-vocab.cpp) and transformers' conversion (convert_slow_tokenizer.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from typing import Any

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_BYTES = frozenset(f"<0x{byte:02X}>" for byte in range(256))


def is_sentencepiece(spec: Mapping[str, Any], vocab: Set[str]) -> bool:
    """Whether a `tokenizer.json` encodes as SentencePiece does: spaces are written as `▁`, the text is one piece, and
    what the vocabulary lacks becomes bytes."""
    return bool(spec["model"].get("byte_fallback")) and spec.get("pre_tokenizer") is None and vocab >= _BYTES


def piece_bytes(token: str) -> bytes:
    """The text of a token, as UTF-8."""
    byte = _BYTE.fullmatch(token)
    return bytes.fromhex(byte[1]) if byte else token.replace(SPACE, " ").encode("utf-8")


def merges_by_score(pieces: Mapping[str, float], ids: Mapping[str, int]) -> list[list[str]]:
    """Every pair of tokens that joins to a piece, best piece first. Pieces: those that text may become, with scores."""
    merges = []
    for piece, score in pieces.items():
        for at in range(1, len(piece)):
            left, right = piece[:at], piece[at:]
            if left in pieces and right in pieces:
                merges.append((-score, ids[piece], ids[left], ids[right], left, right))
    return [[left, right] for *_, left, right in sorted(merges)]


def sentencepiece_spec(
    ids: Mapping[str, int],
    merges: Sequence[Sequence[str]],
    added: Sequence[Mapping[str, object]],
    post_processor: Mapping[str, Any] | None,
    *,
    prefix: bool,
) -> dict[str, Any]:
    """The content of a `tokenizer.json`. prefix: whether a text begins with a space that is not written."""
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    back = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    before: list[dict[str, Any]] = [{"type": "Prepend", "prepend": SPACE}] if prefix else []
    after = [back, {"type": "ByteFallback"}, {"type": "Fuse"}, *([strip] if prefix else [])]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": list(added),
        "normalizer": {"type": "Sequence", "normalizers": [*before, replace]},
        "pre_tokenizer": None,
        "post_processor": post_processor,
        "decoder": {"type": "Sequence", "decoders": after},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": dict(ids),
            "merges": [list(merge) for merge in merges],
        },
    }
