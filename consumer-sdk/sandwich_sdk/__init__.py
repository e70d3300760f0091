"""Sandwich's consumer SDK: read a cluster's Discord events from NATS JetStream.

The names below are imported when they are first used: a program that needs only `sandwich_sdk.wire`, as each command of
`sandwich` does, does not load the NATS client.
"""

import importlib
from typing import TYPE_CHECKING, Any

from sandwich_sdk._version import __version__

if TYPE_CHECKING:
    from sandwich_sdk.consumer import Consumer
    from sandwich_sdk.errors import (
        ConsumerError,
        Failure,
        GroupConflict,
        HandlerCancelled,
        IncompleteParts,
        NewerWireVersion,
        Unfinished,
        Unreachable,
    )
    from sandwich_sdk.event import Event, Gap, Shard

__all__ = [
    "Consumer",
    "ConsumerError",
    "Event",
    "Failure",
    "Gap",
    "GroupConflict",
    "HandlerCancelled",
    "IncompleteParts",
    "NewerWireVersion",
    "Shard",
    "Unfinished",
    "Unreachable",
    "__version__",
]

_MODULES = {"Consumer": "consumer", "Event": "event", "Gap": "event", "Shard": "event"}
"""The module of a name, if it is not `errors`."""


def __getattr__(name: str) -> Any:
    if name in __all__:
        value = getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)
        globals()[name] = value
        return value
    if name in ("consumer", "errors", "event"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
