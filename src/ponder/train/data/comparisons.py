"""Rankings as rows to learn from: read and split by prompt, tokenised, drawn in epochs, and laid out in micro-batches.

Axes: B rows, T positions; M answers, G rankings, both numbered from 0 within a micro-batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ponder.dialogue.format import Format
from ponder.train.data.contexts import example_of, learned_contexts
from ponder.train.data.packing import Batch, Example, fill, gather
from ponder.train.data.preferences import Ranking, fault_of, is_held_out, prompt_number, read_rankings
from ponder.train.data.records import RECORD_SUFFIXES, files_of
from ponder.train.recipe.ranges import Count, CountOrZero, Share, Width
from ponder.train.recipe.sections import ModelRecipe, StageRecipe, no_data
from ponder.types import DataError, FormatError, RecipeError

_SHOWN = 5  # places in an error


class Unusable(StrEnum):
    """What happens to judgements that cannot be learned from: an empty answer, two equal ones, one longer than a row.

    REFUSE: an error that names the lines. LEAVE_OUT: they are left out, and the stage says how many.
    """

    REFUSE = "refuse"
    LEAVE_OUT = "leave_out"


@dataclass(frozen=True, kw_only=True)
class ComparisonRecipe(StageRecipe):
    """What every stage has that learns from rankings of answers (docs/alignment.md).

    preferences: a file of judgements, or a folder of them.
    held_out: share of the prompts that is kept for evaluation.
    epochs: passes over the judgements; with `rankings` they set the length of the stage.
    rankings: how many judgements an update is made from.
    batch: rows of a micro-batch; there are as many micro-batches as the answers fill.
    tokens: follows from the data (leave it out).
    """

    start: str = "sft"
    tokens: CountOrZero = 0
    batch: Width = 8
    preferences: str = ""
    held_out: Share = 0.1
    epochs: Count = 1
    rankings: Width = 32
    unusable: Unusable = Unusable.REFUSE

    full_lr = 3e-4

    def resolved(self, model: ModelRecipe) -> Self:
        if self.tokens:
            raise RecipeError(
                f"{self.name}.tokens does not apply (got {self.tokens}): leave it out, {self.name}.epochs sets the "
                "length of the stage"
            )
        return super().resolved(model)

    def data_files(self) -> Mapping[str, Sequence[Path]]:
        return {str(file): [file] for file in files_of(Path(self.preferences), RECORD_SUFFIXES)}

    def problems(self, model: ModelRecipe, *, runs: bool) -> Mapping[str, bool]:
        name = self.name
        return {
            **super().problems(model, runs=runs),
            (f"{name}.accumulate does not apply: leave it out, there are as many micro-batches as the answers fill"): (
                self.accumulate != 1
            ),
            no_data(name, "preferences"): runs and not self.preferences.strip(),
        }

    def check_data(self) -> None:
        for _ in read_rankings(Path(self.preferences)):
            pass


Contexts = Callable[[Ranking, int], Sequence[Example]]
"""(ranking, number of one of its answers) → the contexts in which that answer is learned or scored."""


def learned_answer(format: Format) -> Contexts:
    """An answer as a policy would have sampled it: its own ids after the prompt's, loss on what the assistant says."""

    def contexts(ranking: Ranking, number: int) -> list[Example]:
        answer, first = ranking.answers[number], len(ranking.prompt)
        dialogue = (*ranking.prompt, *answer)
        taught = [first + at for at, message in enumerate(answer) if message.role == "assistant"]
        rendered = learned_contexts(dialogue, format, taught, ranking.tools)
        return [example_of(each, each.assistant_mask(), format) for each in rendered]

    return contexts


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A ranking as examples: the contexts of each answer that was judged.

    number: its place among all rankings that were read; `where` names it.
    prompt: see `prompt_number`.
    """

    number: int
    where: str
    prompt: int
    answers: tuple[tuple[Example, ...], ...]
    ranks: tuple[int, ...]
    margin: float
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparisons:
    """The rankings of a file, split by prompt.

    ties: how many compare nothing, because no two of their ranks differ. They are in neither half.
    left_out: (place, why) of each that was unusable.
    """

    train: tuple[Comparison, ...]
    held_out: tuple[Comparison, ...]
    ties: int
    left_out: tuple[tuple[str, str], ...]

    def steps(self, rankings: int, epochs: int) -> int:
        return math.ceil(len(self.train) * epochs / rankings)

    def draw(self, step: int, rankings: int, epochs: int, seed: str) -> list[Comparison]:
        """Those of one update: each epoch is a random order of all, the last update what is left."""
        count = len(self.train)
        drawn: list[Comparison] = []
        orders: dict[int, list[int]] = {}
        for place in range(step * rankings, min((step + 1) * rankings, count * epochs)):
            epoch, at = divmod(place, count)
            if epoch not in orders:
                orders[epoch] = Random(f"{seed}/{epoch}").sample(range(count), count)
            drawn.append(self.train[orders[epoch][at]])
        return drawn


Reader = Callable[[Path], Iterator[tuple[str, Ranking]]]
"""(place, ranking) for each judgement of a file."""


def load_comparisons(recipe: ComparisonRecipe, contexts: Contexts, read: Reader = read_rankings) -> Comparisons:
    """Read and tokenise the recipe's judgements. A ranking of one answer is not a tie.

    Raises DataError, with lines, for unusable ones where they are refused, and where nothing is left to learn from.
    """
    train: list[Comparison] = []
    held_out: list[Comparison] = []
    faults: list[tuple[str, str]] = []
    ties = 0
    for number, (where, ranking) in enumerate(read(Path(recipe.preferences))):
        why = fault_of(ranking)
        if not why and len(ranking.answers) > 1 and not ranking.pairs():
            ties += 1
            continue
        try:
            made = None if why else comparison(number, where, ranking, contexts)
        except FormatError as error:
            raise DataError(f"{where}: {error}") from error
        if made is not None:
            longest = max(len(example.ids) for answer in made.answers for example in answer)
            if longest > recipe.sequence + 1:
                why = f"an answer takes {longest} tokens with its prompt, more than sequence = {recipe.sequence}"
        if why or made is None:
            faults.append((where, why))
            continue
        (held_out if is_held_out(ranking.prompt, recipe.held_out) else train).append(made)
    if faults and recipe.unusable is Unusable.REFUSE:
        shown = "; ".join(f"{where}: {why}" for where, why in faults[:_SHOWN])
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise DataError(
            f"{len(faults)} judgements cannot be learned from ({shown}{more}): mend them, or set {recipe.name}."
            'unusable to "leave_out"'
        )
    if not train:
        raise DataError(f"{recipe.preferences}: holds no judgement to learn from: add some, or lower held_out")
    return Comparisons(train=tuple(train), held_out=tuple(held_out), ties=ties, left_out=tuple(faults))


def comparison(number: int, where: str, ranking: Ranking, contexts: Contexts) -> Comparison:
    """A ranking with its judged answers as examples."""
    judged = [(at, rank) for at, rank in enumerate(ranking.ranks) if rank is not None]
    return Comparison(
        number=number,
        where=where,
        prompt=prompt_number(ranking.prompt),
        answers=tuple(tuple(contexts(ranking, at)) for at, _ in judged),
        ranks=tuple(rank for _, rank in judged),
        margin=ranking.margin,
        weight=ranking.weight,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonBatch:
    """A micro-batch of whole rankings.

    batch: its weights are 1 where an answer is learned or scored.
    answers_BT: the number of the answer that each position belongs to.
    groups_M, ranks_M: the ranking of each answer, and its rank there.
    margins_G, weights_G, numbers_G: of each ranking, as in `Comparison`.
    """

    batch: Batch
    answers_BT: NDArray[np.int32]
    groups_M: NDArray[np.int64]
    ranks_M: NDArray[np.int64]
    margins_G: NDArray[np.float32]
    weights_G: NDArray[np.float32]
    numbers_G: NDArray[np.int64]

    @property
    def num_positions(self) -> int:
        return self.batch.num_positions


@dataclass(frozen=True, slots=True, kw_only=True)
class _Numbered(Example):
    """A context, with the place of its ranking in the list that is laid out, and of its answer in the ranking."""

    group: int
    answer: int


def lay_out_comparisons(
    comparisons: Sequence[Comparison], *, rows: int, sequence: int, pad: int
) -> list[ComparisonBatch]:
    """Micro-batches of (rows, sequence), filled with the rankings in their order. All answers of a ranking are in one;
    where they need more rows than that, it gets a separate micro-batch with more of them."""
    units = [
        [
            _Numbered(ids=example.ids, learned=example.learned, targets=example.targets, group=group, answer=answer)
            for answer, examples in enumerate(each.answers)
            for example in examples
        ]
        for group, each in enumerate(comparisons)
    ]
    return [_filled(members, comparisons, sequence, pad) for members in gather(units, rows, sequence)]


def _filled(
    members: Sequence[Sequence[_Numbered]], comparisons: Sequence[Comparison], sequence: int, pad: int
) -> ComparisonBatch:
    groups = sorted({example.group for row in members for example in row})
    own = [comparisons[group] for group in groups]
    begins = dict(zip(groups, np.cumsum([0, *(len(each.ranks) for each in own)]).tolist(), strict=False))
    batch = Batch.empty(len(members), sequence, pad)
    answers_BT = np.zeros(batch.ids_BT.shape, np.int32)
    for row, contents in enumerate(members):
        fill(batch, row, contents)
        begin = 0
        for example in contents:
            end = begin + len(example.ids) - 1
            answers_BT[row, begin:end] = begins[example.group] + example.answer
            begin = end
    return ComparisonBatch(
        batch=batch,
        answers_BT=answers_BT,
        groups_M=np.repeat(np.arange(len(own)), [len(each.ranks) for each in own]),
        ranks_M=np.array([rank for each in own for rank in each.ranks], np.int64),
        margins_G=np.array([each.margin for each in own], np.float32),
        weights_G=np.array([each.weight for each in own], np.float32),
        numbers_G=np.array([each.number for each in own], np.int64),
    )
