"""Thinking in several voices is learned as it is sampled: each slot predicts the next token of the same voice."""

import asyncio
import json
from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch
from even import recipe, train
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.dialogue import Message, PonderFormat, Start
from ponder.model.checkpoint import write_model
from ponder.model.loss import Backend, next_token_loss
from ponder.sampler.local import LocalSampler
from ponder.sampler.protocol import Request
from ponder.testing.tiny import ByteTokenizer, tiny_model
from ponder.train.data.packing import Batch, Example, council_targets, fill, pack
from ponder.train.examples import Examples, check_mix, mix_texts, mix_voices
from ponder.train.loop.display import read_metrics
from ponder.train.loop.learner import on
from ponder.train.policy import stage
from ponder.train.policy.gradient import PolicyGradient
from ponder.train.policy.lessons import Lesson, lay_out
from ponder.train.recipe.sections import MixRecipe, mix_problems
from ponder.types import Origin, Phase, RecipeError, SamplingParams, Segment, ThinkingLimits, Trajectory
from ponder.voices import separate, spawned, voices_of

TOKENIZER = ByteTokenizer()
FORMAT = PonderFormat(TOKENIZER)
COUNCIL = FORMAT.phase_tokens.council
LONG = 1024


def drawn(voices: int, seed: int = 0, task: str = "products") -> Example:
    entry = MixRecipe(task=task, voices=voices, direct=0.0, max_level=0.3)
    example, _ = Examples([entry], FORMAT, tokenizer=TOKENIZER, sequence=LONG).draw(Random(seed))
    return example


def batch_of(*rows: list[Example], sequence: int = LONG) -> Batch:
    batch = Batch.empty(len(rows), sequence, 0)
    for row, contents in enumerate(rows):
        fill(batch, row, contents)
    return batch


@pytest.mark.parametrize("task", ["products", "chain_sum", "countdown"])
@pytest.mark.parametrize("voices", [2, 4])
def test_a_shared_demonstration_is_learned_lane_by_lane(task, voices):
    example = drawn(voices, task=task)
    ids = list(example.ids)
    own = voices_of(ids, COUNCIL)
    batch = batch_of([example])
    for voice, lane in enumerate(separate(ids, own)):
        slots = [slot for slot, each in enumerate(own) if each == voice]
        assert batch.targets_BT[0, slots[:-1]].tolist() == lane[1:]
        assert (batch.weights_BT[0, slots[:-1]] == 1).all()
    opened = ids.index(COUNCIL.address)
    assert batch.targets_BT[0, opened - 2 : opened].tolist() == [COUNCIL.numbers[voices - 1], COUNCIL.address]
    assert batch.weights_BT[0, opened - 2 : opened].tolist() == [1, 0]  # the lanes are opened for it
    learned = [id for id, flag in zip(ids, example.learned, strict=True) if flag]
    counted = batch.targets_BT[batch.weights_BT > 0].tolist()
    assert sorted(counted) == sorted(learned)


def test_one_voice_is_one_thought_and_is_laid_out_as_ever():
    alone = drawn(1)
    assert alone.targets is None
    lane = [COUNCIL.address, 65, 66, COUNCIL.join]
    ids = [9, *spawned([lane], COUNCIL), 67, 68]
    flags = [True] * len(ids)
    targets = council_targets(ids, COUNCIL)
    assert targets.tolist() == [*range(1, len(ids)), -1]
    council, ordinary = (batch_of([Example(ids=ids, learned=flags, targets=each)]) for each in (targets, None))
    for name in ("ids_BT", "targets_BT", "weights_BT", "documents_BT", "positions_BT"):
        assert np.array_equal(getattr(council, name), getattr(ordinary, name))


def test_packed_equals_alone():
    model = tiny_model(max_positions=LONG)
    examples = [drawn(voices, seed) for seed, voices in enumerate((2, 4, 1, 3))]
    packed, left_out = pack(examples, rows=2, sequence=LONG, pad=0, rng=Random(0))
    assert not left_out
    alone = [batch_of([each], sequence=len(each.ids) - 1) for each in examples]
    weight = sum(float(each.weights_BT.sum()) for each in alone)
    with torch.no_grad():
        whole = next_token_loss(model, *on(torch.device("cpu"), packed))
        parts = [next_token_loss(model, *on(torch.device("cpu"), each), total_weight=weight) for each in alone]
    assert float(whole) == pytest.approx(float(sum(parts)), rel=1e-5)


