"""Turns in an environment, and folded thoughts: one trajectory of contexts, every sampled token learned once."""

import asyncio
import json
import re
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from ponder.dialogue import Message, PonderFormat, Reasoning, Role, Start, Text, ToolCall, ToolResult
from ponder.dialogue.interchange import to_dicts
from ponder.evaluate import measure
from ponder.model.transformer import Transformer
from ponder.sandbox.objects import load_object
from ponder.tasks.isolated import IsolatedEnv, IsolatedTask
from ponder.tasks.protocol import DemonstratedEnvironment, EnvironmentTask, GradeStatus
from ponder.tasks.registry import load_task
from ponder.testing.parity import assert_logprobs_are_those_of_training
from ponder.testing.scripted import ScriptedSampler
from ponder.testing.tiny import ByteTokenizer, tiny_config, tiny_model, tiny_sampler
from ponder.think import consensus, direct
from ponder.train.data.dialogues import read_dialogues
from ponder.train.examples import Examples, to_examples
from ponder.train.policy.lessons import Lesson, lay_out, sampled_tokens
from ponder.train.policy.rollout import generated_tokens, prefilled_tokens, roll_out
from ponder.train.recipe.sections import MixRecipe
from ponder.types import InvalidRequest, Origin, Phase, RecipeError, SamplingParams

SPEC = "recipes/smoke/hidden_number.py:HiddenNumber"
TOKENIZER = ByteTokenizer()
FORMAT = PonderFormat(TOKENIZER)
HERE = load_object(SPEC)()  # its grade and its steps in this process


def hidden(number, level=0.25):
    """The problem whose answer is `number`, of 1 to 7."""
    drawn = (HERE.sample(Random(seed), level) for seed in range(200))
    return next(problem for problem in drawn if problem.answer == str(number))


def thinks(thought, *parts):
    return Message(Role.ASSISTANT, (Reasoning(thought), *parts))


def result(content, name="compare"):
    return Message(Role.TOOL, (ToolResult(name, content),))


class Actor(Transformer):
    """Says its part of a dialogue, context by context, given the place and the token before; its logits elsewhere 0."""

    def __init__(self, *dialogues, max_positions=512):
        super().__init__(tiny_config(vocab_size=TOKENIZER.vocab_size, max_positions=max_positions, num_layers=1))
        self.lines = {}
        for dialogue in dialogues:
            ends = [i + 1 for i, message in enumerate(dialogue) if message.role is Role.ASSISTANT]
            for context in (context for end in ends for context in FORMAT.contexts(dialogue[:end])):
                for place, (before, id) in enumerate(zip(context.ids, context.ids[1:], strict=False)):
                    self.lines.setdefault((place, before), id)

    def hidden(self, ids_BT, *, positions_BT=None, attend=None, documents_BT=None):
        h_BTD = super().hidden(ids_BT, positions_BT=positions_BT, attend=attend, documents_BT=documents_BT)
        h_BTD[..., 0], h_BTD[..., 1] = positions_BT, ids_BT
        return h_BTD

    def unembed(self, h_ND):
        logits_NV = torch.zeros(len(h_ND), self.config.vocab_size)
        for row, (place, id) in enumerate(h_ND[:, :2].int().tolist()):
            if (place, id) in self.lines:
                logits_NV[row, self.lines[place, id]] = 50.0
        return logits_NV


def act(problem, *turns, task=HERE, samples=1, **params):
    """The attempts of a model that says `turns`, results and all, after the problem's question."""
    sampler = tiny_sampler(model=Actor([Message.user(problem.question), *turns]))
    params = SamplingParams(**{"max_tokens": 300, **params})
    (group,) = asyncio.run(roll_out(sampler, [(task, problem)], samples=samples, params=params, seed="s"))
    return group


def text_of(segment, origin):
    return TOKENIZER.decode([id for id, of in zip(segment.ids, segment.origins, strict=True) if of is origin])


def assert_rendered(problem, attempt):
    """The last context is what rendering the whole attempt gives, to the id."""
    last = attempt.completion.segments[-1]
    rendered = FORMAT.render([Message.user(problem.question), *attempt.messages])
    assert (*last.prompt_ids, *last.ids) == rendered.ids
    if len(attempt.completion.segments) > 1:
        return  # what was sampled in an earlier context is learned there
    flags = [False] * len(last.prompt_ids) + [origin is Origin.SAMPLED for origin in last.origins]
    assert flags == list(rendered.assistant_mask())


