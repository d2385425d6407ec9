"""Which store a command talks to: `--url` and `--namespace`, an application's Server, and the connection to it.

A command that only looks never makes a store: a misspelt path is an error, not an empty queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections.abc import Awaitable, Callable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, unquote, urlsplit

import click
from click.core import ParameterSource

from ..client.app import CannotLoad, load_app
from ..client.connection import DEFAULT_URL
from ..client.inspector import Inspector
from ..engines import redact
from ..errors import TasqueueError
from ..server import Server

T = TypeVar("T")
LOOKED_AT, NAMED = 100, 3
"""Files in the place of a missing one: so many are looked at, so many named."""


class Target(NamedTuple):
    """What `--url` and `--namespace` said; None: nothing. `from_env`: the URL is that of $TASQUEUE_URL."""

    url: str | None
    namespace: str | None
    from_env: bool

    @property
    def wanted(self) -> str | None:
        """The URL that an application is to use instead of its default; None: whatever it would use anyway."""
        if self.namespace is not None:
            url = self.url or DEFAULT_URL
            return f"{url}{'&' if '?' in url else '?'}namespace={self.namespace}"
        return None if self.from_env else self.url

    def server(self) -> Server:
        """A Server for this store, without any task. ClickException when there is nothing to look at."""
        url = self.url or DEFAULT_URL
        srv = Server(self.wanted or url)  # refuses what is no URL; nothing is opened yet
        parts = urlsplit(url)
        path = Path(unquote(parts.path.removeprefix("/")))
        if parts.scheme == "sqlite" and not path.exists():
            default = "" if self.url else " (the default: --url or $TASQUEUE_URL name another)"
            where = "" if path.is_absolute() else f" in {Path.cwd()}"
            raise click.ClickException(
                f"{redact(url)}{default}: there is no file {str(path)!r}{where}; "
                f"`tasqueue worker` and `tasqueue enqueue` make it{_others(path)}"
            )
        if parts.scheme == "memory":
            raise click.ClickException(
                f"{redact(url)} lives inside one process, so there is nothing to see from here; use sqlite:///file"
            )
        return srv

    def app(self, name: str) -> Server:
        """The Server that `module:attribute` names, on this store. UsageError, also when it names another by itself."""
        wanted = self.wanted
        if wanted is not None:
            os.environ["TASQUEUE_URL"] = wanted  # a Server that names no store takes it, here and in worker processes
        try:
            srv: Server = load_app(name)
        except CannotLoad as error:
            raise click.UsageError(str(error)) from None
        if wanted is not None and url_of(srv) != url_of(Server(wanted)):
            raise click.UsageError(
                f"{name} names its own store, {url_of(srv)}, so --url and --namespace cannot name another, "
                f"{redact(wanted)}: leave them out, or write Server() there"
            )
        if self.url and wanted is None and not _same_store(srv, self.url):
            click.echo(
                f"Warning: $TASQUEUE_URL is {redact(self.url)}, but {name} names its own store, {url_of(srv)}, which "
                "is used",
                err=True,
            )
        return srv


def _same_store(srv: Server, url: str) -> bool:
    try:
        return url_of(srv) == url_of(Server(url))
    except TasqueueError:  # nothing that this library could use
        return False


def _others(path: Path) -> str:
    """Files beside it that are stores of this library, as a hint; "" when there are none."""
    folder = Path.cwd() / path.parent
    found = [other for other in islice(sorted(folder.glob("*.db")), LOOKED_AT) if _holds_jobs(other)]
    urls = [f"--url sqlite:///{quote(str(path.parent / other.name))}" for other in found[:NAMED]]
    return f". Did you mean {' or '.join(urls)}?" if urls else ""


def _holds_jobs(path: Path) -> bool:
    """Whether it is a SQLite file with a table of this library's, in any namespace. It is only read."""
    import sqlite3

    with contextlib.suppress(sqlite3.Error):
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=0)
        try:
            names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        finally:
            connection.close()
        return any(name.endswith("_store") and f"{name.removesuffix('_store')}_job" in names for name in names)
    return False


def url_of(srv: Server) -> str:
    """For people: without a password."""
    return srv.inspector.connection.url


def target_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --url and --namespace; the command gets them as its first argument, a Target."""
    return _options(command, DEFAULT_URL, "tasqueue")


def app_target_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """As `target_options`, for a command that loads an application, whose Server may name a store."""
    return _options(command, "that of APP:SERVER", "that of APP:SERVER")


def _options(command: Callable[..., Any], url_default: str, namespace_default: str) -> Callable[..., Any]:
    @click.option("-u", "--url", envvar="TASQUEUE_URL", show_envvar=True, help=f"The store.  [default: {url_default}]")
    @click.option("-n", "--namespace", help=f"The namespace in it.  [default: {namespace_default}]")
    @click.pass_context
    @functools.wraps(command)
    def with_target(ctx: click.Context, url: str | None, namespace: str | None, **options: Any) -> Any:
        from_env = ctx.get_parameter_source("url") is ParameterSource.ENVIRONMENT
        return command(Target(url, namespace, from_env), **options)

    return with_target


def ask(target: Target, question: Callable[[Inspector], Awaitable[T]]) -> T:
    """Connect, ask, disconnect."""

    async def main() -> T:
        async with target.server() as srv:
            return await question(srv.inspector)

    return asyncio.run(main())


json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document, nothing else.")
