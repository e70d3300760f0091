"""Matches Discord's dispatches to the commands that they answer. Pure.

Answers are ordinary dispatches. This module only reads them; they are published as well.
"""

from dataclasses import dataclass, field

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

ANSWERS = frozenset(
    {
        "GUILD_MEMBERS_CHUNK",
        "RATE_LIMITED",
        "VOICE_STATE_UPDATE",
        "VOICE_SERVER_UPDATE",
        "SOUNDBOARD_SOUNDS",
        "CHANNEL_INFO",
    }
)
"""Event types that may answer a command."""

RETRY_AFTER_MAX_S = 300.0
"""The longest wait of a request; bounds the number in Discord's JSON."""


class _Chunk(Struct):
    guild_id: str
    members: list[Raw] = []
    chunk_index: int = 0
    chunk_count: int = 1
    not_found: list[Raw] = []
    presences: list[Raw] = []
    nonce: str = ""


class _LimitedMeta(Struct, frozen=True):
    guild_id: str = ""
    nonce: str = ""


class _Limited(Struct):
    opcode: int
    retry_after: float
    meta: _LimitedMeta = _LimitedMeta()


class _OfGuild(Struct):
    guild_id: str | UnsetType = UNSET
    user_id: str = ""
    channel_id: str | None = None
    endpoint: str | None = None


_chunk = msgspec.json.Decoder(_Chunk).decode
_limited = msgspec.json.Decoder(_Limited).decode
_of_guild = msgspec.json.Decoder(_OfGuild).decode


@dataclass(slots=True)
class MembersAnswer:
    """The chunks of one Request Guild Members, identified by their nonce. They may arrive in any order."""

    nonce: str
    chunks: dict[int, _Chunk] = field(default_factory=dict)
    size: int = 0
    limited_s: float | None = None
    results: dict[bool, bytes] = field(default_factory=dict)

    def take(self, event_type: str, data: bytes) -> bool:
        """Read a dispatch; True when the answer is complete, or the request was limited (`limited_s`)."""
        if event_type == "RATE_LIMITED":
            limited = _limited(data)
            if limited.opcode == 8 and limited.meta.nonce == self.nonce:
                self.limited_s = min(max(limited.retry_after, 0.0), RETRY_AFTER_MAX_S)
                return True
            return False
        if event_type != "GUILD_MEMBERS_CHUNK":
            return False
        chunk = _chunk(data)
        if chunk.nonce != self.nonce:
            return False
        if chunk.chunk_index not in self.chunks:
            self.chunks[chunk.chunk_index] = chunk
            self.size += len(data)
        return len(self.chunks) >= chunk.chunk_count

    def forget(self) -> None:
        """The session ended: its chunks do not belong to the next answer."""
        self.chunks.clear()
        self.results.clear()
        self.size = 0
        self.limited_s = None

    @property
    def count(self) -> int:
        """The number of members received."""
        return sum(len(chunk.members) for chunk in self.chunks.values())

    def result(self, *, with_members: bool) -> bytes:
        """The result's JSON; encoded once for all requests that share the question."""
        if with_members in self.results:
            return self.results[with_members]
        chunks = [self.chunks[index] for index in sorted(self.chunks)]
        made: dict[str, object] = {
            "count": self.count,
            "not_found": [item for chunk in chunks for item in chunk.not_found],
        }
        if with_members:
            made["members"] = [item for chunk in chunks for item in chunk.members]
            made["presences"] = [item for chunk in chunks for item in chunk.presences]
        result = self.results[with_members] = msgspec.json.encode(made)
        return result


@dataclass(slots=True)
class VoiceAnswer:
    """The events that a voice client (Lavalink) needs: the bot's voice state and the server. Leaving has only one."""

    guild: str
    bot: str
    channel: str | None
    state: bytes | None = None
    server: bytes | None = None

    def take(self, event_type: str, data: bytes) -> bool:
        """Read a dispatch; True when the answer is complete."""
        if event_type == "VOICE_STATE_UPDATE":
            found = _of_guild(data)
            if (found.guild_id, found.user_id, found.channel_id) == (self.guild, self.bot, self.channel):
                self.state = data
        elif event_type == "VOICE_SERVER_UPDATE" and _of_guild(data).guild_id == self.guild:
            self.server = data
        return self.state is not None and (self.channel is None or self.server is not None)

    def result(self) -> bytes:
        """The result's JSON."""
        return b'{"state":%b,"server":%b}' % (self.state or b"null", self.server or b"null")


@dataclass(slots=True)
class GuildAnswer:
    """One event of one type about one guild: SOUNDBOARD_SOUNDS or CHANNEL_INFO."""

    guild: str
    event_type: str
    found: bytes = b""

    def take(self, event_type: str, data: bytes) -> bool:
        """Read a dispatch; True when it is the answer."""
        if event_type == self.event_type and _of_guild(data).guild_id == self.guild:
            self.found = data
            return True
        return False

    def result(self) -> bytes:
        """The result's JSON."""
        return self.found


Answer = MembersAnswer | VoiceAnswer | GuildAnswer
