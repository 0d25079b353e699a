"""Councils in plain torch, for experiments: decoding a batch of them step by step, and voices that do not hear each
other (`hear=False`), which the engine and the training kernels have no mask for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ponder.dialogue.load import load_format
from ponder.model.loss import Backend, head_weight, linear_cross_entropy
from ponder.model.transformer import Transformer, attend_causally
from ponder.train.algorithms.sft import Sft, SftRecipe
from ponder.train.data.packing import Batch
from ponder.train.loop.fit import Job
from ponder.train.loop.learner import NextToken, on
from ponder.train.loop.stage import StageStart
from ponder.train.loop.world import world
from ponder.types import CouncilTokens, PhaseTokens
from ponder.voices import Floor, opened, voices_of

NOBODY = -1


def numbered(voices: Sequence[int | None]) -> NDArray[np.int64]:
    return np.array([NOBODY if voice is None else voice for voice in voices], np.int64)


def heard(asking: NDArray[np.int64], said: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a slot of voice asking[…, i, None] may look at one of voice said[…, None, j] in a blind council: at all
    that is nobody's, and its own; what comes after the council looks at everything."""
    return (asking == said) | (said == NOBODY) | (asking == NOBODY)


# Training -------------------------------------------------------------------------------------------------------------


class BlindTokens(NextToken):
    """Next-token loss in which no voice of a council hears another one."""

    def __init__(self, tokens: CouncilTokens) -> None:
        self.tokens = tokens

    def losses(self, model: Transformer, batches: Sequence[Batch], backend: Backend) -> Iterator[Tensor]:
        total = max(1.0, sum(float(batch.weights_BT.sum()) for batch in batches))
        device = next(model.parameters()).device
        for batch in world().own_rows(batches):
            ids, targets, weights, _, positions = on(device, batch)
            mask = torch.from_numpy(self.visible(batch)).to(device)
            bias_BTT = torch.zeros(mask.shape, dtype=model.product_dtype).masked_fill(~mask, float("-inf"))[:, None]
            x_BTD = model.hidden(
                ids, positions_BT=positions, attend=lambda layer, q, k, v, bias=bias_BTT: attend_causally(q, k, v, bias)
            )
            x_ND = x_BTD.to(model.product_dtype).flatten(0, 1)
            yield linear_cross_entropy(x_ND, head_weight(model), targets.flatten(), weights.flatten() / total)

    def visible(self, batch: Batch) -> NDArray[np.bool_]:
        """(B, T, T): which slots each slot looks at."""
        rows, length = batch.ids_BT.shape
        voices_BT = np.full((rows, length), NOBODY)
        for row in range(rows):
            for document in np.unique(batch.documents_BT[row]):
                (places,) = np.nonzero(batch.documents_BT[row] == document)
                voices_BT[row, places] = numbered(voices_of(batch.ids_BT[row, places].tolist(), self.tokens))
        same = batch.documents_BT[:, :, None] == batch.documents_BT[:, None, :]
        return np.tril(same & heard(voices_BT[:, :, None], voices_BT[:, None, :]))


class BlindSft(Sft):
    """The stage `sft` with such voices."""

    def open(self, start: StageStart[SftRecipe]) -> Job:
        council = load_format(start.tokenizer).phase_tokens.council
        assert council is not None
        return replace(super().open(start), learner=BlindTokens(council))


# Decoding -------------------------------------------------------------------------------------------------------------


