"""Members of a guild: by id, by the beginning of a name, or any."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sandwich_sdk.cache import values
from sandwich_sdk.cache.connection import Connection
from sandwich_sdk.cache.objects import Member
from sandwich_sdk.cache.snowflake import is_snowflake
from sandwich_sdk.wire import cache_keys

LIMIT_MAX: Final = 1000
SCANNED_MAX: Final = 50_000
PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class MemberPage:
    """Members that were found. `complete` is False when a limit was reached and there may be more."""

    members: tuple[Member, ...] = ()
    complete: bool = True

    def __iter__(self) -> Iterator[Member]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)


class MemberSearch:
    """Searches the members of one guild of one namespace."""

    def __init__(self, connection: Connection, namespace: str, guild: str) -> None:
        self._connection = connection
        self._namespace, self._guild = namespace, guild
        self._key = cache_keys.collection_key(namespace, guild, cache_keys.MEMBERS)
        self._apps = cache_keys.apps_key(namespace, guild)

    async def by_ids(self, ids: Sequence[str]) -> MemberPage:
        """The members with these ids, in the order of `ids`."""
        if not ids:
            return MemberPage()
        found, exists = await self._connection.ask(("HMGET", self._key, *ids), ("EXISTS", self._apps))
        if not exists or found is None:
            return MemberPage()
        return MemberPage(tuple(await self._with_users(dict(zip(ids, found, strict=True)))))

    async def by_name(self, prefix: str, limit: int) -> MemberPage:
        """Up to `limit` whose nick, display name or user name begins with `prefix`, case ignored; all for ""."""
        wanted = prefix.casefold()
        found: dict[str, Member] = {}
        cursor, scanned = 0, 0
        while True:
            reply, exists = await self._connection.ask(
                ("HSCAN", self._key, cursor, "COUNT", PAGE), ("EXISTS", self._apps)
            )
            if not exists or reply is None:
                return MemberPage()
            cursor = int(reply[0])
            page = {user.decode("ascii", "replace"): value for user, value in reply[1].items()}
            scanned += len(page)
            members = await self._with_users({user: value for user, value in page.items() if is_snowflake(user)})
            # By id: a scan may return a member twice.
            found |= {member.user_id: member for member in members if _begins(member, wanted)}
            if not cursor or len(found) > limit or scanned >= SCANNED_MAX:
                return MemberPage(tuple(found.values())[:limit], not cursor and len(found) <= limit)

    async def _with_users(self, members: Mapping[str, bytes | None]) -> list[Member]:
        """The members with their users, which are cached separately."""
        built = (values.member(self._guild, user, value, key=self._key) for user, value in members.items())
        found = [member for member in built if member is not None]
        keys = [cache_keys.user_key(self._namespace, member.user_id) for member in found]
        users = await self._connection.get_each(keys)
        return [values.with_user(member, user, key=key) for member, user, key in zip(found, users, keys, strict=True)]


def _begins(member: Member, wanted: str) -> bool:
    user = member.user
    names = (member.nick,) if user is None else (member.nick, user.global_name, user.username)
    return not wanted or any(name.casefold().startswith(wanted) for name in names if name is not None)
