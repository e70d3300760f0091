"""A change that takes time: stored at once, then waited for as long as the caller wants."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from sandwich_coordinator.operations.errors import NotReached
from sandwich_coordinator.operations.progress import Progress, Report
from sandwich_coordinator.operations.progress_json import progress_value
from sandwich_node.api.models import Outcome
from sandwich_node.api.routing import Call, Reply

PROGRESS_MAX = 100


T = TypeVar("T")


async def changed(
    call: Call,
    work: Callable[[Report], Awaitable[T]],
    kind: type[Outcome] = Outcome,
    *,
    ended: Callable[[T], dict[str, Any]] = lambda _: {},
    **more: Any,
) -> Reply:
    """Run an operation with the caller's patience: 200 when its goal is reached, 202 when it goes on.

    `work` gets where to report and uses `call.wait_s` as its deadline. A caller that follows the progress gets
    NotReached as a problem, as the command line does. `kind`: the model of the answer; `more`: its further fields,
    and `ended` gives those that follow from the operation's result.
    """
    seen: list[Progress] = []

    def report(progress: Progress) -> None:
        if len(seen) < PROGRESS_MAX:
            seen.append(progress)
        call.report(progress)

    try:
        result = await work(report)
    except NotReached as error:
        if call.follows:
            raise
        open_still = kind(reached=False, detail=str(error), progress=list(map(progress_value, seen)), **more)
        return Reply(open_still, status=202)
    return Reply(kind(reached=True, progress=list(map(progress_value, seen)), **more, **ended(result)))
