"""Reinforcement learning on up to 1,000 GPUs, simulated: throughput, waiting, staleness and cost by staleness bound.

The groups go through the fleet's own ledger (`ponder.cluster.ledger`); time is computed instead of spent. What an
actor takes for a lease is bound by memory: its weights are read once for each token of the longest answer, and keys and
values for every token of all. What a step of training takes is 6 operations a parameter and token. Lengths are
log-normal. What hardware gives is assumed (the constants below); nothing here was measured on GPUs.

`--check` runs the fleet itself with actors that sleep, and compares its steps with those simulated.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from statistics import mean

from common import RESULTS

from ponder.cluster.fleet import ActorKind, FleetRollouts
from ponder.cluster.ledger import GroupId, GroupLedger, Lease
from ponder.tasks.protocol import Problem
from ponder.tasks.turns import Attempt
from ponder.testing.tiny import tiny_model
from ponder.train.policy.sampling import Order, RolloutPlan
from ponder.train.recipe.sections import LoraRecipe
from ponder.types import SamplingParams

FLOPS = 989e12 * 0.4  # of an H100 in bf16, of which training reaches 0.4
BANDWIDTH = 3.35e12 * 0.7  # bytes a second of its memory, of which decoding reaches 0.7
MEMORY = 80e9 * 0.85  # bytes that weights and state may take
WIRE = 400e9 / 8 * 0.8  # bytes a second to a machine
PRICE = 2.5  # dollars for a GPU and an hour
STATE = 16  # bytes of a parameter that trains by AdamW


@dataclass(frozen=True)
class Size:
    """A model. parameters: how many. cached: bytes of keys and values of a token, in 16 bits."""

    name: str
    parameters: float
    cached: float

    @property
    def actor_gpus(self) -> int:
        """That hold the weights in 16 bits in half of their memory."""
        return max(1, 2 ** math.ceil(math.log2(2 * self.parameters / (MEMORY / 2))))

    @property
    def trainer_gpus(self) -> int:
        """That hold weights, gradients and optimizer state: the fewest."""
        return math.ceil(STATE * self.parameters / MEMORY)


def cached_bytes(layers: int, kv_heads: int, head_dim: int) -> float:
    return 2 * 2 * layers * kv_heads * head_dim


SIZES = [
    Size("0.6B", 0.6e9, cached_bytes(28, 8, 128)),
    Size("8B", 8.2e9, cached_bytes(36, 8, 128)),
    Size("70B", 70.6e9, cached_bytes(80, 8, 128)),
]


@dataclass(frozen=True)
class Setting:
    """One run. tokens: the mean length of an answer; sigma: of its logarithm. prompt: tokens of one."""

    size: Size
    gpus: int
    staleness: int
    prompts: int = 128
    samples: int = 16
    tokens: float = 2048
    sigma: float = 0.6
    prompt: int = 256
    steps: int = 8

    def group_seconds(self, groups: Sequence[Sequence[float]]) -> float:
        """For a lease: the lengths of the answers to each of its problems, all sampled together on one actor."""
        size, lengths = self.size, [each for group in groups for each in group]
        read = 2 * size.parameters * max(lengths) + size.cached * sum(n * (self.prompt + n / 2) for n in lengths)
        return read / (BANDWIDTH * size.actor_gpus)

    def step_seconds(self, tokens: float, gpus: int) -> float:
        """To learn from that many tokens, and to send the weights to the actors, each of which fetches them once."""
        return 6 * self.size.parameters * tokens / (FLOPS * gpus) + 2 * self.size.parameters / WIRE


@dataclass(frozen=True)
class Outcome:
    """seconds: of a step. waiting: the share of them in which the trainer waits. busy: the share that actors sample.
    staleness: mean of the groups. tokens: learned from, a second."""

    seconds: float
    waiting: float
    busy: float
    staleness: float
    tokens: float


def simulate(
    *,
    actors: int,
    prompts: int,
    staleness: int,
    steps: int,
    lease_seconds: Callable[[Lease], float],
    train_seconds: Callable[[int], float],
) -> tuple[list[float], float, float, float]:
    """(when each step was learned, seconds that the trainer waited, those that actors sampled, mean staleness)."""
    ledger, wanted = GroupLedger(staleness=staleness), 0
    idle = list(range(actors))
    events: list[tuple[float, int, Lease | None]] = []  # None: the trainer is done with a step
    now, waited, sampled = 0.0, 0.0, 0.0
    learned: list[float] = []
    stale: list[int] = []
    since: float | None = 0.0  # when the trainer began to wait
    number = 0
    while len(learned) < steps:
        while wanted < min(ledger.version + staleness + 1, steps):
            ledger.want(GroupId(wanted, 0, index) for index in range(prompts))
            wanted += 1
        if since is not None and (taken := ledger.take(ledger.version, 0)) is not None:
            waited += now - since
            since = None
            stale += [ledger.version - version for version in taken.values()]
            number += 1
            heapq.heappush(events, (now + train_seconds(ledger.version), number, None))
        while idle and (lease := ledger.lease(str(idle[-1]), -(-prompts // actors))) is not None:
            idle.pop()
            seconds = lease_seconds(lease)
            sampled += seconds
            number += 1
            heapq.heappush(events, (now + seconds, number, lease))
        now, _, done = heapq.heappop(events)
        if done is None:
            learned.append(now)
            ledger.publish(ledger.version + 1)
            since = now
        else:
            ledger.finish(done)
            idle.append(int(done.actor))
    return learned, waited, sampled, mean(stale)


def run(setting: Setting, seed: int, trainer_gpus: int) -> Outcome:
    actors = (setting.gpus - trainer_gpus) // setting.size.actor_gpus
    rng = Random(seed)
    mu = math.log(setting.tokens) - setting.sigma**2 / 2
    lengths = [
        [[rng.lognormvariate(mu, setting.sigma) for _ in range(setting.samples)] for _ in range(setting.prompts)]
        for _ in range(setting.steps)
    ]
    totals = [sum(map(sum, step)) for step in lengths]
    learned, waited, sampled, stale = simulate(
        actors=min(actors, setting.prompts),
        prompts=setting.prompts,
        staleness=setting.staleness,
        steps=setting.steps,
        lease_seconds=lambda lease: setting.group_seconds([lengths[g.step][g.index] for g in lease.groups]),
        train_seconds=lambda step: setting.step_seconds(totals[step], trainer_gpus),
    )
    end = learned[-1]
    return Outcome(end / setting.steps, waited / end, sampled / (end * actors), stale, sum(totals) / end)


def best(setting: Setting, seed: int) -> tuple[int, Outcome]:
    """With the fewest training GPUs that learn nearly as fast as any number of them: 1, 2, 4, 8, 32 or 128 times those
    that the model needs."""
    least, most = setting.size.trainer_gpus, setting.gpus - setting.size.actor_gpus
    choices = [least * 2**n for n in (0, 1, 2, 3, 5, 7) if least * 2**n <= most]
    found = {each: run(replace(setting, steps=4), seed, each).tokens for each in choices}
    gpus = min(each for each, tokens in found.items() if tokens >= 0.98 * max(found.values()))
    return gpus, run(setting, seed, gpus)


@dataclass(frozen=True)
class Row:
    """Means over the seeds. low, high: of the tokens a second. dollars: a million of them."""

    model: str
    gpus: int
    training: int
    staleness: int
    seconds: float
    waiting: float
    busy: float
    mean_staleness: float
    tokens: float
    low: float
    high: float
    dollars: float

    @classmethod
    def of(cls, setting: Setting, seeds: int) -> Row:
        runs = [best(setting, seed) for seed in range(seeds)]
        made = [outcome for _, outcome in runs]
        tokens = [each.tokens for each in made]
        return cls(
            model=setting.size.name,
            gpus=setting.gpus,
            training=runs[0][0],
            staleness=setting.staleness,
            seconds=mean(each.seconds for each in made),
            waiting=mean(each.waiting for each in made),
            busy=mean(each.busy for each in made),
            mean_staleness=mean(each.staleness for each in made),
            tokens=mean(tokens),
            low=min(tokens),
            high=max(tokens),
            dollars=PRICE * setting.gpus / 3600 / mean(tokens) * 1e6,
        )

    def __str__(self) -> str:
        return (
            f"| {self.model} | {self.gpus} | {self.training} | {self.staleness} | {self.seconds:.1f} | "
            f"{self.waiting:.0%} | {self.busy:.0%} | {self.mean_staleness:.2f} | "
            f"{self.tokens:,.0f} ({self.low:,.0f} to {self.high:,.0f}) | {self.dollars:.3f} |"
        )


def table(args: argparse.Namespace) -> list[Row]:
    print(f"{args.prompts} problems x {args.samples} answers of {args.tokens:.0f} tokens; {args.seeds} seeds\n")
    print("| model | GPUs | of them training | staleness | seconds a step | trainer waits | actors sample | "
          "mean staleness | tokens a second (range) | $ a million tokens |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|")
    rows = []
    for size in SIZES:
        for gpus in args.gpus:
            if size.trainer_gpus + size.actor_gpus > gpus:
                print(f"| {size.name} | {gpus} | does not fit | | | | | | | |")
                continue
            for staleness in args.staleness:
                setting = Setting(size, gpus, staleness, args.prompts, args.samples, args.tokens)
                rows.append(Row.of(setting, args.seeds))
                print(rows[-1], flush=True)
    return rows


def arithmetic() -> None:
    """What follows from a model's size alone."""
    print("| model | weights, GB | weights, gradients and AdamW of a worker among 1 / 8 / 64, GB | weights to a "
          "machine at 25 / 100 / 400 Gbit/s, s | FSDP hides its exchanges above tokens a worker at the same |\n"
          "|---|---|---|---|---|")  # fmt: skip
    for size in SIZES:
        wires = [WIRE * gbit / 400 for gbit in (25, 100, 400)]
        shares = " / ".join(f"{STATE * size.parameters / n / 1e9:,.1f}" for n in (1, 8, 64))
        seconds = " / ".join(f"{2 * size.parameters / wire:.2f}" for wire in wires)
        # 12 bytes a parameter are gathered twice and summed once in float32, while 6 operations a token are computed.
        tokens = " / ".join(f"{12 / wire * FLOPS / 6 / 1000:,.0f}k" for wire in wires)
        print(f"| {size.name} | {2 * size.parameters / 1e9:.1f} | {shares} | {seconds} | {tokens} |")


