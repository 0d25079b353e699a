"""Every step that the further families write is computed again here, by code that shares nothing with theirs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from fractions import Fraction
from itertools import pairwise
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


def check_named(lines: Lines, grid: Sequence[Sequence[object]]) -> None:
    """Every cell of a grid under its name, row by row."""
    for row, (line, values) in enumerate(zip(lines, grid, strict=True)):
        assert line == " ".join(f"{'abcdefghij'[row]}{'ABCDEFGHIJ'[at]}{value}" for at, value in enumerate(values))


def values_of(lines: Lines) -> list[list[str]]:
    """The values after the names of cells."""
    return [[each[2:] for each in line.split()] for line in lines]


def looked_up(look: str, grid: Sequence[Sequence[object]]) -> bool:
    """Whether a cell has the value that stands after its name."""
    return str(grid["abcdefghij".index(look[0])]["ABCDEFGHIJ".index(look[1])]) == look[2]


def rows_of(text: str) -> list[list[str]]:
    return [line.split() for line in text.split("\n")]


def check_rotate_matrix(problem: Problem, lines: Lines, facts: Any) -> None:
    side = len(facts["matrix"])
    degrees, *rest = map(int, lines[0].split())
    for taken, left in zip(rest[::2], rest[1::2], strict=True):
        assert degrees + taken == left
        degrees = left
    assert degrees in (0, 90, 180, 270)
    if degrees:
        check_named(lines[1 : side + 1], facts["matrix"])
        assert lines[side + 1] == str(degrees)
        assert all(looked_up(each, facts["matrix"]) for line in lines[side + 2 :] for each in line.split())
        assert values_of(lines[side + 2 :]) == rows_of(problem.answer)


def check_spiral_matrix(problem: Problem, lines: Lines, facts: Any) -> None:
    side = len(facts["matrix"])
    check_named(lines[:side], facts["matrix"])
    cells = [each for line in lines[side:] for each in line.split()[1:]]
    assert all(looked_up(each, facts["matrix"]) for each in cells)
    assert [each[2:] for each in cells] == problem.answer.split()
    assert len(set(cells)) == side * side


def check_pool_matrix(problem: Problem, lines: Lines, facts: Any) -> None:
    if facts["pool_size"] == 1:
        assert len(lines) == 1
        return
    height = len(facts["matrix"])
    check_named(lines[1 : height + 1], facts["matrix"])
    for line, results in zip(lines[height + 1 :], rows_of(problem.answer), strict=True):
        for window, result in zip(line.split(", "), results, strict=True):
            cells = re.findall(r"\w[A-Z]\d", window)
            assert all(looked_up(each, facts["matrix"]) for each in cells)
            values = [int(each[2]) for each in cells]
            assert window.endswith(f" {result}")
            if facts["pool_type"] == "max":
                assert float(result) == max(values)
            else:
                assert [int(each) for each in re.findall(r" (\d+)(?= [a-z])", window)] == [
                    sum(values[: n + 1]) for n in range(1, len(values))
                ]
                assert abs(float(result) - sum(values) / len(values)) < 0.0051


def check_manipulate_matrix(problem: Problem, lines: Lines, facts: Any) -> None:
    codes = lines[0].split(", ")
    height = len(facts["matrix"])
    check_named(lines[1 : height + 1], facts["matrix"])
    matrix = [[str(value) for value in row] for row in facts["matrix"]]
    rest = list(lines[height + 1 :])
    for code in codes:
        assert rest.pop(0) == code
        size = next((at for at, line in enumerate(rest) if not re.match(r"[a-j][A-J]\d", line)), len(rest))
        after, rest = rest[:size], rest[size:]
        for look in (each for line in after for each in line.split()):
            old = matrix["abcdefghij".index(look[0])]["ABCDEFGHIJ".index(look[1])]
            match code.split():
                case ["map", a, b]:
                    assert look[2] == (b if old == a else old)
                case ["zero", divisor]:
                    assert look[2] == ("0" if int(old) % int(divisor) == 0 else old)
                case _:
                    assert look[2] == old
        matrix = values_of(after)
    assert matrix == rows_of(problem.answer)


def check_binary_matrix(problem: Problem, lines: Lines, facts: Any) -> None:
    side, wanted = len(facts["matrix"]), rows_of(problem.answer)
    rounds = [lines[at : at + 11] for at in range(0, len(lines), 11)]
    for number, shown in enumerate(rounds):
        assert shown[0] == str(number)
        for row, line in enumerate(shown[1:]):
            known = [value if int(value) <= number else "x" for value in wanted[row]] if row < side else []
            assert line == "abcdefghij"[row] + "".join(known).ljust(10, ".")
    assert "x" not in "".join(rounds[-1])


def check_game_of_life(problem: Problem, lines: Lines, facts: Any) -> None:
    board = [[int(each) for each in line[1:]] for line in lines[1:11]]
    assert all(f"[{','.join(map(str, row))}]" in problem.question for row in board)
    assert (lines[0], lines[11]) == (lines[10], lines[1])
    for row, shown in enumerate(zip(*[iter(lines[12:])] * 3, strict=True)):
        three, nine, living = ([int(each) for each in line.split()[1]] for line in shown)
        assert three == [sum(board[(row + d) % 10][c % 10] for d in (-1, 0, 1)) for c in range(-1, 11)]
        for column in range(10):
            around = [board[(row + a) % 10][(column + b) % 10] for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b]
            assert nine[column] == sum(around) + board[row][column]
            assert living[column] == (sum(around) == 3 or (sum(around) == 2 and board[row][column]))


def check_looks(line: str, grid: Sequence[Sequence[object]]) -> None:
    """`cE: cF1+2 dE0 cD0 -`: right, down, left and up."""
    row, column = "abcdefghij".index(line[0]), "ABCDEFGHIJ".index(line[1])
    around = ((row, column + 1), (row + 1, column), (row, column - 1), (row - 1, column))
    for look, (r, c) in zip(line.split(": ")[1].split(), around, strict=False):
        inside = 0 <= r < len(grid) and 0 <= c < len(grid[0])
        assert look[:3] == (f"{'abcdefghij'[r]}{'ABCDEFGHIJ'[c]}{grid[r][c]}" if inside else "-")


def check_largest_island(problem: Problem, lines: Lines, facts: Any) -> None:
    height = len(facts["grid"])
    check_named(lines[:height], facts["grid"])
    met: set[str] = set()
    most = 0
    for line in lines[height:-1]:
        if line.endswith(" seen"):
            assert line[:2] in met
        elif line.endswith(" new"):
            assert line[:2] not in met
            island = [line[:2]]
        elif line.startswith("size"):
            most = max(most, len(island))
            assert line == f"size {len(island)} most {most}"
            met |= set(island)
        else:
            check_looks(line, facts["grid"])
            for look in re.findall(r"([a-j][A-J])1\+(\d+)", line):
                island.append(look[0])
                assert int(look[1]) == len(island) == len(set(island))
    assert len(met) == sum(map(sum, facts["grid"]))
    assert lines[-1] == str(most) == problem.answer


def check_shortest_path(problem: Problem, lines: Lines, facts: Any) -> None:
    height = len(facts["matrix"])
    check_named(lines[:height], facts["matrix"])
    reached: dict[str, str] = {}
    searched = [line for line in lines[height:] if ":" in line]
    for line in searched:
        check_looks(line, facts["matrix"])
        reached |= dict.fromkeys(re.findall(r"([a-j][A-J])[O#]\+", line), line[:2])
    assert [line[:2] for line in searched[1:]] == [*reached][: len(searched) - 1]
    if problem.answer == "infeasible":
        assert lines[-1] == "none left"
        return
    back, forth = (line.split()[1:] for line in lines[-2:])
    assert all(reached[a] == b for a, b in pairwise(back))
    assert forth[::2] == back[::-1]


def check_course_schedule(problem: Problem, lines: Lines, facts: Any) -> None:
    count = len(facts["courses"])
    needs = {course: [b for a, b in facts["prerequisites"] if a == course] for course in range(count)}
    taken: set[int] = set()
    for number, line in enumerate(lines):
        course, before = re.fullmatch(r"(?:take )?(\d+): (.*)", line).groups()
        course = int(course)
        if line.endswith(" no"):
            assert course not in taken
            assert int(before[:-3]) in needs[course]
            assert int(before[:-3]) not in taken
            continue
        assert before == (" ".join(map(str, needs[course])) or "none")
        if number < count:
            assert course == number
        else:
            assert taken.issuperset(needs[course])
            taken.add(course)
    assert problem.answer == str(len(taken) == count)
    assert sum(line.endswith(" no") for line in lines) == count - len(taken)


def check_color_cube_rotation(problem: Problem, lines: Lines, facts: Any) -> None:
    """Sides as directions: a turn rotates three axes."""
    places = {
        "top": (0, 0, 1), "bottom": (0, 0, -1), "front": (0, -1, 0), "back": (0, 1, 0), "right": (1, 0, 0),
        "left": (-1, 0, 0),
    }  # fmt: skip
    turns = {
        "front": lambda x, y, z: (x, z, -y), "back": lambda x, y, z: (x, -z, y), "right": lambda x, y, z: (-z, y, x),
        "left": lambda x, y, z: (z, y, -x), "bottom": lambda x, y, z: (x, -y, -z),
    }  # fmt: skip
    assert [line.split() for line in lines[:6]] == [
        [side, str(number), facts["initial_state"][side]]
        for number, side in enumerate(("top", "right", "front", "left", "back", "bottom"), 1)
    ]
    now = {places[line.split()[0]]: line.split()[1] for line in lines[:6]}
    assert [line.split()[0] for line in lines[6:-1]] == facts["rotations"]
    for line in lines[6:-1]:
        turn, shown = line.split()
        now = {turns[turn](*place): number for place, number in now.items()}
        assert shown == "".join(now[places[side]] for side in ("top", "right", "front", "left", "back", "bottom"))
    side, number, color = lines[-1].split()
    assert now[places[side]] == number
    assert color == problem.answer
    assert f"{number} {color}" in "\n".join(lines[:6])


def check_simple_geometry(problem: Problem, lines: Lines, facts: Any) -> None:
    sides = facts["n_sides"]
    assert lines[0] == f"{sides}-2={sides - 2} {sides - 2}*180={180 * (sides - 2)}"
    terms = [int(term[1] + term[:1:-1]) for term in lines[1].split()]
    assert terms == [180 * (sides - 2), *(-int(angle) for angle in facts["known_angles"])]
    check_columns(lines[2:-1])
    assert int(lines[-1]) == sum(terms) == int(problem.answer)


def check_needle_haystack(problem: Problem, lines: Lines, facts: Any) -> None:
    assert problem.question.endswith(f"\nWho {lines[0]}? Reply only with a name.")
    assert all(f"{line.removesuffix(' no')}. " in problem.question for line in lines[1:])
    assert lines[-1] == f"{problem.answer} {lines[0]}"


def check_number_format(problem: Problem, lines: Lines, facts: Any) -> None:
    printed = facts["formatted_candidates"]
    values = {}
    for label, text, line in zip("abcde", printed, lines, strict=False):
        assert line.startswith(f"{label} {text} ")
        values[label] = int(line.split()[2])
        assert abs(Fraction(values[label], 1000) - Fraction(text.replace(",", ""))) < Fraction(1, 1000)
    best = "a"
    for line in lines[len(printed) :]:
        other, old = line.split()[:2]
        assert (old[0], int(other[1:]), int(old[1:])) == (best, values[other[0]], values[best])
        verdicts = line.split(" so ")[0].split()[2:]
        for place, verdict in enumerate(verdicts, 1):
            x, y = other[place], old[place]
            assert verdict == ("=" if x == y else "<" if x < y else ">")
        pick = max if facts["size"] == "largest" else min
        best = line[-1]
        assert values[best] == pick(values[other[0]], values[old[0]])
    assert values[best] == (max if facts["size"] == "largest" else min)(values.values())


def check_group_anagrams(problem: Problem, lines: Lines, facts: Any) -> None:
    keys: list[list[str]] = []
    for word, line in zip(facts["words"], lines, strict=True):
        head, spelled, ordered = re.fullmatch(r"(\w+): (.*) > (.*)", line).groups()
        assert head == word == spelled.replace(" ", "")
        *letters, number = ordered.split()
        assert all(letters.count(letter) == word.count(letter) for letter in letters)
        assert all(a <= b for a, b in pairwise(letters))
        if letters not in keys:
            keys.append(letters)
        assert int(number) == keys.index(letters) + 1


def check_family_relationships(problem: Problem, lines: Lines, facts: Any) -> None:
    def parents(person: str) -> list[str]:
        found = re.findall(
            rf"(\w+) is married to (\w+)\. They have (?:a child|children) called [^.]*\b{person}\b", story
        )
        return list(found[0]) if found else []

    story, first, second = problem.question.split("\n\n")[0], facts["person1"], facts["person2"]
    assert lines[0] == f"{first} to {second}"
    for line in lines[1:-1]:
        person, above, spouse = re.fullmatch(r"(\w+): child of (.*), married to (\w+)", line).groups()
        assert above == (" and ".join(parents(person)) or "none")
        married = re.findall(rf"(?:(\w+) is married to {person}\b|\b{person} is married to (\w+))", story)
        assert spouse == ("".join(married[0]) if married else "none")
    word = problem.answer
    steps = {
        "father mother": first in parents(second), "son daughter": second in parents(first),
        "husband wife": f"{first} married to {second}" in lines[-1],
        "brother sister": parents(first) == parents(second) != [],
        "grandfather grandmother": any(first in parents(each) for each in parents(second)),
        "uncle aunt": any(parents(first) == parents(each) for each in parents(second)),
    }  # fmt: skip
    assert [holds for words, holds in steps.items() if word in words.split()] == [True]
    assert lines[-1].endswith(f", {word}")


def check_complex_arithmetic(problem: Problem, lines: Lines, facts: Any) -> None:
    a, b = (complex(*facts[key]) for key in ("num1", "num2"))
    check_columns(lines)
    for left, right in re.findall(r"^(-?\d+\*-?\d+)=(-?\d+)$", "\n".join(lines), re.MULTILINE):
        assert eval(left) == int(right)
    sums = [int(line[2:]) for line in lines if line.startswith("= ")]
    terms = [
        sum(int(sign + digits[::-1]) for sign, digits in re.findall(r" \w([+-])(\d+)", line))
        for line in lines
        if re.fullmatch(r"( \w[+-]\d+)+", line)
    ]
    assert sums == terms
    if facts["operation"] == "/":
        above = a * b.conjugate()
        assert sums == [above.real, above.imag, (b * b.conjugate()).real]
        for part, by, quotient in re.findall(r"^(-?\d+) by (\d+): (-?\d+)$", "\n".join(lines), re.MULTILINE):
            assert int(part) == int(by) * int(quotient)
        wanted = a / b
    else:
        wanted = {"+": a + b, "-": a - b, "*": a * b}[facts["operation"]]
        assert sums == [wanted.real, wanted.imag]
    assert abs(wanted - complex(lines[-1].replace(" ", "").replace("i", "j"))) < 1e-6


def check_time_intervals(problem: Problem, lines: Lines, facts: Any) -> None:
    start, end = (datetime.fromisoformat(facts[key]) for key in ("start_time", "end_time"))
    for line, moment in zip(lines, (start, end), strict=False):
        for shown in line.split():
            if "-" in shown and shown[0] not in "+-":
                assert shown == moment.strftime("%Y-%m-%d")
            elif ":" in shown:
                assert moment.strftime("%H:%M:%S.%f").startswith(shown)
            else:
                assert int(shown) * 3600 == moment.utcoffset().total_seconds()
    text = "\n".join(lines[2:])
    for left, right in re.findall(r"(?<!\S)([\d+-]+)=(-?\d+)", text):
        assert eval(re.sub(r"\b0+(?=\d)", "", left)) == int(right), left
    for total, days in re.findall(r"(\d+), \d\d (\d+) \d+", text):
        assert f"{days} {int(total) + int(days)}" in text
    seconds = (end - start).total_seconds()
    days = re.match(r"(\d+) days", problem.answer)
    if days:
        assert int(days[1]) == seconds // 86400
    clock = re.search(r"(\d+):(\d+)(?::(\d+))?", problem.answer)
    if clock:
        assert int(clock[1]) == seconds % 86400 // 3600
        assert int(clock[2]) == seconds % 3600 // 60
        assert clock[3] is None or int(clock[3]) == int(seconds % 60)


def check_string_manipulation(problem: Problem, lines: Lines, facts: Any) -> None:
    *steps, last = lines
    shown = ["".join(each[0] for each in line.split()) for line in steps[::2]]
    assert shown == facts["states"]
    for string, numbered, looks in zip(shown, steps[::2], steps[1::2], strict=True):
        assert numbered.split() == [f"{letter}{place}" for place, letter in enumerate(string, 1)]
        verdicts = []
        for number, look in enumerate(looks.split(", "), 1):
            assert look.startswith(f"{number} ")
            match look.split()[1:]:
                case ["starts", part, verdict]:
                    holds = string[:2] == part
                case ["ends", part, verdict]:
                    holds = string[-2:] == part
                case ["has", part, verdict]:
                    holds = part in string
                case ["later", part, verdict]:
                    holds = part in string[1:]
                case ["longer", length, "15", verdict]:
                    holds = int(length) == len(string) > 15
                case ["even", "b", count, verdict]:
                    holds = int(count) == string.count("b") and count in ("2", "4", "6", "8", "10", "12", "14", "16")
            assert verdict == ("yes" if holds else "no")
            verdicts.append(verdict)
        assert "yes" not in verdicts[:-1]
    assert last == "none" or last.split()[0] in shown
    assert (verdicts[-1] == "no") == (last == "none")


def check_number_sequence(problem: Problem, lines: Lines, facts: Any) -> None:
    numbers, at = facts["sequence"], 0
    for line in lines:
        if line.startswith(("\ue000", "rule")):
            rule, at = re.sub("[\ue000\ue001]", "", line).split()[1:], 0
            continue
        start, *steps = re.sub(r" (ok|no)$", "", line).split()
        assert int(start[:-1]) == numbers[at]
        assert steps[::2] == rule
        value = numbers[at]
        for operation, result in zip(steps[::2], steps[1::2], strict=True):
            before = str(numbers[at - 1] if at else 0)
            ways = {"sq": f"({value})**2", "half": f"({value})//2", "prev": f"{value}+{before}"}
            value = eval(ways.get(operation, f"({value}){operation}"))
            assert int(result) == value
        assert line.endswith("ok") == (value == numbers[at + 1] and at < len(numbers) - 2)
        at += 1
    assert value == numbers[-1] == int(problem.answer)


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
