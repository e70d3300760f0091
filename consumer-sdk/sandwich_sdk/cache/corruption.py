"""Values in Redis that are not what the contract says, since somebody else wrote there: told once, then left alone."""

import logging
from typing import Final

from sandwich_sdk.wire.plain_text import plain_text

_log = logging.getLogger(__name__)

REPORTED_MAX: Final = 1000
_reported: set[str] = set()


def report(key: str, what: str) -> None:
    """Log that `what` is damaged and treated as missing: once a key and process, so that no log is flooded."""
    if key in _reported or len(_reported) >= REPORTED_MAX:
        return
    _reported.add(key)
    _log.warning("the cache's key %s: %s; treated as missing", plain_text(key), plain_text(what))
    if len(_reported) == REPORTED_MAX:
        _log.warning("the cache has %d damaged keys; further ones are not told", REPORTED_MAX)
