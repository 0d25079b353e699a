"""Rollouts by a fleet: a fleet of one learns what one process does, to the bit; what is lost is sampled again, by the
weights of the step; what kills every actor is given up."""

import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import several

from ponder.cluster import actor as actors
from ponder.cluster.actor import ActorHandle, ActorLost, ActorRefused, ActorSetup, RolloutActor, said_of
from ponder.cluster.fleet import ActorKind, check_fleet_is_used, children, fleet
from ponder.tasks.turns import Attempt
from ponder.train.loop.display import read_metrics
from ponder.train.loop.world import WorkerFailed
from ponder.train.pipeline import load_recipe, run
from ponder.train.policy.sampling import Order, rollouts_by
from ponder.types import DataError, InvalidRequest, RecipeError


def trained(home: Path, name: str, opener=None, **keys: object) -> list[dict[str, float]]:
    """The metrics of a run of reinforcement learning, without times; it goes on where it was."""
    if not home.exists():
        several.prepare(home)
    recipe = home / f"{name}.toml"
    recipe.write_text(several.recipe_text(home, "grpo", name))
    overrides = [f"grpo.{key}={value}" for key, value in keys.items()] + ["run.checkpoint_minutes=0.0"]
    if opener is None:
        run(recipe, overrides, resume=True)
    else:
        with rollouts_by(opener):
            run(recipe, overrides, resume=True)
    records = read_metrics(home / name / "grpo" / "metrics.jsonl")
    return [{key: value for key, value in each.items() if "second" not in key} for each in records]


def weights(home: Path, name: str) -> bytes:
    return (home / name / "grpo" / "model" / "model.safetensors").read_bytes()


class Threaded:
    """An actor in this process. `disturb` is asked before each call, and may raise."""

    def __init__(self, number: int, setup: ActorSetup, disturb) -> None:
        self.name, self._setup, self._disturb = f"actor {number}", setup, disturb
        self.starts = 0
        self.stopped = threading.Event()

    def start(self) -> None:
        self.starts += 1
        self._disturb("start", self, ())
        self._actor = RolloutActor(self._setup)

    def use(self, version: int, weights: Sequence[bytes]) -> None:
        self._disturb("use", self, ())
        self._actor.use(version, weights)

    def roll_out(self, version: int, orders: Sequence[Order]) -> list[list[Attempt]]:
        self._disturb("roll_out", self, orders)
        return self._actor.roll_out(version, orders)

    def stop(self) -> None:
        self.stopped.set()


def threaded(disturb=lambda call, actor, orders: None, made: list[ActorHandle] | None = None) -> ActorKind:
    def make(number: int, setup: ActorSetup) -> Threaded:
        one = Threaded(number, setup, disturb)
        if made is not None:
            made.append(one)
        return one

    return ActorKind(make=make, publish=lambda weights: weights)


def same(one: list[dict[str, float]], other: list[dict[str, float]]) -> None:
    """But for what only a fleet reports."""
    own = {"staleness", "groups_given_up"}
    assert [{k: v for k, v in each.items() if k not in own} for each in one] == other


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fleet") / "runs"


@pytest.fixture(scope="module")
def alone(home: Path) -> list[dict[str, float]]:
    return trained(home, "alone")


def test_a_fleet_of_one_learns_what_one_process_does_to_the_bit(home: Path, alone: list[dict[str, float]]) -> None:
    same(trained(home, "one", fleet(1, threaded())), alone)
    assert weights(home, "one") == weights(home, "alone")


