"""What the end or the reopening of a job means to its chain or group: pure changes to the link's record.

A chain is where its `pos` says. A group is the set of the indexes that have ended, never a counter, so that nothing
told twice can count twice. An outcome is of a round: how often its job had been reopened; one of an earlier round is
late.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...core.status import ENDED, State, Status
from .docs import Job, LinkDoc


def link_reopened(link: LinkDoc, pos: int, round: int) -> None:
    """Change the link: one of its jobs was reopened.

    That outcome is forgotten; one that had ended has a new generation.
    """
    link.members.pop(pos, None)
    if link.status is not Status.PROCESSING:
        link.generation += 1
    link.rounds[pos] = round
    link.status, link.ended_at, link.gone_at = Status.PROCESSING, None, None


def tell(link: LinkDoc, jobs: Mapping[int, Job], now: int) -> bool:
    """Change the link by these ends; False when it knew them all.

    An outcome of an earlier round is late, and left out.
    """
    changed = False
    for pos, job in sorted(jobs.items()):
        known = link.rounds.get(pos, 0)
        if job.batch != link.nonce or job.round < known or (job.round > known and link.gone(now)):
            continue
        if job.round > known:
            link_reopened(link, pos, job.round)
            changed = True
        changed |= _tell_chain(link, job, now) if link.key.startswith("c:") else _tell_group(link, job, now)
    return changed


def _tell_chain(link: LinkDoc, job: Job, now: int) -> bool:
    going = link.status is Status.PROCESSING
    if job.state is not State.SUCCESSFUL:
        if going and job.pos >= link.pos:
            end_link(link, ENDED[job.state], now)
            return True
    elif link.pos == job.pos:
        link.pos += 1
        if going and link.pos == link.n:
            end_link(link, Status.SUCCESSFUL, now)
        return True
    return False


def _tell_group(link: LinkDoc, job: Job, now: int) -> bool:
    if job.pos in link.members:
        return False
    link.members[job.pos] = int(job.state)
    if len(link.members) == link.n and link.status is Status.PROCESSING:
        good = all(state == State.SUCCESSFUL for state in link.members.values())
        end_link(link, Status.SUCCESSFUL if good else Status.FAILED, now)
    return True


def end_link(link: LinkDoc, status: Status, now: int) -> None:
    """Change the link: its end, and its retention from there."""
    ttl = link.failed_ttl if status is Status.FAILED else link.result_ttl
    link.status, link.ended_at, link.gone_at = status, now, None if ttl is None else now + ttl
