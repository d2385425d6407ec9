"""The heart: `decide(run, outcome, now, rand) -> Step`, pure. What a run came to, and so what becomes of the job.

    outcome         retries left?   goes to          spends      status shown then
    --------------  --------------  ---------------  ----------  ---------------------------
    Returned        -               SUCCESSFUL       -           successful
    Raised          yes, not final  DUE (backoff)    one retry   retrying
    Raised          no, or final    FAILED           -           failed
    Snoozed         -               DUE              nothing     as before the run
    GivenBack       -               READY (old place) nothing *  as before the run
    Stopped         -               CANCELLED        -           cancelled
    Unrunnable      -               PARKED           nothing     as before the run

    * `died`: a process of its own died of it; that counts a death, as a reclaim does, never a retry.

Rules: an outcome never leaves a final status (a Step is for a claimed job only, and the engine refuses a stale token).
At most `max_retries` + 1 runs end in an error. Follow-ups get ids derived from the job's (G5), and are made here, so
that they ride in the same step as the status (G3).
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from . import codec
from .codec import ErrorEntry, Spec, Tail
from .ids import derive
from .record import Kind, Lease, Record, Step
from .retry import Backoff
from .retry import delay as backoff_delay
from .status import ENDED, State, Status

KEPT_ERRORS = 5
MAX_DELAY = 100 * 365 * 86_400_000
"""A hundred years in ms: a due date is a number that every engine can hold."""

# An enum's members are slow to look up, and `_end` is on the path of every job.
_END, _SUCCESSFUL, _FAILED, _EMPTY = Kind.END, State.SUCCESSFUL, State.FAILED, codec.EMPTY


class Policy(msgspec.Struct, frozen=True, gc=False):
    """What a task and its server say about retries and retention; spans in ms, a ttl of None is for ever."""

    max_retries: int = 0
    backoff: Backoff = None
    result_ttl: int | None = 86_400_000
    failed_ttl: int | None = 7 * 86_400_000
    park_for: int = 86_400_000


class Run(msgspec.Struct, gc=False):
    """A claimed job with all that `decide` needs to know about it."""

    lease: Lease
    spec: Spec
    tail: Tail
    policy: Policy
    worker: str
    queue_of: Callable[[str], str]
    """The queue of a follow-up whose producer named none."""
    started_at: int = 0


class Returned(msgspec.Struct, frozen=True, gc=False):
    """The handler returned; `result` is what it saved, None when nothing."""

    result: bytes | None = None


class Raised(msgspec.Struct, frozen=True, gc=False):
    """The run ended in an error (a timeout is one). `final`: no retry, whatever is left. `delay`: seconds instead of
    the backoff. `died`: a process that ran nothing else died of it.
    """

    error: ErrorEntry
    final: bool = False
    delay: float | None = None
    result: bytes | None = None
    died: bool = False


class Snoozed(msgspec.Struct, frozen=True, gc=False):
    """The handler asked to be called again after `delay` seconds."""

    delay: float


class GivenBack(msgspec.Struct, frozen=True, gc=False):
    """The run was interrupted by a drain, or never started. `died`: the cause, when a process of its own died of it."""

    died: str = ""


class Stopped(msgspec.Struct, frozen=True, gc=False):
    """The run was cancelled on request; `result` is what it had saved."""

    result: bytes | None = None


class Unrunnable(msgspec.Struct, frozen=True, gc=False):
    """Nobody here can run it; `key` (`task:<name>`, `version:<n>`) is what unparks it."""

    key: str
    reason: str


Outcome = Returned | Raised | Snoozed | GivenBack | Stopped | Unrunnable


def decide(run: Run, outcome: Outcome, now: int, rand: Callable[[], float]) -> Step:
    """The one step that this outcome leads to. `now` in ms is only written down; due dates are the engine's to compute
    (G12).
    """
    lease = run.lease
    if type(outcome) is Returned:
        return _end(run, _SUCCESSFUL, now, outcome.result)
    if type(outcome) is Raised:
        return _raised(run, outcome, now, rand)
    if type(outcome) is Snoozed:
        tail = replace(run.tail, started_at=run.started_at, worker=run.worker, processed_at=now)
        return _back(lease, Kind.SNOOZE, State.DUE, codec.encode_tail(tail), codec.millis(outcome.delay))
    if type(outcome) is GivenBack:
        return release(lease, outcome.died)
    if type(outcome) is Stopped:
        return _end(run, State.CANCELLED, now, outcome.result)
    assert type(outcome) is Unrunnable
    return park(lease, outcome, run.policy)


def release(lease: Lease, died: str = "") -> Step:
    """The step that gives a job back to its old place; `died` is the cause of the death that it counts, if one was its
    doing.
    """
    return Step(
        lease.id,
        lease.claim,
        Kind.RELEASE,
        reason=died,
        died=died != "",
        link=lease.link,
        pos=lease.pos,
        ref=lease.ref,
    )


def park(lease: Lease, outcome: Unrunnable, policy: Policy) -> Step:
    """The step for a job that cannot even be decoded here (a newer version), so that no Run can be made of it."""
    step = _back(lease, Kind.PARK, State.PARKED, None, policy.park_for)
    step.key, step.reason = outcome.key, outcome.reason
    return step


def refuse(lease: Lease, error: ErrorEntry, policy: Policy, now: int) -> Step:
    """The step for bytes that cannot be decoded: failed at once, kept as they are with the reason (G11)."""
    tail = Tail(
        status=Status.FAILED,
        worker=error.worker,
        processed_at=now,
        prev_err=_text(error),
        errors=(error,),
        kept=lease.tail,
    )
    return _final(lease, State.FAILED, tail, None, policy.failed_ttl, ())


def _raised(run: Run, outcome: Raised, now: int, rand: Callable[[], float]) -> Step:
    tail = replace(
        run.tail,
        prev_err=_text(outcome.error),
        errors=(*run.tail.errors, outcome.error)[-KEPT_ERRORS:],
    )
    if outcome.final or tail.retried >= run.policy.max_retries:
        step = _end(replace_run(run, tail), State.FAILED, now, outcome.result)
        if outcome.died:
            step.died, step.reason = True, outcome.error.message
        return step
    retried = tail.retried + 1
    seconds = backoff_delay(run.policy.backoff, retried, rand) if outcome.delay is None else outcome.delay
    tail = replace(
        tail, status=Status.RETRYING, retried=retried, started_at=run.started_at, processed_at=now, worker=run.worker
    )
    return _back(run.lease, Kind.RETRY, State.DUE, codec.encode_tail(tail), codec.millis(seconds))


def replace_run(run: Run, tail: Tail) -> Run:
    """The same run with another tail."""
    return Run(run.lease, run.spec, tail, run.policy, run.worker, run.queue_of, run.started_at)


def _end(run: Run, state: State, now: int, result: bytes | None) -> Step:
    lease, spec, old, policy = run.lease, run.spec, run.tail, run.policy
    follow: tuple[Record, ...] = ()
    success_ids: tuple[str, ...] = ()
    error_ids: tuple[str, ...] = ()
    prev_err, ttl = old.prev_err, policy.result_ttl
    if state is _SUCCESSFUL:
        prev_err = ""
        if spec.on_success != _EMPTY:
            follow = _follow_ups(run, "s", result, now)
            success_ids = tuple(record.id for record in follow)
    elif state is _FAILED:
        ttl = policy.failed_ttl
        if spec.on_error != _EMPTY:
            follow = _follow_ups(run, "e", result, now)
            error_ids = tuple(record.id for record in follow)
    tail = Tail(
        codec.VERSION,
        ENDED[state],
        old.retried,
        run.started_at,
        now,
        run.worker,
        prev_err,
        old.errors,
        success_ids,
        error_ids,
        old.generation,
        old.kept,
    )
    return _final(lease, state, tail, result, ttl, follow)


def _final(
    lease: Lease, state: State, tail: Tail, result: bytes | None, ttl: int | None, follow: tuple[Record, ...]
) -> Step:
    return Step(
        lease.id,
        lease.claim,
        _END,
        state,
        codec.encode_tail(tail),
        result,
        0,
        ttl,
        follow,
        "",
        "",
        False,
        lease.link,
        lease.pos,
        lease.ref,
    )


def _back(lease: Lease, kind: Kind, state: State, tail: bytes | None, delay: int) -> Step:
    return Step(
        lease.id,
        lease.claim,
        kind,
        state,
        tail,
        delay=min(delay, MAX_DELAY),
        link=lease.link,
        pos=lease.pos,
        ref=lease.ref,
    )


def _follow_ups(run: Run, letter: str, result: bytes | None, now: int) -> tuple[Record, ...]:
    spec, lease = run.spec, run.lease
    on_error = letter == "e"
    cause = (lease.id, run.tail.prev_err) if on_error else ("", "")
    return tuple(
        Record(
            derive(lease.id, f"{letter}{i}", run.tail.generation),
            follow.queue if follow.queue is not None else run.queue_of(follow.task),
            follow.task,
            codec.spec_of_follow(follow, spec, now, *cause),
            follow.priority,
            follow.eta,
            prev=result,
        )
        for i, follow in enumerate(codec.decode_follow(spec.on_error if on_error else spec.on_success))
    )


def _text(error: ErrorEntry) -> str:
    return f"{error.type}: {error.message}" if error.type else error.message
