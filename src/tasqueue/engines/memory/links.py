"""Chains and groups: what the end, the cancel and the reopening of one job mean to the whole.

A chain is where its `pos` says. Only the step there is ever ready or running, all later ones are held back. A group is
the set of its members that have ended, never a counter, so that nothing told twice can count twice.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from ...core.codec import pack_results
from ...core.record import Link, Record, callback_id
from ...core.status import ENDED, State, Status
from .store import Job, Store, StoredLink, watched_key


def insert(store: Store, links: Sequence[Link], records: Sequence[Record], now: int) -> None:
    """Those links that are new by key, and the records that belong to them or to none.

    What an earlier link of that name has left under its jobs' ids (it was forgotten before them) makes room: otherwise
    the new one could never end.
    """
    sweep(store, now)
    fresh = {link.key: StoredLink(link) for link in links if link.key not in store.links}
    if not fresh:
        store.insert((record for record in records if not record.link), now)
        return
    wanted = [record for record in records if not record.link or record.link in fresh]
    for record in wanted:
        if record.link:
            fresh[record.link].ids[record.pos] = record.id
            left = store.jobs.get(record.id)
            if left is not None and left.link == record.link:
                store.forget(left)
    store.links.update(fresh)
    store.insert(wanted, now)


def job_ended(store: Store, job: Job, now: int) -> list[Record]:
    """A job of a chain or group has ended, in whatever way. Returns the callbacks that the caller is to insert now."""
    stored = store.links.get(job.link)
    if stored is None:  # it was forgotten before its job ended
        return []
    if stored.is_chain:
        _step_ended(store, stored, job, now)
        return []
    stored.members[job.pos] = (ENDED[job.state], job.result)
    if len(stored.members) < stored.link.n:
        return []
    return _group_ended(store, stored, now)


def _step_ended(store: Store, chain: StoredLink, job: Job, now: int) -> None:
    running = chain.status is Status.PROCESSING
    if job.state is not State.SUCCESSFUL:
        if running:
            _end(store, chain, ENDED[job.state], now)
        return
    chain.pos = job.pos + 1
    if chain.pos == chain.link.n:
        if running:
            _end(store, chain, Status.SUCCESSFUL, now)
        return
    following = store.jobs.get(chain.ids[chain.pos])
    if following is not None:
        following.prev = job.result
        if running and following.state is State.HELD:
            store.make_due(following, following.due, now)


def _group_ended(store: Store, group: StoredLink, now: int) -> list[Record]:
    link = group.link
    members = [group.members[i] for i in range(link.n)]
    store.passed("G3.last_member")
    good = all(status is Status.SUCCESSFUL for status, _ in members)
    templates = link.on_success if good else link.on_error
    prev = pack_results([saved for _, saved in members]) if templates else b""
    _end(store, group, Status.SUCCESSFUL if good else Status.FAILED, now)
    if templates:
        store.passed("G4.callback_enqueued")
    return [
        replace(
            template, id=callback_id(template.id, group.generation), prev=prev if len(prev) <= link.max_prev else None
        )
        for template in templates
    ]


def _end(store: Store, stored: StoredLink, status: Status, now: int) -> None:
    link = stored.link
    stored.status = status
    stored.ended_at = now
    stored.ttl = link.failed_ttl if status is Status.FAILED else link.result_ttl
    if stored.ttl == 0:
        forget(store, stored)
        return
    if stored.ttl is not None:
        store.leaving_links.add(link.key, stored.ttl, now)
    store.wake(*watched_key(link.key))


def forget(store: Store, stored: StoredLink) -> None:
    """The link, and the jobs that it still holds back. Its place in `leaving_links` is the caller's to clear."""
    del store.links[stored.link.key]
    for job in store.members(stored):
        if job.state is State.HELD:
            store.forget(job)
    store.wake(*watched_key(stored.link.key))


def sweep(store: Store, now: int, most: int = sys.maxsize) -> int:
    """Forget what has outlived its retention, at most so many (a chain, with all that it holds back, is one); how many.

    Readers sweep before they look, so that nobody sees what only waits to be pruned.
    """
    over = store.leaving.over(now, most)
    for id, _ in over:
        store.forget(store.jobs[id])
    over_links = store.leaving_links.over(now, most - len(over))
    for key, ttl in over_links:
        store.leaving_links.remove(key, ttl)
        forget(store, store.links[key])
    return len(over) + len(over_links)


def reopen(store: Store, job: Job, now: int) -> None:
    """A job that had ended is put back: into the line, or held back when its chain is not there yet."""
    stored = store.links.get(job.link)
    if stored is None:
        store.make_ready(job)
        return
    _revive(store, stored)
    if not stored.is_chain:
        stored.members.pop(job.pos, None)
        store.make_ready(job)
        return
    if job.pos <= stored.pos:
        store.make_ready(job)
        return
    job.state = State.HELD
    current = store.jobs.get(stored.ids[stored.pos])
    if current is not None and current.state is State.HELD:
        store.make_due(current, current.due, now)


def _revive(store: Store, stored: StoredLink) -> None:
    if stored.status is Status.PROCESSING:
        return
    if stored.ttl is not None:
        store.leaving_links.remove(stored.link.key, stored.ttl)
    stored.status, stored.ended_at, stored.ttl = Status.PROCESSING, None, None
    stored.generation += 1


def cancel(store: Store, stored: StoredLink, now: int) -> Iterator[Job]:
    """The jobs that go down with it; a chain has ended before the first of them."""
    if not stored.is_chain:
        yield from (job for job in store.members(stored) if job.state not in ENDED)
        return
    current = store.jobs.get(stored.ids[stored.pos])
    _end(store, stored, Status.CANCELLED, now)
    if current is not None and current.state not in ENDED:
        yield current
