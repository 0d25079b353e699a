"""Dialogues drawn, tokenised and packed ahead of the training step: the trainer's end and the worker processes.

The trainer reads chunks on a thread and hands out batches in step order. A worker is
`python -m ponder.train.data.feed`, which never imports torch: a JSON order on standard input, then frames on standard
output, each a length and an `.npz`. Chunk c (batches c·k … c·k + k - 1) is a pure function of the order and c, so a run
resumes anywhere.
"""

from __future__ import annotations

import io
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from random import Random
from types import TracebackType
from typing import IO, Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from ponder.dialogue import load_format
from ponder.tokenizer import Tokenizer
from ponder.train.data.packing import Batch, Example, pack
from ponder.train.examples import Examples, check_mix, mix_files
from ponder.train.recipe.ranges import Processes, Share, Width
from ponder.train.recipe.sections import MixRecipe, ModelRecipe, StageRecipe, mix_problems, no_data
from ponder.train.recipe.toml import build
from ponder.types import DataError, PonderError

_AHEAD = 2  # chunks waiting per worker
_ERROR_KEY = "error"
_FULL = 1.01  # draw a little more than fits, so that only the packing leaves room


@dataclass(frozen=True, kw_only=True)
class DialogueRecipe(StageRecipe):
    """What every stage has that learns from demonstrated dialogues.

    direct: share of a task's examples that answer at once, where its entry in the mix does not say.
    plain: share of a family's examples in plain words, where its entry in the mix does not say.
    workers: processes that draw, tokenise and pack ahead of the training step.
    chunk_steps: the steps packed at once.
    """

    direct: Share = 0.1
    plain: Share = 0.0
    mix: tuple[MixRecipe, ...] = ()
    workers: Processes = 1
    chunk_steps: Width = 16

    free = StageRecipe.free | {"workers"}

    def resolved(self, model: ModelRecipe) -> Self:
        mix = tuple(
            replace(
                entry,
                direct=self.direct if entry.direct is None else entry.direct,
                plain=self.plain if entry.plain is None else entry.plain,
            )
            for entry in self.mix
        )
        return replace(super().resolved(model), mix=mix)

    def problems(self, model: ModelRecipe, *, runs: bool) -> Mapping[str, bool]:
        return {
            **super().problems(model, runs=runs),
            **mix_problems(self.name, self.mix),
            no_data(self.name, "mix"): runs and not self.mix,
        }

    def check_data(self) -> None:
        check_mix(self.mix)

    def data_files(self) -> Mapping[str, Sequence[Path]]:
        return mix_files(self.mix)


class Feed:
    """Batches of dialogues from micro-batch step `start` on, drawn by worker processes. Use as a context manager."""

    def __init__(self, recipe: DialogueRecipe, tokenizer: Path, *, seed: int, pad: int, start: int = 0) -> None:
        self.recipe = recipe
        self._step = start
        self._chunk = start // recipe.chunk_steps
        self._current: PackedChunk | None = None
        self._pending_questions: list[NDArray[np.uint64]] = []
        self.workers = [
            _Worker(recipe, tokenizer, seed=seed, pad=pad, first=self._chunk + i, stride=recipe.workers)
            for i in range(recipe.workers)
        ]
        self._turn = 0
        self.left_out = 0

    def __enter__(self) -> Feed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers:
            worker.close()

    def next(self) -> list[Batch]:
        """The micro-batches of the next step. `DataError` when a worker fails."""
        offset = self._step % self.recipe.chunk_steps
        if self._current is None or offset == 0:
            self._current = self.workers[self._turn % len(self.workers)].next()
            self._turn += 1
            self._pending_questions.append(self._current.questions)
            self.left_out += self._current.left_out
        per_step = self.recipe.batch * self.recipe.accumulate
        begin = offset * per_step
        rows = self._current.rows.rows(begin, begin + per_step)
        self._step += 1
        return [rows.rows(i * self.recipe.batch, (i + 1) * self.recipe.batch) for i in range(self.recipe.accumulate)]

    def take_questions(self) -> NDArray[np.uint64]:
        """The hashes of all questions handed out since the last call, sorted."""
        taken, self._pending_questions = self._pending_questions, []
        return np.unique(np.concatenate(taken)) if taken else np.empty(0, np.uint64)


