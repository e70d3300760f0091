"""Payload of a `switch` frame: plain JSON, wire contract version 1 (docs/design/scaling.md, Frames)."""

from typing import Annotated

import msgspec

from sandwich_sdk.wire.headers import UNREADABLE, WireError

SHARDS_MAX = 32_768
"""Upper bound for shard ids in a payload: one that names a larger one is unreadable."""

_Shard = Annotated[int, msgspec.Meta(ge=0, lt=SHARDS_MAX)]
_Sequence = Annotated[int, msgspec.Meta(ge=0)]


class Switch(msgspec.Struct, frozen=True, kw_only=True):
    """The chain of this frame goes on where the chains of an older shard group end.

    old_group  number of the older shard group; `from` in JSON
    after      for each old shard whose guilds the new shard takes over: stream sequence of its first `end` frame
    """

    old_group: Annotated[int, msgspec.Meta(ge=0)] = msgspec.field(name="from")
    after: dict[_Shard, _Sequence]

    def encode(self) -> bytes:
        """The payload as published."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, payload: bytes) -> "Switch":
        """Read a payload; unknown fields are ignored. Raises WireError."""
        try:
            return msgspec.json.decode(payload, type=cls)
        except UNREADABLE as error:
            raise WireError(f"bad switch frame: {error}") from error
