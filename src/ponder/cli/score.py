"""`ponder score`: how well a reward model predicts judgements that it has not seen."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ponder.types import DataError, WindowExceeded

if TYPE_CHECKING:
    from ponder.evaluate.preferred import ScoredPair
    from ponder.tasks.verifiers.reward import RewardModel

NAME = "score"
HELP = "measure a reward model on judgements of answers: accuracy, calibration, and what length explains"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("judgements", metavar="FILE", type=Path, help="pairs or rankings, in JSON lines")
    parser.add_argument("--model", required=True, metavar="FOLDER", help="a reward model, such as RUN/reward/model")


def run(args: argparse.Namespace) -> int:
    from ponder.evaluate.preferred import agreement
    from ponder.tasks.verifiers.reward import RewardModel

    pairs, left_out = scored_judgements(args.judgements, RewardModel.load(args.model))
    for line in left_out:
        print(f"left out: {line}")
    if not pairs:
        raise DataError(f"{args.judgements}: holds no two answers that can be compared: give other judgements")
    made = agreement(pairs)
    accuracy = f"{made.accuracy:.3f} [{made.interval.low:.3f}, {made.interval.high:.3f}]"
    matched = "-" if made.matched is None else f"{made.matched:.3f} (n = {made.matched_pairs})"
    print("| judgements | pairs | left out | accuracy [95%] | of equal length | calibration error | shorter wins |")
    print("|---|---|---|---|---|---|---|")
    print(
        f"| {made.judgements} | {made.pairs} | {len(left_out)} | {accuracy} | {matched} "
        f"| {made.calibration_error:.3f} | {made.shorter:.3f} |"
    )
    return 0


def scored_judgements(path: Path, reward: RewardModel) -> tuple[list[ScoredPair], list[str]]:
    """(every pair of answers with different ranks, why others are left out)."""
    from ponder.evaluate.preferred import ScoredPair
    from ponder.train.data.preferences import fault_of, read_rankings

    pairs: list[ScoredPair] = []
    left_out: list[str] = []
    gain = reward.scoring.scale.gain
    for number, (where, ranking) in enumerate(read_rankings(path)):
        why = fault_of(ranking)
        if why:
            left_out.append(f"{where}: {why}")
            continue
        try:
            scores = [reward.reward(ranking.prompt, answer, ranking.tools) / gain for answer in ranking.answers]
        except WindowExceeded as error:
            left_out.append(f"{where}: {error}")
            continue
        lengths = [sum(len(message.text) for message in answer) for answer in ranking.answers]
        pairs += [ScoredPair(number, scores[b], scores[w], lengths[b], lengths[w]) for b, w in ranking.pairs()]
    return pairs, left_out
