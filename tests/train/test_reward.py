"""The reward model: what it reads and learns, and that it is stored for others, grades, and is killed without loss."""

import json
import os
import shutil
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from forks import exit_code

from ponder.dialogue import Message, PonderFormat, control
from ponder.evaluate.preferred import ScoredPair, agreement
from ponder.model.checkpoint import write_model
from ponder.model.loss import Backend, kernel_obstacle
from ponder.model.scoring import Reads, ScoringHead, load_scoring_model
from ponder.sampler.threads import run_sync
from ponder.tasks.protocol import MessageVerifier
from ponder.tasks.registry import load_task
from ponder.tasks.verifiers.reward import RewardModel, logistic, scored_ids
from ponder.testing.tiny import ByteTokenizer, tiny_model, tiny_sampler
from ponder.think import Ask, Ledger, answer_of
from ponder.think.strategies.best_of import best_of
from ponder.train import run
from ponder.train.algorithms.reward import RewardLearner, RewardRecipe, RewardTraining, end_scores, scored_answer
from ponder.train.data.comparisons import comparison, lay_out_comparisons, load_comparisons
from ponder.train.data.preferences import Ranking, judgement_from
from ponder.train.loop.display import read_metrics
from ponder.train.loop.stage import StageStart
from ponder.train.recipe.sections import Recipe, RunRecipe
from ponder.types import CheckpointError, InvalidRequest

TOKENIZER = ByteTokenizer()
FORMAT = PonderFormat(TOKENIZER)
END = FORMAT.phase_tokens.end
RECIPE = """
[run]
folder = "{folder}"
stages = ["reward"]
threads = 1
compile = false
precision = "fp32"
checkpoint_minutes = {minutes}
[reward]
start = "{start}"
preferences = "{data}"
sequence = 64
batch = 4
rankings = 8
epochs = {epochs}
held_out = 0.2
optim = {{ lr = 0.003, warmup = 0.1 }}
"""


def judged(path: Path, count: int = 120, *, shuffled: bool = False) -> Path:
    """People who like answers with an "a" in them; or, shuffled, do not care."""
    rng = Random(5)
    with path.open("w") as stream:
        for number in range(count):
            good, bad = f"{rng.randint(0, 9)}a", f"{rng.randint(0, 9)}b"
            ranks = [1, 2] if not shuffled or rng.random() < 0.5 else [2, 1]
            stream.write(json.dumps({"prompt": f"{number}?", "completions": [good, bad], "ranks": ranks}) + "\n")
    return path


def recipe(folder: Path, name: str = "run", *, epochs: int = 2, minutes: float = 60) -> Path:
    """A run in `folder`, which holds the judgements, from a random model that it gets too."""
    start = folder / "start"
    if not start.exists():
        start.mkdir()
        model = tiny_model()
        model.config = replace(model.config, pad_token_id=TOKENIZER.control_id(control.ENDOFTEXT))
        write_model(model, start)
        TOKENIZER.save(start)
    path, data = folder / f"{name}.toml", folder / "judged.jsonl"
    path.write_text(RECIPE.format(folder=folder / name, start=start, data=data, epochs=epochs, minutes=minutes))
    return path


def learner(model: torch.nn.Module, path: Path, **more: object) -> RewardLearner:
    stage = RewardRecipe(preferences=str(path), sequence=64, rankings=12, **more)  # type: ignore[arg-type]
    start = StageStart(
        recipe=Recipe(run=RunRecipe(folder="unused")),
        stage=stage,
        folder=path.parent,
        model=model,  # type: ignore[arg-type]
        tokenizer=TOKENIZER,
        tokenizer_folder=path.parent,
    )
    return RewardLearner(start, load_comparisons(stage, scored_answer(FORMAT)))


def ranking(*texts: str, prompt: Sequence[Message] = (Message.user("q"),)) -> Ranking:
    answers = tuple((Message.assistant(text, "thought"),) for text in texts)
    return Ranking(prompt=tuple(prompt), answers=answers, ranks=tuple(range(1, len(texts) + 1)))


def test_it_reads_the_visible_conversation_to_its_end_token() -> None:
    earlier = (Message.user("p"), Message.assistant("long ago", "hidden"), Message.user("q"))
    ids = scored_ids(FORMAT, earlier, [Message.assistant("a", "hidden too")])
    assert ids[-1] in END
    assert "hidden" not in TOKENIZER.decode(ids)
    assert ids == scored_ids(FORMAT, earlier, [Message.assistant("a")])
    assert sum(id in END for id in ids) > 1  # the first end token is not the last


