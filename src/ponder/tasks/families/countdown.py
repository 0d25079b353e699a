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
from collections.abc import Sequence
from fractions import Fraction
from math import inf
from random import Random

from ponder.tasks.families.working.countdown_search import Head, Search, Signs, draw_chain, solve
from ponder.tasks.families.working.family import ProblemFamily, size_at
from ponder.tasks.families.working.lanes import spoken
from ponder.tasks.families.working.slips import SLIP_PROBABILITY, Slips
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

MAX_WRONG_HEADS = 24
CONTEXT_LETTERS = 420  # nearly one token each; a thought that has grown past it is folded before the next head
OUT_OF_REACH = 0.08  # share of heads tried although adding all the rest, or taking it away, does not reach the target
NEAR_TURN = 0.15  # share of even misses whose nearest sign is turned although it does not hit
GIVE_UP = 0.01


class Countdown(ProblemFamily):
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
            answer=attempt_text(search, head, signs),
            metadata={"numbers": numbers, "target": search.target, "chain": chain},
        )

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        solution = solve(problem.metadata["chain"])
        assert solution is not None, "only solved problems are drawn"
        search, head, signs = solution
        telling = Telling(search, rng)
        for wrong in wrong_heads(search, head, rng):
            telling.begin(wrong)
            telling.attempt(wrong, search.towards(wrong), turn=True)
        if telling.attempts >= 6 and rng.random() < GIVE_UP:
            return telling.given_up()
        return telling.solved(head, signs, turn=True)

    def demonstrate_council(self, problem: Problem, rng: Random, voices: int) -> Demonstration:
        """Voice v tries heads whose number in the search's order is v mod V; the first that hits joins."""
        solution = solve(problem.metadata["chain"])
        assert solution is not None, "only solved problems are drawn"
        search, head, _ = solution
        return shared_search(search, head, rng, voices)

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
    """A search as it is written down: lines, and the folds that they follow."""

    def __init__(
        self, search: Search, rng: Random, *, letters: float = CONTEXT_LETTERS, slips: float = SLIP_PROBABILITY
    ) -> None:
        self.search, self.rng, self.letters = search, rng, letters
        self.slips = Slips(rng, slips, 20)
        self.lines = [search.line]
        self.folds: list[Fold] = []
        self.attempts = 0
        self._last = ""
        self._nearest: tuple[int, Head, Signs] | None = None

    def begin(self, head: Head) -> None:
        """The head and the rest of the numbers, after a fold when the thought has grown long."""
        if sum(len(line) + 1 for line in self.lines) > self.letters:
            self.folds.append(Fold("\n".join(self.lines), f"{self.search.line} after {self._last}."))
            self.lines, self._nearest = [], None
        text = re.sub(r"=(\d+)", lambda match: f"={self.slips.result(match[1])}", head.text)
        self.lines.append(f"{text}:{''.join(f' {number}' for number in self.search.rest(head))}")
        self._last = head.expression

    def attempt(self, head: Head, signs: Signs, *, turn: bool = False, but: Signs | None = None) -> None:
        """One attempt and its verdict.

        turn: after an even miss, now and then another with the nearest sign turned, unless that gives `but`.
        """
        search, value = self.search, self.search.outcome(head, signs)
        text = f"{head.value}{search.added(head, signs, self.slips.result)}"
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
        self.lines.append(f"give up at {self.search.outcome(head, signs)}")
        return self._ended(head, signs)

    def solved(self, head: Head, signs: Signs, *, turn: bool = False) -> Demonstration:
        """The head towards the target, where that misses, then with the signs that hit.

        turn: as in `attempt`.
        """
        self.begin(head)
        towards = self.search.towards(head)
        if towards != signs:
            self.attempt(head, towards, turn=turn, but=signs)
        self.attempt(head, signs)
        return self._ended(head, signs)

    def _ended(self, head: Head, signs: Signs) -> Demonstration:
        return Demonstration(
            folds=tuple(self.folds), reasoning="\n".join(self.lines), answer=attempt_text(self.search, head, signs)
        )


def shared_search(search: Search, solution: Head, rng: Random, voices: int) -> Demonstration:
    """The search, its heads dealt out in their order. A voice goes on beyond the solution until another one joins; it
    joins itself where that brings it to another solution first."""
    order = list(search.heads())
    numbers = {head.text: number for number, head in enumerate(order)}  # a nest comes after all of them
    place = numbers.get(solution.text, len(order))
    later = [head for head in order[place + 1 :] if not search.far(head)]
    heads = [*wrong_heads(search, solution, rng), solution, *later]
    lanes, answers, longest = [""] * voices, {}, inf
    for voice in sorted(range(voices), key=lambda voice: (voice - place) % voices):  # whose the solution is, first
        telling = Telling(search, rng, letters=inf, slips=0)
        for head in heads:
            if numbers.get(head.text, len(order)) % voices != voice:
                continue
            signs = search.solved_by(head)
            if signs is not None:
                answers[voice] = telling.solved(head, signs, turn=True).answer
                break
            telling.begin(head)
            telling.attempt(head, search.towards(head), turn=True)
            if len("\n".join(telling.lines[1:])) > longest:
                break
        lanes[voice] = "\n".join(telling.lines[1:])
        longest = min(longest, len(lanes[voice])) if voice in answers else longest
    answer = answers[min(answers, key=lambda voice: (len(lanes[voice]), voice))]
    if voices == 1:
        return Demonstration(reasoning=f"{search.line}\n{lanes[0]}", answer=answer)
    return Demonstration(opening=search.line, voices=spoken(lanes, answers), reasoning="", answer=answer)


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


def attempt_text(search: Search, head: Head, signs: Signs) -> str:
    """The attempt without what it came to on the way."""
    rest = zip(signs, search.rest(head), strict=True)
    return head.expression + "".join(f"{sign * number:+}" for sign, number in rest)


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
