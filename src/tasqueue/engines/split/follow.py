"""What follows from an end, in order: follow-ups, chain and group progress, indexes. Done again, it changes nothing.

Whoever accepted the end does it, and whoever is handed the message of an ended job does it again, since the message is
only acknowledged afterwards. Outcomes carry the round of their job, so that a late one cannot undo a reopening.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from ... import faults
from ...core.codec import pack_results
from ...core.record import callback_id
from ...core.status import State, Status
from .base import Base
from .docs import VERSION, Job, LinkDoc, Order, OrderKind
from .links import link_reopened, tell
from .store import AT_ONCE, together


class Following(Base):
    """What follows."""

    async def _follow(self, jobs: Sequence[Job], now: int) -> None:
        """`jobs` are ended, and stored so."""
        after = [job for ended in jobs for job in ended.follow]
        if after:
            await self._insert(after, now)
        links: dict[str, dict[int, Job]] = {}
        for job in jobs:
            if job.link:
                links.setdefault(job.link, {})[job.pos] = job
        await together(self._tell(key, told, now) for key, told in links.items())
        await self._list(jobs)
        self._ends.set()

    async def _list(self, jobs: Sequence[Job]) -> None:
        ended: dict[tuple[State, int], list[str]] = {}
        gone: dict[int, list[str]] = {}
        for job in jobs:
            ended.setdefault((job.state, job.ended_at or 0), []).append(job.id)
            if job.gone_at is not None:
                gone.setdefault(job.gone_at, []).append(f"{job.gone_at}:j:{job.id}")
        await together(self._store.add(f"ended:{int(state)}", ids, at) for (state, at), ids in ended.items())
        await together(self._store.add("gone", members, -at) for at, members in gone.items())

    async def _tell(self, key: str, told: dict[int, Job], now: int) -> None:
        """Tell a chain or group of these ends."""
        if key.startswith("g:"):
            # What was saved is stored before the group knows of the end: who reads the one finds the other.
            await together(
                self._store.set(result_key(key, job.batch, pos, job.round), job.result, None)
                for pos, job in told.items()
                if job.result is not None
            )
        link = await self._store.change_link(key, lambda doc: tell(doc, told, now), now)
        if link is None or all(job.batch != link.nonce for job in told.values()):
            return
        if key.startswith("c:"):
            for pos, job in sorted(told.items()):
                if job.state is State.SUCCESSFUL and link.pos == pos + 1 < link.n:
                    await self._next_step(link, job, now)
        await self._link_ended(link, now)

    async def _link_ended(self, link: LinkDoc, now: int) -> None:
        """What follows from the end of a chain or group, if it has ended."""
        if link.status is Status.PROCESSING:
            return
        if link.key.startswith("g:"):
            if faults.active:
                faults.point("G3.last_member")
            templates = link.on_success if link.status is Status.SUCCESSFUL else link.on_error
            if templates:
                prev = await self._packed(link)
                await self._insert(
                    [
                        replace(template, id=callback_id(template.id, link.generation), prev=prev, born=now)
                        for template in templates
                    ],
                    now,
                )
            if faults.active:
                faults.point("G4.callback_enqueued")
        if link.gone(now):
            await self._forget_link(link)
        elif link.gone_at is not None:
            await self._store.add("gone", [f"{link.gone_at}:{link.key}"], -link.gone_at)
        self._ends.set()

    async def _packed(self, link: LinkDoc) -> bytes | None:
        """A group's saved results, if they fit."""
        found: list[bytes | None] = []
        size = 0
        for start in range(0, link.n, AT_ONCE):
            page = await self._saved(link, start, AT_ONCE)
            size += sum(len(item or b"") + 1 for item in page)
            if size > link.max_prev:
                return None
            found.extend(page)
        packed = pack_results(found)
        return packed if len(packed) <= link.max_prev else None

    async def _saved(self, link: LinkDoc, start: int, limit: int) -> list[bytes | None]:
        """What the members saved, by index from `start`."""
        places = range(start, min(link.n, start + limit))
        keys = [result_key(link.key, link.nonce, pos, link.rounds.get(pos, 0)) for pos in places]
        return [item and item[0] for item in await self._store.get(keys)]

    async def _link_reopened(self, job: Job, now: int) -> None:
        """Tell a chain or group that this job of it, whose record says so already, was reopened."""

        def change(link: LinkDoc) -> bool:
            if job.batch != link.nonce or link.rounds.get(job.pos, 0) >= job.round or link.gone(now):
                return False
            link_reopened(link, job.pos, job.round)
            return True

        await self._store.change_link(job.link, change, now)

    async def _forget_results(self, link: LinkDoc) -> None:
        if link.key.startswith("g:"):
            places = range(link.n)
            await self._store.delete([result_key(link.key, link.nonce, i, link.rounds.get(i, 0)) for i in places])

    async def _forget_link(self, link: LinkDoc) -> None:
        """What it kept of its jobs, and those that it still holds back; the record itself stays as a tombstone."""
        await self._forget_results(link)
        if link.key.startswith("c:"):
            entries = await self._store.jobs(link.ids)
            jobs = [entry.doc for entry in entries if entry is not None and entry.doc is not None]
            held = [job.id for job in jobs if job.state is State.HELD and job.batch == link.nonce]
            await self._store.delete([f"j:{id}" for id in held])
            await self._store.remove("jobs", held)

    async def _next_step(self, link: LinkDoc, done: Job, now: int) -> None:
        """Hand the result on to the step that the chain is at, and ready it if the chain goes on."""
        while True:
            entry = (await self._store.jobs([link.ids[link.pos]]))[0]
            step = entry and entry.doc
            if entry is None or step is None or step.batch != link.nonce:
                return
            if link.status is Status.PROCESSING and step.final:
                # It was cancelled while it was held, and its canceller died before it told the chain.
                await self._follow([step], now)
                return
            if step.state is not State.HELD and not step.final:
                return
            if link.status is Status.PROCESSING:
                order = Order(VERSION, OrderKind.NEXT, step.id, self._nonce(), step.nonce, done.result)
                await self._carry_out([(order, step)], now)
                return
            if step.prev == done.result or await self._store.put(replace(step, prev=done.result), entry.revision, now):
                return


def result_key(key: str, batch: str, pos: int, round: int) -> str:
    """Where a group keeps what a member saved."""
    return f"x:{key}:{batch}:{pos}.{round}"
