"""Ranking answers: blind and in random order, resumed where it stopped, and in the form that training reads."""

import io
import json
from pathlib import Path

import pytest

from ponder.cli.main import main
from ponder.dialogue import Message
from ponder.evaluate.rank import AnswerFile, AnswerSet, Session, make_answers, parse_ranks
from ponder.evaluate.raters import self_agreement
from ponder.testing.scripted import ScriptedSampler
from ponder.think import Reasoner
from ponder.train.data.preferences import read_rankings
from ponder.types import DataError, InvalidRequest


def sets(count: int, answers: int = 3) -> list[AnswerSet]:
    return [
        AnswerSet(
            (Message.user(f"{n}?"),),
            tuple(Message.assistant(f"{n}{letter}", "hidden") for letter in "xyz"[:answers]),
            ("direct",) * answers,
        )
        for n in range(count)
    ]


def by_text(session: Session, order: tuple[int, ...], number: int) -> list[int]:
    """A person who likes x best and z least, in the order shown."""
    texts = [session.sets[number].answers[place].text[-1] for place in order]
    return [sorted(texts).index(text) + 1 for text in texts]


def test_letters_name_the_best_first_and_ties_and_what_was_not_judged() -> None:
    assert parse_ranks("b a=c", 4) == [2, 1, 2, None]
    assert parse_ranks(" B > a , d = c ", 4) == [2, 1, 3, 3]
    for text in ("", "a", "a a", "a e", "ab", "1 2"):
        with pytest.raises(InvalidRequest):
            parse_ranks(text, 4)


def test_a_session_shows_each_set_and_now_and_then_one_again_in_another_order(tmp_path: Path) -> None:
    path = tmp_path / "judged.jsonl"
    seen, orders = [], {}
    while True:
        session = Session(path, sets(8), rater="ann", repeat=0.5)  # taken up again each time
        shown = session.next()
        if shown is None:
            break
        if shown.repeat:
            assert shown.order != orders[shown.number]
        orders.setdefault(shown.number, shown.order)
        seen.append((shown.number, shown.repeat))
        assert session.left == 12 - len(seen) + 1
        session.add(shown, by_text(session, shown.order, shown.number), "because" if shown.number == 3 else "")
    assert [number for number, repeat in seen if not repeat] == [*range(8)]
    assert [place for place, (_, repeat) in enumerate(seen) if repeat] == [2, 5, 8, 11]  # after every second one
    assert len({number for number, repeat in seen if repeat}) == 4
    assert len(set(orders.values())) > 1
    assert self_agreement(session.records) == (1.0, 12)
    judged = [ranking for _, ranking in read_rankings(path)]
    third = [each for each in judged if each.prompt == (Message.user("3?"),)]
    assert all(each.ranks == (1, 2, 3) and each.rater == "ann" for each in judged)
    assert third[0].reason == "because"
    assert third[0].answers[0] == (Message.assistant("3x", "hidden"),)
    assert Session(path, sets(8), rater="bob").next() is not None  # another person has judged nothing


def test_who_turns_around_does_not_agree_and_a_skip_compares_nothing(tmp_path: Path) -> None:
    session = Session(tmp_path / "judged.jsonl", sets(2), rater="ann", repeat=1.0)
    for left in (4, 3, 2):
        assert session.left == left
        shown = session.next()
        assert shown is not None
        ranks = by_text(session, shown.order, shown.number)
        session.add(shown, [None] * 3 if shown.number else [4 - rank for rank in ranks] if shown.repeat else ranks)
    assert self_agreement(session.records) == (0.0, 3)
    assert (session.next(), session.left) == (None, 0)  # what was skipped is not shown again


def test_a_line_that_a_crash_cut_off_is_judged_again(tmp_path: Path) -> None:
    path = tmp_path / "judged.jsonl"
    session = Session(path, sets(2), rater="ann", repeat=0)
    shown = session.next()
    assert shown is not None
    session.add(shown, [1, 2, 3])
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])
    assert Session(path, sets(2), rater="ann", repeat=0).left == 1
    assert path.read_bytes() == whole
    path.write_text("[]\n")
    with pytest.raises(DataError, match=r"judged\.jsonl:1"):
        Session(path, sets(2), rater="ann")


def test_answers_are_made_in_several_ways_and_equal_ones_are_one(tmp_path: Path) -> None:
    reasoner = Reasoner(ScriptedSampler(["one", "two", "one", " "]))
    made = make_answers(reasoner, [Message.user("q")], 4, temperatures=(0.5, 1.0))
    assert [each.text for each in made.answers] == ["one", "two"]
    assert [how.split(", seed")[0] for how in made.made] == ["direct, temperature 0.5", "direct, temperature 1"]
    file = AnswerFile(tmp_path / "a.jsonl")
    file.add(made)
    again = AnswerFile(tmp_path / "a.jsonl")
    assert again.sets == [made]
    assert again.holds([Message.user("q")])
    assert not again.holds([Message.user("r")])


def test_the_verb_makes_answers_takes_letters_and_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts, output = tmp_path / "prompts.txt", tmp_path / "judged.jsonl"
    prompts.write_text("first?\nsecond?\n")
    answers = AnswerFile(tmp_path / "judged.answers.jsonl")
    for each in sets(2):
        answers.add(
            AnswerSet(
                (Message.user("first?" if each.answers[0].text[0] == "0" else "second?"),), *(each.answers, each.made)
            )
        )
    command = ["rank", str(prompts), "-o", str(output), "--rater", "ann", "--repeat", "0"]
    monkeypatch.setattr("sys.stdin", io.StringIO("b e\nb a=c # clearer\nq\n"))
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "'e' is not an answer" in said
    assert "1 judgements, 1 sets left for ann" in said
    assert "temperature" not in said  # blind
    monkeypatch.setattr("sys.stdin", io.StringIO("s\n"))
    assert main([*command, "--pairs", str(tmp_path / "pairs.jsonl")]) == 0
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert sorted(records[0]["ranks"]) == [1, 2, 2]
    assert (records[0]["reason"], records[1]["ranks"]) == ("clearer", [None] * 3)
    pairs = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert [set(pair) for pair in pairs] == [{"prompt", "chosen", "rejected"}] * 2
