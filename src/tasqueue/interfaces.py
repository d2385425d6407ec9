"""What an engine must do (`Engine`), and what a user's own broker or results must (`Broker`, `Results`).

An engine is one store in both roles, so that every finish is atomic (G3). `engines/split.py` makes an engine of any
broker and any results. The conformance suite in `tasqueue.testing.conformance` is the definition: what it does not test
is not promised.

Everything is batch first: a verb takes or returns many, and one item is a batch of one. Times are UNIX milliseconds by
the engine's own clock (G12), spans are milliseconds. Every call may be repeated after a lost reply (G14). A call that
gets no answer within the engine's `timeout` raises `EngineUnavailable`; cancelling one leaves nothing behind that a
later call could stumble over.

An engine object belongs to one event loop. `twin()` makes another for the same store, for another loop or thread.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec

from .core.record import Lease, Link, LinkRow, Record, Row, Schedule, Step, Tick
from .core.status import State
from .errors import TasqueueError


class WorkerGone(TasqueueError):
    """The incarnation was reclaimed, retired or never registered: it can neither claim nor settle ever again (G4)."""


class Capabilities(msgspec.Struct, frozen=True):
    """What an engine promises beyond the contract's minimum. Each flag has one test that shows the lack."""

    atomic_finish: bool = True
    """Status, result, follow-ups and chain or group progress are one step. False: ordered, the record first (G3)."""
    instant_handback: bool = True
    """`reclaim(worker)` and `retire(worker)` offer at once what a dead worker held. False: when its lease ends."""
    exact_pending: bool = True
    """`pending` lists exactly what could start now, in claim order."""
    live_status: bool = True
    """A claimed job shows as `processing` at once."""
    server_fencing: bool = True
    """A settle with an old token is refused by the server in the same step (always true of the record; of a pair's
    broker not).
    """
    thread_beat: bool = True
    """`twin()` works, so that beats come from outside the event loop (G9). False: a blocked loop can lose its lease."""
    shared: bool = True
    """Several processes can use the store at once."""
    durable: bool = True
    """What was stored survives the end of the process."""
    max_link: int = 10_000
    """The most jobs in one chain or group."""


class Claim(msgspec.Struct):
    """The answer to a claim."""

    leases: Sequence[Lease]
    next_due: int | None = None
    """When the earliest job that is due later in one of these queues becomes ready; None: there is none."""


class Beat(msgspec.Struct):
    """The answer to a beat."""

    lost: bool = False
    """The incarnation was reclaimed; whatever it holds is somebody else's."""
    cancels: Sequence[str] = ()
    """Ids that this worker holds and that somebody asked to cancel (said again with each beat until they have ended).
    """
    paused: Sequence[str] = ()
    """All paused queues."""
    drain: bool = False
    """Somebody asked this worker to drain."""


class Cancelled(msgspec.Struct, frozen=True):
    """The answer to a cancel, for each id."""

    done: bool = False
    """It was waiting, and is cancelled."""
    asked: bool = False
    """It is running; its worker will be told with its next beat. Neither: unknown, or already ended."""


class PauseRow(msgspec.Struct, frozen=True):
    """A paused queue: why, who asked, since when (ms)."""

    queue: str
    reason: str
    by: str
    at: int


class WorkerRow(msgspec.Struct, frozen=True):
    """A registered worker. `info`: what its last beat said (msgpack, the runtime's); `held`: how many jobs it holds."""

    id: str
    deadline: int
    info: bytes
    held: int


class Counts(msgspec.Struct, frozen=True):
    """How many jobs there are: by queue and state, without the ended ones; and the ended ones by state."""

    queues: Mapping[str, Mapping[State, int]]
    ended: Mapping[State, int]


class Filter(msgspec.Struct, frozen=True):
    """Which jobs `jobs` lists; None: any. The states are those of the engine; a caller maps statuses to them."""

    states: Sequence[State] | None = None
    queue: str | None = None
    task: str | None = None


class Finding(msgspec.Struct, frozen=True):
    """One line of the doctor's table."""

    name: str
    value: str
    level: Literal["ok", "warn", "error"] = "ok"
    advice: str = ""


class Durability(msgspec.Struct, frozen=True):
    """What the settings in force really promise, in one word and one sentence, with the settings behind it."""

    level: Literal["process", "os-crash", "power-loss"]
    """The worst that an acknowledged write survives: nothing beyond this process; a crash of processes; a power cut."""
    promise: str
    findings: Sequence[Finding] = ()


Key = tuple[Literal["job", "chain", "group"], str]


