"""Schedules against an oracle that walks every minute of UTC, over clock changes of all kinds, in both directions."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from tasqueue.core import cron
from tasqueue.core.cron import Cron, Every, parse, tick_id
from tasqueue.errors import InvalidSchedule, TasqueueError

MINUTE = timedelta(minutes=1)
HOUR_MS = 3_600_000
LONG_AGO = -(10**15)


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def iso(at: int) -> str:
    return tick_id("", at)[1:]


def ticks(schedule: str, start: str, n: int) -> list[str]:
    """The first n ticks after `start`; `@every` is anchored there."""
    parsed, anchor = parse(schedule), ms(start)
    at, found = parsed.first(anchor), list[str]()
    for _ in range(n):
        found.append(iso(at))
        at = parsed.after(at, anchor)
    return found


# The oracle. It knows nothing of folds or offsets: it converts each UTC minute to the wall and looks what the wall did.


class Minute(NamedTuple):
    ms: int
    wall: datetime
    again: bool  # this wall time was seen before
    skipped: tuple[datetime, ...]  # wall times that never came, just before this one


class Change(NamedTuple):
    """A change of the clocks, with the size of the hole in wall time (negative: repeated) in minutes."""

    zone: str
    at: str
    hole: int


CHANGES = [
    Change("America/New_York", "2025-03-09T07:00Z", 60),
    Change("America/New_York", "2025-11-02T06:00Z", -60),
    Change("Europe/Berlin", "2025-03-30T01:00Z", 60),
    Change("Europe/Berlin", "2025-10-26T01:00Z", -60),
    Change("Australia/Lord_Howe", "2025-10-04T15:30Z", 30),
    Change("Australia/Lord_Howe", "2025-04-05T15:00Z", -30),
    Change("Antarctica/Troll", "2025-03-30T01:00Z", 120),
    Change("Antarctica/Troll", "2025-10-26T01:00Z", -120),
    Change("Africa/Casablanca", "2025-02-23T02:00Z", -60),
    Change("Africa/Casablanca", "2025-04-06T02:00Z", 60),
    Change("America/Santiago", "2024-09-08T04:00Z", 60),  # no midnight
    Change("America/Havana", "2024-11-03T05:00Z", -60),  # midnight twice
    Change("America/Sao_Paulo", "2018-02-18T02:00Z", -60),  # 23:00 twice, on the day before
    Change("Pacific/Apia", "2011-12-30T10:00Z", 24 * 60),  # no 30 December
    Change("UTC", "2025-03-30T01:00Z", 0),
]
DAY_TWICE = Change("Pacific/Kwajalein", "1969-09-30T13:00Z", -23 * 60)


@cache
def window(change: Change, hours: int = 40) -> list[Minute]:
    """Every minute from `hours` before the change to `hours` after it."""
    zone = ZoneInfo(change.zone)
    middle = datetime.fromisoformat(change.at)
    seen, minutes, last = set[datetime](), list[Minute](), None
    for i in range(-hours * 60, hours * 60):
        at = middle + i * MINUTE
        wall = at.astimezone(zone).replace(tzinfo=None)
        hole = 0 if last is None else max(0, (wall - last) // MINUTE - 1)
        skipped = tuple(wall - k * MINUTE for k in range(hole, 0, -1))
        minutes.append(Minute(round(at.timestamp() * 1000), wall, wall in seen, skipped))
        seen.add(wall)
        last = wall
    return minutes


MONTHS = ["", "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
DAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]


def values(field: str, low: int, high: int, names: Sequence[str]) -> set[int]:
    def number(text: str) -> int:
        return names.index(text) if text in names else int(text)

    found = set[int]()
    for term in field.split(","):
        body, _, step = term.partition("/")
        if body == "*":
            first, last = low, high
        elif "-" in body:
            first, last = map(number, body.split("-"))
        else:
            first = number(body)
            last = high if step else first
        found.update(range(first, last + 1, int(step or "1")))
    return found


def oracle(fields: str, minutes: list[Minute]) -> list[int]:
    minute, hour, day, month, weekday = fields.split()
    in_minute, in_hour = values(minute, 0, 59, []), values(hour, 0, 23, [])
    in_day, in_month = values(day, 1, 31, []), values(month, 1, 12, MONTHS)
    in_weekday = {value % 7 for value in values(weekday, 0, 7, DAYS)}
    both = day.startswith("*") or weekday.startswith("*")
    wild_hour = hour.startswith("*") and len(in_hour) > 1
    wild = wild_hour or minute.startswith("*")

    @cache
    def on(day: date) -> bool:
        hits = [day.day in in_day, day.isoweekday() % 7 in in_weekday]
        return day.month in in_month and (all(hits) if both else any(hits))

    def match(wall: datetime) -> bool:
        return wall.minute in in_minute and wall.hour in in_hour and on(wall.date())

    return [
        at
        for at, wall, again, skipped in minutes
        if (match(wall) and (wild or not again)) or (not wild_hour and any(map(match, skipped)))
    ]


def check(fields: str, change: Change, hours: int) -> None:
    """Compare with the oracle: all ticks within `hours` of the change, and first/latest asked at odd moments there."""
    minutes = window(change)
    expected = oracle(fields, minutes)
    schedule = parse(f"TZ={change.zone} {fields}")
    middle, last = ms(change.at), minutes[-1].ms
    start, end = middle - hours * HOUR_MS, middle + hours * HOUR_MS

    got, at = list[int](), schedule.first(start - 1)
    while at < end:
        got.append(at)
        at = schedule.after(at, 0)
    want = expected[bisect_left(expected, start) : bisect_left(expected, end)]
    assert [*map(iso, got)] == [*map(iso, want)]

    moments = {middle + i * 13 * 60_000 + odd for i in range(-10, 11) for odd in (0, 1)}
    moments.update(at + odd for at in want[:: len(want) // 10 + 1] for odd in (-1, 0, 1, 59_999))
    for now in sorted(moments):
        i = bisect_right(expected, now)
        after, latest = schedule.first(now), schedule.latest(LONG_AGO, now, 0)
        assert latest <= now < after
        if i:
            assert iso(latest) == iso(expected[i - 1]), f"latest at {iso(now)}"
        else:
            assert latest < minutes[0].ms
        if i < len(expected):
            assert iso(after) == iso(expected[i]), f"first after {iso(now)}"
        else:
            assert after > last


@pytest.mark.parametrize("change", [*CHANGES, DAY_TWICE], ids=lambda change: f"{change.zone} {change.at[:10]}")
def test_the_oracle_sees_each_change(change: Change) -> None:
    minutes = window(change)
    assert max(len(minute.skipped) for minute in minutes) == max(0, change.hole)
    assert sum(minute.again for minute in minutes) == max(0, -change.hole)


FIXED = [
    "30 2 * * *",
    "0,30 2,3 * * *",
    "30 1 * * *",
    "0-59/7 0-4 * * *",
    "15,45 22-23,0-1 * * *",
    "0 0 * * *",
    "59 23 * * *",
    "0 12 30 DEC *",
    "10 2 * * SUN",
    "5 1,2,3 1-10,20-31 * MON",
    "0 */24 * * *",
]
WILD = [
    "0 * * * *",
    "*/10 * * * *",
    "45 */2 * * *",
    "*/10 1 * * *",
    "*/10 2 * * *",
    "*/10 3 * * *",
    "*/20 0,23 * * *",
    "5 * * * SUN",
    "*/30 * */2 * *",
    "17 */23 * * *",
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: f"{change.zone} {change.at[:10]}")
def test_every_tick_is_that_of_the_oracle(change: Change) -> None:
    for fields in FIXED + WILD:
        check(fields, change, hours=30 if fields in FIXED else 6)
    check("* * * * *", change, hours=3)


@pytest.mark.parametrize("fields", ["30 2 * * *", "0 * * * *", "*/30 5 * * *", "0 0 30 SEP *"])
def test_a_day_that_comes_twice(fields: str) -> None:
    check(fields, DAY_TWICE, hours=30)


def terms(low: int, high: int, likely: list[int]) -> st.SearchStrategy[str]:
    number = st.sampled_from(likely) | st.integers(low, high)
    span = st.tuples(number, number).filter(lambda pair: pair[0] < pair[1]).map(lambda pair: f"{pair[0]}-{pair[1]}")
    stepped = st.tuples(span, st.integers(1, 9)).map(lambda pair: f"{pair[0]}/{pair[1]}")
    return st.lists(number.map(str) | span | stepped, min_size=1, max_size=3).map(",".join)


star = st.just("*")
steps = st.sampled_from(["*/2", "*/7", "*/10", "*/25"])
expressions = st.tuples(
    steps | star | terms(0, 59, [0, 29, 30, 31, 59]),
    star | steps | terms(0, 23, [0, 1, 2, 3, 23]),
    star | steps | terms(1, 28, [1, 2, 8, 9, 26]),
    star | st.sampled_from(["MAR,NOV", "4-12", "*/2", "1-12/3"]),
    star | terms(0, 6, [0, 6]) | st.sampled_from(["SUN", "MON-FRI", "7", "*/3", "5-7"]),
).map(" ".join)


@settings(max_examples=120, deadline=None, derandomize=True, database=None)
@given(expressions, st.sampled_from(CHANGES))
def test_any_expression_is_that_of_the_oracle(fields: str, change: Change) -> None:
    check(fields, change, hours=4)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(expressions, st.sampled_from(["Europe/Berlin", "UTC"]), st.integers(0, 2 * 10**12), st.integers(0, 10**11))
def test_forwards_and_backwards_agree_anywhere(fields: str, zone: str, now: int, missed: int) -> None:
    schedule = parse(f"TZ={zone} {fields}")
    first = schedule.first(now)
    second = schedule.after(first, now)
    assert now < first < second
    assert schedule.latest(first, first, now) == schedule.latest(first, second - 1, now) == first
    assert schedule.latest(first, second, now) == second
    latest = schedule.latest(first, first + missed, now)
    assert first <= latest <= first + missed < schedule.after(latest, now)


# What the rule means, in examples that need no oracle.


@pytest.mark.parametrize(
    ("schedule", "start", "expected"),
    [
        # In the gap: once, right after it, however many fell into it.
        ("30 2 * * *", "2025-03-09T06:00Z", ["2025-03-09T07:00:00Z", "2025-03-10T06:30:00Z"]),
        ("0,30 2 * * *", "2025-03-09T06:00Z", ["2025-03-09T07:00:00Z", "2025-03-10T06:00:00Z"]),
        ("*/20 2 * * *", "2025-03-09T06:00Z", ["2025-03-09T07:00:00Z", "2025-03-10T06:00:00Z"]),
        ("0 */2 * * *", "2025-03-09T04:30Z", ["2025-03-09T05:00:00Z", "2025-03-09T08:00:00Z"]),
        # Repeated: a fixed time the first time only, also when asked in between; an interval both times.
        ("30 1 * * *", "2025-11-02T05:00Z", ["2025-11-02T05:30:00Z", "2025-11-03T06:30:00Z"]),
        ("30 1 * * *", "2025-11-02T06:10Z", ["2025-11-03T06:30:00Z", "2025-11-04T06:30:00Z"]),
        ("0 * * * *", "2025-11-02T04:30Z", ["2025-11-02T05:00:00Z", "2025-11-02T06:00:00Z", "2025-11-02T07:00:00Z"]),
        ("*/30 1 * * *", "2025-11-02T05:30Z", ["2025-11-02T06:00:00Z", "2025-11-02T06:30:00Z", "2025-11-03T06:00:00Z"]),
    ],
)
def test_new_york(schedule: str, start: str, expected: list[str]) -> None:
    assert ticks(f"TZ=America/New_York {schedule}", start, len(expected)) == expected


@pytest.mark.parametrize(
    ("schedule", "start", "expected"),
    [
        # cronsim 2.8, given the zone, begins at 03:30 (16:30Z) here
        ("TZ=Australia/Lord_Howe */30 3 * * *", "2025-10-04T14:00Z", ["2025-10-04T16:00:00Z", "2025-10-04T16:30:00Z"]),
        # and goes back to before the gap here.
        ("TZ=America/Santiago */20 0 8 9 *", "2024-08-01T00:00Z", ["2024-09-08T04:00:00Z", "2025-09-08T03:00:00Z"]),
        ("TZ=Pacific/Apia 0 9 30 12 *", "2011-12-01T00:00Z", ["2011-12-30T10:00:00Z", "2012-12-29T19:00:00Z"]),
    ],
)
def test_odd_zones(schedule: str, start: str, expected: list[str]) -> None:
    assert ticks(schedule, start, len(expected)) == expected


def test_a_wildcard_that_only_ever_falls_into_the_gap_still_fires() -> None:
    assert ticks("TZ=America/New_York */10 2 * 3 SUN#2", "2024-01-01T00:00Z", 2) == [
        "2024-03-10T07:00:00Z",
        "2025-03-09T07:00:00Z",
    ]


@pytest.mark.parametrize(("fields", "in_a_year"), [("30 2 * * *", 365), ("30 1 * * *", 365), ("0 * * * *", 365 * 24)])
def test_a_year_has_as_many_ticks_as_it_should(fields: str, in_a_year: int) -> None:
    schedule = parse(f"TZ=America/New_York {fields}")
    at, end, n = schedule.first(ms("2025-01-01T04:59Z")), ms("2026-01-01T04:59Z"), 0
    while at < end:
        n, at = n + 1, schedule.after(at, 0)
    assert n == in_a_year


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("0 9 L 2 *", ["2026-02-28T09:00:00Z", "2027-02-28T09:00:00Z", "2028-02-29T09:00:00Z"]),
        ("0 9 LW * *", ["2026-01-30T09:00:00Z", "2026-02-27T09:00:00Z"]),
        ("0 9 * * FRI#2", ["2026-01-09T09:00:00Z", "2026-02-13T09:00:00Z"]),
        ("0 9 * * 5L", ["2026-01-30T09:00:00Z", "2026-02-27T09:00:00Z"]),
        ("0 9 29 2 *", ["2028-02-29T09:00:00Z", "2032-02-29T09:00:00Z"]),
        ("0 9 13 * fri", ["2026-01-02T09:00:00Z", "2026-01-09T09:00:00Z", "2026-01-13T09:00:00Z"]),
        ("5/20 9 * jan-feb *", ["2026-01-01T09:05:00Z", "2026-01-01T09:25:00Z"]),
    ],
)
def test_fields(fields: str, expected: list[str]) -> None:
    assert ticks(fields, "2026-01-01T00:00Z", len(expected)) == expected


@pytest.mark.parametrize(
    ("alias", "fields"),
    [
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("@monthly", "0 0 1 * *"),
        ("@weekly", "0 0 * * SUN"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@hourly", "0 * * * *"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "TZ=Asia/Tokyo ", "CRON_TZ=Asia/Tokyo "])
def test_aliases(alias: str, fields: str, prefix: str) -> None:
    start = "2026-05-05T05:05Z"
    assert ticks(prefix + alias, start, 3) == ticks(prefix + fields, start, 3)


def test_the_zone_is_utc_unless_named() -> None:
    start = "2026-05-05T05:05Z"
    assert ticks("0 6 * * *", start, 1) == ticks("TZ=UTC 0 6 * * *", start, 1) == ["2026-05-05T06:00:00Z"]
    assert ticks("TZ=Europe/Berlin 0 6 * * *", start, 1) == ["2026-05-06T04:00:00Z"]


# @every


@pytest.mark.parametrize(
    ("duration", "interval"),
    [
        ("1s", 1_000),
        ("90s", 90_000),
        ("1h30m", 5_400_000),
        ("1.5h", 5_400_000),
        ("1h30m0s", 5_400_000),
        ("1.s", 1_000),
        ("0.5s500ms", 1_000),
        ("1.001s", 1_001),
        ("1ms2s", 2_001),
        ("0.1h", 360_000),
    ],
)
def test_durations(duration: str, interval: int) -> None:
    assert parse(f"@every {duration}") == Every(f"@every {duration}", interval)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.integers(1_000, 10**9), st.integers(0, 2 * 10**12), st.integers(0, 10**6), st.integers(0, 10**13))
def test_every_counts_from_its_anchor(interval: int, anchor: int, k: int, late: int) -> None:
    every = parse(f"@every {interval}ms")
    assert every.first(anchor) == every.after(anchor, anchor) == every.after(anchor - 5, anchor) == anchor + interval
    due = anchor + (k + 1) * interval
    assert every.after(due, anchor) == every.after(due + interval - 1, anchor) == due + interval
    assert every.after(due - 1, anchor) == due
    latest = every.latest(due, due + late, anchor)
    assert due <= latest <= due + late < latest + interval
    assert (latest - anchor) % interval == 0


def test_a_tick_is_never_before_the_one_that_is_due() -> None:
    # Zone data may have changed since `due` was stored: time must not run backwards over it.
    assert parse("@hourly").latest(ms("2026-01-01T10:20Z"), ms("2026-01-01T10:30Z"), 0) == ms("2026-01-01T10:20Z")
    assert parse("@every 1h").latest(ms("2026-01-01T10:20Z"), ms("2026-01-01T10:30Z"), 0) == ms("2026-01-01T10:20Z")


# Cost


@pytest.mark.parametrize(
    ("schedule", "now", "most"),
    [
        ("* * * * *", "2026-06-01T00:00Z", 1),
        ("0 0 29 2 *", "2027-06-01T00:00Z", 1),
        # Where the clocks change: at most the ticks of two hours.
        ("TZ=America/New_York * * * * *", "2025-11-02T05:30Z", 122),
        ("TZ=America/New_York * * * * *", "2025-11-02T06:30Z", 122),
        ("TZ=America/New_York 0-59 1 * * *", "2025-11-02T06:30Z", 122),
        ("TZ=America/New_York * * * * *", "2025-03-09T06:59:30Z", 61),
        ("TZ=America/New_York 0-59 2 * * *", "2025-03-09T06:59:30Z", 1),
    ],
)
def test_steps_are_few_after_a_year_of_silence(
    monkeypatch: pytest.MonkeyPatch, schedule: str, now: str, most: int
) -> None:
    steps = 0

    class Counted(CronSim):
        def __next__(self) -> datetime:
            nonlocal steps
            steps += 1
            return super().__next__()

    parsed = parse(schedule)
    monkeypatch.setattr(cron, "CronSim", Counted)
    parsed.latest(ms(now) - 366 * 24 * HOUR_MS, ms(now), 0)
    assert steps <= most
    steps = 0
    parsed.first(ms(now))
    assert steps <= most


# Refusals


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "five fields"),
        ("* * * *", "has 4"),
        ("0 * * * * *", "seconds"),
        ("every day", "five fields"),
        ("60 * * * *", "minute"),
        ("* 24 * * *", "hour"),
        ("* * 0 * *", "day-of-month"),
        ("* * * 13 *", "month"),
        ("* * * * 8", "day-of-week"),
        ("*/0 * * * *", "minute"),
        ("5-1 * * * *", "minute"),
        ("? * * * *", "minute"),
        ("0 0 30 2 *", "none of the months"),
        ("0 0 31 4,6,9,11 *", "none of the months"),
        ("0 0 */30 FEB MON#5", "no such date"),
        ("9" * 5_000 + " * * * *", "digits"),
        ("@reboot", "@hourly"),
        ("@Daily", "@daily"),
        ("@daily *", "@daily"),
        ("@every", "duration"),
        ("@every 90", "units"),
        ("@every 1h 30m", "no spaces"),
        ("@every -1h", "duration"),
        ("@every 1d", "units"),
        ("@every .s", "duration"),
        ("@every 500ms", "at least 1s"),
        ("@every 0s", "at least 1s"),
        ("@every 999999999999999h", "at most"),
        ("@every 1.0005s", "milliseconds"),
        ("@every ١s", "duration"),
        ("TZ=Europe/Berlin", "five fields"),
        ("TZ=Mars/Olympus * * * * *", "'Mars/Olympus'"),
        ("TZ= * * * * *", "time zone"),
        ("TZ=Europe * * * * *", "time zone"),
        ("TZ=../etc * * * * *", "time zone"),
        ("TZ=/etc/localtime * * * * *", "time zone"),
        ("TZ=localtime * * * * *", "time zone"),
        ("TZ=right/Europe/Berlin * * * * *", "time zone"),
        ("TZ=" + "x" * 5_000 + " * * * * *", "time zone"),
        ("* * * * * TZ=UTC", "five fields"),
    ],
)
def test_refused(text: str, why: str) -> None:
    with pytest.raises(InvalidSchedule) as caught:
        parse(text)
    message = str(caught.value)
    assert repr(text)[:200].rstrip("'") in message
    assert why in message
    assert len(message) < 700
    assert isinstance(caught.value, TasqueueError)
    assert isinstance(caught.value, ValueError)
    _, _, example = message.rpartition("for example, ")
    parse(example.strip("'"))


def test_refused_unless_text() -> None:
    with pytest.raises(InvalidSchedule, match=r"must be a str such as '0 9 .*NoneType"):
        parse(None)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    st.text(max_size=30)
    | st.lists(st.text("0123456789*/,-#?LWMONSUN", min_size=1, max_size=6), min_size=5, max_size=5).map(" ".join)
    | st.text("0123456789.hms ", max_size=12).map("@every ".__add__)
    | st.text(max_size=12).map(lambda key: f"TZ={key} @daily")
)
def test_nothing_but_invalid_schedule_comes_of_hostile_text(text: str) -> None:
    try:
        schedule = parse(text)
    except InvalidSchedule:
        return
    now = ms("2026-01-01T00:00Z")
    assert now < schedule.first(now) < schedule.after(schedule.first(now), now)


# Values


def test_a_schedule_is_a_frozen_value_that_ignores_spacing() -> None:
    one, other = parse("TZ=Europe/Berlin  0 6 *  * *"), parse(" TZ=Europe/Berlin 0 6 * * * ")
    assert isinstance(one, Cron)
    assert one == other
    assert hash(one) == hash(other)
    assert one.text == "TZ=Europe/Berlin 0 6 * * *"
    with pytest.raises(AttributeError):
        one.text = "@daily"  # pyright: ignore[reportAttributeAccessIssue]


def test_tick_ids() -> None:
    assert tick_id("cron:report", ms("2026-11-24T10:00Z")) == "cron:report@2026-11-24T10:00:00Z"
    assert tick_id("x", ms("2026-11-24T10:00:01.500Z")) == "x@2026-11-24T10:00:01.500Z"
    assert tick_id("x", ms("2026-11-24T12:00+02:00")) == "x@2026-11-24T10:00:00Z"
    assert datetime.fromisoformat(tick_id("", 0)[1:]) == datetime(1970, 1, 1, tzinfo=UTC)
