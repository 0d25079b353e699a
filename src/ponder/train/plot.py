"""The loss of a stage as a picture (extra `plot`)."""

from __future__ import annotations

from pathlib import Path

from ponder.train.display import read_metrics
from ponder.types import MissingExtra

_WATCHED = ("held_out_loss", "reward", "solved", "pass/")


def plot_metrics(metrics: Path, picture: Path) -> None:
    """Draw loss against tokens, smoothed, with what is watched or rewarded beneath. Raises MissingExtra without
    matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("matplotlib", "plot") from error
    records = read_metrics(metrics)
    watched = sorted({key for record in records for key in record if key.startswith(_WATCHED)})
    figure = Figure(figsize=(8, 6 if watched else 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2 if watched else 1, 1, sharex=True, squeeze=False)[:, 0]
    tokens = [record["tokens"] / 1e6 for record in records]
    losses = [record["loss"] for record in records]
    axes[0].plot(tokens, losses, color="0.8", linewidth=0.8)
    axes[0].plot(tokens, _smooth(losses), color="C0", label="loss (nats a token)")
    if min(losses) > 0:  # a policy's loss goes through 0
        axes[0].set_yscale("log")
    axes[0].legend()
    for key in watched:
        points = [(record["tokens"] / 1e6, record[key]) for record in records if key in record]
        axes[1].plot([x for x, _ in points], [y for _, y in points], marker=".", label=key)
    if watched:
        axes[1].legend(fontsize="small", ncols=2)
    axes[-1].set_xlabel("million tokens")
    figure.savefig(picture, dpi=120)


def _smooth(values: list[float]) -> list[float]:
    """An exponential mean over about 2% of the run."""
    share = min(1.0, 50 / max(50, len(values)))
    smooth: list[float] = []
    for value in values:
        smooth.append(value if not smooth else smooth[-1] + share * (value - smooth[-1]))
    return smooth
