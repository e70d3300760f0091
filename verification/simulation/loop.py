"""Virtual time: a loop that jumps to its next timer, machines that can be frozen, and wall clocks that differ."""

import asyncio
import contextlib
import heapq
import itertools
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
        """As SIGCONT: callbacks that were due meanwhile run now, late, in their order."""
        self.frozen = False
        parked, self.parked = self.parked, []
        loop: Any = asyncio.get_running_loop()
        loop._ready.extend(handle for handle in parked if not handle.cancelled())


machine: ContextVar[Machine | None] = ContextVar("machine", default=None)
"""The machine that the current task runs on; None: no machine, as for Discord and the stores."""


class _Handle(events.Handle):
    """A callback that waits while its machine is frozen."""

    def _run(self) -> None:
        where = self._context.get(machine)  # type: ignore[attr-defined]
        if where is not None and where.frozen:
            where.parked.append(self)
        else:
            super()._run()


class _TimerHandle(_Handle, events.TimerHandle):
    """The same at a time."""


class _Task(asyncio.Task[Any]):
    """A task whose hash is its number in its loop.

    asyncio keeps tasks in sets and cancels them in their order. By addresses in memory that order would depend on what
    the process did before, and a seed would not give the same run again.
    """

    _number: int | None = None

    def __hash__(self) -> int:
        if self._number is None:
            self._number = next(self.get_loop().task_numbers)  # type: ignore[attr-defined]
        return self._number


class VirtualLoop(asyncio.SelectorEventLoop):
    """Nothing waits: when no callback is ready, time jumps to the next timer.

    It overrides the two methods in which asyncio's base loop creates handles (the same in CPython 3.11 to 3.14).
    """

    def __init__(self) -> None:
        super().__init__()
        self._virtual_s = 0.0
        self.task_numbers = itertools.count()
        self.set_task_factory(lambda loop, coro, **settings: _Task(coro, loop=loop, **settings))
        selector: Any = self._selector  # type: ignore[attr-defined]
        really_select = selector.select

        def select(timeout: float | None) -> object:
            if timeout is None:
                raise RuntimeError("all tasks wait and no timer is set")
            # An iteration takes a moment, as in reality: a deadline that rounding puts at "now" must not come again.
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


def wall_s() -> float:
    """The wall clock of the current task's machine, in Unix seconds."""
    return _wall_s(asyncio.get_running_loop())


def _wall_s(loop: asyncio.AbstractEventLoop) -> float:
    where = machine.get()
    return EPOCH_S + loop.time() + (where.skew_s if where is not None else 0.0)


@contextlib.contextmanager
def _virtual_wall_clock(loop: VirtualLoop) -> Iterator[None]:
    """The shards and the log records read `time.time` itself."""
    really = time.time
    time.time = lambda: _wall_s(loop)
    try:
        yield
    finally:
        time.time = really


def run_virtual(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine to its end on virtual time."""
    loop = VirtualLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner, _virtual_wall_clock(loop):
        return runner.run(work)
