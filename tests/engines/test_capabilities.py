"""Each capability that one of the library's own engines lacks is shown to be lacking, and refused when it is asked for.

A lack is shown by the conformance tests that `needs(flag)` skips: run all the same, they fail. Where they cannot tell
(PASSES_ANYWAY says why), or there are none, a direct test shows it, here or in the file that is named in ELSEWHERE.
Redis declares everything; test_redis_conformance holds it to that.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar, get_type_hints
from uuid import uuid4
from xml.etree import ElementTree

import pytest

from tasqueue import Chain, Group, InvalidJob, Job, NotFound, Server, Unsupported
from tasqueue.clock import SYSTEM
from tasqueue.engines.memory.halves import MemoryBroker, MemoryResults
from tasqueue.interfaces import Capabilities
from tasqueue.runtime.supervisor import Supervisor
from tasqueue.testing import conformance
from tasqueue.testing.conformance.sources import OWN

ROOT = Path(__file__).parents[2]
F = TypeVar("F", bound=Callable[..., object])
Lack = tuple[str, str]
"""An engine of OWN by name, and a flag that it does not declare."""

FLAGS = [name for name, kind in get_type_hints(Capabilities).items() if kind is bool]

PASSES_ANYWAY = {
    "test_settle::test_a_lost_lease_stores_no_follow_ups": "a pair's record refuses before anything follows from it",
    "test_token::test_of_two_owners_in_one_batch_of_steps_only_the_holder_counts": "the record refuses, not the broker",
    "test_life::test_what_was_stored_is_there_when_all_engines_were_closed": "the process that keeps it lives on",
    "test_concurrency::test_many_calls_at_once_on_one_engine": "asks for no twin; the mark is that of the whole file",
}
"""What succeeds without the flag that it needs: it skips more than it has to, and shows no lack."""

ELSEWHERE: dict[Lack, str] = {
    ("split", "atomic_finish"): "test_split::test_the_lack_of_atomic_finish",
    ("split", "server_fencing"): "test_split::test_the_lack_of_server_fencing",
}
DIRECT: set[Lack] = set()


def shows(flag: str, *engines: str) -> Callable[[F], F]:
    """The test shows that these engines lack it."""

    def note(test: F) -> F:
        DIRECT.update((engine, flag) for engine in engines)
        return test

    return note


def _needing() -> Iterator[tuple[str, frozenset[str]]]:
    """The tests of the conformance suite that need something, as `module::test`, and what they need."""
    for module in pkgutil.iter_modules(conformance.__path__):
        if not module.name.startswith("test_"):
            continue
        topic = importlib.import_module(f"{conformance.__name__}.{module.name}")
        common = getattr(topic, "pytestmark", [])
        for name, test in vars(topic).items():
            if name.startswith("test_"):
                marks = [*(common if isinstance(common, list) else [common]), *getattr(test, "pytestmark", ())]
                flags = frozenset(flag for mark in marks if mark.name == "needs" for flag in mark.args)
                if flags:
                    yield f"{module.name}::{name}", flags


NEEDING = dict(_needing())
DECLARED: dict[str, Capabilities] = {
    source.name: source.fresh(Path("never opened")).engine(SYSTEM).capabilities for source in OWN
}
LACKS: list[Lack] = [
    (engine, flag) for engine, declared in DECLARED.items() for flag in FLAGS if not getattr(declared, flag)
]


def skipped(engine: str, flag: str) -> list[str]:
    """The tests that this engine skips for want of this flag alone: another lack would make them fail as well."""
    lacking = {flag for name, flag in LACKS if name == engine}
    return [test for test, needs in NEEDING.items() if needs & lacking == {flag}]


# -- every lack is shown ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", dict.fromkeys(engine for engine, flag in LACKS if skipped(engine, flag)))
def test_what_is_skipped_for_want_of_it_fails(engine: str, tmp_path: Path) -> None:
    """In a process of its own, since pytest has to see them fail."""
    tests = [test for name, flag in LACKS if name == engine for test in skipped(engine, flag)]
    report = tmp_path / "report.xml"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "--tb=no", "-p", "no:xdist", "--timeout=5"),
            *("-o", f"cache_dir={tmp_path}/cache", f"--basetemp={tmp_path}/base", f"--junitxml={report}"),
            *(f"src/tasqueue/testing/conformance/{test.replace('::', '.py::')}[{engine}]" for test in tests),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TASQUEUE_TEST_LACKING": "1"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert report.exists(), done.stdout + done.stderr
    failed: dict[str, str] = {}
    ran: set[str] = set()
    for case in ElementTree.parse(report).iter("testcase"):
        test = f"{case.attrib['classname'].rpartition('.')[2]}::{case.attrib['name'].partition('[')[0]}"
        assert case.find("error") is None, done.stdout
        assert case.find("skipped") is None, done.stdout
        ran.add(test)
        failure = case.find("failure")
        if failure is not None:
            failed[test] = failure.attrib["message"]
    assert ran == set(tests), done.stdout + done.stderr
    assert ran - set(failed) == ran & set(PASSES_ANYWAY), "what succeeds without that which it needs"
    for test, message in failed.items():
        assert re.match(r"assert|AssertionError|tasqueue\.errors\.Unsupported", message), f"{test}: {message}"


@pytest.mark.parametrize(("engine", "flag"), [pytest.param(*lack, id="-".join(lack)) for lack in LACKS])
def test_every_lack_is_shown(engine: str, flag: str) -> None:
    telling = set(skipped(engine, flag)) - set(PASSES_ANYWAY)
    elsewhere = ELSEWHERE.get((engine, flag))
    if elsewhere is not None:
        module, _, name = elsewhere.partition("::")
        assert f"async def {name}(" in (Path(__file__).parent / f"{module}.py").read_text()
    assert telling or elsewhere or (engine, flag) in DIRECT, f"nothing shows that {engine} lacks {flag}"


@pytest.mark.parametrize("flag", FLAGS)
def test_every_flag_is_asked_for(flag: str) -> None:
    """A flag that no test needs and whose lack nothing shows would promise nothing."""
    shown = {flag for _, flag in DIRECT | set(ELSEWHERE)}
    assert flag in shown or any(flag in needs for needs in NEEDING.values())


def test_nothing_is_listed_in_vain() -> None:
    assert set(PASSES_ANYWAY) <= set(NEEDING)
    assert DIRECT | set(ELSEWHERE) <= set(LACKS)


# -- shown directly ---------------------------------------------------------------------------------------------------

PROGRAM = """
import asyncio, sys
from tasqueue import Job, NotFound, Server
from tasqueue.engines.memory.halves import MemoryBroker, MemoryResults

