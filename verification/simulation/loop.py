"""Virtual time: an event loop that jumps to its next timer, machines that can freeze, and skewed wall clocks."""

import asyncio
import contextlib
import heapq
import time
from asyncio import events
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context, ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

_T = TypeVar("_T")

EPOCH_S = 1_800_000_000.0
"""The wall clock at virtual time 0. No real clock is read."""

TURN_S = 1e-8


@dataclass(slots=True, eq=False)
class Machine:
    """The state that the tasks of one machine share: the wall clock's error `skew_s`, and whether they are frozen."""

    skew_s: float = 0.0
    frozen: bool = False
    parked: list[events.Handle] = field(default_factory=list)

    def thaw(self) -> None:
        """Like SIGCONT: callbacks that were due meanwhile run now, in their order."""
        self.frozen = False
        parked, self.parked = self.parked, []
        loop: Any = asyncio.get_running_loop()
        loop._ready.extend(handle for handle in parked if not handle.cancelled())


machine: ContextVar[Machine | None] = ContextVar("machine", default=None)
"""The machine of the current task; None for Discord and the servers."""


class _Handle(events.Handle):
    """A callback that waits while its machine is frozen."""

    def _run(self) -> None:
        where = self._context.get(machine)  # type: ignore[attr-defined]
        if where is not None and where.frozen:
            where.parked.append(self)
        else:
            super()._run()


class _TimerHandle(events.TimerHandle):
    def _run(self) -> None:
        where = self._context.get(machine)  # type: ignore[attr-defined]
        if where is not None and where.frozen:
            where.parked.append(self)
        else:
            super()._run()


class VirtualLoop(asyncio.SelectorEventLoop):
    """When no callback is ready, time jumps to the next timer.

    It overrides the two methods in which asyncio's base loop creates handles (the same in CPython 3.11 to 3.14).
    """

    def __init__(self) -> None:
        super().__init__()
        self._virtual_s = 0.0
        selector: Any = self._selector  # type: ignore[attr-defined]
        really_select = selector.select

        def select(timeout: float | None) -> object:
            if timeout is None:
                raise RuntimeError("all tasks wait and no timer is set")
            # Each turn takes some time, so that a deadline that is rounded to "now" does not repeat for ever.
            self._virtual_s += timeout or TURN_S
            return really_select(0) if not timeout else ()

        selector.select = select

    def time(self) -> float:
        return self._virtual_s

    def _call_soon(self, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None) -> _Handle:
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> _TimerHandle:
        timer = _TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)  # type: ignore[attr-defined]
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer


@contextlib.contextmanager
def _virtual_wall_clock(loop: VirtualLoop) -> Iterator[None]:
    def now() -> float:
        where = machine.get()
        return EPOCH_S + loop.time() + (where.skew_s if where is not None else 0.0)

    really = time.time
    time.time = now
    try:
        yield
    finally:
        time.time = really


def run_virtual(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine to its end on virtual time."""
    loop = VirtualLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner, _virtual_wall_clock(loop):
        return runner.run(work)
