"""What the embedding has learned, shown: for some tokens, the tokens nearest to them by cosine."""

from __future__ import annotations

import torch

from ponder.model.transformer import Transformer
from ponder.tokenizer import Tokenizer


def nearest(
    model: Transformer, tokenizer: Tokenizer, *, words: int, around: int = 6
) -> list[tuple[str, list[tuple[str, float]]]]:
    """(token, its `around` nearest with their cosines) for up to `words` tokens that are whole lower-case words.

    They are taken evenly from the vocabulary, which byte-pair merging has ordered by frequency.
    """
    spelled = {i: tokenizer.decode([i]) for i in range(tokenizer.vocab_size) if not tokenizer.is_control(i)}
    whole = [
        i for i, text in spelled.items() if len(text) > 3 and text[0] == " " and text[1:].isalpha() and text.islower()
    ]
    chosen = whole[:: max(1, len(whole) // words)][:words] if words else []
    ids = torch.tensor(list(spelled))
    rows_VD = torch.nn.functional.normalize(model.model.embed_tokens.weight.detach().float().cpu()[ids], dim=-1)
    place = {token: row for row, token in enumerate(spelled)}
    result = []
    for token in chosen:
        cosines_V = rows_VD @ rows_VD[place[token]]
        cosines_V[place[token]] = -2.0
        best = cosines_V.topk(min(around, len(spelled) - 1))
        near = [(spelled[int(ids[row])], float(value)) for value, row in zip(*best, strict=True)]
        result.append((spelled[token], near))
    return result


def as_text(neighbours: list[tuple[str, list[tuple[str, float]]]]) -> str:
    """One line a token: ` seven: ' eight' 0.71, …`."""
    lines = [
        f"{token!r:>16}: " + ", ".join(f"{text!r} {cosine:.2f}" for text, cosine in near) for token, near in neighbours
    ]
    return "\n".join(lines) + "\n"
