"""Dates and weekdays by walking: day by day for less than a week, week by week for more.

Known by heart are the lengths of the months and the weekdays of their firsts in the dataset's year, 2022. A day past a
month's end is put right at once: `25, 32 over November 1`. In the month where the count ends its last day stands beside
each: `16 of 19 2, 23 of 19 no`.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from random import Random
from typing import Any

from ponder.tasks.families.working.family import FromGym
from ponder.tasks.families.working.slips import noticed_slip
from ponder.tasks.protocol import Demonstration, Problem

YEAR = 2022
DAYS = list(calendar.day_name)
MONTHS = list(calendar.month_name)
ORDINALS = ("first", "second", "third", "fourth", "fifth")
HARD = {
    "tasks": ["weekday_of_date", "is_leap_year", "weekday_offset", "count_days", "count_business_days"],
    "offset_upper_bound": 200,
}


class CalendarArithmetic(FromGym):
    """All seven kinds of question over up to 100 days below a level of a half; above, five of them over up to 200."""

    name = gym_name = "calendar_arithmetic"
    configs = ({}, HARD)
    default_level = 0.49

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        details = self.details(problem)
        head, *lines = WORKINGS[details["task"]](details, problem.question)
        walks = [noticed_slip(line, "|".join(DAYS), DAYS, rng) for line in lines]
        return Demonstration(reasoning="\n".join([head, *walks, problem.answer]), answer=problem.answer)


def weekday_offset(details: dict[str, Any], question: str) -> list[str]:
    """The offset modulo seven, digit by digit from the front (`26 21 left 5`), then that many days on or back."""
    start, offset = date.fromisoformat(details["start_date"]), details["offset_days"]
    steps, left = [], 0
    for digit in str(abs(offset)):
        number = 10 * left + int(digit)
        left = number % 7
        steps.append(f"{number} {number - left} left {left}")
    sign = 1 if offset > 0 else -1
    head = f"{day_name(start)} {'+' if offset > 0 else '-'}{abs(offset)}: {', '.join(steps)}"
    return [head, counted(start.weekday(), range(left + 1), sign)]


def weekday_of_date(details: dict[str, Any], question: str) -> list[str]:
    target = date.fromisoformat(details["target_date"])
    first = target.replace(day=1).weekday()
    return [f"{month_day(target)}: 1 {DAYS[first]}", within_month(target.day, first)]


def weekday_from_first(details: dict[str, Any], question: str) -> list[str]:
    """From January's first to the month's, by what the months before leave over whole weeks; then within the month."""
    target, start = date.fromisoformat(details["target_date"]), DAYS.index(details["first_day"])
    ahead = (target.replace(day=1) - date(target.year, 1, 1)).days % 7
    return [
        f"{month_day(target)}: {MONTHS[target.month]} +{ahead}",
        counted(start, range(ahead + 1)),
        within_month(target.day, (start + ahead) % 7),
    ]


def recurring_event(details: dict[str, Any], question: str) -> list[str]:
    """From the month's first to the first such weekday, then week by week."""
    month, wanted = details["month"], DAYS.index(details["weekday"])
    first, length = calendar.monthrange(YEAR, month)
    day = 1 + (wanted - first) % 7
    last = 5 if details["ordinal"] == "last" else ORDINALS.index(details["ordinal"]) + 1
    weeks = [f"{ordinal} {day + 7 * i}" for i, ordinal in enumerate(ORDINALS[:last])]
    if day + 7 * (last - 1) > length:
        weeks[-1] += " no"
    return [
        f"{details['ordinal']} {details['weekday']} {MONTHS[month]}: {length} days",
        counted(first, range(1, day + 1)),
        " ".join(weeks),
    ]