class Engine(ABC):
    """One store in both roles. See the module's docstring, and `engines/memory`, the reference."""

    url: str
    """For people: without a password."""
    capabilities: Capabilities

    # -- life ---------------------------------------------------------------------------------------------------------

    @abstractmethod
    async def open(self) -> None:
        """Connect, check that the store is usable and its format known, create what is missing. May be called again."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of every connection, thread and file. May be called again; `open` works afterwards."""

    @abstractmethod
    def twin(self) -> Engine:
        """Another, unopened engine object for the same store. Unsupported when there can be none (`thread_beat`)."""

    @abstractmethod
    async def now(self) -> int:
        """The engine's clock."""

    # -- producing ----------------------------------------------------------------------------------------------------

    @abstractmethod
    async def submit(self, records: Sequence[Record], links: Sequence[Link] = ()) -> None:
        """Store what is new by id, all or nothing, durably when it returns.

        A record with a `link` is stored only together with that link (in `links`), and not at all when the link exists
        already. A held one waits for its chain; one with a due date after now waits for that; the others are ready,
        behind all that are ready in their queue and priority (G13). A record whose id exists is skipped without a word.
        """

    # -- working ------------------------------------------------------------------------------------------------------

    @abstractmethod
    async def register(self, worker: str, lease: int, info: bytes, tasks: Mapping[str, str], version: int) -> None:
        """Begin an incarnation with a lease of that many ms, announce its tasks (name -> queue) and record version.

        Jobs parked under `task:<name>` of an announced task, or `version:<n>` with n <= `version`, become ready again,
        at their old places. Called again for a living incarnation it updates all of these (a task registered while
        running).
        """

    @abstractmethod
    async def claim(self, worker: str, number: int, wants: Mapping[str, int]) -> Claim:
        """Lease at most `wants[queue]` ready jobs of each queue, by priority (higher first), then place (FIFO).

        Due jobs of these queues become ready first. A paused queue gives nothing. `number` grows with each claim of an
        incarnation; the same number again returns what that claim returned and is still held, and takes nothing new.
        Raises WorkerGone.
        """

    @abstractmethod
    async def settle(self, worker: str, steps: Sequence[Step]) -> list[bool]:
        """Apply each step whose token (worker, claim) still holds its job; True for those, and for one applied before
        (G14).

        A refused step changes nothing at all. An accepted END stores state, tail and result, inserts `follow` (if
        absent by id), advances its chain or group, and starts the retention. A chain step that succeeds readies the
        next one, whose `prev` becomes this step's result; when the chain has ended meanwhile (cancelled), the position
        moves but nothing is readied. Any other end of the chain's current step ends the chain with that status. A group
        ends when all of its n jobs have ended (a set of indexes, never a counter): successful if all were, else failed;
        then its callbacks are inserted (see `Link`). A requested cancel is forgotten with any step but RELEASE.
        """

    @abstractmethod
    async def beat(self, worker: str, lease: int, info: bytes, progress: Sequence[tuple[str, int, bytes]] = ()) -> Beat:
        """Renew the lease: one call, however many jobs are held. `progress`: (id, claim, bytes), dropped if the token
        is old.

        An `info` of b"" keeps what is stored (whoever beats for a worker that cannot do so itself does not know its
        info).
        """

    @abstractmethod
    async def retire(self, worker: str) -> int:
        """End an incarnation: all that it holds goes back to its old place; no death is counted. How many."""

    @abstractmethod
    async def reclaim(self, worker: str = "", cause: str = "") -> list[str]:
        """Take back what dead workers hold, to its old place, counting a death for each job. Which workers.

        Without a name: those whose lease has ended, with a cause that says so; but if the last such call by anybody was
        more than 3 s ago (the server or the machine stood still), every deadline is moved to one lease from now and
        nothing is taken. With one: that one, at once, whatever its deadline.
        """

    @abstractmethod
    async def promote(self) -> int | None:
        """Make due jobs (and parked ones whose time is over) ready, at most 1,000; when to come again.

        That is the earliest due date or tick of a schedule that is left, which may have come already; None: there is
        none.
        """

    @abstractmethod
    async def wait(self, queues: Sequence[str], until: int | None) -> None:
        """Sleep until there may be work in one of these queues: something became ready since this engine's last claim.

        Returns at `until` at the latest, and of itself at a time of the engine's choosing. May return for nothing.
        """

    # -- schedules ----------------------------------------------------------------------------------------------------

    @abstractmethod
    async def put_schedule(self, entry: Schedule) -> bool:
        """Store it; False, and nothing changed, when one under this id has the same schedule, task, queue and job.

        `job` is compared less its time of enqueueing, as `core.codec.same_job` does.
        """

    @abstractmethod
    async def delete_schedule(self, id: str) -> bool: ...

    @abstractmethod
    async def schedules(self, due: bool = False, limit: int = 1000) -> list[Schedule]:
        """All, by id; with `due` those whose `next_at` has come, earliest first."""

    @abstractmethod
    async def fire(self, ticks: Sequence[Tick]) -> list[bool]:
        """Each tick in one step: if the schedule still stands at `expect`: insert the record (if absent), move it to
        `next_at`.
        """

    # -- operating ----------------------------------------------------------------------------------------------------

    @abstractmethod
    async def cancel(self, ids: Sequence[str], ttl: int | None) -> list[Cancelled]:
        """Waiting, held, due and parked ones end as cancelled, with their chain or group; running ones are asked."""

    @abstractmethod
    async def cancel_link(self, key: str, ttl: int | None) -> bool:
        """Cancel a chain (it ends at once; the step it is at is cancelled or asked) or a group (each job that has not
        ended).
        """

    @abstractmethod
    async def reopen(self, id: str, ended_at: int, tail: bytes) -> bool:
        """Put a failed or cancelled job back, if it still is the end of `ended_at`: ready, at a new place, deaths 0,
        `tail` stored.

        Its result and retention are dropped. Its chain or group reopens: a group forgets this job's outcome, and its
        generation grows if it had ended. A chain goes on from the step that it is at; a later step goes back to being
        held.
        """

    @abstractmethod
    async def delete(self, ids: Sequence[str]) -> list[bool]:
        """Forget ended jobs: record, result, index entry. A chain or group keeps what it knows of them."""

    @abstractmethod
    async def pause(self, queue: str, reason: str, by: str) -> None: ...

    @abstractmethod
    async def resume(self, queue: str) -> None: ...

    @abstractmethod
    async def drain(self, worker: str) -> bool:
        """Ask a worker to drain; it is told with its next beat. False: unknown."""

    @abstractmethod
    async def prune(self) -> int:
        """Forget what has outlived its retention (jobs, and links with the jobs still held back in them), at most
        1,000. How many.
        """

    # -- reading ------------------------------------------------------------------------------------------------------

    @abstractmethod
    async def get(self, ids: Sequence[str]) -> list[Row | None]:
        """What has outlived its retention is shown nowhere, pruned or not, and its id is new again."""

    @abstractmethod
    async def get_link(self, key: str) -> LinkRow | None: ...

    @abstractmethod
    async def results(self, key: str, start: int, limit: int) -> list[bytes | None]:
        """What the members of a group saved, by index from `start`."""

    @abstractmethod
    async def pending(self, queue: str, limit: int, after: str | None) -> list[Row]:
        """Ready jobs in claim order; an `after` that no longer waits: from the head."""

    @abstractmethod
    async def ended(self, state: State, limit: int, after: str | None) -> list[str]:
        """Ids of ended jobs, newest first; `after`: the last id of the page before (unknown: from the newest)."""

    @abstractmethod
    async def jobs(self, which: Filter, limit: int, after: str | None) -> list[Row]:
        """Jobs that match, newest submitted first."""

    @abstractmethod
    async def counts(self) -> Counts: ...

    @abstractmethod
    async def workers(self) -> list[WorkerRow]: ...

    @abstractmethod
    async def paused(self) -> list[PauseRow]: ...

    @abstractmethod
    async def tasks(self) -> dict[str, str]:
        """Every task that a worker has announced, with its queue."""

    @abstractmethod
    async def watch(self, keys: Sequence[Key], until: int | None) -> None:
        """Sleep until one of these has ended or does not exist; at once if it is so. May return for nothing."""

    @abstractmethod
    async def durability(self) -> Durability:
        """Read from the server's settings as they are now."""


