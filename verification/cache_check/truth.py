"""What one namespace should hold, from the simulator's record of what its bots see. Pure.

A namespace that applications share holds what any of them sees. Where Discord sends a bot nothing, the cache may
lack the value: each such exception is here with its reason, and none of them accepts a wrong value.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sandwich_coordinator.cache_entities import COLLECTIONS

Json = dict[str, Any]
Objects = dict[str, Json]

GUILD_MEMBERS, GUILD_PRESENCES = 1 << 1, 1 << 8
OBFUSCATED = 1 << 17
PER_CHANNEL = 50
"""Messages that cache and simulator keep for each channel: the same number, so that they keep the same messages."""

COMPARED_APART = frozenset({"channels", "threads", "members", "presences", "events"})
"""Collections that differ by what a bot may see or has seen: `compare` has rules of its own for each."""

AS_THEY_ARE: Mapping[str, str] = {
    entity.collection: entity.option for entity in COLLECTIONS.values() if entity.collection not in COMPARED_APART
}
"""All other collections: all bots see them alike. By collection, the name in the simulator's state."""


@dataclass(frozen=True, slots=True)
class View:
    """A guild as one bot sees it (the simulator's `guild?as=seen`), and the start of the bot's session."""

    app: str
    bot: str
    intents: int
    session_began: int
    state: Json
    was_resynced: bool = False
    """The nodes found the cache of its shard incomplete and resynced it."""

    @property
    def is_uncertain(self) -> bool:
        """Whether the application may not have received the guild since its cache was found incomplete.

        READY has only the id of a guild in an outage; the guild is sent after the outage.
        """
        return self.was_resynced and bool(self.state["unavailable"])

    @property
    def known_since(self) -> int:
        """The moment since which the application has received all changes that GUILD_CREATE does not repeat."""
        resynced = int(self.state["created"]) if self.was_resynced else 0
        return max(self.session_began, int(self.state["joined"]), resynced)


@dataclass(frozen=True, slots=True)
class GuildTruth:
    """One guild as its applications see it."""

    views: tuple[View, ...]

    @property
    def state(self) -> Json:
        """The state that is the same for all applications."""
        return self.views[0].state

    @property
    def id(self) -> str:
        """The guild's id."""
        return str(self.state["guild"]["id"])

    @property
    def apps(self) -> set[str]:
        """The applications in the guild."""
        return {view.app for view in self.views}

    @property
    def is_uncertain(self) -> bool:
        """Whether lost or outdated data of the guild cannot be restored before its outage ends."""
        return any(view.is_uncertain for view in self.views)

    def has(self, intent: int) -> bool:
        """Whether one of the applications has this intent."""
        return any(view.intents & intent for view in self.views)

    def guild(self, cached: Json) -> Json:
        """The guild object. `joined_at` may be that of any of its bots."""
        made: Json = self.state["guild"] | {"unavailable": bool(self.state["unavailable"])}
        if cached.get("joined_at") in {view.state["guild"]["joined_at"] for view in self.views}:
            made = made | {"joined_at": cached["joined_at"]}
        if not self.has(GUILD_MEMBERS):
            # Without GUILD_MEMBERS, Discord does not send who joins and leaves.
            made = made | {"member_count": cached.get("member_count")}
        return made

    def channels(self, cached: Objects) -> Objects:
        """Whole channels where any bot sees them; with the voice fields that were sent since the last GUILD_CREATE."""
        made: Objects = {}
        for view in self.views:
            for key, channel in view.state["channels"].items():
                if key not in made or made[key]["flags"] & OBFUSCATED:
                    made[key] = channel | {"guild_id": self.id}
        for key in made:
            made[key] = made[key] | self._voice_fields(key, cached.get(key, {}))
        return made

    def _voice_fields(self, channel: str, cached: Json) -> Json:
        """GUILD_CREATE does not repeat these: a value sent before it may be missing, but must not be wrong."""
        found: Json = {}
        for view in self.views:
            known_since = max(view.state["created"], view.state["since"].get(channel, 0))
            for name, value in view.state["voice_info"].get(channel, {}).items():
                changed = view.state["changes"].get(f"{channel}:{name}", 0)
                if changed > known_since or name in cached:
                    found[name] = value
        return found

    def threads(self, cached: Objects) -> Objects:
        """Active threads that any bot sees; `member` is the membership of any of the bots, or none.

        `member_count` is not checked in threads that only bots without GUILD_MEMBERS see: they receive no joins.
        `message_count` is not checked after a resync: it may include a message that was deleted meanwhile.
        """
        made: Objects = {}
        counted: set[str] = set()
        for view in self.views:
            for key, thread in view.state["threads"].items():
                known = own_member(cached.get(key, {}))
                if key not in made or own_member(thread) == known:
                    made[key] = thread
                if view.intents & GUILD_MEMBERS:
                    counted.add(key)
        was_resynced = any(view.was_resynced for view in self.views)
        for key in made.keys() & cached.keys():
            free = [] if key in counted else ["member_count"]
            free += ["message_count"] if was_resynced else []
            made[key] = made[key] | {name: cached[key][name] for name in free if name in cached[key]}
        return {key: bare_thread(thread) for key, thread in made.items()}

    def members(self, cached: Objects) -> Objects:
        """All members if an application has GUILD_MEMBERS; else the bots, and members that other events mentioned."""
        all_members = {key: bare_member(member) for key, member in self.state["members"].items()}
        if self.has(GUILD_MEMBERS):
            return all_members
        known = {view.bot for view in self.views}
        return {key: all_members[key] if key in known else cached[key] for key in known | cached.keys()}

    def events(self, cached: Objects) -> Objects:
        """Scheduled events. After a resync `user_count` is not checked: it may miss users who subscribed meanwhile."""
        made: Objects = dict(self.state["events"])
        if any(view.was_resynced for view in self.views):
            for key in made.keys() & cached.keys():
                made[key] = made[key] | {name: cached[key][name] for name in ("user_count",) if name in cached[key]}
        return made

    def presences(self) -> Objects:
        """Presences, if an application has GUILD_PRESENCES."""
        return self.state["presences"] if self.has(GUILD_PRESENCES) else {}


