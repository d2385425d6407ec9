"""Finds the user's Server from `module:attribute`: the one loader that workers and the command line share.

Invariant: an error raised inside the user's module is shown as it is; only what is wrong with the name is explained.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import pkgutil
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import TasqueueError

SHAPE = "`module:attribute`, such as `jobs:srv` for `srv = Server(...)` in jobs.py"


class CannotLoad(TasqueueError, ValueError):
    """There is no Server under this name."""


def load_app(spec: str) -> Any:
    """The Server that `module:attribute` names, or that `module` alone names when it has just one. CannotLoad.

    The module is looked for in the current folder too. The attribute may be dotted, and may be a function without
    arguments that returns the Server.
    """
    name, _, attribute = spec.partition(":")
    if not name or name.endswith(".py") or "/" in name or os.sep in name:
        raise CannotLoad(f"{spec!r}: {SHAPE}, please{_as_module(name)}")
    module = _import(spec, name)
    if not attribute:
        return _only_server(spec, module)
    found: Any = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            where = "module" if found is module else type(found).__name__
            hint = _similar(part, (n for n in vars(module) if is_server(getattr(module, n)))) or _similar(
                part, dir(found)
            )
            raise CannotLoad(f"{spec!r}: {where} {name!r} has no attribute {part!r}{hint}") from None
    if not is_server(found) and callable(found) and _without_arguments(found):
        found = found()
    if not is_server(found):
        raise CannotLoad(f"{spec!r} is {type(found).__name__} {str(found)[:80]!r}, not a tasqueue.Server")
    return found


def is_server(value: Any) -> bool:
    """Whether it is a Server (this ring cannot import the class)."""
    return any(f"{cls.__module__}.{cls.__qualname__}" == "tasqueue.server.Server" for cls in type(value).__mro__)


def _without_arguments(factory: Any) -> bool:
    try:
        inspect.signature(factory).bind()
    except (TypeError, ValueError):
        return False
    return True


def _import(spec: str, name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing != name and not name.startswith(missing + "."):
            raise  # a module that the user's own imports
        parent = missing.rpartition(".")[0]
        paths = getattr(sys.modules.get(parent), "__path__", [here]) if parent else [here]
        names = (f"{parent}.{m.name}" if parent else m.name for m in pkgutil.iter_modules(paths))
        raise CannotLoad(
            f"{spec!r}: no module {missing!r} in {here} or on sys.path{_similar(missing, names)}"
        ) from None


def _only_server(spec: str, module: ModuleType) -> Any:
    servers = {id(value): (key, value) for key, value in vars(module).items() if is_server(value)}
    if len(servers) == 1:
        return next(iter(servers.values()))[1]
    names = ", ".join(f"{spec}:{key}" for key, _ in servers.values())
    raise CannotLoad(
        f"{spec!r} has {len(servers)} Servers: say which, {names}"
        if servers
        else f"{spec!r} has no Server: {SHAPE}, please"
    )


def _similar(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), 3, 0.6)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


def _as_module(name: str) -> str:
    if not name.endswith(".py"):
        return ""
    return f"; a module, not a file: {name.removesuffix('.py').replace(os.sep, '.').strip('.')}:srv"
