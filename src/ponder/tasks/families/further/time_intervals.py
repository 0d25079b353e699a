"""The time between two moments: both in one notation and time zone, days month by month, and the clock's digits.

`07 31-29=2 2, 08 31 33, 09 2 35` counts the days from July 29 to September 2 with what they come to. Of the times the
lowest digit comes first; tens of minutes and of seconds borrow a 6: `1-0-0=1 0+6-5-0=1`.
"""

from __future__ import annotations

import calendar
from datetime import date, datetime
from random import Random

from ponder.tasks.families.calendar_arithmetic import is_leap_year
from ponder.tasks.families.working.comparing import verdicts
from ponder.tasks.families.working.family import FromGym
from ponder.tasks.families.working.slips import noticed_slip
from ponder.tasks.protocol import Demonstration, Grade, Problem

HARD = {"max_time_difference_seconds": 21600, "max_date_difference_days": 30}


class TimeIntervals(FromGym):
    """Up to 30 days and six hours (the hard config, though easier) below a level of a half, else the default config."""

    name = gym_name = "time_intervals"
    configs = (HARD, {})

    def teaches(self, problem: Problem) -> bool:
        """Not where the key is a thousandth of a second too small, or an end at midnight comes before its start."""
        return self.demonstrate(problem, Random(0)).answer == problem.answer

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        details = self.details(problem)
        start, end = (datetime.fromisoformat(details[key]) for key in ("start_time", "end_time"))
        form, kind = str(details["expected_format"]), str(details["task_type"])
        with_date, with_time = not kind.startswith("time"), kind != "date"
        lines = [" ".join(_noted(each, with_date, with_time)) for each in (start, end)]
        days, clocks = 0, [_clock(each, form.endswith("mmm")) for each in (start, end)]
        if start.tzinfo is not None:
            line, clocks[1], days = _in_zone_of(start, end, clocks[1])
            lines.append(line)
        if with_date:
            line, between = _days_between(start.date(), end.date())
            lines.append(line)
            days += between
        answer = f"{days} days"
        if with_time:
            steps, left, borrowed = _time_between(*clocks)
            lines += steps
            days -= borrowed
            shown = f"{left[:2]}:{left[2:4]}:{left[4:6]}"
            shown = f"{shown}.{left[6:]}" if left[6:] else shown if form.endswith("SS") else shown[:5]
            answer = f"{days} days, {shown}" if with_date else shown
        if with_date and with_time:
            lines.append(f"days {days}")
        text = noticed_slip("\n".join(lines), r"(?<==)\d(?= )", "0123456789", rng)
        return Demonstration(reasoning=text, answer=answer)

    def grade(self, problem: Problem, answer: str) -> Grade:
        return Grade(score=float(answer.split() == problem.answer.split()))


def _noted(moment: datetime, with_date: bool, with_time: bool) -> list[str]:
    """`2964-07-29`, `18:37:50` and `+03`, as far as they are given."""
    clock = moment.strftime("%H:%M:%S") + (f".{moment.microsecond // 1000:03d}" if moment.microsecond else "")
    zone = [] if moment.tzinfo is None else [f"{_hours_ahead(moment):+03d}"]
    return [*([moment.strftime("%Y-%m-%d")] if with_date else []), *([clock] if with_time else []), *zone]


def _hours_ahead(moment: datetime) -> int:
    offset = moment.utcoffset()
    assert offset is not None
    return round(offset.total_seconds()) // 3600


def _clock(moment: datetime, thousandths: bool) -> str:
    """The digits of the time of day."""
    return moment.strftime("%H%M%S") + (f"{moment.microsecond // 1000:03d}" if thousandths else "")


def _in_zone_of(start: datetime, end: datetime, clock: str) -> tuple[str, str, int]:
    """The line that moves the end into the start's zone, its digits there, and the days that it moves by."""
    ahead, other = _hours_ahead(start), _hours_ahead(end)
    hour = int(clock[:2])
    moved = hour + ahead - other
    line, days = f"zone {ahead}-{other}={ahead - other} {hour}+{ahead - other}={moved}", 0
    if not 0 <= moved < 24:
        days = 1 if moved > 0 else -1
        line += f" {moved}{-24 * days:+d}={moved - 24 * days} day {days}"
        moved -= 24 * days
    return line, f"{moved:02d}{clock[2:]}", days


def _days_between(start: date, end: date) -> tuple[str, int]:
    """The days from one date to a later one: what is left of the first month, whole months, days of the last."""
    if (start.year, start.month) == (end.year, end.month):
        return f"{start.month:02d} {end.day}-{start.day}={end.day - start.day}", end.day - start.day
    length = calendar.monthrange(start.year, start.month)[1]
    total = length - start.day
    months = [f"{start.month:02d} {length}-{start.day}={total} {total}"]
    year, month = start.year, start.month
    februaries = {year} if month == 2 else set[int]()
    while True:
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)
        last = (year, month) == (end.year, end.month)
        if month == 2 and not last:
            februaries.add(year)
        days = end.day if last else calendar.monthrange(year, month)[1]
        total += days
        months.append(f"{month:02d} {days} {total}")
        if last:
            leaps = "".join(f"{is_leap_year({'year': each}, '')[0]}, " for each in sorted(februaries))
            return leaps + ", ".join(months), total


def _time_between(start: str, end: str) -> tuple[list[str], str, int]:
    """The lines of a subtraction of times, the digits of the result, and how many days it borrows (0 or 1)."""
    compared = verdicts(end, start)
    lines, borrowed = [f"{end} {start}{compared}"], int(compared.endswith("<"))
    if borrowed:
        end = f"{int(end[:2]) + 24}{end[2:]}"
        lines.append(f"+24 {end} day -1")
    steps, result, borrow = [], "", 0
    for place in range(len(end) - 1, -1, -1):
        top, taken = int(end[place]), int(start[place])
        base = 0 if top >= taken + borrow else 6 if place in (2, 4) else 10
        digit = top + base - taken - borrow
        steps.append(f"{top}{f'+{base}' if base else ''}-{taken}-{borrow}={digit}")
        result, borrow = f"{digit}{result}", int(base > 0)
    lines.append(" ".join(steps))
    return lines, result, borrowed