# Against the fleet itself --------------------------------------------------------------------------------------------


class Sleeper:
    """An actor that sleeps as long as its groups would take."""

    def __init__(self, number: int) -> None:
        self.name = f"actor {number}"

    def start(self) -> None: ...

    def use(self, version: int, weights: Sequence[object]) -> None: ...

    def roll_out(self, version: int, orders: Sequence[Order]) -> list[list[Attempt]]:
        time.sleep(lease_seconds([order.seed for order in orders]))
        return [[] for _ in orders]

    def stop(self) -> None: ...


def lease_seconds(seeds: Sequence[str]) -> float:
    """What the groups of these seeds take: as long as the longest, and a little for each."""
    return max(Random(seed).lognormvariate(-1.5, 0.8) for seed in seeds) + 0.1 * len(seeds)


PROMPTS, STEPS, TRAINING = 8, 6, 0.5  # of the comparison; TRAINING in seconds


def timed_fleet(actors: int, staleness: int) -> float:
    """Seconds of a step of the fleet, with actors that sleep and a trainer that sleeps."""
    plan = RolloutPlan(
        tasks=(),
        tokenizer=Path(),
        params=SamplingParams(),
        samples=1,
        prompts=PROMPTS,
        sequence=8,
        max_batch=8,
        deterministic=True,
        step=0,
        staleness=staleness,
        lora=LoraRecipe(),
        threads=1,
        device="cpu",
    )
    kind = ActorKind(make=lambda number, setup: Sleeper(number), publish=lambda weights: weights)
    fleet = FleetRollouts(tiny_model(), plan, actors, kind)
    began, wanted = time.monotonic(), 0
    for step in range(STEPS):
        while wanted < min(step + staleness + 1, STEPS):
            orders = [
                Order(0, Problem(task="", question="", answer=""), f"{wanted}/{index}") for index in range(PROMPTS)
            ]
            fleet.want(wanted, 0, orders)
            wanted += 1
        fleet.take(step, 0)
        time.sleep(TRAINING)
    seconds = (time.monotonic() - began) / STEPS
    fleet.close()
    return seconds


