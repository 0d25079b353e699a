"""Countdown: reach a target with all the numbers, by a search that checks every attempt and goes on while it may.

The numbers are copied from the largest to the smallest. A *head* joins some of them (`45*4=180`) and lists the rest;
an attempt adds or takes away each of the rest, towards the target, and says what it came to:

    83 45 23 4 to 244
    45*4=180: 83 23
    180+83=263-23=240 no: 244-240=4 half 2

Turning a sign moves the outcome by twice the number, so the half says which signs to turn; an odd difference says that
none will do and that the next head is due. Heads come in one order (single number, pairs, triples, nests), so what need
not be tried again is one head: the state of a fold. An attempt that hits says `yes`, and the answer is copied from it.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, product
from random import Random

from ponder.tasks.families.columns import Slips
from ponder.tasks.families.family import SLIP_PROBABILITY, Family, size_at
from ponder.tasks.protocol import Demonstration, Fold, Grade, GradeStatus, Problem, Try, without_marks

FORMAT = """{question}

Final answer format instructions:
1. Provide your solution as a arithmetic expression (no '=' sign).
2. Do not include the target number in the expression.
3. Use '*' for multiplication.
4. Use '/' for division.
5. Do not include any other text or formatting.
"""
GYM = (
    "Using all the numbers {numbers}, create an expression that equals {target}.\nYou can only use each number once.",
    "Find a way to make {target} using all of these numbers: {numbers}.\nEach number can only be used once.",
    "Calculate {target} using all of these numbers: {numbers}.\nEach number may be used at most once.",
)
VARIED = ("Make {target} from the numbers {numbers}.", "Use {numbers} to reach {target}.")

LOW, HIGH = 100, 999  # of targets
MAX_WRONG_HEADS = 24
CONTEXT_LETTERS = 420  # nearly one token each; a thought that has grown past it is folded before the next head
OUT_OF_REACH = 0.08  # share of heads tried although adding all the rest, or taking it away, does not reach the target
NEAR_TURN = 0.15  # share of even misses whose nearest sign is turned although it does not hit
GIVE_UP = 0.01

Signs = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Head:
    """Some of the numbers joined. text: the expression with each result behind it; used: positions in the list."""

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
        told = set()
        for head in self._heads():
            if head.text not in told:
                told.add(head.text)
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
                    yield from joined(text, value, c, (i, j, k))
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
                head = rng.choice(list(joined(text, value, self.numbers[k], (*inner.used, i, k))))
                if not self.far(head) and self.solved_by(head) is None and head not in found:
                    found.append(head)
        return found


def joined(text: str, value: int, number: int, used: tuple[int, ...]) -> Iterator[Head]:
    """`text` times the number, and through it where it divides."""
    yield Head(f"{text}*{number}={value * number}", value * number, used)
    if number > 1 and value % number == 0:
        yield Head(f"{text}/{number}={value // number}", value // number, used)


class Countdown(Family):
    """Three to nine numbers up to 100, targets from 100 to 999, drawn as reasoning-gym draws them: up to level 0.5 at
    most six numbers (the default config), at level 1 as many as its hard config has."""

    name = "countdown"
    default_level = 0.5

    def sample(self, rng: Random, level: float) -> Problem:
        while True:
            chain = draw_chain(rng, size_at(level, 3, 9))
            solution = solve(chain)
            if solution is not None:  # about 1 in 100 cannot be written without a sum below 0: drawn again
                break
        search, head, signs = solution
        numbers = [number for _, number in chain]
        rng.shuffle(numbers)
        question = self.word(rng, GYM, VARIED)
        wording = FORMAT.format(question=question) if question in GYM else question
        return Problem(
            task=self.name,
            question=wording.format(numbers=", ".join(map(str, numbers)), target=search.target),
            answer=answer_of(search, head, signs),
            metadata={"numbers": numbers, "target": search.target, "chain": chain},
        )

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        solution = solve(problem.metadata["chain"])
        assert solution is not None, "only solved problems are drawn"
        search, head, signs = solution
        told = Telling(search, rng)
        for wrong in wrong_heads(search, head, rng):
            told.begin(wrong)
            told.attempt(wrong, search.towards(wrong), turn=True)
        if told.attempts >= 6 and rng.random() < GIVE_UP:
            return told.given_up()
        told.begin(head)
        if search.towards(head) != signs:
            told.attempt(head, search.towards(head), turn=True, but=signs)
        told.attempt(head, signs)
        return Demonstration(
            folds=tuple(told.folds), reasoning="\n".join(told.lines), answer=answer_of(search, head, signs)
        )

    def tries(self, problem: Problem, reasoning: str) -> list[Try]:
        """Every attempt that came to a verdict, checked by exact arithmetic on what it joined."""
        numbers, target = parse_question(problem.question)
        found, head = [], ""
        thoughts = re.sub(r" after [^.\n]*\.", "\n", without_marks(reasoning))  # a state's end opens a thought
        for line in thoughts.split("\n"):
            plain = re.sub(r"=\d+( no \d+)?", "", line)  # only what is joined, not what it was said to come to
            if match := re.match(r"([\d()+*/-]+):( \d+)*$", plain):
                head = match[1]
            elif match := re.match(r"\d+((?:[+-]\d+)*) (yes|no:)", plain):
                found.append(Try(right=hits(head + match[1], numbers, target), accepted=match[2] == "yes"))
        return found

    def grade(self, problem: Problem, answer: str) -> Grade:
        """1 when the expression uses every number once and equals the target."""
        numbers: list[int] = problem.metadata["numbers"]
        try:
            value, used = evaluate_expression(answer)
        except (ValueError, SyntaxError, ZeroDivisionError, RecursionError) as error:
            return Grade(score=0.0, status=GradeStatus.UNPARSEABLE, why=f"not an arithmetic expression: {error}")
        if sorted(used) != sorted(numbers):
            return Grade(score=0.0, why=f"uses {sorted(used)}, not {sorted(numbers)}")
        hit = value == problem.metadata["target"]
        return Grade(score=float(hit), why="" if hit else f"equals {value}")

    def same(self, a: str, b: str) -> bool:
        return "".join(a.split()) == "".join(b.split())


class Telling:
    """A search as it is written down: lines, and the folds behind which they stand."""

    def __init__(self, search: Search, rng: Random) -> None:
        self.search, self.rng = search, rng
        self.slips = Slips(rng, SLIP_PROBABILITY, 20)
        self.lines = [search.line]
        self.folds: list[Fold] = []
        self.attempts = 0
        self._last = ""
        self._nearest: tuple[int, Head, Signs] | None = None

    def begin(self, head: Head) -> None:
        """The head and the rest of the numbers, behind a fold when the thought has grown long."""
        if sum(len(line) + 1 for line in self.lines) > CONTEXT_LETTERS:
            self.folds.append(Fold("\n".join(self.lines), f"{self.search.line} after {self._last}."))
            self.lines, self._nearest = [], None
        text = re.sub(r"=(\d+)", lambda match: f"={self.slips.result(match[1])}", head.text)
        self.lines.append(f"{text}:{''.join(f' {number}' for number in self.search.rest(head))}")
        self._last = head.expression

    def attempt(self, head: Head, signs: Signs, *, turn: bool = False, but: Signs | None = None) -> None:
        """One attempt and its verdict. turn: after an even miss, now and then another with the nearest sign turned,
        unless that gives `but`."""
        search, value, text = self.search, head.value, str(head.value)
        for sign, number in zip(signs, search.rest(head), strict=True):
            value += sign * number
            text += f"{sign * number:+}={self.slips.result(str(value))}"
        self.attempts += 1
        miss = abs(value - search.target)
        if miss == 0:
            self.lines.append(f"{text} yes")
            return
        if self._nearest is None or miss < self._nearest[0]:
            self._nearest = miss, head, signs
        high, low = max(value, search.target), min(value, search.target)
        self.lines.append(f"{text} no: odd" if miss % 2 else f"{text} no: {high}-{low}={miss} half {miss // 2}")
        turned = search.turned(head, signs) if turn and miss % 2 == 0 and self.rng.random() < NEAR_TURN else None
        if turned is not None and turned != but:
            self.attempt(head, turned)

    def given_up(self) -> Demonstration:
        assert self._nearest is not None, "begun thoughts hold an attempt"
        _, head, signs = self._nearest
        lines = [*self.lines, f"give up at {self.search.outcome(head, signs)}"]
        return Demonstration(
            folds=tuple(self.folds), reasoning="\n".join(lines), answer=answer_of(self.search, head, signs)
        )


def wrong_heads(search: Search, solution: Head, rng: Random) -> list[Head]:
    """Heads before the solution, in order, that no signs solve: all within reach, or a share of them."""
    wrong = []
    for head in search.heads():
        if head == solution:
            break
        far = search.far(head)
        tried = far == 0 or (far <= 100 and rng.random() < OUT_OF_REACH)
        if tried and search.rest(head):
            wrong.append(head)
    else:
        wrong += search.nests(rng, rng.randrange(4))
    share = 1.0 if rng.random() < 0.5 else rng.random()
    kept = [head for head in wrong if rng.random() < share]
    while len(kept) > MAX_WRONG_HEADS:
        kept.pop(rng.randrange(len(kept)))
    return kept


def answer_of(search: Search, head: Head, signs: Signs) -> str:
    """The attempt without what it came to on the way."""
    rest = zip(signs, search.rest(head), strict=True)
    return head.expression + "".join(f"{sign * number:+}" for sign, number in rest)


# Drawing and solving --------------------------------------------------------------------------------------------------

Chain = list[tuple[str, int]]
_DO: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.floordiv,
}


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
            value = _DO[sign](value, numbers[place])
            chain.append((sign, numbers[place]))
        if LOW <= value <= HIGH:
            return chain


def solve(chain: Sequence[tuple[str, int]]) -> tuple[Search, Head, Signs] | None:
    """The first head in the search's order that some signs solve; behind all others, the drawn chain itself."""
    target = 0
    for sign, number in chain:
        target = _DO[sign](target, number)
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
        value = _DO[mark](value, number)
        text, sign, terms = f"{text}{mark}{number}={value}", -1 if negative else 1, []
    if not text or sign < 0:
        return None
    places: list[int] = []
    for number in used:
        places.append(next(p for p, n in enumerate(search.numbers) if n == number and p not in places))
    return Head(text, value, tuple(places))


