"""Enqueueing: jobs, chains, groups and schedules become records, and records are stored before any call returns (G1).

Calls that meet in one tick of the loop share one round trip. A failing one fails each caller with the ids of its
own, so that all may enqueue again. Ids of steps, members and callbacks are derived from their cause (G5).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from .. import faults
from ..core.cron import parse
from ..core.ids import derive, uuid7
from ..core.job import Chain, Group, Job
from ..core.record import Link, Record, Schedule, chain_key, group_key
from ..errors import EngineUnavailable, InvalidJob, Unsupported
from ..events import Enqueued
from .connection import Connection, Session
from .encoder import Encoder
from .routes import Routes
from .setup import Setup

CHUNK = 1000
"""Records of one submit, at most."""
CHUNK_BYTES = 4 << 20
NO_ARGUMENTS = b"\x92\x90\x80"
"""What `pack()` makes: msgpack of `[[], {}]`."""


class _Batch:
    """The calls of one tick, and who waits for them."""

    __slots__ = ("callers", "links", "records", "session", "size")

    def __init__(self, session: Session) -> None:
        self.session = session
        self.records: list[Record] = []
        self.links: list[Link] = []
        self.callers: list[tuple[asyncio.Future[None], Sequence[str]]] = []
        self.size = 0


class Producer:
    """Stores what it is given. One for each connection; what it was told (`Setup`) is shared."""

    def __init__(self, connection: Connection, setup: Setup) -> None:
        self.connection = connection
        self._setup = setup
        self._encoder = Encoder(setup)
        self._routes = Routes(connection, setup.registry, setup.ports)
        self._batch: _Batch | None = None
        self._sending: set[asyncio.Task[None]] = set()

    # -- jobs -----------------------------------------------------------------------------------------------------

    async def enqueue(self, job: Job[Any]) -> str:
        """Store a job and return its id; the same id again changes nothing. For a scheduled job: the schedule's id.

        EngineUnavailable (the job may be stored; enqueueing it again is safe), InvalidJob, PayloadTooLarge.
        """
        session = self.connection.session()
        if isinstance(job, Job) and job.schedule is not None:  # pyright: ignore[reportUnnecessaryIsInstance]
            return await self._put_schedule(job)
        (job,) = self._encoder.hooked((job,))
        queues = await self._routes.find((job,))
        now, noise = self._now(), self._setup.ports.bits(10)
        record = self._encoder.record(job, job.id or uuid7(now, noise), queues, now)
        if faults.active:
            faults.point("E1.encoded")
        await self._submit(session, (record,), (), (record.id,))
        return record.id

    async def enqueue_many(self, jobs: Iterable[Job[Any]]) -> list[str]:
        """Store jobs in their order, some 1,000 in each round trip; their ids. None is stored unless all are valid."""
        if not isinstance(jobs, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidJob(f"enqueue_many takes an iterable of Jobs, not {type(jobs).__name__} ({jobs!r})")
        session = self.connection.session()
        given = self._encoder.hooked(tuple(jobs))
        queues = await self._routes.find(given)
        now = self._now()
        ids: list[str] = []
        chunks: list[list[Record]] = []
        schedules: list[Job[Any]] = []
        size = 0
        for start in range(0, len(given), CHUNK):
            if start:
                await asyncio.sleep(0)  # others get their turn
            part = given[start : start + CHUNK]
            noise = self._setup.ports.bits(10 * len(part))
            chunk: list[Record] = []
            for i, job in enumerate(part):
                if job.schedule is not None:
                    schedules.append(job)
                    ids.append(_schedule_id(job))
                    continue
                record = self._encoder.record(job, job.id or uuid7(now, noise[10 * i : 10 * i + 10]), queues, now)
                size += len(record.spec)
                if size > CHUNK_BYTES and chunk:
                    chunks.append(chunk)
                    chunk, size = [], len(record.spec)
                chunk.append(record)
                ids.append(record.id)
            if chunk:
                chunks.append(chunk)
                size = 0
        if faults.active:
            faults.point("E1.encoded")
        await self._store_chunks(session, chunks, ids)
        for job in schedules:
            await self._put(job, queues, _schedule_id(job))
        return ids

    async def _store_chunks(self, session: Session, chunks: list[list[Record]], ids: Sequence[str]) -> None:
        try:
            if not session.opened:
                await session.open()
            for chunk in chunks:
                await session.engine.submit(chunk)
        except EngineUnavailable as error:
            raise EngineUnavailable(str(error), ids=ids) from error
        self._stored(ids)

    # -- chains and groups ----------------------------------------------------------------------------------------

    async def enqueue_chain(self, chain: Chain) -> str:
        """Store a chain, all of it or none; its id. The same id again changes nothing."""
        if not isinstance(chain, Chain):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidJob(f"enqueue_chain takes a Chain, not {type(chain).__name__} ({chain!r})")
        steps = self._encoder.hooked(chain.jobs, "a step of a chain")
        queues = await self._routes.find(steps)
        now = self._now()
        id = chain.id or uuid7(now, self._setup.ports.bits(10))
        key = chain_key(id)
        records = [self._encoder.record(job, derive(id, f"c{i}"), queues, now) for i, job in enumerate(steps)]
        for i, record in enumerate(records):
            record.link, record.pos, record.held = key, i, i > 0
        options = self._setup.options
        link = Link(key, len(records), (), (), options.result_ttl_ms, options.failed_ttl_ms, options.max_payload)
        return await self._enqueue_link(id, records, link)

    async def enqueue_group(self, group: Group) -> str:
        """Store a group, all of it or none; its id. The same id again changes nothing."""
        if not isinstance(group, Group):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidJob(f"enqueue_group takes a Group, not {type(group).__name__} ({group!r})")
        members = self._encoder.hooked(group.jobs, "a member of a group")
        on_success = self._encoder.hooked(group.follow_ups("on_success"), "a group's on_success")
        on_error = self._encoder.hooked(group.follow_ups("on_error"), "a group's on_error")
        queues = await self._routes.find((*members, *on_success, *on_error))
        now = self._now()
        id = group.id or uuid7(now, self._setup.ports.bits(10))
        key = group_key(id)
        records = [self._encoder.record(job, derive(id, f"g{i}"), queues, now) for i, job in enumerate(members)]
        for i, record in enumerate(records):
            record.link, record.pos = key, i
        why = f"group {id!r} failed: not all of its {len(records)} job(s) succeeded"
        options = self._setup.options
        link = Link(
            key,
            len(records),
            [
                self._encoder.record(job, derive(id, f"s{i}"), queues, now, results_of=id)
                for i, job in enumerate(on_success)
            ],
            [
                self._encoder.record(job, derive(id, f"e{i}"), queues, now, results_of=id, cause_id=id, cause_err=why)
                for i, job in enumerate(on_error)
            ],
            options.result_ttl_ms,
            options.failed_ttl_ms,
            options.max_payload,
        )
        return await self._enqueue_link(id, records, link)

    async def _enqueue_link(self, id: str, records: list[Record], link: Link) -> str:
        session = self.connection.session()
        most = session.engine.capabilities.max_link
        if len(records) > most:
            raise Unsupported(
                f"{len(records):,} jobs in one chain or group {id!r}: {session.engine.url} stores at most {most:,} in "
                "one atomic write; split it, or use another engine"
            )
        if faults.active:
            faults.point("E1.encoded")
        await self._submit(session, records, (link,), (id,))
        return id

    # -- schedules ------------------------------------------------------------------------------------------------

    async def store_task_schedules(self) -> None:
        """Store `cron:<task>` for each registered task with a schedule; unchanged ones stay as they are."""
        for task in list(self._setup.registry.tasks.values()):
            if task.schedule is not None:
                job: Job[Any] = Job(task.name, NO_ARGUMENTS, queue=task.queue, schedule=task.schedule)
                await self._put(job, {}, f"cron:{task.name}")

    async def _put_schedule(self, job: Job[Any]) -> str:
        id = _schedule_id(job)  # of the job as given: a hook may add what differs from call to call
        (job,) = self._encoder.hooked((job,))
        queues = await self._routes.find((job,))
        try:
            await self._put(job, queues, id)
        except EngineUnavailable as error:
            raise EngineUnavailable(str(error), ids=(id,)) from error
        return id

    async def _put(self, job: Job[Any], queues: Mapping[str, str], id: str) -> None:
        schedule = parse(job.schedule)
        engine = await self.connection.engine()
        now = await engine.now()
        record = self._encoder.record(job, id, queues, now, schedule=schedule.text)
        if faults.active:
            faults.point("E1.encoded")
        await engine.put_schedule(
            Schedule(id, schedule.text, job.task, record.queue, job.priority, record.spec, now, schedule.first(now))
        )
        if faults.active:
            faults.point("E4.returned")

    def _now(self) -> int:
        return int(self._setup.ports.now() * 1000)

    # -- the shared round trip ------------------------------------------------------------------------------------

    async def _submit(
        self, session: Session, records: Sequence[Record], links: Sequence[Link], ids: Sequence[str]
    ) -> None:
        batch = self._batch
        done: asyncio.Future[None] | None = None
        if batch is None or batch.session is not session or len(batch.records) >= CHUNK or batch.size > CHUNK_BYTES:
            batch = self._batch = _Batch(session)
        else:
            done = session.loop.create_future()
            batch.callers.append((done, ids))
        batch.records += records
        batch.links += links
        batch.size += sum(len(record.spec) for record in records)
        if done is not None:
            await done
        else:
            try:
                await asyncio.sleep(0)  # the tick in which the others come
                await self._send(batch, ids)
            except asyncio.CancelledError:
                if batch.callers:  # it is this caller who was cancelled: the others are served nevertheless
                    task = session.loop.create_task(self._send_for_others(batch))
                    self._sending.add(task)
                    task.add_done_callback(self._sending.discard)
                raise
        self._stored(ids)

    def _stored(self, ids: Sequence[str]) -> None:
        if self._setup.bus.wanted(Enqueued):
            self._setup.bus.emit(Enqueued(tuple(ids)))
        if faults.active:
            faults.point("E4.returned")

    async def _send(self, batch: _Batch, ids: Sequence[str]) -> None:
        """Store it and tell all who wait; what fails fails each with the ids of its own, the one who calls too."""
        if self._batch is batch:
            self._batch = None
        try:
            if not batch.session.opened:
                await batch.session.open()
            await batch.session.engine.submit(batch.records, batch.links)
        except Exception as error:
            for done, theirs in batch.callers:
                if not done.done():
                    done.set_exception(_for_these(error, theirs))
            raise _for_these(error, ids) from error.__cause__
        for done, _ in batch.callers:
            if not done.done():
                done.set_result(None)

    async def _send_for_others(self, batch: _Batch) -> None:
        try:
            await self._send(batch, ())
        except asyncio.CancelledError:  # the loop is being taken down
            for done, _ in batch.callers:
                done.cancel()
            raise
        except Exception:  # they have been told
            pass


def _for_these(error: Exception, ids: Sequence[str]) -> Exception:
    return EngineUnavailable(str(error), ids=ids) if isinstance(error, EngineUnavailable) else error


def _schedule_id(job: Job[Any]) -> str:
    """The job's own id, or one made of task, payload, queue and schedule: the same at every start."""
    if job.id is not None:
        return job.id
    text = parse(job.schedule).text
    about = msgspec.msgpack.encode([job.task, job.payload, job.queue, text])
    return f"schedule-{hashlib.sha256(about).hexdigest()[:32]}"
