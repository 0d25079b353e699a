"""Logic as a verifier, thoughts judged step by step, translations by a model, and syllogisms by key and by logic."""

from __future__ import annotations

from pathlib import Path

import pytest

from ponder.evaluate import Report, held_out, measure
from ponder.sampler.threads import run_sync
from ponder.sandbox.objects import load_object
from ponder.tasks.gym import GymTask
from ponder.tasks.protocol import GradeStatus
from ponder.tasks.prove.logic import LogicError
from ponder.tasks.prove.prover import prove
from ponder.tasks.prove.syllogisms import follows_by_logic
from ponder.tasks.prove.thoughts import Standing, check_thought
from ponder.tasks.prove.translate import read_translated
from ponder.tasks.prove.verifiers import LogicVerifier
from ponder.testing.scripted import ScriptedSampler
from ponder.think import Ask, answer_of, direct, parse_strategy
from ponder.types import GraderError, InvalidRequest

BENCH = Path(__file__).parents[3] / "bench" / "translation.py"
SECONDS = 20.0
PREMISES = "All cats are grey.\nTom is a cat."


def test_an_answer_that_contradicts_itself_is_named_with_its_words() -> None:
    verify = LogicVerifier(seconds=SECONDS)
    assert verify("Ann is taller than Bo. Bo is tall.").score == 1
    grade = verify("Ann is taller than Bo. Bo is late.\nSo Bo is taller than Ann.")
    assert grade.score == 0
    assert grade.wrong_step == "So Bo is taller than Ann."
    assert "Ann is taller than Bo. / So Bo is taller than Ann." in grade.why
    assert "Bo is late" not in grade.why


def test_with_premises_the_score_is_the_share_that_follows() -> None:
    verify = LogicVerifier(PREMISES, seconds=SECONDS)
    assert verify("Tom is grey.").score == 1
    half = verify("Tom is grey. Tom is old.")
    assert (half.score, half.wrong_step) == (0.5, "Tom is old.")
    assert verify("Tom is not grey.").score == 0
    part = verify("Tom is grey. He sleeps.")
    assert part.score == 1
    assert "1 of its sentences cannot be read" in part.why


def test_what_cannot_be_read_is_an_error_of_reading_not_a_wrong_answer() -> None:
    verify = LogicVerifier(seconds=SECONDS)
    assert verify("Hm, maybe.").status is GradeStatus.UNPARSEABLE
    assert verify("f(a) > 2\nf(a) & p").status is GradeStatus.UNPARSEABLE
    with pytest.raises(LogicError, match="cannot be read, line 2"):
        LogicVerifier("Ann is tall.\nAnn is maybe tall.")
    with pytest.raises(LogicError, match="contradict each other"):
        LogicVerifier("p :::\n~p")


def test_strategies_name_it_and_choose_by_it(tmp_path: Path) -> None:
    (tmp_path / "premises.txt").write_text(PREMISES)
    sampler = ScriptedSampler(["Tom is not grey.", "Tom is old.", "Tom is grey.", "Perhaps."])
    strategy = parse_strategy(f"best_of(samples=4, by='verifier', verifier='logic:{tmp_path}/premises.txt')")
    assert run_sync(answer_of(strategy, Ask.of("What is Tom?"), sampler)).text == "Tom is grey."
    with pytest.raises(InvalidRequest, match="logic:nowhere"):
        parse_strategy("refine(verifier='logic:nowhere.txt')")
    with pytest.raises(InvalidRequest, match="server's machine"):
        parse_strategy("refine(verifier='logic:nowhere.txt')", files=False)


def test_a_thought_is_judged_step_by_step_and_the_answer_against_it() -> None:
    thought = "Tom is a cat.\nSo Tom is grey.\nTom is old.\nTom is not grey.\nHm, let me see.\nSo Tom is old."
    checked = check_thought(thought, "Tom is grey.", premises="All cats are grey.", seconds=60)
    assert [each.standing for each in checked.thought] == [
        Standing.UNGROUNDED, Standing.ENTAILED, Standing.UNGROUNDED, Standing.CONTRADICTORY, Standing.ENTAILED,
    ]  # fmt: skip
    assert "So Tom is grey." in [each.text for each in checked.thought[3].against]
    assert [each.standing for each in checked.answer] == [Standing.ENTAILED]
    assert [each.text for each in checked.unread] == ["Hm, let me see."]


