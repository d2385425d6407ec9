"""What the server's and the driver's errors mean to a user. No exception of the driver leaves this package.

What heals by itself is an `EngineUnavailable`; what somebody must mend is a `ServerUnusable`. Either way the engine
goes on: the next call tries anew.
"""

from __future__ import annotations

from ...errors import EngineUnavailable, TasqueueError

NO_STREAM = 10059
NO_CONSUMER = 10014
WRONG_SEQUENCE = 10071
"""Another message is the last one of its subject: a compare-and-set was refused."""
STREAM_EXISTS = 10058
"""Under this name, with other settings."""

AGAIN = frozenset({10008, 10009, 10118, 10164})
"""Nothing was done, and it may work in a moment: no leader yet, a peer that is busy, a stream that moves, another write
of the same subject that is still under way.
"""
_HEALS = {
    10023: "it has no room left (memory, disk, or the account's limits); make room, and it works again by itself",
    10028: "the account's memory limit is reached; make room, and it works again by itself",
    10047: "its disk or the account's storage limit is full; make room, and it works again by itself",
    10077: "the stream is full; make room, and it works again by itself",
    10107: "a stream's limit is reached; make room, and it works again by itself",
    10122: "it is overloaded; it goes on by itself",
}
_UNUSABLE = {
    10039: "JetStream is not enabled for this account; give the account `jetstream: enabled`",
    10076: "JetStream is not enabled; start the server with -js, or with `jetstream {}` in its configuration",
    10074: "?replicas= is more than this server (or cluster) can keep",
    10005: "?replicas= is more than the cluster has servers with JetStream",
    10052: "a stream with other settings is in the way; choose another namespace with ?namespace=",
    10065: "another stream has these subjects; choose another namespace with ?namespace=",
}
UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"


class ServerUnusable(TasqueueError):
    """The server answers and refuses: wrong credentials, too old, no JetStream, foreign streams."""


class ApiError(TasqueueError):
    """JetStream refused a request; `code` is its error code (`err_code`), 0 when it gave none."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{text} ({code})")
        self.code = code
        self.text = text


def refused(url: str, error: ApiError) -> TasqueueError:
    """The error to raise for what JetStream said, when the caller has no use for it."""
    if error.code in _HEALS or error.code in AGAIN:
        return EngineUnavailable(f"{url}: {_HEALS.get(error.code, 'it goes on by itself')} ({error})")
    return ServerUnusable(f"{url}: {_UNUSABLE.get(error.code, 'the server refused')} ({error})")


def unusable(url: str, error: BaseException) -> ServerUnusable | None:
    """What somebody must mend, when a connection could not be made for that reason; None: it may work in a moment."""
    said = str(error)
    text = said.lower()
    if "authorization" in text or "authentication" in text:
        how = "nats://user:password@host, nats://token@host, ?creds=file or ?nkey=file"
        return ServerUnusable(f"{url}: it does not let us in; name valid credentials: {how} ({_short(said)})")
    if UNTRUSTED in said:
        return ServerUnusable(
            f"{url}: its certificate is not trusted; name its authority with ?ssl_ca_certs= ({_short(said)})"
        )
    if "secure connection not available" in text:
        return ServerUnusable(f"{url}: it does not offer TLS, and tls:// sends nothing in clear; nats:// does")
    if "tlsv1" in text or "certificate required" in text:
        return ServerUnusable(f"{url}: it wants a certificate of us: ?ssl_certfile= and ?ssl_keyfile= ({_short(said)})")
    return None


def _short(said: str) -> str:
    return said if len(said) <= 300 else f"{said[:300]}…"
