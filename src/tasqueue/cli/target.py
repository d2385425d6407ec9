"""Which store a command talks to: `--url` and `--namespace`, an application's Server, and the connection to it.

A command that only looks never makes a store: a misspelt path is an error, not an empty queue.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

import click
from click.core import ParameterSource

from ..client.app import CannotLoad, load_app
from ..client.connection import DEFAULT_URL
from ..client.inspector import Inspector
from ..engines import redact
from ..server import Server

T = TypeVar("T")


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
        parts = urlsplit(url)
        path = Path(unquote(parts.path.removeprefix("/")))
        if parts.scheme == "sqlite" and not path.exists():
            default = "" if self.url else " (the default: --url or $TASQUEUE_URL name another)"
            raise click.ClickException(
                f"{redact(url)}{default}: there is no file {str(path)!r} in {Path.cwd()}; "
                "`tasqueue worker` and `tasqueue enqueue` make it"
            )
        if parts.scheme == "memory":
            raise click.ClickException(
                f"{redact(url)} lives inside one process, so there is nothing to see from here; use sqlite:///file"
            )
        return Server(self.wanted or url)

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
        return srv


def url_of(srv: Server) -> str:
    """For people: without a password."""
    return srv.inspector.connection.url


def target_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --url and --namespace; the command gets them as its first argument, a Target."""

    @click.option("-u", "--url", envvar="TASQUEUE_URL", show_envvar=True, help=f"The store.  [default: {DEFAULT_URL}]")
    @click.option("-n", "--namespace", help="The namespace in it.  [default: tasqueue]")
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
