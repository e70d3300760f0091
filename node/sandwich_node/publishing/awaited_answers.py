"""Appends that have to be awaited, for callers that do not wait (`Log.begin`)."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from sandwich_node.publishing.log import OnAnswer


class AwaitedAnswers:
    """Awaits each append in a task of its own."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def give(self, append: Coroutine[Any, Any, int], on_answer: OnAnswer) -> None:
        """Call `on_answer` with what `append` returns or raises, later."""
        task = asyncio.create_task(_give(append, on_answer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _give(append: Coroutine[Any, Any, int], on_answer: OnAnswer) -> None:
    try:
        answer: int | Exception = await append
    except Exception as error:
        # Any error: the one who began the append waits for its answer.
        answer = error
    on_answer(answer)
