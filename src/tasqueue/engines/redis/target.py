"""Where the server is: what a URL says, and who is the master right now (a fixed address, by Sentinel, or by a
cluster's slots).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol
from urllib.parse import SplitResult, unquote

import msgspec

from ...errors import InvalidJob

PORTS = {"redis": 6379, "sentinel": 26379}
Address = tuple[str, int]
Ask = Callable[[Address, tuple[str, ...]], Awaitable[Any]]
"""Sends one command to that address; raises the driver's errors."""


class Target(msgspec.Struct, frozen=True):
    """A parsed URL. `hosts`: the server; with `sentinel` (the name of its master) the sentinels; of a `cluster` some
    nodes.
    """

    hosts: tuple[Address, ...] = ()
    path: str = ""
    """Of a unix socket, instead of hosts."""
    db: int = 0
    username: str | None = None
    password: str | None = None
    tls: bool = False
    files: Mapping[str, str] = {}
    """`ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile`."""
    sentinel: str = ""
    cluster: bool = False
    wait: int = 0
    """Replicas that must have each submit and settle before it returns."""


def parse(parts: SplitResult, options: Mapping[str, str], shown: str) -> Target:
    """A redis://, rediss://, valkey:// or valkeys:// URL, or redis+unix://. `shown` is the URL without its password.
    InvalidJob.
    """

    def wrong(what: str) -> InvalidJob:
        return InvalidJob(f"URL {shown!r}: {what}")

    user, _, hosts = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    path = "" if parts.scheme.endswith("+unix") is False else unquote(parts.path)
    if path and hosts:
        raise wrong("a unix socket has a path and no host: redis+unix:///path/to/socket")
    files = {name: value for name, value in options.items() if name.startswith("ssl_")}
    tls = parts.scheme in ("rediss", "valkeys")
    if files and not tls:
        raise wrong(f"{', '.join(sorted(files))} only means something with rediss://")
    sentinel, cluster = options.get("sentinel", ""), options.get("cluster", "0")
    if cluster not in ("0", "1"):
        raise wrong(f"cluster={cluster}: 0 or 1")
    if "sentinel" in options and (not sentinel or cluster == "1"):
        raise wrong("sentinel= names the master that the sentinels watch; a cluster has none")
    wait = options.get("wait", "0")
    if not wait.isdecimal():
        raise wrong(f"wait={wait}: how many replicas, such as 1")
    addresses = tuple(
        _address(host, PORTS["sentinel" if sentinel else "redis"], wrong) for host in hosts.split(",") if not path
    )
    if len(addresses) > 1 and not sentinel and cluster == "0":
        raise wrong("several hosts are sentinels (?sentinel=name) or nodes of a cluster (?cluster=1)")
    db = "" if path else parts.path.strip("/")
    if db and not db.isdecimal():
        raise wrong(f"database {db!r}: a number, redis://host/0")
    if cluster == "1" and db not in ("", "0"):
        raise wrong(f"database {db}: a cluster has only 0")
    return Target(
        addresses, path, int(db or 0), unquote(name) or None, unquote(password) or None, tls, files, sentinel,
        cluster == "1", int(wait),
    )  # fmt: skip


def _address(text: str, port: int, wrong: Callable[[str], InvalidJob]) -> Address:
    host, colon, number = text.rpartition(":")
    if not colon or number.endswith("]"):
        host, number = text, str(port)
    if not number.isdecimal() or not 0 < int(number) < 65536:
        # Without the text: it may be part of a password.
        raise wrong("the port is no number; in a user or password write / as %2F, @ as %40, : as %3A")
    return unquote(host.strip("[]")) or "localhost", int(number)


class Locator(Protocol):
    """Finds out who is the master."""

    async def find(self, ask: Ask) -> Address: ...


class Fixed:
    """It is where the URL says."""

    def __init__(self, target: Target) -> None:
        self._address = target.hosts[0]

    async def find(self, ask: Ask) -> Address:
        return self._address


class Sentinels:
    """Any sentinel that answers knows. The one that did is asked first the next time."""

    def __init__(self, target: Target) -> None:
        self._hosts = list(target.hosts)
        self._name = target.sentinel

    async def find(self, ask: Ask) -> Address:
        """LookupError when no sentinel knows a master."""
        trouble: list[str] = []
        for host in list(self._hosts):
            try:
                answer = await ask(host, ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._name))
            except Exception as error:  # this one is away: the next may know
                trouble.append(f"{host[0]}:{host[1]}: {error}")
                continue
            if answer:
                self._hosts.remove(host)
                self._hosts.insert(0, host)
                return answer[0].decode(), int(answer[1])
            trouble.append(f"{host[0]}:{host[1]}: no master is called {self._name!r}")
        raise LookupError("; ".join(trouble))


class Slots:
    """All keys of a namespace are in one slot; the node that serves it is the server."""

    def __init__(self, target: Target, slot: int) -> None:
        self._seeds = list(target.hosts)
        self._slot = slot

    async def find(self, ask: Ask) -> Address:
        """LookupError when no node that answers knows who serves the slot."""
        trouble: list[str] = []
        for seed in list(self._seeds):
            try:
                ranges = await ask(seed, ("CLUSTER", "SLOTS"))
            except Exception as error:  # as above
                trouble.append(f"{seed[0]}:{seed[1]}: {error}")
                continue
            found: Address | None = None
            for first, last, *nodes in ranges:
                for node in nodes:
                    address = (node[0].decode() or seed[0], int(node[1]))
                    if address not in self._seeds:
                        self._seeds.append(address)
                if first <= self._slot <= last:
                    found = (nodes[0][0].decode() or seed[0], int(nodes[0][1]))
            if found is not None:
                return found
            trouble.append(f"{seed[0]}:{seed[1]}: nobody serves slot {self._slot}")
        raise LookupError("; ".join(trouble))