# Turns ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [HERE, load_task(SPEC)], ids=["here", "apart"])
def test_results_are_put_behind_the_calls_in_one_context_and_the_answer_is_graded(task):
    problem = hidden(6)
    shown = HERE.show(problem, Random(0))
    assert [message.role for message in shown] == [Role.ASSISTANT, Role.TOOL] * 2 + [Role.ASSISTANT]
    for attempt in act(problem, *shown, task=task, samples=3):
        assert attempt.grade.solved
        assert [message.text for message in attempt.messages] == [message.text for message in shown]
        (segment,) = attempt.trajectory.segments
        assert text_of(segment, Origin.ENV) == (
            "<|tool|><|result|>compare<|body|>higher<|/result|><|end|><|assistant|><|think|>"
            "<|tool|><|result|>compare<|body|>equal<|/result|><|end|><|assistant|><|think|>"
        )
        assert "higher" not in text_of(segment, Origin.SAMPLED)
        assert {phase for phase, of in zip(segment.phases, segment.origins, strict=True) if of is Origin.ENV} == {
            Phase.TOOL
        }
        assert_rendered(problem, attempt)
        sampled = sampled_tokens(attempt.trajectory)
        assert attempt.completion.usage.completion_tokens == sampled == generated_tokens([attempt])
        results = sum(origin is Origin.ENV for origin in segment.origins)
        assert prefilled_tokens([attempt, attempt]) == len(segment.prompt_ids) + 2 * results
        (made,) = lay_out([Lesson(attempt.trajectory, 1.0, 0.5)], rows=1, sequence=512, pad=0)
        assert int((made.batch.weights_BT > 0).sum()) == sampled


def test_an_evaluation_gives_the_model_its_tools():
    problem = hidden(6)
    dialogue = [Message.user(problem.question), *HERE.show(problem, Random(0))]
    task = load_task(SPEC)
    sampler = tiny_sampler(model=Actor(dialogue))
    acted = measure(sampler, task, [problem], direct(thinking=100))
    (item,) = acted.items
    assert (item.answer, item.grade.solved, len(item.drawn)) == ("6", True, 1)
    rendered = FORMAT.render(dialogue)
    assert item.usage.completion_tokens == sum(rendered.assistant_mask())
    voted = measure(sampler, task, [problem], consensus(samples=3, thinking=100, temperature=0.5))
    assert [each.solved for each in voted.items[0].drawn] == [True] * 3
    assert voted.items[0].grade.solved
    unable = measure(sampler, task, [problem], direct(thinking=100, max_tokens=40, answer_room=4))
    assert (unable.solved, unable.truncation_rate) == (0, 1.0)
    with pytest.raises(InvalidRequest, match="environments need a local model"):
        measure(ScriptedSampler(["4"]), task, [problem], direct())


def test_an_attempt_without_calls_is_one_turn():
    problem = hidden(3)
    (attempt,) = act(problem, thinks("a guess", Text("5")))
    assert (attempt.grade.score, len(attempt.messages)) == (0.0, 1)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (ToolCall("compare", "4, I think"), "error: the arguments are not JSON"),
        (ToolCall("compare", "[" * 200), "error: the arguments are not JSON"),
        (ToolCall("compare", '"four"'), "error: compare takes a whole number"),
        (ToolCall("divine", "4"), "error: there is no tool 'divine': there are compare"),
    ],
)
@pytest.mark.parametrize("task", [HERE, load_task(SPEC)], ids=["here", "apart"])
def test_a_call_that_cannot_be_carried_out_is_answered_with_the_reason(task, call, told):
    problem = hidden(4)
    turns = [thinks("try", call), result(told, call.name), thinks("again", ToolCall("compare", "4"))]
    (attempt,) = act(problem, *turns, result("equal"), thinks("", Text("4")), task=task, max_tokens=None)
    assert attempt.grade.solved
    assert [part.content for m in attempt.messages if m.role is Role.TOOL for part in m.parts] == [told, "equal"]


def test_several_calls_of_a_turn_are_answered_in_their_order():
    problem = hidden(4)
    calls = ToolCall("compare", "2"), ToolCall("compare", "6")
    (attempt,) = act(problem, thinks("two", *calls), result("higher"), result("lower"), thinks("so", Text("4")))
    assert attempt.grade.solved
    assert_rendered(problem, attempt)


def test_turns_end_at_the_limit_of_the_environment():
    problem = hidden(4)
    turns = [part for _ in range(20) for part in (thinks("", ToolCall("compare", "1")), result("higher"))]
    (attempt,) = act(problem, *turns, max_tokens=None)
    assert sum(message.role is Role.ASSISTANT for message in attempt.messages) == HERE.max_turns
    assert (attempt.grade.score, attempt.truncated) == (0.0, False)


