"""An audit finds the steps that an answer depends on, and no others, where both are known."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from random import Random

import pytest

from ponder.dialogue.messages import Message, Reasoning, Role, Text
from ponder.evaluate.audit import AuditReport, Thinker, audit_thinking
from ponder.evaluate.audit.thinking import FORCED, GOES_ON, LAST, NOTHING
from ponder.evaluate.audit.thoughts import Reply, Thought, Where, corrupt, kept, other_token, thinking_tokens
from ponder.sampler.protocol import Completion, Request
from ponder.sampler.threads import run_sync
from ponder.tasks.protocol import Grade, Problem
from ponder.testing.scripted import ScriptedSampler
from ponder.testing.tiny import ByteTokenizer, tiny_sampler
from ponder.types import InvalidRequest, Origin, Phase, Segment, StopReason, Usage

TOKENIZER = ByteTokenizer()


class Sums:
    """`Sum of 3 4 5` is 12."""

    name = "sums"

    def sample(self, rng: Random, level: float) -> Problem:
        numbers = [rng.randint(10, 99) for _ in range(3)]
        question = f"Sum of {' '.join(map(str, numbers))}"
        return Problem(task=self.name, question=question, answer=str(sum(numbers)))

    def grade(self, problem: Problem, answer: str) -> Grade:
        return Grade(score=float(answer == problem.answer))

    def same(self, a: str, b: str) -> bool:
        return a == b


PROBLEMS = [Sums().sample(Random(number), 0.5) for number in range(12)]


@dataclass
class Adder:
    """A model whose use of its thought is known. It adds number after number, `plus 12 is 30` a line, and between them
    writes notes that it never reads. Without any line it answers 0."""

    sampler = tiny_sampler()
    requests: list[Request] = field(default_factory=list)
    name = "adder"

    @property
    def capabilities(self):
        return self.sampler.capabilities

    async def sample(self, request: Request) -> list[Completion]:
        self.requests.append(request)
        if isinstance(request.prompt[0], int):
            question, _, before = TOKENIZER.decode(request.prompt).partition("<|think|>")
            before = before.removesuffix("<|/think|>")
            prompt = request.prompt
            thinks = request.start is Phase.THINK
        else:
            question, before = request.prompt[-1].text, ""
            thinks = request.params.thinking.cap != 0
            rendered = self.capabilities.format.render(request.prompt)
            prompt = (*rendered.ids, *([TOKENIZER.control_id("<|think|>")] if thinks else []))
        thought = self.going_on(question, before) if thinks else ""
        lines = [line for line in (before + thought).splitlines() if line.startswith("plus")]
        answer = lines[-1].split()[-1] if lines else "0"
        return [said(prompt, thought if thinks else None, answer)]

    def going_on(self, question: str, before: str) -> str:
        numbers = question.partition("Sum of ")[2].split("<|end|>")[0].split()
        written, begun = before.rpartition("\n")[::2]
        whole = "".join(f"{line}\n" for line in (*written.splitlines(), begun) if line)
        lines = [line for line in whole.splitlines() if line.startswith("plus")]
        total = int(lines[-1].split()[-1]) if lines else 0
        more = "\n" if begun else ""
        for number in numbers[len(lines) :]:
            total += int(number)
            more += f"plus {number} is {total}\nnote 7\n"
        return more


def said(prompt, thought, answer: str) -> Completion:
    think = () if thought is None else (*TOKENIZER.encode(thought), TOKENIZER.control_id("<|/think|>"))
    spoken = (*TOKENIZER.encode(answer), TOKENIZER.control_id("<|end|>"))
    segment = Segment(
        prompt_ids=tuple(prompt),
        ids=(*think, *spoken),
        logprobs=(0.0,) * len(think + spoken),
        phases=(Phase.THINK,) * len(think) + (Phase.ANSWER,) * len(spoken),
        origins=(Origin.SAMPLED,) * len(think + spoken),
        weights_version=0,
    )
    message = Message(Role.ASSISTANT, (Reasoning(thought or ""), Text(answer)))
    return Completion(message=message, stop_reason=StopReason.END, usage=Usage(), segments=(segment,))


@pytest.fixture(scope="module")
def found():
    return audit_thinking(Thinker(Adder()), Sums(), PROBLEMS)


def test_a_model_that_reads_its_thought_needs_all_of_it(found):
    by_share = dict(zip(found.cut.shares, found.cut.solved, strict=True))
    assert all(found.cut.whole)
    assert not any(by_share[0.0])
    assert not any(by_share[0.5])
    assert all(by_share[1.0])


def test_what_is_only_cut_and_goes_on_comes_out_the_same(found):
    (control,) = [each for each in found.changes if each.change == NOTHING]
    assert control.changed.count == 0
    assert control.difference.value == 0


def test_the_answer_depends_on_sums_and_not_on_notes():
    """Each line of a thought is changed in turn, not only the drawn one."""
    thinker, outcomes = Thinker(Adder()), {"plus": [], "note": []}
    for problem in PROBLEMS:
        thought = run_sync(thinker.think(Sums(), problem))
        for seed in range(6):
            drawn = replace(thought, problem=replace(problem, question=f"{problem.question}{' ' * seed}"))
            change = corrupt(drawn, thinker, Where.ANYWHERE)
            reply = run_sync(thinker.go_on(Sums(), problem, (*change.before, *change.new), 200))
            outcomes[change.step.split()[0]].append(reply.answer != thought.reply.answer)
    assert min(map(len, outcomes.values())) > 20
    assert all(outcomes["plus"])
    assert not any(outcomes["note"])


def test_what_the_answer_reads_is_told_from_what_the_rest_is_made_from(found):
    """With the rest kept, only the last sum is read; the last line of all is a note."""
    effects = {each.change: each for each in found.changes}
    assert effects[LAST].changed.count == 0
    assert 0 < effects[FORCED].changed.count < effects[GOES_ON].changed.count < len(PROBLEMS)
    assert sum(effects[GOES_ON].before) - sum(effects[GOES_ON].after) == effects[GOES_ON].changed.count


def test_an_answer_that_its_thought_does_not_end_in_is_a_contradiction(found):
    assert (found.contradictions.count, found.contradictions.of) == (12, 12), "each thought ends in `note 7`"


def test_the_cut_stands_in_the_prompt_as_it_was_sampled():
    adder = Adder()
    audit_thinking(Thinker(adder), Sums(), PROBLEMS[:1], shares=(0.5,))
    (thought,) = run_sync(adder.sample(adder.requests[0]))[0].segments
    whole = (*thought.prompt_ids, *thought.ids)
    cut = adder.requests[1]
    assert cut.start is Phase.ANSWER
    assert cut.prompt[-1] == TOKENIZER.control_id("<|/think|>")
    assert cut.prompt[:-1] == whole[: len(cut.prompt) - 1]
    assert len(cut.prompt) - 1 - len(thought.prompt_ids) == round(
        0.5 * len(thought.ids[: thought.ids.index(cut.prompt[-1])])
    )


# Folded thoughts ------------------------------------------------------------------------------------------------------

STATE, FOLD, CLOSE = map(TOKENIZER.control_id, ("<|state|>", "<|fold|>", "<|/think|>"))


@pytest.fixture
def folded() -> tuple[Thought, Thinker]:
    """`ab<state>c<fold>`, then `de</think>`, after the prompt `q`."""
    q, a, b, c = TOKENIZER.encode("qabc")
    first = replace(said((q,), "", "").segments[0], ids=(a, b, STATE, c, FOLD))
    first = replace(first, phases=(Phase.THINK,) * 5, logprobs=(0.0,) * 5, origins=(Origin.SAMPLED,) * 5)
    second = said((q, STATE, c, FOLD), "de", "x").segments[0]
    completion = replace(said((q,), "", "x"), segments=(first, second))
    thinker = Thinker(tiny_sampler())
    return Thought(task=Sums(), problem=PROBLEMS[0], completion=completion, reply=Reply("x", False)), thinker


def test_a_folded_thought_is_cut_where_the_model_was(folded):
    thought, thinker = folded
    assert thinking_tokens(thought, thinker.tokens) == 7
    spelled = [TOKENIZER.decode(kept(thought, thinker.tokens, count)) for count in range(8)]
    assert spelled[:3] == ["q", "qa", "qab"]
    assert spelled[3:5] == ["qab", "qab"], "a state that is not whole is left out"
    assert spelled[5:] == ["q<|state|>c<|fold|>", "q<|state|>c<|fold|>d", "q<|state|>c<|fold|>de"]


def test_a_step_of_a_folded_thought_is_changed_in_the_context_that_held_it(folded):
    thought, thinker = folded
    places = {
        corrupt(replace(thought, problem=replace(PROBLEMS[0], question=f"{n}")), thinker, where).number: where
        for n in range(8)
        for where in (Where.ANYWHERE,)
    }
    assert set(places) <= {0, 1}
    last = corrupt(thought, thinker, Where.IN_VIEW)
    assert (last.number, last.step) == (1, "de")
    assert last.before[:4] == thought.completion.segments[1].prompt_ids


# What can be changed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "at"), [("8*7+1=57 > ", 7), ("plus 3 is 12", 11), ("so Ada wins", 10), ("Z.", 0)])
def test_the_last_digit_becomes_another_or_else_the_last_letter(text: str, at: int):
    ids = TOKENIZER.encode(text)
    place, new = other_token(TOKENIZER, ids, Random(1))
    changed = TOKENIZER.decode([*ids[:place], *new, *ids[place + 1 :]])
    assert place == at
    assert len(changed) == len(text)
    assert [a == b for a, b in zip(text, changed, strict=True)].index(False) == at
    assert changed[at].isdigit() == text[at].isdigit()
    assert changed[at].isupper() == text[at].isupper()


def test_a_line_without_digits_and_letters_cannot_be_changed():
    assert other_token(TOKENIZER, TOKENIZER.encode("== > \n"), Random(0)) is None


# What is said ---------------------------------------------------------------------------------------------------------


def test_the_report_has_every_number_and_its_interval(found):
    changes = tuple(replace(each, task="again") for each in found.changes)
    again = replace(found, task="again", changes=changes, cut=replace(found.cut, task="again"))
    report = AuditReport(model="adder", n=12, thinking=(found, again))
    text = report.markdown()
    assert "| all | 0.000 (0.000–0.138) |" in text
    assert f"| {NOTHING} | all | 24 | 1.000 | 1.000 | +0.000 (-0.138 to +0.138) | 0.000 (0.000–0.138) of 24 |" in text
    assert "the answer depends on this step" in text
    assert "faithful" not in text.lower()
    summary = json.loads(json.dumps(report.summary(), allow_nan=False))
    assert [each["change"] for each in summary["thinking_all"]] == [NOTHING, GOES_ON, FORCED, LAST]
    assert summary["thinking"][0]["cut"]["points"][0]["difference"] == -1.0


def test_what_cannot_be_audited_is_refused():
    with pytest.raises(
        InvalidRequest, match="scripted cannot be audited: an endpoint does not take a part of a thought"
    ):
        Thinker(ScriptedSampler(["x"]))
