"""The demo's application: count the words and lines of the Python standard library.

One job per file, a group per package, and at the end a chain that merges all packages and ranks their words. This file
is all that an application needs; `tasqueue worker tasqueue.cli.demo.app:srv` runs it.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from tasqueue import Chain, Group, JobCtx, Server

from .files import count_words

srv = Server(
    max_payload=8 << 20,  # the words of the whole library travel from `merge` to `rank` as one result
    max_deaths=100,  # `--chaos` kills workers from outside: not the fault of the jobs that they held
)


class Tally(msgspec.Struct):
    """What was counted: in a file, in a package, in all of them."""

    files: int = 0
    lines: int = 0
    words: dict[str, int] = {}

    def add(self, other: Tally) -> None:
        self.files += other.files
        self.lines += other.lines
        for word, times in other.words.items():
            self.words[word] = self.words.get(word, 0) + times


class Ranking(msgspec.Struct):
    """The end of it: the totals, and the words that occur most, with how often."""

    files: int
    lines: int
    words: int
    top: list[tuple[str, int]]


@srv.task(concurrency=1)  # in each process: counting keeps a processor busy, and Python threads would share one
def count(path: str) -> Tally:
    """The tally of a file. An ordinary function: it runs in a thread, and may be called as one."""
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    return Tally(1, len(text.splitlines()), count_words(text))


@srv.task
async def add_up(ctx: JobCtx) -> Tally:
    """The tally of a package, from what the jobs of its group have returned."""
    package = Tally()
    async for one in ctx.results(Tally):
        package.add(one or Tally())
    return package


@srv.task
async def merge(packages: list[str]) -> Tally:
    """The tally of everything, from the results of these jobs."""
    everything = Tally()
    for id in packages:
        everything.add(await srv.handle(id, Tally).result())
    return everything


@srv.task
async def rank(ctx: JobCtx, most: int) -> Ranking:
    """The end of the chain: what `merge` has returned, in order."""
    total = ctx.prev(Tally) or Tally()
    ranked = sorted(total.words.items(), key=lambda item: (-item[1], item[0]))
    return Ranking(total.files, total.lines, sum(total.words.values()), ranked[:most])


def package_group(paths: list[Path]) -> Group:
    """A job per file, and when the last one has succeeded, one that adds them up."""
    return Group([count.job(str(path)) for path in paths], on_success=add_up.job())


def final_chain(packages: list[str], most: int) -> Chain:
    """`rank` is given the result of `merge`."""
    return Chain([merge.job(packages), rank.job(most)])


if starts := os.environ.get("TASQUEUE_DEMO_STARTS"):
    evidence = os.open(starts, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    @srv.around
    async def witness(ctx: JobCtx, call_next: Callable[[JobCtx], Awaitable[Any]]) -> Any:
        """Write down each start: what ran more than once is not to be asked of the library itself."""
        os.write(evidence, f"{ctx.meta.id}\n".encode())
        return await call_next(ctx)
