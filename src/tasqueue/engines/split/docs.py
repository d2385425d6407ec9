"""What a pair stores, and the pure changes to a job: records, and the orders that travel as messages.

An order is a message's body. It names the job, a `nonce` of its own, and the nonce that it supersedes (`of`); the
record names the nonce of the one message that speaks for it. So whoever is handed a message knows what it is: the
record's own (run it), one that is still to be applied (its sender died, or is not there yet: apply it), or a stale
copy (acknowledge and drop it). `apply` decides that, and nothing else does. The invariant behind "nothing lost": a
record that is neither final nor held back always has its own message in the broker, because the message is stored
first and the record second.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from ...core.codec import NewerVersion, Undecodable
from ...core.record import Record
from ...core.status import ENDED, State, Status

VERSION = 1
KEEP = 3_600_000
"""How long (ms) a forgotten record stays behind as a tombstone, so that late copies of messages find that it has been.
"""

D = TypeVar("D")


class Job(msgspec.Struct, array_like=True):
    """A job's record.

    `worker` and `claim` are the token of who holds it, or of who settled it last; claim 0: of nobody.
    """

    version: int
    id: str
    queue: str
    task: str
    spec: bytes
    priority: int
    state: State
    born: int
    nonce: str = ""
    link: str = ""
    pos: int = 0
    batch: str = ""
    """The nonce of its link: another submission under the same id is another chain or group."""
    due: int | None = None
    prev: bytes | None = None
    tail: bytes = b""
    result: bytes | None = None
    worker: str = ""
    claim: int = 0
    claimed_at: int | None = None
    ended_at: int | None = None
    gone_at: int | None = None
    deaths: int = 0
    died_with: str = ""
    death_cause: str = ""
    parked_at: int | None = None
    park_key: str = ""
    parked: str = ""
    progress: bytes | None = None
    cancel: bool = False
    round: int = 0
    """How often it was reopened."""
    also: str = ""
    """The nonce of a second message that speaks for it: it was unparked, and whoever parked it had its first one still.
    """
    follow: tuple[Job, ...] = ()
    """What is to be inserted after its end; kept, so that whoever finds the message again can do it again."""

    def speaks(self, nonce: str) -> bool:
        """Whether a message of that nonce speaks for it."""
        return nonce == self.nonce or nonce == self.also != ""

    @property
    def final(self) -> bool:
        """Whether only a reopening leads on."""
        return self.state in ENDED

    def gone(self, now: int) -> bool:
        """Whether it has outlived its retention, and is a tombstone only."""
        return self.gone_at is not None and self.gone_at <= now


class LinkDoc(msgspec.Struct, array_like=True):
    """A chain's or group's record.

    `members`: a group's ended jobs, index to State; a set of indexes, never a counter (G6).
    """

    version: int
    key: str
    nonce: str
    n: int
    ids: tuple[str, ...]
    on_success: tuple[Job, ...] = ()
    on_error: tuple[Job, ...] = ()
    result_ttl: int | None = None
    failed_ttl: int | None = None
    max_prev: int = 0
    complete: bool = False
    """All members are written: the expander has nothing left to do."""
    status: Status = Status.PROCESSING
    pos: int = 0
    generation: int = 0
    members: dict[int, int] = {}
    rounds: dict[int, int] = {}
    """Of reopened jobs: the round whose outcome counts. An outcome of an earlier round is late and changes nothing."""
    ended_at: int | None = None
    gone_at: int | None = None

    def gone(self, now: int) -> bool:
        """As of a job."""
        return self.gone_at is not None and self.gone_at <= now


class Worker(msgspec.Struct, array_like=True):
    """An incarnation.

    Once `gone` it stays so; the record then tells the claims who died of what, until the lease is long over.
    """

    version: int
    id: str
    lease: int
    deadline: int
    info: bytes = b""
    held: int = 0
    drain: bool = False
    gone: bool = False
    retired: bool = False
    cause: str = ""
    cancels: dict[str, int] = {}
    """Asked for: id to the claim number under which it is held."""


class Fleet(msgspec.Struct, array_like=True):
    """What all share: announced tasks, the highest record version, paused queues (reason, by, at), keys that jobs are
    parked under.
    """

    version: int = VERSION
    tasks: dict[str, str] = {}
    reads: int = 0
    paused: dict[str, tuple[str, str, int]] = {}
    parked: tuple[str, ...] = ()


class OrderKind(IntEnum):
    """What an order asks for. The numbers are stored."""

    NEW = 0
    """Store `job`, where there is none (or the tombstone `of`), and run it."""
    NEXT = 1
    """A chain has come to this held step; `data` is what the step before saved."""
    UNPARK = 2
    REOPEN = 3
    """`data` is the new tail."""
    EXPAND = 4
    """Complete a chain or group; never shown to anybody."""


class Order(msgspec.Struct, array_like=True):
    """The body of a message."""

    version: int
    kind: OrderKind
    id: str
    nonce: str
    of: str | None = None
    data: bytes | None = None
    job: Job | None = None
    link: LinkDoc | None = None
    members: tuple[Job, ...] = ()


encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode
_head = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


def decoder(kind: type[D]) -> Callable[[bytes], D]:
    """A decoder that raises Undecodable for whatever is wrong with the bytes, NewerVersion for what a newer library
    wrote.
    """
    decode = msgspec.msgpack.Decoder(kind).decode

    def checked(data: bytes) -> D:
        try:
            doc = decode(data)
        except Exception as error:  # whatever the decoder raises on hostile bytes ends here
            _refuse_newer(data)
            raise Undecodable(str(error) or type(error).__name__) from None
        if doc.version > VERSION:  # type: ignore[attr-defined]  # all four have it
            raise NewerVersion(doc.version)  # type: ignore[attr-defined]
        return doc

    return checked


def _refuse_newer(data: bytes) -> None:
    try:
        version = msgspec.msgpack.decode(_head(data)[0], type=int)
    except Exception:  # not even an array that begins with a number
        return
    if version > VERSION:
        raise NewerVersion(version)


decode_order = decoder(Order)


def new_job(record: Record, now: int, batch: str = "") -> Job:
    """A record as it is first stored; it has no nonce yet."""
    due = record.due if record.due is not None and (record.held or record.due > now) else None
    return Job(
        VERSION,
        record.id,
        record.queue,
        record.task,
        record.spec,
        record.priority,
        State.HELD if record.held else State.READY if due is None else State.DUE,
        now,
        link=record.link,
        pos=record.pos,
        batch=batch,
        due=due,
        prev=record.prev,
    )


def apply(order: Order, job: Job | None, now: int) -> Job | None:
    """The record after the order; None when the order is stale: it was applied and superseded, or overtaken."""
    if job is None or job.nonce != order.of:
        return order.job if order.kind is OrderKind.NEW and job is None and order.of is None else None
    if order.kind is OrderKind.NEW:
        return order.job if order.job is not None and makes_room(job, order.job, now) else None
    if order.kind is OrderKind.NEXT:
        return None if job.state is not State.HELD else ready(job, order.nonce, now, prev=order.data)
    if order.kind is OrderKind.UNPARK:
        return (
            None if job.state is not State.PARKED else ready(replace(job, due=None), order.nonce, now, also=job.nonce)
        )
    if job.state not in (State.FAILED, State.CANCELLED) or job.gone(now):
        return None
    return ready(reopened(job, order.nonce, order.data or b""), order.nonce, now)


def makes_room(old: Job, new: Job, now: int) -> bool:
    """Whether a stored record gives way to a new one of its id: a tombstone, or what an earlier link of the same name
    has left.
    """
    if new.batch:
        return old.batch != new.batch and (old.link == new.link or old.gone(now))
    return old.gone(now)


def ready(job: Job, nonce: str, now: int, also: str = "", **changes: Any) -> Job:
    """The record once it may start: now, or at its due date when that is still to come."""
    later = job.due is not None and job.due > now
    return replace(
        job,
        state=State.DUE if later else State.READY,
        due=job.due if later else None,
        nonce=nonce,
        also=also,
        claim=0,
        **changes,
    )


def reopened(job: Job, nonce: str, tail: bytes) -> Job:
    """A failed or cancelled job as if it had just been submitted, and held back; what its runs left is in `tail`."""
    return replace(
        job,
        state=State.HELD,
        nonce=nonce,
        also="",
        tail=tail,
        due=None,
        result=None,
        claim=0,
        ended_at=None,
        gone_at=None,
        deaths=0,
        died_with="",
        death_cause="",
        parked_at=None,
        park_key="",
        parked="",
        progress=None,
        cancel=False,
        round=job.round + 1,
        follow=(),
    )


def died(job: Job, worker: str, cause: str) -> Job:
    """The same job with one more death."""
    return replace(job, deaths=job.deaths + 1, died_with=worker, death_cause=cause)


def ended(job: Job, state: State, now: int, ttl: int | None) -> Job:
    """The job's end, and its retention from there."""
    return replace(job, state=state, ended_at=now, gone_at=None if ttl is None else now + ttl, due=None, cancel=False)


def could_start(job: Job, now: int) -> bool:
    """Whether a claim would take it: it is ready, or its time has come and nobody has written that yet."""
    waiting = job.state in (State.DUE, State.PARKED)
    return job.state is State.READY or (waiting and job.due is not None and job.due <= now)
