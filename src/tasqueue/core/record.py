"""What passes between the runtime and an engine, and what an engine stores of a job.

An engine keeps a few columns of its own (where the job is, who holds it, when it is due) beside bytes that it never
looks into: `spec`, written once by the submit, and `tail`, written by each settle. Times are UNIX milliseconds, spans
are milliseconds. Structs without cycles are kept out of the garbage collector (`gc=False`): thousands of them live at
once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any

import msgspec

from .status import State, Status


class Record(msgspec.Struct, gc=False):
    """A job to be stored if its id is new."""

    id: str
    queue: str
    task: str
    spec: bytes
    priority: int = 0
    due: int | None = None
    """None: at once."""
    held: bool = False
    """Held back until its chain gets there."""
    prev: bytes | None = None
    """What the job before saved."""
    link: str = ""
    """`c:<chain id>` or `g:<group id>`, or "" when it stands alone."""
    pos: int = 0
    """Its index in the chain or group."""


class Link(msgspec.Struct):
    """A chain or a group, stored together with its jobs: all of it or none of it.

    `on_success`, `on_error` are templates of a group's callbacks, under the ids of generation 0; when the group ends,
    the engine inserts those that are due with `callback_id(template.id, generation)`, their `prev` being the packed
    results (`pack_results`) when those fit in `max_prev` bytes. A chain has none.
    """

    key: str
    """`c:<id>` or `g:<id>`: the same as its jobs' `link`."""
    n: int
    on_success: Sequence[Record] = ()
    on_error: Sequence[Record] = ()
    result_ttl: int | None = None
    """Retention in ms after a successful or cancelled end; None: for ever."""
    failed_ttl: int | None = None
    max_prev: int = 1 << 20


class Lease(msgspec.Struct, gc=False):
    """A claimed job. With the worker's name, `claim` is the fencing token."""

    id: str
    queue: str
    claim: int
    spec: bytes
    tail: bytes
    """b"" before the first settle."""
    prev: bytes | None
    deaths: int
    """How many workers died holding it since it was submitted or reopened."""
    died_with: str = ""
    """The last worker that died holding it, and why (as `reclaim` was told)."""
    death_cause: str = ""
    parked_at: int | None = None
    """When it was first parked, if it ever was since it was submitted or reopened."""
    link: str = ""
    pos: int = 0
    ref: Any = None
    """The engine's own handle of the row; the runtime passes it back in the Step."""
    asked: bool = False
    """Somebody asked to cancel it before this claim, and its holder gave it back or died: it must not be run."""


class Kind(IntEnum):
    """What a Step asks of the engine."""

    END = 0
    """Final: `state` says which; `follow` is inserted, the chain or group told, the record forgotten after `ttl`."""
    RETRY = 1
    """Back after `delay`, behind those that wait (a new place)."""
    SNOOZE = 2
    """The same, but the status stays what it was."""
    RELEASE = 3
    """Back to its old place at once; `tail` is not written."""
    PARK = 4
    """Nobody here can run it: kept under `key` for at most `delay` counted from when it was first parked, then ready
    again.
    """


class Step(msgspec.Struct, gc=False):
    """One decision about one claimed job, applied if the token still holds it. Applied twice, it changes nothing more
    (G14).
    """

    id: str
    claim: int
    kind: Kind
    state: State = State.READY
    """The state that it goes to."""
    tail: bytes | None = None
    """None: keep what is stored."""
    result: bytes | None = None
    delay: int = 0
    ttl: int | None = None
    """END: None: for ever; 0: forgotten in this very step."""
    follow: Sequence[Record] = ()
    key: str = ""
    reason: str = ""
    died: bool = False
    """RELEASE, END: count a death, with `reason` as its cause: a child process died of it, not this worker."""
    link: str = ""
    pos: int = 0
    ref: Any = None


class Row(msgspec.Struct):
    """A stored job as an engine shows it to readers."""

    id: str
    queue: str
    state: State
    spec: bytes
    tail: bytes
    prev: bytes | None = None
    result: bytes | None = None
    priority: int = 0
    due: int | None = None
    worker: str = ""
    """Who holds it, or who held it last."""
    claimed_at: int | None = None
    ended_at: int | None = None
    deaths: int = 0
    parked: str = ""
    """Why, while it is parked."""
    progress: bytes | None = None
    task: str = ""
    link: str = ""
    pos: int = 0


class LinkRow(msgspec.Struct):
    """A stored chain or group. `pos`: the step a chain is at (n when all are done); `members`: a group's ended ones by
    index.
    """

    key: str
    n: int
    status: Status
    pos: int = 0
    generation: int = 0
    members: Mapping[int, Status] = {}


class Schedule(msgspec.Struct, frozen=True):
    """A stored schedule. `job` is an encoded spec; `anchor` is when it was first stored (`@every` counts from it)."""

    id: str
    schedule: str
    task: str
    queue: str
    priority: int
    job: bytes
    anchor: int
    next_at: int
    last_at: int | None = None
    paused: bool = False


class Tick(msgspec.Struct, frozen=True):
    """One tick to be fired: enqueue `record` and move the schedule from `expect` to `next_at`, if it still stands at
    `expect`.
    """

    schedule_id: str
    expect: int
    at: int
    """The tick itself: becomes `last_at`."""
    next_at: int
    record: Record


def callback_id(id: str, generation: int) -> str:
    """A group callback's id in a generation: the template's own in generation 0."""
    return f"{id}.{generation}" if generation else id


def chain_key(id: str) -> str:
    """The `link` of a chain."""
    return f"c:{id}"


def group_key(id: str) -> str:
    """The `link` of a group."""
    return f"g:{id}"
