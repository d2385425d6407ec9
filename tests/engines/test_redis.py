"""What the conformance suite cannot ask of the Redis engine: its keyspace, its commands, its errors, its URLs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import pytest
from tests import services
from tests.engines.redis_world import admin, calls, engine_on, jobs, opened, run_all, states, until, worker_on

from tasqueue import Server
from tasqueue.clock import SYSTEM
from tasqueue.core.record import Record, Schedule, Tick
from tasqueue.core.status import State
from tasqueue.engines import connect
from tasqueue.engines.redis import ServerUnusable
from tasqueue.engines.redis.scripts import script
from tasqueue.errors import EngineUnavailable, InvalidJob, TasqueueError, Unsupported
from tasqueue.testing.conformance.harness import chain, end, fail, group, park, record, release, retry


@pytest.fixture(scope="session", params=services.kinds())
def server(request: pytest.FixtureRequest) -> Iterator[services.Server]:
    with services.server(request.param) as one:
        yield one


# -- the keyspace -----------------------------------------------------------------------------------------------------

LASTING = {"seq", "reclaimed", "tasks"}
"""Two numbers and a list of names: all that stays of a namespace."""


async def test_after_a_drain_and_the_expiry_the_keyspace_is_as_it_was(server: services.Server) -> None:
    ttl = 150
    async with opened(server.url, "baseline") as engine:
        worker = await worker_on(engine)
        due = await engine.now() + 50
        steps, chained = chain("c", 3, result_ttl=ttl, failed_ttl=ttl)
        broken, failing = chain("f", 3, result_ttl=ttl, failed_ttl=ttl)
        members, grouped = group("g", 5, result_ttl=ttl, failed_ttl=ttl)
        await engine.submit(jobs(500), ())
        await engine.submit([*steps, *broken, *members], [chained, failing, grouped])
        await engine.submit([record("later", due=due), record("elsewhere", "p", priority=7), record("held")])
        await engine.put_schedule(Schedule("s", "@every 1s", "t", "q", 0, b"job", anchor=0, next_at=1))
        await engine.fire([Tick("s", 1, 1, 2, record("tick"))])
        await engine.pause("p", "why", "me")
        await engine.resume("p")
        assert await engine.delete_schedule("s")
        seen: set[str] = set()
        while True:
            await engine.promote()
            leases = await worker.claim(100, "q", "p", "callbacks")
            await worker.beat(progress=[(lease.id, lease.claim, b"progress") for lease in leases])
            if not leases:
                await engine.prune()  # what a failed chain still holds back goes with it
                if not (await engine.counts()).queues:
                    break
                await engine.wait(["q"], await engine.now() + 20)
                continue
            steps_ = []
            for lease in leases:
                first = lease.id not in seen
                seen.add(lease.id)
                makers = [end, retry, release, park, fail]
                kind = (
                    makers[int(lease.id[-1]) % 5] if first and lease.id[-1].isdecimal() and "~" not in lease.id else end
                )
                if lease.id == "f~c0":
                    kind = fail
                if kind is park:
                    steps_.append(park(lease, "task:t", delay=50))
                elif kind in (end, fail):
                    steps_.append(kind(lease, result=b"saved", ttl=ttl))
                else:
                    steps_.append(kind(lease))
            await engine.cancel([leases[0].id], ttl)
            assert all(await worker.settle(*steps_))
        await engine.submit(jobs(3, "waiting"))
        await engine.cancel(["waiting00000", "waiting00001"], ttl)
        await run_all(worker, ttl=ttl)
        await engine.delete(["waiting00000"])
        assert await engine.retire("w") == 0

        async def pruned() -> bool:
            await engine.prune()
            return not any((await engine.counts()).ended.values())

        await until(pruned)
        await engine.prune()
    keys = {key.decode().removeprefix("{baseline}:") for key in admin(server).scan_iter("{baseline}:*")}
    assert keys <= LASTING


async def test_everything_has_the_namespaces_tag(server: services.Server) -> None:
    client = admin(server)
    client.flushall()
    async with opened(server.url, "a{b}c%") as engine:
        worker = await worker_on(engine)
        await engine.submit(jobs(3))
        await worker.claim(1)
        assert [key for key in client.scan_iter() if not key.startswith(b"{a%7Bb%7Dc%25}:")] == []
    async with opened(server.url, "a{b}c%25") as other:
        assert await other.get(["00000"]) == [None]


async def test_ended_jobs_expire_by_themselves(server: services.Server) -> None:
    async with opened(server.url, "expiry") as engine:
        worker = await worker_on(engine)
        await engine.submit(jobs(2))
        await run_all(worker, ttl=60)
        await until(lambda: admin(server).exists("{expiry}:r:00000") == 0)
        await engine.submit(jobs(1))
        assert await run_all(worker, ttl=60) == ["00000"]


# -- the commands -----------------------------------------------------------------------------------------------------


async def test_who_waits_sends_nothing(server: services.Server) -> None:
    async with opened(server.url) as engine:
        worker = await worker_on(engine)
        await worker.claim()
        task = asyncio.create_task(engine.wait(["q"], None))
        await asyncio.sleep(0.1)
        client = admin(server)
        before = calls(client)
        await asyncio.sleep(1.0)
        after = calls(client)
        assert {name: n - before.get(name, 0) for name, n in after.items() if n != before.get(name, 0)} == {"info": 1}
        await engine.submit(jobs(1))
        await asyncio.wait_for(task, 1)


async def test_a_wake_up_is_for_one_sleeper(server: services.Server) -> None:
    async with opened(server.url, "sleepers") as one, opened(server.url, "sleepers") as two:
        tasks = []
        for name, engine in (("one", one), ("two", two)):
            await (await worker_on(engine, name)).claim()
            tasks.append(asyncio.create_task(engine.wait(["q"], None)))
        await asyncio.sleep(0.05)
        await one.submit(jobs(1))
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=2)
        assert (len(done), len(pending)) == (1, 1)
        await one.submit(jobs(1, "another"))
        await asyncio.wait_for(asyncio.gather(*tasks), 2)


async def test_a_wake_up_that_nobody_wants_is_passed_on(server: services.Server) -> None:
    async with opened(server.url, "baton") as gone, opened(server.url, "baton") as sleeper:
        await (await worker_on(gone, "gone")).claim()
        await (await worker_on(sleeper, "sleeper")).claim()
        task = asyncio.create_task(sleeper.wait(["q"], None))
        await asyncio.sleep(0.05)
        began = asyncio.get_running_loop().time()
        await gone.submit(jobs(1))
        await asyncio.wait_for(task, 2)
        assert asyncio.get_running_loop().time() - began < 1


async def test_an_engine_that_was_closed_or_killed_takes_no_wake_up_with_it(server: services.Server) -> None:
    code = (
        "import asyncio, os, sys\n"
        "from tests.engines.redis_world import engine_on, worker_on\n"
        "async def main():\n"
        "    engine = engine_on(sys.argv[1], 'killed')\n"
        "    await (await worker_on(engine, 'killed')).claim()\n"
        "    os._exit(9)\n"
        "asyncio.run(main())\n"
    )
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code, server.url], check=False, timeout=30)
    async with opened(server.url, "killed") as closed:
        await (await worker_on(closed, "closed")).claim()
    async with opened(server.url, "killed") as engine:
        await (await worker_on(engine)).claim()
        task = asyncio.create_task(engine.wait(["q"], None))
        await asyncio.sleep(0.05)
        await engine.submit(jobs(1))
        await asyncio.wait_for(task, 2)


async def test_ends_that_nobody_watches_are_not_published(server: services.Server) -> None:
    async with opened(server.url) as engine:
        worker = await worker_on(engine)
        await engine.submit(jobs(50))
        before = calls(admin(server)).get("publish", 0)
        await run_all(worker, 10)
        assert calls(admin(server)).get("publish", 0) == before


async def test_a_subscription_that_breaks_is_renewed_and_wakes_who_sleeps(server: services.Server) -> None:
    async with opened(server.url) as engine:
        worker = await worker_on(engine)
        await worker.claim()
        task = asyncio.create_task(engine.wait(["q"], None))
        await asyncio.sleep(0.05)
        admin(server).client_kill_filter(_type="pubsub")
        await asyncio.wait_for(task, 2)
        await worker.claim()
        task = asyncio.create_task(engine.wait(["q"], None))
        await asyncio.sleep(0.1)
        await engine.submit(jobs(1))
        await asyncio.wait_for(task, 2)


async def test_an_idle_worker_sends_little(server: services.Server) -> None:
    srv = Server(server.url, namespace="idle")

    @srv.task
    async def noop() -> None: ...

    async with srv:
        running = asyncio.create_task(srv.start())
        try:
            handle = await noop.enqueue()
            await srv.wait(handle.id, 10)
            client = admin(server)
            await asyncio.sleep(0.5)
            before = calls(client)
            await asyncio.sleep(5.0)
            after = calls(client)
        finally:
            await srv.stop()
            await running
    # Each script asks for the time once, and nothing else does but `now`.
    sent = sum(after.get(name, 0) - before.get(name, 0) for name in ("time", "ping"))
    beats = 5
    # Two a second: reclaim, promote, now and then a prune and a look of its own; one of them may fall on an edge.
    assert (sent - beats) / 5 <= 2.2


# -- scripts ----------------------------------------------------------------------------------------------------------


def test_every_script_says_what_it_takes_and_gives() -> None:
    from importlib.resources import files

    folder = files("tasqueue.engines.redis") / "lua"
    for file in folder.iterdir():
        text = file.read_text("utf-8")
        head = text[: text.index("\nlocal ") if "\nlocal " in text else len(text)]
        if "-- include:" in text:
            assert "-- result  " in head, file.name
            assert "-- cost    " in head, file.name
            assert (
                "ARGV" not in text.split("-- include:")[1].split("\n", 1)[1]
                or "-- ARGV    " in head
                or "ARGV[1]" not in text
            ), file.name
            assert script(file.name.removesuffix(".lua")).sha
        assert "KEYS *" not in text
        assert "'SCAN'" not in text
        assert "cjson" not in text


# -- errors -----------------------------------------------------------------------------------------------------------


async def test_a_key_of_another_kind_is_said(server: services.Server) -> None:
    admin(server).set("{foreign}:q:q", "not a queue")
    async with opened(server.url, "foreign") as engine:
        with pytest.raises(ServerUnusable, match="namespace"):
            await engine.submit(jobs(1))


async def test_a_database_that_is_not_there(server: services.Server) -> None:
    engine = engine_on(server.url.replace("/0", "/99"))
    with pytest.raises(TasqueueError) as refusal:
        await engine.open()
    assert not isinstance(refusal.value, EngineUnavailable)
    await engine.close()


async def test_a_wrong_password_is_said_at_once_and_not_shown(server: services.Server) -> None:
    engine = engine_on(server.url.replace("redis://", "redis://me:hunter2@"))
    began = asyncio.get_running_loop().time()
    with pytest.raises(ServerUnusable, match="password") as refusal:
        await engine.open()
    assert asyncio.get_running_loop().time() - began < 1
    assert "hunter2" not in str(refusal.value)
    assert "hunter2" not in engine.url
    await engine.close()


async def test_an_engine_belongs_to_one_loop(server: services.Server) -> None:
    async with opened(server.url) as engine:

        async def elsewhere() -> None:
            with pytest.raises(RuntimeError, match="twin"):
                await engine.now()

        await asyncio.to_thread(asyncio.run, elsewhere())
        await engine.now()


async def test_a_server_that_throws_waiting_jobs_away_is_refused_by_workers(server: services.Server) -> None:
    client = admin(server)
    async with opened(server.url) as engine:
        try:
            client.config_set("maxmemory", "100mb")
            client.config_set("maxmemory-policy", "allkeys-lru")
            with pytest.raises(Unsupported, match=r"allkeys-lru.*noeviction"):
                await engine.register("w", 1_000, b"", {}, 1)
            found = {finding.name: finding for finding in (await engine.durability()).findings}
            assert found["maxmemory"].level == "error"
            client.config_set("maxmemory-policy", "volatile-lru")
            await engine.register("w", 1_000, b"", {}, 1)
            found = {finding.name: finding for finding in (await engine.durability()).findings}
            assert found["maxmemory"].level == "warn"
        finally:
            client.config_set("maxmemory", "0")
            client.config_set("maxmemory-policy", "noeviction")
        assert await engine.workers()


async def test_the_class_follows_the_settings(server: services.Server) -> None:
    client = admin(server)
    async with opened(server.url) as engine:
        assert (await engine.durability()).level == "os-crash"
        client.config_set("appendonly", "yes")
        try:
            client.config_set("appendfsync", "always")
            assert (await engine.durability()).level == "power-loss"
            client.config_set("appendfsync", "everysec")
            durability = await engine.durability()
            assert durability.level == "os-crash"
            assert "second" in durability.promise
        finally:
            client.config_set("appendonly", "no")


# -- cancelled calls --------------------------------------------------------------------------------------------------


async def test_a_cancelled_call_leaves_no_stray_reply(server: services.Server) -> None:
    async with opened(server.url) as engine:
        await engine.submit(jobs(200))
        cancelled = 0
        for i in range(60):
            call = asyncio.create_task(engine.get([f"{j:05}" for j in range(200)]))
            for _ in range(i % 12):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.wait((call,))
            cancelled += call.cancelled()
            now, rows, counts = await asyncio.gather(engine.now(), engine.get([f"{i:05}"]), engine.counts())
            assert now > 1_000_000_000_000
            assert rows[0] is not None
            assert rows[0].id == f"{i:05}"
            assert counts.queues["q"] == {State.READY: 200}
        assert cancelled > 10


async def test_many_more_calls_than_connections(server: services.Server) -> None:
    async with opened(server.url) as engine:
        await asyncio.gather(*(engine.submit([one]) for one in jobs(300)))
        assert await states(engine, [one.id for one in jobs(300)]) == {State.READY}
        connected = [row for row in admin(server).client_list() if row["db"] == "0"]
        assert len(connected) < 40


async def test_a_schedule_that_is_fired_while_the_due_ones_are_read(
    server: services.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(server.url, "ticks") as engine, opened(server.url, "ticks") as other:
        now = await engine.now()
        await engine.put_schedule(Schedule("s", "@every 1h", "t", "q", 0, b"job", anchor=0, next_at=now))
        read = engine._read

        async def slowly(command: str, name: str, *args: object) -> object:
            found = await read(command, name, *args)
            if command == "ZRANGEBYSCORE":
                assert await other.fire([Tick("s", now, now, now + 3_600_000, record("tick"))]) == [True]
            return found

        monkeypatch.setattr(engine, "_read", slowly)
        assert await engine.schedules(due=True) == []


# -- URLs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("redis://a,b/0", "sentinel"),
        ("redis://a/one", "number"),
        ("redis://a:port/0", "port"),
        ("redis://a/3?cluster=1", "only 0"),
        ("redis://a/0?cluster=2", "0 or 1"),
        ("redis://a/0?sentinel=", "names the master"),
        ("redis://a/0?sentinel=m&cluster=1", "none"),
        ("redis://a/0?wait=some", "how many"),
        ("redis://a/0?ssl_ca_certs=x", "rediss"),
        ("redis+unix://host/path", "socket"),
    ],
)
def test_urls_that_mean_nothing(url: str, what: str) -> None:
    with pytest.raises(InvalidJob, match=what):
        connect(url, namespace="n", timeout=1, ports=SYSTEM)


def test_an_unknown_option_is_refused_and_the_password_not_shown() -> None:
    with pytest.raises(Unsupported, match="retries") as refusal:
        connect("redis://me:secret@host/0?retries=3", namespace="n", timeout=1, ports=SYSTEM)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
async def test_both_names_of_the_scheme(server: services.Server, scheme: str) -> None:
    async with opened(server.url.replace("redis", scheme), "schemes") as engine:
        await engine.submit(jobs(1))
        assert await engine.get(["00000"]) != [None]


async def test_a_unix_socket() -> None:
    with services.folder() as path, services.server("valkey", "--unixsocket", path / "s"):
        async with opened(f"redis+unix://{path}/s") as engine:
            await engine.submit(jobs(1))
            assert await run_all(await worker_on(engine)) == ["00000"]


def test_without_the_driver_the_way_to_install_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasqueue.engines.find_spec", lambda name: None)
    with pytest.raises(Unsupported, match=r"pip install 'tasqueue\[redis\]'"):
        connect("redis://host/0", namespace="n", timeout=1, ports=SYSTEM)


def test_the_driver_is_loaded_with_the_engine_and_not_before() -> None:
    code = "import sys, tasqueue; tasqueue.Server('memory://'); assert 'hiredis' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


# -- records ----------------------------------------------------------------------------------------------------------


async def test_a_claim_leaves_out_what_a_stranger_has_deleted(server: services.Server) -> None:
    async with opened(server.url, "stranger") as engine:
        worker = await worker_on(engine)
        await engine.submit(jobs(3))
        admin(server).delete("{stranger}:r:00001")
        assert [lease.id for lease in await worker.claim()] == ["00000", "00002"]
        assert [row.held for row in await engine.workers()] == [2]


async def test_claims_and_batches_larger_than_the_interpreters_stack(server: services.Server) -> None:
    n = 9_001
    async with opened(server.url, timeout=20) as engine:
        worker = await worker_on(engine)
        await engine.submit([Record(f"{i:05}", "q", "t", b"spec") for i in range(n)])
        leases = await worker.claim(n)
        assert [lease.id for lease in leases] == [f"{i:05}" for i in range(n)]
        assert await worker.claim_again(1, n) == leases
        assert all(await worker.settle(*map(end, leases)))
        found = await engine.ended(State.SUCCESSFUL, n, None)
        assert sorted(found) == [f"{i:05}" for i in range(n)]
