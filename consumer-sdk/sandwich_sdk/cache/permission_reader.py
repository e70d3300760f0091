"""A member's permissions, computed from the cache with two requests."""

from dataclasses import dataclass
from datetime import datetime

from sandwich_sdk.cache import values
from sandwich_sdk.cache.connection import Command, Connection
from sandwich_sdk.cache.objects import Channel, Guild, Member, Role, Thread
from sandwich_sdk.cache.permissions import ALL, ChannelRules, Permissions, Subject, in_channel, in_guild
from sandwich_sdk.wire import cache_keys


@dataclass(frozen=True, slots=True)
class _Question:
    """The result of the first request. At most one of `channel` and `thread` is set."""

    guild: Guild
    member: Member | None
    channel: Channel | None
    thread: Thread | None


class PermissionReader:
    """Reads the data for permissions in one guild of one namespace."""

    def __init__(self, connection: Connection, namespace: str, guild: str) -> None:
        self._connection = connection
        self._guild = guild
        self._guild_key = cache_keys.guild_key(namespace, guild)
        self._apps = cache_keys.apps_key(namespace, guild)
        self._channels, self._threads, self._roles, self._members = (
            cache_keys.collection_key(namespace, guild, name)
            for name in (cache_keys.CHANNELS, cache_keys.THREADS, cache_keys.ROLES, cache_keys.MEMBERS)
        )

    async def of(self, user: str, channel: str | None, now: datetime) -> Permissions | None:
        """See `Cache.permissions`. `now` is compared with the end of time-outs."""
        question = await self._ask(user, channel)
        if question is None:
            return None
        if question.guild.owner_id == user:
            return ALL
        if question.member is None:
            return None
        return await self._of_member(question.member, question, now)

    async def _ask(self, user: str, channel: str | None) -> _Question | None:
        asked: list[Command] = [("GET", self._guild_key), ("HGET", self._members, user)]
        if channel is not None:
            asked += [("HGET", self._channels, channel), ("HGET", self._threads, channel)]
        *replies, exists = await self._connection.ask(*asked, ("EXISTS", self._apps))
        guild = values.entity(Guild, replies[0], key=self._guild_key)
        if not exists or guild is None or guild.owner_id is None:
            return None
        member = values.member(self._guild, user, replies[1], key=self._members)
        if channel is None:
            return _Question(guild, member, None, None)
        found = values.entity(Channel, replies[2], key=self._channels)
        thread = values.entity(Thread, replies[3], key=self._threads) if found is None else None
        return None if found is None and thread is None else _Question(guild, member, found, thread)

    async def _of_member(self, member: Member, question: _Question, now: datetime) -> Permissions | None:
        thread, channel = question.thread, question.channel
        role_ids = [role for role in dict.fromkeys(member.roles) if role != self._guild]
        asked: list[Command] = [("HMGET", self._roles, self._guild, *role_ids)]
        if thread is not None:
            asked.append(("HGET", self._channels, thread.parent_id or ""))
        found, *parents = await self._connection.ask(*asked)
        if parents:
            channel = values.entity(Channel, parents[0], key=self._channels)
        roles = [values.entity(Role, value, key=self._roles) for value in found or ()]
        if not roles or roles[0] is None:
            return None
        until = member.communication_disabled_until
        # A role may have been deleted since the member was read.
        known = {one: role for one, role in zip(role_ids, roles[1:], strict=True) if role is not None}
        subject = Subject(
            guild=self._guild,
            user=member.user_id,
            is_owner=False,
            is_timed_out=until is not None and until > now,
            everyone=roles[0].permissions,
            roles={one: role.permissions for one, role in known.items()},
        )
        if question.channel is None and thread is None:
            return in_guild(subject)
        return _in_channel(subject, channel, is_thread=thread is not None)


def _in_channel(subject: Subject, channel: Channel | None, *, is_thread: bool) -> Permissions | None:
    if channel is None:
        return None
    permissions = in_channel(subject, ChannelRules(channel.type or 0, channel.permission_overwrites, is_thread))
    # Discord hid the overwrites from the bot: the result is unknown, not denied.
    return None if channel.is_obfuscated and permissions != ALL else permissions
