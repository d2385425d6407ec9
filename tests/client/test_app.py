"""`module:attribute` finds the Server, or says what is wrong with the name; the module's own errors stay."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasqueue import Server
from tasqueue.client.app import CannotLoad, load_app

MODULE = """
from types import SimpleNamespace
from tasqueue import Server

class Own(Server):
    pass

srv = Server("memory://")
inner = SimpleNamespace(own=Own("memory://"))
number = 7

def make():
    return srv

def make_none():
    return None
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    (tmp_path / "loadable.py").write_text(MODULE)
    package = tmp_path / "loadpkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "jobs.py").write_text(
        "from tasqueue import Server\none = Server('memory://')\ntwo = Server('memory://')\n"
    )
    (tmp_path / "loadbroken.py").write_text("import no_such_library\n")
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("load"):
            del sys.modules[name]


@pytest.mark.parametrize(
    "spec", ["loadable:srv", "loadable:inner.own", "loadable:make", "loadable", "loadpkg.jobs:two"]
)
def test_these_name_a_server(spec: str) -> None:
    assert isinstance(load_app(spec), Server)


def test_the_same_name_is_the_same_server() -> None:
    assert load_app("loadable:srv") is load_app("loadable:make") is load_app("loadable")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("loadabel:srv", ["'loadabel'", "did you mean 'loadable'"]),
        ("loadpkg.job:one", ["'loadpkg.job'", "did you mean 'loadpkg.jobs'?"]),
        ("loadable:serv", ["no attribute 'serv'", "did you mean 'srv'?"]),
        ("loadable:inner.owm", ["SimpleNamespace", "'owm'", "'own'"]),
        ("loadable:number", ["is int '7', not a tasqueue.Server"]),
        ("loadable:make_none", ["is NoneType"]),
        ("loadable:Own.srv", ["'srv'"]),
        ("loadpkg.jobs", ["has 2 Servers", "loadpkg.jobs:one, loadpkg.jobs:two"]),
        ("loadpkg", ["has no Server", "module:attribute"]),
        ("loadable.py:srv", ["a module, not a file: loadable:srv"]),
        (":srv", ["module:attribute"]),
        ("", ["module:attribute"]),
    ],
)
def test_what_is_wrong_is_said(spec: str, words: list[str]) -> None:
    with pytest.raises(CannotLoad) as caught:
        load_app(spec)
    for word in words:
        assert word in str(caught.value)


def test_an_error_of_the_module_itself_is_shown_as_it_is() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        load_app("loadbroken:srv")
