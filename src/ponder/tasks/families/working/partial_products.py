"""Long multiplication by several voices: each writes rows, and the first adds the columns as their digits appear.

Every digit has a name that occurs once before it is read, so that the voice that needs it finds it. 84 times 29, with
two voices:

    84*29
    a4b8c9d2                        the digits with their names, lowest first
    c9:a4*9+0=3e6b8*9+3=7f5g7       a row: digit times digit plus carry, then the name of the row's next digit
    d2:a4*2+0=0h8b8*2+0=1i6j1       the other voice's
    e606k6 f505h813l3 …             a column: each digit is named and added on, then the result's digit is named
    n2m4l3k6                        the result, highest first
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_letters

from ponder.tasks.families.working.columns import lowest_first
from ponder.tasks.families.working.lanes import spoken, wait_for
from ponder.tasks.protocol import Demonstration

LONGEST = 5  # digits of a factor for which there are letters enough


@dataclass(frozen=True, slots=True)
class NamedDigit:
    """A digit of a row.

    voice, at: whose lane it stands in, and which character of it.
    """

    name: str
    digit: int
    voice: int
    at: int


def demonstrate_voices(a: int, b: int, voices: int, *, apart: bool = False) -> Demonstration:
    """The product of two numbers of at most five digits, by that many voices; one voice has no lanes, and says the same
    in one thought.

    apart: no voice needs another one: they write rows alone, and the columns are added after all have left.
    """
    names = iter(ascii_letters)
    a_digits, b_digits = ([(next(names), int(digit)) for digit in lowest_first(factor)] for factor in (a, b))
    opening = f"{a}*{b}\n{_named(a_digits)}{_named(b_digits)}"
    lanes, rows = [""] * voices, []
    for number, (name, digit) in enumerate(b_digits):
        voice = _writer(number, voices, apart)
        lane = f"{lanes[voice]}{name}{digit}:"
        lanes[voice], row = _row(lane, a_digits, digit, [next(names) for _ in range(len(a_digits) + 1)], voice)
        rows.append(row)
    results = [next(names) for _ in range(len(a_digits) + len(b_digits))]
    if apart and voices > 1:
        columns, result = _columns("", rows, results, heard=True)
        ending = f"{columns}\n{_named(result[::-1])}"
        return Demonstration(opening=opening, voices=spoken(lanes, []), reasoning=ending, answer=str(a * b))
    lanes[0], result = _columns(lanes[0], rows, results)
    ending = _named(result[::-1])
    if voices == 1:
        return Demonstration(reasoning=f"{opening}\n{lanes[0]}\n{ending}", answer=str(a * b))
    return Demonstration(opening=opening, voices=spoken(lanes, [0]), reasoning=ending, answer=str(a * b))


def _writer(row: int, voices: int, apart: bool) -> int:
    """Whose a row is. Unless they work apart, the first voice has at most one, to have time for the columns."""
    if apart or voices == 1:
        return row % voices
    return min(row, 1) if voices == 2 else 1 + row % (voices - 1)


def _named(digits: Sequence[tuple[str, int]]) -> str:
    return "".join(f"{name}{digit}" for name, digit in digits)


def _row(
    lane: str, a: Sequence[tuple[str, int]], by: int, names: Sequence[str], voice: int
) -> tuple[str, list[NamedDigit]]:
    """The lane with the row a * by, and the row's digits."""
    row, carry = [], 0
    for (name, digit), own in zip(a, names, strict=False):
        carry_in, (carry, units) = carry, divmod(digit * by + carry, 10)
        lane += f"{name}{digit}*{by}+{carry_in}={carry}{own}{units}"
        row.append(NamedDigit(own, units, voice, len(lane) - 1))
    lane += f"{names[-1]}{carry}"
    return lane, [*row, NamedDigit(names[-1], carry, voice, len(lane) - 1)]


def _columns(
    lane: str, rows: Sequence[Sequence[NamedDigit]], names: Sequence[str], *, heard: bool = False
) -> tuple[str, list[tuple[str, int]]]:
    """The lane with the sum of the rows, each one place further to the left, and the sum's digits.

    heard: the rows have been said before it, so that it does not wait.
    """
    total, result = 0, []
    for column, name in enumerate(names):
        digits = [row[column - number] for number, row in enumerate(rows) if 0 <= column - number < len(row)]
        if not heard:
            lane = wait_for(lane, max((each.at for each in digits if each.voice), default=-2))
        for each in digits:
            total += each.digit
            lane += f"{each.name}{each.digit}{total:02d}"
        lane += f"{name}{total % 10}"
        result.append((name, total % 10))
        total //= 10
    return lane, result