def check() -> list[dict[str, float]]:
    """Steps of the fleet with sleeping actors beside the simulated ones."""
    rows = []
    print("| actors | staleness | seconds a step: the fleet | simulated | ratio |\n|---|---|---|---|---|")
    for actors in (1, 2, 4, 8):
        for staleness in (0, 1, 4):
            took = timed_fleet(actors, staleness)
            learned, *_ = simulate(
                actors=actors,
                prompts=PROMPTS,
                staleness=staleness,
                steps=STEPS,
                lease_seconds=lambda each: lease_seconds([f"{group.step}/{group.index}" for group in each.groups]),
                train_seconds=lambda step: TRAINING,
            )
            simulated = learned[-1] / STEPS
            rows.append({"actors": actors, "staleness": staleness, "fleet": took, "simulated": simulated})
            print(f"| {actors} | {staleness} | {took:.2f} | {simulated:.2f} | {took / simulated:.3f} |", flush=True)
    return rows


def plot(rows: Sequence[Row], file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    for axes, size in zip(figure.subplots(1, len(SIZES)), SIZES, strict=True):
        for staleness in sorted({row.staleness for row in rows}):
            own = [row for row in rows if (row.model, row.staleness) == (size.name, staleness)]
            axes.loglog([r.gpus for r in own], [r.tokens for r in own], "o-", label=f"staleness {staleness}")
        axes.set(title=size.name, xlabel="GPUs", ylabel="tokens learned a second (simulated)")
        axes.legend()
    figure.savefig(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", nargs="+", type=int, default=[8, 32, 128, 1000])
    parser.add_argument("--staleness", nargs="+", type=int, default=[0, 1, 4])
    parser.add_argument("--prompts", type=int, default=128, help="of a step")
    parser.add_argument("--samples", type=int, default=16, help="answers to each")
    parser.add_argument("--tokens", type=float, default=2048, help="of an answer, on average")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--check", action="store_true", help="run the fleet with sleeping actors instead")
    parser.add_argument("--arithmetic", action="store_true", help="print only what follows from a model's size")
    args = parser.parse_args()
    if args.arithmetic:
        arithmetic()
        return
    if args.check:
        (RESULTS / "cluster_check.json").write_text(json.dumps(check(), indent=2) + "\n")
        return
    rows = table(args)
    (RESULTS / "cluster_sim.json").write_text(
        json.dumps({"settings": vars(args), "rows": [asdict(row) for row in rows]}, indent=2) + "\n"
    )
    plot(rows, RESULTS / "cluster_sim.svg")


if __name__ == "__main__":
    main()
