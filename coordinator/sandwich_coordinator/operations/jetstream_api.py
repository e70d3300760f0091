"""Requests to JetStream's API: how long an answer may take, and what an operation raises without one."""

from collections.abc import Iterator
from contextlib import contextmanager

import nats.errors
import nats.js.errors

from sandwich_coordinator.operations.errors import Refused, Unavailable
from sandwich_sdk.errors import reason

API_TIMEOUT_S = 5.0


@contextmanager
def answered() -> Iterator[None]:
    """Raise Refused for an error that JetStream answers, Unavailable when NATS does not answer."""
    try:
        yield
    except nats.js.errors.APIError as error:
        raise Refused(f"JetStream refused: {error.description or error.code}") from None
    except (nats.errors.Error, TimeoutError, OSError) as error:
        raise Unavailable(f"NATS does not answer: {reason(error)}") from None
