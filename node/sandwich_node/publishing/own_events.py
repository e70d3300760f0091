"""Own events: those that a consumer puts into the stream (`relay`), and those that the cluster adds. Pure.

Their data is encoded again before it enters a shard's buffer. So it is valid JSON in UTF-8, on one line, and of a depth
that every reader can decode.
"""

from dataclasses import dataclass

import msgspec

from sandwich_node.gateway.nesting import NESTING_MAX, nests_deeper


@dataclass(frozen=True, slots=True)
class OwnEvent:
    """An own event before it is in a stream. `raw` is one JSON object on one line. Made by `own_event`."""

    type: str
    raw: bytes


def own_event(event_type: str, data: bytes) -> OwnEvent:
    """The event with this data. `event_type` is of A-Z, 0-9 and '_'. Raises ValueError with what is wrong."""
    if nests_deeper(data):
        raise ValueError(f"data nests deeper than {NESTING_MAX} levels")
    try:
        written = msgspec.json.encode(msgspec.json.decode(data))
    except RecursionError:
        raise ValueError(f"data nests deeper than {NESTING_MAX} levels") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise ValueError(f"data is not JSON in UTF-8: {error}") from None
    return OwnEvent(event_type, b'{"t":"%b","s":null,"op":0,"d":%b}' % (event_type.encode(), written))
