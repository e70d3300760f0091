"""How a command ends with an error, and the exit code of each error of an operation."""

from collections.abc import Sequence

from sandwich_coordinator.operations.errors import OperationError, Unavailable
from sandwich_sdk.wire.plain_text import plain_text

EXIT_REFUSED = 1
EXIT_CANNOT_SAY = 2


class CommandError(Exception):
    """Ends a command with one line on stderr (or several, given as a list) and `code`.

    1 refused or degraded, 2 cannot say. A line can quote text of any origin: it is made plain here.
    """

    def __init__(self, message: str | Sequence[str], code: int = EXIT_CANNOT_SAY) -> None:
        lines = [message] if isinstance(message, str) else message
        super().__init__("\n".join(map(plain_text, lines)))
        self.code = code


def command_error(error: OperationError) -> CommandError:
    """The error of an operation as a command ends with it."""
    return CommandError(error.lines, EXIT_CANNOT_SAY if isinstance(error, Unavailable) else EXIT_REFUSED)
