"""A process that answers with a copy of the weights that train elsewhere, and what its owner says to it.

An actor begins without weights, not with those of a model on a disk: one that is started again can only sample with
what it is sent. The owner of child processes and the children exchange pickles over a socket that only they hold.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from multiprocessing.connection import Connection
from typing import Protocol

import torch
from safetensors.torch import load, save
from torch import Tensor

from ponder.model.config import ModelConfig
from ponder.model.lora import add_lora
from ponder.model.transformer import Transformer
from ponder.sampler.local import LocalSampler
from ponder.sampler.threads import run_sync
from ponder.tasks.registry import load_task
from ponder.tasks.turns import Attempt
from ponder.tokenizer import Tokenizer
from ponder.train.loop.fit import pick_device
from ponder.train.policy.rollout import roll_out_seeded
from ponder.train.policy.sampling import Order, RolloutPlan
from ponder.types import PonderError, SamplerError


class ActorLost(PonderError):
    """An actor died, does not answer in time, or could not sample what it was given."""


class ActorRefused(PonderError):
    """What one process would have raised too, in the words of the actor. Trying again would not help."""


@dataclass(frozen=True, slots=True)
class ActorSetup:
    """What an actor is made from, beside weights. compute_dtype: of the model that trains."""

    config: ModelConfig
    compute_dtype: torch.dtype
    plan: RolloutPlan


class RolloutActor:
    """A copy of the model with a sampler over it, and the tasks that grade its answers.

    version: how many updates the weights have had; None: there are none yet.
    """

    def __init__(self, setup: ActorSetup) -> None:
        plan = setup.plan
        self.setup = setup
        self.version: int | None = None
        if plan.threads:
            torch.set_num_threads(plan.threads)
        self.tokenizer = Tokenizer.load(plan.tokenizer)
        self.tasks = [load_task(each) for each in plan.tasks]
        self.sampler: LocalSampler | None = None
        self._parameters: dict[str, Tensor] = {}

    def use(self, version: int, weights: Sequence[bytes]) -> None:
        """Sample with these weights from now on: files in the safetensors format, all of them the first time, later
        those that have changed."""
        tensors = {name: tensor for part in weights for name, tensor in load(part).items()}
        if self.sampler is None:
            self._begin(tensors)
            assert self.sampler is not None
        else:
            with self.sampler.engine.update_weights(), torch.no_grad():
                for name, tensor in tensors.items():
                    self._parameters[name].copy_(tensor)
        self.sampler.engine.weights_version = self.version = version

    def roll_out(self, version: int, orders: Sequence[Order]) -> list[list[Attempt]]:
        """The groups, sampled and graded. Raises ActorLost for weights of another version than the actor has."""
        if self.sampler is None or self.version != version:
            raise ActorLost(f"has weights of version {self.version}, not {version}")
        plan = self.setup.plan
        problems = [(self.tasks[each.entry], each.problem) for each in orders]
        seeds = [each.seed for each in orders]
        return run_sync(roll_out_seeded(self.sampler, problems, seeds=seeds, samples=plan.samples, params=plan.params))

    def _begin(self, tensors: dict[str, Tensor]) -> None:
        setup, plan = self.setup, self.setup.plan
        model = Transformer(setup.config)
        if plan.lora.rank:
            add_lora(model, plan.lora.rank, plan.lora.alpha, plan.lora.targets)
        model.load_state_dict(tensors, assign=True)  # with the dtype that each of them has
        model = model.to(pick_device(plan.device)).requires_grad_(False).eval()
        model.compute_dtype = setup.compute_dtype
        self._parameters = {**model.state_dict()}
        self.sampler = plan.sampler(model, self.tokenizer)


class ActorHandle(Protocol):
    """An actor as its owner sees it. Calls return when the actor is done; ActorLost says that it has to start again."""

    @property
    def name(self) -> str: ...

    def start(self) -> None:
        """Start the actor, in place of one that is lost."""
        ...

    def use(self, version: int, weights: Sequence[object]) -> None:
        """See `RolloutActor`. weights: as the fleet's `publish` gave them."""
        ...

    def roll_out(self, version: int, orders: Sequence[Order]) -> list[list[Attempt]]:
        """See `RolloutActor`. Raises ActorRefused for what would fail everywhere."""
        ...

    def stop(self) -> None:
        """End the actor, whatever it does. Called from another thread, it makes a call that waits raise ActorLost."""
        ...


class _Reply(StrEnum):
    DONE = "done"
    REFUSED = "refused"
    LOST = "lost"


_BOOT = "import sys; sys.path[:] = {path!r}; from ponder.cluster.actor import serve_owner; serve_owner({fd})"


class ChildActor:
    """An actor in a child process on this machine."""

    def __init__(self, number: int, setup: ActorSetup, *, patience: float) -> None:
        """patience: seconds in which a call has to be answered."""
        self.name = f"actor {number}"
        self._setup, self._patience = setup, patience
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        self.stop()
        if self._connection is not None:
            self._connection.close()
        ours, theirs = socket.socketpair()
        path = [os.path.abspath(each) for each in sys.path]
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _BOOT.format(path=path, fd=theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is the trainer's
            )
        self._connection = Connection(ours.detach())
        self._call("begin", self._setup)

    def use(self, version: int, weights: Sequence[object]) -> None:
        self._call("use", version, weights)

    def roll_out(self, version: int, orders: Sequence[Order]) -> list[list[Attempt]]:
        answers: list[list[Attempt]] = self._call("roll_out", version, orders)
        return answers

    def stop(self) -> None:
        process = self._process
        if process is not None:
            process.kill()  # it has nothing that would have to be saved
            process.wait()

    def _call(self, *call: object):  # type: ignore[no-untyped-def]  # what the call gives
        assert self._connection is not None
        try:
            self._connection.send(call)
            if not self._connection.poll(self._patience):
                raise ActorLost(f"{self.name} has not answered for {self._patience:g} seconds")
            reply, value = self._connection.recv()
        except (EOFError, OSError) as error:
            raise ActorLost(f"{self.name} has died") from error
        if reply is _Reply.DONE:
            return value
        raise (ActorRefused if reply is _Reply.REFUSED else ActorLost)(f"{self.name}: {value}")


def serve_owner(fd: int) -> None:
    """Do what the process at the other end of the socket asks for, until it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(fd)
    actor: RolloutActor | None = None
    while True:
        try:
            name, *arguments = connection.recv()
        except EOFError:
            return
        value: object = None
        try:
            if name == "begin":
                actor = RolloutActor(*arguments)
            elif name == "use":
                assert actor is not None
                actor.use(*arguments)
            else:
                assert actor is not None
                value = actor.roll_out(*arguments)
            reply = _Reply.DONE
        except Exception as error:
            reply, value = said_of(error)
        connection.send((reply, value))


def said_of(error: Exception) -> tuple[_Reply, str]:
    """Whether an actor's error would come everywhere, and its text. Other errors than ours may be of this try alone."""
    refused = isinstance(error, PonderError) and not isinstance(error, ActorLost | SamplerError)
    return (_Reply.REFUSED if refused else _Reply.LOST), f"{type(error).__name__}: {error}"


def weights_file(tensors: dict[str, Tensor]) -> bytes:
    """The tensors in the safetensors format, as they are now."""
    return save({name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()})
