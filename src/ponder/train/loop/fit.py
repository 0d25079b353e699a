"""The one training loop: batches in, a trained model out, interruptible at every step and resumable bit for bit."""

from __future__ import annotations

import ctypes
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ponder.kernels.machine import machine
from ponder.model.loss import Backend, can_compile, kernel_obstacle
from ponder.model.transformer import Transformer
from ponder.train.loop import state
from ponder.train.loop.display import Display, MetricsLog, duration
from ponder.train.loop.learner import Learner, NextToken, StepReport
from ponder.train.loop.optim import Optim, lr_scale
from ponder.train.loop.shard import idle_pass, passes, shard, whole_model
from ponder.train.loop.world import whole, world
from ponder.train.recipe.sections import Parallel, Precision, RunRecipe, StageRecipe
from ponder.types import PonderError, RecipeError

_COMPILE_PAYS = 1_500_000  # tokens: compiling costs up to a minute, and saves a third of the time
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # glibc, malloc.h

Watch = Callable[[int, Transformer], Mapping[str, float]]


class TrainingDiverged(PonderError):
    """The loss or its gradient is not finite."""


class Outcome(StrEnum):
    """How a stage ended. INTERRUPTED: saved, and resumable."""

    COMPLETE = "complete"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """How a stage ended, and how far it is.

    loss: smoothed over the last twenty steps or so.
    """

    outcome: Outcome
    progress: state.Progress
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything the loop needs.

    folder: holds checkpoints/ and metrics.jsonl.
    batches: `batches(step)` opens the micro-batches from `step` on, as `learner` takes them.
    num_steps: the length of the stage; None: as many as `stage.tokens` has room for.
    watch: called every `stage.eval_every` steps and at the end; its numbers go to the metrics.
    on_save: called before each checkpoint is written.
    on_complete: called once the stage is complete and its model exported.
    """

    name: str
    folder: Path
    run: RunRecipe
    stage: StageRecipe
    batches: Callable[[int], Generator[Any, None, None]]
    learner: Learner = field(default_factory=NextToken)
    num_steps: int | None = None
    watch: Watch | None = None
    on_save: Callable[[], None] | None = None
    on_complete: Callable[[Transformer], None] | None = None

    @property
    def steps(self) -> int:
        per_step = self.stage.batch * self.stage.sequence * self.stage.accumulate
        return self.num_steps or math.ceil(self.stage.tokens / per_step)


def divides(run: RunRecipe) -> bool:
    """Whether weights are divided among the workers here."""
    return run.parallel is Parallel.SHARD and world().size > 1


def pick_device(name: str) -> torch.device:
    """The device that `run.device` names. "auto" is CUDA where there is one, else the CPU.

    Raises RecipeError for a device that this machine does not have.
    """
    cuda = ["cuda", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    here = ["auto", "cpu", *(cuda if torch.cuda.is_available() else ()), *(["mps"] if torch.mps.is_available() else ())]
    if name not in here:
        raise RecipeError(f"run.device must be a device of this machine (got {name!r}): choose from {', '.join(here)}")
    return torch.device(("cuda" if "cuda" in here else "cpu") if name == "auto" else name)


def fit(model: Transformer, job: Job) -> StageResult:
    """Train `model` in place to the end of the job's schedule, from its latest checkpoint if it has one."""
    model.compute_dtype = torch.bfloat16 if job.run.precision is Precision.BF16 else None
    model.train()
    if next(model.parameters()).device.type == "cpu":
        keep_freed_memory()
    loop = _Loop(model, job)
    try:
        with _interrupts() as interrupted:
            return loop.run(interrupted)
    finally:
        loop.metrics.close()


