"""Follow-ups, chains and groups as the runtime drives them: ids, causes, previous results, failures and what goes on
after them."""

from __future__ import annotations

import asyncio

from tasqueue import Chain, Group, Job, JobCtx, Server, Status
from tasqueue.core.codec import unpack_results

from .helpers import until, working


class Tasks:
    """`echo` saves its payload, `quiet` nothing, `fail` raises while it is told to, `note` keeps what it is given."""

    def __init__(self, srv: Server) -> None:
        self.notes: dict[str, JobCtx] = {}
        self.read: dict[str, list[bytes | None]] = {}
        self.order: list[str] = []
        self.failing = True

        async def echo(payload: bytes, ctx: JobCtx) -> None:
            self.order.append(ctx.meta.id)
            self.notes[ctx.meta.id] = ctx
            ctx.save(payload)

        async def quiet(payload: bytes, ctx: JobCtx) -> None:
            self.order.append(ctx.meta.id)
            self.notes[ctx.meta.id] = ctx

        async def fail(payload: bytes, ctx: JobCtx) -> None:
            self.order.append(ctx.meta.id)
            ctx.save(b"what there was")
            if self.failing:
                raise ValueError("as told")

        async def reads(payload: bytes, ctx: JobCtx) -> None:
            self.notes[ctx.meta.id] = ctx
            self.read[ctx.meta.id] = [data async for data in ctx.results(bytes)]

        for name, handler in (("echo", echo), ("quiet", quiet), ("fail", fail), ("reads", reads)):
            srv.register_task(name, handler)


async def test_on_success(srv: Server) -> None:
    tasks = Tasks(srv)
    async with working(srv):
        then = [Job("quiet", headers={"b": "3"}), Job("echo", b"x", on_success=Job("quiet"))]
        job = Job("echo", b"42", id="a", headers={"a": "1", "b": "2"}, on_success=then, on_error=Job("quiet"))
        meta = (await srv.wait(await srv.enqueue(job), 10)).meta
        assert meta.on_success_ids == ("a~s0", "a~s1")
        assert meta.on_error_ids == ()
        for id in ("a~s0", "a~s1", "a~s1~s0"):
            await until(lambda id=id: id in tasks.notes)
            assert (await srv.wait(id, 10)).meta.status is Status.SUCCESSFUL
    first, second, third = (tasks.notes[id] for id in ("a~s0", "a~s1", "a~s1~s0"))
    assert first.meta.prev_job_result == second.meta.prev_job_result == b"42"
    assert third.meta.prev_job_result == b"x"
    assert first.job.headers == {"a": "1", "b": "3"}
    assert third.job.headers == {"a": "1", "b": "2"}
    assert first.meta.cause_id == ""


async def test_on_success_of_one_that_saves_nothing(srv: Server) -> None:
    tasks = Tasks(srv)
    async with working(srv):
        await srv.enqueue(Job("quiet", id="a", on_success=Job("quiet")))
        await until(lambda: "a~s0" in tasks.notes)
        await srv.wait("a~s0", 10)
    assert tasks.notes["a~s0"].meta.prev_job_result is None


async def test_on_error_knows_its_cause(srv: Server) -> None:
    tasks = Tasks(srv)
    async with working(srv):
        job = Job("fail", id="a", max_retries=0, on_error=[Job("quiet"), Job("quiet")], on_success=Job("quiet"))
        meta = (await srv.wait(await srv.enqueue(job), 10)).meta
        assert (meta.on_error_ids, meta.on_success_ids) == (("a~e0", "a~e1"), ())
        for id in meta.on_error_ids:
            await srv.wait(id, 10)
    cause = tasks.notes["a~e0"].meta
    assert (cause.cause_id, cause.cause_err) == ("a", "ValueError: as told")
    assert cause.prev_job_result == b"what there was"


async def test_a_second_failure_has_follow_ups_of_its_own_generation(srv: Server) -> None:
    tasks = Tasks(srv)
    async with working(srv):
        await srv.enqueue(Job("fail", id="a", on_error=Job("quiet"), on_success=Job("quiet")))
        await srv.wait("a", 10)
        await srv.wait("a~e0", 10)
        assert await srv.retry("a")
        await until(lambda: "a~e0.1" in tasks.notes)
        await srv.wait("a~e0.1", 10)
        await srv.wait("a", 10)
        tasks.failing = False
        assert await srv.retry("a")
        await until(lambda: "a~s0.2" in tasks.notes)
        meta = (await srv.wait("a", 10)).meta
    assert (meta.generation, meta.retried, meta.status) == (2, 0, Status.SUCCESSFUL)
    assert tasks.order.count("a") == 3


