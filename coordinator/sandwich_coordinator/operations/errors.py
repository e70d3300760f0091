"""Why an operation ended without its result. A front end maps each class to an exit code or an HTTP status."""

import difflib
from collections.abc import Iterable, Sequence

NAME_SHOWN = 64


class OperationError(Exception):
    """Base. The message says what is the case and what to do: one line, or several given as a list.

    A line can quote text of any origin: the front end makes it safe to show. `field`: the argument that the message is
    about, where it is one; "": no single one.
    """

    def __init__(self, message: str | Sequence[str], *, field: str = "") -> None:
        self.lines = (message,) if isinstance(message, str) else tuple(message)
        self.field = field
        super().__init__("\n".join(self.lines))


class Refused(OperationError):
    """The request is understood and must not be done as things are. Nothing was written."""


class Invalid(OperationError):
    """An argument cannot be used. Nothing was written."""


class NotFound(OperationError):
    """What the request names does not exist. `known`: the names that do, of this kind; empty when they are not listed.

    `message` replaces the default one, which gives the nearest name and all others.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], message: str = "", *, field: str = "") -> None:
        self.kind = kind
        self.name = name
        self.known = tuple(sorted(known))
        super().__init__(message or self._no_such(), field=field)

    def _no_such(self) -> str:
        near = difflib.get_close_matches(self.name, self.known, n=1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        names = ", ".join(self.known) or "none yet"
        return f"there is no {self.kind} {self.name[:NAME_SHOWN]}{meant}; there are: {names}"


class Conflict(OperationError):
    """Another writer changed the same thing at the same time. Nothing of this transaction was written."""


class Stale(Conflict):
    """The thing is not at the revision that the caller has read. Nothing was written."""


class Unavailable(OperationError):
    """A server that the operation needs does not answer."""


class OutcomeUnknown(Unavailable):
    """Whether the write was applied is unknown: the server's answer is missing."""


class NotReached(OperationError):
    """The request is stored and its goal is not reached: the deadline passed, or the goal cannot be reached now."""