class _Loop:
    """The state of one call of `fit`."""

    def __init__(self, model: Transformer, job: Job) -> None:
        self.model, self.job, self.world = model, job, world()
        self.device = next(model.parameters()).device
        self.divided = divides(job.run)
        if self.divided:
            shard(model)
        self.optim = Optim(model, job.stage.optim, job.learner.beside)
        self.backend, reason = _common_backend(*choose_backend(model, job))
        if self.divided:
            self.backend, reason = Backend.TORCH, "weights are divided"
        self.environment = state.environment(self.device, backend=self.backend)
        if self.divided:
            self.environment["parallel"] = job.run.parallel
        self.display = Display(job.name, job.steps, self.world.stderr)
        beside = f"; {self.world.size} workers" if self.world.size > 1 else ""
        self.display.say(
            f"{job.name}: {self.device.type}, {self.backend}{reason and f' ({reason})'}{_other_products(model)}{beside}"
        )
        self.progress = _take_up(job, model, self.optim, self.environment, self.display)
        self.metrics = MetricsLog(job.folder / "metrics.jsonl", step=self.progress.step)
        self.smooth_loss = math.nan
        for record in self.metrics.kept:
            self._smooth(record["loss"])

    def run(self, interrupted: threading.Event) -> StageResult:
        """Steps until the schedule, the time or the patience of the user ends."""
        with closing(self.job.batches(self.progress.step)) as batches:
            self._steps(batches, interrupted)
        complete = self._complete()
        if complete:
            self._save()
        self.display.say(
            f"{self.job.name}: {'complete' if complete else 'interrupted and saved'} at step {self.progress.step:,}, "
            f"{self.progress.tokens:,} tokens, {duration(self.progress.seconds)}"
        )
        outcome = Outcome.COMPLETE if complete else Outcome.INTERRUPTED
        return StageResult(outcome=outcome, progress=self.progress, loss=self.smooth_loss)

    def _steps(self, batches: Iterator[Any], interrupted: threading.Event) -> None:
        saved_at = time.monotonic()
        stopped = any(self.world.gather(interrupted.is_set()))
        while not self._complete() and not stopped:
            begin = time.monotonic()
            scale = lr_scale(self.progress.step, self.job.steps, self.job.stage.optim)
            with self.world.together():
                drawn = next(batches)
            loss, norm, tokens = self._step(drawn, scale)
            seconds = self.world.agree(time.monotonic() - begin)
            report = self.job.learner.report()
            self.progress = state.Progress(
                step=self.progress.step + 1,
                tokens=self.progress.tokens + tokens,
                compute=self.progress.compute + report.inference + 3 * tokens,  # forward and backward: 3 forwards
                seconds=self.progress.seconds + seconds,
            )
            self._smooth(loss)
            watched = self._watched()
            with self.world.together():
                if self.world.first:
                    self._report(report, watched, loss, norm, scale, tokens, seconds)
            stopped = any(self.world.gather(interrupted.is_set()))
            due = self.world.agree(time.monotonic() - saved_at >= self.job.run.checkpoint_minutes * 60)
            if stopped or due:
                self._save()
                saved_at = time.monotonic()

    def _complete(self) -> bool:
        out_of_time = 0 < self.job.stage.minutes * 60 <= self.progress.seconds
        return self.progress.step >= self.job.steps or out_of_time

    def _step(self, batches: Any, scale: float) -> tuple[float, float, int]:
        """All updates of a step: (loss, gradient norm before clipping, both means over the updates; positions)."""
        updates = self.job.learner.updates(batches)
        reached = [self._update(each, scale) for each in updates]
        loss, norm = (
            (sum(column) / max(1, len(reached)) for column in zip(*reached, strict=True)) if reached else (0, 0)
        )
        return loss, norm, sum(batch.num_positions for update in updates for batch in update)

    def _update(self, batches: Sequence[Any], scale: float) -> tuple[float, float]:
        """One update over accumulated micro-batches: (loss, gradient norm before clipping)."""
        losses: list[Tensor] = []
        # An error among exchanges cannot be told to the others: it ends its worker, and the launcher the rest.
        with nullcontext() if self.divided else self.world.together():
            for loss in self.job.learner.losses(self.model, batches, self.backend):
                loss.backward()
                losses.append(loss.detach())
        if self.divided:
            for _ in range(passes(batches) - len(losses)):
                idle_pass(self.model)
        self.world.add_gradients(self.optim.parameters)
        norm = float(
            whole(torch.nn.utils.clip_grad_norm_(self.optim.parameters, self.job.stage.optim.clip or math.inf))
        )
        value = self.world.sums({"loss": float(torch.stack(losses).sum()) if losses else 0.0})["loss"]
        if not math.isfinite(value + norm):  # either would make every weight NaN
            raise TrainingDiverged(
                f"{self.job.name}: the loss is {value}, its gradient {norm}, at step {self.progress.step}; start again "
                f"with a lower {self.job.name}.optim.lr, or resume from an older checkpoint in "
                f"{self.job.folder / 'checkpoints'}"
            )
        with self.job.learner.updating():
            self.optim.step(scale)
        return value, norm

    def _watched(self) -> dict[str, float]:
        """What the job's watcher says of the first worker's weights, where it is time for it."""
        job, step = self.job, self.progress.step
        due = job.stage.eval_every > 0 and step % job.stage.eval_every == 0
        if not job.watch or not (due or self._complete()):
            return {}
        model = whole_model(self.model) if self.divided else self.model
        watched: dict[str, float] = {}
        with self.world.together():
            if self.world.first:
                watched = _watch(job.watch, step, model)
                text = "  ".join(f"{name} {value:.4g}" for name, value in watched.items())
                self.display.say(f"{job.name} step {step:,}: {text}")
        return watched

    def _report(
        self,
        report: StepReport,
        watched: Mapping[str, float],
        loss: float,
        norm: float,
        scale: float,
        tokens: int,
        seconds: float,
    ) -> None:
        """One line of metrics, and of the display where it is time for one."""
        progress, job = self.progress, self.job
        assert job.stage.optim.lr is not None
        lr = job.stage.optim.lr * scale
        rate, pace = self.display.rate(tokens, seconds)
        left = (job.steps - progress.step) * pace
        if job.stage.minutes:
            left = min(left, job.stage.minutes * 60 - progress.seconds)
        headline = report.headline or f"loss {self.smooth_loss:6.4f}"
        self.display.update(step=progress.step, headline=headline, lr=lr, rate=rate, seconds_left=left)
        for line in report.alarms:
            self.display.say(f"{job.name} step {progress.step:,}: {line}")
        record = {"loss": loss, "lr": lr, "gradient": norm, "trained": tokens, "tokens_per_second": tokens / seconds}
        record |= report.metrics
        record |= watched
        far = {"step": progress.step, "tokens": progress.tokens, "compute": progress.compute}
        self.metrics.write({**far, "seconds": progress.seconds, **record})

    def _smooth(self, loss: float) -> None:
        self.smooth_loss = loss if math.isnan(self.smooth_loss) else 0.95 * self.smooth_loss + 0.05 * loss

    def _save(self) -> None:
        folder = self.job.folder / "checkpoints"
        learner, keep = self.job.learner, self.job.run.keep
        with self.world.together():
            if self.world.first:
                if self.job.on_save:
                    self.job.on_save()
                if not self.divided:
                    state.save(folder, self.model, self.optim, learner, self.progress, self.environment, keep=keep)
        if self.divided:
            state.save_divided(folder, self.model, self.optim, learner, self.progress, self.environment, keep=keep)


