"""Schedules: text in, ticks out. Times are ints, UNIX milliseconds, as in `record.Schedule`; `now` is told, not read.

    parse("TZ=Europe/Berlin 30 2 * * *")   Cron or Every; InvalidSchedule
    .first(now)                            the first tick of a schedule that is stored now: > now
    .after(tick, anchor)                   the next tick: > tick
    .latest(due, now, anchor)              of the ticks from `due` to `now`, the last: >= due
    tick_id("cron:report", tick)           cron:report@2026-11-24T10:00:00Z

`anchor` is when the schedule was first stored. The invariant: a schedule's ticks are one fixed, strictly rising
sequence, made of text, zone data and anchor alone. So all workers agree on the ids of ticks (G5, G7), and none is lost
or comes twice, whichever worker asks, when, and from which end. Every schedule that `parse` lets through has a next
tick, and no call takes longer than a few steps.

A cron expression speaks of wall time. Where clocks are put forward or back, the rule is:

- A tick in the skipped time fires once, right after the gap, however many fell into it. Not so when the hour is a
  wildcard (`0 * * * *`): the skipped hours are not there, and the next one is near.
- A tick in the repeated time fires once, the first time. Not so when minute or hour is a wildcard (`0 * * * *`,
  `*/10 1 * * *`): those mean an interval, and fire both times.

A wildcard is a field that starts with `*`. This is Debian cron's rule, but for one thing: there `*/10 2 * * *` counts
as a wildcard in the gap too and loses its whole day; `*/10 2 * 3 SUN#2` would in New York never fire at all.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from cronsim import CronSim, CronSimError

from ..errors import InvalidSchedule

MIN_EVERY = 1_000
MAX_EVERY = 100 * 366 * 86_400_000

_ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_UNITS = {"h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
# Digits are counted, so that int() gets nothing it would refuse and a hostile text costs nothing.
_TERM = re.compile(r"([0-9]{1,15})(?:\.([0-9]{0,15}))?(h|ms|m|s)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_NONE = timedelta(0)


class Every(msgspec.Struct, frozen=True):
    """`@every <duration>`: anchor + k * interval, k = 1, 2, …; always computed from the anchor, so it cannot drift."""

    text: str
    interval: int

    def first(self, now: int) -> int:
        """The first tick when `now` is the anchor."""
        return now + self.interval

    def after(self, tick: int, anchor: int) -> int:
        """The first tick after `tick`."""
        return anchor + max(1, (tick - anchor) // self.interval + 1) * self.interval

    def latest(self, due: int, now: int, anchor: int) -> int:
        """The last tick at or before `now`; `due` is a tick that is not after `now`."""
        return max(due, anchor + (now - anchor) // self.interval * self.interval)


class Cron(msgspec.Struct, frozen=True):
    """Five cron fields in a zone. The anchor means nothing to it.

    cronsim reads the fields and walks the wall clock, which knows no DST; the way from there to UTC is ours. Given a
    zone, cronsim 2.8 returns a tick of the past when asked in a repeated hour, begins `*/10 3 * * *` at 03:30 on Lord
    Howe's day of 23½ hours, and goes round in circles where clocks change at midnight (Santiago; Sao Paulo in reverse).
    Before 2.7 it also steps over ticks in reverse.
    """

    text: str
    fields: str
    zone: tzinfo
    skips: bool
    """Ticks in a gap are not made up for."""
    repeats: bool
    """Ticks in a repeated hour fire both times."""

    def first(self, now: int) -> int:
        """The first tick after `now`."""
        return self._nearest(now, back=False)

    def after(self, tick: int, anchor: int) -> int:
        """The first tick after `tick`."""
        return self._nearest(tick, back=False)

    def latest(self, due: int, now: int, anchor: int) -> int:
        """The last tick at or before `now`; `due` is a tick that is not after `now`."""
        return max(due, self._nearest(now, back=True))

    def _nearest(self, ms: int, *, back: bool) -> int:
        """The first tick after `ms`, or with `back` the last one at or before it."""
        best = max if back else min
        now = _moment(ms)
        wall = now.astimezone(self.zone).replace(tzinfo=None, microsecond=0)
        # In a repeated hour the walk has two starts: what lies ahead on the clock, and what comes (or came) once more,
        # as far off as the clock was put back. Elsewhere they are one.
        repeated = max(self._at(wall, 1) - self._at(wall, 0), _NONE)
        starts = {wall + _SECOND, wall + _SECOND + repeated} if back else {wall, wall - repeated}
        found: list[datetime] = []
        for start in starts:
            # Passed over is only what a gap or a repetition holds: an hour's worth of ticks, as zones are today.
            for tick in CronSim(self.fields, start, reverse=back):
                if hits := [at for at in self._instants(tick) if (at <= now) == back]:
                    found.append(best(hits))
                    break
        return (best(found) - _EPOCH) // timedelta(milliseconds=1)

    def _at(self, wall: datetime, fold: int) -> datetime:
        return wall.replace(tzinfo=self.zone, fold=fold).astimezone(UTC)

    def _instants(self, wall: datetime) -> tuple[datetime, ...]:
        """When a tick at this wall time fires: the rule at the top. What `fold` means in a gap: PEP 495."""
        early, late = self._at(wall, 0), self._at(wall, 1)
        if early == late:
            return (early,)
        if early < late:
            return (early, late) if self.repeats else (early,)
        if self.skips:
            return ()
        # `late` is still before the gap: look from there for the first second with another offset.
        before = late.astimezone(self.zone).utcoffset()
        seconds = range((early - late) // _SECOND)
        end = bisect_left(seconds, True, key=lambda s: (late + s * _SECOND).astimezone(self.zone).utcoffset() != before)
        return (late + end * _SECOND,)


Schedule: TypeAlias = Cron | Every


def parse(text: object) -> Schedule:
    """Five-field cron, an alias or `@every <duration>`, with an optional `TZ=Area/City ` in front. InvalidSchedule."""
    if not isinstance(text, str):
        raise InvalidSchedule(f"schedule must be a str such as '0 9 * * MON-FRI', not {type(text).__name__} ({text!r})")
    words = text.split()
    text = " ".join(words)
    zone: tzinfo = UTC
    if words and words[0].startswith(("TZ=", "CRON_TZ=")):
        zone = _zone(text, words.pop(0).partition("=")[2])
    if words and words[0] == "@every":
        return Every(text, _interval(text, words[1:]))
    if words and words[0].startswith("@"):
        if len(words) > 1 or words[0] not in _ALIASES:
            raise _refusal(text, f"the aliases are {', '.join(_ALIASES)} and @every <duration>", "@daily")
        words = _ALIASES[words[0]].split()
    if len(words) != 5:
        hint = "; seconds are only in '@every 10s'" if len(words) == 6 else ""
        fields = "five fields are needed: minute, hour, day of month, month, day of week"
        raise _refusal(text, f"{fields}; this has {len(words)}{hint}", "*/10 9-17 * * MON-FRI")
    return _cron(text, " ".join(words), zone)


def tick_id(schedule_id: str, tick: int) -> str:
    """The id of a tick's job: `<schedule id>@<tick, UTC, ISO 8601>`; with milliseconds only where there are any."""
    precision = "milliseconds" if tick % 1_000 else "seconds"
    return f"{schedule_id}@{_moment(tick).replace(tzinfo=None).isoformat(timespec=precision)}Z"


