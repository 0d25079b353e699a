"""The stage `dpo`: better answers become likelier than worse ones directly, without a reward model or sampling.

DPO (arXiv 2305.18290) and its kin, as choices of `loss`; the formulas are in `policy.direct`. A ranking of more than
two answers counts as all its pairs together.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ponder.dialogue import load_format
from ponder.kernels.training import TrainingStack
from ponder.model.loss import Backend, head_weight, linear_logprobs, training_stack
from ponder.model.transformer import Transformer
from ponder.train.data.comparisons import (
    Comparison,
    ComparisonBatch,
    ComparisonRecipe,
    Comparisons,
    lay_out_comparisons,
    learned_answer,
    load_comparisons,
)
from ponder.train.data.packing import Example
from ponder.train.data.preferences import Ranking, read_labelled, read_rankings
from ponder.train.loop.fit import Job
from ponder.train.loop.folder import write_atomically
from ponder.train.loop.learner import Beside, StepReport
from ponder.train.loop.stage import StageStart, Training, padding
from ponder.train.loop.world import world
from ponder.train.policy.direct import Preference, implicit_rewards, kto_baseline, kto_loss, pair_loss
from ponder.train.policy.gradient import FrozenModel, learned_rows, through_head
from ponder.train.recipe.ranges import Positive, Range
from ponder.train.recipe.sections import ModelRecipe, not_divided
from ponder.types import DataError, RecipeError

_REFERENCE = "reference.npz"


class ReferenceFrom(StrEnum):
    """Where the reference's log-probabilities come from.

    STORED: computed once for all judgements, before the first step, into the stage's folder; then the copy is freed.
    COMPUTED: at every step, by a frozen copy of the start model.
    """

    STORED = "stored"
    COMPUTED = "computed"


@dataclass(frozen=True, kw_only=True)
class DpoRecipe(ComparisonRecipe):
    """Direct preference optimisation.

    loss: see `Preference`.
    beta: how much a log-ratio to the reference counts: a small one lets the model move further from it.
    smoothing: the share of judgements taken as wrong, for the losses sigmoid (then it is cDPO) and robust.
    gamma: SimPO's margin.
    sft: weight of the better answer's mean negative log-likelihood beside the loss, against its becoming unlikely too.
    wanted, unwanted: how much an answer of each kind counts in KTO.
    reference: None: stored, but computed for kto; simpo and orpo have none.
    """

    loss: Preference = Preference.SIGMOID
    beta: Positive = 0.1
    smoothing: Annotated[float, Range(0, 0.5, below=True)] = 0.0
    gamma: Annotated[float, Range(0, 1e6)] = 0.0
    sft: Annotated[float, Range(0, 1e6)] = 0.0
    wanted: Positive = 1.0
    unwanted: Positive = 1.0
    reference: ReferenceFrom | None = None

    name = "dpo"
    full_lr = 5e-5

    @property
    def needs_whole(self) -> str:
        return not_divided(self)

    def resolved(self, model: ModelRecipe) -> Self:
        if not self.loss.has_reference and self.reference is not None:
            raise RecipeError(f"{self.name}.reference does not apply: leave it out, {self.loss} has no reference")
        stored = ReferenceFrom.COMPUTED if self.loss is Preference.KTO else ReferenceFrom.STORED
        reference = (self.reference or stored) if self.loss.has_reference else None
        return replace(super().resolved(model), reference=reference)

    def problems(self, model: ModelRecipe, *, runs: bool) -> Mapping[str, bool]:
        name, kto = self.name, self.loss is Preference.KTO
        smoothed = self.loss in (Preference.SIGMOID, Preference.ROBUST)
        return {
            **super().problems(model, runs=runs),
            f"{name}.smoothing must be 0 for {self.loss} (got {self.smoothing})": bool(self.smoothing) and not smoothed,
            f"{name}.gamma must be 0 for {self.loss} (got {self.gamma})": self.gamma > 0
            and self.loss is not Preference.SIMPO,
            f"{name}.sft must be 0 for kto (got {self.sft})": kto and self.sft > 0,
            f'{name}.reference must be "computed" for kto, which compares answers with those to other prompts': (
                kto and self.reference is ReferenceFrom.STORED
            ),
            f"{name}.wanted and unwanted do not apply to {self.loss}: leave them out": not kto
            and (self.wanted, self.unwanted) != (1.0, 1.0),
        }

    def check_data(self) -> None:
        for _ in self.read(Path(self.preferences)):
            pass

    def read(self, path: Path) -> Iterator[tuple[str, Ranking]]:
        """The judgements of a file: rankings, or for KTO `single_answers`. Raises DataError, which names the place, for
        a margin that the loss cannot keep to."""
        for where, ranking in single_answers(path) if self.loss is Preference.KTO else read_rankings(path):
            if ranking.margin and not self.loss.has_offsets:
                raise DataError(
                    f"{where}: has a margin of {ranking.margin:g}, which the loss {self.loss} does not know: leave it "
                    "out, or choose sigmoid"
                )
            yield where, ranking


def single_answers(path: Path) -> Iterator[tuple[str, Ranking]]:
    """Labelled answers, each as a ranking of one: rank 1 where it is good, else 2."""
    for where, each in read_labelled(path):
        rank = 1 if each.good else 2
        yield (
            where,
            Ranking(prompt=each.prompt, tools=each.tools, answers=(each.answer,), ranks=(rank,), weight=each.weight),
        )


class Dpo(Training[DpoRecipe]):
    """Also leaves the reference's log-probabilities, where they are stored."""

    section = DpoRecipe

    def open(self, start: StageStart[DpoRecipe]) -> Job:
        stage = start.stage
        comparisons = load_comparisons(stage, learned_answer(load_format(start.tokenizer)), stage.read)
        if comparisons.ties or comparisons.left_out:
            print(f"{self.name}: {comparisons.ties} ties, {len(comparisons.left_out)} judgements left out")
        learner = DirectLearner(start, comparisons)
        return start.job(
            learner.batches,
            learner,
            num_steps=comparisons.steps(stage.rankings, stage.epochs),
            watch=learner.watch if comparisons.held_out else None,
        )


