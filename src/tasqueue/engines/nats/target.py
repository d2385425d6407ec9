"""Where the servers are, and how they are to be talked to: what a URL says."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import SplitResult, unquote

import msgspec

from ...errors import InvalidJob

PORT = 4222
OPTIONS = frozenset({"creds", "nkey", "replicas", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
"""What a URL may have after its `?`, besides `namespace`."""


class Target(msgspec.Struct, frozen=True):
    """A parsed URL."""

    hosts: tuple[str, ...]
    """`host:port` of each; the others of a cluster are found through any of them."""
    username: str | None = None
    password: str | None = None
    token: str | None = None
    tls: bool = False
    """Nothing is said to a server that does not offer TLS."""
    files: Mapping[str, str] = {}
    """`creds`, `nkey`, `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile`."""
    replicas: int = 0
    """Servers that keep each message and each record; 0: the URL does not say: 1, or as it is."""

    def context(self) -> ssl.SSLContext:
        """For a connection under TLS, whoever asked for it. OSError, when a file cannot be read."""
        context = ssl.create_default_context(cafile=self.files.get("ssl_ca_certs"))
        if "ssl_certfile" in self.files:
            context.load_cert_chain(self.files["ssl_certfile"], self.files.get("ssl_keyfile"))
        return context


def parse(parts: SplitResult, options: Mapping[str, str], shown: str) -> Target:
    """A nats:// or tls:// URL. `shown` is the URL without its secrets. InvalidJob."""

    def wrong(what: str) -> InvalidJob:
        return InvalidJob(f"URL {shown!r}: {what}")

    user, _, hosts = parts.netloc.rpartition("@")
    name, colon, password = user.partition(":")
    if parts.path.strip("/"):
        raise wrong("nats:// has no path; what separates one application from another is ?namespace=")
    files = {option: value for option, value in options.items() if option in OPTIONS - {"replicas"}}
    for option, value in files.items():
        if not Path(value).is_file():
            raise wrong(f"{option}={value}: there is no such file")
    if "ssl_keyfile" in files and "ssl_certfile" not in files:
        raise wrong("ssl_keyfile= belongs to a certificate: ssl_certfile=")
    if sum(("creds" in files, "nkey" in files, bool(user))) > 1:
        raise wrong("one way to log in, please: user and password, a token, creds= or nkey=")
    replicas = options.get("replicas", "0")
    if "replicas" in options and replicas not in ("1", "2", "3", "4", "5"):
        raise wrong(f"replicas={replicas}: how many servers keep a copy, 1 to 5 (3 survives the loss of one)")
    return Target(
        tuple(_address(host, wrong) for host in hosts.split(",")),
        unquote(name) if colon else None,
        unquote(password) if colon else None,
        None if colon or not user else unquote(user),
        parts.scheme == "tls",
        files,
        int(replicas),
    )


def _address(text: str, wrong: Callable[[str], InvalidJob]) -> str:
    host, colon, number = text.rpartition(":")
    if not colon or number.endswith("]"):
        host, number = text, str(PORT)
    if not number.isdecimal() or not 0 < int(number) < 65536:
        # Without the text: it may be part of a password.
        raise wrong("the port is no number; in a user or password write / as %2F, @ as %40, : as %3A")
    return f"{host or 'localhost'}:{number}"
