"""Which groups of answers are due, running, done and trained on: the only place that counts them. Nothing else is here.

A group is named by its step. It may be sampled by weights that are at most `staleness` updates older than those that it
changes: only groups of the next `staleness` steps are begun, and a step's groups are trained on in the order in which
they were drawn, however long each takes. So neither speed nor length decides what is learned from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

TRIES = 3  # of a group, before it is given up


class GroupStage(StrEnum):
    """How far a group of answers is. GIVEN_UP: it was lost with its actor `TRIES` times."""

    DUE = "due"
    RUNNING = "running"
    DONE = "done"
    GIVEN_UP = "given up"
    TRAINED = "trained"


@dataclass(frozen=True, slots=True, order=True)
class GroupId:
    """The answers to problem `index` of a round of a step, all numbered from 0."""

    step: int
    round: int
    index: int


@dataclass(frozen=True, slots=True)
class Lease:
    """Groups that one actor samples with the weights of one version.

    number: no other lease has it.
    version: how many updates those weights have had.
    """

    number: int
    actor: str
    version: int
    groups: tuple[GroupId, ...]


@dataclass(slots=True)
class _Entry:
    stage: GroupStage = GroupStage.DUE
    tries: int = 0
    version: int = -1  # of the weights that sampled it, once it is done


class GroupLedger:
    """The groups of one stage of training.

    version: how many updates the weights have had that actors are given now; groups of that step are trained on next.
    """

    def __init__(self, *, staleness: int, version: int = 0) -> None:
        """staleness: the largest number of updates between the weights that sample a group and those that it changes.

        Raises ValueError for a negative one.
        """
        if staleness < 0:
            raise ValueError(f"staleness must be at least 0 (got {staleness})")
        self.staleness, self.version = staleness, version
        self._entries: dict[GroupId, _Entry] = {}
        self._taken: set[tuple[int, int]] = set()  # steps and rounds
        self._open: dict[int, Lease] = {}
        self._leases = 0

    @property
    def counts(self) -> Mapping[GroupStage, int]:
        """How many groups of this step and of later ones are at each stage."""
        return Counter(entry.stage for entry in self._entries.values())

    def want(self, groups: Iterable[GroupId]) -> None:
        """These are due. Raises ValueError for one that was due before."""
        for group in groups:
            if group in self._entries or group.step < self.version:
                raise ValueError(f"{group} was wanted before")
            self._entries[group] = _Entry()

    def lease(self, actor: str, most: int) -> Lease | None:
        """Hand up to `most` groups that may begin now to an actor, the earliest first. None: there is none.

        One that was lost with an actor is handed out alone, so that it takes no others along if it is what kills them.
        """
        last = self.version + self.staleness
        due = sorted(g for g, entry in self._entries.items() if entry.stage is GroupStage.DUE and g.step <= last)
        if not due:
            return None
        fresh = [group for group in due if not self._entries[group].tries]
        chosen = fresh[:most] if due[0] in fresh else due[:1]
        for group in chosen:
            self._entries[group].stage = GroupStage.RUNNING
            self._entries[group].tries += 1
        self._leases += 1
        lease = Lease(self._leases, actor, self.version, tuple(chosen))
        self._open[lease.number] = lease
        return lease

    def finish(self, lease: Lease) -> bool:
        """Its groups are sampled. False: the lease was lost before, and what it brings does not count."""
        if self._open.pop(lease.number, None) is None:
            return False
        for group in lease.groups:
            entry = self._entries[group]
            entry.stage, entry.version = GroupStage.DONE, lease.version
        return True

    def lose(self, lease: Lease) -> tuple[GroupId, ...]:
        """Its actor is lost: the groups are due again. Gives those that are given up now."""
        if self._open.pop(lease.number, None) is None:
            return ()
        given_up = tuple(group for group in lease.groups if self._entries[group].tries >= TRIES)
        for group in lease.groups:
            self._entries[group].stage = GroupStage.GIVEN_UP if group in given_up else GroupStage.DUE
        return given_up

    def take(self, step: int, round: int) -> dict[GroupId, int] | None:
        """The groups of a round to train on now, each with the version that sampled it. None: some are not done yet.

        Raises ValueError where the weights are not those of the step, and for a round that was taken before.
        """
        if step != self.version:
            raise ValueError(f"step {step} cannot be trained on: the weights have had {self.version} updates")
        own = {g: entry for g, entry in sorted(self._entries.items()) if (g.step, g.round) == (step, round)}
        if (step, round) in self._taken:
            raise ValueError(f"round {round} of step {step} was taken before")
        if any(entry.stage in (GroupStage.DUE, GroupStage.RUNNING) for entry in own.values()):
            return None
        done = {group: entry.version for group, entry in own.items() if entry.stage is GroupStage.DONE}
        assert all(self.version - version <= self.staleness for version in done.values())
        for group in done:
            own[group].stage = GroupStage.TRAINED
        self._taken.add((step, round))
        return done

    def publish(self, version: int) -> None:
        """The weights have had that many updates. Raises ValueError where that leaves groups untrained, and for fewer
        updates than before."""
        over = (GroupStage.TRAINED, GroupStage.GIVEN_UP)
        left = [group for group, entry in self._entries.items() if group.step < version and entry.stage not in over]
        if left or version < self.version:
            raise ValueError(f"version {version} cannot follow {self.version}: {len(left)} groups are not trained on")
        self.version = version
        self._entries = {group: entry for group, entry in self._entries.items() if group.step >= version}
        self._taken = {taken for taken in self._taken if taken[0] >= version}
