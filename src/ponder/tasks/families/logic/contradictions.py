"""Which statements contradict each other: orders and rules are followed from statement to statement up to the clash.

Facts come first, then what each thing that holds leads to, with the number of the statement; what holds and does not
is a clash. Orders are followed from each name until it is reached again. A clash is traced back to its statements.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from random import Random

from ponder.tasks.families.logic.statements import (
    CLASSES,
    NAMES,
    Theme,
    as_sentence,
    facts,
    opposite,
    random_rule,
    reached_line,
    results,
)
from ponder.tasks.families.working.family import ProblemFamily, size_at
from ponder.tasks.families.working.slips import noticed_slip
from ponder.tasks.protocol import Demonstration, Grade, GradeStatus, Problem
from ponder.tasks.prove.document import read_document
from ponder.tasks.prove.prover import prove

QUESTION = "Which of these statements contradict each other?\n{statements}\nAnswer with their numbers, or none."
VARIED = (
    "These statements were made:\n{statements}\nWhich of them cannot be true together? Give their numbers, or none.",
    "{statements}\nFind the statements that contradict each other. Give their numbers; if all can be true, say none.",
)
NONE = "none"
KINDS = ORDER, RULES, _ = ("an order", "rules about names", "classes")
NONE_SHARE = 1 / 3
MOST_IN_CLASH = 6
ITEM = re.compile(r"^(\d+)\. (.*)$", re.MULTILINE)


class Contradictions(ProblemFamily):
    """Three to eight statements with one minimal contradiction of two to six, or none."""

    name = "contradictions"

    def sample(self, rng: Random, level: float) -> Problem:
        size = size_at(level, 3, 8)
        in_clash = 0 if rng.random() < NONE_SHARE else rng.randint(2, min(size, MOST_IN_CLASH))
        while (codes := draw_statements(rng, size, in_clash)) is None:
            pass
        theme = Theme.draw(rng, [letter for code in codes for letter in code if letter in NAMES])
        statements = "\n".join(f"{number}. {as_sentence(code, theme, rng)}" for number, code in enumerate(codes, 1))
        return Problem(
            task=self.name,
            question=self.word(rng, (QUESTION,), VARIED).format(statements=statements),
            answer=numbers_text(find_clash(codes)[1]),
            metadata={"codes": codes},
        )

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        codes: list[str] = problem.metadata["codes"]
        lines = [f"{number} {code}" for number, code in enumerate(codes, 1)]
        lines += [noticed_slip(line, r"(?<=\d [A-Za-z])[+-]", "+-", rng) for line in find_clash(codes)[0]]
        return Demonstration(reasoning="\n".join([*lines, problem.answer]), answer=problem.answer)

    def grade(self, problem: Problem, answer: str) -> Grade:
        """1 for a minimal contradiction, by the prover; 0.5 for one with statements that it does not need; else 0."""
        given = read_numbers(answer)
        if given is None:
            return Grade(score=0.0, status=GradeStatus.UNPARSEABLE, why="the answer must be numbers, or none")
        if given == read_numbers(problem.answer):
            return Grade(score=1.0)
        sentences = {int(number): sentence for number, sentence in ITEM.findall(problem.question)}
        if not given or not given <= sentences.keys():
            return Grade(score=0.0, why="there is a contradiction" if not given else "there is no such statement")
        proof = prove(read_document("\n".join(sentences[number] for number in sorted(given))))
        if proof.consistent is None:
            return Grade(score=0.0, status=GradeStatus.TIMEOUT, why=proof.why)
        if proof.consistent:
            return Grade(score=0.0, why="these statements can all be true together")
        if any(len(conflict) == len(given) for conflict in proof.conflicts):
            return Grade(score=1.0)
        return Grade(score=0.5, why="fewer of these statements contradict each other already")

    def same(self, a: str, b: str) -> bool:
        return a.strip() == b.strip() or (read_numbers(a) is not None and read_numbers(a) == read_numbers(b))


def numbers_text(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, sorted(numbers))) or NONE


def read_numbers(answer: str) -> set[int] | None:
    """The numbers of an answer, empty for none; None where it is something else."""
    text = answer.strip().rstrip(".").lower()
    if text == NONE:
        return set()
    if not re.fullmatch(r"\d{1,3}(?:(?:,|,? and|\s)\s*\d{1,3})*", text):
        return None
    return {int(number) for number in re.findall(r"\d+", text)}


# Working --------------------------------------------------------------------------------------------------------------


def find_clash(codes: Sequence[str]) -> tuple[list[str], list[int]]:
    """The lines that find a contradiction, and the numbers of its statements; empty where there is none."""
    lines, clash = _clash_of_rules(codes)
    for start in dict.fromkeys(code[0] for code in codes if ">" in code):
        if not clash:
            more, clash = _way_back(start, codes)
            lines += more
    return lines, clash


def _clash_of_rules(codes: Sequence[str]) -> tuple[list[str], list[int]]:
    """From the facts along the rules. Rules have what holds as their condition, so what does not hold leads nowhere."""
    reached: dict[str, tuple[int, str]] = {}  # the statement that led to a literal, and from which
    lines: list[str] = []
    queue = ["facts"] if facts(codes) else []
    for head in queue:
        found = facts(codes) if head == "facts" else list(results(head, codes))
        lines.append(reached_line(head, found))
        for number, literal in found:
            if literal not in reached:
                reached[literal] = number, head
                if literal[1] == "+":
                    queue.append(literal)
            if opposite(literal) in reached:
                first, second = (_trace(each, reached) for each in (literal, opposite(literal)))
                lines += [f"clash {text}" for text, _ in (first, second)]
                return lines, sorted({*first[1], *second[1]})
    return lines, []


def _way_back(start: str, codes: Sequence[str]) -> tuple[list[str], list[int]]:
    """From a name down the order until it comes again."""
    lines, reached, queue = [f"from {start}"], dict[str, tuple[int, str]](), [start]
    for head in queue:
        found = [(number, code[2]) for number, code in enumerate(codes, 1) if code[:2] == f"{head}>"]
        lines.append(reached_line(head, found))
        for number, name in found:
            if name not in reached:
                reached[name] = number, head
                if name == start:
                    text, numbers = _trace(start, reached)
                    return [*lines, f"clash {text}"], sorted(numbers)
                queue.append(name)
    return lines, []


def _trace(what: str, reached: dict[str, tuple[int, str]]) -> tuple[str, list[int]]:
    """`E+ 4 D+ 3`: how something was reached, backwards."""
    text, numbers, at = what, list[int](), what
    while True:
        number, at = reached[at]
        numbers.append(number)
        text += f" {number}"
        if at == "facts":
            return text, numbers
        text += f" {at}"
        if at == what:
            return text, numbers


# Drawing --------------------------------------------------------------------------------------------------------------


def draw_statements(rng: Random, size: int, in_clash: int) -> list[str] | None:
    """`size` statements in any order with one minimal contradiction of `in_clash`, or none (0); None where what was
    drawn did not do."""
    names, classes = rng.sample(list(NAMES), 6), rng.sample(list(CLASSES), 6)
    kind = rng.choice(KINDS)
    length = in_clash or rng.randint(2, min(size, MOST_IN_CLASH))
    clash = _cycle(names, length) if kind == ORDER else _chains(rng, names if kind == RULES else classes, length)
    codes = list(clash)
    if not in_clash:
        codes.remove(rng.choice(codes))  # nearly a contradiction
        clash = []
    kinds = [kind] if rng.random() < 0.5 else [kind, rng.choice(KINDS)]
    for _ in range(60):
        if len(codes) == size:
            rng.shuffle(codes)
            return codes
        more = _statement(rng, rng.choice(kinds), names, classes)
        if _fits(more, codes) and _is_only(clash, [*codes, more]):
            codes.append(more)
    return None


def _cycle(names: Sequence[str], size: int) -> list[str]:
    ring = names[:size]
    return [f"{above}>{below}" for above, below in zip(ring, [*ring[1:], ring[0]], strict=True)]


def _chains(rng: Random, letters: Sequence[str], size: int) -> list[str]:
    """Something that holds, along rules from a fact, and does not: by a fact, or along other rules, which begin at the
    first ones or at a second fact. `size` statements in all."""
    if size == 2:
        return [f"{letters[0]}+", f"{letters[0]}-"]
    denial = rng.choice(("fact", "branch", "second fact"))
    rules = size - (1 if denial == "branch" else 2)
    others = {"fact": 0, "branch": rng.randint(1, max(1, rules - 1)), "second fact": rng.randint(1, rules)}[denial]
    fresh = iter(letters)
    chain = [next(fresh) for _ in range(rules - others + 1)]
    codes = [f"{chain[0]}+", *_along(chain)]
    if denial == "fact":
        return [*codes, f"{chain[-1]}-"]
    begin = rng.choice(chain[:-1]) if denial == "branch" else next(fresh)
    other = [begin, *(next(fresh) for _ in range(others - 1))]
    codes += [f"{begin}+"] if denial == "second fact" else []
    return [*codes, *_along(other), f"{other[-1]}+:{chain[-1]}-"]


def _along(chain: Sequence[str]) -> list[str]:
    return [f"{a}+:{b}+" for a, b in pairwise(chain)]


def _statement(rng: Random, kind: str, names: Sequence[str], classes: Sequence[str]) -> str:
    if kind == ORDER:
        return ">".join(rng.sample(list(names), 2))
    letters = names if kind == RULES else classes
    return random_rule(rng, letters) if rng.random() < 0.6 else rng.choice(letters) + rng.choice("+-")


def _fits(code: str, codes: Sequence[str]) -> bool:
    """Whether it says something that no other statement says, in the same or in opposite words."""
    turned = f"{code[-2]}+:{code[0]}-" if code.endswith("-") and ":" in code else code  # no b is c, no c is b
    return code not in codes and turned not in codes


def _is_only(clash: Sequence[str], codes: Sequence[str]) -> bool:
    """Whether no other set of the statements is a minimal contradiction: without any one of `clash` there is none."""
    if not clash:
        return not find_clash(codes)[1]
    return all(not find_clash([code for code in codes if code != left_out])[1] for left_out in clash)
