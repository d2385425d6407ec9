"""The NATS connection: who is let in, what is refused and how that is told, TLS, several servers, and outages."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import nkeys
import pytest
import trustme
from tests import services
from tests.engines.nats_world import broker, connection, ids, messages, nats, opened
from tests.proxy import Proxy

from tasqueue.clock import SYSTEM
from tasqueue.engines.nats import engine
from tasqueue.engines.nats.connection import Call
from tasqueue.engines.nats.errors import ServerUnusable
from tasqueue.engines.nats.session import timestamp
from tasqueue.errors import EngineUnavailable, InvalidJob, TasqueueError

__all__ = ["nats"]  # the fixture

PASSWORD = "s3cret/word"


async def _works(url: str) -> None:
    async with opened(url) as one:
        await one.enqueue("q", messages("a"))
        assert ids(await one.consume("q", 1, 10)) == ["a"]


async def _refusal(url: str, timeout: float = 5.0) -> TasqueueError:
    """What opening it raises."""
    one = connection(url, timeout)
    began = time.monotonic()
    with pytest.raises(TasqueueError) as caught:
        await one.open()
    assert time.monotonic() - began < timeout + 0.5
    await one.close()
    return caught.value


# -- who is let in ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "right", "wrong"),
    [
        ('authorization { user: "me", password: "s3cret/word" }', "me:s3cret%2Fword", "me:s3cret%2Fworm"),
        ('authorization { token: "s3cret/word" }', "s3cret%2Fword", "s3cret%2Fworm"),
    ],
    ids=["password", "token"],
)
async def test_password_and_token(settings: str, right: str, wrong: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with services.nats(settings) as server:
        await _works(f"nats://{right}@127.0.0.1:{server.port}")
        for given in (f"{wrong}@", ""):
            error = await _refusal(f"nats://{given}127.0.0.1:{server.port}")
            assert isinstance(error, ServerUnusable)
            assert "valid credentials" in str(error)
            assert "s3cret" not in str(error) + caplog.text


def _nkey() -> tuple[str, str]:
    """A user's seed and public key."""
    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    return bytes(seed).decode(), nkeys.from_seed(bytearray(seed)).public_key.decode()


async def test_nkey(tmp_path: Path) -> None:
    seed, public = _nkey()
    (tmp_path / "right").write_text(seed)
    (tmp_path / "wrong").write_text(_nkey()[0])
    with services.nats(f"authorization {{ users: [ {{ nkey: {public} }} ] }}") as server:
        await _works(f"{server.url}?nkey={tmp_path / 'right'}")
        error = await _refusal(f"{server.url}?nkey={tmp_path / 'wrong'}")
        assert isinstance(error, ServerUnusable)