@pytest.mark.parametrize("max_tokens", range(5, 60, 3))
def test_max_tokens_counts_all_turns_and_the_results(max_tokens):
    problem = hidden(6)
    (attempt,) = act(problem, *HERE.show(problem, Random(0)), max_tokens=max_tokens)
    (segment,) = attempt.trajectory.segments
    assert len(segment.ids) <= max_tokens
    assert attempt.truncated
    assert attempt.grade.score == 0.0
    assert segment.origins[-1] is Origin.SAMPLED  # a result that nothing follows is left out


def test_the_window_ends_an_attempt_like_max_tokens():
    problem = hidden(6)
    sampler = tiny_sampler(model=Actor([Message.user(problem.question), *HERE.show(problem, Random(0))]), window=150)
    ((attempt,),) = asyncio.run(
        roll_out(sampler, [(HERE, problem)], samples=1, params=SamplingParams(max_tokens=300), seed="s")
    )
    assert attempt.truncated


def test_a_stray_control_token_begins_a_new_context():
    problem = hidden(4)
    turns = [thinks("so", ToolCall("compare", "4")), result("equal"), thinks("", Text("4"))]
    dialogue = [Message.user(problem.question), *turns]
    model = Actor(dialogue)
    places = {place: id for (place, _), id in model.lines.items()}
    at = len(FORMAT.render(dialogue[:1], start=Start.THINK).ids)
    stray = TOKENIZER.control_id("<|user|>")
    model.lines[at - 1, TOKENIZER.control_id("<|think|>")] = stray  # instead of the s
    model.lines[at, stray] = places[at]
    group = roll_out(
        tiny_sampler(model=model), [(HERE, problem)], samples=1, params=SamplingParams(max_tokens=200), seed="s"
    )
    ((attempt,),) = asyncio.run(group)
    first, *others = attempt.trajectory.segments
    assert first.ids[0] == stray
    assert Origin.ENV not in first.origins
    assert others  # in which the token is spelled
    assert "<|user|>" in TOKENIZER.decode(others[0].prompt_ids)
    assert others[0].prompt_ids[: len(first.prompt_ids) + 1] != (*first.prompt_ids, stray)


# Environments of a user, in a child ---------------------------------------------------------------------------------


def test_an_environment_of_ones_own_runs_apart(tmp_path):
    source = Path("recipes/smoke/hidden_number.py").read_text()
    source = source.replace('return "equal" if', 'while arguments == 1: pass\n        return "equal" if')
    source = source.replace("max_turns = 8", "max_turns = 8\n    grading = GradingLimits(seconds=0.5)")
    (tmp_path / "broken.py").write_text(f"from ponder.tasks.isolated import GradingLimits\n{source}")
    task = load_task(f"{tmp_path}/broken.py:HiddenNumber")
    assert isinstance(task, IsolatedTask)
    assert isinstance(task, EnvironmentTask)
    assert isinstance(task, DemonstratedEnvironment)
    problem = hidden(6)
    env = task.start(problem)
    assert isinstance(env, IsolatedEnv)
    assert [env.step("compare", guess) for guess in (4, 7, 6)] == ["higher", "lower", "equal"]
    assert env.grade("6").solved
    assert not env.grade("5").solved
    turns = [thinks("", ToolCall("compare", "1")), result("higher"), thinks("", Text("6"))]
    (attempt,) = act(problem, *turns, task=task)
    assert attempt.grade.status is GradeStatus.TIMEOUT
    assert len(attempt.trajectory.segments[0].ids) == 13  # what was said until it broke


# Folded thoughts ------------------------------------------------------------------------------------------------------


def test_an_answer_with_folds_is_one_trajectory_of_several_contexts_with_one_reward():
    task, state = load_task("products"), Reasoning("half", state=True)
    problem = task.sample(Random(1), 0.0)
    said = Message(Role.ASSISTANT, (Reasoning("first"), state, Reasoning("then"), Text(problem.answer)))
    (attempt,) = act(problem, said, task=task)
    first, second = attempt.trajectory.segments
    assert attempt.trajectory.reward == 1.0
    assert TOKENIZER.decode(first.ids) == "first<|state|>half<|fold|>"
    assert second.prompt_ids == (*first.prompt_ids, *first.ids[len("first") :])
    assert TOKENIZER.decode(second.ids) == f"then<|/think|>{problem.answer}<|end|>"
    refilled = attempt.completion.usage.refilled_tokens  # the state, and what of the prompt shares its page
    assert prefilled_tokens([attempt]) == len(first.prompt_ids) + refilled
    assert refilled >= len("half") + 2