@dataclass
class Context:
    """One answer as it is decoded.

    ids, voices: of all slots so far. prompt: how many of them are the prompt's.
    cached: how many of them have been through the model.
    draws: the slots from which tokens are drawn next, with the voice of each.
    steps: passes through the model after the prompt's.
    """

    ids: list[int]
    prompt: int
    voices: list[int]
    floor: Floor | None = None
    cached: int = 0
    draws: list[tuple[int, int]] = field(default_factory=list)
    steps: int = 0
    over: bool = False

    @classmethod
    def of(cls, prompt: Sequence[int]) -> Context:
        return cls(list(prompt), len(prompt), [NOBODY] * len(prompt), draws=[(len(prompt) - 1, NOBODY)])

    def take(self, drawn: Sequence[int], tokens: PhaseTokens) -> None:
        """The tokens of one step, in the order of `draws`."""
        council = tokens.council
        assert council is not None
        self.steps += 1
        begin, next_draws = len(self.ids), []
        for (_, voice), id in zip(self.draws, drawn, strict=True):
            self.ids.append(id)
            self.voices.append(NOBODY if id in council.closing else voice)
            if self.floor is None or id != council.leave:
                next_draws.append((len(self.ids) - 1, voice))
            if self.floor is not None:
                self.floor.read(id)
                if self.floor.over:
                    break
        self.draws = next_draws
        if self.floor is None and begin and self.ids[-1] in council.numbers and self.ids[-2] == council.spawn:
            count = council.numbers.index(self.ids[-1]) + 1
            self.draws = [(len(self.ids) + voice, voice) for voice in range(count)]
            self.ids += [council.address] * count
            self.voices += range(count)
            assert opened(self.ids, council) == count
            self.floor = Floor(council, list(range(count)))
        elif self.floor is not None and self.floor.over:
            self.floor, self.draws = None, [(len(self.ids) - 1, NOBODY)]
        self.over = self.ids[-1] in tokens.end


@torch.no_grad()
def decode(
    model: Transformer,
    contexts: Sequence[Context],
    tokens: PhaseTokens,
    *,
    hear: bool = True,
    longest: int,
    temperature: float = 0.0,
    seed: int = 0,
) -> Sequence[Context]:
    """The contexts, each gone on with until its turn ends or it has `longest` slots."""
    cache = Cache(model, len(contexts), longest)
    generator = torch.Generator().manual_seed(seed)
    while active := [row for row, each in enumerate(contexts) if not each.over]:
        logits_ACV = cache.run(contexts, active, hear=hear).float()
        if temperature:
            flat_NV = (logits_ACV / temperature).softmax(-1).flatten(0, 1)
            picked_AC = torch.multinomial(flat_NV, 1, generator=generator).view(logits_ACV.shape[:2]).tolist()
        else:
            picked_AC = logits_ACV.argmax(-1).tolist()
        for at, row in enumerate(active):
            each = contexts[row]
            drawn = [picked_AC[at][slot - each.cached] for slot, _ in each.draws]
            each.cached = len(each.ids)
            each.take(drawn, tokens)
            each.over |= len(each.ids) + len(each.draws) > longest
    return contexts


class Cache:
    """Keys and values of a batch of contexts; the last place of each row takes what pads a chunk."""

    def __init__(self, model: Transformer, rows: int, longest: int) -> None:
        config = model.config
        shape = (rows, config.num_kv_heads, longest + 2 + 8, config.head_dim)
        self.model, self.dtype = model, model.product_dtype
        self.keys = [torch.zeros(shape, dtype=self.dtype) for _ in range(config.num_layers)]
        self.values = [torch.zeros(shape, dtype=self.dtype) for _ in range(config.num_layers)]

    def run(self, contexts: Sequence[Context], active: Sequence[int], *, hear: bool) -> Tensor:
        """logits_ACV of the slots of the active contexts that have not been through the model, padded at their ends."""
        widest = max(len(contexts[row].ids) - contexts[row].cached for row in active)
        length = max(len(contexts[row].ids) for row in active)
        ids = np.zeros((len(active), widest), np.int64)
        places = np.full((len(active), widest), self.keys[0].shape[2] - 1)
        voices = np.full((len(active), widest), NOBODY)
        said = np.full((len(active), length), NOBODY)
        for at, row in enumerate(active):
            each = contexts[row]
            new = len(each.ids) - each.cached
            ids[at, :new] = each.ids[each.cached :]
            places[at, :new] = np.arange(each.cached, len(each.ids))
            voices[at, :new] = each.voices[each.cached :]
            said[at, : len(each.ids)] = each.voices
        seen = np.arange(length)[None, None] <= places[:, :, None]
        if not hear:
            seen &= heard(voices[:, :, None], said[:, None, :])
        mask = torch.from_numpy(seen)[:, None]
        rows, place_AC = torch.tensor(active), torch.from_numpy(places)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = self.keys[layer], self.values[layer]
            keys[rows[:, None], :, place_AC], values[rows[:, None], :, place_AC] = k.transpose(1, 2), v.transpose(1, 2)
            return F.scaled_dot_product_attention(
                q, keys[rows, :, :length], values[rows, :, :length], attn_mask=mask, enable_gqa=True
            )

        return self.model(torch.from_numpy(ids), positions_BT=place_AC, attend=attend)
