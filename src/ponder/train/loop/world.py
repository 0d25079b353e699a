"""The workers that train one model together: which of them this process is, and what they say to each other.

Every worker holds the whole model, reads the same micro-batches, computes its share of them, and adds up the gradients
with the others before each update; so all hold the same weights. The first worker alone decides, writes and prints.
Workers are started by `torchrun`, or by whatever else sets RANK, WORLD_SIZE and MASTER_ADDR. They exchange JSON and
tensors, never pickles. A process that nothing started so is alone, and everything here leaves it as it is.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TextIO, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from ponder.train.data.packing import Batch
from ponder.types import PonderError

_BUCKET = 1 << 23  # numbers that are added up in one message: 32 MB
_PATIENCE = timedelta(hours=2)  # the longest that the first worker may evaluate or sample while the others wait

T = TypeVar("T")


class WorkerFailed(PonderError):
    """Another worker of the run failed. The text names it and says what it said."""


@dataclass(frozen=True, slots=True)
class World:
    """This process among the workers.

    rank: its number, from 0.
    size: how many there are.
    scratch, silence: a folder that is removed at the end, and a stream that keeps nothing; the first worker needs none.
    """

    rank: int = 0
    size: int = 1
    scratch: Path | None = None
    silence: TextIO | None = None

    @property
    def first(self) -> bool:
        """Whether this worker decides, writes and prints."""
        return self.rank == 0

    def notes(self, folder: Path) -> Path:
        """Where this worker may write what belongs into the folder: there, or in its scratch folder."""
        return folder if self.scratch is None else self.scratch

    @property
    def stderr(self) -> TextIO:
        """What a person reads, or a stream that keeps nothing."""
        return self.silence or sys.stderr

    def setting(self) -> dict[str, str]:
        """What a resumed run depends on beside the machine."""
        return {"workers": str(self.size)} if self.size > 1 else {}

    def device(self, chosen: torch.device) -> torch.device:
        """The GPU of this worker, where its machine has several and none was named."""
        if self.size == 1 or chosen.type != "cuda" or chosen.index is not None:
            return chosen
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())

    # What is said ---------------------------------------------------------------------------------------------------

    def gather(self, value: Any) -> list[Any]:
        """What each worker gives, as JSON, in their order."""
        if self.size == 1:
            return [value]
        own = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(lengths, torch.tensor([len(own)]))
        longest = max(map(int, lengths))
        texts = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
        dist.all_gather(texts, torch.nn.functional.pad(own, (0, longest - len(own))))
        return [json.loads(text[: int(n)].numpy().tobytes()) for text, n in zip(texts, lengths, strict=True)]

    def agree(self, value: T) -> T:
        """What the first worker gives."""
        agreed: T = self.gather(value if self.first else None)[0]
        return agreed

    def sums(self, values: Mapping[str, float]) -> dict[str, float]:
        """By name, over all workers; a name that a worker lacks counts 0 there."""
        totals: dict[str, float] = {}
        for each in self.gather({name: float(value) for name, value in values.items()}):
            for name, value in each.items():
                totals[name] = totals[name] + value if name in totals else value
        return totals

    def largest(self, value: float | None) -> float | None:
        """Over all workers that have one."""
        return max((each for each in self.gather(value) if each is not None), default=None)

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block without exchanges that every worker runs. Where it fails on one, it fails on all: there with its own
        error, elsewhere with WorkerFailed."""
        if self.size == 1:
            yield
            return
        failure: Exception | None = None
        try:
            yield
        except Exception as error:  # raised again below, once the others know
            failure = error
        self._raise(failure)

    def _raise(self, failure: Exception | None) -> None:
        said = self.gather(None if failure is None else str(failure) or repr(failure))
        if failure is not None:
            raise failure
        for rank, text in enumerate(said):
            if text is not None:
                raise WorkerFailed(f"worker {rank} of {self.size}: {text}")

    def from_first(
        self, made: Iterable[T], pack: Callable[[T], bytes], unpack: Callable[[bytes], T]
    ) -> Generator[T, None, None]:
        """What the first worker makes, on all of them. Only there is `made` iterated, and its error is raised on all.

        It has to be endless, since no worker learns of an end.
        """
        if self.size == 1:
            yield from made
            return
        source = iter(made)
        while True:
            payload, failure = b"", None
            if self.first:
                try:
                    item = next(source)
                    payload = pack(item)
                except Exception as error:  # raised again by `_raise`
                    failure = error
            self._raise(failure)
            arrived = self._broadcast(payload)
            yield item if self.first else unpack(arrived)

    def _broadcast(self, payload: bytes) -> bytes:
        length = self.agree(len(payload))
        data = torch.frombuffer(bytearray(payload or length), dtype=torch.uint8)
        dist.broadcast(data, 0)
        return data.numpy().tobytes()

    # What is computed -----------------------------------------------------------------------------------------------

    def own(self, batches: Sequence[T]) -> Sequence[T]:
        """This worker's share of the micro-batches of an update: every `size`-th. It may be empty."""
        return batches if self.size == 1 else batches[self.rank :: self.size]

    def own_rows(self, batches: Sequence[Batch]) -> Sequence[Batch]:
        """This worker's share of the rows of an update's micro-batches: as many as each other worker's, to within one;
        pieces of micro-batches, where it begins or ends within one."""
        if self.size == 1:
            return batches
        total = sum(len(batch.ids_BT) for batch in batches)
        begin, end = (total * rank // self.size for rank in (self.rank, self.rank + 1))
        pieces, at = [], 0
        for batch in batches:
            rows = len(batch.ids_BT)
            first, last = max(begin - at, 0), min(end - at, rows)
            if first < last:
                pieces.append(batch.rows(first, last))
            at += rows
        return pieces

    def add_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Give every worker the sum of all workers' gradients. A parameter that has none anywhere has none after it.
        Those of parameters that are divided among the workers are sums already."""
        parameters = [each for each in parameters if not isinstance(each, DTensor)]
        if self.size == 1 or not parameters:
            return
        has_one = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.uint8)
        dist.all_reduce(has_one, dist.ReduceOp.MAX)
        gradients = []
        for parameter, wanted in zip(parameters, has_one.tolist(), strict=True):
            if wanted and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if wanted:
                gradients.append(parameter.grad)
        for bucket in _buckets(gradients):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            dist.all_reduce(flat)
            for gradient, total in zip(bucket, flat.split([each.numel() for each in bucket]), strict=True):
                gradient.copy_(total.view_as(gradient))


def _buckets(gradients: Iterable[Tensor | None]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for gradient in gradients:
        assert gradient is not None
        if bucket and sum(each.numel() for each in bucket) + gradient.numel() > _BUCKET:
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be divided. Every worker has to call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def divided_as(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor, divided like the parameter. Every worker has to call it."""
    if not isinstance(parameter, DTensor) or tensor.shape != parameter.shape:
        return tensor
    return distribute_tensor(tensor.to(parameter.device), parameter.device_mesh, parameter.placements)


_here = World()


def world() -> World:
    """This process among the workers; alone outside `joined_world`."""
    return _here


@contextmanager
def joined_world() -> Iterator[World]:
    """Meet the other workers, where a launcher has started several. Those after the first print nothing within it."""
    global _here
    launched = {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys() and int(os.environ["WORLD_SIZE"]) > 1
    if not (launched or dist.is_initialized()):
        yield _here
        return
    before = _here
    with ExitStack() as held:
        if not dist.is_initialized():
            dist.init_process_group("gloo", timeout=_PATIENCE)
            held.callback(dist.destroy_process_group)
        rank, size = dist.get_rank(), dist.get_world_size()
        scratch, silence = None, None
        if rank > 0:
            scratch = Path(held.enter_context(TemporaryDirectory(prefix="ponder-worker-")))
            silence = held.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
            held.enter_context(redirect_stdout(silence))
        _here = World(rank, size, scratch, silence)
        try:
            yield _here
        finally:
            _here = before
