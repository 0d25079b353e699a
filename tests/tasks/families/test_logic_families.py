"""Contradictions, follows, causes: what the families call right is what z3 finds, and their workings are true."""

from __future__ import annotations

import re
from random import Random

import pytest
from family_checks import context_lengths
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.tasks.check import check
from ponder.tasks.families.logic import LOGIC_FAMILIES
from ponder.tasks.families.logic.causes import CausalModel, Cause, answer_to
from ponder.tasks.families.logic.contradictions import ITEM, Contradictions, read_numbers
from ponder.tasks.families.logic.follows import Follows, cases_of, read_verdicts
from ponder.tasks.families.logic.statements import CLASSES, NAMES, Theme, as_sentence
from ponder.tasks.protocol import Demonstration, GradeStatus, Problem, without_marks
from ponder.tasks.prove.document import read_document
from ponder.tasks.prove.logic import formula_text
from ponder.tasks.prove.prover import Verdict, prove
from ponder.tasks.registry import load_task
from ponder.train.algorithms.sft import SftRecipe
from ponder.train.pipeline import load_recipe

SECONDS = 20.0
seeds = st.integers(0, 2**32)
levels = st.floats(0, 1)


def drawn(name: str, seed: int, level: float) -> tuple[Problem, Demonstration]:
    family, rng = LOGIC_FAMILIES[name], Random(seed)
    problem = family.sample(rng, level)
    return problem, family.demonstrate(problem, rng)


@pytest.mark.parametrize("name", LOGIC_FAMILIES)
def test_a_family_keeps_its_promises_and_has_a_name(name: str) -> None:
    assert len(check(load_task(name), 60)) == 60


@pytest.mark.parametrize("name", LOGIC_FAMILIES)
def test_a_level_has_its_own_sizes_and_all_answers(name: str) -> None:
    problems = [drawn(name, seed, seed % 10 / 10)[0] for seed in range(200)]
    assert len({problem.question for problem in problems}) > 185
    answers = [problem.answer for problem in problems]
    assert max(answers.count(answer) for answer in set(answers)) < 0.45 * len(answers)


@pytest.mark.property
@given(st.sampled_from([*NAMES]), st.sampled_from([*NAMES]), st.sampled_from("+-"), seeds)
@settings(max_examples=25, deadline=None)
def test_sentences_are_read_as_the_formulas_that_they_were_written_from(a: str, b: str, sign: str, seed: int) -> None:
    if a == b:
        return
    theme = Theme.draw(Random(seed), [a, b])
    no = "" if sign == "+" else "not "
    c, d = (sorted(CLASSES)["ABCDEFGHIJKL".index(letter)] for letter in (a, b))
    wanted = {
        f"{a}{sign}": f"{no}{theme.adjective}({NAMES[a]})",
        f"{a}+:{b}{sign}": f"{theme.adjective}({NAMES[a]}) -> {no}{theme.adjective}({NAMES[b]})",
        f"{c}{sign}": f"{no}{CLASSES[c]}({theme.person})",
        f"{c}+:{d}{sign}": f"all x1: thing. {CLASSES[c]}(x1) -> {no}{CLASSES[d]}(x1)",
        f"{a}>{b}": f"({NAMES[a]}) > ({NAMES[b]})",
    }
    for code, formula in wanted.items():
        (statement,) = read_document(as_sentence(code, theme, Random(seed))).statements
        text = formula_text(statement.formula)
        if ">" in code and "->" not in text:
            left, relation, right = text.split()
            assert left.split("(")[0] == right.split("(")[0] in ("older", "taller", "heavier", "faster")
            above, below = (left, right) if relation == ">" else (right, left)
            assert (above.split("(")[1][:-1], below.split("(")[1][:-1]) == (NAMES[a], NAMES[b])
        else:
            assert text == formula


@pytest.mark.property
@given(seeds, levels)
@settings(max_examples=25, deadline=None)
def test_the_one_contradiction_is_the_one_that_z3_finds(seed: int, level: float) -> None:
    problem, _ = drawn("contradictions", seed, level)
    sentences = [sentence for _, sentence in ITEM.findall(problem.question)]
    proof = prove(read_document("\n".join(sentences)), SECONDS)
    found = [{each.line for each in conflict} for conflict in proof.conflicts]
    wanted = read_numbers(problem.answer)
    assert proof.complete
    assert found == ([wanted] if wanted else [])


@pytest.mark.property
@given(seeds, levels)
@settings(max_examples=25, deadline=None)
def test_the_clash_is_traced_back_statement_by_statement(seed: int, level: float) -> None:
    problem, demonstration = drawn("contradictions", seed, level)
    text = re.sub(r"[+-] no ([+-])", r"\1", without_marks(demonstration.reasoning))
    codes = dict(re.findall(r"^(\d) (\S+)$", text, re.MULTILINE))
    assert list(codes.values()) == problem.metadata["codes"]
    numbers: set[int] = set()
    for line in re.findall(r"^clash (.*)$", text, re.MULTILINE):
        steps = line.split()
        for what, number, source in zip(steps[::2], steps[1::2], [*steps[2::2], ""], strict=False):
            numbers.add(int(number))
            code = codes[number]
            assert code == (f"{source}>{what}" if ">" in code else f"{source}:{what}" if source else what)
    assert numbers == read_numbers(problem.answer)


