"""Not run: read by pyright (tests/typing/test_typing.py). Lines that end in `# error` must be one, and no others."""

from tasqueue import JobCtx, Server

srv = Server("memory://")


@srv.task
async def add(a: int, b: int = 1) -> int:
    return a + b


@srv.task(queue="images")
def thumbnail(ctx: JobCtx, path: str, size: int) -> str:
    return path * size


async def use(ctx: JobCtx) -> None:
    await add.enqueue("5", 4)  # error
    await add.enqueue()  # error
    await add.enqueue(5, c=4)  # error
    await add.enqueue(5, 4, 3)  # error
    add.job(None)  # error
    add(5.5)  # error
    thumbnail(ctx, "a", 1)  # error
    thumbnail.job(path="a")  # error
    await thumbnail.options(queue="q").enqueue(1, 1)  # error
    add.options(queue=1)  # error
    add.options(unknown=1)  # error
    await (await add.enqueue(5)).result("soon")  # error
    _: str = await (await add.enqueue(5)).result()  # error
    await srv.enqueue(add)  # error
    await srv.get_pending(5)  # error
    srv.task(queue=5)  # error
    srv.task(retries=5)  # error


def block() -> None:
    add.sync.enqueue("5")  # error
    add.options(queue="q").sync.enqueue("5")  # error
    srv.sync.enqueue("5")  # error
    srv.sync.wait("id", 1, 2)  # error
    srv.sync.get_pending(limit="all")  # error
    srv.sync.pause()  # error
    _: str = srv.sync.cancel("id")  # error
