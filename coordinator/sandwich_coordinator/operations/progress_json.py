"""The progress of an operation as JSON, and back: `sandwich --api` shows the same text as with etcd. Pure."""

from typing import Any, get_args

import msgspec

from sandwich_coordinator.operations.progress import Progress

_KINDS: dict[str, Any] = {kind.__name__: kind for kind in get_args(Progress)}


def progress_value(progress: Progress) -> dict[str, Any]:
    """`{"kind": <class name>, ...fields}`."""
    return {"kind": type(progress).__name__, **msgspec.to_builtins(progress)}


def read_progress(value: dict[str, Any]) -> Progress | None:
    """The progress that `progress_value` wrote; None for a kind that this version does not know."""
    kind = _KINDS.get(str(value.get("kind")))
    if kind is None:
        return None
    fields = {name: field for name, field in value.items() if name != "kind"}
    found: Progress = msgspec.convert(fields, kind)
    return found