class _Worker:
    """One worker process and the thread that reads its frames."""

    def __init__(
        self, recipe: DialogueRecipe, tokenizer: Path, *, seed: int, pad: int, first: int, stride: int
    ) -> None:
        known = {field.name for field in fields(DialogueRecipe)}
        order = {
            "recipe": _plain({key: value for key, value in asdict(recipe).items() if key in known}),
            "tokenizer": str(tokenizer),
            "seed": seed,
            "pad": pad,
            "first": first,
            "stride": stride,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ponder.train.data.feed"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order).encode())
        self.process.stdin.close()
        self._chunks: queue.Queue[PackedChunk | DataError] = queue.Queue(maxsize=_AHEAD)
        self._closing = threading.Event()
        self._reader = threading.Thread(target=self._read, name="sft-feed", daemon=True)
        self._reader.start()

    def next(self) -> PackedChunk:
        arrived = self._chunks.get()
        if isinstance(arrived, DataError):
            raise arrived
        return arrived

    def close(self) -> None:
        """End the process and the thread; what was drawn ahead is dropped (it can be drawn again)."""
        self._closing.set()
        self.process.kill()
        while self._reader.is_alive():
            try:
                self._chunks.get(timeout=0.05)  # make room, so that the reader sees the end
            except queue.Empty:
                continue
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        while not self._closing.is_set():
            arrived = _read_chunk(self.process.stdout)
            if arrived is None:
                if not self._closing.is_set():
                    code = self.process.wait()
                    self._chunks.put(DataError(f"the worker that draws training data ended (exit {code}); see above"))
                return
            self._chunks.put(arrived)


def _read_chunk(stream: IO[bytes]) -> PackedChunk | DataError | None:
    """The next frame, or None at the end of the stream."""
    header = stream.read(8)
    size = int.from_bytes(header, "little") if len(header) == 8 else 0
    payload = stream.read(size)
    if not size or len(payload) < size:  # the worker was ended in the middle of it
        return None
    with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
        if _ERROR_KEY in arrays:
            return DataError(arrays[_ERROR_KEY].tobytes().decode())
        rows = Batch(**{field.name: arrays[field.name] for field in fields(Batch)})
        return PackedChunk(rows=rows, questions=arrays["questions"], left_out=int(arrays["left_out"]))


def _plain(value: object) -> object:
    """`asdict`'s output as JSON holds it: no None (a missing key means the default), tuples as lists."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedChunk:
    """Several steps' rows, the hashes of the questions in them, and how many drawn examples found no room."""

    rows: Batch
    questions: NDArray[np.uint64]
    left_out: int


def draw_chunk(examples: Examples, recipe: DialogueRecipe, *, seed: int, chunk: int, pad: int) -> PackedChunk:
    """Chunk number `chunk`: as many rows as `chunk_steps` steps take, filled to the brim."""
    rows = recipe.chunk_steps * recipe.accumulate * recipe.batch
    wanted = int(rows * recipe.sequence * _FULL)
    drawn: list[Example] = []
    questions: set[int] = set()
    sample = 0
    while wanted > 0:
        example, question = examples.draw(Random(f"sft/{seed}/{chunk}/{sample}"))
        drawn.append(example)
        questions.add(question)
        wanted -= len(example.ids) - 1
        sample += 1
    batch, left_out = pack(drawn, rows=rows, sequence=recipe.sequence, pad=pad, rng=Random(f"rows/{seed}/{chunk}"))
    hashes = np.array(sorted(questions - {0}), np.uint64)
    return PackedChunk(rows=batch, questions=hashes, left_out=left_out)


def write_frame(stream: BinaryIO, arrays: Mapping[str, NDArray[Any]]) -> None:
    """One length-prefixed `.npz`."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # numpy types **kwds as bool
    payload = buffer.getbuffer()
    stream.write(len(payload).to_bytes(8, "little"))
    stream.write(payload)
    stream.flush()


def main() -> None:
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
    ):  # they reach the group: the trainer saves, and ends us
        signal.signal(number, signal.SIG_IGN)
    os.nice(5)  # a late chunk costs less than a stalled training step
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a user's task prints must not enter the frames
    order = json.load(sys.stdin)
    try:
        _serve(order, out)
    except PonderError as error:
        message = np.frombuffer(str(error).encode(), np.uint8)
        write_frame(out, {_ERROR_KEY: message})
    except BrokenPipeError:
        os._exit(0)  # the trainer has gone; flushing at exit would only raise again


def _serve(order: Mapping[str, Any], out: BinaryIO) -> None:
    """Write chunks first, first + stride, … until the pipe closes."""
    recipe = build(DialogueRecipe, order["recipe"], "worker order")
    tokenizer = Tokenizer.load(order["tokenizer"])
    examples = Examples(recipe.mix, load_format(tokenizer), tokenizer=tokenizer, sequence=recipe.sequence)
    chunk = int(order["first"])
    while True:
        drawn = draw_chunk(examples, recipe, seed=order["seed"], chunk=chunk, pad=order["pad"])
        arrays: dict[str, NDArray[Any]] = {f.name: getattr(drawn.rows, f.name) for f in fields(Batch)}
        arrays["questions"] = drawn.questions
        arrays["left_out"] = np.array(drawn.left_out)
        write_frame(out, arrays)
        chunk += int(order["stride"])


if __name__ == "__main__":
    main()