# Checking -------------------------------------------------------------------------------------------------------------


def parse_question(question: str) -> tuple[list[int], int]:
    """The numbers and the target, in any of the wordings."""
    listed = re.search(r"\d+(?:, \d+)+", question)
    others = re.findall(r"\d+", question.replace(listed[0], "", 1)) if listed else []
    if listed is None or not others:
        raise ValueError(f"not a countdown question: {question!r}")
    return [int(number) for number in listed[0].split(", ")], int(others[0])


def hits(expression: str, numbers: Sequence[int], target: int) -> bool:
    """Whether the expression uses every number once and equals the target."""
    try:
        value, used = evaluate_expression(expression)
    except (ValueError, SyntaxError, ZeroDivisionError, RecursionError):
        return False
    return value == target and sorted(used) == sorted(numbers)


_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def evaluate_expression(text: str) -> tuple[Fraction, list[int]]:
    """An arithmetic expression over whole numbers: its exact value and the numbers it uses.

    Raises ValueError or SyntaxError for anything else, ZeroDivisionError for a division by zero.
    """
    if len(text) > 400:
        raise ValueError("longer than 400 characters")
    used: list[int] = []

    def value(node: ast.expr) -> Fraction:
        match node:
            case ast.Constant(value=int(number)) if not isinstance(number, bool) and number < 10**6:
                used.append(number)
                return Fraction(number)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](value(left), value(right))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -value(operand)
        raise ValueError(f"unexpected {type(node).__name__}")

    return value(ast.parse(text.strip(), mode="eval").body), used
