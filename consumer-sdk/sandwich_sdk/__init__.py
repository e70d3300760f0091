"""Sandwich's consumer SDK: read a cluster's Discord events from NATS JetStream."""

from sandwich_sdk._version import __version__
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
