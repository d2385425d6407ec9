"""From jobs to records: hooks, limits, the stored form. What it returns can be decoded; the rest it refuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..core import codec
from ..core.codec import millis
from ..core.job import DEFAULT_QUEUE, Job
from ..core.record import Record
from ..errors import InvalidJob, PayloadTooLarge
from .setup import Setup


class Encoder:
    """`hooked`, then `record`."""

    __slots__ = ("_setup",)

    def __init__(self, setup: Setup) -> None:
        self._setup = setup

    def hooked(self, jobs: Sequence[Job[Any]], inside: str = "") -> Sequence[Job[Any]]:
        """The jobs as the `before_enqueue` hooks want them."""
        for job in jobs:
            if not isinstance(job, Job):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise InvalidJob(
                    f"a Job is needed, not {type(job).__name__} ({job!r}): a typed task makes one with .job(...), "
                    "chains and groups go to enqueue_chain and enqueue_group"
                )
        for hook in self._setup.hooks:
            changed = tuple(hook(job) for job in jobs)
            for job in changed:
                if not isinstance(job, Job):  # pyright: ignore[reportUnnecessaryIsInstance]
                    raise InvalidJob(f"before_enqueue hook {hook!r} returned {job!r}: it returns the Job to enqueue")
                if inside and (job.id is not None or job.schedule is not None):
                    raise InvalidJob(f"before_enqueue hook {hook!r} gave {inside} an id or a schedule: {job!r}")
            jobs = changed
        return jobs

    def record(
        self,
        job: Job[Any],
        id: str,
        queues: Mapping[str, str],
        now: int,
        *,
        schedule: str = "",
        cause_id: str = "",
        cause_err: str = "",
        results_of: str = "",
    ) -> Record:
        payload = job.payload
        if len(payload) > self._setup.options.max_payload:
            self._refuse_payload(job)
        if job.on_success != () or job.on_error != ():
            self._check_follow_ups(job)
        if schedule or results_of:
            spec = codec.encode_spec(
                job,
                now,
                queues=queues,
                schedule=schedule,
                cause_id=cause_id,
                cause_err=cause_err,
                results_of=results_of,
            )
        else:
            spec = codec.encode_spec(job, now, queues=queues)
        if len(spec) > codec.MAX_RECORD:
            raise PayloadTooLarge(
                f"job {id!r} of task {job.task!r} has {len(spec):,} bytes with its follow-ups, over "
                f"{codec.MAX_RECORD:,}: store the data elsewhere and pass a reference"
            )
        queue = job.queue or queues.get(job.task, DEFAULT_QUEUE)
        due = None if job.eta is None else millis(job.eta.timestamp())
        return Record(id, queue, job.task, spec, job.priority, due)

    def _check_follow_ups(self, job: Job[Any]) -> None:
        for follow in (*job.follow_ups("on_success"), *job.follow_ups("on_error")):
            if len(follow.payload) > self._setup.options.max_payload:
                self._refuse_payload(follow)
            self._check_follow_ups(follow)

    def _refuse_payload(self, job: Job[Any]) -> None:
        raise PayloadTooLarge(
            f"the payload of task {job.task!r} has {len(job.payload):,} bytes, over max_payload = "
            f"{self._setup.options.max_payload:,}: store the data elsewhere and pass a reference, or raise "
            "Server(max_payload=…)"
        )