async def test_chain_hands_results_on(srv: Server) -> None:
    tasks = Tasks(srv)
    async with working(srv):
        await srv.enqueue_chain(Chain([Job("echo", b"1"), Job("quiet"), Job("echo", b"3")], id="c"))
        chain = await srv.wait_chain("c", 10)
    assert (chain.status, chain.prev_jobs, chain.job_id) == (Status.SUCCESSFUL, ("c~c0", "c~c1", "c~c2"), "c~c2")
    assert tasks.order == ["c~c0", "c~c1", "c~c2"]
    assert tasks.notes["c~c1"].meta.prev_job_result == b"1"
    assert tasks.notes["c~c2"].meta.prev_job_result is None
    assert tasks.notes["c~c2"].meta.chain_id == "c"


async def test_chain_with_a_failing_step_goes_on_after_a_retry(srv: Server) -> None:
    tasks = Tasks(srv)
    async with working(srv):
        await srv.enqueue_chain(Chain([Job("echo", b"1"), Job("fail"), Job("echo", b"3")], id="c"))
        chain = await srv.wait_chain("c", 10)
        assert (chain.status, chain.job_id, chain.prev_jobs) == (Status.FAILED, "c~c1", ("c~c0",))
        tasks.failing = False
        assert await srv.retry("c~c1")
        chain = await srv.wait_chain("c", 10)
        assert (chain.status, chain.prev_jobs) == (Status.SUCCESSFUL, ("c~c0", "c~c1", "c~c2"))
    assert tasks.order == ["c~c0", "c~c1", "c~c1", "c~c2"]
    assert tasks.notes["c~c2"].meta.prev_job_result == b"what there was"


async def test_group_results_for_its_callback(srv: Server) -> None:
    tasks = Tasks(srv)
    async with working(srv):
        members = [Job("echo", b"0"), Job("quiet"), Job("echo", b"2")]
        group = Group(members, id="g", on_success=[Job("reads"), Job("quiet")], on_error=Job("reads"))
        await srv.enqueue_group(group)
        message = await srv.wait_group("g", 10)
        assert message.status is Status.SUCCESSFUL
        assert set(message.job_status.values()) == {Status.SUCCESSFUL}
        for id in ("g~s0", "g~s1"):
            await until(lambda id=id: id in tasks.notes)
            await srv.wait(id, 10)
    prev = tasks.notes["g~s0"].meta.prev_job_result
    assert prev is not None
    assert unpack_results(prev) == [b"0", None, b"2"] == tasks.read["g~s0"]
    assert "g~e0" not in tasks.notes


async def test_group_with_a_failing_member(srv: Server) -> None:
    tasks = Tasks(srv)
    async with working(srv):
        members = [Job("fail"), *(Job("echo", b"%d" % i) for i in range(5)), Job("fail")]
        await srv.enqueue_group(Group(members, id="g", on_success=Job("quiet"), on_error=Job("reads")))
        message = await srv.wait_group("g", 10)
        assert message.status is Status.FAILED
        assert list(message.job_status.values()) == [Status.FAILED, *[Status.SUCCESSFUL] * 5, Status.FAILED]
        await until(lambda: "g~e0" in tasks.read)
        await srv.wait("g~e0", 10)
        assert tasks.notes["g~e0"].meta.cause_id == "g"
        assert len(tasks.read["g~e0"]) == 7
        # one of two failed members again: the group waits for nobody else, and fails once more in its next generation
        assert await srv.retry("g~g0")
        await until(lambda: "g~e0.1" in tasks.read)
        tasks.failing = False
        await srv.wait_group("g", 10)
        for id in ("g~g0", "g~g6"):
            await srv.wait(id, 10)
            assert await srv.retry(id)
            await srv.wait(id, 10)
        assert (await srv.wait_group("g", 10)).status is Status.SUCCESSFUL
        done = await until(lambda: [id for id in tasks.notes if id.startswith("g~s0")])
        assert len(done) == 1


async def test_large_group_results_are_paged(srv: Server) -> None:
    tasks = Tasks(srv)
    async with working(srv):
        await srv.enqueue_group(Group([Job("echo", b"%d" % i) for i in range(150)], id="g", on_success=Job("reads")))
        await until(lambda: "g~s0" in tasks.read)
    assert tasks.read["g~s0"] == [b"%d" % i for i in range(150)]


async def test_a_chain_step_that_times_out_ends_it(srv: Server) -> None:
    async def slow(payload: bytes, ctx: JobCtx) -> None:
        await asyncio.sleep(60)

    tasks = Tasks(srv)
    srv.register_task("slow", slow, timeout=0.05)
    async with working(srv):
        await srv.enqueue_chain(Chain([Job("slow"), Job("echo")], id="c"))
        assert (await srv.wait_chain("c", 10)).status is Status.FAILED
    assert tasks.order == []