async def main(what, where):
    srv = Server(broker=MemoryBroker(), results=MemoryResults()) if where == "pair" else Server(where)
    async with srv:
        if what == "put":
            print(await srv.enqueue(Job("t", id="a")))
        else:
            try:
                print((await srv.get_job("a")).meta.status)
            except NotFound:
                print("nothing")

asyncio.run(main(*sys.argv[1:]))
"""


def child(what: str, where: str) -> str:
    """What another process says that puts the job, or looks for it."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, what, where],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def store(kind: str, folder: Path) -> str:
    return {"memory": f"memory://{uuid4().hex}", "sqlite": f"sqlite:///{folder}/jobs.db", "pair": "pair"}[kind]


@shows("shared", "memory://", "split")
@pytest.mark.parametrize(("kind", "seen"), [("memory", "nothing"), ("pair", "nothing"), ("sqlite", "queued")])
async def test_a_store_that_is_not_shared_shows_nothing_to_another_process(
    kind: str, seen: str, tmp_path: Path
) -> None:
    where = store(kind, tmp_path)
    async with Server(broker=MemoryBroker(), results=MemoryResults()) if kind == "pair" else Server(where) as srv:
        assert (await srv.parts()).engine.capabilities.shared is (seen != "nothing")
        await srv.enqueue(Job("t", id="a"))
        assert await asyncio.to_thread(child, "look", where) == seen
        assert (await srv.get_job("a")).meta.status == "queued"