def test_a_score_is_the_same_packed_and_alone() -> None:
    model, head = tiny_model(), ScoringHead(32)
    earlier = (Message.user("p"), Message.assistant("first"), Message.user("q"))
    rankings = [ranking("a", "bc", "d" * 20), ranking("e", "fg", prompt=earlier)]
    made = [comparison(n, "", each, scored_answer(FORMAT)) for n, each in enumerate(rankings)]
    (batch,) = lay_out_comparisons(made, rows=2, sequence=64, pad=0)
    packed = end_scores(model, head, batch, Backend.TORCH, None)
    alone = []
    for each in rankings:
        for answer in each.answers:
            ids = torch.tensor([scored_ids(FORMAT, each.prompt, answer)])
            alone.append(head(model.hidden(ids)[0, -1:]))
    torch.testing.assert_close(packed, torch.cat(alone), rtol=1e-5, atol=1e-5)


def test_any_micro_batching_gives_the_same_gradient(tmp_path: Path) -> None:
    path = judged(tmp_path / "judged.jsonl", 20)
    found = []
    for rows in (1, 2, 16):
        model = tiny_model()
        made = learner(model, path, batch=rows, held_out=0.0, epochs=1)
        batches = next(made.batches(0))
        for loss in made.losses(model, batches, Backend.TORCH):
            loss.backward()
        found.append((len(batches), [p.grad for p in (*model.parameters(), *made.head.parameters())]))
    assert [count for count, _ in found] == sorted({count for count, _ in found}, reverse=True)
    for _, gradients in found[1:]:
        torch.testing.assert_close(gradients, found[0][1], rtol=1e-4, atol=1e-6)


