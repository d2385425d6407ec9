"""Mutants of the engines, and of what makes one of any pair."""

from __future__ import annotations

from .mutant import Mutant

CONFORMANCE = "src/tasqueue/testing/conformance"
ON_REDIS = "tests/engines/test_redis_conformance.py"
CRASHES = "tests/engines/test_split_crashes.py"

MUTANTS = [
    # -- memory -------------------------------------------------------------------------------------------------------
    Mutant(
        "no_token_check",
        "G4: whoever holds a job may settle it under an old claim, so a late finish overwrites a new run.",
        "engines/memory/working.py",
        "                if job is None or job.hold is None or job.hold.number != step.claim:\n"
        "                    accepted.append",
        "                if job is None or job.hold is None:\n                    accepted.append",
        f"{CONFORMANCE}/test_token.py",
        "memory",
    ),
    Mutant(
        "last_in_first_out",
        "G13: a queue is served from its end.",
        "engines/memory/order.py",
        "return [pop(last=False)[1] for _",
        "return [pop(last=True)[1] for _",
        f"{CONFORMANCE}/test_order.py",
        "memory",
    ),
    Mutant(
        "group_by_counter",
        "G6: a member that ends again after a retry counts twice, and the group ends without another.",
        "engines/memory/links.py",
        """\
    if len(stored.members) < stored.link.n:
        return []
""",
        """\
    stored.pos += 1
    if stored.pos < stored.link.n:
        return []
""",
        f"{CONFORMANCE}/test_group.py",
        "memory",
    ),
    Mutant(
        "a_repeated_finish_is_refused",
        "G14: a finish whose reply was lost is refused when it is said again, as if the lease were lost.",
        "engines/memory/working.py",
        "            return job.state is step.state\n",
        "            return False\n",
        f"{CONFORMANCE}/test_lost_replies.py",
        "memory",
    ),
    # -- SQLite -------------------------------------------------------------------------------------------------------
    Mutant(
        "reclaim_counts_no_death",
        "G10: a job that kills its worker is offered again for ever.",
        "engines/sqlite/sql/claim.sql",
        "UPDATE ns_job SET deaths = deaths + 1, died_with",
        "UPDATE ns_job SET died_with",
        f"{CONFORMANCE}/test_reclaim.py::test_a_worker_whose_lease_has_ended",
        "sqlite",
    ),
    Mutant(
        "reclaim_after_a_standstill",
        "Design, 3: when the machine has slept, every living worker loses its lease.",
        "engines/sqlite/working.py",
        "if last is None or now - last > STOOD_STILL:",
        "if last is None:",
        f"{CONFORMANCE}/test_reclaim.py::test_after_a_gap_nothing_is_taken_and_every_lease_begins_again",
        "sqlite",
    ),
    Mutant(
        "a_repeated_claim_takes_a_second_batch",
        "G14: a claim whose reply was lost takes more under its number; what it took first nobody runs.",
        "engines/sqlite/working.py",
        "    if number <= last or number <= last_empty:\n",
        "    if number < last or number <= last_empty:\n",
        f"{CONFORMANCE}/test_lost_replies.py::test_a_claim_under_its_number",
        "sqlite",
    ),
    Mutant(
        "promote_one_at_a_time",
        "F17: ten thousand jobs that are due at once start one round trip after another.",
        "engines/sqlite/working.py",
        'tx.run("due_anywhere", tx.now, MOST)',
        'tx.run("due_anywhere", tx.now, 1)',
        f"{CONFORMANCE}/test_due.py::test_promote_moves_a_thousand_at_a_time",
        "sqlite",
    ),
    Mutant(
        "a_refused_finish_moves_its_chain",
        "G4: what follows from a stale finish is done all the same.",
        "engines/sqlite/settling.py",
        """\
    if any(step.follow or step.link for step in mine):
        _what_follows(tx, mine)
""",
        """\
    if any(step.follow or step.link for step in steps):
        _what_follows(tx, steps)
""",
        f"{CONFORMANCE}/test_token.py::test_a_stale_end_does_not_move_a_chain",
        "sqlite",
    ),
    Mutant(
        "what_is_given_back_goes_behind",
        "G13: a job that was prefetched and given back has lost its place.",
        "engines/sqlite/settling.py",
        'tx.run("put_back", State.READY, None, None, None, nr',
        'tx.run("put_back", State.READY, None, place, None, nr',
        f"{CONFORMANCE}/test_order.py::test_released_ones_return_to_their_old_places_in_whatever_order",
        "sqlite",
    ),
    Mutant(
        "a_reopened_group_is_the_same_generation",
        "G6: the callback of a group that was retried has the id of the one before, and is never enqueued.",
        "engines/sqlite/sql/link.sql",
        "gone_at = NULL, generation = generation + 1 WHERE",
        "gone_at = NULL WHERE",
        f"{CONFORMANCE}/test_group.py::test_reopening_a_member_after_the_group_has_ended_makes_a_new_generation",
        "sqlite",
    ),
    # -- Redis --------------------------------------------------------------------------------------------------------
    Mutant(
        "no_token_check_in_the_script",
        "G4: as no_token_check: the server takes any claim's number for the holder's.",
        "engines/redis/lua/settle.lua",
        "        if token and sub(token, 1, size) == claim then\n",
        "        if token then\n",
        f"{ON_REDIS}::test_token_another_claim_number_is_refused_and_changes_nothing",
        "valkey",
    ),
    Mutant(
        "the_workers_clock",
        "G12: a worker whose clock is wrong computes ticks and due dates by it.",
        "engines/redis/working.py",
        "        return await self._time()\n",
        "        return int(self._ports.now() * 1000)\n",
        f"{ON_REDIS}::test_due_promote_makes_ready_what_is_due",
        "valkey",
    ),
    # -- pairs --------------------------------------------------------------------------------------------------------
    Mutant(
        "the_message_is_acknowledged_when_claimed",
        "G3: the broker forgets the job before its record is final: with its worker it is gone.",
        "engines/split/claim.py",
        "await self._store.ack(found.done)",
        "await self._store.ack([*found.done, *(delivery for delivery, *_ in found.taken)])",
        f"{CRASHES}::test_claim",
    ),
    Mutant(
        "the_message_is_acknowledged_before_what_follows",
        "G3: who dies between the two leaves a job that has ended without its follow-ups, chain or group.",
        "engines/split/settle.py",
        """\
        if over:
            await self._follow(over, now)
""",
        """\
        await self._let_go(self._hands.get(worker), done, now)
        if over:
            await self._follow(over, now)
""",
        f"{CRASHES}::test_end_with_follow_ups",
    ),
    Mutant(
        "the_status_before_the_result",
        "G3: a finish is two writes; who dies between them leaves a success without its result.",
        "engines/split/settle.py",
        """\
            accepted = await together(self._store.put(job, revision, now) for _, job, revision in writes)
            for (i, job, _), ok in zip(writes, accepted, strict=True):
                if ok:
                    stored[i] = job
""",
        """\
            early = [(replace(job, result=None), revision) for _, job, revision in writes]
            accepted = await together(self._store.put(job, revision, now) for job, revision in early)
            for (i, job, _), ok in zip(writes, accepted, strict=True):
                if ok:
                    stored[i] = job
                    entry = (await self._store.jobs([job.id]))[0]
                    await self._store.put(job, entry and entry.revision, now)
""",
        f"{CRASHES}::test_end_with_follow_ups",
    ),
    Mutant(
        "a_groups_status_before_its_results",
        "G3: who reads that a member has ended does not find what it saved.",
        "engines/split/follow.py",
        """\
            await together(
                self._store.set(result_key(key, job.batch, pos, job.round), job.result, None)
                for pos, job in told.items()
                if job.result is not None
            )
        link = await self._store.change_link(key, lambda doc: tell(doc, told, now), now)
""",
        """\
            await self._store.change_link(key, lambda doc: tell(doc, told, now), now)
            await together(
                self._store.set(result_key(key, job.batch, pos, job.round), job.result, None)
                for pos, job in told.items()
                if job.result is not None
            )
        link = await self._store.change_link(key, lambda doc: tell(doc, told, now), now)
""",
        "tests/engines/test_split_meetings.py::test_who_sees_that_a_member_has_ended_finds_what_it_saved",
    ),
    Mutant(
        "a_worker_that_died_while_it_claimed_has_claimed",
        "G4: who was declared dead between taking and saying so runs what nobody has taken back from it.",
        "engines/split/claim.py",
        "            if after is None or after.gone:",
        "            if after is None:",
        "tests/engines/test_split_meetings.py::test_a_worker_is_declared_dead_while_it_claims",
    ),
    Mutant(
        "a_pairs_group_by_counter",
        "G6: on a pair an end is told again by whoever finds its message: by a counter the group ends too early.",
        "engines/split/links.py",
        """\
    if job.pos in link.members:
        return False
    link.members[job.pos] = int(job.state)
    if len(link.members) == link.n and link.status""",
        """\
    link.members[job.pos] = int(job.state)
    link.pos += 1
    if link.pos == link.n and link.status""",
        f"{CONFORMANCE}/test_lost_replies.py",
        "split",
    ),
    Mutant(
        "a_pairs_own_clock",
        "G12: leases and due dates of a pair are by the clock of each process, not by the broker's.",
        "engines/split/base.py",
        "self._ports.now() if ask is None else await self._store.ask(ask())",
        "self._ports.now()",
        "tests/engines/test_split_halves.py::test_the_brokers_clock_counts",
    ),
    Mutant(
        "foreign_bytes_are_dropped",
        "G11: a message that is no order is acknowledged and gone, bytes and all.",
        "engines/split/claim.py",
        """\
            if job is None:
                found.done.append(delivery)
""",
        """\
            if job is None or job.id.startswith("undecodable~"):
                found.done.append(delivery)
""",
        "tests/engines/test_split.py",
    ),
]