def _cron(text: str, fields: str, zone: tzinfo) -> Cron:
    minute, hour = fields.split()[:2]
    try:
        # Any leap year will do: what has no tick within cronsim's 50 years of one has none.
        walk = CronSim(fields, datetime(2000, 1, 1))  # noqa: DTZ001 - the wall clock's
        if next(walk, None) is None:
            raise CronSimError("there is no such date")
    except (CronSimError, ValueError) as error:
        # cronsim says "Bad day-of-month" of 30 February, too
        why = str(error).lower().replace("bad day-of-month", "bad day-of-month, or none of the months has it")
        raise _refusal(text, why, "30 9 1,15 * *") from None
    # `*/24` starts with a star and yet is a fixed hour, which a gap at midnight would take away.
    interval = hour.startswith("*") and len(walk.hours) > 1
    return Cron(text, fields, zone, interval, interval or minute.startswith("*"))


def _zone(text: str, key: str) -> tzinfo:
    if key == "UTC":
        return UTC  # needs no zone data
    # These differ from machine to machine, or count leap seconds: workers would not agree on the ticks.
    if key not in {"localtime", "posixrules"} and not key.startswith(("right/", "posix/")):
        try:
            return ZoneInfo(key)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            pass
    why = f"no time zone {key[:100]!r} here (without system zones: pip install tzdata)"
    raise _refusal(text, why, "TZ=Europe/Berlin 0 9 * * *")


def _interval(text: str, spans: list[str]) -> int:
    """Go's durations, exact: "1h30m", "1.5h", "90s"."""
    span = spans[0] if len(spans) == 1 else ""
    terms = list(_TERM.finditer(span))
    if not terms or "".join(term[0] for term in terms) != span:
        raise _refusal(text, "a duration is numbers with the units h, m, s, ms and no spaces", "@every 1h30m")
    total = 0
    for whole, decimals, unit in (term.groups("") for term in terms):
        rest, finer = divmod(int(decimals or "0") * _UNITS[unit], 10 ** len(decimals))
        if finer:
            raise _refusal(text, "a duration is a whole number of milliseconds", "@every 1.5s")
        total += int(whole) * _UNITS[unit] + rest
    if not MIN_EVERY <= total <= MAX_EVERY:
        raise _refusal(text, "a duration is at least 1s and at most 100 years", "@every 90s")
    return total


def _moment(ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=ms)


def _refusal(text: str, why: str, example: str) -> InvalidSchedule:
    return InvalidSchedule(f"schedule {text[:200]!r}: {why}; valid is, for example, {example!r}")
