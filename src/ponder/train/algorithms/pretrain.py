"""Self-supervised pre-training: predict the next token of raw text."""

from __future__ import annotations

from collections.abc import Generator, Mapping

import numpy as np
import torch

from ponder.model.loss import next_token_loss
from ponder.model.transformer import Transformer
from ponder.tokenizer import Tokenizer
from ponder.train.data.corpus import Corpus, build_corpus
from ponder.train.data.packing import Batch
from ponder.train.loop.fit import Job, Outcome, Result, Watch, fit
from ponder.train.loop.stage import RunFolder, begin, finish
from ponder.train.loop.state import write_atomically
from ponder.train.recipe.sections import Recipe, Stage

_HELD_OUT_ROWS = 64


def pretrain(recipe: Recipe, folder: RunFolder) -> Result:
    """Run (or resume) the stage. Leaves pretrain/model, its plot, and the neighbours of some embeddings."""
    stage = recipe.pretrain
    model, tokenizer, _ = begin(recipe, stage, folder)
    seed = recipe.run.seed
    corpus, held_out = build_corpus(stage.text, tokenizer, seed=seed, held_out=stage.held_out)

    def batches(step: int) -> Generator[list[Batch], None, None]:
        while True:
            yield [
                corpus.batch(step * stage.accumulate + part, batch=stage.batch, sequence=stage.sequence, seed=seed)
                for part in range(stage.accumulate)
            ]
            step += 1

    job = Job(
        name=Stage.PRETRAIN.value,
        folder=folder.stage(Stage.PRETRAIN),
        run=recipe.run,
        stage=stage,
        batches=batches,
        watch=held_out_loss(held_out, recipe),
    )
    result = fit(model, job)
    if result.outcome is Outcome.COMPLETE and stage.neighbours:
        text = as_text(nearest(model, tokenizer, words=stage.neighbours))
        write_atomically(job.folder / "neighbours.txt", text.encode())
        print(f"nearest neighbours of embeddings:\n{text}", end="")
    finish(result, model, tokenizer, folder, Stage.PRETRAIN)
    return result


def held_out_loss(held_out: Corpus, recipe: Recipe) -> Watch | None:
    """A watcher of the loss on (the beginning of) the held-out documents; None when there is not one row of them."""
    stage = recipe.pretrain
    rows = min(_HELD_OUT_ROWS, (held_out.num_tokens - 1) // stage.sequence)
    if rows < 1:
        return None
    batch = held_out.batch(0, batch=rows, sequence=stage.sequence, seed=recipe.run.seed)

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
