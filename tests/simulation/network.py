"""What lies between a simulated process and the store: requests and replies that take their time, pass each other, or
never come.

Invariant: a request that has arrived is one step of the store, in the store's own strand, whatever has become of its
sender. A reply comes to the sender's strand, and waits there while its process stands still.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tasqueue.errors import EngineUnavailable
from tasqueue.interfaces import Engine
from tasqueue.testing.flaky import FlakyEngine

from .loop import SimLoop, Strand, context_of

Note = Callable[[str, str, tuple[Any, ...], Any], None]
"""`note(process, verb, arguments, answer)`: a request was executed. The answer may be an exception."""


@dataclass
class Rates:
    """Probabilities of a call. `slow`: that a way takes up to `slowest` seconds instead of a few milliseconds."""

    lose_request: float = 0.0
    lose_reply: float = 0.0
    slow: float = 0.0
    slowest: float = 0.0

    @property
    def may_starve(self) -> bool:
        """Whether a worker's beats may fail to arrive for a while."""
        return self.lose_request > 0 or self.slow > 0


QUIET = Rates()


class Network:
    """Shared by all processes. `cut`: the processes that no longer reach the store."""

    def __init__(self, loop: SimLoop, server: Strand, seed: str, rates: Rates, timeout: float, note: Note) -> None:
        self.loop = loop
        self.server = server
        self.context = context_of(server)
        self.rates = rates
        self.timeout = timeout
        self.note = note
        self.cut: dict[str, int] = {}
        self.pending = 0
        """Slow requests that have not arrived."""
        self.chance = random.Random(seed).random

    def way(self) -> float:
        """Seconds that a message takes."""
        if self.rates.slow and self.chance() < self.rates.slow:
            return self.chance() * self.rates.slowest
        return 0.0002 + 0.004 * self.chance()

    def loses(self, probability: float) -> bool:
        return probability > 0 and self.chance() < probability


class Wire(FlakyEngine):
    """The store as one strand of a process reaches it; FlakyEngine has the verbs."""

    def __init__(self, engine: Engine, network: Network, process: str) -> None:
        super().__init__(engine)
        self._network = network
        self._process = process
        self._late = engine.twin()
        """Executes what its sender has given up: the engine object must not take it for a look of its own."""

    def twin(self) -> Engine:
        return Wire(self.engine.twin(), self._network, self._process)

    async def close(self) -> None:
        pass

    async def _call(self, verb: str, *args: Any) -> Any:
        if verb == "open":
            return None
        if verb in ("wait", "watch"):
            return await self._sleep(verb, args)
        network = self._network
        loop, rates = network.loop, network.rates
        future = loop.create_future()
        at_once = network.chance() < 0.5  # a reset says so; otherwise it is silence until the timeout
        if network.cut.get(self._process) or network.loses(rates.lose_request):
            if at_once:
                loop.call_later(network.way(), _fail, future, f"{verb}: the request was lost")
        else:
            silent = network.loses(rates.lose_reply)
            network.pending += 1
            loop.call_later(
                network.way(),
                self._serve,
                verb,
                args,
                future,
                contextvars.copy_context(),
                silent,
                at_once,
                context=network.context,
            )
        timer = loop.call_later(network.timeout, _fail, future, f"{verb}: no answer within {network.timeout:g} s")
        try:
            return await future
        finally:
            timer.cancel()

    def _serve(
        self,
        verb: str,
        args: tuple[Any, ...],
        future: asyncio.Future[Any],
        context: contextvars.Context,
        silent: bool,
        at_once: bool,
    ) -> None:
        network = self._network
        engine = self._late if future.done() else self.engine
        network.pending -= 1
        answer: Any
        try:
            getattr(engine, verb)(*args).send(None)
        except StopIteration as done:
            answer = done.value
        except Exception as error:
            answer = error
        else:
            raise AssertionError(f"{verb} is not one step of the memory engine")
        network.note(self._process, verb, args, answer)
        if not silent:
            network.loop.call_later(network.way(), _answer, future, answer, context=context)
        elif at_once:
            network.loop.call_later(
                network.way(), _fail, future, f"{verb}: done, but its reply was lost", context=context
            )

    async def _sleep(self, verb: str, args: tuple[Any, ...]) -> None:
        network = self._network
        await asyncio.sleep(network.way())
        if network.cut.get(self._process) or network.loses(network.rates.lose_request):
            raise EngineUnavailable(f"{verb}: the request was lost")
        await getattr(self.engine, verb)(*args)
        await asyncio.sleep(network.way())


def _fail(future: asyncio.Future[Any], why: str) -> None:
    if not future.done():
        future.set_exception(EngineUnavailable(why))


def _answer(future: asyncio.Future[Any], answer: Any) -> None:
    if future.done():
        return
    if isinstance(answer, BaseException):
        future.set_exception(answer)
    else:
        future.set_result(answer)
