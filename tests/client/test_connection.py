"""A Server belongs to the loop that first used it; after that loop, or after a fork, it connects anew."""

from __future__ import annotations

import asyncio
import os
import threading
import traceback
from pathlib import Path
from typing import Any

import pytest

from tasqueue import InvalidJob, Job, Server, Unsupported
from tasqueue.client.connection import Connection
from tasqueue.clock import SYSTEM
from tasqueue.engines import connect
from tasqueue.interfaces import Engine


def memory() -> Engine:
    return connect("memory://", namespace="n", timeout=1.0, ports=SYSTEM)


def test_after_its_loop_is_closed_it_connects_anew() -> None:
    srv = Server("memory://")
    for i in range(3):
        assert asyncio.run(srv.enqueue(Job("t", id=f"j{i}"))) == f"j{i}"

    async def look() -> list[str]:
        async with srv:
            return [m.meta.id for m in await srv.get_pending()]

    assert asyncio.run(look()) == ["j0", "j1", "j2"]
    assert asyncio.run(look()) == ["j0", "j1", "j2"]


async def test_from_a_second_living_loop_it_raises_with_the_way_out() -> None:
    async with Server("memory://") as srv:
        await srv.enqueue(Job("t", id="a"))
        with pytest.raises(RuntimeError, match=r"belongs to another event loop.*srv\.sync.*Server of its own"):
            await asyncio.to_thread(asyncio.run, srv.get_job("a"))
        assert (await srv.get_job("a")).meta.id == "a"


async def test_a_closed_server_can_be_used_again_in_its_loop_and_in_another() -> None:
    srv = Server("memory://")
    async with srv:
        await srv.enqueue(Job("t", id="a"))
    async with srv:
        assert (await srv.get_job("a")).meta.id == "a"
    assert (await asyncio.to_thread(asyncio.run, srv.get_job("a"))).meta.id == "a"


async def test_it_is_opened_once_by_many_at_once() -> None:
    engine = memory()
    opened = 0
    open_it = engine.open

    async def count() -> None:
        nonlocal opened
        opened += 1
        await asyncio.sleep(0)
        await open_it()

    engine.open = count  # type: ignore[method-assign]
    connection = Connection(engine)
    engines = await asyncio.gather(*(connection.engine() for _ in range(10)))
    assert opened == 1
    assert set(engines) == {engine}
    await connection.close()
    await connection.close()


async def test_a_failed_open_is_tried_again_by_the_next_call() -> None:
    engine = memory()
    open_it = engine.open

    async def refuse() -> None:
        raise ConnectionError("not yet")

    engine.open = refuse  # type: ignore[method-assign]
    connection = Connection(engine)
    with pytest.raises(ConnectionError):
        await connection.engine()
    engine.open = open_it  # type: ignore[method-assign]
    assert await connection.engine() is engine
    await connection.close()


def test_an_engine_without_twins_says_so() -> None:
    engine = memory()

    def twin() -> Engine:
        raise Unsupported("this engine has no twin")

    engine.twin = twin  # type: ignore[method-assign]
    srv = Server(engine)

    async def use(close: bool) -> str:
        id = await srv.enqueue(Job("t"))
        if close:
            await srv.close()
        return id

    asyncio.run(use(close=True))
    asyncio.run(use(close=False))  # the same engine, since it was closed
    with pytest.raises(Unsupported, match="no twin"):
        asyncio.run(use(close=True))
    with pytest.raises(Unsupported, match="no twin"):
        srv.sync.get_job("x")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # 3.12 and later warn of what is tested here
def test_after_a_fork_the_child_connects_anew(tmp_path: Path) -> None:
    srv = Server(f"sqlite:///{tmp_path}/q.db")
    assert srv.sync.enqueue(Job("t", id="parent")) == "parent"
    loop = asyncio.new_event_loop()
    loop.run_until_complete(srv.enqueue(Job("t", id="loop")))
    assert threading.active_count() > 1
    pid = os.fork()
    if pid == 0:  # no pytest in here: it must not go on twice
        code = 1
        try:
            other_loop = asyncio.run(srv.enqueue(Job("t", id="other-loop")))
            blocking = srv.sync.enqueue(Job("t", id="blocking"))
            code = 0 if (other_loop, blocking) == ("other-loop", "blocking") else 2
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    found = {m.meta.id for m in srv.sync.get_pending()}
    assert found == {"parent", "loop", "other-loop", "blocking"}
    assert len(loop.run_until_complete(srv.get_pending())) == 4
    loop.run_until_complete(srv.close())
    loop.close()


# -- which engine ---------------------------------------------------------------------------------------------------


def test_the_default_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASQUEUE_URL", "memory://from-env")
    assert repr(Server()) == "Server('memory://from-env')"
    monkeypatch.setenv("TASQUEUE_URL", "")
    assert "tasqueue.db" in repr(Server())


def test_an_engine_or_one_for_both_roles() -> None:
    engine = memory()
    for srv in (Server(engine), Server(broker=engine, results=engine)):
        assert asyncio.run(srv.parts()).engine is engine
    assert repr(Server(broker="memory://x", results="memory://x")) == "Server('memory://x')"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"engine": "postgres://u:secret@h"}, Unsupported, "postgres"),
        ({"engine": 5}, InvalidJob, "not int"),
        ({"engine": memory(), "namespace": "other"}, InvalidJob, "namespace 'other' beside"),
        ({"broker": "memory://x"}, InvalidJob, "results=None"),
        ({"results": "memory://x"}, InvalidJob, "broker=None"),
        ({"engine": "memory://", "broker": "memory://", "results": "memory://"}, InvalidJob, "one engine"),
        ({"broker": "postgres://u:secret@h", "results": "redis://h"}, Unsupported, "postgres"),
        ({"broker": memory(), "results": "redis://h"}, Unsupported, "broker='memory://', results='redis://h'"),
        ({"broker": object(), "results": "redis://:secret@x"}, InvalidJob, "broker=.* no enqueue, consume, extend"),
        ({"broker": "redis://:secret@x", "results": object()}, InvalidJob, "results=.* no get, set, delete, index_add"),
        (
            {"broker": "memory://?namespace=a", "results": "redis://:secret@x?namespace=b"},
            InvalidJob,
            "namespace=a .*namespace=b",
        ),
    ],
)
def test_what_is_no_engine(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        Server(**arguments)
    assert "secret" not in str(caught.value)
