"""Looking at jobs, links, schedules and workers, and steering them: what the CLI and the dashboard are made of.

The worker never uses it. Every read is one round trip; nothing is written by reading.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Literal, TypeVar

import msgspec

from ..core import codec, message
from ..core.codec import NewerVersion, Tail, Undecodable
from ..core.job import DEFAULT_QUEUE, check_count
from ..core.message import ChainMessage, GroupMessage, JobMessage, ScheduleMessage
from ..core.record import Row, chain_key, group_key
from ..core.status import ENDED, State, Status
from ..errors import InvalidJob, NotFound
from ..interfaces import Cancelled, Counts, Durability, Engine, Filter, Key, PauseRow
from .connection import Connection
from .explain import Explanation, explain
from .setup import Setup

T = TypeVar("T")

_STATES: dict[Status, tuple[State, ...]] = {
    Status.QUEUED: (State.HELD, State.READY, State.DUE, State.PARKED),
    Status.RETRYING: (State.READY, State.DUE, State.PARKED),
    Status.PROCESSING: (State.RUNNING,),
    Status.SUCCESSFUL: (State.SUCCESSFUL,),
    Status.FAILED: (State.FAILED,),
    Status.CANCELLED: (State.CANCELLED,),
}


class WorkerMessage(msgspec.Struct, frozen=True):
    """A registered worker: until when its lease runs, how many jobs it holds, and what it last told of itself."""

    id: str
    lease_until: datetime | None
    held: int
    info: Mapping[str, Any]


class Inspector:
    """Reads and steers. One for each connection."""

    def __init__(self, connection: Connection, setup: Setup) -> None:
        self.connection = connection
        self._setup = setup

    # -- jobs -----------------------------------------------------------------------------------------------------

    async def get_job(self, id: str) -> JobMessage:
        """A job and its meta. NotFound."""
        return self._message(await self._row(id))

    async def get_result(self, id: str) -> bytes:
        """What the job saved. NotFound when it is unknown or saved nothing."""
        row = await self._row(id)
        if row.result is None:
            status = self._message(row).meta.status
            raise NotFound(
                f"job {id!r} has no result: it is {status}"
                + (" and saved nothing" if status.final else f"; `await srv.wait({id!r})` waits for its end")
            )
        return row.result

    async def get_pending(
        self, queue: str = DEFAULT_QUEUE, *, limit: int = 100, after: str | None = None
    ) -> list[JobMessage]:
        """Jobs that could start now, in claim order; an `after` that no longer waits: from the head."""
        engine = await self.connection.engine()
        return [self._message(row) for row in await engine.pending(queue, _limit(limit), after)]

    async def get_failed(self, *, limit: int = 100, after: str | None = None) -> list[str]:
        """Ids, newest first; `after` is the last id of the page before."""
        return await (await self.connection.engine()).ended(State.FAILED, _limit(limit), after)

    async def get_success(self, *, limit: int = 100, after: str | None = None) -> list[str]:
        """Ids, newest first; `after` is the last id of the page before."""
        return await (await self.connection.engine()).ended(State.SUCCESSFUL, _limit(limit), after)

    async def jobs(
        self,
        *,
        status: Status | str | None = None,
        queue: str | None = None,
        task: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> list[JobMessage]:
        """Jobs that match, newest submitted first. InvalidJob for a status that there is none of."""
        try:
            wanted = None if status is None else Status(status)
        except ValueError:
            raise InvalidJob(f"status {status!r}: one of {', '.join(Status)}, please") from None
        which = Filter(None if wanted is None else _STATES[wanted], queue, task)
        engine = await self.connection.engine()
        found: list[JobMessage] = []
        while len(found) < _limit(limit):
            rows = await engine.jobs(which, limit, after)
            # queued and retrying share states: which it is, the tail tells
            matching = (self._message(row) for row in rows)
            found += [job for job in matching if wanted is None or job.meta.status is wanted]
            if len(rows) < limit:
                break
            after = rows[-1].id
        return found[:limit]

    async def delete_job(self, id: str) -> bool:
        """Forget an ended job. False when there is none or it has not ended."""
        return (await (await self.connection.engine()).delete([_text(id)]))[0]

    async def cancel(self, id: str) -> bool:
        """True: it is cancelled, or, if it runs, asked to stop. False: unknown or ended."""
        answer = await self.cancelled(id)
        return answer.done or answer.asked

    async def cancelled(self, id: str) -> Cancelled:
        """As `cancel`; the answer tells which of the two it was."""
        engine = await self.connection.engine()
        return (await engine.cancel([_text(id)], await self._cancelled_ttl(engine, id)))[0]

    async def _cancelled_ttl(self, engine: Engine, id: str) -> int | None:
        """The retention that the job's task asks for; it is looked up only if any task asks for one of its own."""
        tasks = self._setup.registry.tasks
        if any(task.result_ttl is not msgspec.UNSET for task in list(tasks.values())):
            row = (await engine.get([id]))[0]
            task = tasks.get(row.task) if row is not None else None
            if task is not None and not isinstance(task.result_ttl, msgspec.UnsetType):
                return task.result_ttl
        return self._setup.options.result_ttl_ms

    async def retry(self, id: str) -> bool:
        """Put a failed or cancelled job back, as a new generation; False when it is unknown or neither."""
        engine = await self.connection.engine()
        row = (await engine.get([_text(id)]))[0]
        if row is None or row.state not in (State.FAILED, State.CANCELLED) or row.ended_at is None:
            return False
        return await engine.reopen(id, row.ended_at, _reopened(row, await engine.now()))

    async def wait(self, id: str, timeout: float | None = None) -> JobMessage:
        """Until it has ended, at most `timeout` seconds. NotFound (also when forgotten meanwhile), TimeoutError."""
        return (await self.outcome(id, timeout))[0]

    async def outcome(self, id: str, timeout: float | None = None) -> tuple[JobMessage, bytes | None]:
        """As `wait`, with what the job saved."""
        row = await self._until(("job", _text(id)), timeout, self._row, lambda row: row.state in ENDED)
        return self._message(row), row.result

    async def explain(self, id: str) -> Explanation:
        """Why a job is not running, or not done: a code, a sentence, and what it was concluded from."""
        return await explain(await self.connection.engine(), _text(id))

    # -- chains and groups ----------------------------------------------------------------------------------------

    async def get_chain(self, id: str) -> ChainMessage:
        """The chain as it is now, in one round trip. NotFound."""
        link = await (await self.connection.engine()).get_link(chain_key(_text(id)))
        if link is None:
            raise _not_found("chain", id)
        return message.chain_message(link)

    async def get_group(self, id: str) -> GroupMessage:
        """The group as it is now, in one round trip. NotFound."""
        link = await (await self.connection.engine()).get_link(group_key(_text(id)))
        if link is None:
            raise _not_found("group", id)
        return message.group_message(link)

    async def link_kind(self, id: str) -> Literal["chain", "group"] | None:
        """What has this id, if it is no job's; a chain and a group of one id: the chain."""
        engine = await self.connection.engine()
        if await engine.get_link(chain_key(_text(id))) is not None:
            return "chain"
        return None if await engine.get_link(group_key(id)) is None else "group"

    async def wait_chain(self, id: str, timeout: float | None = None) -> ChainMessage:
        """Until the chain has ended. As `wait`."""
        return await self._until(("chain", id), timeout, self.get_chain, lambda chain: chain.status.final)

    async def wait_group(self, id: str, timeout: float | None = None) -> GroupMessage:
        """Until the group has ended. As `wait`."""
        return await self._until(("group", id), timeout, self.get_group, lambda group: group.status.final)

    async def cancel_chain(self, id: str) -> bool:
        """Cancel what has not ended of it. False: unknown or ended."""
        engine = await self.connection.engine()
        return await engine.cancel_link(chain_key(_text(id)), self._setup.options.result_ttl_ms)

    async def cancel_group(self, id: str) -> bool:
        """Cancel what has not ended of it. False: unknown or ended."""
        engine = await self.connection.engine()
        return await engine.cancel_link(group_key(_text(id)), self._setup.options.result_ttl_ms)

    # -- the fleet ------------------------------------------------------------------------------------------------

    async def pause(self, queue: str, reason: str = "") -> None:
        """Claim nothing more from a queue, anywhere; none starts later than 1 s after the return."""
        import getpass
        import socket

        try:
            user = getpass.getuser()
        except (OSError, KeyError):  # a container's user without a name
            user = "?"
        await (await self.connection.engine()).pause(queue, reason, f"{user}@{socket.gethostname()}")

    async def resume(self, queue: str) -> None:
        """Undo `pause`; no error if the queue is not paused."""
        await (await self.connection.engine()).resume(queue)

    async def paused(self) -> list[PauseRow]:
        """The paused queues: why, by whom, since when."""
        return await (await self.connection.engine()).paused()

    async def get_schedules(self) -> list[ScheduleMessage]:
        """The stored schedules, by id."""
        return [message.schedule_message(entry) for entry in await (await self.connection.engine()).schedules()]

    async def delete_schedule(self, id: str) -> bool:
        """No tick is enqueued after it; False when there is none."""
        return await (await self.connection.engine()).delete_schedule(_text(id))

    async def counts(self) -> Counts:
        """How many jobs there are, by queue and state, and the ended ones by state."""
        return await (await self.connection.engine()).counts()

    async def workers(self) -> list[WorkerMessage]:
        """The registered workers."""
        return [
            WorkerMessage(row.id, message.moment(row.deadline), row.held, _info(row.info))
            for row in await (await self.connection.engine()).workers()
        ]

    async def drain(self, worker: str) -> bool:
        """Ask a worker to drain; it is told with its next beat. False: unknown."""
        return await (await self.connection.engine()).drain(worker)

    async def durability(self) -> Durability:
        """What the server's settings really promise."""
        return await (await self.connection.engine()).durability()

    # -- helpers --------------------------------------------------------------------------------------------------

    async def _row(self, id: str) -> Row:
        row = (await (await self.connection.engine()).get([_text(id)]))[0]
        if row is None:
            raise _not_found("job", id)
        return row

    def _message(self, row: Row) -> JobMessage:
        task = self._setup.registry.tasks.get(row.task)
        return message.message(row, 0 if task is None else task.max_retries)

    async def _until(
        self, key: Key, timeout: float | None, read: Callable[[str], Awaitable[T]], ended: Callable[[T], bool]
    ) -> T:
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        seen = await read(key[1])
        try:
            async with asyncio.timeout_at(deadline):
                while not ended(seen):
                    await (await self.connection.engine()).watch([key], None)
                    seen = await read(key[1])
        except TimeoutError:
            raise TimeoutError(
                f"{key[0]} {key[1]!r} has not ended within {timeout:g} s; `await srv.explain(id)` tells why"
            ) from None
        return seen


