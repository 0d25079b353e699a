"""Labels of steps, what learns them, and what their scores are used for."""

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from ponder.dialogue import Message, PonderFormat, Start, control
from ponder.model.checkpoint import write_model
from ponder.model.loss import Backend
from ponder.model.scoring import Reads, ScoreScale, ScoringHead, ScoringModel
from ponder.sampler.threads import run_sync
from ponder.tasks.protocol import Demonstration, Grade, Problem, StepVerifier
from ponder.tasks.verifiers.steps import StepScorer, Whole, step_ids, whole_score
from ponder.testing.tiny import ByteTokenizer, ParrotModel, tiny_model, tiny_sampler
from ponder.think import Ask, Ledger, answer_of
from ponder.think.strategies.search import search
from ponder.train import run
from ponder.train.algorithms.process import AfterMistake, labelled_steps
from ponder.train.data.preferences import Stepwise, judgement_from
from ponder.train.data.step_labels import LabelledThought, agreement_of_labels, exact_labels, label_thoughts, spoiled
from ponder.train.loop.display import read_metrics
from ponder.train.policy.losses import step_advantages
from ponder.types import FormatError

TOKENIZER = ByteTokenizer()
FORMAT = PonderFormat(TOKENIZER)
ASKED = (Message.user("q"),)
THINK, CLOSE, END = (TOKENIZER.control_id(name) for name in (control.THINK, control.END_THINK, control.END))


class Count:
    """Counts to three, a number a line."""

    name = "count"

    def sample(self, rng: Random, level: float) -> Problem:
        return Problem(task=self.name, question="count", answer="3")

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        return Demonstration(reasoning="1\n2\n3", answer="3")

    def grade(self, problem: Problem, answer: str) -> Grade:
        return Grade(score=float(answer == "3"))

    def same(self, a: str, b: str) -> bool:
        return a == b


COUNT = Count()
PROBLEM = COUNT.sample(Random(0), 0.0)


def steps(*texts: str, labels: tuple[float | None, ...], answer: str | None = "a") -> Stepwise:
    return Stepwise(prompt=ASKED, steps=texts, labels=labels, answer=answer)


def scorer(whole: Whole = Whole.MIN) -> StepScorer:
    scoring = ScoringModel(tiny_model(), ScoringHead(32), ScoreScale(reads=Reads.STEPS))
    return StepScorer(scoring, TOKENIZER, FORMAT, whole=whole)


@pytest.mark.parametrize("answer", ["a", None])
def test_there_is_a_label_at_the_last_id_of_each_step(answer: str | None) -> None:
    made = labelled_steps(
        steps("one", "two", "three", labels=(1.0, 0.5, 1.0), answer=answer), FORMAT, TOKENIZER, AfterMistake.LEARN
    )
    places = np.flatnonzero(made.learned) - 1
    assert made.labels[places + 1].tolist() == [1.0, 0.5, 1.0]
    assert [TOKENIZER.decode([made.ids[place]]) for place in places] == ["\n", "\n", "e"]


def test_after_the_first_mistake_nothing_is_learned_unless_asked_for() -> None:
    judged = steps("one", "two", "three", labels=(1.0, 0.0, 1.0))
    counts = [int(labelled_steps(judged, FORMAT, TOKENIZER, each).learned.sum()) for each in AfterMistake]
    assert counts == [2, 3]
    assert (
        labelled_steps(steps("one", "two", labels=(None, 1.0)), FORMAT, TOKENIZER, AfterMistake.IGNORE).learned.sum()
        == 1
    )
    with pytest.raises(FormatError, match="2 steps are labelled, and its ids have 3"):
        labelled_steps(steps("a\nb", "c", labels=(1.0, 1.0)), FORMAT, TOKENIZER, AfterMistake.IGNORE)