# -- a user's own pair ------------------------------------------------------------------------------------------------


class Conflict(TasqueueError):
    """The key's revision is not the expected one: somebody else has written it."""


Revision = Any
"""Opaque to everybody but its own Results."""


class Message(msgspec.Struct, frozen=True):
    """What a broker moves. `due_at`: ms, None: at once."""

    id: str
    body: bytes
    priority: int = 0
    due_at: int | None = None


class Delivery(msgspec.Struct, frozen=True):
    """A message handed out under a lease. `handle` is the broker's own."""

    handle: Any
    id: str
    body: bytes


class Broker(Protocol):
    """Moves messages: at-least-once, priority first, then FIFO. A delivery neither acknowledged nor extended comes
    back.
    """

    async def enqueue(self, queue: str, messages: Sequence[Message]) -> None: ...
    async def consume(self, queue: str, limit: int, lease: float) -> Sequence[Delivery]:
        """At most `limit` messages, leased for that many seconds; those due are included; [] at once when there are
        none.
        """
        ...

    async def extend(self, deliveries: Sequence[Delivery], lease: float) -> None: ...
    async def ack(self, deliveries: Sequence[Delivery]) -> None: ...
    async def release(self, deliveries: Sequence[Delivery], delay: float = 0) -> None:
        """Back to its old place at once, or behind the others after `delay` seconds."""
        ...

    async def get_pending(self, queue: str, limit: int, after: str | None) -> Sequence[Message]: ...


class Results(Protocol):
    """Remembers: keys with compare-and-set, and indexes of ids by time."""

    async def get(self, keys: Sequence[str]) -> Sequence[tuple[bytes, Revision] | None]: ...
    async def set(self, key: str, value: bytes, *, expect: Revision | None, ttl: float | None) -> Revision:
        """Write if the key's revision is `expect` (None: the key must not exist); raises Conflict. `ttl`: seconds,
        None: for ever.
        """
        ...

    async def delete(self, keys: Sequence[str]) -> None: ...
    async def index_add(self, index: str, ids: Sequence[str], at: float) -> None: ...
    async def index_page(self, index: str, limit: int, after: str | None) -> Sequence[str]:
        """Newest first; `after`: the last id of the page before."""
        ...

    async def index_remove(self, index: str, ids: Sequence[str]) -> None: ...
