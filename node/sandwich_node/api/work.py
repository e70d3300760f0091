"""How many requests a node has in work, so that a flood does not keep the agent from its own. Pure."""

from dataclasses import dataclass

from sandwich_node.api.problem_details import ApiError

IN_WORK_MAX = 100
WAITING_MAX = 100


@dataclass
class Work:
    """`working` requests, and apart from them `waiting` ones, which wait for the end of a change.

    More than IN_WORK_MAX or WAITING_MAX at once are turned away. Streams do not count while they are read.
    """

    working: int = 0
    waiting: int = 0

    def begin(self) -> "Slot":
        """Count a request. Raises ApiError: busy."""
        if self.working >= IN_WORK_MAX:
            raise ApiError("busy", "too many requests at once", retry_after_s=1.0)
        self.working += 1
        return Slot(self)


@dataclass
class Slot:
    """The place of one request, until `end`."""

    work: Work
    waits: bool = False

    def wait(self) -> None:
        """It waits from now on: others have its place among the working ones. Raises ApiError: busy."""
        if self.work.waiting >= WAITING_MAX:
            raise ApiError("busy", "too many requests wait for the end of a change", retry_after_s=1.0)
        self.work.waiting += 1
        self.work.working -= 1
        self.waits = True

    def end(self) -> None:
        """The request has its answer."""
        if self.waits:
            self.work.waiting -= 1
        else:
            self.work.working -= 1
