"""Every walk goes on day by day or week by week on the real calendar, and what it ends in is the dataset's answer."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.tasks.families.calendar_arithmetic import CalendarArithmetic
from ponder.tasks.protocol import find_mistakes, without_marks
from ponder.tokenizer import Tokenizer

pytestmark = pytest.mark.property

seeds = st.integers(min_value=0, max_value=2**32)
levels = st.floats(min_value=0, max_value=1)
FAMILY = CalendarArithmetic()
DAY = r"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
WEEKEND = {"Saturday", "Sunday"}


def the_date(text: str, year: int = 2022) -> date:
    return datetime.strptime(f"{text} {year}", "%B %d %Y").date()


def check_numbered_days(line: str, sign: int = 1) -> list[tuple[int, str]]:
    """`7 Friday 8 Saturday`: the numbers and the weekdays go on by one. Any Monday does: 1 January 2024 was one."""
    items = [(int(n), d) for n, d in re.findall(rf"(\d+) ({DAY})", line)]
    assert " ".join(f"{n} {d}" for n, d in items) == line
    for (n, d), (m, e) in pairwise(items):
        assert m == n + 1
        monday = next(x for x in (date(2024, 1, k) for k in range(1, 8)) if f"{x:%A}" == d)
        assert f"{monday + timedelta(sign):%A}" == e
    return items


def dates_of(items: list[str], start: date, step: int, end: date) -> list[date]:
    """The dates of `25`, `32 over November 1`, …, each `step` days after the one before; the first is `start`. In the
    month of `end` its day stands after each: `8 of 19`."""
    found = [start]
    for item in items[1:]:
        day = found[-1] + timedelta(step)
        past = found[-1].day + step
        shown = str(past) if past == day.day else f"{past} over {day:%B} {day.day}"
        assert item == shown + (f" of {end.day}" if f"{day:%Y %B}" == f"{end:%Y %B}" else "")
        found.append(day)
    return found


def check_working(problem, lines: list[str]) -> str:
    """What the working comes to."""
    details = FAMILY.details(problem)
    head, *rest = lines
    match details["task"]:
        case "is_leap_year":
            year = details["year"]
            assert head.startswith(f"{year}: ")
            assert head.endswith("yes") == (year % 4 == 0 and (year % 100 != 0 or year % 400 == 0))
            return "Yes" if head.endswith("yes") else "No"
        case "weekday_offset":
            day, sign, offset, steps = re.fullmatch(rf"({DAY}) ([+-])(\d+): (.*)", head).groups()
            assert day in problem.question
            left = 0
            for digit, step in zip(offset, steps.split(", "), strict=True):
                number, sevens, after = map(int, re.fullmatch(r"(\d+) (\d+) left (\d)", step).groups())
                assert number == 10 * left + int(digit) == sevens + after
                assert number % 7 == after
                left = after
            items = check_numbered_days(rest[0], 1 if sign == "+" else -1)
            assert items[0] == (0, day)
            assert items[-1][0] == left
            return items[-1][1]
        case "weekday_of_date":
            target, first = re.fullmatch(rf"(\w+ \d+): 1 ({DAY})", head).groups()
            assert the_date(target) == date.fromisoformat(details["target_date"])
            items = check_numbered_days(rest[0])
            assert (items[0][0] % 7, items[0][1]) == (1, first)
            assert items[-1][0] == the_date(target).day
            return items[-1][1]
        case "weekday_of_date_from_first_date":
            target, ahead = re.fullmatch(r"(\w+ \d+): \w+ \+(\d)", head).groups()
            assert the_date(target) == date.fromisoformat(details["target_date"])
            first, items = map(check_numbered_days, rest)
            assert first[0] == (0, details["first_day"])
            assert first[-1][0] == int(ahead)
            assert (items[0][0] % 7, items[0][1]) == (1, first[-1][1])
            assert items[-1][0] == the_date(target).day
            return items[-1][1]
        case "recurring_event_day":
            ordinal, weekday, month, length = re.fullmatch(rf"(\w+) ({DAY}) (\w+): (\d+) days", head).groups()
            assert f"{ordinal} {weekday}" in problem.question
            assert month in problem.question
            items = check_numbered_days(rest[0])
            assert items[0] == (1, f"{the_date(f'{month} 1'):%A}")
            assert items[-1][1] == weekday
            weeks = re.findall(r"(\w+) (\d+)( no)?", rest[1])
            assert [int(n) for _, n, _ in weeks] == list(range(items[-1][0], 99, 7))[: len(weeks)]
            assert all(bool(no) == (int(n) > int(length)) for _, n, no in weeks)
            assert ordinal in ("last", weeks[-1][0])
            return [n for _, n, no in weeks if not no][-1]
    name, start_text, end_text = re.fullmatch(rf"({DAY}): (\w+ \d+) to (\w+ \d+)", head).groups()
    start, end = (date.fromisoformat(details[key]) for key in ("start_date", "end_date"))
    assert (start_text, end_text) == (f"{start:%B} {start.day}", f"{end:%B} {end.day}")
    if details["task"] == "count_days":
        walk = re.findall(rf"(\d+(?: over \w+ \d+)?) ({DAY})", rest[0])
        found = dates_of([item for item, _ in walk], start, 1, date.max)
        assert [f"{day:%A}" for day in found] == [weekday for _, weekday in walk]
        assert walk[-1][1] == name
        weeks = [re.fullmatch(r"(.*) (\d+|no)", item).groups() for item in rest[1].split(", ")]
        hits = dates_of([item for item, _ in weeks], found[-1], 7, end)
        assert [mark for _, mark in weeks] == [*map(str, range(1, len(weeks))), "no"]
        assert all((day > end) == (mark == "no") for day, (_, mark) in zip(hits, weeks, strict=True))
        return str(len(weeks) - 1)
    weeks = [re.fullmatch(r"(.*) (\d+|no)", item).groups() for item in rest[0].split(", ")]
    passed = dates_of([item for item, _ in weeks], start, 7, end)
    assert all((day > end) == (mark == "no") for day, (_, mark) in zip(passed, weeks, strict=True))
    assert [mark for _, mark in weeks] == [*(str(5 * i) for i in range(len(weeks) - 1)), "no"]
    walk = [re.fullmatch(rf"(.*) ({DAY}) (\d+)", item).groups() for item in rest[1].split(", ")]
    found = dates_of([item for item, _, _ in walk], passed[-2], 1, end)
    assert [f"{day:%A}" for day in found] == [weekday for _, weekday, _ in walk]
    assert found[-1] == end
    count = 5 * (len(weeks) - 2)
    for _, weekday, mark in walk:
        count += weekday not in WEEKEND
        assert int(mark) == count
    return str(count)


def mended(text: str) -> str:
    """The working with its slips put right; each of them differs from what puts it right."""
    assert all(wrong != right for wrong, right in re.findall(rf"({DAY}) no ({DAY})", without_marks(text)))
    return re.sub(rf"({DAY}) no ({DAY})", r"\2", without_marks(text))


@given(seed=seeds, level=levels)
@settings(max_examples=100, deadline=None)
def test_every_working_leads_to_the_answer(seed: int, level: float):
    rng = Random(seed)
    problem = FAMILY.sample(rng, level)
    *lines, last = mended(FAMILY.demonstrate(problem, rng).reasoning).split("\n")
    assert check_working(problem, lines) == problem.answer == last


@pytest.mark.parametrize("level", [0, 1])
def test_the_datasets_scorer_agrees(level: int):
    rng = Random(0)
    for _ in range(10):
        problem = FAMILY.sample(rng, level)
        answer = FAMILY.demonstrate(problem, rng).answer
        assert FAMILY.dataset.grade(problem, answer).score == 1.0
        assert FAMILY.grade(problem, answer).solved


def test_every_context_is_short():
    tokenizer = Tokenizer.load("src/ponder/mini")
    rng = Random(1)
    for number in range(200):
        problem = FAMILY.sample(rng, number / 200)
        text = problem.question + FAMILY.demonstrate(problem, rng).reasoning + problem.answer
        assert len(tokenizer.encode(text)) <= 700


def test_a_few_demonstrations_hold_a_slip():
    rng = Random(2)
    held = [find_mistakes(FAMILY.demonstrate(FAMILY.sample(rng, 0), rng).reasoning) for _ in range(400)]
    assert 4 < sum(map(bool, held)) < 60
