"""This checkout beside an older one: three benchmarks of both, one round of each in turn, as ratios with their ranges.

A cell is a time; its ratio is new over old, so more than 1 is slower. Each checkout runs its own script over its own
sources, in processes of this interpreter, and leaves its results in a temporary folder. Marked are cells whose whole
range lies more than 3% above 1.

    git worktree add /tmp/old COMMIT && python bench/beside.py /tmp/old
    python bench/beside.py /tmp/old --rounds 5 --only engine_overhead
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
WORSE = 1.03
BENCHES = {
    "serve_overhead": ["--rounds", "1", "--name", "beside"],
    "engine_overhead": ["--rounds", "1"],
    "decode": ["--rounds", "1", "--contenders", "ponder"],
}
RUN = """
import runpy, sys
from pathlib import Path
script, results = sys.argv[1:3]
sys.path.insert(0, str(Path(script).parent))
sys.argv = [script, *sys.argv[3:]]
import common
common.RESULTS = Path(results)
runpy.run_path(script, run_name="__main__")
"""


def run(checkout: Path, bench: str) -> dict[str, float]:
    """One round of a benchmark in a checkout: a time for each cell."""
    with tempfile.TemporaryDirectory() as folder:
        script = checkout / "bench" / f"{bench}.py"
        environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
        command = [sys.executable, "-c", RUN, str(script), folder, *BENCHES[bench]]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{script} failed:\n{done.stderr[-2000:]}")
        (file,) = Path(folder).glob("*.json")
        return dict(cells(bench, json.loads(file.read_text())))


def cells(bench: str, result: dict[str, Any]) -> Iterator[tuple[str, float]]:
    if bench == "serve_overhead":
        for way, rounds in result["costs"].items():
            cost = rounds[0]
            yield f"{way}: wall time a token", cost["seconds"] / cost["tokens"]
            yield f"{way}: processor time a token", cost["cpu"] / cost["tokens"]
            if "first_p50" in cost:
                yield f"{way}: first event, median", cost["first_p50"]
    elif bench == "engine_overhead":
        for streams, ways in result["microseconds"].items():
            for way, rounds in ways.items():
                yield f"{way}, {streams} streams: a step", rounds[0]["step"]
    else:
        for case, rates in result["tokens_per_second"]["ponder"].items():
            yield f"{case}: a token", 1 / rates[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, metavar="CHECKOUT")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=BENCHES, action="append")
    args = parser.parse_args()
    print("| benchmark | cell | new / old, median | range | |\n|---|---|---|---|---|")
    for bench in args.only or BENCHES:
        pairs = []
        for number in range(args.rounds):
            order = (args.old.resolve(), HERE) if number % 2 == 0 else (HERE, args.old.resolve())
            times = {checkout: run(checkout, bench) for checkout in order}
            pairs.append((times[args.old.resolve()], times[HERE]))
        for cell in (cell for cell in pairs[0][0] if cell in pairs[0][1]):
            ratios = sorted(new[cell] / old[cell] for old, new in pairs)
            mark = "worse" if ratios[0] > WORSE else ""
            row = [bench, cell, f"{statistics.median(ratios):.2f}", f"{ratios[0]:.2f}–{ratios[-1]:.2f}", mark]
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
