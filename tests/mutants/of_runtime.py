"""Mutants of the core, of the client and of what a worker does."""

from __future__ import annotations

from .mutant import Mutant

DRAIN = "tests/runtime/test_drain.py"
BACKOFF = "tests/core/test_lifecycle.py::test_the_default_backoff_is_jittered_and_capped"
MISSED = "tests/runtime/test_schedules.py::test_not_before_its_time_and_of_missed_ticks_only_the_latest"

MUTANTS = [
    Mutant(
        "acknowledge_first",
        "G1: a job is settled before its handler has run, so a worker that dies in it loses the job.",
        "runtime/slots.py",
        """\
            try:
                if faults.active:
                    faults.point("W4.before_handler")
""",
        """\
            put(decide(run, Returned(), now, rand), None, run.worker)
            try:
                if faults.active:
                    faults.point("W4.before_handler")
""",
        DRAIN,
        "memory",
    ),
    Mutant(
        "no_jitter",
        "Jobs that failed together come back together.",
        "core/retry.py",
        "return rand() * min(CAP,",
        "return min(CAP,",
        BACKOFF,
    ),
    Mutant(
        "no_backoff",
        "Every retry comes as soon as the first, however often it has failed.",
        "core/retry.py",
        "FIRST * 2.0 ** min(k - 1, 30))",
        "FIRST)",
        BACKOFF,
    ),
    Mutant(
        "due_dates_are_rounded_down",
        "G12: what is due comes a part of a millisecond early.",
        "core/codec.py",
        "return -int(-seconds * 1000 // 1)",
        "return int(seconds * 1000)",
        "tests/core/test_lifecycle.py::test_a_retry_waits_as_the_backoff_says_and_fail_spends_none",
    ),
    Mutant(
        "random_follow_up_id",
        "G5: a finish that is told twice enqueues its follow-ups twice.",
        "core/lifecycle.py",
        'derive(lease.id, f"{letter}{i}", run.tail.generation),',
        "__import__('uuid').uuid4().hex,",
        "tests/runtime/test_follow_ups.py::test_on_success",
        "memory",
    ),
    Mutant(
        "release_spends_an_attempt",
        "G8: what a drain gives back has one retry less.",
        "core/lifecycle.py",
        "        return release(lease, outcome.died)\n",
        """\
        tail = replace(run.tail, retried=run.tail.retried + 1)
        return _back(lease, Kind.RETRY, State.DUE, codec.encode_tail(tail), 0)
""",
        DRAIN,
        "memory",
    ),
    Mutant(
        "undecodable_is_dropped",
        "G11: what cannot be decoded is failed and forgotten in one step: its bytes are lost.",
        "runtime/consumer.py",
        "step = refuse(lease, entry, self._policy, self._now())",
        "step = refuse(lease, entry, replace(self._policy, failed_ttl=0), self._now())",
        "tests/runtime/test_parking.py::test_undecodable_bytes_are_failed_and_the_others_done",
        "memory",
    ),
    Mutant(
        "claimed_anew_after_a_lost_reply",
        "G14: a claim whose reply was lost is asked again under another number; what it took is stuck here.",
        "runtime/consumer.py",
        """\
                try:
                    claim = await crew.engine.claim(worker, number, wants)
""",
        """\
                try:
                    self._number = number = self._number + 1
                    claim = await crew.engine.claim(worker, number, wants)
""",
        "tests/runtime/test_outages.py::test_a_claim_is_repeated_under_its_number",
        "memory",
    ),
    Mutant(
        "claims_go_on_while_nothing_can_be_written",
        "F16: in an outage of the results a worker takes the whole queue into its memory.",
        "runtime/consumer.py",
        "if crew.settler.backlog > BACKLOG or not crew.worker:",
        "if not crew.worker:",
        "tests/runtime/test_outages.py::test_nothing_is_claimed_while_too_much_waits_to_be_written",
        "memory",
    ),
    Mutant(
        "a_finish_is_dropped_in_an_outage",
        "G1: a step that could not be written is forgotten; its job is stuck until the worker ends.",
        "runtime/settler.py",
        'log.warning("settle: %s; trying again", error)',
        'return log.warning("settle: %s; trying again", error)',
        "tests/runtime/test_settler.py",
    ),
    Mutant(
        "beats_on_the_loop",
        "G9: a handler that blocks the loop loses its lease, and its job is run elsewhere beside it.",
        "runtime/keeper.py",
        """\
        if self._on_loop:
            self._task = self._loop""",
        """\
        if True:
            self._task = self._loop""",
        "tests/runtime/test_prefetch.py::test_a_blocked_loop_keeps_its_lease_and_its_neighbours_run_elsewhere",
        "memory",
    ),
    Mutant(
        "beats_as_seldom_as_the_lease_allows",
        "G13: with a long lease a pause or a cancel is heard of long after it has returned.",
        "runtime/keeper.py",
        "every = min(self._lease / 3, MAX_BEAT)",
        "every = self._lease / 3",
        "tests/runtime/test_cancel.py::test_a_request_arrives_in_a_second_however_long_the_lease_is",
        "memory",
    ),
    Mutant(
        "what_is_left_of_a_lost_lease_starts",
        "G4: what was claimed under a lease that was lost since is run here, beside its new owner.",
        "runtime/slots.py",
        "            if run.worker != crew.worker:\n",
        "            if not run.worker:\n",
        "tests/runtime/test_lease.py::test_what_is_left_of_a_lost_lease_does_not_start",
        "memory",
    ),
    Mutant(
        "drain_without_grace",
        "G8: a drain interrupts at once what could have ended in time.",
        "runtime/worker.py",
        "            await self._wait_idle(grace)\n",
        "            await self._wait_idle(0)\n",
        DRAIN,
        "memory",
    ),
    Mutant(
        "what_was_interrupted_may_succeed",
        "G8: a handler that swallows its interruption and returns counts as done.",
        "runtime/slots.py",
        """\
            if ctx.interrupted:
                while""",
        """\
            if ctx.interrupted and type(outcome) is not Returned:
                while""",
        DRAIN,
        "memory",
    ),
    Mutant(
        "the_last_run_has_company",
        "G10: a job's last allowed run is made beside others, so innocent neighbours of poison are failed.",
        "runtime/consumer.py",
        "        if crew.isolates or crew.worker.endswith(ALONE):\n",
        "        if True:\n",
        "tests/runtime/test_alone.py::test_the_last_run_has_nothing_beside_it",
        "memory",
    ),
    Mutant(
        "prefetch_by_count",
        "G13: with slow jobs a worker holds what others could run.",
        "runtime/lane.py",
        "return min(MAX_BATCH * 2, int(self.concurrency * PREFETCH_SECONDS / max(slowest, 1e-6)))",
        "return self.concurrency * 4",
        "tests/runtime/test_lane.py",
    ),
    Mutant(
        "random_tick_id",
        "G7: a tick that two workers compute is two jobs, where storing it and moving the schedule are two steps.",
        "runtime/duties.py",
        "cron.tick_id(entry.id, tick)",
        "f\"{entry.id}@{__import__('uuid').uuid4().hex}\"",
        MISSED,
        "memory",
    ),
    Mutant(
        "every_missed_tick",
        "G7: after a night without workers a schedule runs as often as it was missed.",
        "runtime/duties.py",
        "schedule.latest(entry.next_at, now, entry.anchor)",
        "entry.next_at",
        MISSED,
        "memory",
    ),
    Mutant(
        "retry_opens_no_generation",
        "G2: the follow-ups of a retried job have the ids of those before, and so are never enqueued.",
        "client/inspector.py",
        "generation=tail.generation + 1,",
        "generation=tail.generation,",
        "tests/client/test_inspector.py::test_retry_opens_a_new_generation",
    ),
]
