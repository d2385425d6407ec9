"""A thread with a connection of its own, that runs what is posted to it: whatever waits at the same moment shares one
transaction.

An `Op` is a function of a `Tx`. In the writing lane each has a savepoint when it is not alone, so that one that fails
does not undo its neighbours. The invariant: an op is answered only after the commit that holds it, and one whose
caller has gone (cancelled, or told `EngineUnavailable` because the time was up) before it began is never begun.

Time is the caller's business: this thread waits for locks in short random steps, for as long as somebody waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from ... import faults
from ...clock import Ports
from ...errors import EngineUnavailable
from . import database, errors
from .sql import Sql

log = logging.getLogger("tasqueue.sqlite")

MOST = 64
"""Ops in one transaction."""
QUIET = 0.2
"""Seconds without an op after which the log is tidied."""


class Tx:
    """What an op works with: the connection within a transaction, the statements, the time in ms, and what to do
    after the commit."""

    __slots__ = ("connection", "news", "now", "passed", "sql")

    def __init__(self, connection: sqlite3.Connection, sql: Sql, now: int) -> None:
        self.connection = connection
        self.sql = sql
        self.now = now
        self.news = False
        """Something became ready or due, has ended, or was forgotten."""
        self.passed: list[str] = []
        """Fault points that lie behind the commit."""

    def run(self, name: str, *values: Any) -> sqlite3.Cursor:
        order = self.sql.order.get(name)
        return self.connection.execute(self.sql[name], values if order is None else [values[i] for i in order])

    def value(self, name: str, *values: Any) -> Any:
        """The first column of the first row; None when there is none."""
        row = self.run(name, *values).fetchone()
        return None if row is None else row[0]

    def column(self, name: str, *values: Any) -> list[Any]:
        """The first column of each row."""
        return [row[0] for row in self.run(name, *values)]

    def bulk(
        self, name: str, width: int, values: list[Any], before: tuple[Any, ...] = (), after: tuple[Any, ...] = ()
    ) -> int:
        return self.sql.bulk(self.connection, name, width, values, before, after)

    def place(self, n: int) -> int:
        """The first of n new numbers."""
        return self.value("place", n) - n + 1


class Op:
    """One call, as posted. `durable`: its answer means that it is on the disk."""

    __slots__ = ("answer", "before", "durable", "error", "fn", "future", "ids", "passed")

    def __init__(
        self, fn: Callable[[Tx], Any], future: asyncio.Future[Any], durable: bool, before: str, ids: tuple[str, ...]
    ) -> None:
        self.fn = fn
        self.future = future
        self.durable = durable
        self.before = before
        """A fault point that lies before the write."""
        self.ids = ids
        self.answer: Any = None
        self.error: BaseException | None = None
        self.passed: list[str] = []


class Lane:
    """See the module's docstring. `rang` is called after each commit that gave somebody news; None: this lane only
    reads."""

    def __init__(
        self,
        path: str,
        names: Sql,
        ports: Ports,
        loop: asyncio.AbstractEventLoop,
        *,
        synchronous: str,
        rang: Callable[[], None] | None,
    ) -> None:
        self.path = path
        self.blocked = False
        """Somebody else holds the lock."""
        self._names = names
        self._ports = ports
        self._loop = loop
        self._synchronous = synchronous
        self._rang = rang
        self._file = database.File(path)
        self._queue: SimpleQueue[Op | None] = SimpleQueue()
        self._connection: sqlite3.Connection | None = None
        self._second: sqlite3.Connection | None = None
        """For checkpoints."""
        self._identity: tuple[int, int] | None = None
        self._full = True
        self._wal_next = database.WAL_LIMIT
        self._untidy = False
        self._stopped: asyncio.Future[None] = loop.create_future()
        self._thread = threading.Thread(
            target=self._main, name=f"tasqueue-sqlite-{'write' if rang else 'read'}", daemon=True
        )
        self._thread.start()

    def post(self, op: Op) -> None:
        """From the loop."""
        self._queue.put(op)

    async def stop(self, seconds: float) -> None:
        """When what was posted before has been answered; a disk that gives no answer is not waited for any longer
        than that."""
        self._queue.put(None)
        done, _ = await asyncio.wait([self._stopped], timeout=seconds)
        if done:
            self._thread.join()

    def abandon(self) -> None:
        """Stop without being waited for: the loop has gone."""
        self._queue.put(None)

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _main(self) -> None:
        stop = False
        try:
            while not stop:
                ops, stop = self._gather()
                if ops:
                    self._answer(self._attempt(ops))
                if self._rang is not None and self._connection is not None:
                    self._tidy(idle=not ops)
        finally:
            self._disconnect()
            self._tell(_finish, self._stopped)

    def _gather(self) -> tuple[list[Op], bool]:
        try:
            op = self._queue.get(timeout=QUIET if self._untidy else None)
        except Empty:
            return [], False
        ops: list[Op] = []
        while op is not None:
            if not op.future.done():
                ops.append(op)
            if len(ops) >= MOST:
                return ops, False
            try:
                op = self._queue.get_nowait()
            except Empty:
                return ops, False
        return ops, True

    def _attempt(self, ops: list[Op]) -> list[Op]:
        """Run them, again and again while somebody else holds the lock and somebody still waits for the answer."""
        wait = 0.001
        while True:
            try:
                connection = self._connect()
                self._run(connection, ops)
            except sqlite3.Error as error:
                if errors.is_busy(error):
                    self.blocked = True
                    # Shorter than SQLite's own busy handler, whose steps grow to 100 ms; random, so that waiters do
                    # not march in step.
                    time.sleep(wait * (0.5 + self._ports.rand()))
                    wait = min(wait * 1.5, 0.02)
                    ops = [op for op in ops if not op.future.done()]
                    if ops:
                        continue
                else:
                    self.blocked = False
                    self._fail(ops, errors.translate(error, self.path))
                    if errors.code(error) != errors.FULL:  # then opening it anew could fail too, and differently
                        self._disconnect()
            except Exception as error:
                self._fail(ops, error)
                self._disconnect()
            else:
                self.blocked = False
            return ops

    def _fail(self, ops: list[Op], error: BaseException) -> None:
        for op in ops:
            op.error = EngineUnavailable(str(error), ids=op.ids) if isinstance(error, EngineUnavailable) else error

    def _run(self, connection: sqlite3.Connection, ops: list[Op]) -> None:
        reading = self._rang is None
        if not reading:
            self._sync(connection, any(op.durable for op in ops))
        connection.execute("BEGIN" if reading else "BEGIN IMMEDIATE")
        tx = Tx(connection, self._names, int(self._ports.now() * 1000))
        try:
            for op in ops:
                self._run_one(tx, op, alone=len(ops) == 1)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        if reading:
            return
        self._untidy = True
        if self._rang is not None and tx.news:
            self._rang()
        for op in ops:
            self._pass(op)

    def _run_one(self, tx: Tx, op: Op, alone: bool) -> None:
        """An op that fails undoes itself; an error of the database is everybody's, and undoes all."""
        if not alone:
            tx.connection.execute("SAVEPOINT op")
        op.error = None
        tx.passed = op.passed = []
        try:
            if op.before and faults.active:
                faults.point(op.before)
            op.answer = op.fn(tx)
        except (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError) as error:
            op.error = errors.translate(error, self.path)
        except sqlite3.Error:
            raise
        except Exception as error:
            op.error = error
        if alone:
            if op.error is not None:
                tx.connection.execute("ROLLBACK")
                tx.connection.execute("BEGIN")
        else:
            if op.error is not None:
                tx.connection.execute("ROLLBACK TO op")
            tx.connection.execute("RELEASE op")

    def _pass(self, op: Op) -> None:
        """The fault points behind the commit, where a reply can be lost."""
        if faults.active and op.error is None:
            try:
                for name in op.passed:
                    faults.point(name)
            except Exception as error:
                op.error = error

    def _answer(self, ops: list[Op]) -> None:
        if ops:
            self._tell(_deliver, ops)

    def _tell(self, fn: Callable[[Any], None], value: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(fn, value)
        except RuntimeError:  # the loop has been closed, and nobody waits any more
            pass

    # -- the connection -----------------------------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        """The connection; a new one when there is none, or when the path names another file than the one that is
        open."""
        if self._connection is not None:
            if self._file.identity() == self._identity:
                return self._connection
            log.warning("%s: the file was moved or replaced; opening what is there now", self.path)
            self._disconnect()
        reading = self._rang is None
        connection = database.connect(self.path, synchronous=self._synchronous)
        try:
            database.prepare(connection, self._names, self.path)
            if reading:
                connection.execute("PRAGMA query_only = ON")
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._identity = self._file.identity()
        self._full = True
        return connection

    def _disconnect(self) -> None:
        for connection in (self._second, self._connection):
            if connection is not None:
                try:
                    connection.close()
                except sqlite3.Error as error:
                    log.warning("%s: closing failed: %s", self.path, error)
        self._second = self._connection = None

    def _sync(self, connection: sqlite3.Connection, durable: bool) -> None:
        """A claim or a beat that a power cut undoes leaves nothing wrong: the worker is gone too. So it need not wait
        for the disk."""
        if durable != self._full:
            level = self._synchronous if durable or self._synchronous == "OFF" else "NORMAL"
            connection.execute(f"PRAGMA synchronous = {level}")
            self._full = durable

    def _tidy(self, idle: bool) -> None:
        """Keep log and file small: when the log has grown, and when there is nothing else to do."""
        size = self._file.wal_size()
        if size <= database.WAL_LIMIT:
            self._wal_next = database.WAL_LIMIT
        try:
            if idle:
                self._untidy = self._tidy_at_leisure(size)
            elif size > self._wal_next:
                self._wal_next = database.WAL_LIMIT if self._checkpoint() else size + database.WAL_LIMIT // 4
        except (sqlite3.Error, errors.FileUnusable) as error:
            if not (isinstance(error, sqlite3.Error) and errors.is_busy(error)):  # somebody writes just now
                log.warning("%s: the checkpoint failed and is tried again later: %s", self.path, error)
            self._wal_next = size + database.WAL_LIMIT // 4

    def _tidy_at_leisure(self, size: int) -> bool:
        """Whether there is more to do."""
        assert self._connection is not None
        self._sync(self._connection, False)
        if database.give_back_pages(self._connection):
            return True
        if size <= database.WAL_IDLE:
            return False
        if not self._checkpoint():
            return True
        database.shrink(self._connection, self._names["touch"])
        return False

    def _checkpoint(self) -> bool:
        assert self._connection is not None
        if self._second is None:
            self._second = database.connect(self.path, synchronous=self._synchronous)
        return database.checkpoint(self._connection, self._second)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _deliver(ops: list[Op]) -> None:
    for op in ops:
        if not op.future.done():
            if op.error is None:
                op.future.set_result(op.answer)
            else:
                op.future.set_exception(op.error)
