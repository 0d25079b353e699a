"""recipes/council: stepwise decoding equals one pass, voices that must not hear do not, the line runs to its table."""

from __future__ import annotations

from pathlib import Path
from random import Random
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from ponder.dialogue import Message, PonderFormat, Reasoning, Role, Start, Text
from ponder.model.checkpoint import load_config
from ponder.model.loss import Backend
from ponder.sandbox.objects import load_object
from ponder.testing.tiny import ByteTokenizer, tiny_model
from ponder.train.data.packing import Batch, council_targets, fill
from ponder.train.examples import Examples
from ponder.train.pipeline import load_recipe
from ponder.train.recipe.sections import MixRecipe
from ponder.voices import voices_of

FOLDER = Path(__file__).parents[2] / "recipes" / "council"
FORMAT = PonderFormat(ByteTokenizer())
TOKENS = FORMAT.phase_tokens
COUNCIL = TOKENS.council
PROMPT = FORMAT.render([Message.user("12 * 34")], start=Start.THINK).ids


def part(name: str, file: str = "voices.py"):
    return load_object(f"{FOLDER / file}:{name}")


def council(voices: int):
    """A context whose lanes are open."""
    context = part("Context").of([*PROMPT, COUNCIL.spawn])
    context.take([COUNCIL.numbers[voices - 1]], TOKENS)
    return context


def wavering(seed: int):
    """A model that leaves, joins and ends now and then."""
    model = tiny_model(seed, max_positions=512)
    with torch.no_grad():
        model.model.embed_tokens.weight[[COUNCIL.leave, COUNCIL.join]] *= 1.5
    return model


@pytest.mark.parametrize("hear", [True, False])
@pytest.mark.parametrize("voices", [1, 2, 4, 8])
def test_stepwise_decoding_equals_one_pass(voices, hear):
    model = wavering(voices)
    made = part("decode")(
        model, [council(voices) for _ in range(4)], TOKENS, hear=hear, longest=100, temperature=1.0, seed=3
    )
    for context in made:
        assert part("numbered")(voices_of(context.ids, COUNCIL)).tolist() == context.voices
    greedy = part("decode")(model, [council(voices)], TOKENS, hear=hear, longest=90)[0]
    logits_TV, targets = whole_pass(model, one_row(greedy.ids), hear=hear), council_targets(greedy.ids, COUNCIL)
    begin = len(PROMPT) + 2 + voices
    drawn = [(slot, target) for slot, target in enumerate(targets[: len(greedy.ids) - 1]) if target >= begin]
    assert len(drawn) == len(greedy.ids) - begin
    for slot, target in drawn:
        best = logits_TV[slot].max()
        assert logits_TV[slot, greedy.ids[target]] >= best - 1e-4


def one_row(ids) -> Batch:
    batch = Batch.empty(1, len(ids), 0)
    batch.ids_BT[0], batch.positions_BT[0] = ids, np.arange(len(ids))
    return batch


def whole_pass(model, batch: Batch, *, hear: bool):
    """logits of every slot, by the mask of training."""
    mask = np.tril(np.ones((1, *batch.ids_BT.shape[1:] * 2), bool))
    if not hear:
        mask = part("BlindTokens")(COUNCIL).visible(batch)
    bias = torch.zeros(mask.shape).masked_fill(~torch.from_numpy(mask), float("-inf"))[:, None]
    attend = part("attend_causally")
    with torch.no_grad():
        return model(torch.from_numpy(batch.ids_BT).long(), attend=lambda layer, q, k, v: attend(q, k, v, bias))[0]


def test_a_blind_voice_sees_its_own_lane_and_what_is_said_by_one():
    example, _ = Examples(
        [MixRecipe(task="products", voices=3, direct=0.0, max_level=0.2)],
        FORMAT,
        tokenizer=ByteTokenizer(),
        sequence=1024,
    ).draw(Random(0))
    batch = Batch.empty(1, 1024, 0)
    fill(batch, 0, [example, example])
    (seen,) = part("BlindTokens")(COUNCIL).visible(batch)
    length = len(example.ids) - 1
    own = voices_of(example.ids[:-1], COUNCIL)
    for begin in (0, length):
        for asking in range(0, length, 7):
            expected = [
                said <= asking and (own[said] is None or own[asking] is None or own[said] == own[asking])
                for said in range(length)
            ]
            assert seen[begin + asking, begin : begin + length].tolist() == expected
    assert not seen[length:, :length].any()  # nor another document


def test_a_blind_loss_does_not_depend_on_what_the_others_say():
    model, losses = tiny_model(max_positions=512), part("BlindTokens")(COUNCIL).losses
    ids = [*PROMPT, COUNCIL.spawn, COUNCIL.numbers[1], COUNCIL.address, COUNCIL.address, *range(65, 85)]
    slot = len(ids) - 3
    found = []
    for other in (70, 90):
        batch = one_row(ids)
        batch.ids_BT[0, slot - 1] = other  # the other voice's, just before
        batch.targets_BT[0, slot], batch.weights_BT[0, slot] = 65, 1
        found.append(next(losses(model, [batch], Backend.TORCH)).item())
    assert found[0] == found[1]
    batch.ids_BT[0, slot - 2] = 91  # its own
    assert next(losses(model, [batch], Backend.TORCH)).item() != found[1]


@pytest.mark.parametrize("name", ["Pair", "Apart"])
@pytest.mark.parametrize("voices", [1, 2, 4])
def test_the_recipe_s_demonstrations_are_right_and_fit(name, voices):
    task = part(name, "tasks.py")()
    recipe = load_recipe(FOLDER / "all.toml")
    for number in range(20):
        problem = task.sample(Random(number), 1.0)
        shown = task.demonstrate_council(problem, Random(0), voices)
        assert task.grade(problem, shown.answer).solved
        assert len(shown.text) < recipe.sections[2].sequence - 60


def test_the_picture_shows_every_voice_and_what_was_taken_from_it():
    problem = part("Pair", "tasks.py")().problem("{product}", [8437, 2961])
    shown = part("Pair", "tasks.py")().demonstrate_council(problem, Random(0), 4)
    parts = (Reasoning(shown.opening), Reasoning.council(shown.voices), Reasoning(shown.reasoning), Text(shown.answer))
    picture = ElementTree.fromstring(part("draw", "draw.py")(problem.question, Message(Role.ASSISTANT, parts)))
    texts = ["".join(each.itertext()) for each in picture if each.tag.endswith("text")]
    assert texts[0] == "8437 * 2961 = 24981957"
    assert texts.count("voice 4") == 1  # its lane has one band
    assert "".join(text for text in texts if len(text) == 1) == "".join(voice.text for voice in shown.voices)
    links = [each for each in picture if each.tag.endswith("path")]
    assert len(links) == 20  # the adder takes each digit of four rows of five
    with pytest.raises(ValueError, match="in one voice"):
        part("draw", "draw.py")("?", Message.assistant("1", "thought"))


@pytest.mark.slow
def test_the_experiment_runs_from_end_to_end(tmp_path, capsys):
    main = part("main", "experiment.py")
    arguments = ["--tiny", "--arms", "one,four,apart_blind", "--seeds", "1", "-n", "4", "--folder", str(tmp_path)]
    main(arguments)
    table = capsys.readouterr().out
    assert "| one, vote of 4 |" in table
    assert "| apart_blind |" in table
    assert load_config(tmp_path / "four-1" / "model").voices == 4
    main(arguments)  # nothing is done twice
    assert capsys.readouterr().out.splitlines()[-6:] == table.splitlines()[-6:]
