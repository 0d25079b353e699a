"""A fleet of actors that sample what a stage learns from. The ledger says what is next; each actor's thread asks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from ponder.cluster.actor import ActorHandle, ActorLost, ActorRefused, ActorSetup, ChildActor, weights_file
from ponder.cluster.ledger import TRIES, GroupId, GroupLedger, Lease
from ponder.model.transformer import Transformer
from ponder.tasks.protocol import Task
from ponder.tasks.turns import Attempt
from ponder.tokenizer import Tokenizer
from ponder.train.loop.world import WorkerFailed
from ponder.train.policy.sampling import OpenRollouts, Order, RolloutPlan, RolloutReport, Rollouts
from ponder.train.policy.stage import RolloutRecipe
from ponder.train.recipe.sections import Recipe
from ponder.types import InvalidRequest

PATIENCE = 1800.0  # seconds for the groups of one lease


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorKind:
    """What kind of actors a fleet has.

    make: the actor of a number, not started.
    publish: weights in the safetensors format, once for all actors that will be given them.
    """

    make: Callable[[int, ActorSetup], ActorHandle]
    publish: Callable[[bytes], object]


def children(patience: float = PATIENCE) -> ActorKind:
    """Child processes on this machine."""

    def make(number: int, setup: ActorSetup) -> ChildActor:
        return ChildActor(number, setup, patience=patience)

    return ActorKind(make=make, publish=lambda weights: weights)


def fleet(count: int, kind: ActorKind) -> OpenRollouts:
    """Opens fleets of that many actors, at least one."""

    def open(model: Transformer, tokenizer: Tokenizer, tasks: Sequence[Task], plan: RolloutPlan) -> Rollouts:
        # Among several actors, and beside a trainer, it depends on time which groups are sampled together.
        timed = count > 1 or plan.staleness > 0
        plan = replace(plan, deterministic=plan.deterministic or timed)
        return FleetRollouts(model, plan, count, kind)

    return open


def check_fleet_is_used(recipe: Recipe) -> None:
    """Raises InvalidRequest for a recipe of which no stage samples answers."""
    stages = [each.name for each in recipe.sections if isinstance(each, RolloutRecipe)]
    if not set(stages) & {*recipe.run.stages}:
        raise InvalidRequest(
            f"actors sample answers, and no stage of {', '.join(recipe.run.stages)} does: leave them out, or add one "
            f"of {', '.join(stages)}"
        )


@dataclass(slots=True)
class _Weights:
    """Of one version. parts: what an actor needs that has older ones. whole: what one needs that has none."""

    version: int
    parts: tuple[object, ...]
    whole: tuple[object, ...]


@dataclass(slots=True)
class _Shared:
    """What the threads share, under one lock."""

    ledger: GroupLedger
    weights: _Weights
    orders: dict[GroupId, Order] = field(default_factory=dict)
    answers: dict[GroupId, list[Attempt]] = field(default_factory=dict)
    losses: list[str] = field(default_factory=list)
    failure: str = ""
    closed: bool = False


class FleetRollouts:
    """`Rollouts` by actors: groups of the next steps are sampled while the trainer learns, as far as they may be stale.

    An actor that is lost is started again, and sent the weights again. One that has sampled nothing `TRIES` times in a
    row although it was started again ends the run.
    """

    def __init__(self, model: Transformer, plan: RolloutPlan, count: int, kind: ActorKind) -> None:
        self._model, self._plan, self._kind = model, plan, kind
        self._most = -(-plan.prompts // count)
        ledger = GroupLedger(staleness=plan.staleness, version=plan.step)
        tensors = model.state_dict()
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._trained = [name for name in tensors if name in trained]
        frozen = {name: tensor for name, tensor in tensors.items() if name not in trained}
        self._frozen = (kind.publish(weights_file(frozen)),) if frozen else ()
        self._shared = _Shared(ledger, self._snapshot(plan.step))
        self._changed = threading.Condition()
        self._report = RolloutReport()
        setup = ActorSetup(model.config, model.compute_dtype, plan)
        self._actors = [kind.make(number, setup) for number in range(count)]
        self._threads = [
            threading.Thread(target=self._drive, args=(actor,), name=actor.name, daemon=True) for actor in self._actors
        ]
        for thread in self._threads:
            thread.start()

    # The trainer's side ---------------------------------------------------------------------------------------------

    def want(self, step: int, round: int, orders: Sequence[Order]) -> None:
        groups = [GroupId(step, round, index) for index in range(len(orders))]
        with self._changed:
            self._shared.ledger.want(groups)
            self._shared.orders |= dict(zip(groups, orders, strict=True))
            self._changed.notify_all()

    def take(self, step: int, round: int) -> list[list[Attempt] | None]:
        """Raises WorkerFailed for an error that one process would have raised, and where no actor is left."""
        shared = self._shared
        if step != shared.ledger.version:
            weights = self._snapshot(step)
            with self._changed:
                shared.ledger.publish(step)
                shared.weights = weights
                self._changed.notify_all()
        with self._changed:
            while True:
                if shared.failure:
                    raise WorkerFailed(shared.failure)
                taken = shared.ledger.take(step, round)
                if taken is not None:
                    break
                self._changed.wait()
            wanted = sorted(group for group in shared.orders if (group.step, group.round) == (step, round))
            for group in wanted:
                del shared.orders[group]
            lost, shared.losses = shared.losses, []
            answers = [shared.answers.pop(group, None) for group in wanted]
        metrics = {
            "staleness": float(max((step - version for version in taken.values()), default=0)),
            "groups_given_up": float(sum(each is None for each in answers)),
        }
        self._report = RolloutReport(metrics, lost)
        return answers

    @contextmanager
    def updating(self) -> Iterator[None]:
        """Actors have copies: nothing waits."""
        yield

    def report(self) -> RolloutReport:
        """The largest staleness of the groups that were taken last, and what was lost since those before."""
        return self._report

    def close(self) -> None:
        with self._changed:
            self._shared.closed = True
            self._changed.notify_all()
        for actor in self._actors:
            actor.stop()  # its thread learns of it
        for actor, thread in zip(self._actors, self._threads, strict=True):
            thread.join()
            actor.stop()  # where it was just starting

    def _snapshot(self, version: int) -> _Weights:
        tensors = self._model.state_dict()
        part = self._kind.publish(weights_file({name: tensors[name] for name in self._trained}))
        return _Weights(version, (part,), (*self._frozen, part))

    # The actors' side, a thread for each ----------------------------------------------------------------------------

    def _drive(self, actor: ActorHandle) -> None:
        """Lease after lease, until the fleet is closed or fails."""
        version: int | None = None  # of the actor's weights; None: it has to be started
        failed = 0
        while not (self._shared.closed or self._shared.failure):
            lease = None
            try:
                if version is None:
                    actor.start()
                found = self._next(actor.name)
                if found is None:
                    return
                lease, weights, orders = found
                if version != weights.version:
                    actor.use(weights.version, weights.parts if version is not None else weights.whole)
                version, failed = weights.version, 0
                groups = actor.roll_out(lease.version, orders)
                _check_versions(groups, lease.version)
            except ActorRefused as error:
                self._fail(str(error))
                return
            except ActorLost as error:
                failed += 1
                version = None
                self._lose(lease, str(error))
                if failed > TRIES:
                    self._fail(f"{error}; it was started {TRIES} times in a row")
            else:
                with self._changed:
                    if self._shared.ledger.finish(lease):
                        self._shared.answers |= dict(zip(lease.groups, groups, strict=True))
                    self._changed.notify_all()

    def _next(self, actor: str) -> tuple[Lease, _Weights, list[Order]] | None:
        shared = self._shared
        with self._changed:
            while not (shared.closed or shared.failure):
                lease = shared.ledger.lease(actor, self._most)
                if lease is not None:
                    return lease, shared.weights, [shared.orders[group] for group in lease.groups]
                self._changed.wait()
        return None

    def _lose(self, lease: Lease | None, why: str) -> None:
        with self._changed:
            if self._shared.closed:
                return
            self._shared.losses.append(why)
            if lease is not None:
                given_up = self._shared.ledger.lose(lease)
                self._shared.losses += [f"{group} was given up after {TRIES} tries" for group in given_up]
            self._changed.notify_all()

    def _fail(self, why: str) -> None:
        with self._changed:
            self._shared.failure = self._shared.failure or why
            self._changed.notify_all()


def _check_versions(groups: Sequence[Sequence[Attempt]], version: int) -> None:
    """No token of other weights than the lease's."""
    for group in groups:
        for attempt in group:
            for segment in attempt.trajectory.segments:
                if segment.weights_version != version:
                    raise ActorLost(f"a token was sampled by version {segment.weights_version}, not {version}")