def test_a_fold_in_an_environment_begins_a_context_in_which_the_turns_go_on():
    problem = hidden(6)
    state = Reasoning("5 to 7", state=True)
    turns = [
        thinks("1 to 7", ToolCall("compare", "4")),
        result("higher"),
        Message(Role.ASSISTANT, (Reasoning("folded"), state, Reasoning("so 6"), ToolCall("compare", "6"))),
        result("equal"),
        thinks("it is", Text("6")),
    ]
    (attempt,) = act(problem, *turns)
    first, second = attempt.trajectory.segments
    assert attempt.grade.solved
    assert text_of(first, Origin.SAMPLED).endswith("folded<|state|>5 to 7<|fold|>")
    assert "higher" in text_of(first, Origin.ENV)
    assert "equal" in text_of(second, Origin.ENV)
    assert text_of(second, Origin.SAMPLED).startswith("so 6<|/think|><|call|>")
    assert_rendered(problem, attempt)


class Folding(Transformer):
    """A random model that folds now and then: the bias is its own, so its log-probabilities hold it."""

    def unembed(self, h_ND):
        bias_V = torch.zeros(self.config.vocab_size)
        bias_V[FORMAT.phase_tokens.state_open] = 2.0
        bias_V[FORMAT.phase_tokens.fold] = 4.0
        bias_V[[FORMAT.phase_tokens.think_close, *FORMAT.phase_tokens.end]] = -20.0
        return super().unembed(h_ND) + bias_V


def folding_model():
    model = tiny_model(vocab_size=TOKENIZER.vocab_size, max_positions=512)
    model.__class__ = Folding
    return model


def test_folded_rollouts_can_be_learned_from_each_sampled_token_once():
    task, model = load_task("products"), folding_model()
    problems = [(task, task.sample(Random(seed), 0.0)) for seed in range(3)]
    params = SamplingParams(max_tokens=90)
    groups = asyncio.run(roll_out(tiny_sampler(model=model), problems, samples=4, params=params, seed="s"))
    trajectories = [attempt.trajectory for group in groups for attempt in group]
    assert max(len(trajectory.segments) for trajectory in trajectories) >= 3
    for trajectory in trajectories:
        assert sum(len(segment.ids) for segment in trajectory.segments) <= 90
        for segment in trajectory.segments:
            assert_logprobs_are_those_of_training(model, segment)
    lessons = [Lesson(trajectory, float(number), 1.0) for number, trajectory in enumerate(trajectories, start=1)]
    made = lay_out(lessons, rows=4, sequence=256, pad=0)
    assert len(made) > 1
    homes = [set(each.advantages_BT[each.batch.weights_BT > 0].tolist()) for each in made]
    assert sum(map(len, homes)) == len(lessons)  # every trajectory lies in one micro-batch, whole
    for lesson in lessons:
        (home,) = (each for each, home in zip(made, homes, strict=True) if lesson.advantage in home)
        counted = (home.batch.weights_BT > 0) & (home.advantages_BT == lesson.advantage)
        learned = home.batch.targets_BT[counted].tolist()
        assert sorted(learned) == sorted(
            id
            for segment in lesson.trajectory.segments
            for id, origin in zip(segment.ids, segment.origins, strict=True)
            if origin is Origin.SAMPLED
        )
        assert len(learned) == sampled_tokens(lesson.trajectory)
    with torch.no_grad():  # packed beside others, the trainer computes what the engine reported
        for each in made:
            ids, documents = (torch.from_numpy(array).long() for array in (each.batch.ids_BT, each.batch.documents_BT))
            h_BTD = model.hidden(ids, documents_BT=documents)
            logits_NV = model.unembed(h_BTD.flatten(0, 1))
            targets = torch.from_numpy(each.batch.targets_BT).long().flatten()
            new = logits_NV.log_softmax(-1).gather(-1, targets[:, None])[:, 0].numpy().reshape(each.old_BT.shape)
            at = each.batch.weights_BT > 0
            np.testing.assert_allclose(new[at], each.old_BT[at], atol=1e-3)


# Demonstrations -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_demonstrations_find_every_number_within_the_turns_allowed(level):
    for seed in range(30):
        problem = HERE.sample(Random(seed), level)
        shown = HERE.show(problem, Random(seed))
        assert HERE.grade(problem, shown[-1].text).solved
        assert sum(message.role is Role.ASSISTANT for message in shown) <= HERE.max_turns


def drawn(count=1, **entry):
    mix = [MixRecipe(**{"task": SPEC, "direct": 0.0, **entry})]
    examples = Examples(mix, FORMAT, tokenizer=TOKENIZER, sequence=4096)
    return [examples.draw(Random(seed)) for seed in range(count)]


