"""The ledger of groups: whatever is late, lost or done twice, each group is trained on once and none is too stale."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.cluster.ledger import TRIES, GroupId, GroupLedger, GroupStage, Lease

pytestmark = pytest.mark.property


def groups(step: int, count: int, round: int = 0) -> list[GroupId]:
    return [GroupId(step, round, index) for index in range(count)]


class Simulation:
    """A trainer of `steps` steps and actors that are slow, die and come back with what is no longer wanted."""

    def __init__(self, rng: Random, *, staleness: int, actors: int, prompts: int, poison: frozenset[GroupId]) -> None:
        self.rng, self.prompts, self.poison = rng, prompts, poison
        self.ledger = GroupLedger(staleness=staleness)
        self.running: dict[str, Lease | None] = {f"actor {n}": None for n in range(actors)}
        self.zombies: list[Lease] = []
        self.sampled_at: dict[GroupId, list[int]] = {}  # by every lease that was finished in time
        self.trained: dict[GroupId, int] = {}
        self.given_up: set[GroupId] = set()
        self.wanted = self.round = 0

    def actor_acts(self) -> None:
        name = self.rng.choice([*self.running])
        lease = self.running[name]
        if lease is None:
            self.running[name] = self.ledger.lease(name, self.rng.randint(1, self.prompts))
            return
        self.running[name] = None
        if self.poison & {*lease.groups} or self.rng.random() < 0.1:
            self.given_up |= {*self.ledger.lose(lease)}
            assert not self.ledger.lose(lease)
            self.zombies.append(lease)
        else:
            assert self.ledger.finish(lease)
            for group in lease.groups:
                self.sampled_at.setdefault(group, []).append(lease.version)

    def zombie_comes_back(self) -> None:
        if self.zombies:
            assert not self.ledger.finish(self.rng.choice(self.zombies))

    def trainer_acts(self) -> None:
        step = self.ledger.version
        while self.wanted <= step + self.ledger.staleness:
            self.ledger.want(groups(self.wanted, self.prompts))
            self.wanted += 1
        while self.round < 2:
            taken = self.ledger.take(step, self.round)
            if taken is None:
                return
            for group, version in taken.items():
                assert 0 <= step - version <= self.ledger.staleness
                assert self.sampled_at[group] == [version], "done once, with the weights that it is named after"
                assert group not in self.trained
                self.trained[group] = version
            self.round += 1
            if self.round == 1 and self.rng.random() < 0.3:
                self.ledger.want(groups(step, 2, round=1))
        self.ledger.publish(step + 1)
        self.round = 0


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    staleness=st.sampled_from([0, 1, 4]),
    actors=st.integers(1, 4),
    prompts=st.integers(1, 5),
    poisoned=st.booleans(),
)
def test_staleness_is_kept_and_every_group_trained_once(
    seed: int, staleness: int, actors: int, prompts: int, poisoned: bool
) -> None:
    poison = frozenset({GroupId(1, 0, 0)}) if poisoned else frozenset[GroupId]()
    run = Simulation(Random(seed), staleness=staleness, actors=actors, prompts=prompts, poison=poison)
    for _ in range(20_000):
        run.rng.choice([run.actor_acts, run.actor_acts, run.trainer_acts, run.zombie_comes_back])()
        if run.ledger.version == 5:
            break
    assert run.ledger.version == 5, "nothing waits for ever"
    assert poison <= run.given_up
    first = {group for step in range(5) for group in groups(step, prompts)}
    assert first <= run.trained.keys() | run.given_up
    assert not run.trained.keys() & run.given_up


def test_only_groups_that_may_be_this_stale_begin() -> None:
    ledger = GroupLedger(staleness=1)
    ledger.want([*groups(0, 2), *groups(1, 2), *groups(2, 2)])
    lease = ledger.lease("a", 10)
    assert lease == Lease(1, "a", 0, (*groups(0, 2), *groups(1, 2)))
    assert ledger.lease("b", 10) is None
    assert ledger.finish(lease)
    assert ledger.take(0, 0) == dict.fromkeys(groups(0, 2), 0)
    ledger.publish(1)
    assert ledger.counts == {GroupStage.DONE: 2, GroupStage.DUE: 2}
    assert ledger.lease("b", 10) == Lease(2, "b", 1, tuple(groups(2, 2)))
    assert ledger.take(1, 0) == dict.fromkeys(groups(1, 2), 0)


def test_what_was_lost_is_tried_alone_and_given_up_after_three_tries() -> None:
    ledger = GroupLedger(staleness=0)
    ledger.want(groups(0, 3))
    first = ledger.lease("a", 3)
    assert first is not None
    assert ledger.lose(first) == ()
    poison, others = groups(0, 3)[0], groups(0, 3)[1:]
    for tries in range(2, TRIES + 1):
        lease = ledger.lease("a", 3)
        assert lease is not None
        assert lease.groups == (poison,)
        assert ledger.lose(lease) == ((poison,) if tries == TRIES else ())
    for other in others:
        lease = ledger.lease("a", 3)
        assert lease is not None
        assert lease.groups == (other,)
        assert ledger.finish(lease)
    assert ledger.take(0, 0) == dict.fromkeys(others, 0)


def test_what_would_lose_or_repeat_a_group_is_refused() -> None:
    ledger = GroupLedger(staleness=1)
    ledger.want(groups(0, 1))
    with pytest.raises(ValueError, match="wanted before"):
        ledger.want(groups(0, 1))
    with pytest.raises(ValueError, match="1 groups are not trained on"):
        ledger.publish(1)
    with pytest.raises(ValueError, match="cannot be trained on"):
        ledger.take(1, 0)
    lease = ledger.lease("a", 1)
    assert lease is not None
    ledger.finish(lease)
    ledger.take(0, 0)
    with pytest.raises(ValueError, match="taken before"):
        ledger.take(0, 0)
    ledger.publish(1)
    with pytest.raises(ValueError, match="wanted before"):
        ledger.want(groups(0, 1))
    with pytest.raises(ValueError, match="staleness must be"):
        GroupLedger(staleness=-1)