@shows("durable", "memory://", "split")
@pytest.mark.parametrize(("kind", "seen"), [("memory", "nothing"), ("pair", "nothing"), ("sqlite", "queued")])
def test_a_store_that_is_not_durable_ends_with_its_process(kind: str, seen: str, tmp_path: Path) -> None:
    where = store(kind, tmp_path)
    assert child("put", where) == "a"
    assert child("look", where) == seen


# -- what is asked for and cannot be had is refused -------------------------------------------------------------------
#
# Refusals that are shown elsewhere: `twin()` of a pair, a link too large for a broker (test_split), a link larger than
# the engine stores (client/test_producer), `tasqueue worker` and `tasqueue enqueue` on memory:// (cli/test_worker,
# cli/test_enqueue), engines that are not there (test_connect), stores that forget what waits (test_redis).


@pytest.mark.parametrize(
    ("server", "named"),
    [
        ('Server("memory://")', "memory://"),
        ("Server(broker=MemoryBroker(), results=MemoryResults())", "MemoryBroker"),
    ],
)
async def test_worker_processes_on_a_store_that_is_not_shared(
    server: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"app_{uuid4().hex}"
    imports = "from tasqueue import Server\nfrom tasqueue.engines.memory.halves import MemoryBroker, MemoryResults\n"
    (tmp_path / f"{name}.py").write_text(f"{imports}srv = {server}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Unsupported, match=r"in one process.*srv\.run\(\).*another URL") as refusal:
        await Supervisor(f"{name}:srv").run()
    assert named in str(refusal.value)


def test_blocking_calls_on_a_pair_without_twins() -> None:
    """Their loop is another thread's, so they need a twin; what can be awaited works."""
    srv = Server(broker=MemoryBroker(), results=MemoryResults())
    with pytest.raises(Unsupported, match=r"no twin.*`twin\(\)` of both"):
        srv.sync.enqueue(Job("t", id="a"))

    async def main() -> None:
        async with srv:
            with pytest.raises(NotFound):
                await srv.get_job("a")
            assert await srv.enqueue(Job("t", id="a")) == "a"

    asyncio.run(main())


def test_a_pair_without_twins_cannot_leave_a_loop_that_was_not_closed() -> None:
    srv = Server(broker=MemoryBroker(), results=MemoryResults())
    asyncio.run(srv.enqueue(Job("t")))
    with pytest.raises(Unsupported, match="no twin"):
        asyncio.run(srv.enqueue(Job("t")))


@pytest.mark.parametrize("kind", ["memory", "sqlite", "pair"])
async def test_a_link_over_the_most_that_there_is(kind: str, tmp_path: Path) -> None:
    where = store(kind, tmp_path)
    async with Server(broker=MemoryBroker(), results=MemoryResults()) if kind == "pair" else Server(where) as srv:
        most = (await srv.parts()).engine.capabilities.max_link
        for make in (Chain, Group):
            with pytest.raises((InvalidJob, Unsupported), match=rf"{most + 1}.*at most {most:,} "):
                make([Job("t")] * (most + 1), id="x")
        assert await srv.get_pending() == []


async def test_a_link_over_the_most_that_a_pair_declares() -> None:
    broker = MemoryBroker()
    broker.max_link = 2  # type: ignore[attr-defined]
    async with Server(broker=broker, results=MemoryResults()) as srv:
        with pytest.raises(Unsupported, match=r"3 jobs .*'x'.* at most 2 .*split it, or use another engine"):
            await srv.enqueue_chain(Chain([Job("t")] * 3, id="x"))
        with pytest.raises(NotFound):
            await srv.get_chain("x")
        assert await srv.get_pending() == []
        assert await srv.enqueue_chain(Chain([Job("t")] * 2, id="x")) == "x"