class DirectLearner:
    """The loss of an update's rankings, and what is known of them. Means are over the weights of the rankings, so that
    micro-batches add up."""

    beside: Beside | None = None

    def __init__(self, start: StageStart[DpoRecipe], comparisons: Comparisons) -> None:
        self.stage, self.comparisons, self.seed = start.stage, comparisons, start.seed
        self.pad = padding(start.model)
        self._frozen: FrozenModel | None = None
        self._stored: dict[int, NDArray[np.float32]] = {}
        self._path, self._key = start.folder / _REFERENCE, ""
        if self.stage.reference is ReferenceFrom.STORED:
            self._key = _key_of(start.model, self._everything)
            self._stored = _read_stored(self._path, self._key)
        if self.stage.reference and not self._stored:
            self._frozen = FrozenModel.of(start.model)  # of LoRA the base: a fresh adapter changes nothing
        self._backend = Backend.TORCH
        self._unmatched: list[ComparisonBatch] = []
        self._sums: dict[str, float] = {}
        self._read = 0  # positions read without being learned from, since the last report

    def batches(self, step: int) -> Generator[list[ComparisonBatch], None, None]:
        stage = self.stage
        while True:
            drawn = self.comparisons.draw(step, stage.rankings, stage.epochs, f"dpo/{self.seed}")
            self._unmatched = self._lay_out(unmatched(drawn, stage.sequence)) if stage.loss is Preference.KTO else []
            yield self._lay_out(drawn)
            step += 1

    def _lay_out(self, comparisons: Sequence[Comparison]) -> list[ComparisonBatch]:
        return lay_out_comparisons(comparisons, rows=self.stage.batch, sequence=self.stage.sequence, pad=self.pad)

    def updates(self, batches: Sequence[ComparisonBatch]) -> Sequence[Sequence[ComparisonBatch]]:
        return [batches]

    def losses(self, model: Transformer, batches: Sequence[ComparisonBatch], backend: Backend) -> Iterator[Tensor]:
        self._backend, self._sums = backend, {}
        stack = training_stack(model) if backend is Backend.KERNELS else None
        baseline = self._baseline(model, backend, stack)
        total = sum(float(each.weights_G.sum()) for each in batches)
        for each in world().own(batches):
            rows = learned_rows(model, each.batch, backend, stack)
            x_ND, _, targets_N, _ = rows
            new_N, _ = linear_logprobs(x_ND.detach(), head_weight(model).detach(), targets_N)
            sums_M2 = answer_sums(rows, model, each, new_N.requires_grad_())
            reference_M = self._reference(model, each, backend)
            loss, found = comparison_loss(self.stage, sums_M2, reference_M, each, baseline)
            for name, value in {"weight": float(each.weights_G.sum()), **found}.items():
                self._sums[name] = self._sums.get(name, 0.0) + value
            yield through_head(model, x_ND, targets_N, new_N, loss / total, backend)

    @property
    def _everything(self) -> list[Comparison]:
        return [*self.comparisons.train, *self.comparisons.held_out]

    def _reference(self, model: Transformer, each: ComparisonBatch, backend: Backend) -> Tensor | None:
        """logprobs_M of the answers under the reference."""
        if self.stage.reference is None:
            return None
        if self.stage.reference is ReferenceFrom.COMPUTED:
            return self._computed(model, each, backend)
        if not self._stored:
            for batch in self._lay_out(self._everything):
                found_M = self._computed(model, batch, backend).cpu().numpy()
                for group, number in enumerate(batch.numbers_G):
                    self._stored[int(number)] = found_M[batch.groups_M == group]
            _write_stored(self._path, self._key, self._stored)
            self._frozen = None
        found_M = np.concatenate([self._stored[int(number)] for number in each.numbers_G])
        return torch.from_numpy(found_M).to(next(model.parameters()).device)

    def _computed(self, model: Transformer, each: ComparisonBatch, backend: Backend) -> Tensor:
        assert self._frozen is not None
        self._read += each.num_positions
        rows = self._frozen.rows(each.batch, backend, model.compute_dtype)
        return answer_sums(rows, self._frozen.model, each)[:, 0]

    @torch.no_grad()
    def _baseline(self, model: Transformer, backend: Backend, stack: TrainingStack | None) -> Tensor:
        """KTO's: over all mismatched answers of the update, whatever its micro-batches."""
        ratios = [torch.zeros(0)]
        for each in self._unmatched:
            self._read += each.num_positions
            new_M = answer_sums(learned_rows(model, each.batch, backend, stack), model, each)[:, 0]
            ratios.append((new_M - self._computed(model, each, backend)).cpu())
        found_M = torch.cat(ratios)
        return kto_baseline(found_M) if len(found_M) else torch.zeros(())

    def watch(self, step: int, model: Transformer) -> Mapping[str, float]:
        """The loss and the accuracy on the prompts that are held out. KTO's baseline is that of the last update."""
        sums: dict[str, float] = {}
        stack = training_stack(model) if self._backend is Backend.KERNELS else None
        baseline = self._baseline(model, self._backend, stack)
        for each in self._lay_out(self.comparisons.held_out):
            sums_M2 = answer_sums(learned_rows(model, each.batch, self._backend, stack), model, each)
            reference_M = self._reference(model, each, self._backend)
            loss, found = comparison_loss(self.stage, sums_M2, reference_M, each, baseline)
            for name, value in {"weight": float(each.weights_G.sum()), "loss": float(loss), **found}.items():
                sums[name] = sums.get(name, 0.0) + value
        return {f"held_out_{name}": value for name, value in _means(sums).items()}

    def updating(self) -> AbstractContextManager[None]:
        return nullcontext()

    def report(self) -> StepReport:
        read, self._read = self._read, 0
        return StepReport(metrics=_means(world().sums(self._sums)), inference=int(world().sums({"read": read})["read"]))

    def state(self) -> Mapping[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        pass


def _means(sums: Mapping[str, float]) -> dict[str, float]:
    return {name: value / sums["weight"] for name, value in sums.items() if name != "weight"}


Rows = tuple[Tensor, Tensor, Tensor, Tensor]  # of `learned_rows`


def answer_sums(rows: Rows, model: Transformer, each: ComparisonBatch, logprobs_N: Tensor | None = None) -> Tensor:
    """sums_M2: of each answer the log-probability of its learned tokens together, and how many they are.

    logprobs_N: of the tokens; None: what the model makes of the rows, without gradient.
    """
    x_ND, at_N, targets_N, weights_N = rows
    if logprobs_N is None:
        logprobs_N, _ = linear_logprobs(x_ND.detach(), head_weight(model).detach(), targets_N)
    answers_N = torch.from_numpy(each.answers_BT).to(at_N.device).flatten()[at_N].long()
    counted_N = (weights_N != 0).to(logprobs_N.dtype)
    zeros_M2 = logprobs_N.new_zeros(len(each.ranks_M), 2)
    return zeros_M2.index_add(0, answers_N, torch.stack((logprobs_N * counted_N, counted_N), 1))


def comparison_loss(
    stage: DpoRecipe, sums_M2: Tensor, reference_M: Tensor | None, each: ComparisonBatch, baseline: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """The sum over rankings of weight x loss, and sums of what is reported, by the same weights.

    sums_M2: see `answer_sums`.
    baseline: KTO's, see `kto_baseline`.
    """
    device = sums_M2.device
    groups_M, ranks_M = (torch.from_numpy(a).to(device) for a in (each.groups_M, each.ranks_M))
    weights_G, margins_G = (torch.from_numpy(a).to(device) for a in (each.weights_G, each.margins_G))
    logprobs_M = sums_M2[:, 0]
    with torch.no_grad():
        rewards_M = implicit_rewards(logprobs_M, reference_M, stage.beta)
    if stage.loss is Preference.KTO:
        assert reference_M is not None, "KTO has a reference"
        wanted_M = ranks_M == 1
        losses_M = kto_loss(
            *(logprobs_M - reference_M, wanted_M, baseline.to(device)),
            beta=stage.beta,
            wanted=stage.wanted,
            unwanted=stage.unwanted,
        )
        ahead_M = torch.where(wanted_M, rewards_M, -rewards_M)
        found = {"reward": weights_G * rewards_M, "accuracy": weights_G * (ahead_M > 0)}
        return (weights_G * losses_M).sum(), {name: float(value.sum()) for name, value in found.items()}
    better_P, worse_P = ((groups_M[:, None] == groups_M) & (ranks_M[:, None] < ranks_M)).nonzero(as_tuple=True)
    pairs_G = torch.zeros_like(weights_G).index_add(0, groups_M[better_P], torch.ones_like(better_P, dtype=torch.float))
    weights_P = (weights_G / pairs_G)[groups_M[better_P]]
    pairs_P2 = torch.stack((better_P, worse_P), 1)
    losses_P = pair_loss(
        *(logprobs_M[better_P], logprobs_M[worse_P], sums_M2[:, 1].detach()[pairs_P2], stage.loss),
        reference_P2=None if reference_M is None else reference_M[pairs_P2],
        offsets_P=margins_G[groups_M[better_P]] if stage.loss.has_offsets else None,
        beta=stage.beta,
        smoothing=stage.smoothing,
        gamma=stage.gamma,
    )
    if stage.sft:
        losses_P = losses_P - stage.sft * logprobs_M[better_P] / sums_M2[:, 1][better_P]
    ahead_P = rewards_M[better_P] - rewards_M[worse_P]
    found = {
        "chosen_reward": weights_P * rewards_M[better_P],
        "rejected_reward": weights_P * rewards_M[worse_P],
        "margin": weights_P * ahead_P,
        "accuracy": weights_P * ((ahead_P > 0) + 0.5 * (ahead_P == 0)),
        "chosen_logprob": weights_P * logprobs_M.detach()[better_P],
    }
    return (weights_P * losses_P).sum(), {name: float(value.sum()) for name, value in found.items()}


def unmatched(drawn: Sequence[Comparison], sequence: int) -> list[Comparison]:
    """Each prompt with the answer to another one: of the next in the list that has a different prompt.

    What does not fit a row is left out, and so is everything where all prompts are alike.
    """
    made = []
    for at, each in enumerate(drawn):
        later = (drawn[(at + by) % len(drawn)] for by in range(1, len(drawn)))
        other = next((one for one in later if one.prompt != each.prompt), None)
        if other is None:
            continue
        asked, said = each.answers[0][-1], other.answers[0][-1]
        begin, end = (int(np.argmax(np.asarray(example.learned) > 0)) for example in (asked, said))
        ids = np.array([*asked.ids[:begin], *said.ids[end:]], np.int32)
        learned = np.array([*[0.0] * begin, *said.learned[end:]], np.float32)
        targets = None
        if said.targets is not None:
            own_N = said.targets[end:]
            targets = np.array([*range(1, begin + 1), *np.where(own_N < 0, -1, own_N + begin - end)], np.int32)
        if len(ids) <= sequence + 1:
            made.append(replace(each, answers=((Example(ids=ids, learned=learned, targets=targets),),)))
    return made


def _key_of(model: Transformer, comparisons: Sequence[Comparison]) -> str:
    """What stored log-probabilities depend on: the weights, and the ids, which are the template's."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    for each in comparisons:
        for answer in each.answers:
            for example in answer:
                digest.update(np.asarray(example.ids, np.int32).tobytes() + bytes(map(bool, example.learned)))
    return digest.hexdigest()


def _read_stored(path: Path, key: str) -> dict[int, NDArray[np.float32]]:
    """The log-probabilities of each ranking's answers by the ranking's number; none where the file is not there, or was
    made from something else."""
    if not path.is_file():
        return {}
    with np.load(path, allow_pickle=False) as stored:
        if str(stored["key"]) != key:
            return {}
        numbers, logprobs = stored["numbers"], stored["logprobs"]
    return {int(number): logprobs[numbers == number] for number in np.unique(numbers)}


def _write_stored(path: Path, key: str, known: Mapping[int, NDArray[np.float32]]) -> None:
    buffer = io.BytesIO()
    numbers = np.repeat(np.array(list(known), np.int64), [len(each) for each in known.values()])
    np.savez(buffer, key=np.array(key), numbers=numbers, logprobs=np.concatenate(list(known.values())))
    write_atomically(path, buffer.getvalue())