def test_training_and_scoring_read_the_same_ids_and_a_thought_is_scored_as_it_grows() -> None:
    message = Message.assistant("a", "one\ntwo\nthree")
    read = step_ids(FORMAT, TOKENIZER, ASKED, message)
    assert read.texts == ("one", "two", "three")
    made = labelled_steps(steps("one", "two", "three", labels=(1.0, 1.0, 1.0)), FORMAT, TOKENIZER, AfterMistake.LEARN)
    assert (tuple(made.ids[:-1]), tuple(np.flatnonzero(made.learned) - 1)) == (read.ids, read.places)
    judge = scorer()
    assert isinstance(judge, StepVerifier)
    found = judge.probabilities(read)
    grade = judge.grade_message(ASKED, message)
    assert grade.score == pytest.approx(min(found))
    assert grade.wrong_step == next((t for t, p in zip(read.texts, found, strict=True) if p < 0.5), "")
    assert judge.grade_thought(ASKED, "one\ntwo\n").score == pytest.approx(min(found[:2]), abs=1e-5)
    begin = read.ids.index(THINK) + 1
    sampled = judge.rewards(read.ids[:begin], read.ids[begin:])
    assert [place + begin for place, _ in sampled] == [*read.places]
    assert [score for _, score in sampled] == pytest.approx(found, abs=1e-6)


def test_the_score_of_a_whole_thought() -> None:
    assert [whole_score([0.5, 0.9, 0.8], whole) for whole in Whole] == pytest.approx([0.5, 0.36, 0.8])


def test_exact_labels_end_at_the_first_step_that_is_not_shown() -> None:
    assert exact_labels(COUNT, PROBLEM, ["1", "2", "3"]) == (1.0, 1.0, 1.0)
    assert exact_labels(COUNT, PROBLEM, ["1", "3", "3"]) == (1.0, 0.0, None)
    assert exact_labels(COUNT, PROBLEM, ["1", "2", "3", "4"]) == (1.0, 1.0, 1.0, 0.0)
    drawn = [spoiled(COUNT, PROBLEM, Random(seed)) for seed in range(40)]
    assert {each.exact[-1] for each in drawn} == {0.0, 1.0}
    for each in drawn:
        assert exact_labels(COUNT, PROBLEM, each.steps) == each.exact
        judged = judgement_from(each.record(exact=True))
        assert isinstance(judged, Stepwise)
        assert judged.labels == each.exact


def test_rollouts_go_on_from_each_step_and_count_right_answers() -> None:
    """A model that thinks three lines and answers 3, whatever stands before."""
    prompt = len(FORMAT.render((Message.user("count"),), start=Start.THINK).ids)
    script = [*TOKENIZER.encode("1\n5\n3"), CLOSE, *TOKENIZER.encode("3"), END]
    sampler = tiny_sampler(model=ParrotModel(script, prompt))
    ask = Ask.of("count", max_tokens=40)
    (made,) = run_sync(label_thoughts(sampler, COUNT, PROBLEM, ask, thoughts=1, rollouts=3, seed=1))
    assert (made.steps, made.answer) == (("1", "5", "3"), "3")
    assert made.rollouts == (1.0, 1.0, 1.0)  # a right answer from a wrong step
    assert made.exact == (1.0, 0.0, None)
    assert agreement_of_labels([made]) == (1.0, 0.0, 2)
    (plain,) = run_sync(label_thoughts(sampler, COUNT, PROBLEM, ask, thoughts=1, rollouts=0, seed=1))
    assert plain == LabelledThought(problem=PROBLEM, steps=made.steps, answer="3", rollouts=(), exact=made.exact)


def test_advantages_of_steps_are_the_sums_of_what_follows_them() -> None:
    one, other = step_advantages([[(1, 1.0), (3, 0.0)], [(0, 1.0)]], [5, 2])
    unit = 1 / (np.std([1.0, 0.0, 1.0]) + 1e-4)
    right, wrong = unit / 3, -2 * unit / 3
    assert one.tolist() == pytest.approx([right + wrong, right + wrong, wrong, wrong, 0.0], abs=1e-5)
    assert other.tolist() == pytest.approx([right, 0.0], abs=1e-5)
    assert not step_advantages([[(0, 0.7)], [(1, 0.7)]], [2, 2])[0].any()


