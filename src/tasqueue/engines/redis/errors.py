"""What the driver's errors mean to a user. No exception of the driver leaves this package.

What heals by itself is an `EngineUnavailable`; what somebody must mend is a `ServerUnusable`. Either way the engine
goes on: the next call tries anew.
"""

from __future__ import annotations

import re

from ...errors import EngineUnavailable, TasqueueError

HEALS = (
    "OOM",
    "READONLY",
    "LOADING",
    "BUSY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "MOVED",
    "ASK",
    "NOREPLICAS",
    "MISCONF",
    "UNBLOCKED",
)
ELSEWHERE = ("READONLY", "MASTERDOWN", "CLUSTERDOWN", "MOVED", "ASK")
"""The server answers, but somebody else is the master, or owns the slot: find out who."""
AGAIN = (*ELSEWHERE, "LOADING", "BUSY", "TRYAGAIN")
"""Nothing was done, and it may work in a moment."""

_ADVICE = {
    "OOM": "its memory is full (maxmemory), nothing of this call was stored; make room, and it works again by itself",
    "READONLY": "it is a replica now; the master is looked for anew with each call",
    "LOADING": "it is loading its data; it goes on by itself",
    "BUSY": "a script keeps it busy; it goes on by itself, or with SCRIPT KILL",
    "MISCONF": "it cannot write its snapshot to disk and refuses writes; see its log",
    "NOREPLICAS": "fewer replicas are connected than min-replicas-to-write asks for",
}
_UNUSABLE = {
    "NOAUTH": "it wants a password: redis://user:password@host",
    "WRONGPASS": "user or password are wrong: redis://user:password@host",
    "NOPERM": "this user may not do that; docs/engines/redis.md lists what each role needs",
    "WRONGTYPE": "a key of this namespace holds something else; choose another namespace with ?namespace=",
    "CROSSSLOT": "this server spreads the namespace's keys over several slots",
}


_within_script = re.compile(r"@user_script: ?\d+: -?([A-Z]{3,}) ").search
"""How Redis before 7 passes on the error of a command inside a script."""
_INSIDE = ("ACL failure in script", "user executing the script can't")
"""How a refusal inside a script is told, by age of the server."""
UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"


class ServerUnusable(TasqueueError):
    """The server answers and refuses: wrong password, missing permission, foreign keys, unknown commands."""


def code(error: BaseException) -> str:
    """The first word of a server's error, in capitals; "" for any other."""
    if any(words in str(error) for words in _INSIDE):
        return "NOPERM"
    inside = _within_script(str(error))
    if inside is not None:
        return inside[1]
    word = str(error).partition(" ")[0].lstrip("-")
    return word if word.isupper() else ""


def unavailable(url: str, what: str) -> EngineUnavailable:
    """The server gave no (good) answer in time."""
    return EngineUnavailable(f"{url}: {what}")


def refused(url: str, error: BaseException) -> TasqueueError:
    """The error to raise for what the server said."""
    name = code(error)
    if UNTRUSTED in str(error):
        return ServerUnusable(
            f"{url}: its certificate is not trusted; name its authority with ?ssl_ca_certs= ({_short(error)})"
        )
    if name in HEALS:
        return unavailable(url, f"{_ADVICE.get(name, 'it goes on by itself')} ({name}: {_short(error)})")
    return ServerUnusable(f"{url}: {_UNUSABLE.get(name, 'the server refused')} ({_short(error)})")


def _short(error: BaseException) -> str:
    said = str(error)
    return said if len(said) <= 300 else f"{said[:300]}…"