def _jwt(claims: dict[str, Any], issuer: Any) -> str:
    """A token of the kind that NATS operators hand out."""

    def packed(part: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")

    now = int(time.time())
    body = {"jti": os.urandom(8).hex(), "iat": now, "iss": issuer.public_key.decode(), **claims}
    text = f"{packed({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{packed(body)}"
    return f"{text}.{base64.urlsafe_b64encode(issuer.sign(text.encode())).decode().rstrip('=')}"


async def test_creds_of_an_operator(tmp_path: Path) -> None:
    def pair(prefix: int) -> tuple[bytes, Any]:
        seed = bytes(nkeys.encode_seed(os.urandom(32), prefix))
        return seed, nkeys.from_seed(bytearray(seed))

    _, operator = pair(nkeys.PREFIX_BYTE_OPERATOR)
    _, account = pair(nkeys.PREFIX_BYTE_ACCOUNT)
    _, system = pair(nkeys.PREFIX_BYTE_ACCOUNT)
    user_seed, user = pair(nkeys.PREFIX_BYTE_USER)
    name = account.public_key.decode()
    limits = {"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": True, "conn": -1}
    limits |= {"leaf": -1, "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
    operator_jwt = _jwt({"sub": operator.public_key.decode(), "nats": {"type": "operator", "version": 2}}, operator)
    account_jwt = _jwt({"sub": name, "nats": {"limits": limits, "type": "account", "version": 2}}, operator)
    limits = {key: value for key, value in limits.items() if key not in ("mem_storage", "disk_storage")}
    others = system.public_key.decode()
    system_jwt = _jwt({"sub": others, "nats": {"limits": limits, "type": "account", "version": 2}}, operator)
    free = {"pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1, "type": "user", "version": 2}
    user_jwt = _jwt({"sub": user.public_key.decode(), "nats": free}, account)
    creds = tmp_path / "user.creds"
    creds.write_text(
        f"-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user_seed.decode()}\n------END USER NKEY SEED------\n"
    )
    accounts = f"resolver_preload: {{ {name}: {account_jwt}, {others}: {system_jwt} }}"
    settings = (f"operator: {operator_jwt}", "resolver: MEMORY", f"system_account: {others}", accounts)
    with services.nats(*settings) as server:
        await _works(f"{server.url}?creds={creds}")
        assert isinstance(await _refusal(server.url), ServerUnusable)


# -- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(authority: trustme.CA, tmp_path: Path) -> Path:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name, issued in (("server", authority.issue_cert("127.0.0.1")), ("client", authority.issue_cert("me"))):
        issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / f"{name}.pem")
    return tmp_path


def _tls(files: Path, verify: bool = False) -> str:
    check = f'ca_file: "{files}/ca.pem", verify: true' if verify else ""
    return f'tls {{ cert_file: "{files}/server.pem", key_file: "{files}/server.pem", {check} }}'


async def test_tls(files: Path) -> None:
    with services.nats(_tls(files)) as server:
        host = f"127.0.0.1:{server.port}"
        await _works(f"tls://{host}?ssl_ca_certs={files}/ca.pem")
        await _works(f"nats://{host}?ssl_ca_certs={files}/ca.pem")
        error = await _refusal(f"tls://{host}")
        assert isinstance(error, ServerUnusable)
        assert "ssl_ca_certs" in str(error)


async def test_tls_with_certificates_of_both_sides(files: Path) -> None:
    with services.nats(_tls(files, verify=True)) as server:
        trusted = f"tls://127.0.0.1:{server.port}?ssl_ca_certs={files}/ca.pem"
        await _works(f"{trusted}&ssl_certfile={files}/client.pem")
        error = await _refusal(trusted)
        assert isinstance(error, ServerUnusable)
        assert "ssl_certfile" in str(error)


async def test_nothing_is_said_in_clear_when_tls_was_asked_for(nats: services.NatsServer) -> None:
    with Proxy(nats.port) as proxy:
        error = await _refusal(f"tls://me:{PASSWORD.replace('/', '%2F')}@127.0.0.1:{proxy.port}", timeout=1.0)
        assert isinstance(error, ServerUnusable)
        assert "does not offer TLS" in str(error)


# -- what a URL says --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nats://host/3", "no path"),
        ("nats://host:port", "port is no number"),
        ("nats://me:pa/ss@host", "port is no number|no path"),
        ("nats://host?replicas=7", "replicas=7"),
        ("nats://host?replicas=", "replicas="),
        ("nats://host?creds=/nowhere", "no such file"),
        ("tls://host?ssl_keyfile=/dev/null", "no such file|ssl_certfile"),
    ],
)
def test_urls_that_mean_nothing(url: str, said: str) -> None:
    with pytest.raises(InvalidJob, match=said) as caught:
        connection(url)
    assert "pa/ss" not in str(caught.value)


def test_several_hosts_and_their_default_port() -> None:
    target = connection("nats://me:p%40ss@a,b:5000,[::1]:6000?replicas=3").target
    assert target.hosts == ("a:4222", "b:5000", "[::1]:6000")
    assert (target.username, target.password, target.replicas) == ("me", "p@ss", 3)


# -- servers that cannot do it ----------------------------------------------------------------------------------------


async def test_a_server_without_jetstream() -> None:
    with services.nats(jetstream=False) as server:
        error = await _refusal(server.url, timeout=1.0)
        assert "-js" in str(error)


async def test_an_account_without_jetstream() -> None:
    users = 'accounts { A: { users: [ { user: "me", password: "pw" } ] } }'
    with services.nats(users) as server:
        error = await _refusal(f"nats://me:pw@127.0.0.1:{server.port}", timeout=1.0)
        assert isinstance(error, ServerUnusable)
        assert "JetStream is not enabled for this account" in str(error)


async def test_more_replicas_than_servers(nats: services.NatsServer) -> None:
    one = broker(f"{nats.url}?replicas=3")
    with pytest.raises(ServerUnusable, match=r"\?replicas= is more than"):
        await one.open()
    await one.close()