@pytest.mark.cluster
def test_so_does_a_child_process_that_is_killed_meanwhile(
    home: Path, alone: list[dict[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    use = actors.ChildActor.use

    def killing(self, version, weights):
        use(self, version, weights)
        if version == 1 and not killed:
            killed.append(self.pid)
            os.kill(self.pid, signal.SIGKILL)

    monkeypatch.setattr(actors.ChildActor, "use", killing)
    # Alone, a group that was lost is sampled in another batch: with one prompt a step that is the same.
    expected = trained(home, "alone_small", prompts=1, redraws=1)
    same(trained(home, "children", fleet(1, children(patience=120)), prompts=1, redraws=1), expected)
    assert killed
    assert weights(home, "children") == weights(home, "alone_small")
    with pytest.raises(ProcessLookupError):
        os.kill(killed[0], 0)


@pytest.mark.cluster
def test_lost_groups_are_sampled_again_with_the_weights_of_their_step(home: Path) -> None:
    """Among several actors the engine is deterministic: who samples what, and how often, changes nothing. Each group
    is lost once or twice: at the head of a lease, and with what went along."""
    heads: set[str] = set()

    def disturb(call: str, actor: Threaded, orders: Sequence[Order]) -> None:
        if orders and orders[0].seed not in heads:
            heads.add(orders[0].seed)
            raise ActorLost("gone")

    calm = trained(home, "calm", fleet(2, threaded()), steps=5)
    made: list[ActorHandle] = []
    disturbed = trained(home, "disturbed", fleet(3, threaded(disturb, made)), steps=5)
    assert len(heads) == 15
    assert not any(each["groups_given_up"] for each in disturbed)
    assert disturbed == calm
    assert weights(home, "disturbed") == weights(home, "calm")
    assert all(each.stopped.is_set() for each in made if isinstance(each, Threaded))


@pytest.mark.cluster
def test_a_group_that_kills_every_actor_is_given_up(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def disturb(call: str, actor: Threaded, orders: Sequence[Order]) -> None:
        if any(each.seed == "0/1/0/2" for each in orders):
            raise ActorLost("the memory is full")

    records = trained(home, "poison", fleet(2, threaded(disturb)))
    assert [each["groups_given_up"] for each in records] == [0, 1, 0]
    said = capsys.readouterr().err
    assert said.count("the memory is full") == 3
    assert "given up after 3 tries" in said


@pytest.mark.cluster
@pytest.mark.parametrize("staleness", [1, 4])
def test_answers_may_be_as_stale_as_the_recipe_says(home: Path, staleness: int) -> None:
    """The actor that samples is always ahead of the trainer, which waits for the first answers only."""
    records = trained(home, f"stale_{staleness}", fleet(1, threaded()), steps=6, staleness=staleness)
    assert len(records) == 6
    assert 0 < max(each["staleness"] for each in records) <= staleness
    assert all("engine_difference" not in each for each in records)


@pytest.mark.cluster
def test_a_stale_run_that_was_interrupted_trains_on_every_group_once(home: Path) -> None:
    def disturb(call: str, actor: Threaded, orders: Sequence[Order]) -> None:
        if any(each.seed.startswith("0/4/") for each in orders):
            raise ActorRefused("enough")

    with pytest.raises(WorkerFailed, match="enough"):
        trained(home, "again", fleet(1, threaded(disturb)), steps=6, staleness=1, levels='"adaptive"')
    asked: list[str] = []
    records = trained(
        home,
        "again",
        fleet(1, threaded(lambda call, actor, orders: asked.extend(each.seed for each in orders))),
        steps=6,
        staleness=1,
        levels='"adaptive"',
    )
    assert [each["step"] for each in records] == [1, 2, 3, 4, 5, 6]
    assert len(asked) == len({*asked})


def test_what_one_process_would_raise_ends_the_run(home: Path) -> None:
    def disturb(call: str, actor: Threaded, orders: Sequence[Order]) -> None:
        if call == "roll_out":
            raise ActorRefused("actor 0: DataError: the data is broken")

    with pytest.raises(WorkerFailed, match="the data is broken"):
        trained(home, "broken", fleet(2, threaded(disturb)))


def test_actors_that_cannot_be_started_end_the_run(home: Path) -> None:
    def disturb(call: str, actor: Threaded, orders: Sequence[Order]) -> None:
        if call == "start":
            raise ActorLost("there is no room")

    with pytest.raises(WorkerFailed, match="there is no room; it was started 3 times"):
        trained(home, "roomless", fleet(2, threaded(disturb)))


def test_stale_answers_without_actors_are_refused(home: Path) -> None:
    with pytest.raises(RecipeError, match="start the run with --actors"):
        trained(home, "lonely", staleness=1)


def test_actors_without_anything_to_sample_are_refused(home: Path) -> None:
    recipe = home / "pretrain.toml"
    recipe.write_text(several.recipe_text(home, "pretrain", "text"))
    with pytest.raises(InvalidRequest, match="no stage of pretrain does"):
        check_fleet_is_used(load_recipe(recipe))


def test_errors_of_ours_are_not_tried_again() -> None:
    assert said_of(DataError("broken"))[0] == "refused"
    assert said_of(ActorLost("gone"))[0] == said_of(ZeroDivisionError("once"))[0] == "lost"
