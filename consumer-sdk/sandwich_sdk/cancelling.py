"""Cancelling across libraries that swallow it.

On Python 3.11 `asyncio.wait_for` returns its result when the task is cancelled in the moment in which that arrives
(python/cpython#86296), and nats-py and redis-py wait so in every request. nats-py also drops the cancellation of who
waits for its full flush queue. A loop around such a call would go on for ever.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


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
