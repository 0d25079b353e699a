"""Every step that the further families write is computed again here, by code that shares nothing with theirs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from random import Random
from typing import Any

import pytest
from test_families import check_columns

from ponder.tasks.families.further import FURTHER_FAMILIES
from ponder.tasks.protocol import Problem

pytestmark = pytest.mark.property

Lines = Sequence[str]
SEEDS = 12


def rewritten(tokens: Sequence[str]) -> list[str]:
    """A::B's rules, one at a time, until none fits."""
    tokens = list(tokens)
    for at in range(len(tokens) - 1):
        a, b = tokens[at : at + 2]
        if a[1] == b[0] == "#":
            return rewritten([*tokens[:at], *([] if a[0] == b[1] else [b, a]), *tokens[at + 2 :]])
    return tokens


def check_ab(problem: Problem, lines: Lines, facts: Any) -> None:
    tokens = [line.split(":")[0] for line in lines]
    assert f"\n{' '.join(tokens)}\n" in problem.question
    for number, line in enumerate(lines, 1):
        left, waiting = (side.split() for side in line.split(":")[1].split("|"))
        assert rewritten(tokens[:number]) == [*(f"#{each}" for each in left), *(f"{each}#" for each in waiting)]


def check_binary_alternation(problem: Problem, lines: Lines, facts: Any) -> None:
    *pairs, last = lines
    read = ""
    for line in pairs:
        bits, differing, ones, zeros = re.fullmatch(r"([01]+) x(\d+) n(\d+) z(\d+)", line).groups()
        read += bits
        wanted = ("01" * len(read))[: len(read)]
        assert int(differing) == sum(a != b for a, b in zip(read, wanted, strict=True))
        assert (int(ones), int(zeros)) == (read.count("1"), read.count("0"))
    assert read == facts["string"]
    for a, b, c in re.findall(r"(\d+)-(\d+)=(\d+)", last):
        assert int(a) - int(b) == int(c)
        assert int(a) == len(read)
    assert last.endswith(f" {problem.answer}")


def check_coin_flip(problem: Problem, lines: Lines, facts: Any) -> None:
    flips = facts["num_trials"]
    head, row = lines[0].split(": ")
    assert head == f"{flips} of {2**flips}"
    ways = [0] * (flips + 1)
    for outcome in range(2**flips):
        ways[outcome.bit_count()] += 1
    assert row == ", ".join(f"{heads} {count}" for heads, count in enumerate(ways))
    check_columns(lines[1:-1])
    assert abs(Fraction(int(lines[-1]), 2**flips) - Fraction(problem.answer)) < Fraction(1, 10**9)


COMPOSITES = {product for a in range(2, 230) for product in range(2 * a, 51_000, a)}


def is_prime(number: int) -> bool:
    return number > 1 and number not in COMPOSITES


def check_count_primes(problem: Problem, lines: Lines, facts: Any) -> None:
    counts = []
    for line, bound in zip(lines[1:3], (facts["start"], facts["end"] + 1), strict=True):
        head, *listed, last = line.split(", ")
        assert head.startswith(f"{bound}: {bound - bound % 100} ")
        count = int(head.split()[-1])
        hundred = bound - bound % 100
        assert count == sum(map(is_prime, range(hundred)))
        for pair in listed:
            place, number = map(int, pair.split())
            count += 1
            assert number == count
            assert is_prime(hundred + place)
        inside = sum(map(is_prime, range(hundred, bound)))
        assert len(listed) == inside
        assert last == "end" or is_prime(hundred + int(last.removesuffix(" no")))
        counts.append(count)
    check_columns(lines[3:-1])
    assert counts[1] - counts[0] == int(lines[-1])


def check_numbered(names: Sequence[str], text: str) -> None:
    """Each letter with the number of its like up to there."""
    for place, name in enumerate(names):
        assert name == f"{text[place]}{text[: place + 1].count(text[place])}"
    assert len(names) == len(text)


def check_palindrome_generation(problem: Problem, lines: Lines, facts: Any) -> None:
    names, partners, half, back, middle = lines
    letters = "".join(facts["letters"])
    check_numbered(names.split(), letters)
    pairs = [each.split() for each in partners.split(", ")]
    assert [a for a, b in pairs if b == "none"] in ([], [f"{middle[-1]}{letters.count(middle[-1])}"])
    assert half.split()[1:] == [a[0] for a, b in pairs if b != "none"]
    assert all(a[0] == b[0] and int(a[1:]) + 1 == int(b[1:]) and b in names.split() for a, b in pairs if b != "none")
    assert back.split()[1:] == half.split()[:0:-1]


