"""Judgements of answers: what each kind is read as, what is refused by file and line, and what TRL reads of it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.dialogue import Message, Reasoning, Role, Text
from ponder.train.data.preferences import (
    Labelled,
    Ranking,
    Stepwise,
    fault_of,
    is_held_out,
    judgement_from,
    ranking_record,
    read_judgements,
    read_labelled,
    read_rankings,
    read_stepwise,
    trl_pairs,
)
from ponder.types import DataError, FormatError

ASKED = (Message.user("q"),)
GOOD, BAD = (Message.assistant("a"),), (Message.assistant("b"),)
PAIR = Ranking(prompt=ASKED, answers=(GOOD, BAD), ranks=(1, 2))


def says(role: str, content: str, **more: object) -> dict[str, object]:
    return {"role": role, "content": content, **more}


USER, A, B = says("user", "q"), says("assistant", "a"), says("assistant", "b")

PAIRS: Mapping[str, dict[str, object]] = {
    "strings": {"prompt": "q", "chosen": "a", "rejected": "b"},
    "messages": {"prompt": [USER], "chosen": [A], "rejected": [B]},
    "an implicit prompt": {"chosen": [USER, A], "rejected": [USER, B]},
    "answers that repeat the prompt": {"prompt": "q", "chosen": [USER, A], "rejected": [USER, B]},
    "the chosen side again as messages": {
        "prompt": "q",
        "messages": [USER, A],
        "chosen": [USER, A],
        "rejected": [USER, B],
        "score_chosen": 9.0,
    },
    "ShareGPT": {
        "conversations": [{"from": "human", "value": "q"}],
        "chosen": {"from": "gpt", "value": "a"},
        "rejected": {"from": "gpt", "value": "b"},
    },
    "Alpaca": {"instruction": "q", "input": "", "chosen": "a", "rejected": "b"},
    "hh-rlhf": {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
    "a ranking of two": {"prompt": "q", "completions": ["a", "b"], "ranks": [1, 2]},
}


@pytest.mark.parametrize("record", PAIRS.values(), ids=PAIRS)
def test_each_kind_of_record_is_the_same_pair(record: dict[str, object]) -> None:
    assert judgement_from(record) == PAIR


def test_a_ranking_has_ties_answers_that_were_not_judged_and_what_is_said_about_it() -> None:
    record = {"prompt": "q", "completions": ["a", "b", "c", "d"], "ranks": [2, 1, None, 2]}
    made = judgement_from(record | {"margin": 0.5, "weight": 2, "rater": "ann", "reason": "shorter"})
    assert isinstance(made, Ranking)
    assert (made.ranks, made.margin, made.weight, made.rater, made.reason) == (
        (2, 1, None, 2),
        0.5,
        2,
        "ann",
        "shorter",
    )
    assert made.pairs() == [(1, 0), (1, 3)]
    assert judgement_from(ranking_record(made)) == made


def test_thinking_is_kept_on_each_side_that_has_it() -> None:
    for thoughtful in (says("assistant", "a", reasoning_content="t"), says("assistant", "<think>t</think>a")):
        made = judgement_from({"chosen": [USER, thoughtful], "rejected": [USER, B]})
        thought = Message(Role.ASSISTANT, (Reasoning("t"), Text("a")))
        assert made == Ranking(prompt=ASKED, answers=((thought,), BAD), ranks=(1, 2))


def test_what_two_conversations_have_in_common_ends_before_an_answer() -> None:
    other = says("user", "again")
    made = judgement_from({"chosen": [USER, A, other, A], "rejected": [USER, A, other, B]})
    assert isinstance(made, Ranking)
    assert made.prompt == (*ASKED, *GOOD, Message.user("again"))
    assert made.answers == (GOOD, BAD)
    made = judgement_from({"chosen": [USER, A, other, A], "rejected": [USER, B, other, A]})
    assert isinstance(made, Ranking)
    assert (made.prompt, [len(answer) for answer in made.answers]) == (ASKED, [3, 3])


word = st.text("ab ", min_size=1, max_size=3).filter(str.strip)


@given(st.lists(word, min_size=3, max_size=5), st.lists(word, min_size=3, max_size=5))
def test_prompt_and_answer_are_the_original_for_any_pair(one: list[str], other: list[str]) -> None:
    sides = [
        [says("user" if i % 2 == 0 else "assistant", t) for i, t in enumerate(s[: len(s) // 2 * 2])]
        for s in (one, other)
    ]
    try:
        made = judgement_from({"chosen": sides[0], "rejected": sides[1]})
    except FormatError:
        assert one[0] != other[0]
        return
    assert isinstance(made, Ranking)
    for side, answer in zip(sides, made.answers, strict=True):
        assert [m.text for m in (*made.prompt, *answer)] == [m["content"] for m in side]


def test_labels_and_steps() -> None:
    assert judgement_from({"prompt": "q", "completion": "a", "label": False}) == Labelled(
        prompt=ASKED, answer=GOOD, good=False
    )
    made = judgement_from({"prompt": "q", "completions": ["s", "t", "u"], "labels": [True, 0.25, None], "answer": "a"})
    assert made == Stepwise(prompt=ASKED, steps=("s", "t", "u"), labels=(1.0, 0.25, None), answer="a")


REFUSED: Sequence[tuple[dict[str, object], str]] = [
    ({"chosen": "Paris ", "rejected": "London"}, 'must have a "prompt"'),
    ({"chosen": [USER, A], "rejected": [says("user", "r"), B]}, "do not begin with the same"),
    ({"prompt": "q", "completions": ["a"], "ranks": [1]}, "at least 2 completions"),
    ({"prompt": "q", "completions": ["a", "b"], "ranks": [1]}, "lists of one length"),
    ({"prompt": "q", "completions": ["a", "b"], "ranks": [0, 1]}, "from 1 on"),
    ({"prompt": "q", "completions": ["a", "b"], "ranks": [True, 2]}, "whole number"),
    ({"completions": ["a", "b"], "ranks": [1, 2]}, 'must have a "prompt"'),
    ({"prompt": "q", "chosen": [says("user", "x")], "rejected": "b"}, "begin and end with a message of the assistant"),
    ({"prompt": [USER, A], "chosen": "a", "rejected": "b"}, "the prompt ends with"),
    ({"prompt": "q", "messages": [USER, B], "chosen": "a", "rejected": "b"}, "stands beside"),
    ({"prompt": "q", "chosen": "a", "rejected": "b", "weight": 0}, '"weight" must be above 0'),
    ({"prompt": "q", "chosen": "a", "rejected": "b", "margin": "big"}, '"margin" must be a number'),
    ({"prompt": "q", "chosen": [says("assistant", "a", weight=0)], "rejected": "b"}, "not read here"),
    ({"prompt": "q", "completion": "a", "label": 1}, "must be true or false"),
    ({"prompt": "q", "completions": ["a"], "labels": [2]}, "a share from 0 to 1"),
    ({"prompt": "q", "completions": ["a"], "labels": [True, False]}, "as long as"),
    ({"prompt": "q", "chosen": "a", "rejected": "b", "images": ["x"]}, "images"),
    ({"messages": [USER, A]}, "not a judgement"),
]


@pytest.mark.parametrize(("record", "words"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_not_a_judgement_is_refused_by_its_line(record: dict[str, object], words: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(PAIRS["strings"]) + "\n" + json.dumps(record) + "\n")
    with pytest.raises(DataError, match=words) as error:
        list(read_judgements(path))
    assert str(error.value).startswith(f"{path}:2: ")


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"prompt": "q", "completion": "a", "label": True}) + "\n")
    assert [judged.good for _, judged in read_labelled(path)] == [True]
    for read in (read_rankings, read_stepwise):
        with pytest.raises(DataError, match=r"x\.jsonl:1"):
            list(read(path))
    path.write_text(json.dumps(PAIRS["strings"]) + "\n")
    assert [(judged.answer, judged.good) for _, judged in read_labelled(path)] == [(GOOD, True), (BAD, False)]


def test_empty_and_equal_answers_are_faults() -> None:
    assert fault_of(PAIR) == ""
    for texts, why in ((["a", " "], "answer 2 is empty"), (["a", "b", "a"], "answers 1 and 3 are equal")):
        made = judgement_from({"prompt": "q", "completions": texts, "ranks": [*range(1, len(texts) + 1)]})
        assert fault_of(made) == why
    assert (
        fault_of(judgement_from({"prompt": "q", "completions": ["s", ""], "labels": [True, True]})) == "step 2 is empty"
    )


def test_all_judgements_of_a_prompt_are_on_one_side_of_the_split() -> None:
    prompts = [(Message.user(f"what is {n}?"),) for n in range(2000)]
    share = sum(is_held_out(prompt, 0.25) for prompt in prompts) / len(prompts)
    assert 0.2 < share < 0.3
    assert all(
        is_held_out(p, 0.25) == is_held_out((Message.user(f" what  is {n}? "),), 0.25) for n, p in enumerate(prompts)
    )
    assert not any(is_held_out(prompt, 0.0) for prompt in prompts)


def test_a_ranking_is_exported_as_the_pairs_that_trl_reads() -> None:
    made = judgement_from({"prompt": "q", "completions": ["a", "b", "c"], "ranks": [2, 1, 2], "margin": 1})
    assert isinstance(made, Ranking)
    pairs = trl_pairs(made)
    assert pairs == [
        {"prompt": [USER], "chosen": [B], "rejected": [A], "margin": 1.0},
        {"prompt": [USER], "chosen": [B], "rejected": [says("assistant", "c")], "margin": 1.0},
    ]
    back = [judgement_from(pair) for pair in pairs]
    assert all(isinstance(each, Ranking) and each.ranks == (1, 2) for each in back)