def test_what_a_voice_says_is_learned_from_what_it_had_heard():
    """One causal pass gives each voice's token the probability that it had where it was drawn."""
    model, example = tiny_model(max_positions=LONG), drawn(3)
    ids, targets = torch.tensor([list(example.ids)]), example.targets
    with torch.no_grad():
        logits_TV = model(ids)[0]
        for slot in (len(example.ids) // 2, len(example.ids) - 9):
            alone_V = model(ids[:, : slot + 1])[0, -1]  # nothing later changes it
            torch.testing.assert_close(alone_V, logits_TV[slot], atol=1e-5, rtol=1e-5)
    assert (np.array(targets[:-1]) != np.arange(1, len(example.ids))).any()


@settings(max_examples=30, deadline=None)
@given(cut=st.integers(1, 400), voices=st.integers(1, 4), seed=st.integers(0, 9))
def test_a_sampled_council_is_one_trajectory_whose_tokens_keep_what_they_were_sampled_with(cut, voices, seed):
    """Also where it was cut off in the middle of a step."""
    prompt = FORMAT.render([Message.user("?")], start=Start.THINK).ids
    said = list(drawn(voices, seed).ids)[len(prompt) :][:cut]
    opened = {slot for slot, id in enumerate(said) if id == COUNCIL.address}
    origins = tuple(Origin.FORCED if slot in opened else Origin.SAMPLED for slot in range(len(said)))
    marks = np.arange(1, len(said) + 1, dtype=np.float32)
    segment = Segment(
        prompt_ids=prompt,
        ids=tuple(said),
        logprobs=tuple((-marks).tolist()),
        phases=(Phase.THINK,) * len(said),
        origins=origins,
        weights_version=0,
    )
    lesson = Lesson(Trajectory(segments=(segment,)), marks, 0.5)
    (made,) = lay_out([lesson], rows=1, sequence=LONG, pad=0, council=COUNCIL)
    counts = made.batch.weights_BT[0] > 0
    assert (made.batch.weights_BT[0][counts] == 0.5).all()
    numbers = made.advantages_BT[0][counts].astype(int)
    assert sorted(numbers) == [slot + 1 for slot in range(len(said)) if slot not in opened]
    assert np.array_equal(made.old_BT[0][counts], -numbers)
    assert [said[number - 1] for number in numbers] == made.batch.targets_BT[0][counts].tolist()
    at = len(prompt) - 1 + numbers  # the place of each target
    places = np.nonzero(counts)[0]
    own = voices_of([*prompt, *said], COUNCIL)
    for place, target in zip(places, at, strict=True):
        assert own[place] == own[target] or None in (own[place], own[target])
        assert place < target


def test_a_vocabulary_reads_the_voices():
    (text,) = mix_texts([MixRecipe(task="products", voices=2)], 1, seed=0)
    assert "*" in text


def test_how_many_voices_a_mix_teaches_is_known(tmp_path):
    said = [{"text": "a", "end": "left"}, {"text": "b", "end": "left"}, {"text": "c", "end": "joined"}]
    message = {"role": "assistant", "content": "d", "reasoning_content": ["", {"voices": said}, ""]}
    (tmp_path / "said.jsonl").write_text(json.dumps({"messages": [{"role": "user", "content": "?"}, message]}))
    messages, products = MixRecipe(messages=str(tmp_path / "said.jsonl")), MixRecipe(task="products")
    assert mix_voices([products, MixRecipe(task="products", voices=1)]) == 0
    assert mix_voices([products, messages]) == 3
    assert mix_voices([messages, MixRecipe(task="products", voices=4)]) == 4


def test_what_cannot_be_shared_is_refused():
    with pytest.raises(RecipeError, match="'gcd' cannot be shared among voices, because it has no demonstrate_council"):
        check_mix([MixRecipe(task="gcd", voices=2)])
    problems = mix_problems("sft", [MixRecipe(task="products", voices=2, plain=0.5)])
    assert [text for text, found in problems.items() if found] == [
        "sft.mix[0].plain does not apply with voices (got 0.5): set it to 0"
    ]


@pytest.mark.parametrize("voices", [1, 2, 3, 4, 8])
def test_training_computes_the_log_probabilities_that_the_engine_sampled_with(voices):
    """Step by step in the engine, and in one pass over packed rows."""
    model = tiny_model(voices, max_positions=LONG)
    with torch.no_grad():
        model.model.embed_tokens.weight[[COUNCIL.leave, COUNCIL.join]] *= 1.3  # lanes of different lengths
    sampler = LocalSampler(model, TOKENIZER, FORMAT, max_batch=4)
    prompt = (*FORMAT.render([Message.user("?")], start=Start.THINK).ids, COUNCIL.spawn, COUNCIL.numbers[voices - 1])
    params = SamplingParams(max_tokens=90, temperature=0.7, seed=voices, thinking=ThinkingLimits(voices=8))
    made = asyncio.run(sampler.sample(Request(prompt=prompt, params=params, start=Phase.THINK, n=4)))
    lessons = [Lesson(Trajectory(segments=each.segments), 1.0, 1.0) for each in made]
    gradient = PolicyGradient(lambda new_N, tokens: (-(new_N * tokens.weights_N).sum(), {}), temperature=0.7)
    batches = lay_out(lessons, rows=2, sequence=256, pad=0, council=COUNCIL)
    list(gradient.losses(model, batches, Backend.TORCH))
    assert gradient.metrics()["engine_difference"] < 1e-4
    counted = sum(int((each.batch.weights_BT > 0).sum()) for each in batches)
    sampled = sum(origin is Origin.SAMPLED for each in made for origin in each.segment.origins)
    assert counted == sampled


def test_grpo_rewards_a_council_as_one_trajectory(tmp_path, even, monkeypatch):
    laid_out = []
    monkeypatch.setattr(
        stage, "lay_out", lambda lessons, **sizes: laid_out.extend(lessons) or lay_out(lessons, **sizes)
    )
    model = tiny_model(3)
    with torch.no_grad():  # it speaks in several voices, and comes to an end
        model.model.embed_tokens.weight[[COUNCIL.spawn, COUNCIL.join, COUNCIL.leave]] *= 2
    model.config = replace(model.config, voices=4)
    start = tmp_path / "start"
    start.mkdir()
    write_model(model, start)
    TOKENIZER.save(start)
    sizes = {"thinking": 40, "max_tokens": 60, "sequence": 128, "steps": 1, "eval_every": 0}
    train(recipe(start, tmp_path / "run", **sizes))
    segments = [segment for lesson in laid_out for segment in lesson.trajectory.segments]
    assert any(COUNCIL.address in segment.ids for segment in segments)
    steps = read_metrics(tmp_path / "run" / "grpo" / "metrics.jsonl")
    assert max(step["engine_difference"] for step in steps) < 1e-4