def test_an_answer_that_the_thought_does_not_lead_to_is_ungrounded_or_contradictory() -> None:
    thought = "All cats are grey. Tom is a cat."
    assert check_thought(thought, "Tom is old.", seconds=60).answer[0].standing is Standing.UNGROUNDED
    assert check_thought(thought, "Tom is not grey.", seconds=60).answer[0].standing is Standing.CONTRADICTORY


FREE = "Ann has just left.\nAnn is rich.\nIf Ann's around, she is happy.\nAnn is around."


def test_free_text_is_translated_and_what_is_no_formula_stays_unread() -> None:
    sampler = ScriptedSampler(["1. not in(Ann)\n2. around(Ann) -> -> happy(Ann)"])
    document, translated = read_translated(FREE, sampler)
    assert translated is not None
    assert translated.formulas == {"Ann has just left.": "not in(Ann)"}
    assert [each.text for each in document.unread] == ["If Ann's around, she is happy."]
    assert "translated as 'around(Ann) -> -> happy(Ann)'" in translated.failed["If Ann's around, she is happy."]
    assert [each.text for each in document.statements] == ["Ann has just left.", "Ann is rich.", "Ann is around."]
    assert read_translated("Ann is rich.", ScriptedSampler([]))[1] is None


def test_a_translation_takes_part_in_the_proof_with_its_sentences_own_words() -> None:
    sampler = ScriptedSampler(["1. not around(Ann)\n2. around(Ann) -> happy(Ann)"])
    document, _ = read_translated(FREE, sampler)
    (conflict,) = prove(document, SECONDS).conflicts
    assert [each.text for each in conflict] == ["Ann has just left.", "Ann is around."]


def test_translation_accuracy_counts_formulas_and_meanings_apart() -> None:
    accuracy, means = load_object(f"{BENCH}:accuracy"), load_object(f"{BENCH}:means")
    assert callable(accuracy)
    assert callable(means)
    assert accuracy(ScriptedSampler(lambda conversation, _: "1. p("), 3) == (0, 0)
    assert means("all y. cat(y) -> ~~grey(y)", "all x. cat(x) -> grey(x)")
    assert not means("all x. grey(x) -> cat(x)", "all x. cat(x) -> grey(x)")
    assert not means("cat(cat(x)) > 2", "cat(Tom)")


WRONG_KEY = "1. All a are b\n2. Some b are not c\n\nDoes it logically follow that:\nSome a are not c?"


def test_an_undistributed_middle_is_not_valid_and_members_matter() -> None:
    assert not follows_by_logic(WRONG_KEY)
    assert follows_by_logic("All a are b. No b are c. No a are c?")
    assert follows_by_logic("All a are b. All b are c. Some c are b?")
    assert not follows_by_logic("All a are b. All b are c. Some c are b?", members=False)
    with pytest.raises(GraderError, match="three statements"):
        follows_by_logic("All a are b.")


def test_evaluation_shows_the_dataset_s_key_and_logic_beside_each_other() -> None:
    task = GymTask("syllogism")
    problems = held_out(task, 12)
    keys = {problem.question: problem.answer for problem in problems}
    sampler = ScriptedSampler(lambda conversation, _: keys[conversation[-1].text])
    result = measure(sampler, task, problems, direct(temperature=0.0))
    wrong = sum((problem.answer == "Yes") != follows_by_logic(problem.question) for problem in problems)
    assert (result.solved, result.by_logic) == (12, 12 - wrong)
    assert wrong > 0
    assert result.summary()["accuracy_by_logic"] == (12 - wrong) / 12
    assert "## By logic" in Report(model="keys", results=(result,)).markdown()
    other = GymTask("gcd")
    gcd = measure(ScriptedSampler(lambda conversation, _: "1"), other, held_out(other, 3), direct())
    assert gcd.by_logic is None
    assert "By logic" not in Report(model="ones", results=(gcd,)).markdown()
