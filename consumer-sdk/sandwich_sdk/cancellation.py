"""Cancelling across libraries that swallow it, and handlers that pass on a cancellation that was not theirs.

On Python 3.11 `asyncio.wait_for` returns its result when the task is cancelled in the moment in which that arrives
(python/cpython#86296), and nats-py and redis-py wait so in every request. nats-py also drops the cancellation of who
waits for its full flush queue. A loop around such a call would go on for ever.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from sandwich_sdk.errors import HandlerCancelled


def honour_cancel() -> None:
    """Raise the CancelledError that a library swallowed, if it did."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


@contextmanager
def honouring_cancel() -> Iterator[None]:
    """Around such calls: a cancellation counts however they end. Not for clean-up in a task that was cancelled."""
    try:
        yield
    finally:
        honour_cancel()


class Owner:
    """The task that handlers run for: made in it, before any of them runs.

    The count of cancellations of a task that runs handlers says nothing: on Python 3.11 a TaskGroup that fails in a
    handler leaves it one too high for good.
    """

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self._before = self._task.cancelling() if self._task is not None else 0

    @property
    def is_cancelled(self) -> bool:
        """Whether its end was asked for since."""
        return self._task is not None and self._task.cancelling() > self._before

    @contextmanager
    def calling_handler(self) -> Iterator[None]:
        """Around a handler: raises HandlerCancelled instead of a CancelledError that does not come from the owner.

        Awaiting a task or future that other code cancelled raises CancelledError, too, and would end the worker.
        """
        try:
            yield
        except asyncio.CancelledError as error:
            if self.is_cancelled:
                raise
            raise HandlerCancelled("the handler awaited something that other code cancelled") from error