def test_the_kernels_give_the_loss_and_the_gradient_of_torch(tmp_path: Path) -> None:
    sizes = {"vocab_size": 320, "head_dim": 32}
    model = tiny_model(**sizes)
    model.compute_dtype = torch.bfloat16
    if kernel_obstacle(model):
        pytest.skip(kernel_obstacle(model))
    path = judged(tmp_path / "judged.jsonl", 20)
    found = []
    for backend in (Backend.TORCH, Backend.KERNELS):
        model = tiny_model(**sizes)
        model.compute_dtype = torch.bfloat16
        made = learner(model, path, held_out=0.0, epochs=1)
        losses = list(made.losses(model, next(made.batches(0)), backend))
        torch.stack(losses).sum().backward()
        gradients = [p.grad.flatten() for p in (*model.parameters(), *made.head.parameters()) if p.grad is not None]
        found.append((float(torch.stack(losses).detach().sum()), torch.cat(gradients)))
    (loss, gradient), (ours, by_kernels) = found
    assert ours == pytest.approx(loss, rel=0.01)
    assert float((by_kernels - gradient).norm() / gradient.norm()) < 0.03


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with judgements and a run that learned from them."""
    folder = tmp_path_factory.mktemp("reward")
    judged(folder / "judged.jsonl")
    run(recipe(folder))
    return folder


@pytest.fixture
def trained(home: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(home / "run" / "reward" / "model", tmp_path / "model"))


def test_it_learns_what_people_like_and_nothing_from_shuffled_labels(home: Path, tmp_path: Path) -> None:
    assert read_metrics(home / "run" / "reward" / "metrics.jsonl")[-1]["held_out/accuracy"] == 1.0
    judged(tmp_path / "judged.jsonl", shuffled=True)
    run(recipe(tmp_path))
    assert 0.2 < read_metrics(tmp_path / "run" / "reward" / "metrics.jsonl")[-1]["held_out/accuracy"] < 0.8


def test_the_policy_of_the_run_is_left_alone_and_scores_are_on_a_scale(home: Path, trained: Path) -> None:
    assert not (home / "run" / "model").exists()
    data = home / "judged.jsonl"
    reward = RewardModel.load(trained)
    assert isinstance(reward, MessageVerifier)
    held_out = load_comparisons(
        RewardRecipe(preferences=str(data), sequence=64, held_out=0.2), scored_answer(FORMAT)
    ).held_out
    numbers = [int(each.where.rpartition(":")[2]) - 1 for each in held_out]
    records = [json.loads(line) for line in data.read_text().splitlines()]
    rewards = torch.tensor(
        [
            reward.reward([Message.user(records[n]["prompt"])], [Message.assistant(text)])
            for n in numbers
            for text in records[n]["completions"]
        ]
    )
    assert abs(float(rewards.mean())) < 1e-3
    assert float(rewards.std(correction=0)) == pytest.approx(1, abs=1e-3)


def test_transformers_scores_as_we_do(trained: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(trained, dtype=torch.float32)
    assert theirs.config.num_labels == 1
    ours = load_scoring_model(trained)
    for answer in ("a", "some longer b"):
        ids = scored_ids(FORMAT, [Message.user("p")], [Message.assistant("x")])
        ids += scored_ids(FORMAT, [Message.user("q")], [Message.assistant(answer)])
        (score,) = ours.scores(ids)
        pad = theirs.config.pad_token_id
        for given in (torch.tensor([ids]), torch.tensor([[*ids, pad, pad]])):
            with torch.no_grad():
                assert float(theirs(given).logits) == pytest.approx(score, abs=1e-5)


def test_a_folder_of_another_kind_is_refused(home: Path, trained: Path) -> None:
    with pytest.raises(CheckpointError, match="ForSequenceClassification"):
        RewardModel.load(home / "start")
    raw = json.loads((trained / "config.json").read_text())
    (trained / "config.json").write_text(json.dumps(raw | {"id2label": {"0": "a", "1": "b"}}))
    with pytest.raises(CheckpointError, match="must have one label"):
        RewardModel.load(trained)
    (trained / "config.json").write_text(json.dumps(raw))
    record = json.loads((trained / "reward.json").read_text())
    (trained / "reward.json").write_text(json.dumps(record | {"reads": Reads.STEPS}))
    with pytest.raises(CheckpointError, match="scores steps"):
        RewardModel.load(trained)


def test_it_grades_the_answers_of_a_task_and_chooses_the_best_of_several(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("1?\n2?\n")
    task = load_task(f"reward:{trained}:{tmp_path / 'prompts.txt'}")
    problems = [task.sample(Random(0), level) for level in (0.25, 0.75)]
    assert [problem.question for problem in problems] == ["1?", "2?"]
    good, bad = (task.grade(problems[0], text) for text in ("3a", "3b"))
    reward = RewardModel.load(trained)
    value = reward.reward([Message.user("1?")], [Message.assistant("3a")])
    assert good.score == pytest.approx(logistic(value))
    assert good.score > 0.5 > bad.score
    assert task.grade(problems[0], " ").score == 0
    cut = task.grade_message(problems[0], Message.assistant("3a"), complete=False)  # type: ignore[attr-defined]
    assert (cut.score, cut.why) == (0.0, "cut off")
    strict = load_task(f"reward:{trained}@0:{tmp_path / 'prompts.txt'}")
    assert [strict.grade(problems[0], text).score for text in ("3a", "3b")] == [1.0, 0.0]
    for broken in (f"reward:{trained}", f"reward:{trained}@x:products", "reward::products"):
        with pytest.raises(InvalidRequest, match="reward"):
            load_task(broken)

    ask = Ask.of("1?", verifier=reward, thinking=0, max_tokens=4, seed=1)
    answer = run_sync(answer_of(best_of(samples=6, by="verifier"), ask, tiny_sampler(), Ledger()))
    graded = {each.text: reward.grade_message(ask.prompt, each.message).score for each in answer.completions}  # type: ignore[arg-type]
    whole = [each.text for each in answer.completions if each.answers]
    if whole:
        assert answer.text == max(whole, key=lambda text: graded[text])


def test_agreement_counts_judgements_once_and_says_what_length_explains() -> None:
    pairs = [ScoredPair(0, 1.0, 0.0, 10, 10), ScoredPair(0, 0.0, 1.0, 9, 20), ScoredPair(1, 2.0, 0.0, 30, 20)]
    made = agreement(pairs)
    assert (made.judgements, made.pairs, made.accuracy) == (2, 3, 0.75)
    assert (made.matched, made.matched_pairs, made.shorter) == (1.0, 1, pytest.approx((0.75 + 0) / 2))
    sure, double = logistic(1.0), logistic(2.0)
    assert made.calibration_error == pytest.approx((abs(2 * sure - 1) + (1 - double)) / 3)
    perfect = agreement([ScoredPair(n, 0.0, 0.0, 1, 2) for n in range(4)])
    assert (perfect.accuracy, perfect.calibration_error, perfect.matched) == (0.5, 0.0, None)


def killed(path: str) -> None:
    """Train until the sixth step, and die there. In a separate process."""
    whole = RewardTraining.open

    def open_to_die(self: RewardTraining, start: StageStart[RewardRecipe]) -> object:
        job = whole(self, start)

        def batches(step: int) -> object:
            for number, each in enumerate(job.batches(step), step):
                if number == 6:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield each

        return replace(job, batches=batches)

    RewardTraining.open = open_to_die  # type: ignore[method-assign, assignment]
    run(path)


@pytest.mark.fault
def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path: Path) -> None:
    judged(tmp_path / "judged.jsonl", 80)
    run(recipe(tmp_path, "whole"))
    parts = recipe(tmp_path, "parts", minutes=0.0)
    assert exit_code("test_reward:killed", str(parts)) == -signal.SIGKILL
    assert [each["step"] for each in read_metrics(tmp_path / "parts" / "reward" / "metrics.jsonl")][-1] == 6
    run(parts, resume=True)
    for name in ("model.safetensors", "reward.json", "config.json"):
        one, other = (tmp_path / which / "reward" / "model" / name for which in ("whole", "parts"))
        assert one.read_bytes() == other.read_bytes()


def test_a_judgement_of_the_reader_is_what_it_scores() -> None:
    made = judgement_from({"prompt": "q", "chosen": "a", "rejected": "b"})
    assert isinstance(made, Ranking)
    (example,) = scored_answer(FORMAT)(made, 0)
    assert tuple(example.ids[:-1]) == scored_ids(FORMAT, made.prompt, made.answers[0])
    assert list(example.learned) == [False] * (len(example.ids) - 1) + [True]