class Longest:
    """A verifier of steps that likes thoughts with many lines, and remembers what it was shown."""

    def __init__(self) -> None:
        self.thoughts: list[str] = []

    def grade_message(self, prompt: object, message: Message) -> Grade:
        return Grade(score=min(0.9, message.reasoning.count("\n") / 10))

    def grade_thought(self, prompt: object, thought: str) -> Grade:
        self.thoughts.append(thought)
        return Grade(score=min(0.9, thought.count("\n") / 10))


def test_a_search_values_each_step_at_its_end() -> None:
    judge = Longest()
    prompt = len(FORMAT.render((Message.user("count"),), start=Start.THINK).ids)
    script = [*TOKENIZER.encode("1\n2\n3"), CLOSE, *TOKENIZER.encode("3"), END]
    sampler = tiny_sampler(model=ParrotModel(script, prompt))
    ask = Ask.of("count", verifier=judge, max_tokens=40, seed=1)
    answer = run_sync(answer_of(search(width=1, branch=1, depth=3), ask, sampler, Ledger()))
    assert judge.thoughts == ["1\n", "1\n2\n", "1\n2\n3"]
    assert (answer.reasoning, answer.text) == ("1\n2\n3", "3")


RECIPE = """
[run]
folder = "{folder}/run"
stages = ["process"]
threads = 1
compile = false
precision = "fp32"
[process]
start = "{folder}/start"
preferences = "{folder}/steps.jsonl"
sequence = 64
batch = 8
rankings = 8
epochs = 3
held_out = 0.2
optim = {{ lr = 0.003, warmup = 0.1 }}
"""


def test_the_stage_learns_which_steps_are_wrong_and_is_loaded_as_a_verifier(tmp_path: Path) -> None:
    (tmp_path / "start").mkdir()
    write_model(tiny_model(), tmp_path / "start")
    TOKENIZER.save(tmp_path / "start")
    rng = Random(3)
    with (tmp_path / "steps.jsonl").open("w") as stream:
        for number in range(100):
            texts = [rng.choice("ab") * 2 for _ in range(3)]
            record = {
                "prompt": f"{number}?",
                "completions": texts,
                "labels": [text[0] == "a" for text in texts],
                "answer": "x",
            }
            stream.write(json.dumps(record) + "\n")
    (tmp_path / "r.toml").write_text(RECIPE.format(folder=tmp_path))
    run(tmp_path / "r.toml", ["process.after_mistake=learn"])
    assert read_metrics(tmp_path / "run" / "process" / "metrics.jsonl")[-1]["held_out/f1"] > 0.9
    judge = StepScorer.load(tmp_path / "run" / "process" / "model")
    grade = judge.grade_message(ASKED, Message.assistant("x", "aa\nbb\naa"))
    assert (grade.wrong_step, grade.score < 0.5) == ("bb", True)
    assert not (tmp_path / "run" / "model").exists()


def test_any_micro_batching_gives_the_same_gradient() -> None:
    from ponder.train.algorithms.process import ProcessLearner, ProcessRecipe
    from ponder.train.loop.stage import StageStart
    from ponder.train.recipe.sections import Recipe, RunRecipe

    thoughts = [
        labelled_steps(steps("one", "two" * n, labels=(1.0, n % 2)), FORMAT, TOKENIZER, AfterMistake.LEARN)
        for n in range(1, 7)
    ]
    found = []
    for rows in (1, 3):
        model = tiny_model()
        stage = ProcessRecipe(preferences="unused", sequence=64, batch=rows)
        start = StageStart(
            recipe=Recipe(run=RunRecipe(folder="unused")),
            stage=stage,
            folder=Path("unused"),
            model=model,
            tokenizer=TOKENIZER,
            tokenizer_folder=Path("unused"),
        )
        learner = ProcessLearner(start, thoughts, [])
        batches = next(learner.batches(0))
        for loss in learner.losses(model, batches, Backend.TORCH):
            loss.backward()
        found.append((len(batches), [p.grad for p in (*model.parameters(), *learner.head.parameters())]))
    assert found[0][0] > found[1][0]
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-4, atol=1e-6)
