"""A function's signature as a wire format: arguments to payload and back, result to bytes and back, by msgspec.

The payload is msgpack `[args, kwargs]`. What is checked at enqueue is the payload itself, decoded as a worker will
decode it: whatever passes can be run. Annotations are resolved when first needed, so they may name what comes later.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from types import UnionType
from typing import Any, Union, cast, get_args, get_origin

import msgspec

from ..errors import InvalidJob
from .context import JobCtx

_CTX = re.compile(r"(?:^|[^\w])JobCtx(?:$|[^\w])")
_encode = msgspec.msgpack.Encoder().encode
_UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError)
_WHAT_CAN = "builtins, dataclasses, msgspec.Struct, datetime, UUID and enums can be sent"
_Positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_Raws = tuple[list[msgspec.Raw], dict[str, msgspec.Raw]]


def pack(*args: Any, **kwargs: Any) -> bytes:
    """The payload of a typed task called with these arguments: msgpack `[args, kwargs]`. InvalidJob."""
    try:
        return _encode((args, kwargs))
    except _UNENCODABLE as error:
        raise InvalidJob(f"pack{_shown(args, kwargs)}: {error}; {_WHAT_CAN}") from None


class Signature:
    """What a typed task needs to know about its function. `task`: its name, for messages."""

    def __init__(self, task: str, function: Callable[..., Any]) -> None:
        self.task = task
        self.function = function
        try:
            whole = inspect.signature(function)
        except (TypeError, ValueError) as error:
            raise InvalidJob(f"task {task!r}: {function!r} has no signature to go by: {error}") from None
        self._return = whole.return_annotation
        self._globals = _globals_of(function)
        ctx = [p for p in whole.parameters.values() if self._is_ctx(p.annotation)]
        if len(ctx) > 1:
            raise InvalidJob(f"task {task!r} takes {len(ctx)} JobCtx: {', '.join(p.name for p in ctx)}; one is enough")
        self.ctx: inspect.Parameter | None = ctx[0] if ctx else None
        self._at = list(whole.parameters).index(self.ctx.name) if self.ctx else 0
        if self.ctx is not None and self.ctx.kind in (self.ctx.VAR_POSITIONAL, self.ctx.VAR_KEYWORD):
            raise InvalidJob(f"task {task!r}: {self.ctx} cannot be the context; write {self.ctx.name}: JobCtx")
        self._public = whole.replace(parameters=[p for p in whole.parameters.values() if p is not self.ctx])
        self._fast: Callable[[bytes], Any] | None = None
        self._types: dict[str, Any] | None = None
        self._decoders: dict[str, Callable[[Any], Any]] = {}
        self._result: Callable[[bytes], Any] | None = None

    def requires_arguments(self) -> bool:
        """Whether it cannot be called without any."""
        try:
            self._public.bind()
        except TypeError:
            return True
        return False

    # -- producing ------------------------------------------------------------------------------------------------

    def encode(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        """The payload. InvalidJob names the task, the parameter, what was expected and what was given."""
        try:
            payload = _encode((args, kwargs))
        except _UNENCODABLE as error:
            self._explain(args, kwargs)
            raise InvalidJob(f"task {self.task!r}: these arguments cannot be encoded: {error}") from None
        if not kwargs:
            try:
                (self._fast or self._compile())(payload)
            except msgspec.DecodeError:  # too few for the whole signature, or wrong ones: the long way tells
                self._explain(args, kwargs)
        else:
            self._explain(args, kwargs)
        return payload

    def _explain(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Check one argument after another."""
        try:
            bound = self._public.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidJob(f"task {self.task!r}{self._public}: {error}; given were {_shown(args, kwargs)}") from None
        for parameter, value in self._each(bound.arguments):
            try:
                data = _encode(value)
            except _UNENCODABLE as error:
                raise InvalidJob(
                    f"task {self.task!r}, argument {parameter.name!r}: {_short(value)} cannot be encoded: {error}; "
                    f"{_WHAT_CAN}"
                ) from None
            try:
                self._decoder(parameter)(data)
            except msgspec.DecodeError as error:
                raise InvalidJob(
                    f"task {self.task!r}, argument {parameter.name!r}: {_short(value)} does not fit "
                    f"{_named(self._type(parameter))}: {error}"
                ) from None

    def _each(self, arguments: Mapping[str, Any]) -> list[tuple[inspect.Parameter, Any]]:
        """Parameter and value, with those of *args and **kwargs one by one."""
        pairs: list[tuple[inspect.Parameter, Any]] = []
        for name, value in arguments.items():
            parameter = self._public.parameters[name]
            if parameter.kind is parameter.VAR_POSITIONAL:
                pairs += [(parameter, item) for item in value]
            elif parameter.kind is parameter.VAR_KEYWORD:
                pairs += [(parameter, item) for item in value.values()]
            else:
                pairs.append((parameter, value))
        return pairs

    # -- running --------------------------------------------------------------------------------------------------

    def decode(self, payload: bytes) -> tuple[Sequence[Any], dict[str, Any]]:
        """The arguments in a payload, as their annotations say, without the context. InvalidJob."""
        try:
            args, kwargs = (self._fast or self._compile())(payload)
            if not kwargs:
                return args, kwargs
        except msgspec.DecodeError:
            pass
        return self._decode_long(payload)

    def _decode_long(self, payload: bytes) -> tuple[Sequence[Any], dict[str, Any]]:
        try:
            args, kwargs = msgspec.msgpack.decode(payload, type=_Raws)
            bound = self._public.bind(*args, **kwargs)
        except (msgspec.DecodeError, TypeError) as error:
            raise InvalidJob(f"task {self.task!r}{self._public}: the payload does not fit: {error}") from None
        for name, raw in bound.arguments.items():
            parameter = self._public.parameters[name]
            decode = self._decoder(parameter)
            try:
                if parameter.kind is parameter.VAR_POSITIONAL:
                    value: Any = tuple(decode(item) for item in raw)
                elif parameter.kind is parameter.VAR_KEYWORD:
                    value = {key: decode(item) for key, item in raw.items()}
                else:
                    value = decode(raw)
            except msgspec.DecodeError as error:
                raise InvalidJob(
                    f"task {self.task!r}, argument {name!r}: the payload does not fit "
                    f"{_named(self._type(parameter))}: {error}"
                ) from None
            bound.arguments[name] = value
        bound.apply_defaults()
        return bound.args, bound.kwargs

    def call(self, args: Sequence[Any], kwargs: Mapping[str, Any], ctx: JobCtx | None) -> Any:
        """Call the function with decoded arguments, its context put where it wants it."""
        if self.ctx is None:
            return self.function(*args, **kwargs)
        if self.ctx.kind is self.ctx.KEYWORD_ONLY:
            return self.function(*args, **kwargs, **{self.ctx.name: ctx})
        if len(args) < self._at:
            bound = self._public.bind(*args, **kwargs)
            bound.apply_defaults()
            args, kwargs = bound.args, bound.kwargs
        return self.function(*args[: self._at], ctx, *args[self._at :], **kwargs)

    # -- results --------------------------------------------------------------------------------------------------

    def encode_result(self, value: Any) -> bytes | None:
        """What is saved; None saves nothing. InvalidJob for what has no encoding."""
        if value is None:
            return None
        try:
            return _encode(value)
        except _UNENCODABLE as error:
            raise InvalidJob(
                f"task {self.task!r} returned {_short(value)}, which cannot be saved: {error}; {_WHAT_CAN}"
            ) from None

    def decode_result(self, data: bytes) -> Any:
        """A saved result as the return annotation says. InvalidJob when it is something else."""
        if self._result is None:
            annotation = self._resolve(self._return, "its return value")
            self._result = self._build(annotation, "its return value")
        try:
            return self._result(data)
        except msgspec.DecodeError as error:
            raise InvalidJob(
                f"the saved result of task {self.task!r} is not what it is annotated to return: {error}; "
                "`srv.get_result(id)` gives the bytes"
            ) from None

    # -- annotations ----------------------------------------------------------------------------------------------

    def _compile(self) -> Callable[[bytes], Any]:
        """The decoder for a call with all positional arguments and nothing else, which nearly all calls are."""
        parameters = self._public.parameters.values()
        if any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters):
            self._fast = _never
        else:
            types = tuple(self._type(p) for p in parameters if p.kind in _Positional)
            shape: Any = tuple[types] if types else tuple[()]
            self._fast = self._build(tuple[shape, dict[str, msgspec.Raw]], "its parameters")
        return self._fast

    def _type(self, parameter: inspect.Parameter) -> Any:
        if self._types is None:
            self._types = {
                p.name: self._resolve(p.annotation, f"parameter {p.name!r}") for p in self._public.parameters.values()
            }
        return self._types[parameter.name]

    def _decoder(self, parameter: inspect.Parameter) -> Callable[[Any], Any]:
        decoder = self._decoders.get(parameter.name)
        if decoder is None:
            decoder = self._build(self._type(parameter), f"parameter {parameter.name!r}")
            self._decoders[parameter.name] = decoder
        return decoder

    def _build(self, type: Any, what: str) -> Callable[[Any], Any]:
        try:
            return msgspec.msgpack.Decoder(type).decode
        except (TypeError, NameError) as error:
            raise InvalidJob(f"task {self.task!r}: the annotation of {what} cannot be used: {error}") from None

    def _resolve(self, annotation: Any, what: str) -> Any:
        if annotation is inspect.Parameter.empty:
            return Any
        if isinstance(annotation, str):
            try:
                return eval(annotation, self._globals, {"JobCtx": JobCtx})
            except Exception as error:
                raise InvalidJob(
                    f"task {self.task!r}: the annotation {annotation!r} of {what} cannot be resolved: {error}; what "
                    "it names must be there at run time, at module level (not under TYPE_CHECKING, not in a function)"
                ) from None
        return annotation

    def _is_ctx(self, annotation: Any) -> bool:
        """Whether it is JobCtx or a union with it; in text, also where the name is imported for type checkers only."""
        if isinstance(annotation, str):
            try:
                annotation = eval(annotation, self._globals, {})
            except Exception:
                return _CTX.search(annotation) is not None
        if get_origin(annotation) in (Union, UnionType):
            return any(self._is_ctx(member) for member in get_args(annotation))
        return annotation is JobCtx


def _globals_of(function: Any) -> dict[str, Any]:
    """Where the names in its annotations are looked up."""
    function = inspect.unwrap(function)
    while isinstance(function, functools.partial):
        function = inspect.unwrap(cast("functools.partial[Any]", function).func)
    found = getattr(function, "__globals__", None) or getattr(type(function).__call__, "__globals__", None)
    return found or {}


def _never(_: bytes) -> Any:
    raise msgspec.DecodeError("there are keyword-only arguments")


def _named(type: Any) -> str:
    return getattr(type, "__name__", None) or str(type)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}… ({len(text):,} characters)"


def _shown(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    return f"({', '.join([*map(_short, args), *(f'{k}={_short(v)}' for k, v in kwargs.items())])})"