def own_member(thread: Json) -> Json:
    """A bot's own membership: the two fields that all four forms have; empty after the bot left the thread."""
    member = thread.get("member") or {}
    return {key: member[key] for key in ("join_timestamp", "flags") if key in member}


def bare_thread(thread: Json) -> Json:
    """A thread with the bot's own membership in one form."""
    return {key: value for key, value in thread.items() if key != "member"} | {"member": own_member(thread)}


def bare_member(member: Json) -> Json:
    """A member without its user, which is cached separately."""
    return {name: value for name, value in member.items() if name not in ("user", "guild_id")}


def bare_presence(presence: Json) -> Json:
    """A presence as it is cached: with the user's id only, without the fields that only PRESENCE_UPDATE has."""
    made = {name: value for name, value in presence.items() if name not in ("guild_id", "roles")}
    return made | {"user": {"id": presence["user"]["id"]}}


@dataclass(frozen=True, slots=True)
class Messages:
    """The messages of a place: `certain` ones must be there unchanged; `optional` ones may be there in any state."""

    certain: Objects = field(default_factory=dict)
    optional: frozenset[str] = frozenset()


def messages(truth: GuildTruth, place: str, cached: Objects) -> Messages:
    """The messages of a channel or thread.

    Discord does not repeat messages. A message whose last change no bot received (no session, place not visible,
    before a resync) may be missing or outdated in the cache. Messages up to `forgotten` are unknown to the simulator.
    """
    certain: Objects = {}
    optional: set[str] = set()
    forgotten = max((int(view.state["forgotten"].get(place, 0)) for view in truth.views), default=0)
    for view in truth.views:
        if not _sees(view.state, place):
            continue
        state = view.state
        known_since = max(view.known_since, *(state["since"].get(p, 0) for p in _places(state, place)))
        for message in state["messages"]:
            if message["channel_id"] == place:
                changed = state["changes"].get(message["id"], 0)
                if changed > known_since:
                    certain[message["id"]] = message
                else:
                    optional.add(message["id"])
        alive = {message["id"] for message in state["messages"]}
        for key in cached.keys() - alive:
            if state["changes"].get(key, known_since + 1) <= known_since or int(key) <= forgotten:
                optional.add(key)
    # A deleted message that is still cached takes the place of a message that should be there.
    ghosts = len((cached.keys() & optional) - certain.keys())
    room = PER_CHANNEL - ghosts
    latest = sorted(certain, key=int)[-room:] if ghosts else list(certain)
    optional |= certain.keys() - set(latest)
    return Messages({key: certain[key] for key in latest}, frozenset(optional - set(latest)))


def _sees(state: Json, place: str) -> bool:
    if place in state["threads"]:
        return True
    return place in state["channels"] and not state["channels"][place]["flags"] & OBFUSCATED


def _places(state: Json, place: str) -> tuple[str, ...]:
    thread = state["threads"].get(place)
    return (place,) if thread is None else (place, str(thread["parent_id"]))


@dataclass(slots=True)
class People:
    """Users, and the guilds that they share with the bots. `unknown_*` are guilds and users that are not checked."""

    users: Objects = field(default_factory=dict)
    guilds: dict[str, set[str]] = field(default_factory=dict)
    unknown_guilds: set[str] = field(default_factory=set)
    unknown_users: set[str] = field(default_factory=set)


def people_of(truths: Iterable[GuildTruth]) -> People:
    """All users who are members of these guilds.

    Changed names are not sent during an outage. In a guild without GUILD_MEMBERS, or an uncertain one, none is known.
    """
    found = People()
    certain: set[str] = set()
    for truth in truths:
        if not truth.has(GUILD_MEMBERS) or truth.is_uncertain:
            found.unknown_guilds.add(truth.id)
            found.unknown_users |= truth.state["members"].keys()
            continue
        for key, member in truth.state["members"].items():
            found.users[key] = member["user"]
            found.guilds.setdefault(key, set()).add(truth.id)
            if not truth.state["unavailable"]:
                certain.add(key)
    found.unknown_users |= found.users.keys() - certain
    return found