def parted(example):
    """What is learned of an example, and what is not."""
    pairs = list(zip(example.ids, example.learned, strict=True))
    return tuple(TOKENIZER.decode([id for id, flag in pairs if flag is wanted]) for wanted in (True, False))


def test_a_mix_teaches_an_environment_s_calls_and_not_its_results():
    for example, number in drawn(20, min_level=0.25, max_level=0.25):
        learned, given = parted(example)
        assert number
        assert given.count("<|result|>compare<|body|>") == learned.count("<|call|>compare<|args|>") >= 1
        assert re.fullmatch(
            r"(\d to \d: \d<\|/think\|><\|call\|>compare<\|args\|>\d<\|/call\|><\|end\|>)+"
            r"(\d) is equal<\|/think\|>\2<\|end\|>",
            learned,
        )
    ((example, _),) = drawn(min_level=0.25, max_level=0.25)
    rng = Random(0)
    rng.choices([0], [1])
    problem = HERE.sample(rng, rng.uniform(0.25, 0.25))
    rng.random()
    dialogue = [Message.user(problem.question), *HERE.show(problem, rng)]
    rendered = FORMAT.render(dialogue, train=True)
    assert example.ids == rendered.ids
    assert tuple(example.learned) == rendered.assistant_mask()


def test_a_direct_share_calls_without_thinking():
    for example, _ in drawn(5, direct=1.0):
        learned, given = parted(example)
        assert "think" not in learned + given
        assert re.fullmatch(r"(<\|call\|>compare<\|args\|>\d+<\|/call\|><\|end\|>)+\d+<\|end\|>", learned)


def test_an_earlier_turn_in_an_environment_is_context_only():
    for example, _ in drawn(5, earlier=1.0):
        learned, given = parted(example)
        assert given.count("<|user|>") == 2
        assert learned.count("is equal") == 1
        assert "<|call|>" in given
        first = list(example.learned).index(True)
        assert TOKENIZER.decode(example.ids[:first]).endswith("<|assistant|><|think|>")
        assert TOKENIZER.decode(example.ids[:first]).count("<|user|>") == 2


def test_folds_and_mistakes_in_an_environment_are_taught_as_in_any_thought(tmp_path):
    source = Path("recipes/smoke/hidden_number.py").read_text()
    source = source.replace(
        'Reasoning(f"{guess} is equal"),',
        'Reasoning(f"{mistake(\'odd\')} no"), Reasoning("so", state=True), Reasoning("done"),',
    ).replace("import Grade, Problem", "import Grade, Problem, mistake")
    (tmp_path / "folds.py").write_text(source)
    found = {parted(example)[0] for example, _ in drawn(40, task=f"{tmp_path}/folds.py:HiddenNumber", max_level=0)}
    folds = {each for each in found if each.endswith(" no<|state|>so<|fold|>")}
    answers = {each for each in found if re.search(r"<\|end\|>done<\|/think\|>\d<\|end\|>$", each)}
    assert folds
    assert answers
    assert found == folds | answers
    assert not any("odd" in each for each in found)


def test_an_environment_that_shows_nothing_cannot_be_taught(tmp_path):
    source = Path("recipes/smoke/hidden_number.py").read_text()
    (tmp_path / "mute.py").write_text(source.replace("def show(", "def shown("))
    with pytest.raises(RecipeError, match="has no show"):
        drawn(task=f"{tmp_path}/mute.py:HiddenNumber")


def test_demonstrations_in_a_file_teach_calls_and_not_results(tmp_path):
    problem = hidden(6)
    dialogue = [Message.user(problem.question), *HERE.show(problem, Random(0))]
    (tmp_path / "shown.jsonl").write_text(json.dumps({"messages": to_dicts(dialogue)}))
    ((_, read),) = read_dialogues(tmp_path / "shown.jsonl")
    (example,) = to_examples(read.messages, FORMAT)
    learned = TOKENIZER.decode([id for id, flag in zip(example.ids, example.learned, strict=True) if flag])
    assert learned == (
        "1 to 7: 4<|/think|><|call|>compare<|args|>4<|/call|><|end|>"
        "5 to 7: 6<|/think|><|call|>compare<|args|>6<|/call|><|end|>"
        "6 is equal<|/think|>6<|end|>"
    )
    assert example.ids == FORMAT.render(dialogue).ids
    assert {message.role for message in read.messages} == {Role.USER, Role.ASSISTANT, Role.TOOL}
    assert [(m.text, m.reasoning) for m in read.messages] == [(m.text, m.reasoning) for m in dialogue]
