"""From URLs to an engine. An engine and its driver are imported when they are first asked for.

An engine's package has three functions of one signature, `engine`, and `broker` and `results`, its halves of a pair;
and `OPTIONS`, what its URLs may have after the `?` besides `namespace`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple
from urllib.parse import SplitResult, parse_qsl, urlsplit

from ..clock import Ports
from ..errors import InvalidJob, Unsupported
from ..interfaces import Broker, Engine, Results

REDIS = frozenset({"redis", "rediss", "valkey", "valkeys", "redis+unix"})
NATS = frozenset({"nats", "tls"})
WORKS = (
    "memory://, memory://name, sqlite:///relative.db, sqlite:////absolute.db, redis://host:6379/0, "
    "rediss://host:6379/0, nats://host:4222, tls://host:4222"
)
LATER = frozenset({"postgres", "postgresql"})

_userinfo = re.compile(r"(?<=://)[^@?#]*:(?P<password>[^?#]*)@|(?<=://)[^@/?#]+@")
_secret = re.compile(r"(?<=[?&])(password|pass|token|secret)=[^&#]*", re.IGNORECASE)


class _Url(NamedTuple):
    """What a URL says, and the package that knows what it means; `namespace` is None when it names none."""

    package: Any
    parts: SplitResult
    options: Mapping[str, str]
    shown: str
    namespace: str | None

    def make(self, role: Literal["engine", "broker", "results"], namespace: str, timeout: float, ports: Ports) -> Any:
        """An unopened one. InvalidJob, Unsupported."""
        fn = getattr(self.package, role)
        return fn(self.parts, self.options, shown=self.shown, namespace=namespace, timeout=timeout, ports=ports)


def connect(url: str, *, namespace: str, timeout: float, ports: Ports) -> Engine:
    """An unopened engine for this URL; `?namespace=` overrides the option. Unsupported, InvalidJob.

    `timeout`: seconds that a call may take, retries within it included.
    """
    one = _read(url)
    return one.make("engine", one.namespace or namespace, timeout, ports)


def connect_pair(
    broker: str | Broker, results: str | Results, *, namespace: str, timeout: float, ports: Ports
) -> Engine:
    """An unopened engine of two halves, each a URL or an object. Unsupported, InvalidJob.

    One URL for both is one store, so it is that store's own engine. A pair has one namespace: `?namespace=` of either
    URL is that of both.
    """
    if isinstance(broker, str) and broker == results:
        return connect(broker, namespace=namespace, timeout=timeout, ports=ports)
    urls = {half: _read(half) for half in (broker, results) if isinstance(half, str)}
    named = sorted({url.namespace for url in urls.values() if url.namespace is not None})
    if len(named) > 1:
        raise InvalidJob(
            f"?namespace={named[0]} in one URL of a pair and ?namespace={named[1]} in the other: one, please"
        )
    namespace = named[0] if named else namespace

    def half(role: Literal["broker", "results"], given: Any) -> Any:
        return urls[given].make(role, namespace, timeout, ports) if isinstance(given, str) else _checked(role, given)

    from .split import SplitEngine

    return SplitEngine(
        half("broker", broker), half("results", results), ports=ports, timeout=timeout, namespace=namespace
    )


def _checked(role: Literal["broker", "results"], given: Any) -> Any:
    """An object that has all that its role asks for. InvalidJob."""
    wanted = [name for name in vars(Broker if role == "broker" else Results) if not name.startswith("_")]
    missing = [name for name in wanted if not callable(getattr(given, name, None))]
    if missing:
        raise InvalidJob(f"{role}={given!r}: neither a URL nor such an object, it has no {', '.join(missing)}")
    return given


def _read(url: str) -> _Url:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidJob(f"URL {redact(url)!r}: {error}") from None
    if parts.scheme in LATER:
        raise Unsupported(f"URL {redact(url)!r}: there is no engine for {parts.scheme}:// yet; these work: {WORKS}")
    if parts.scheme not in {"memory", "sqlite", *REDIS, *NATS}:
        wrong = f"unknown scheme {parts.scheme!r};" if "://" in url else f"no scheme, did you mean {_guess(url)}?"
        raise Unsupported(f"URL {redact(url)!r}: {wrong} these work: {WORKS}")
    if parts.fragment:
        raise InvalidJob(f"URL {redact(url)!r}: `#` begins a fragment, which means nothing here; write it as %23")
    package = _package(parts.scheme)
    options = _options(url, parts.query, {"namespace"} | package.OPTIONS)
    namespace = options.pop("namespace", None)
    if namespace == "":
        raise InvalidJob(f"URL {redact(url)!r}: an empty namespace; leave it out for the default one")
    return _Url(package, parts, options, redact(url), namespace)


def _package(scheme: str) -> Any:
    if scheme in REDIS:
        _need("hiredis", "redis")
        from . import redis as package
    elif scheme in NATS:
        _need("nats", "nats")
        from . import nats as package
    elif scheme == "sqlite":
        from . import sqlite as package
    else:
        from . import memory as package
    return package


def _guess(url: str) -> str:
    """The URL that somebody may have meant by one without `://`."""
    if re.fullmatch(r"[\w.-]+:\d+(/\d+)?", url):
        return f"redis://{url}"
    return f"sqlite:///{url or 'jobs.db'}"


def _need(driver: str, extra: str) -> None:
    if find_spec(driver) is None:
        raise Unsupported(f"the {driver} driver is not installed; install it with: pip install 'tasqueue[{extra}]'")


def redact(url: str) -> str:
    """The URL without a password or a token, for people and logs."""
    return _secret.sub(r"\1=***", _userinfo.sub(_hide, url))


def _hide(found: re.Match[str]) -> str:
    if found["password"] is None:  # a NATS token stands where a user would
        return "***@"
    return f"{found[0].partition(':')[0]}:***@"


def _options(url: str, query: str, known: set[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            raise Unsupported(f"URL {redact(url)!r}: unknown option {name!r}; known: {', '.join(sorted(known))}")
        if name in options:
            raise InvalidJob(f"URL {redact(url)!r}: option {name!r} is given twice")
        options[name] = value
    return options
