"""Cancellation with libraries that swallow it, and handlers that raise CancelledError without being cancelled.

On Python 3.11 `asyncio.wait_for` returns its result when the task is cancelled at the moment the result arrives
(python/cpython#86296); nats-py and redis-py use it in every request. nats-py also drops the cancellation of a task that
waits for its full flush queue. A loop around such a call would never end.
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
    """Around such calls: raise a swallowed CancelledError. Not for clean-up in a task that was cancelled."""
    try:
        yield
    finally:
        honour_cancel()


@contextmanager
def without_group() -> Iterator[None]:
    """Around a handler: raise the CancelledError that is in a group, so that a timeout and the worker see it.

    What is raised in an `except*` block leaves it in a group; before Python 3.11.4 that is so for a single error, too
    (python/cpython#103590). Groups with KeyboardInterrupt or SystemExit stay as they are.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        cancelled, others = group.split(asyncio.CancelledError)
        if cancelled is None or not (others is None or isinstance(others, Exception)):
            raise
        raise asyncio.CancelledError from group


class Owner:
    """The task that the handlers run for. Create it in that task, before any handler runs.

    The cancellation count of the tasks that run handlers cannot be used: on Python 3.11 a TaskGroup that fails in a
    handler leaves the count one too high.
    """

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self._before = self._task.cancelling() if self._task is not None else 0

    @property
    def is_cancelled(self) -> bool:
        """Whether the task was cancelled since."""
        return self._task is not None and self._task.cancelling() > self._before

    @contextmanager
    def calling_handler(self) -> Iterator[None]:
        """Around a handler: raises HandlerCancelled instead of a CancelledError if the owner was not cancelled.

        Awaiting a task or future that other code cancelled also raises CancelledError, which would end the worker.
        """
        try:
            yield
        except asyncio.CancelledError as error:
            if self.is_cancelled:
                raise
            raise HandlerCancelled("the handler awaited something that other code cancelled") from error
