"""Arguments to payload and back. What is refused at enqueue names task, parameter, expected and given."""

from __future__ import annotations

import datetime as dt
import enum
import functools
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Optional

import msgspec
import pytest

from tasqueue import InvalidJob, JobCtx, pack
from tasqueue.client.context import local
from tasqueue.client.signature import Signature

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForCheckers

    from tasqueue import JobCtx as Renamed


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: int = 0


class Box(msgspec.Struct):
    point: Point
    colour: Colour = Colour.RED


def add(a: int, b: int) -> int:
    return a + b


def defaults(a: int, b: int = 2, *, c: str = "c") -> str:
    return f"{a}{b}{c}"


def required_keyword(a: int, *, b: int) -> int:
    return a - b


def variadic(a: int, *rest: int, **named: str) -> Any:
    return a, rest, named


def positional_only(a: int, b: int = 1, /) -> int:
    return a * b


def rich(
    box: Box,
    points: list[Point],
    when: dt.datetime,
    id: uuid.UUID,
    colour: Colour,
    limited: Annotated[int, msgspec.Meta(ge=0)] = 0,
    anything: Any = None,
    untyped=None,
) -> Box: ...


def nothing() -> None: ...


NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
ID = uuid.UUID(int=7)


@pytest.mark.parametrize(
    ("fn", "args", "kwargs"),
    [
        (add, (5, 4), {}),
        (add, (5,), {"b": 4}),
        (add, (), {"b": 4, "a": 5}),
        (defaults, (1,), {}),
        (defaults, (1, 3), {}),
        (defaults, (1,), {"c": "x"}),
        (required_keyword, (5,), {"b": 3}),
        (variadic, (1,), {}),
        (variadic, (1, 2, 3), {}),
        (variadic, (1, 2), {"k": "v"}),
        (positional_only, (3,), {}),
        (positional_only, (3, 4), {}),
        (nothing, (), {}),
    ],
)
def test_what_is_encoded_is_called_with_the_same_arguments(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    signature = Signature("t", fn)
    payload = signature.encode(args, kwargs)
    assert payload == pack(*args, **kwargs)
    assert msgspec.msgpack.decode(payload) == [list(args), kwargs]
    assert signature.call(*signature.decode(payload), None) == fn(*args, **kwargs)


def test_arguments_arrive_as_their_annotations_say() -> None:
    signature = Signature("t", rich)
    given = (Box(Point(1)), [Point(2, 3)], NOW, ID, Colour.RED, 3, {"k": [1]}, None)
    args, kwargs = signature.decode(signature.encode(given, {}))
    assert tuple(args) == given
    assert kwargs == {}
    args, kwargs = signature.decode(signature.encode(given[:4], {"colour": Colour.RED}))
    assert (*args, *kwargs.values()) == (*given[:5], 0, None, None)


@pytest.mark.parametrize(
    ("fn", "args", "kwargs", "messages"),
    [
        (add, ("5", 4), {}, ["'t'", "'a'", "'5'", "int", "`str`"]),
        (add, (5,), {"b": "4"}, ["'b'", "'4'", "int"]),
        (add, (5, 4.5), {}, ["'b'", "4.5", "int", "`float`"]),
        (add, (5, None), {}, ["'b'", "None", "int"]),
        (add, (True, 1), {}, ["'a'", "True", "`bool`"]),
        (add, (5,), {}, ["'b'", "missing", "(5)"]),
        (add, (5, 4, 3), {}, ["too many", "(5, 4, 3)"]),
        (add, (5, 4), {"c": 1}, ["'c'", "unexpected"]),
        (add, (5, 4), {"a": 1}, ["'a'", "multiple"]),
        (add, (1 << 70, 4), {}, ["'a'", "cannot be encoded"]),
        (add, (object(), 4), {}, ["'a'", "cannot be encoded", "object"]),
        (required_keyword, (5,), {}, ["'b'", "missing"]),
        (required_keyword, (5, 3), {}, ["too many"]),
        (variadic, (1, "2"), {}, ["'rest'", "'2'"]),
        (variadic, (1,), {"k": 2}, ["'named'", "2"]),
        (positional_only, (), {"a": 1}, ["positional only"]),
        (nothing, (1,), {}, ["too many"]),
        (rich, (Box(Point(1)), [Point("2")], NOW, ID, Colour.RED), {}, ["'points'", "int"]),  # type: ignore[arg-type]
        (rich, (Box(Point(1)), [], NOW, ID, Colour.RED, -1), {}, ["'limited'", "-1", ">= 0"]),
        (rich, (Box(Point(1)), [], NOW, ID, "green"), {}, ["'colour'", "green"]),
        (rich, (Box(Point(1)), [], NOW, ID, Colour.RED, 0, lambda: 0), {}, ["'anything'", "cannot be encoded"]),
        (rich, (Box(Point(1)), [], NOW, ID, Colour.RED, 0, None, {1: object()}), {}, ["'untyped'"]),
    ],
)
def test_what_does_not_fit_is_refused(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], messages: list[str]
) -> None:
    with pytest.raises(InvalidJob) as caught:
        Signature("t", fn).encode(args, kwargs)
    for message in ("'t'", *messages):
        assert message in str(caught.value)


