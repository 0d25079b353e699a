"""The store of jobs: how long it takes to hand over, count, page, search, change and delete among many jobs.

    python bench/jobs.py                # 10,000 jobs; seconds of CPU and of the clock
    python bench/jobs.py --jobs 100000

Each figure is the median of the rounds, with their range. No model runs and no server: the statements alone.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from ponder.serve.store import Store
from ponder.serve.store.database import After
from ponder.serve.store.job_records import JobFilter, JobSort, JobState, StoredJob
from ponder.serve.store.jobs import changes_after, count_jobs, insert_jobs, page_of_jobs, put_job, remove_jobs

OWNER = "bench"
AT_ONCE = 1000


def made(number: int, rng: random.Random) -> StoredJob:
    """A job that is done, with a question and an answer of some length."""
    asked = f"What is {rng.randrange(10**6)} times {rng.randrange(10**6)}? " + "and why " * rng.randrange(20)
    return StoredJob(
        id=f"job_{number:032x}",
        owner=OWNER,
        state=JobState.COMPLETED,
        model="mini",
        title=asked[:200],
        created_at=float(number),
        request={"model": "mini", "input": asked, "background": True},
        answer=" ".join(str(rng.randrange(10**9)) for _ in range(rng.randrange(1, 40))),
        batch=f"batch {number // 1000}",
        labels=("sums",),
    )


async def timed(what: str, rounds: int, work: Callable[[], Awaitable[object]]) -> None:
    walls, cpus = [], []
    for _ in range(rounds):
        began, spent = time.perf_counter(), time.process_time()
        await work()
        walls.append(1000 * (time.perf_counter() - began))
        cpus.append(1000 * (time.process_time() - spent))
    shown = (f"{statistics.median(each):,.2f} ({min(each):,.2f}-{max(each):,.2f})" for each in (cpus, walls))
    print(f"| {what} | {' | '.join(shown)} |", flush=True)


async def measure(store: Store, jobs: int, rounds: int) -> None:
    rng = random.Random(0)
    everything = [made(number, rng) for number in range(jobs)]
    print(f"{jobs:,} jobs of one owner, {rounds} rounds\n\n| what | CPU, ms | wall, ms |\n|---|---|---|")

    async def hand_over() -> None:
        for start in range(0, jobs, AT_ONCE):
            some = everything[start : start + AT_ONCE]
            await store.write(partial(insert_jobs, jobs=some, expires_at=None))

    await timed("hand all over", 1, hand_over)
    every, last = JobFilter(), jobs
    page = partial(page_of_jobs, owner=OWNER, sort=JobSort.CREATED_DOWN, most=100)
    await timed("counts", rounds, lambda: store.read(lambda c: count_jobs(c, OWNER, every)))
    await timed("a page of 100 in the middle", rounds, lambda: store.read(partial(page, wanted=every, after=jobs // 2)))
    for name, words in (("common", "times"), ("rare", "999999"), ("absent", "xylophone")):
        wanted = JobFilter(q=words)
        await timed(f"search, {name} word", rounds, lambda w=wanted: store.read(partial(page, wanted=w, after=None)))
    await timed("changes, none", rounds, lambda: store.read(lambda c: changes_after(c, OWNER, last, 200)))
    changed = replace(everything[0], number=1)
    await timed("change one", rounds, lambda: store.write(lambda c: put_job(c, changed)))
    ids = [job.id for job in everything]
    await timed(
        "delete one, to the byte",
        rounds,
        lambda: store.write(lambda c: remove_jobs(c, OWNER, [ids.pop()]), After.ERASED),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=11)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store.db")
        try:
            asyncio.run(measure(store, args.jobs, args.rounds))
        finally:
            store.close()


if __name__ == "__main__":
    main()
