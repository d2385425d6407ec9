"""`Server`, the façade: a wiring diagram and nothing else. What a call does is in `client` and `runtime`.

Worker code is imported inside `start` and `run` only, so that a process that enqueues never loads it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Self, TypeVar, overload

from msgspec import UNSET, UnsetType

from .client.bridge import Bridge, SyncServer
from .client.connection import Connection, engine_of
from .client.explain import Explanation
from .client.handle import Handle, decoder
from .client.inspector import Inspector
from .client.parts import Parts
from .client.producer import Producer
from .client.registry import Callback, Executor, Registry, Span, define
from .client.setup import Around, Hook, Lifespan, Setup, options
from .client.typed import Home, TaskMaker
from .clock import SYSTEM
from .core.job import DEFAULT_QUEUE, Chain, Group, Job
from .core.message import ChainMessage, GroupMessage, JobMessage, ScheduleMessage
from .core.retry import Backoff
from .events import Bus, Event
from .interfaces import Broker, Engine, Results

E = TypeVar("E", bound=Event)
T = TypeVar("T")


class Server:
    """Enqueues jobs, runs them, and tells what became of them: one object for producers and workers.

    `engine`: a URL (`memory://`, `sqlite:///relative.db`, `redis://host:6379/0`, `nats://host:4222` …) or an Engine; by
    default `$TASQUEUE_URL`, else `sqlite:///tasqueue.db`. Or a pair, `broker` and `results`, each a URL or an object of
    your own; one URL for both is one engine. Spans are seconds or
    timedeltas: `lease` (10), `grace` (30), `timeout` of an engine call (5), `default_timeout` of a job (None),
    `park_for` (a day), `result_ttl` (a day), `failed_ttl` (7 days; None: for ever, 0: at once). `default_concurrency`
    (min(32, CPUs + 4)) counts per process and queue, `max_deaths` (3) per job, `max_payload` (1 MiB) in bytes.
    `lifespan`: an async context manager `fn(srv)`, entered in each worker process before its first claim; what it
    yields is `ctx.state`.

    It connects on first use and belongs to the event loop that does so; `async with srv:` closes it.
    """

    task: TaskMaker
    """`@srv.task` and `@srv.task(name=…, schedule=None, queue=…, …)`: the typed level; see `TaskMaker.__call__`."""
    sync: SyncServer
    """The same calls, blocking, from any thread whose event loop is not running."""

    def __init__(
        self,
        engine: str | Engine | None = None,
        *,
        broker: str | Broker | Engine | None = None,
        results: str | Results | Engine | None = None,
        default_concurrency: int | None = None,
        lease: Span = 10.0,
        grace: Span = 30.0,
        timeout: Span = 5.0,
        default_timeout: Span | None = None,
        max_deaths: int = 3,
        park_for: Span = 86_400.0,
        result_ttl: Span | None = 86_400.0,
        failed_ttl: Span | None = 604_800.0,
        max_payload: int = 1 << 20,
        namespace: str = "tasqueue",
        lifespan: Lifespan | None = None,
    ) -> None:
        checked = options(
            default_concurrency=default_concurrency,
            lease=lease,
            grace=grace,
            timeout=timeout,
            default_timeout=default_timeout,
            max_deaths=max_deaths,
            park_for=park_for,
            result_ttl=result_ttl,
            failed_ttl=failed_ttl,
            max_payload=max_payload,
            namespace=namespace,
        )
        setup = self._setup = Setup(checked, SYSTEM, Registry(), Bus(), [], [], lifespan)
        self._connection = Connection(engine_of(engine, broker, results, checked, SYSTEM))
        self._producer = Producer(self._connection, setup)
        self.inspector = Inspector(self._connection, setup)
        bridge = Bridge(self._connection, setup)
        self.sync = SyncServer(bridge, setup)
        self.task = TaskMaker(Home(setup, self._producer, self.inspector, bridge))
        self._running: _Running | None = None

    def __repr__(self) -> str:
        return f"Server({self._connection.url!r})"

    # -- tasks ----------------------------------------------------------------------------------------------------

    def register_task(
        self,
        name: str,
        handler: Callable[..., Any],
        *,
        queue: str = DEFAULT_QUEUE,
        concurrency: int | None = None,
        max_retries: int = 0,
        timeout: Span | None = None,
        backoff: Backoff = None,
        result_ttl: Span | UnsetType | None = UNSET,
        executor: Executor = "auto",
        success_cb: Callback | None = None,
        processing_cb: Callback | None = None,
        retrying_cb: Callback | None = None,
        failed_cb: Callback | None = None,
    ) -> None:
        """Map a task's name to a handler `(payload: bytes, ctx: JobCtx)`, sync or async. InvalidJob, QueueConflict.

        While a worker runs, a new queue is served at once. `result_ttl`: the server's unless given.
        """
        task = define(
            name,
            handler,
            queue=queue,
            max_retries=max_retries,
            timeout=timeout,
            backoff=backoff,
            result_ttl=result_ttl,
            executor=executor,
            success_cb=success_cb,
            processing_cb=processing_cb,
            retrying_cb=retrying_cb,
            failed_cb=failed_cb,
        )
        self._setup.registry.add(task, concurrency)

    def get_tasks(self) -> list[str]:
        """The names of the registered tasks, sorted."""
        return sorted(self._setup.registry.tasks)

    def on(self, event: type[E], fn: Callable[[E], None]) -> None:
        """Call `fn` at each such event; see `tasqueue.events`."""
        self._setup.bus.on(event, fn)

    def around(self, fn: Around) -> Around:
        """`async fn(ctx, call_next)` around every run; it awaits `call_next(ctx)`. Also as a decorator."""
        self._setup.around.append(fn)
        return fn

    def before_enqueue(self, fn: Hook) -> Hook:
        """`fn(job) -> Job` sees each job before it is stored, steps, members and schedules too. Also as a decorator."""
        self._setup.hooks.append(fn)
        return fn

    # -- producing ------------------------------------------------------------------------------------------------

    async def enqueue(self, job: Job[Any]) -> str:
        """Store a job and return its id; see `Producer.enqueue`."""
        return await self._producer.enqueue(job)

    async def enqueue_many(self, jobs: Iterable[Job[Any]]) -> list[str]:
        """Store many, one round trip per batch; see `Producer.enqueue_many`."""
        return await self._producer.enqueue_many(jobs)

    async def enqueue_chain(self, chain: Chain) -> str:
        """Store a chain, all of it or none; its id."""
        return await self._producer.enqueue_chain(chain)

    async def enqueue_group(self, group: Group) -> str:
        """Store a group, all of it or none; its id."""
        return await self._producer.enqueue_group(group)

    # -- reading and steering: see `Inspector` ----------------------------------------------------------------------

    async def get_job(self, id: str) -> JobMessage:
        """The job and its meta. NotFound."""
        return await self.inspector.get_job(id)

    async def get_result(self, id: str) -> bytes:
        """What the job saved. NotFound when it is unknown or saved nothing."""
        return await self.inspector.get_result(id)

    async def get_chain(self, id: str) -> ChainMessage:
        """The chain as it is now. NotFound."""
        return await self.inspector.get_chain(id)

    async def get_group(self, id: str) -> GroupMessage:
        """The group as it is now. NotFound."""
        return await self.inspector.get_group(id)

    async def get_pending(
        self, queue: str = DEFAULT_QUEUE, *, limit: int = 100, after: str | None = None
    ) -> list[JobMessage]:
        """Jobs that could start now, in claim order."""
        return await self.inspector.get_pending(queue, limit=limit, after=after)

    async def get_failed(self, *, limit: int = 100, after: str | None = None) -> list[str]:
        """Ids of failed jobs, newest first."""
        return await self.inspector.get_failed(limit=limit, after=after)

    async def get_success(self, *, limit: int = 100, after: str | None = None) -> list[str]:
        """Ids of successful jobs, newest first."""
        return await self.inspector.get_success(limit=limit, after=after)

    async def delete_job(self, id: str) -> bool:
        """Forget an ended job; False when there is none or it has not ended."""
        return await self.inspector.delete_job(id)

    async def cancel(self, id: str) -> bool:
        """Cancel a waiting job, ask a running one to stop; False: unknown or ended."""
        return await self.inspector.cancel(id)

    async def cancel_chain(self, id: str) -> bool:
        """Cancel what has not ended of a chain; False: unknown or ended."""
        return await self.inspector.cancel_chain(id)

    async def cancel_group(self, id: str) -> bool:
        """Cancel what has not ended of a group; False: unknown or ended."""
        return await self.inspector.cancel_group(id)

    async def retry(self, id: str) -> bool:
        """Put a failed or cancelled job back, as a new generation; False when there is nothing to put back."""
        return await self.inspector.retry(id)

    async def pause(self, queue: str, reason: str = "") -> None:
        """Start no more jobs of a queue, in the whole fleet."""
        await self.inspector.pause(queue, reason)

    async def resume(self, queue: str) -> None:
        """Undo `pause`."""
        await self.inspector.resume(queue)

    async def get_schedules(self) -> list[ScheduleMessage]:
        """The stored schedules, by id."""
        return await self.inspector.get_schedules()

    async def delete_schedule(self, id: str) -> bool:
        """Enqueue no more ticks of it; False when there is none."""
        return await self.inspector.delete_schedule(id)

    async def wait(self, id: str, timeout: float | None = None) -> JobMessage:
        """Until the job has ended. NotFound, TimeoutError."""
        return await self.inspector.wait(id, timeout)

    async def wait_chain(self, id: str, timeout: float | None = None) -> ChainMessage:
        """Until the chain has ended. NotFound, TimeoutError."""
        return await self.inspector.wait_chain(id, timeout)

    async def wait_group(self, id: str, timeout: float | None = None) -> GroupMessage:
        """Until the group has ended. NotFound, TimeoutError."""
        return await self.inspector.wait_group(id, timeout)

    async def explain(self, id: str) -> Explanation:
        """Why it is not running, or not done."""
        return await self.inspector.explain(id)

    @overload
    def handle(self, id: str) -> Handle[bytes]: ...
    @overload
    def handle(self, id: str, type: type[T]) -> Handle[T]: ...
    @overload
    def handle(self, id: str, type: Any) -> Handle[Any]: ...
    def handle(self, id: str, type: Any = bytes) -> Handle[Any]:
        """A handle on a job; its result is read from msgpack as `type`, `bytes` gives it as it was saved."""
        return Handle(id, decoder(type), self.inspector)

    # -- life -----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self._connection.engine()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop the worker, if it runs here, and close the connections; a later call opens them again."""
        if self._running is not None and not self._running.stopping:
            await self.stop()
        if self.sync.bridge.started:
            await asyncio.to_thread(self.sync.close)
        await self._connection.close()

    async def parts(self, app: str | None = None) -> Parts:
        """What a worker is made of; for the runtime."""
        setup = self._setup
        engine = await self._connection.engine()
        shared = (setup.registry, setup.bus, setup.ports, setup.options, setup.around)
        return Parts(engine, *shared, self._producer, setup.lifespan, self, app)

    async def start(self) -> None:
        """Consume the queues of the registered tasks until `stop`; cancelling it gives everything back at once."""
        await self.work()

    async def work(self) -> int:
        """`start`, for the runtime: how many handlers ignored their interruption and still run."""
        if self._running is not None:
            raise RuntimeError("this Server is running already; `await srv.stop()` first, or make another Server")
        running = self._running = _Running()
        try:
            from .runtime.worker import Worker

            parts = await self.parts()
            if running.stopping:
                return 0
            worker = running.worker = Worker(parts)
            await worker.run()
            return worker.left_behind
        finally:
            self._running = None
            running.ended.set()

    async def stop(self) -> None:
        """Drain: claim no more, let running jobs go on for `grace`, give the rest back. Returns when `start` has.

        Called again while it drains, it skips the grace.
        """
        running = self._running
        if running is not None:
            self._connection.session()  # RuntimeError in another loop
            running.stopping = True
            if running.worker is not None:
                running.worker.stop()
            await running.ended.wait()

    def run(self) -> None:
        """`start()` for scripts: SIGINT and SIGTERM drain, a second one skips the grace."""
        from .runtime.main import run

        run(self)


class _Running:
    """A `start` under way."""

    def __init__(self) -> None:
        self.worker: Any = None
        self.stopping = False
        self.ended = asyncio.Event()