def test_an_argument_that_contains_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(InvalidJob, match="'untyped'"):
        Signature("t", rich).encode((Box(Point(1)), [], NOW, ID, Colour.RED), {"untyped": endless})
    with pytest.raises(InvalidJob, match="pack"):
        pack(endless)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\xff" * 100,
        pack(),
        pack(1),
        pack(1, 2, 3),
        pack("1", 2),
        pack(1, c=2),
        pack(1, 2)[:-1],
        pack(1, 2) + b"\x00",
        msgspec.msgpack.encode([1, 2]),
        msgspec.msgpack.encode({"args": [1, 2]}),
        msgspec.msgpack.encode([[1, 2]]),
        msgspec.msgpack.encode([[1, 2], {1: 2}]),
    ],
)
def test_a_payload_that_does_not_fit_is_refused(payload: bytes) -> None:
    with pytest.raises(InvalidJob, match="'t'"):
        Signature("t", add).decode(payload)


def ctx_first(ctx: JobCtx, a: int, b: int = 2) -> Any:
    return ctx, a, b


def ctx_middle(a: int, ctx: JobCtx, b: int = 2) -> Any:
    return ctx, a, b


def ctx_after_defaults(a: int = 1, b: int = 2, ctx: JobCtx | None = None) -> Any:
    return ctx, a, b


def ctx_optional(a: int, b: int = 2, *, ctx: Optional[JobCtx] = None) -> Any:  # noqa: UP045
    return ctx, a, b


def ctx_positional_only(a: int, ctx: JobCtx, b: int = 2, /) -> Any:
    return ctx, a, b


def ctx_dotted(a: int, ctx: tasqueue.JobCtx, b: int = 2) -> Any:  # noqa: F821
    return ctx, a, b


@pytest.mark.parametrize(
    "fn", [ctx_first, ctx_middle, ctx_after_defaults, ctx_optional, ctx_positional_only, ctx_dotted]
)
def test_the_context_goes_where_it_is_wanted_and_is_no_argument(fn: Callable[..., Any]) -> None:
    signature = Signature("t", fn)
    assert signature.ctx is not None
    ctx = local("t", "q", b"", 0, 100)
    for args, kwargs in (((1,), {}), ((1, 2), {})):
        payload = signature.encode(args, kwargs)
        assert payload == pack(*args, **kwargs)
        assert signature.call(*signature.decode(payload), ctx) == (ctx, 1, 2)
        assert signature.call(args, kwargs, ctx) == (ctx, 1, 2)
    if fn is not ctx_positional_only:
        assert signature.call(*signature.decode(signature.encode((1,), {"b": 3})), ctx) == (ctx, 1, 3)
        assert signature.call(*signature.decode(signature.encode((), {"b": 3, "a": 4})), ctx) == (ctx, 4, 3)
        assert signature.call((), {"b": 3, "a": 4}, ctx) == (ctx, 4, 3)
    with pytest.raises(InvalidJob):
        signature.encode((1, 2, 3), {})


class Called:
    def __call__(self, ctx: JobCtx, a: Point) -> Any:
        return ctx, a


def test_partials_and_callable_objects() -> None:
    ctx = local("t", "q", b"", 0, 100)
    for fn in (functools.partial(ctx_first, b=5), functools.partial(functools.partial(ctx_first), b=5)):
        signature = Signature("t", fn)
        assert signature.call(*signature.decode(signature.encode((1,), {})), ctx) == (ctx, 1, 5)
    signature = Signature("t", Called())
    assert signature.call(*signature.decode(signature.encode((Point(1),), {})), ctx) == (ctx, Point(1))


def test_only_one_context_and_not_as_variadic() -> None:
    def two(a: JobCtx, b: JobCtx) -> None: ...
    def many(*ctx: JobCtx) -> None: ...

    with pytest.raises(InvalidJob, match="2 JobCtx: a, b"):
        Signature("t", two)
    with pytest.raises(InvalidJob, match="cannot be the context"):
        Signature("t", many)


def test_an_annotation_that_cannot_be_resolved_is_named_when_it_is_needed() -> None:
    def fn(a: OnlyForCheckers) -> None: ...
    def renamed(ctx: Renamed) -> None: ...
    def two_classes(a: Point | Box) -> None: ...

    with pytest.raises(InvalidJob, match=r"'OnlyForCheckers' of parameter 'a'.*module level"):
        Signature("t", fn).encode((1,), {})
    with pytest.raises(InvalidJob, match=r"'Renamed' of parameter 'ctx'"):
        Signature("t", renamed).encode((1,), {})
    with pytest.raises(InvalidJob, match="the annotation of its parameters cannot be used"):
        Signature("t", two_classes).encode((Point(1),), {})


def later(a: DefinedLater) -> DefinedLater:
    return a


signature_made_before = Signature("t", later)


class DefinedLater(msgspec.Struct):
    n: int


def test_annotations_may_name_what_is_defined_later() -> None:
    args, _ = signature_made_before.decode(pack({"n": 3}))
    assert args == (DefinedLater(3),)


def test_results() -> None:
    signature = Signature("t", rich)
    box = Box(Point(1, 2))
    data = signature.encode_result(box)
    assert data is not None
    assert signature.decode_result(data) == box
    assert signature.encode_result(None) is None
    assert signature.encode_result(0) == b"\x00"
    with pytest.raises(InvalidJob, match=r"'t' returned <object.*cannot be saved"):
        signature.encode_result(object())
    with pytest.raises(InvalidJob, match="saved result of task 't'"):
        signature.decode_result(b"\x01")
    assert Signature("t", lambda: 1).decode_result(b"\x01") == 1


def test_requires_arguments() -> None:
    assert Signature("t", add).requires_arguments()
    assert not Signature("t", ctx_after_defaults).requires_arguments()
    assert not Signature("t", nothing).requires_arguments()
