"""What a Server was told: its options, checked once, and what its producers and workers share. Values only."""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

import msgspec
from msgspec import UnsetType

from ..clock import Ports
from ..core.codec import MAX_RECORD
from ..core.job import Job, check_count, check_seconds
from ..errors import InvalidJob
from ..events import Bus
from .context import JobCtx
from .registry import Registry, Span, ttl_millis

Hook: TypeAlias = Callable[[Job[Any]], Job[Any]]
"""`before_enqueue`: gets each job before it is encoded, returns the one to store."""
Around: TypeAlias = Callable[[JobCtx, Callable[..., Awaitable[Any]]], Awaitable[Any]]
"""`async fn(ctx, call_next)` around every run, which `await call_next(ctx)` enters."""
Lifespan: TypeAlias = Callable[[Any], AbstractAsyncContextManager[Any]]
"""`fn(srv)`, entered in each worker process before its first claim; what it yields is `ctx.state`."""

_NAMESPACE = re.compile(r"[A-Za-z0-9_.:-]{1,100}")


class Options(msgspec.Struct, frozen=True):
    """A Server's options; spans in seconds, but for the ttls (ms; None: for ever; 0: at once)."""

    default_concurrency: int
    lease: float
    grace: float
    timeout: float
    default_timeout: float | None
    max_deaths: int
    park_for: float
    result_ttl_ms: int | None
    failed_ttl_ms: int | None
    max_payload: int
    namespace: str


def options(
    *,
    default_concurrency: int | None = None,
    lease: Span = 10.0,
    grace: Span = 30.0,
    timeout: Span = 5.0,
    default_timeout: Span | None = None,
    max_deaths: int = 3,
    park_for: Span = 86_400.0,
    result_ttl: Span | None = 86_400.0,
    failed_ttl: Span | None = 7 * 86_400.0,
    max_payload: int = 1 << 20,
    namespace: str = "tasqueue",
) -> Options:
    """Checked options, with the defaults of `Server`. InvalidJob names the one that cannot be used."""
    if default_concurrency is None:
        default_concurrency = min(32, (os.cpu_count() or 1) + 4)
    if not isinstance(namespace, str) or not _NAMESPACE.fullmatch(namespace):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidJob(f"namespace {namespace!r}: 1 to 100 of the characters A-Z a-z 0-9 _ . : -, please")
    if type(max_payload) is not int or not 1 <= max_payload <= MAX_RECORD - (1 << 16):
        raise InvalidJob(f"max_payload {max_payload!r}: from 1 to {MAX_RECORD - (1 << 16):,} bytes, please")
    return Options(
        default_concurrency=_from_one(default_concurrency, "default_concurrency"),
        lease=check_seconds(lease, "lease"),
        grace=0.0 if grace == 0 else check_seconds(grace, "grace"),
        timeout=check_seconds(timeout, "timeout"),
        default_timeout=None if default_timeout is None else check_seconds(default_timeout, "default_timeout"),
        max_deaths=_from_one(max_deaths, "max_deaths"),
        park_for=check_seconds(park_for, "park_for"),
        result_ttl_ms=_ttl(result_ttl, "result_ttl"),
        failed_ttl_ms=_ttl(failed_ttl, "failed_ttl"),
        max_payload=max_payload,
        namespace=namespace,
    )


def _from_one(value: int, what: str) -> int:
    if check_count(value, what) < 1:
        raise InvalidJob(f"{what} {value!r}: a whole number from 1, please")
    return value


def _ttl(value: Span | None, what: str) -> int | None:
    ttl = ttl_millis(value, what)
    assert not isinstance(ttl, UnsetType)
    return ttl


class Setup(msgspec.Struct):
    """What producers, inspectors and workers of one Server share. The lists grow as hooks are added."""

    options: Options
    ports: Ports
    registry: Registry
    bus: Bus
    hooks: list[Hook]
    around: list[Around]
    lifespan: Lifespan | None = None
