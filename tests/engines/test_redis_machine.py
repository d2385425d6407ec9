"""The Redis engine beside the model, whatever happens in whatever order, with the server's clock in the test's hand.

The scripts are the real ones but for two lines: the time is read from a key instead of TIME, and what would expire in
the server's own time is deleted by that clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from tests import services
from tests.engines.test_machine import Machine

from tasqueue.clock import Ports
from tasqueue.engines.redis import RedisEngine, base, client
from tasqueue.engines.redis.scripts import Script, script
from tasqueue.engines.redis.target import Target

TIME = "local now = time[1] * 1000 + math.floor(time[2] / 1000)"
NAMES = "local spack, sunpack = struct.pack, struct.unpack"
CLOCK = """local now = tonumber(call('GET', K .. 'clock'))
for _, id in ipairs(call('ZRANGEBYSCORE', K .. 'px', '-inf', now)) do
local state = call('GETRANGE', R .. id, 0, 0)
if state ~= '' and string.byte(state) >= 4 and string.byte(state) <= 6 then call('DEL', R .. id) end
call('ZREM', K .. 'px', id)
end"""


def _with_clock(name: str) -> Script:
    source = script(name).source.decode()
    if TIME not in source:  # it has no need of the time, but what has expired must be gone for it, too
        source = source.replace(NAMES, f"{NAMES}\n{CLOCK}")
    source = source.replace(TIME, CLOCK)
    assert CLOCK in source
    source = source.replace(
        "call('SET', R .. id, rec, 'PX', ttl)", "call('SET', R .. id, rec) call('ZADD', K .. 'px', now + ttl, id)"
    )
    source = source.replace(
        "call('SET', R .. id, rec, 'PXAT', gone)", "call('SET', R .. id, rec) call('ZADD', K .. 'px', gone, id)"
    )
    source = source.replace("if ttl == '' then\n", "if ttl == '' then\ncall('ZREM', K .. 'px', id)\n")
    source = source.replace("if ttl == '' then call", "if ttl == '' then call('ZREM', K .. 'px', id) call")
    assert "'PX" not in source
    return Script(source.encode())


class _Client(client.Client):
    ports: Ports

    async def run(self, name: str, args: Sequence[object], **options: Any) -> Any:
        await self.command("SET", self._prefix + b"clock", int(self.ports.now() * 1000))
        return await super().run(name, args, **options)


class _Engine(RedisEngine):
    def _client(self) -> client.Client:
        one = super()._client()
        assert isinstance(one, _Client)
        one.ports = self._ports
        return one

    async def now(self) -> int:
        return int(self._ports.now() * 1000)


class _Opened:
    outage = None

    def __init__(self, port: int) -> None:
        self._port = port
        self._namespace = uuid4().hex

    def engine(self, ports: Ports, timeout: float = 5.0) -> _Engine:
        target = Target((("127.0.0.1", self._port),))
        return _Engine(target, url="redis://", namespace=self._namespace, timeout=timeout, ports=ports)

    def discard(self) -> None:
        pass


class _Source:
    name = "redis"

    def __init__(self, port: int) -> None:
        self._port = port

    def fresh(self, folder: Path) -> _Opened:
        return _Opened(self._port)


@pytest.fixture(params=services.kinds())
def server(request: pytest.FixtureRequest) -> Iterator[services.Server]:
    with services.server(request.param) as one:
        yield one


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_it_does_what_the_model_does(server: services.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "script", _with_clock)
    monkeypatch.setattr(base, "Client", _Client)
    machine = type("Bound", (Machine,), {"source": _Source(server.port)})
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=30,
            stateful_step_count=40,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