def check_ransom_note(problem: Problem, lines: Lines, facts: Any) -> None:
    check_numbered(lines[0].split()[1:], facts["note"])
    check_numbered(lines[1].split()[1:], facts["magazine"])
    looks = lines[2].split()
    for name, verdict in zip(looks[::2], looks[1::2], strict=True):
        assert verdict == ("yes" if facts["magazine"].count(name[0]) >= int(name[1:]) else "no")
    assert lines[3] == str(set(looks[1::2]) == {"yes"})


def check_self_reference(problem: Problem, lines: Lines, facts: Any) -> None:
    solutions = 0
    for true, line in enumerate(lines[:-1]):
        head, looks, verdict = line.split(": ")
        assert head == f"{true} true {7 - true} false"
        values = [look[-1] == "T" for look in looks.split(", ")]
        for look, value in zip(looks.split(", "), values, strict=True):
            match look.split():
                case [a, "at", "least", b, _]:
                    assert value == (int(a) >= int(b))
                case [a, "at", "most", b, _]:
                    assert value == (int(a) <= int(b))
                case [a, "is", b, _]:
                    assert value == (a == b)
                case ["one", _]:
                    assert value == (values[2] + values[3] == 1)
                case [a, "prime", _]:
                    assert value == is_prime(int(a))
                case [a, "composite", _]:
                    assert value == (int(a) > 1 and not is_prime(int(a)))
        solutions += sum(values) == true
        assert verdict == (f"{sum(values)} yes {solutions}" if sum(values) == true else f"{sum(values)} no")
    assert lines[-1] == str(solutions) == problem.answer


def check_simple_integration(problem: Problem, lines: Lines, facts: Any) -> None:
    variable = facts["variable"]

    def value(text: str, at: int) -> Fraction:
        return eval(re.sub(r"(?<![*\d])(\d+)", r"Fraction(\1)", text), {variable: Fraction(at), "Fraction": Fraction})

    for line in lines:
        term, integral = line.split(": ")[0], line.split(", ")[-1]
        power = int(re.search(r"\*\*(\d+)", integral)[1]) if "**" in integral else 1
        assert all(value(integral, at) * power == value(term, at) * at for at in (1, 2, 3))
        for left, right in re.findall(r"([\d*+]+)=(\d+)", line):
            assert eval(left) == int(right)
    assert sum(value(line.split(": ")[0], 3) for line in lines) == value(facts["integrand"], 3)


def check_string_insertion(problem: Problem, lines: Lines, facts: Any) -> None:
    wanted = re.sub("ABCD|BCDE|CDEA|DEAB|EABC", lambda run: run[0] + run[0][0], facts["string"])
    assert re.sub(r"[\d+ ]", "", lines[0]) == wanted == problem.answer
    before, count = "", 0
    for letter, place in re.findall(r"([A-E])(\d)", lines[0]):
        follows = before != "" and (ord(letter) - ord(before)) % 5 == 1 and count < 4
        count = count + 1 if follows else 1
        assert int(place) == count
        before = letter


CHECKS: dict[str, Callable[[Problem, Lines, Any], None]] = {
    name: globals()[f"check_{name}"] for name in FURTHER_FAMILIES
}


@pytest.mark.parametrize("name", FURTHER_FAMILIES)
def test_every_step_is_right(name: str) -> None:
    family = FURTHER_FAMILIES[name]
    for seed in range(SEEDS):
        rng = Random(seed)
        problem = family.sample(rng, (seed + 0.5) / SEEDS)
        demonstration = family.demonstrate(problem, rng)
        text = "\n".join([*(fold.thought for fold in demonstration.folds), demonstration.reasoning])
        text = re.sub("\ue000[^\ue001]*\ue001 no ", "", text)  # slips, put right
        details = getattr(family, "details", lambda problem: problem.metadata)(problem)
        CHECKS[name](problem, text.split("\n"), details)
        assert "".join(demonstration.pieces) in ("", demonstration.answer)
