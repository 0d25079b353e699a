"""Hard formulas for the prover: how long each takes against its limit, and what is decided.
`python bench/prover.py -n 1000 --seconds 0.5` prints a table by kind and writes bench/results/prover.json.

Kinds where the answer is known by construction are checked against it; a verdict may be unknown, never wrong.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from ponder.tasks.prove.document import read_document
from ponder.tasks.prove.prover import prove

RESULTS = Path(__file__).parent / "results"
GRACE = 0.5  # seconds over its limit that a call may take


@dataclass(frozen=True)
class Hard:
    """consistent: whether the formulas can be true together; None: not known."""

    kind: str
    text: str
    consistent: bool | None


def pigeons(rng: Random) -> Hard:
    n = rng.randint(6, 13)
    members = [", ".join(f"{letter}{i}" for i in range(size)) for letter, size in (("p", n), ("h", n - 1))]
    text = f"sort pigeon = {members[0]}\nsort hole = {members[1]}\npredicate within(pigeon, hole)\n"
    return Hard("pigeonhole", text + "all p. some h. within(p, h)\nall h. at most 1 p. within(p, h)", False)


def cubes(rng: Random) -> Hard:
    least = rng.randint(1, 50)
    return Hard("a³ + b³ = c³", f"a*a*a + b*b*b = c*c*c\na > {least}\nb > a\nc > b", False)


def factors(rng: Random) -> Hard:
    digits = rng.randint(3, 60)
    p, q = (rng.randrange(10 ** (digits - 1), 10**digits) | 1 for _ in range(2))
    return Hard("factoring", f"p * q = {p * q}\np > 1\nq > p", None if p == q else True)


def sum_of_cubes(rng: Random) -> Hard:
    k = rng.choice((30, 33, 42, 52, 74, 114, 390))  # only enormous solutions, or none known
    return Hard("x³ + y³ + z³ = k", f"x*x*x + y*y*y + z*z*z = {k}", None)


def clauses(rng: Random) -> Hard:
    n = rng.randint(80, 220)
    lines = []
    for _ in range(int(4.26 * n)):
        picked = rng.sample(range(n), 3)
        lines.append(" | ".join(f"{rng.choice(('', '~'))}v{i}" for i in picked))
    return Hard("3-SAT at the threshold", "\n".join(lines), None)


def latin(rng: Random) -> Hard:
    n = rng.randint(5, 7)
    members = ", ".join(f"m{i}" for i in range(n))
    text = f"sort symbol = {members}\nfunction cell(symbol, symbol): symbol\n"
    text += "all x, y, z. y != z -> cell(x, y) != cell(x, z)\nall x, y, z. y != z -> cell(y, x) != cell(z, x)\n"
    given = {(rng.randrange(n), rng.randrange(n)) for _ in range(n)}
    return Hard("Latin squares", text + "\n".join(f"cell(m{r}, m{c}) = m{rng.randrange(n)}" for r, c in given), None)


def endless(rng: Random) -> Hard:
    name = rng.choice(("less", "before", "within"))
    return Hard(
        "only endless models",
        f"all x. some y. {name}(x, y)\nall x. ~{name}(x, x)\nall x, y, z. {name}(x, y) & {name}(y, z) -> {name}(x, z)",
        True,
    )


def subset(rng: Random) -> Hard:
    n = rng.randint(20, 45)
    weights = [rng.randrange(10**12) for _ in range(n)]
    chosen = sum(weight for weight in weights if rng.random() < 0.5)
    lines = [f"x{i} = 0 | x{i} = 1" for i in range(n)]
    return Hard("subset sums", "\n".join(lines) + "\n" + " + ".join(f"{w} * x{i}" for i, w in enumerate(weights))
                + f" = {chosen}", True)  # fmt: skip


def giants(rng: Random) -> Hard:
    a, b = (rng.randrange(10**400, 10**401) for _ in range(2))
    return Hard("numbers of 800 digits", f"x * y = {a * b}\nx > {a - 1}\nx < {a + 1}\ny != {b}", False)


def nested(rng: Random) -> Hard:
    depth, body = 24, "p0(x)"
    for i in range(1, depth):
        body = f"(p{i}(x) -> {body})" if i % 2 else f"(({body}) <-> p{i}(x))"
    lines = "\n".join(f"some x. ~{body.replace('p', name)}" for name in ("p", "q", "r"))
    return Hard("nested conditions", lines, True)


KINDS: tuple[Callable[[Random], Hard], ...] = (
    pigeons, cubes, factors, sum_of_cubes, clauses, latin, endless, subset, giants, nested,
)  # fmt: skip


def hard_formulas(n: int, seed: int = 0) -> Iterator[Hard]:
    """n of them, the kinds in turn."""
    for i in range(n):
        yield KINDS[i % len(KINDS)](Random(f"hard/{seed}/{i}"))


@dataclass(frozen=True)
class Timed:
    kind: str
    seconds: float
    consistent: bool | None
    wrong: bool


def timed(hard: Hard, seconds: float) -> Timed:
    document = read_document(hard.text)
    assert not document.unread, document.unread
    began = time.monotonic()
    found = prove(document, seconds).consistent
    took = time.monotonic() - began
    return Timed(hard.kind, took, found, None not in (found, hard.consistent) and found != hard.consistent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    prove(read_document("p"), args.seconds)  # starts the fork server, which imports z3
    results = [timed(hard, args.seconds) for hard in hard_formulas(args.n, args.seed)]
    rows = [summary(kind, results, args.seconds) for kind in [*dict.fromkeys(each.kind for each in results), "all"]]
    print(f"| {' | '.join(rows[0])} |\n{'|---' * len(rows[0])}|")
    for row in rows:
        print(f"| {' | '.join(map(str, row.values()))} |")
    packed = json.dumps({"limit": args.seconds, "seed": args.seed, "rows": rows}, indent=1, ensure_ascii=False)
    RESULTS.joinpath("prover.json").write_text(packed + "\n", encoding="utf-8")


def summary(kind: str, results: list[Timed], limit: float) -> dict[str, object]:
    """A row of the table: the results of one kind, or of all."""
    found = [each for each in results if kind in (each.kind, "all")]
    return {
        "kind": kind,
        "n": len(found),
        "consistent": sum(each.consistent is True for each in found),
        "contradictory": sum(each.consistent is False for each in found),
        "unknown": sum(each.consistent is None for each in found),
        "wrong": sum(each.wrong for each in found),
        "longest, s": round(max(each.seconds for each in found), 2),
        f"over the limit by {GRACE} s": sum(each.seconds > limit + GRACE for each in found),
    }


if __name__ == "__main__":
    main()