async def test_something_else_than_a_nats_server() -> None:
    async def chatter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    listener = await asyncio.start_server(chatter, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        error = await _refusal(f"nats://127.0.0.1:{port}", timeout=0.5)
        assert isinstance(error, EngineUnavailable)
        assert "INFO" in str(error)


# -- outages ----------------------------------------------------------------------------------------------------------


async def test_nobody_there() -> None:
    error = await _refusal(f"nats://127.0.0.1:{services.free_port()},127.0.0.1:{services.free_port()}", timeout=0.6)
    assert isinstance(error, EngineUnavailable)
    assert "refused" in str(error).lower() or "Connect call failed" in str(error)


async def test_the_first_of_several_hosts_is_down(nats: services.NatsServer) -> None:
    await _works(f"nats://127.0.0.1:{services.free_port()},127.0.0.1:{nats.port}")


async def test_what_failed_during_an_outage_is_not_sent_afterwards(nats: services.NatsServer) -> None:
    with Proxy(nats.port) as proxy:
        async with opened(f"nats://127.0.0.1:{proxy.port}", timeout=0.4) as one:
            await one.enqueue("q", messages("before"))
            with proxy.silent():
                for _ in range(2):
                    with pytest.raises(EngineUnavailable):
                        await one.enqueue("q", messages("failed"))
            async with asyncio.timeout(5):
                while True:
                    try:
                        await one.enqueue("q", messages("after"))
                        break
                    except EngineUnavailable:
                        continue
            assert ids(await one.get_pending("q", 10, None)) == ["before", "after"]


async def test_a_lost_reply_is_asked_for_again(nats: services.NatsServer) -> None:
    with Proxy(nats.port) as proxy:
        async with opened(f"nats://127.0.0.1:{proxy.port}") as one:
            await one.enqueue("q", messages("before"))
            proxy.swallow_reply()
            await one.enqueue("q", messages(*map(str, range(100))))
            assert proxy.cuts == 1
            assert {"before", *map(str, range(100))} == set(ids(await one.get_pending("q", 1000, None)))
            proxy.swallow_reply()
            taken = ids(await one.consume("q", 1000, 0.3))
            async with asyncio.timeout(5):
                while set(taken) != {"before", *map(str, range(100))}:  # the rest comes with its lease
                    await one.wait(["q"], 1)
                    taken += ids(await one.consume("q", 1000, 0.3))


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_connection_that_is_cut_anywhere(nats: services.NatsServer, direction: str) -> None:
    """The whole life of a message, cut after so many bytes: nothing is lost, every call ends well or as unavailable."""
    with Proxy(nats.port) as proxy:
        for number, after in enumerate(range(1, 1500, 61)):
            async with opened(f"nats://127.0.0.1:{proxy.port}", f"cut {direction} {number}", timeout=2.0) as one:
                proxy.cut_after(**{direction: after})
                await one.enqueue("q", messages("a"))
                async with asyncio.timeout(5):
                    while not (got := await one.consume("q", 1, 0.3)):
                        await one.wait(["q"], 1)
                assert ids(got) == ["a"]
                await one.release(got)
                async with asyncio.timeout(5):
                    while not (got := await one.consume("q", 1, 0.3)):
                        await one.wait(["q"], 1)
                proxy.cut_after(None, None)
        assert proxy.cuts > 10


async def test_the_driver_prints_nothing(nats: services.NatsServer, capfd: pytest.CaptureFixture[str]) -> None:
    with Proxy(nats.port) as proxy:
        async with opened(f"nats://127.0.0.1:{proxy.port}", timeout=0.3) as one:
            await one.enqueue("q", messages("a"))
            proxy.cut()
            await one.enqueue("q", messages("b"))
            with proxy.silent(), pytest.raises(EngineUnavailable):
                await one.enqueue("q", messages("c"))
    assert capfd.readouterr() == ("", "")


# -- loops and life ---------------------------------------------------------------------------------------------------


def test_each_event_loop_has_its_own_connection(nats: services.NatsServer) -> None:
    shared = connection(nats.url)

    async def go() -> object:
        await shared.request("$JS.API.INFO")
        session = await shared.session()
        assert session is await shared.session()
        await shared.close()
        return session

    assert asyncio.run(go()) is not asyncio.run(go())


async def test_closed_and_used_again(nats: services.NatsServer) -> None:
    async with opened(nats.url) as one:
        await one.enqueue("q", messages("a"))
        await one.close()
        await one.close()
        assert ids(await one.consume("q", 1, 10)) == ["a"]


async def test_a_cancelled_caller_does_not_spoil_the_connecting_of_others(nats: services.NatsServer) -> None:
    shared = connection(nats.url)
    first, second = (asyncio.create_task(shared.request("$JS.API.INFO")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).data
    await asyncio.gather(first, return_exceptions=True)
    await shared.close()


async def test_replies_are_matched_with_their_calls(nats: services.NatsServer) -> None:
    async with opened(nats.url) as one:
        calls = [Call(f"$JS.API.STREAM.INFO.none{i}") for i in range(3000)]
        replies = await one._connection.requests(calls)
        assert len(replies) == 3000
        await one.enqueue("q", messages("a"))
        info, missing = await one._connection.requests([Call(f"$JS.API.STREAM.INFO.{one._stream}"), calls[0]])
        assert b"stream not found" in missing.data
        assert json.loads(info.data)["state"]["messages"] == 2


def test_times_as_the_server_writes_them() -> None:
    assert timestamp("1970-01-01T00:00:01Z") == 1.0
    assert timestamp("1970-01-01T00:00:01.5Z") == 1.5
    assert timestamp("1970-01-01T00:00:01.000000001Z") == 1.000000001
    assert timestamp("2026-11-24T13:47:47.624Z") == 1795528067.624


async def test_an_engine_of_both(nats: services.NatsServer) -> None:
    from urllib.parse import urlsplit

    url = f"nats://me:{PASSWORD}@127.0.0.1:{nats.port}".replace("/word", "%2Fword")
    one = engine(urlsplit(url), {}, shown=nats.url, namespace="both", timeout=5.0, ports=SYSTEM)
    await one.open()
    assert one.url == nats.url
    assert one.capabilities.shared
    assert one.capabilities.durable
    assert one.capabilities.thread_beat
    assert one.capabilities.max_link == 1_000
    assert abs(await one.now() - 1000 * time.time()) < 50
    assert (await one.durability()).level == "os-crash"
    await one.close()
