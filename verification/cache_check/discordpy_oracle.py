"""discord.py's own cache after the same stream, as a second oracle for the comparison.

It receives the dispatches of one application in their order and never connects. Its known deviations from Discord's
documentation are left out, each with its reason.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import discord
import msgspec
from discord.http import HTTPClient
from discord.state import AutoShardedConnectionState

from verification.cache_check.compare import Comparison
from verification.cache_check.reading import Cached
from verification.cache_check.truth import Json, Objects

_READ_NOTHING = frozenset({"RESUMED", "INTERACTION_CREATE"})
"""Events that discord.py does not cache, and for which it needs a connection."""
_HIDDEN = 1 << 17
_HIDDEN_NAME = "___hidden___"
"""discord.py does not keep the flags of categories."""


@dataclass(slots=True)
class _Outdated:
    """By kind: ids that discord.py keeps although Discord's latest GUILD_CREATE does not list them."""

    channels: set[str] = field(default_factory=set)
    threads: set[str] = field(default_factory=set)
    members: set[str] = field(default_factory=set)


class DiscordPyOracle:
    """discord.py's state for one application with `shards` shards. Create it inside a running event loop."""

    def __init__(self, app: str, shards: int) -> None:
        self.app = app
        self._state: Any = AutoShardedConnectionState(
            dispatch=lambda *_: None,
            handlers={},
            hooks={},
            http=HTTPClient(asyncio.get_running_loop()),
            intents=discord.Intents.all(),
            member_cache_flags=discord.MemberCacheFlags.all(),
            chunk_guilds_at_startup=False,
            guild_ready_timeout=0.0,
            max_messages=None,
        )
        self._state.loop = asyncio.get_running_loop()
        self._state.shard_count = shards
        self._shards = shards
        self._bot = ""
        self._received: set[str] = set()
        """Guilds with a GUILD_CREATE since the last READY."""
        self._left: set[str] = set()
        """Guilds that a READY did not list: the bot left them while it had no session."""
        self._outdated: dict[str, _Outdated] = defaultdict(_Outdated)

    def take(self, event_type: str, raw: bytes) -> None:
        """Apply one dispatch: its name, and its line in the frame."""
        parser = self._state.parsers.get(event_type)
        if parser is None or event_type in _READ_NOTHING:
            return
        data: Json = msgspec.json.decode(raw)["d"]
        note = getattr(self, f"_before_{event_type.lower()}", None)
        if note is not None:
            note(data)
        parser(data)

    def _before_ready(self, data: Json) -> None:
        """discord.py keeps guilds that READY does not list, and empties those it lists."""
        self._bot = data["user"]["id"]
        shard, listed = data["shard"][0], {guild["id"] for guild in data["guilds"]}
        known = {str(guild.id) for guild in self._state.guilds if (guild.id >> 22) % self._shards == shard}
        self._left = (self._left | (known - listed)) - listed
        self._received -= known | listed
        for guild in known | listed:
            self._outdated.pop(guild, None)

    def _before_guild_create(self, data: Json) -> None:
        """discord.py merges a guild after an outage into the old state: objects that are no longer listed stay."""
        guild_id = data["id"]
        self._left.discard(guild_id)
        if data.get("unavailable") is True:
            return
        self._received.add(guild_id)
        known = self._state._get_guild(int(guild_id))
        if known is None or data.get("unavailable") is None:
            self._outdated.pop(guild_id, None)
            return
        outdated = self._outdated[guild_id]
        outdated.channels = _ids(known.channels) - {channel["id"] for channel in data["channels"]}
        outdated.threads = _ids(known.threads) - {thread["id"] for thread in data["threads"]}
        outdated.members |= _ids(known.members) - {member["user"]["id"] for member in data["members"]}

    def _before_guild_delete(self, data: Json) -> None:
        if not data.get("unavailable"):
            self._received.discard(data["id"])
            self._outdated.pop(data["id"], None)

    def _before_channel_update(self, data: Json) -> None:
        """discord.py keeps the threads of a channel that the bot may no longer view; they get no more events."""
        guild = self._state._get_guild(int(data["guild_id"]))
        if guild is not None and data.get("flags", 0) & _HIDDEN:
            threads = {str(thread.id) for thread in guild.threads if str(thread.parent_id) == data["id"]}
            self._outdated[data["guild_id"]].threads |= threads

    def _before_thread_list_sync(self, data: Json) -> None:
        self._outdated[data["guild_id"]].threads -= {thread["id"] for thread in data["threads"]}

    def _before_thread_create(self, data: Json) -> None:
        self._outdated[data["guild_id"]].threads.discard(data["id"])

    def _before_thread_members_update(self, data: Json) -> None:
        """discord.py keeps a private thread after the bot's removal from it; it gets no more events."""
        guild = self._state._get_guild(int(data["guild_id"]))
        thread = guild and guild.get_thread(int(data["id"]))
        if thread is not None and thread.is_private() and self._bot in data.get("removed_member_ids", ()):
            self._outdated[data["guild_id"]].threads.add(data["id"])

    def compare(self, comparison: Comparison, cached: Cached, *, is_shared: bool) -> None:
        """Compare the application's guilds in the cache with discord.py's.

        A guild without a GUILD_CREATE since READY is left out: discord.py has only its id, and the cache may have its
        earlier state. A guild in an outage may be absent from a cache that was lost meanwhile, because Discord sends it
        only after the outage. In a shared namespace the cache may have channels and threads that another application
        sees.
        """
        held = {guild for guild, apps in cached.apps.items() if self.app in apps}
        known = {str(guild.id) for guild in self._state.guilds}
        in_outage = {str(guild.id) for guild in self._state.guilds if guild.unavailable}
        unclear = self._left | (known - self._received) | (in_outage - held)
        for guild_id in (held | known) - unclear:
            mine = {"id": guild_id} if guild_id in known else None
            comparison.check("discord.py guilds", guild_id, {"id": guild_id} if guild_id in held else None, mine)
            if guild_id in held & known:
                self._compare_guild(comparison, cached, guild_id, is_shared=is_shared)

    def _compare_guild(self, comparison: Comparison, cached: Cached, guild_id: str, *, is_shared: bool) -> None:
        guild, outdated = self._state._get_guild(int(guild_id)), self._outdated[guild_id]
        own = cached.guilds[guild_id]
        fields = {"name": own["name"], "owner_id": own["owner_id"]}
        comparison.check("discord.py guilds", guild_id, fields, {"name": guild.name, "owner_id": _text(guild.owner_id)})
        kept = {name: of.get(guild_id, {}) for name, of in cached.collections.items()}
        channels = _some(kept.get("channels", {}), ("name", "position"))
        theirs = {str(one.id): {"name": one.name, "position": one.position} for one in guild.channels}
        hidden = {str(one.id) for one in guild.channels if is_shared and one.name == _HIDDEN_NAME}
        left_out = outdated.channels | hidden
        comparison.check_all("discord.py channels", guild_id, _without(channels, left_out), _without(theirs, left_out))
        threads = {key: {"id": key} for key in kept.get("threads", {})}
        their_threads = {key: {"id": key} for key in _ids(guild.threads)}
        more = threads.keys() - their_threads.keys() if is_shared else set()
        comparison.check_all(
            "discord.py threads",
            guild_id,
            _without(threads, outdated.threads | more),
            _without(their_threads, outdated.threads),
        )
        roles = _some(kept.get("roles", {}), ("name", "permissions"))
        their_roles = {
            str(one.id): {"name": one.name, "permissions": str(one.permissions.value)} for one in guild.roles
        }
        comparison.check_all("discord.py roles", guild_id, roles, their_roles)
        self._compare_members(comparison, guild, kept, outdated.members)

    def _compare_members(
        self, comparison: Comparison, guild: Any, kept: dict[str, Objects], outdated: set[str]
    ) -> None:
        members = {
            key: {"nick": member.get("nick"), "roles": sorted(member.get("roles", ()))}
            for key, member in kept.get("members", {}).items()
        }
        theirs = {
            str(one.id): {"nick": one.nick, "roles": sorted(str(role.id) for role in one.roles if role.id != guild.id)}
            for one in guild.members
        }
        comparison.check_all(
            "discord.py members", str(guild.id), _without(members, outdated), _without(theirs, outdated)
        )


def _ids(things: Iterable[Any]) -> set[str]:
    return {str(thing.id) for thing in things}


def _text(snowflake: int | None) -> str | None:
    return None if snowflake is None else str(snowflake)


def _some(objects: Objects, names: tuple[str, ...]) -> Objects:
    return {key: {name: value.get(name) for name in names} for key, value in objects.items()}


def _without(objects: Objects, ids: set[str]) -> Objects:
    return {key: value for key, value in objects.items() if key not in ids}