def test_answers_are_graded_by_the_prover() -> None:
    family = Contradictions()
    statements = "1. Ann is late.\n2. Bo is taller than Cy.\n3. Ann is not late.\n4. Cy is taller than Bo."
    problem = Problem(task=family.name, question=statements, answer="1, 3")
    scores = {"1, 3": 1, "3 and 1": 1, "2, 4": 1, "1, 2, 3": 0.5, "1, 2": 0, "none": 0, "7, 8": 0, "1": 0}
    assert {answer: family.grade(problem, answer).score for answer in scores} == scores
    assert family.grade(problem, "all of them").status is GradeStatus.UNPARSEABLE
    consistent = Problem(task=family.name, question="1. Ann is late.\n2. Bo is late.", answer="none")
    assert family.grade(consistent, "None.").score == 1
    assert family.grade(consistent, "1, 2").score == 0


@pytest.mark.property
@given(seeds, levels)
@settings(max_examples=25, deadline=None)
def test_the_verdicts_are_z3s(seed: int, level: float) -> None:
    problem, demonstration = drawn("follows", seed, level)
    statements = re.findall(r"^\d\. (.*)$", problem.question, re.MULTILINE)
    claims = re.findall(r"^[abc]\. (.*)$", problem.question, re.MULTILINE)
    proof = prove(read_document("\n".join([*statements, *(f"Therefore {claim}" for claim in claims)])), SECONDS)
    words = {Verdict.PROVED: "follows", Verdict.REFUTED: "refuted", Verdict.UNDETERMINED: "open"}
    assert proof.consistent
    assert [words[each.verdict] for each in proof.findings] == list((read_verdicts(problem.answer) or {}).values())
    assert demonstration.answer == problem.answer


@pytest.mark.property
@given(seeds, levels)
@settings(max_examples=25, deadline=None)
def test_every_line_of_what_follows_is_a_step_of_one_statement(seed: int, level: float) -> None:
    problem, demonstration = drawn("follows", seed, level)
    text = without_marks(demonstration.reasoning)
    for head, found in re.findall(r"^([A-Za-z][+-]): (.*[+-])$", text, re.MULTILINE):
        for number, literal in (each.split() for each in found.split(", ")):
            code = problem.metadata["codes"][int(number) - 1]
            cases = cases_of([code, head], sorted({*re.findall("[A-Za-z]", code), head[0]}))
            assert all(case[literal[0]] == (literal[1] == "+") for case in cases)


def test_part_of_the_verdicts_is_part_of_the_score() -> None:
    family = Follows()
    problem = Problem(task=family.name, question="", answer="a follows, b open")
    assert family.grade(problem, "b is open, a is follows").score == 1
    assert family.grade(problem, "a follows, b refuted").score == 0.5
    for answer in ("a follows", "a follows, a follows, b open", "a follows, b maybe", ""):
        assert family.grade(problem, answer).status is GradeStatus.UNPARSEABLE


@pytest.mark.property
@given(seeds, levels)
@settings(max_examples=25, deadline=None)
def test_seeing_and_forcing_are_what_z3_says_of_the_two_machines(seed: int, level: float) -> None:
    """The machine as it runs, and the same with the forced part cut off, share their switches and nothing else."""
    facts = drawn("causes", seed, level)[0].metadata
    seen, forced, asked = facts["seen"], facts["forced"], facts["asked"]
    lines = [f"hand <-> {'true' if forced == '' else forced[1] == '+'}".lower()]
    for world, cut in (("before", ""), ("after", forced[:1])):
        for switch in facts["switches"]:
            lines.append(f"{world}_{switch} <-> {'hand' if switch == cut else f'switch_{switch}'}")
        for part, operator, causes in facts["causes"]:
            values = operator.join(f"{world}_{cause}" for cause in causes) if operator in "&|" else f"{world}_{causes}"
            lines.append(f"{world}_{part} <-> {'hand' if part == cut else ('~' * (operator == '~') + f'({values})')}")
    lines += ["true :::", "~false"]
    lines += [f"{'' if seen[1] == '+' else '~'}before_{seen[0]} :::"] if seen else []
    proof = prove(read_document("\n".join([*lines, f"? after_{asked} ::: asked"])), SECONDS)
    words = {Verdict.PROVED: "yes", Verdict.REFUTED: "no", Verdict.UNDETERMINED: "open"}
    assert words[proof.findings[0].verdict] == drawn("causes", seed, level)[0].answer


def test_the_recipe_reads_and_its_rows_hold_the_longest_context() -> None:
    section = load_recipe("recipes/logic/all.toml").section(SftRecipe)
    assert [entry.task for entry in section.mix] == list(LOGIC_FAMILIES)
    longest = max(max(context_lengths(*drawn(name, seed, 1.0))) for name in LOGIC_FAMILIES for seed in range(40))
    assert longest < section.sequence


def test_what_is_seen_tells_of_its_causes_and_what_is_forced_does_not() -> None:
    model = CausalModel("A", (Cause("B", "=", "A"), Cause("C", "~", "B")))
    assert answer_to(model, "B+", "", "A") == "yes"
    assert answer_to(model, "", "B+", "A") == "open"
    assert answer_to(model, "", "B+", "C") == "no"
    assert answer_to(model, "C+", "B+", "A") == "no"
    assert answer_to(model, "C+", "B+", "C") == "no"
