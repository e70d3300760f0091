"""How a command ends with an error."""

import difflib
from collections.abc import Iterable, Sequence

from sandwich_sdk.wire.plain_text import plain_text


class CommandError(Exception):
    """Ends a command with one line on stderr (or several, given as a list) and `code`.

    1 refused or degraded, 2 cannot tell. What a line quotes may come from anybody: it is made plain here.
    """

    def __init__(self, message: str | Sequence[str], code: int = 2) -> None:
        lines = [message] if isinstance(message, str) else message
        super().__init__("\n".join(map(plain_text, lines)))
        self.code = code


def no_such(kind: str, name: str, known: Iterable[str]) -> CommandError:
    """For a name that is not there: the nearest one, and all that are."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    meant = f" (did you mean {near[0]}?)" if near else ""
    return CommandError(f"there is no {kind} {name[:64]}{meant}; there are: {', '.join(names) or 'none yet'}", 1)