def _take_up(job: Job, model: Transformer, optim: Optim, setting: dict[str, str], display: Display) -> state.Progress:
    """Restore the latest checkpoint, and say where the rest cannot be exact."""
    found = world().agree([str(each) for each in state.checkpoints(job.folder / "checkpoints")])
    if not found:
        return state.Progress()
    with world().together():
        progress, before = state.restore(Path(found[-1]), model, optim, job.learner)
    keys = dict.fromkeys([*setting, *before])
    changed = [
        f"{key} was {before.get(key)}, is {setting.get(key)}" for key in keys if before.get(key) != setting.get(key)
    ]
    exact = f"not bit for bit, because {'; '.join(changed)}" if changed else "exactly"
    display.say(f"{job.name}: resumed {exact} at step {progress.step:,}")
    return progress


def _watch(watch: Watch, step: int, model: Transformer) -> dict[str, float]:
    """Call the watcher in evaluation mode, without gradients, and leave torch's random state as it was."""
    model.eval()
    with torch.random.fork_rng(), torch.no_grad():
        watched = dict(watch(step, model))
    model.train()
    return watched


def choose_backend(model: Transformer, job: Job) -> tuple[Backend, str]:
    """What the steps run on, and why nothing faster. The recipe decides where it names one. Else it is the kernels
    where they cover model and machine, else torch.compile where the stage is long enough and a compiler is there."""
    if job.run.compile is not None:
        return (Backend.COMPILED if job.run.compile else Backend.TORCH), "run.compile"
    obstacle = kernel_obstacle(model)
    if not obstacle:
        return Backend.KERNELS, ""
    pays = job.stage.tokens >= _COMPILE_PAYS and can_compile(model)
    return (Backend.COMPILED if pays else Backend.TORCH), obstacle


def _common_backend(backend: Backend, reason: str) -> tuple[Backend, str]:
    """What all workers can run on: their losses are shares of one, so they compute them alike."""
    found = world().gather(backend)
    if len(set(found)) == 1:
        return backend, reason
    return Backend.TORCH, f"the workers' machines would choose {', '.join(sorted(set(found)))}"


def _other_products(model: Transformer) -> str:
    """That this processor multiplies in another dtype than the recipe asks for, and why; "" if it does not."""
    return "" if model.product_dtype == model.compute_dtype else f"; processor {machine()}"


def keep_freed_memory() -> None:
    """Tell glibc not to hand large freed blocks back to the kernel, which every training step would fault in again.

    The process keeps its peak memory until it ends. Elsewhere than under glibc: does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM and a hang-up set; a second Ctrl-C acts at once. Outside the main thread: never
    set.

    A terminal that closes may send several hang-ups: a second one does nothing. `nohup` keeps its meaning.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    if before[signal.SIGHUP] is signal.SIG_IGN:
        del before[signal.SIGHUP]

    def handle(number: int, frame: object) -> None:
        event.set()
        for each, handler in before.items():
            signal.signal(each, handler if each != signal.SIGHUP else signal.SIG_IGN)

    for number in before:
        signal.signal(number, handle)
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