def count_days(details: dict[str, Any], question: str) -> list[str]:
    """From the start to the first such weekday, then week by week, each hit numbered."""
    start, end = (date.fromisoformat(details[key]) for key in ("start_date", "end_date"))
    wanted = asked_weekday(question)
    first = start + timedelta((DAYS.index(wanted) - start.weekday()) % 7)
    walk = [f"{shown} {day_name(day)}" for day, shown in days(start, first, 1)]
    weeks = []
    for number, (day, shown) in enumerate(days(first, end + timedelta(7), 7), 1):
        shown = month_day(day) if number == 1 else shown
        weeks.append(f"{shown}{last_day(day, end)} {number if day <= end else 'no'}")
    return [f"{wanted}: {month_day(start)} to {month_day(end)}", " ".join(walk), ", ".join(weeks)]


def count_business_days(details: dict[str, Any], question: str) -> list[str]:
    """Week by week, five each, as far as whole weeks go; then day by day to the end."""
    start, end = (date.fromisoformat(details[key]) for key in ("start_date", "end_date"))
    weeks, anchor, count = [], start, 0
    for number, (day, shown) in enumerate(days(start, end + timedelta(7), 7)):
        shown = shown if number else month_day(day)
        weeks.append(f"{shown}{last_day(day, end)} {5 * number if day <= end else 'no'}")
        if day <= end:
            anchor, count = day, 5 * number
    walk = []
    for day, shown in days(anchor, end, 1):
        count += day.weekday() < 5
        walk.append(f"{shown}{last_day(day, end)} {day_name(day)} {count}")
    return [f"{day_name(start)}: {month_day(start)} to {month_day(end)}", ", ".join(weeks), ", ".join(walk)]


def is_leap_year(details: dict[str, Any], question: str) -> list[str]:
    """By the last two digits; a century by the first two."""
    year = str(details["year"])
    if year.endswith("00"):
        return [f"{year}: 00, {year[:2]} by 4 {'yes' if int(year) % 400 == 0 else 'no'}"]
    parity = "odd" if int(year[2]) % 2 else "even"
    return [f"{year}: {year[2]} {parity} {year[3]} {'yes' if int(year) % 4 == 0 else 'no'}"]


WORKINGS: dict[str, Callable[[dict[str, Any], str], list[str]]] = {
    "weekday_offset": weekday_offset,
    "weekday_of_date": weekday_of_date,
    "weekday_of_date_from_first_date": weekday_from_first,
    "recurring_event_day": recurring_event,
    "count_days": count_days,
    "count_business_days": count_business_days,
    "is_leap_year": is_leap_year,
}


def counted(weekday: int, numbers: range, sign: int = 1) -> str:
    """Weekdays one after the other, numbered: `0 Monday 1 Tuesday`."""
    return " ".join(f"{number} {DAYS[(weekday + sign * i) % 7]}" for i, number in enumerate(numbers))


def within_month(day: int, first: int) -> str:
    """From the last day before that falls on the weekday of the month's first, to the day."""
    return counted(first, range(day - (day - 1) % 7, day + 1))


def days(start: date, end: date, step: int) -> Iterator[tuple[date, str]]:
    """Every `step`-th day from `start`, none past `end`, as it is written: its number, or where a month ended, more."""
    day, shown = start, str(start.day)
    while day <= end:
        yield day, shown
        past, day = day.day + step, day + timedelta(step)
        shown = str(day.day) if day.day == past else f"{past} over {month_day(day)}"


def last_day(day: date, end: date) -> str:
    """In the end's month, the day that is the last to count, so that the two stand side by side."""
    return f" of {end.day}" if (day.year, day.month) == (end.year, end.month) else ""


def asked_weekday(question: str) -> str:
    """The weekday whose occurrences are counted: the one that no date follows."""
    (found,) = set(re.findall(rf"({'|'.join(DAYS)})(?:s are| from| occur)", question))
    return str(found)


def month_day(day: date) -> str:
    return f"{MONTHS[day.month]} {day.day}"


def day_name(day: date) -> str:
    return DAYS[day.weekday()]
