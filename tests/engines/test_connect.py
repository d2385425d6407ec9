"""URLs: each to its engine, the rest refused with what was wrong and what works, and no password ever shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasqueue.clock import SYSTEM
from tasqueue.core.record import Record
from tasqueue.engines import connect, redact
from tasqueue.errors import InvalidJob, TasqueueError, Unsupported
from tasqueue.interfaces import Engine


def engine(url: str, namespace: str = "tasqueue") -> Engine:
    return connect(url, namespace=namespace, timeout=1.0, ports=SYSTEM)


async def shares(one: Engine, other: Engine) -> bool:
    """Whether what one stores the other sees."""
    await one.open()
    await other.open()
    try:
        await one.submit([Record("a", "q", "t", b"")])
        return (await other.get(["a"]))[0] is not None
    finally:
        await one.close()
        await other.close()


async def test_a_memory_store_without_a_name_is_private() -> None:
    assert not await shares(engine("memory://"), engine("memory://"))


async def test_a_memory_store_with_a_name_is_shared_in_the_process() -> None:
    assert await shares(engine("memory://shared-by-name"), engine("memory://shared-by-name"))
    assert not await shares(engine("memory://one-name"), engine("memory://another-name"))


async def test_namespaces_are_apart_and_the_url_has_the_last_word() -> None:
    assert not await shares(engine("memory://spaces", "one"), engine("memory://spaces", "two"))
    assert await shares(engine("memory://spaces2?namespace=three", "one"), engine("memory://spaces2", "three"))


async def test_sqlite_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert await shares(engine("sqlite:///a%20file.db"), engine(f"sqlite:///{tmp_path}/a file.db"))
    assert (tmp_path / "a file.db").exists()


async def test_sqlite_options(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/t.db"
    assert not await shares(engine(f"{url}?synchronous=NORMAL&namespace=one"), engine(f"{url}?namespace=two"))


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_engines_to_come_are_named_with_what_works(scheme: str) -> None:
    with pytest.raises(Unsupported, match=rf"{scheme}://.* sqlite:///") as refusal:
        engine(f"{scheme}://me:secret@host/0")
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    ("url", "error", "names"),
    [
        ("mysql://host/db", Unsupported, "'mysql'"),
        ("jobs.db", Unsupported, "no scheme, did you mean sqlite:///jobs.db? these work:"),
        ("/srv/jobs.db", Unsupported, "did you mean sqlite:////srv/jobs.db?"),
        ("localhost:6379", Unsupported, "did you mean redis://localhost:6379?"),
        ("", Unsupported, "did you mean sqlite:///jobs.db?"),
        ("memory://x?colour=red", Unsupported, "'colour'"),
        ("memory://x?synchronous=FULL", Unsupported, "'synchronous'"),
        ("sqlite:///x.db?mode=ro", Unsupported, "'mode'"),
        ("sqlite:///:memory:", Unsupported, "memory://"),
        ("memory://x?namespace=", InvalidJob, "namespace"),
        ("memory://x?namespace=a&namespace=b", InvalidJob, "'namespace'"),
        ("memory:///x.db", InvalidJob, "sqlite:///x.db"),
        ("sqlite://x.db", InvalidJob, "three slashes"),
        ("sqlite://x.db", InvalidJob, "after two slashes comes a host"),
        ("sqlite:x.db", InvalidJob, "three slashes"),
        ("sqlite:/x.db", InvalidJob, "three slashes"),
        ("sqlite://", InvalidJob, "three slashes"),
        ("sqlite:///", InvalidJob, "three slashes"),
        ("sqlite:///a#b.db", InvalidJob, "%23"),
        ("redis://[::1", InvalidJob, "IPv6"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(url: str, error: type[TasqueueError], names: str) -> None:
    with pytest.raises(error) as refusal:
        engine(url)
    assert names in str(refusal.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("memory://name", "memory://name"),
        ("sqlite:////srv/jobs.db?synchronous=FULL", "sqlite:////srv/jobs.db?synchronous=FULL"),
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://me:secret@host:6379/0", "redis://me:***@host:6379/0"),
        ("redis://:secret@host/0", "redis://:***@host/0"),
        ("redis://me:se@cret@host/0", "redis://me:***@host/0"),
        ("redis://me:se/cret@host/0", "redis://me:***@host/0"),
        ("redis://me:se:cret@a:1,b:2/0?cluster=1", "redis://me:***@a:1,b:2/0?cluster=1"),
        ("nats://secret@a,b", "nats://***@a,b"),
        ("nats://me:secret@a,me:secret@b", "nats://me:***@b"),
        ("redis://host/0?password=secret&db=1", "redis://host/0?password=***&db=1"),
        ("redis://host/0?db=1&TOKEN=secret", "redis://host/0?db=1&TOKEN=***"),
    ],
)
def test_no_password_is_shown(url: str, shown: str) -> None:
    assert redact(url) == shown
