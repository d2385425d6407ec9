"""`decide` by properties: what the guarantees say about states, tested without a loop, a clock or a socket."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tasqueue.core import codec, lifecycle
from tasqueue.core.codec import ErrorEntry, Spec, Tail
from tasqueue.core.ids import derive
from tasqueue.core.job import Job
from tasqueue.core.lifecycle import GivenBack, Policy, Raised, Returned, Run, Snoozed, Stopped, Unrunnable, decide
from tasqueue.core.record import Kind, Lease, Step
from tasqueue.core.status import FINAL, TRANSITIONS, State, Status, shown

errors = st.builds(
    ErrorEntry, st.integers(0, 2**40), st.just("w"), st.text(max_size=8), st.text(max_size=8), st.just("")
)
results = st.none() | st.binary(max_size=8)
outcomes = st.one_of(
    st.builds(Returned, results),
    st.builds(Raised, errors, st.booleans(), st.none() | st.floats(0, 100), results),
    st.builds(Snoozed, st.floats(0, 100)),
    st.builds(GivenBack, st.sampled_from(["", "exit code 7"])),
    st.builds(Stopped, results),
    st.builds(Unrunnable, st.just("task:x"), st.just("not known")),
)
policies = st.builds(
    Policy,
    st.integers(0, 4),
    st.one_of(st.none(), st.floats(0, 10), st.lists(st.floats(0, 10), min_size=1, max_size=3).map(tuple)),
)


def start(policy: Policy, tail: Tail = codec.FRESH, job: Job | None = None) -> Run:
    spec: Spec = codec.decode_spec(codec.encode_spec(job or Job("t"), 1))
    lease = Lease("id", "q", 1, b"", b"", None, 0, link="c:x", pos=3, ref=object())
    return Run(lease, spec, tail, policy, "w", lambda task: f"queue of {task}", started_at=5)


def half() -> float:
    return 0.5


@given(policies, st.lists(outcomes, min_size=1, max_size=20))
def test_a_life_ends_once_and_never_runs_an_error_more_than_max_retries_plus_one_times(policy, life) -> None:
    tail, erred = codec.FRESH, 0
    for outcome in life:
        before = tail
        step = decide(start(policy, tail), outcome, 7, half)
        assert step.ref is not None, "the engine's own handle rides along"
        assert (step.link, step.pos, step.claim) == ("c:x", 3, 1)
        if step.tail is not None:
            tail = codec.decode_tail(step.tail)
        erred += isinstance(outcome, Raised)
        status = shown(step.state, tail.status)
        assert status in TRANSITIONS[Status.PROCESSING]
        assert erred <= policy.max_retries + 1
        assert tail.retried <= policy.max_retries
        if step.kind is Kind.RELEASE or step.kind is Kind.PARK:
            assert tail == before, "giving back and parking spend nothing"
        if step.kind is Kind.SNOOZE:
            assert (tail.retried, tail.status, tail.errors) == (before.retried, before.status, before.errors)
        if step.kind is Kind.END:
            assert status in FINAL
            assert status is {Returned: Status.SUCCESSFUL, Stopped: Status.CANCELLED}.get(type(outcome), Status.FAILED)
            break
        assert status not in FINAL
        assert not isinstance(outcome, Returned | Stopped)


@given(st.integers(0, 5), errors)
def test_max_retries_counts_the_runs_that_end_in_an_error(most, error) -> None:
    run, kinds = start(Policy(max_retries=most)), []
    for _ in range(most + 1):
        step = decide(run, Raised(error), 7, half)
        kinds.append(step.kind)
        assert step.tail is not None
        run = start(Policy(max_retries=most), codec.decode_tail(step.tail))
    assert kinds == [Kind.RETRY] * most + [Kind.END]


def test_no_status_follows_a_final_one() -> None:
    assert all(not TRANSITIONS[status] for status in FINAL)
    assert all(status in TRANSITIONS for status in Status)


def error(message: str = "no") -> ErrorEntry:
    return ErrorEntry(1, "w", "ValueError", message, "")


def tail_of(step: Step) -> Tail:
    assert step.tail is not None
    return codec.decode_tail(step.tail)


def test_a_retry_waits_as_the_backoff_says_and_fail_spends_none() -> None:
    policy = Policy(max_retries=3, backoff=(1.5, 4.0))
    first = decide(start(policy), Raised(error()), 7, half)
    assert (first.kind, first.state, first.delay) == (Kind.RETRY, State.DUE, 1500)
    second = decide(start(policy, tail_of(first)), Raised(error()), 8, half)
    third = decide(start(policy, tail_of(second)), Raised(error()), 9, half)
    assert (second.delay, third.delay) == (4000, 4000), "the last span repeats"
    assert tail_of(third).retried == 3
    assert tail_of(third).prev_err == "ValueError: no"
    assert decide(start(policy), Raised(error(), final=True), 7, half).state is State.FAILED
    assert decide(start(policy), Raised(error(), delay=9.0), 7, half).delay == 9000
    assert decide(start(policy), Raised(error(), delay=1.0001), 7, half).delay == 1001, "rather late than early"
    assert decide(start(Policy(1, lambda k: k * 2.0)), Raised(error()), 7, half).delay == 2000


def test_the_default_backoff_is_jittered_and_capped() -> None:
    tail = codec.FRESH
    spans = []
    for _ in range(12):
        step = decide(start(Policy(max_retries=99), tail), Raised(error()), 7, lambda: 1.0)
        spans.append(step.delay)
        tail = tail_of(step)
    assert spans[:4] == [1000, 2000, 4000, 8000]
    assert spans[-1] == 300_000
    assert decide(start(Policy(max_retries=1)), Raised(error()), 7, lambda: 0.0).delay == 0


def test_the_last_five_errors_are_kept_and_a_success_clears_prev_err() -> None:
    tail = codec.FRESH
    for i in range(7):
        tail = tail_of(decide(start(Policy(max_retries=99), tail), Raised(error(str(i))), 7, half))
    assert [e.message for e in tail.errors] == ["2", "3", "4", "5", "6"]
    done = tail_of(decide(start(Policy(max_retries=99), tail), Returned(), 8, half))
    assert done.prev_err == ""
    assert done.retried == 7
    assert len(done.errors) == 5


def test_follow_ups_get_derived_ids_their_cause_and_its_headers() -> None:
    job = Job(
        "t",
        headers={"trace": "1", "own": "no"},
        on_success=[Job("a", headers={"own": "yes"}), Job("b", queue="bq", priority=3)],
        on_error=Job("c"),
    )
    won = decide(start(Policy(), job=job), Returned(b"r"), 7, half)
    assert [(r.id, r.queue, r.task, r.prev, r.priority) for r in won.follow] == [
        ("id~s0", "queue of a", "a", b"r", 0),
        ("id~s1", "bq", "b", b"r", 3),
    ]
    assert codec.decode_spec(won.follow[0].spec).headers == {"trace": "1", "own": "yes"}
    assert tail_of(won).on_success_ids == ("id~s0", "id~s1")
    lost = decide(start(Policy(), job=job), Raised(error(), result=b"half"), 7, half)
    assert [(r.id, r.prev) for r in lost.follow] == [("id~e0", b"half")]
    cause = codec.decode_spec(lost.follow[0].spec)
    assert (cause.cause_id, cause.cause_err) == ("id", "ValueError: no")
    again = decide(start(Policy(), Tail(generation=2), job), Returned(None), 7, half)
    assert [(r.id, r.prev) for r in again.follow] == [("id~s0.2", None), ("id~s1.2", None)]
    assert not decide(start(Policy(), job=job), Stopped(), 7, half).follow, "cancelled is neither"


def test_a_failed_run_keeps_what_it_saved_and_a_retried_one_does_not() -> None:
    assert decide(start(Policy()), Raised(error(), result=b"x"), 7, half).result == b"x"
    assert decide(start(Policy(max_retries=1)), Raised(error(), result=b"x"), 7, half).result is None


def test_undecodable_bytes_fail_at_once_and_are_kept() -> None:
    lease = Lease("id", "q", 1, b"\xff", b"\xc1", None, 0)
    step = lifecycle.refuse(lease, error("bad bytes"), Policy(), 7)
    assert (step.kind, step.state) == (Kind.END, State.FAILED)
    assert tail_of(step).kept == b"\xc1"
    assert "bad bytes" in tail_of(step).prev_err


def test_retention_follows_the_end() -> None:
    policy = Policy(result_ttl=10, failed_ttl=20)
    assert decide(start(policy), Returned(), 7, half).ttl == 10
    assert decide(start(policy), Stopped(), 7, half).ttl == 10
    assert decide(start(policy), Raised(error()), 7, half).ttl == 20
    assert decide(start(Policy(result_ttl=None)), Returned(), 7, half).ttl is None


def test_a_death_of_a_process_of_its_own_is_counted_and_a_plain_release_is_not() -> None:
    assert not decide(start(Policy()), GivenBack(), 7, half).died
    died = decide(start(Policy()), GivenBack("exit code 7"), 7, half)
    assert (died.kind, died.died, died.reason) == (Kind.RELEASE, True, "exit code 7")


def test_ids_stay_bounded_however_deep() -> None:
    id = "x" * 128
    for _ in range(100):
        id = derive(id, "s0")
    assert len(id) <= 200
    assert derive("x" * 199, "s0") != derive("y" * 199, "s0")