def _reopened(row: Row, now: int) -> bytes:
    """The tail of the next generation: the history stays, the counters and the ids of follow-ups do not."""
    try:
        tail = codec.decode_tail(row.tail)
    except (Undecodable, NewerVersion):
        return row.tail
    errors = tail.errors
    if tail.kept:  # it was refused as undecodable: offer again what was there then
        try:
            tail = codec.decode_tail(tail.kept)
        except (Undecodable, NewerVersion):
            return tail.kept
    return codec.encode_tail(
        Tail(
            status=Status.QUEUED,
            started_at=tail.started_at,
            processed_at=now,
            worker=tail.worker,
            prev_err=tail.prev_err,
            errors=errors,
            generation=tail.generation + 1,
        )
    )


def _info(data: bytes) -> dict[str, Any]:
    try:
        return msgspec.convert(msgspec.msgpack.decode(data), dict[str, Any])
    except msgspec.DecodeError:  # another library's, or a newer one's
        return {}


def _limit(limit: int) -> int:
    if check_count(limit, "limit") < 1:
        raise InvalidJob(f"limit {limit!r}: a whole number from 1, please")
    return limit


def _text(id: str) -> str:
    if not isinstance(id, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidJob(f"an id is a str, not {type(id).__name__} ({id!r}); a handle has it as .id")
    return id


def _not_found(what: str, id: str) -> NotFound:
    return NotFound(f"{what} {id!r} is unknown: never enqueued here, deleted, or forgotten after its retention")
