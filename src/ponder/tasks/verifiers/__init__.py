"""Verifiers that are models: they grade an answer by reading it."""

from __future__ import annotations

from pathlib import Path

from ponder.tasks.protocol import MessageVerifier


def load_verifier(folder: Path) -> MessageVerifier:
    """What a model folder can do: score answers (stage reward), score steps (process), or say yes or no (any other).

    Raises CheckpointError or TokenizerError naming the file."""
    from ponder.model.scoring import Reads, is_scoring_model, load_scale

    if not is_scoring_model(folder):
        from ponder.tasks.verifiers.verdict import VerdictVerifier

        return VerdictVerifier.load(folder)
    if load_scale(folder).reads is Reads.STEPS:
        from ponder.tasks.verifiers.steps import StepScorer

        return StepScorer.load(folder)
    from ponder.tasks.verifiers.reward import RewardModel

    return RewardModel.load(folder)
