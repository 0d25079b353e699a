"""The search of `countdown`: what a head can still reach, the order of the heads, and problems that it solves."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from random import Random

LOW, HIGH = 100, 999  # of targets

Signs = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Head:
    """Some of the numbers joined.

    text: the expression with each result after it.
    used: positions in the list.
    """

    text: str
    value: int
    used: tuple[int, ...]

    @property
    def expression(self) -> str:
        return re.sub(r"=\d+", "", self.text)


class Search:
    """The numbers from the largest to the smallest, the target, and what a head can still reach."""

    def __init__(self, numbers: Iterable[int], target: int) -> None:
        self.numbers = sorted(numbers, reverse=True)
        self.target = target

    @property
    def line(self) -> str:
        return f"{' '.join(map(str, self.numbers))} to {self.target}"

    def rest(self, head: Head) -> list[int]:
        return [number for place, number in enumerate(self.numbers) if place not in head.used]

    def towards(self, head: Head) -> Signs:
        """Add below the target, else take away."""
        value, signs = head.value, []
        for number in self.rest(head):
            signs.append(1 if value < self.target else -1)
            value += signs[-1] * number
        return tuple(signs)

    def solved_by(self, head: Head) -> Signs | None:
        """The signs that hit, as close to `towards` as can be; None: there are none (or a sum falls below 0)."""
        rest = self.rest(head)
        twice = head.value + sum(rest) - self.target
        if twice < 0 or twice % 2:
            return None
        sums = 1  # bit s: some of the rest sum to s
        for number in rest:
            sums |= sums << number
        if not sums >> twice // 2 & 1:
            return None
        first = self.towards(head)
        hits = [
            signs
            for signs in product((1, -1), repeat=len(rest))
            if 2 * sum(n for n, sign in zip(rest, signs, strict=True) if sign < 0) == twice and self.stays(head, signs)
        ]
        return min(hits, key=lambda signs: sum(map(operator.ne, signs, first)), default=None)

    def outcome(self, head: Head, signs: Signs) -> int:
        return head.value + sum(sign * number for sign, number in zip(signs, self.rest(head), strict=True))

    def added(self, head: Head, signs: Signs, result: Callable[[str], str] = str) -> str:
        """`+83=263-23=240`: the rest of the numbers, each with what it comes to, as `result` writes that."""
        value, text = head.value, ""
        for sign, number in zip(signs, self.rest(head), strict=True):
            value += sign * number
            text += f"{sign * number:+}={result(str(value))}"
        return text

    def stays(self, head: Head, signs: Signs) -> bool:
        """Whether no partial sum is below 0."""
        value = head.value
        for sign, number in zip(signs, self.rest(head), strict=True):
            value += sign * number
            if value < 0:
                return False
        return True

    def turned(self, head: Head, signs: Signs) -> Signs | None:
        """With the one sign turned that brings the outcome nearest to the target."""
        miss = self.target - self.outcome(head, signs)
        rest = self.rest(head)
        options = [place for place, sign in enumerate(signs) if sign * miss < 0]
        if not options:
            return None
        nearest = min(options, key=lambda place: abs(abs(miss) - 2 * rest[place]))
        turned = tuple(-sign if place == nearest else sign for place, sign in enumerate(signs))
        return turned if self.stays(head, turned) else None

    def far(self, head: Head) -> int:
        """How far the target lies out of the head's reach; 0: within."""
        return max(0, abs(self.target - head.value) - sum(self.rest(head)))

    def heads(self) -> Iterator[Head]:
        """The largest number; pairs joined by * and /; (a+b), (a-b) and a*b joined with a third. No text twice."""
        seen = set()
        for head in self._heads():
            if head.text not in seen:
                seen.add(head.text)
                yield head

    def _heads(self) -> Iterator[Head]:
        numbers = self.numbers
        yield Head(str(numbers[0]), numbers[0], (0,))
        pairs = list(combinations(range(len(numbers)), 2))
        for i, j in pairs:
            a, b = numbers[i], numbers[j]
            yield Head(f"{a}*{b}={a * b}", a * b, (i, j))
            if b > 1 and a % b == 0:
                yield Head(f"{a}/{b}={a // b}", a // b, (i, j))
        for i, j in pairs:
            a, b = numbers[i], numbers[j]
            inner = [(f"({a}+{b}={a + b})", a + b)] + ([(f"({a}-{b}={a - b})", a - b)] if a > b else [])
            for k, c in enumerate(numbers):
                if k in (i, j):
                    continue
                for text, value in inner:
                    yield from products_with(text, value, c, (i, j, k))
                if k > j:
                    yield Head(f"{a}*{b}={a * b}*{c}={a * b * c}", a * b * c, (i, j, k))
                if c > 1 and a * b % c == 0:
                    yield Head(f"{a}*{b}={a * b}/{c}={a * b // c}", a * b // c, (i, j, k))

    def nests(self, rng: Random, wanted: int) -> list[Head]:
        """Up to `wanted` heads with four numbers or more, within reach, that no signs solve."""
        shallow = list(self.heads())[1:]
        found: list[Head] = []
        for _ in range(40 if shallow else 0):
            inner = rng.choice(shallow)
            left = [place for place in range(len(self.numbers)) if place not in inner.used]
            if len(found) == wanted:
                break
            if len(left) < 2:
                continue
            i, k = rng.sample(left, 2)
            number = self.numbers[i] if rng.random() < 0.5 else -self.numbers[i]
            value = inner.value + number
            if value > 0:
                text = f"({inner.text}{number:+}={value})"
                head = rng.choice(list(products_with(text, value, self.numbers[k], (*inner.used, i, k))))
                if not self.far(head) and self.solved_by(head) is None and head not in found:
                    found.append(head)
        return found


def products_with(text: str, value: int, number: int, used: tuple[int, ...]) -> Iterator[Head]:
    """`text` times the number, and through it where it divides."""
    yield Head(f"{text}*{number}={value * number}", value * number, used)
    if number > 1 and value % number == 0:
        yield Head(f"{text}/{number}={value // number}", value // number, used)


# Drawing and solving --------------------------------------------------------------------------------------------------

Chain = list[tuple[str, int]]
_JOIN: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.floordiv,
}


def join(sign: str, value: int, number: int) -> int:
    """`value sign number`, in whole numbers."""
    return _JOIN[sign](value, number)


def draw_chain(rng: Random, size: int) -> Chain:
    """Numbers joined from the left by operators drawn evenly, as in reasoning-gym: a division that leaves a rest takes
    one of the numbers to come that divides, or becomes a subtraction."""
    while True:
        numbers = [rng.randint(1, 100) for _ in range(size)]
        value, chain = numbers[0], [("+", numbers[0])]
        for place in range(1, size):
            sign = rng.choice("+-*/")
            if sign == "/":
                divisors = [number for number in numbers[place:] if value % number == 0]
                if divisors:
                    numbers[place] = rng.choice(divisors)
                else:
                    sign = "-"
            value = join(sign, value, numbers[place])
            chain.append((sign, numbers[place]))
        if LOW <= value <= HIGH:
            return chain


def solve(chain: Sequence[tuple[str, int]]) -> tuple[Search, Head, Signs] | None:
    """The first head in the search's order that some signs solve; after all others, the drawn chain itself."""
    target = 0
    for sign, number in chain:
        target = join(sign, target, number)
    search = Search((number for _, number in chain), target)
    for head in search.heads():
        signs = search.solved_by(head)
        if signs is not None:
            return search, head, signs
    nested = nest(chain, search)
    signs = None if nested is None else search.solved_by(nested)
    return None if nested is None or signs is None else (search, nested, signs)


def nest(chain: Sequence[tuple[str, int]], search: Search) -> Head | None:
    """The chain up to its last * or /, as a head without a sum below 0; None where that cannot be."""
    text, value, sign, used = "", 0, 1, []
    terms: list[int] = []
    for mark, number in chain:
        if mark in "+-":
            terms.append(number if mark == "+" else -number)
            continue
        negative = sign * value + sum(terms) < 0
        if negative:
            sign, terms = -sign, [-term for term in terms]
        if text and sign < 0:
            return None
        used += [*map(abs, terms), number]
        alone = len(terms) + bool(text) == 1
        for term in sorted(terms, reverse=True):  # what is added first: no sum falls below 0
            value += term
            text += f"{term:+}={value}" if text else str(term)
        text = text if alone or not terms else f"({text})"
        value = join(mark, value, number)
        text, sign, terms = f"{text}{mark}{number}={value}", -1 if negative else 1, []
    if not text or sign < 0:
        return None
    places: list[int] = []
    for number in used:
        places.append(next(p for p, n in enumerate(search.numbers) if n == number and p not in places))
    return Head(text, value, tuple(places))
