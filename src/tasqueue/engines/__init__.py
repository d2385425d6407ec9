"""From a URL to an engine. An engine and its driver are imported when they are first asked for."""

from __future__ import annotations

import re
from importlib.util import find_spec
from urllib.parse import parse_qsl, unquote, urlsplit

from ..clock import Ports
from ..errors import InvalidJob, Unsupported
from ..interfaces import Engine

REDIS = frozenset({"redis", "rediss", "valkey", "valkeys", "redis+unix"})
WORKS = (
    "memory://, memory://name, sqlite:///relative.db, sqlite:////absolute.db, redis://host:6379/0, rediss://host:6379/0"
)
LATER = frozenset({"nats", "tls", "postgres", "postgresql"})

_userinfo = re.compile(r"(?<=://)[^@?#]*:(?P<password>[^?#]*)@|(?<=://)[^@/?#]+@")
_secret = re.compile(r"(?<=[?&])(password|pass|token|secret)=[^&#]*", re.IGNORECASE)


def connect(url: str, *, namespace: str, timeout: float, ports: Ports) -> Engine:
    """An unopened engine for this URL; `?namespace=` overrides the option. Unsupported, InvalidJob.

    `timeout`: seconds that a call may take, retries within it included.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidJob(f"URL {redact(url)!r}: {error}") from None
    if parts.scheme in LATER:
        raise Unsupported(f"URL {redact(url)!r}: there is no engine for {parts.scheme}:// yet; these work: {WORKS}")
    if parts.scheme not in {"memory", "sqlite", *REDIS}:
        wrong = f"unknown scheme {parts.scheme!r};" if "://" in url else f"no scheme, did you mean {_guess(url)}?"
        raise Unsupported(f"URL {redact(url)!r}: {wrong} these work: {WORKS}")
    if parts.fragment:
        raise InvalidJob(f"URL {redact(url)!r}: `#` begins a fragment, which means nothing here; write it as %23")
    options = _options(url, parts.query, {"namespace"} | _known(parts.scheme))
    namespace = options.pop("namespace", namespace)
    if not namespace:
        raise InvalidJob(f"URL {redact(url)!r}: an empty namespace; leave it out for the default one")

    if parts.scheme in REDIS:
        _need("redis", "redis")
        from . import redis

        return redis.engine(parts, options, shown=redact(url), namespace=namespace, timeout=timeout, ports=ports)

    if parts.scheme == "memory":
        if parts.path:
            raise InvalidJob(
                f"URL {redact(url)!r}: memory://name has no path; a file is sqlite:///{parts.path.strip('/')}"
            )
        from .memory import MemoryEngine

        return MemoryEngine(unquote(parts.netloc), namespace=namespace, timeout=timeout, ports=ports)

    path = unquote(parts.path.removeprefix("/"))
    if parts.netloc or not path or ":///" not in url:
        said = " (after two slashes comes a host, and a file has none)" if parts.netloc else ""
        raise InvalidJob(
            f"URL {redact(url)!r}: three slashes and a path, sqlite:///relative.db, or four for an absolute one{said}"
        )
    if path == ":memory:":
        raise Unsupported(f"URL {redact(url)!r}: SQLite's private database cannot be shared by threads; use memory://")
    from .sqlite import SqliteEngine

    return SqliteEngine(path, namespace=namespace, timeout=timeout, ports=ports, **options)


def _guess(url: str) -> str:
    """The URL that somebody may have meant by one without `://`."""
    if re.fullmatch(r"[\w.-]+:\d+(/\d+)?", url):
        return f"redis://{url}"
    return f"sqlite:///{url or 'jobs.db'}"


def _known(scheme: str) -> frozenset[str]:
    if scheme in REDIS:
        return frozenset({"sentinel", "cluster", "wait", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
    return frozenset({"synchronous"} if scheme == "sqlite" else ())


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
