"""What is on in a machine whose parts switch each other: what is seen and what is forced by hand tell different things.

Structural causal models (Pearl, Causality, 2009, chapters 1 and 7): what is seen says how the switches stand; what is
forced cuts a part off from its causes and says nothing of them. Every way the switches may stand is worked out: as the
machine runs, against what is seen; then once more with the part forced.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from random import Random

from ponder.tasks.families.working.family import ProblemFamily, size_at
from ponder.tasks.families.working.slips import noticed_slip
from ponder.tasks.graders import exact
from ponder.tasks.protocol import Demonstration, Grade, Problem

QUESTION = "A machine has {size} {part}s. {causes} {told}Is {part} {asked} on{then}? Answer yes, no or open."
VARIED = (
    "{causes} {told}Is {part} {asked} then on or not{then}? Say yes, no, or open if it cannot be told.",
    "In this machine: {causes} {told}Tell whether {part} {asked} is on{then}: yes, no or open.",
)
PARTS = ("lamp", "valve", "motor", "fan")
YES, NO, OPEN = ANSWERS = ("yes", "no", "open")
KINDS = ("see", "do", "see and do")
OPERATORS = ("=", "~", "&", "|")


@dataclass(frozen=True, slots=True)
class Cause:
    """What a part does: as another one (=), its opposite (~), two at once (&), one of two (|)."""

    part: str
    operator: str
    causes: str

    @property
    def text(self) -> str:
        """`C=A`, `C=~A`, `D=A&B`."""
        return f"{self.part}={'~' if self.operator == '~' else ''}{self.operator.join(self.causes)}"

    def value(self, state: Mapping[str, bool]) -> bool:
        values = [state[cause] for cause in self.causes]
        match self.operator:
            case "~":
                return not values[0]
            case "|":
                return any(values)
        return all(values)

    def worked(self, state: Mapping[str, bool]) -> str:
        """`D=A+&B-`: the causes with their values."""
        marked = self.operator.join(cause + sign_of(state[cause]) for cause in self.causes)
        return f"{self.part}={'~' if self.operator == '~' else ''}{marked}"


@dataclass(frozen=True, slots=True)
class CausalModel:
    """switches: parts that are set from outside. causes: of the others, in an order in which they can be worked out."""

    switches: str
    causes: tuple[Cause, ...]

    def states(self, seen: str, forced: str) -> Iterator[tuple[str, dict[str, bool] | None]]:
        """For each way the switches may stand: the working and the state; None where that is not what was seen."""
        for row in product((True, False), repeat=len(self.switches)):
            state = dict(zip(self.switches, row, strict=True))
            head = "".join(part + sign_of(value) for part, value in state.items())
            lines = []
            if seen:
                lines.append(self._run(f"{head}:", state, ""))
                fits = state[seen[0]] == (seen[1] == "+")
                lines[-1] += f" seen {'ok' if fits else 'no'}"
                if not fits:
                    yield lines[0], None
                    continue
            if forced or not seen:
                state = {part: state[part] for part in self.switches}
                lines.append(self._run(f"force {forced}:" if seen else f"{head}:", state, forced))
            yield "\n".join(lines), state

    def _run(self, head: str, state: dict[str, bool], forced: str) -> str:
        """Work out all parts, into `state`."""
        if forced and forced[0] in state:
            state[forced[0]] = forced[1] == "+"
            head += f" {forced}"
        for cause in self.causes:
            if forced and cause.part == forced[0]:
                state[cause.part] = forced[1] == "+"
                head += f" {forced}"
            else:
                head += f" {cause.worked(state)}"
                state[cause.part] = cause.value(state)
                head += f" {cause.part}{sign_of(state[cause.part])}"
        return head


class Causes(ProblemFamily):
    """Two to five parts; something is seen, something is forced, or both; each answer is as likely."""

    name = "causes"

    def sample(self, rng: Random, level: float) -> Problem:
        size = size_at(level, 2, 5)
        wanted = rng.choice(ANSWERS)
        while (drawn := draw_machine(rng, size, rng.choice(KINDS), wanted)) is None:
            pass
        machine, seen, forced, asked = drawn
        question = self.word(rng, (QUESTION,), VARIED).format(**told_words(machine, seen, forced, asked, rng))
        metadata = {
            "switches": machine.switches,
            "causes": [[each.part, each.operator, each.causes] for each in machine.causes],
            "seen": seen,
            "forced": forced,
            "asked": asked,
        }
        return Problem(task=self.name, question=question, answer=wanted, metadata=metadata)

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        facts = problem.metadata
        machine = CausalModel(facts["switches"], tuple(Cause(*each) for each in facts["causes"]))
        seen, forced, asked = facts["seen"], facts["forced"], facts["asked"]
        told = [f"see {seen}"] * bool(seen) + [f"force {forced}"] * bool(forced) + [f"ask {asked}"]
        lines = [" ".join([machine.switches, *(each.text for each in machine.causes)]), ", ".join(told)]
        values = []
        for working, state in machine.states(seen, forced):
            if state is not None:
                values.append(state[asked])
                working += f": {asked}{sign_of(state[asked])}"
            lines.append(noticed_slip(working, r"(?<= [A-E])[+-](?= )", "+-", rng))
        lines.append(f"{' '.join(asked + sign_of(value) for value in values)}: {problem.answer}")
        return Demonstration(reasoning="\n".join(lines), answer=problem.answer)

    def grade(self, problem: Problem, answer: str) -> Grade:
        return exact(problem.answer, answer.strip().rstrip("."), ignore_case=True)

    def same(self, a: str, b: str) -> bool:
        return a.strip().rstrip(".").lower() == b.strip().rstrip(".").lower()


def sign_of(value: bool) -> str:
    return "+" if value else "-"


def answer_to(machine: CausalModel, seen: str, forced: str, asked: str) -> str | None:
    """yes, no or open; None where what was seen cannot be."""
    values = {state[asked] for _, state in machine.states(seen, forced) if state is not None}
    return None if not values else OPEN if len(values) == 2 else YES if values == {True} else NO


def draw_machine(rng: Random, size: int, kind: str, wanted: str) -> tuple[CausalModel, str, str, str] | None:
    """A machine, what is seen, what is forced and what is asked; None where the answer is another one."""
    num_switches = 1 if size == 2 else rng.randint(1, 2)
    parts = "ABCDE"[:size]
    causes = []
    for place in range(num_switches, size):
        operator = rng.choice(OPERATORS if place > 1 else OPERATORS[:2])
        chosen = sorted(rng.sample(parts[:place], 2 if operator in "&|" else 1))
        causes.append(Cause(parts[place], operator, "".join(chosen)))
    machine = CausalModel(parts[:num_switches], tuple(causes))
    seen = rng.choice(parts) + rng.choice("+-") if "see" in kind else ""
    forced = rng.choice(parts) + rng.choice("+-") if "do" in kind else ""
    told = {forced[:1]} if forced and seen[:1] != forced[:1] else {seen[:1], forced[:1]}
    asked = rng.choice([part for part in parts if part not in told])
    return (machine, seen, forced, asked) if answer_to(machine, seen, forced, asked) == wanted else None


def told_words(machine: CausalModel, seen: str, forced: str, asked: str, rng: Random) -> dict[str, str]:
    """What the templates name."""
    part = rng.choice(PARTS)
    switches = " and ".join(f"{part} {switch}" for switch in machine.switches)
    sentences = [f"{switches} {'is' if len(machine.switches) == 1 else 'are'} set from outside."]
    for cause in machine.causes:
        first, second = (f"{part} {each}" for each in (cause.causes * 2)[:2])
        when = {
            "=": f"{first} is on",
            "~": f"{first} is off",
            "&": f"{first} and {second} are both on",
            "|": f"{first} or {second} is on",
        }[cause.operator]
        sentences.append(f"{part} {cause.part} is on exactly when {when}.")
    told = []
    if seen:
        told.append(f"{part} {seen[0]} is seen to be {on_or_off(seen)}.")
    if forced:
        told.append(f"{'then ' if seen else ''}{part} {forced[0]} is forced {on_or_off(forced)} by hand.")
    return {
        "size": ("two", "three", "four", "five")[len(machine.switches) + len(machine.causes) - 2],
        "part": part,
        "causes": " ".join(map(begun, sentences)),
        "told": "".join(f"{begun(each)} " for each in told),
        "asked": asked,
        "then": " now" if seen and forced else "",
    }


def on_or_off(literal: str) -> str:
    return "on" if literal[1] == "+" else "off"


def begun(sentence: str) -> str:
    """With a capital."""
    return sentence[0].upper() + sentence[1:]
