"""The stage `pretrain`: self-supervised, predict the next token of raw text."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch

from ponder.model.loss import next_token_loss
from ponder.model.transformer import Transformer
from ponder.tokenizer import Tokenizer
from ponder.train.data.corpus import Corpus, build_corpus
from ponder.train.data.packing import Batch
from ponder.train.data.sources import source_files
from ponder.train.loop.fit import Job, Watch
from ponder.train.loop.folder import write_atomically
from ponder.train.loop.learner import NextToken
from ponder.train.loop.stage import StageStart, Training
from ponder.train.recipe.ranges import CountOrZero, Range
from ponder.train.recipe.sections import ModelRecipe, StageRecipe, TextRecipe, no_data, not_divided, text_problems

_HELD_OUT_ROWS = 64


@dataclass(frozen=True, kw_only=True)
class PretrainRecipe(StageRecipe):
    """Next-token prediction on raw text.

    held_out: the share of documents kept for the held-out loss.
    neighbours: of how many tokens to write down which others the embedding has put beside them.
    """

    text: tuple[TextRecipe, ...] = ()
    held_out: Annotated[float, Range(0, 0.5)] = 0.01
    neighbours: CountOrZero = 24

    name = "pretrain"
    free = StageRecipe.free | {"neighbours"}

    def problems(self, model: ModelRecipe, *, runs: bool) -> Mapping[str, bool]:
        return {
            **super().problems(model, runs=runs),
            **text_problems(self.name, self.text),
            no_data(self.name, "text"): runs and not self.text,
        }

    @property
    def needs_whole(self) -> str:
        return not_divided(self)

    def data_files(self) -> Mapping[str, Sequence[Path]]:
        return {name: files for each in self.text for name, files in source_files(each.source).items()}


class Pretrain(Training[PretrainRecipe]):
    """Also leaves the neighbours of some embeddings."""

    section = PretrainRecipe

    def open(self, start: StageStart[PretrainRecipe]) -> Job:
        stage, seed = start.stage, start.seed
        corpus, held_out = build_corpus(stage.text, start.tokenizer, seed=seed, held_out=stage.held_out)

        def batches(step: int) -> Generator[list[Batch], None, None]:
            while True:
                yield [
                    corpus.batch(step * stage.accumulate + part, batch=stage.batch, sequence=stage.sequence, seed=seed)
                    for part in range(stage.accumulate)
                ]
                step += 1

        def write_neighbours(model: Transformer) -> None:
            if stage.neighbours:
                text = as_text(nearest(model, start.tokenizer, words=stage.neighbours))
                write_atomically(start.folder / "neighbours.txt", text.encode())
                print(f"nearest neighbours of embeddings:\n{text}", end="")

        return start.job(
            batches,
            NextToken(),
            watch=held_out_loss(held_out, stage, seed=seed),
            on_complete=write_neighbours,
        )


def held_out_loss(held_out: Corpus, stage: PretrainRecipe, *, seed: int) -> Watch | None:
    """A watcher of the loss on (the beginning of) the held-out documents; None when there is not one row of them."""
    rows = min(_HELD_OUT_ROWS, (held_out.num_tokens - 1) // stage.sequence)
    if rows < 1:
        return None
    batch = held_out.batch(0, batch=rows, sequence=stage.sequence, seed=seed)

    def watch(step: int, model: Transformer) -> Mapping[str, float]:
        device = next(model.parameters()).device
        losses = []
        for begin_row in range(0, rows, stage.batch):
            part = batch.rows(begin_row, begin_row + stage.batch)
            arrays = (part.ids_BT, part.targets_BT, part.weights_BT, part.documents_BT, part.positions_BT)
            ids, targets, weights, documents, positions = (torch.from_numpy(a).to(device) for a in arrays)
            loss = next_token_loss(model, ids.long(), targets.long(), weights, documents, positions)
            losses.append(float(loss) * len(part.ids_BT))
        return {"held_out_loss": float(np.sum(losses)) / rows}

    return watch


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
