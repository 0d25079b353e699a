"""The process that draws, tokenises and packs SFT batches ahead of the training step. Never imports torch.

Run as `python -m ponder.train.worker`: a JSON order on standard input, then frames on standard output, each a length
and an `.npz`. Chunk c (batches c·k … c·k + k - 1) is a pure function of the order and c, so a run resumes anywhere.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from random import Random
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ponder.dialogue import load_format
from ponder.tokenizer import Tokenizer
from ponder.train.examples import Examples
from ponder.train.packing import Batch, Example, pack
from ponder.train.recipe import SftRecipe
from ponder.train.recipe_io import build
from ponder.types import PonderError

ERROR_KEY = "error"
_FULL = 1.01  # draw a little more than fits, so that only the packing leaves room


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Several steps' rows, the hashes of the questions in them, and how many drawn examples found no room."""

    rows: Batch
    questions: NDArray[np.uint64]
    left_out: int


def draw_chunk(examples: Examples, sft: SftRecipe, *, seed: int, chunk: int, pad: int) -> Chunk:
    """Chunk number `chunk`: as many rows as `chunk_steps` steps take, filled to the brim."""
    rows = sft.chunk_steps * sft.accumulate * sft.batch
    wanted = int(rows * sft.sequence * _FULL)
    drawn: list[Example] = []
    questions: set[int] = set()
    sample = 0
    while wanted > 0:
        example, question = examples.draw(Random(f"sft/{seed}/{chunk}/{sample}"))
        drawn.append(example)
        questions.add(question)
        wanted -= len(example.ids) - 1
        sample += 1
    batch, left_out = pack(drawn, rows=rows, sequence=sft.sequence, pad=pad, rng=Random(f"rows/{seed}/{chunk}"))
    hashes = np.array(sorted(questions - {0}), np.uint64)
    return Chunk(rows=batch, questions=hashes, left_out=left_out)


def write_frame(stream: BinaryIO, arrays: Mapping[str, NDArray[Any]]) -> None:
    """One length-prefixed `.npz`."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # numpy types **kwds as bool
    payload = buffer.getbuffer()
    stream.write(len(payload).to_bytes(8, "little"))
    stream.write(payload)
    stream.flush()


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the group; the trainer saves, then closes our pipe
    os.nice(5)  # a late chunk costs less than a stalled training step
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a user's task prints must not enter the frames
    order = json.load(sys.stdin)
    try:
        _serve(order, out)
    except PonderError as error:
        message = np.frombuffer(str(error).encode(), np.uint8)
        write_frame(out, {ERROR_KEY: message})
    except BrokenPipeError:
        os._exit(0)  # the trainer has gone; flushing at exit would only raise again


def _serve(order: Mapping[str, Any], out: BinaryIO) -> None:
    """Write chunks first, first + stride, … until the pipe closes."""
    sft = build(SftRecipe, order["sft"], "worker order")
    tokenizer = Tokenizer.load(order["tokenizer"])
    examples = Examples(sft.mix, load_format(tokenizer), tokenizer=tokenizer, sequence=sft.sequence)
    chunk = int(order["first"])
    while True:
        drawn = draw_chunk(examples, sft, seed=order["seed"], chunk=chunk, pad=order["pad"])
        arrays: dict[str, NDArray[Any]] = {f.name: getattr(drawn.rows, f.name) for f in fields(Batch)}
        arrays["questions"] = drawn.questions
        arrays["left_out"] = np.array(drawn.left_out)
        write_frame(out, arrays)
        chunk += int(order["stride"])


if __name__ == "__main__":
    main()
