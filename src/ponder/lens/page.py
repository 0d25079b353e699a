"""What a lens draws of one answer, as JSON; and the page of `ponder inspect`, one HTML file that holds it with style
and script, and asks for nothing else."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from ponder.lens.look import Look
from ponder.tokenizer import Tokenizer

NOT_UTF8 = "�"

Near = tuple[Sequence[int], NDArray[np.int32], NDArray[np.float32]]
"""Ids, and for each the ids and the cosines of its nearest embeddings."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Told:
    """One context: what was computed over it, and what its tokens were for.

    kinds: for each token "prompt", "think", "answer" or "tool".
    begin: the place of the first token that was chosen in this context.
    forced: the places of tokens that the engine put in, not the model.
    """

    look: Look
    kinds: Sequence[str]
    begin: int
    forced: Sequence[int] = ()


KINDS = ("prompt", "think", "answer", "tool")


def lens_json(
    contexts: Sequence[Told],
    tokenizer: Tokenizer,
    *,
    title: str,
    model: str,
    notes: Sequence[str] = (),
    near: Near,
    branch: str = "",
) -> str:
    """What `drawLens` of view.js draws. No "<" stands in it, so that a page may hold it as it is.

    contexts: in the order in which the model had them; each but the last was folded into the next.
    notes: sentences that stand above the text.
    near: the neighbours of tokens.
    branch: a command that goes on from another token; {place} and {id} stand for where and which. Empty: none.
    """
    shown = _ids_of(contexts, near)
    data = {
        "title": title,
        "model": model,
        "notes": list(notes),
        "branch": branch,
        "kinds": KINDS,
        "tokens": {str(id): _spelled(tokenizer, id) for id in shown},
        "control": [id for id in shown if tokenizer.is_control(id)],
        "near": {"of": list(map(int, near[0])), "ids": _column(near[1]), "cosines": _column(near[2])},
        "contexts": [_context(told) for told in contexts],
    }
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _context(told: Told) -> dict[str, object]:
    look = told.look
    return {
        "length": len(look.ids_T),
        "begin": told.begin,
        "kinds": _column(np.array([KINDS.index(kind) for kind in told.kinds], np.uint8)),
        "forced": list(told.forced),
        "ids": _column(look.ids_T),
        "logprobs": _column(look.logprobs_T),
        "entropy": _column(look.entropy_T),
        "top_ids": _column(look.top_ids_TN),
        "top_logprobs": _column(look.top_logprobs_TN),
        "next_ids": _column(look.next_ids_N),
        "next_logprobs": _column(look.next_logprobs_N),
        "layer_ids": _column(look.layer_ids_LT),
        "layer_logprobs": _column(look.layer_logprobs_LT),
        "queries": _column(look.queries_R),
        "heads": [
            [{"rows": _base64(head.rows), "strongest": _column(head.strongest_R)} for head in layer]
            for layer in look.heads
        ],
    }


def _ids_of(contexts: Sequence[Told], near: Near) -> list[int]:
    """Every id that the page names."""
    columns = [np.asarray(near[0], np.int32), near[1]]
    for told in contexts:
        look = told.look
        columns += [look.ids_T, look.top_ids_TN, look.next_ids_N, look.layer_ids_LT]
    return np.unique(np.concatenate([np.asarray(column, np.int32).ravel() for column in columns])).tolist()


def _spelled(tokenizer: Tokenizer, id: int) -> str:
    """A token as text; one that is a part of a character, by its bytes."""
    text = tokenizer.decode([id])
    if NOT_UTF8 not in text or tokenizer.is_control(id):
        return text
    return "".join(f"\\x{byte:02x}" for byte in tokenizer.token_bytes(id))


def _column(values: NDArray[np.generic]) -> dict[str, object]:
    """An array as the script reads it back: little-endian, deflated, in base64."""
    name = {"f": "f4", "u": "u1", "i": "i4"}[values.dtype.kind] if values.size else "i4"
    return {
        "type": name,
        "shape": list(values.shape),
        "data": _base64(zlib.compress(np.ascontiguousarray(values, f"<{name}").tobytes(), 9)),
    }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def whole_page(title: str, data: str) -> str:
    """The whole file of a lens. data: of `lens_json`."""
    body = (
        "<noscript>This page draws itself with a script: allow scripts for this file.</noscript>\n"
        f'<main class="lens" id="lens"></main>\n<script type="application/json" id="data">{data}</script>'
    )
    style, script = lens_file("page.css") + lens_file("view.css"), lens_file("view.js") + lens_file("page.js")
    return html_file(title, style, body, script)


def html_file(title: str, style: str, body: str, script: str = "") -> str:
    """A document that holds all it needs, under a policy that allows exactly this style and this script.

    body: its HTML, in which all text is escaped.
    script: a module that runs at its end; "": none may run.
    """
    allowed = f"script-src '{_hash(script)}'; " if script else ""
    policy = (
        f"default-src 'none'; {allowed}style-src '{_hash(style)}'; base-uri 'none'; "
        "form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
    end = f'\n<script type="module">{script}</script>' if script else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n{body}{end}\n</body>\n</html>\n"
    )


def lens_file(name: str) -> str:
    """A file of this package, as text."""
    return (files("ponder.lens") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"
