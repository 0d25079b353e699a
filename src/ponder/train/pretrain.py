"""Self-supervised pre-training: predict the next token of raw text."""

from __future__ import annotations

from collections.abc import Generator, Mapping

import numpy as np
import torch

from ponder.model.loss import next_token_loss
from ponder.model.transformer import Transformer
from ponder.train.corpus import Corpus, build_corpus
from ponder.train.loop import Job, Outcome, Result, Watch, fit
from ponder.train.neighbours import as_text, nearest
from ponder.train.packing import Batch
from ponder.train.recipe import Recipe, Stage
from ponder.train.stages import RunFolder, begin, finish
from ponder.train.state import write_atomically

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
