"""Values in Redis that do not follow the contract because another program wrote them: logged once and ignored."""

import logging
from typing import Final

from sandwich_sdk.wire.plain_text import plain_text

_log = logging.getLogger(__name__)

REPORTED_MAX: Final = 1000
_reported: set[str] = set()


def report(key: str, what: str) -> None:
    """Log that a key is corrupt and treated as missing: once for each key and process, to keep the log short."""
    if key in _reported or len(_reported) >= REPORTED_MAX:
        return
    _reported.add(key)
    _log.warning("the cache's key %s: %s; treated as missing", plain_text(key), plain_text(what))
    if len(_reported) == REPORTED_MAX:
        _log.warning("the cache has %d corrupt keys; further ones are not logged", REPORTED_MAX)
