"""What a person sees of a stage: a progress line on a terminal, metrics as JSONL, and the loss as a picture."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from ponder.model.storage import writing
from ponder.types import MissingExtra

_LIVE_SECONDS, _LOG_SECONDS = 0.3, 10.0
_WATCHED = ("held_out_loss", "reward", "solved", "pass/")


class MetricsLog:
    """`metrics.jsonl` of a stage. Reopened at step N, it forgets what lies beyond (a resumed run writes it again)."""

    def __init__(self, path: Path, *, step: int) -> None:
        self._path = path
        self.kept = [record for record in read_metrics(path) if record["step"] <= step]
        shorter = path.with_name(f".{path.name}.tmp")
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with shorter.open("w", encoding="utf-8") as self._stream:
                for record in self.kept:
                    self.write(record)
            shorter.replace(path)  # at once: a run killed meanwhile keeps its metrics
            self._stream = path.open("a", encoding="utf-8")

    def write(self, record: Mapping[str, float]) -> None:
        """Raises WriteError for a full disk."""
        with writing(self._path):
            self._stream.write(json.dumps(dict(record)) + "\n")
            self._stream.flush()

    def close(self) -> None:
        with suppress(OSError):  # what a full disk did not take is tried once more
            self._stream.close()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The records of a metrics file. A last line cut short by a crash is left out."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


class Display:
    """A progress line: step, loss (or what a stage shows instead), learning rate, tokens a second, time left. Rewritten
    in place on a terminal."""

    def __init__(self, name: str, steps: int, stream: TextIO | None = None) -> None:
        self.name, self.steps = name, steps
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self._open = False
        self._shown = -math.inf
        self._steps, self._tokens, self._seconds = 0.0, 0.0, 0.0

    def rate(self, tokens: int, seconds: float) -> tuple[float, float]:
        """(tokens a second, seconds a step) over the last fifty steps or so, this step's included."""
        self._steps = 0.98 * self._steps + 1
        self._tokens = 0.98 * self._tokens + tokens
        self._seconds = 0.98 * self._seconds + seconds
        return self._tokens / max(self._seconds, 1e-9), self._seconds / self._steps

    def update(self, *, step: int, headline: str, lr: float, rate: float, seconds_left: float) -> None:
        now = time.monotonic()
        if step < self.steps and now - self._shown < (_LIVE_SECONDS if self.live else _LOG_SECONDS):
            return
        self._shown = now
        share = 100 * step // self.steps
        line = (
            f"{self.name:<9} {step:>6,}/{self.steps:,} {share:>3}%  {headline}  lr {lr:.1e}  "
            f"{rate / 1000:6.1f}k tokens/s  {duration(seconds_left)} left"
        )
        self._write(f"\r\x1b[K{line}" if self.live else line + "\n")
        self._open = self.live

    def say(self, text: str) -> None:
        """A line that stays."""
        self._write(("\n" if self._open else "") + text + "\n")
        self._open = False

    def _write(self, text: str) -> None:
        """A terminal that was closed, or a pipe without a reader, must not end the training."""
        with suppress(OSError):
            self.stream.write(text)
            self.stream.flush()


def duration(seconds: float) -> str:
    """3661 → 1h01m, 75 → 1m15s, 9 → 9s."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{whole % 60:02d}s" if minutes else f"{whole}s"


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
    with writing(picture):
        figure.savefig(picture, dpi=120)


def _smooth(values: list[float]) -> list[float]:
    """An exponential mean over about 2% of the run."""
    share = min(1.0, 50 / max(50, len(values)))
    smooth: list[float] = []
    for value in values:
        smooth.append(value if not smooth else smooth[-1] + share * (value - smooth[-1]))
    return smooth
