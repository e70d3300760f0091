"""What one namespace should hold, by the simulator's own account of what its bots see. Pure.

A namespace that several applications share holds what any of them sees. Where Discord tells a bot nothing, nothing can
be demanded: each such exception stands here with its reason, and none of them lets a wrong value pass for a right one.
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
"""Messages that cache and simulator keep of each channel: the same number, so that they keep the same ones."""

COMPARED_APART = frozenset({"channels", "threads", "members", "presences", "events"})
"""Collections that differ by what a bot may see or has seen: `compare` has rules of its own for each."""

AS_THEY_ARE: Mapping[str, str] = {
    entity.collection: entity.option for entity in COLLECTIONS.values() if entity.collection not in COMPARED_APART
}
"""All other collections: every bot sees them alike. By collection, the simulator's name, which is the option's."""

VOICE_FIELDS = ("status", "voice_start_time")


@dataclass(frozen=True, slots=True)
class View:
    """A guild as one bot sees it (the simulator's `guild?as=seen`), and since when its session listens."""

    app: str
    bot: str
    intents: int
    session_began: int
    state: Json
    was_refilled: bool = False
    """The nodes found the cache of its shard incomplete, and read its guilds anew."""

    @property
    def is_in_doubt(self) -> bool:
        """Whether nobody may have told this application of the guild since its cache was found incomplete.

        Of a guild in an outage READY has only the id; it comes again when the outage is over.
        """
        return self.was_refilled and bool(self.state["unavailable"])

    @property
    def told_since(self) -> int:
        """The moment since which all is told, of what no GUILD_CREATE repeats."""
        refilled = int(self.state["created"]) if self.was_refilled else 0
        return max(self.session_began, int(self.state["joined"]), refilled)


@dataclass(frozen=True, slots=True)
class GuildTruth:
    """One guild as those applications see it that are in it."""

    views: tuple[View, ...]

    @property
    def state(self) -> Json:
        """What is the same for all of them."""
        return self.views[0].state

    @property
    def id(self) -> str:
        """The guild's id."""
        return str(self.state["guild"]["id"])

    @property
    def apps(self) -> set[str]:
        """The applications in it."""
        return {view.app for view in self.views}

    @property
    def is_in_doubt(self) -> bool:
        """Whether what is lost of it, or old, cannot be had again before the outage ends."""
        return any(view.is_in_doubt for view in self.views)

    def has(self, intent: int) -> bool:
        """Whether one of them is told what the intent opens."""
        return any(view.intents & intent for view in self.views)

    def guild(self, cached: Json) -> Json:
        """The guild's own object. Where bots joined at different times, `joined_at` is that of any of them."""
        made: Json = self.state["guild"] | {"unavailable": bool(self.state["unavailable"])}
        if cached.get("joined_at") in {view.state["guild"]["joined_at"] for view in self.views}:
            made = made | {"joined_at": cached["joined_at"]}
        if not self.has(GUILD_MEMBERS):
            # Without GUILD_MEMBERS nobody says who comes and goes.
            made = made | {"member_count": cached.get("member_count")}
        return made

    def channels(self, cached: Objects) -> Objects:
        """Channels in full where any bot sees them; with what was told of voice channels since the guild came last."""
        made: Objects = {}
        for view in self.views:
            for key, channel in view.state["channels"].items():
                if key not in made or made[key]["flags"] & OBFUSCATED:
                    made[key] = channel | {"guild_id": self.id}
        for key in made:
            made[key] = made[key] | self._voice_fields(key, cached.get(key, {}))
        return made

    def _voice_fields(self, channel: str, cached: Json) -> Json:
        """No GUILD_CREATE repeats these: what was told before an application's own may be missing, but not be wrong."""
        found: Json = {}
        for view in self.views:
            told_since = max(view.state["created"], view.state["since"].get(channel, 0))
            for name, value in view.state["voice_info"].get(channel, {}).items():
                changed = view.state["changes"].get(f"{channel}:{name}", 0)
                if changed > told_since or name in cached:
                    found[name] = value
        return found

    def threads(self, cached: Objects) -> Objects:
        """Active threads that any bot sees; `member` is that of any of the bots, and of one that is not in it none.

        Of a thread that only bots without GUILD_MEMBERS see nobody says who else joins: `member_count` is free. Where
        the cache was read anew, nobody says whether a message that was deleted just then is in `message_count`.
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
        was_refilled = any(view.was_refilled for view in self.views)
        for key in made.keys() & cached.keys():
            free = [] if key in counted else ["member_count"]
            free += ["message_count"] if was_refilled else []
            made[key] = made[key] | {name: cached[key][name] for name in free if name in cached[key]}
        return {key: bare_thread(thread) for key, thread in made.items()}

    def members(self, cached: Objects) -> Objects:
        """All members where somebody is told of them; else the bots themselves, and whoever was seen passing by."""
        everybody = {key: bare_member(member) for key, member in self.state["members"].items()}
        if self.has(GUILD_MEMBERS):
            return everybody
        known = {view.bot for view in self.views}
        return {key: everybody[key] if key in known else cached[key] for key in known | cached.keys()}

    def events(self, cached: Objects) -> Objects:
        """Scheduled events. Where the cache was read anew, nobody says whether `user_count` has who came just then."""
        made: Objects = dict(self.state["events"])
        if any(view.was_refilled for view in self.views):
            for key in made.keys() & cached.keys():
                made[key] = made[key] | {name: cached[key][name] for name in ("user_count",) if name in cached[key]}
        return made

    def presences(self) -> Objects:
        """Presences, where an application is told of them."""
        return self.state["presences"] if self.has(GUILD_PRESENCES) else {}


def own_member(thread: Json) -> Json:
    """A bot's own membership comes in four forms, with these two fields in each; null where it was and no longer is."""
    member = thread.get("member") or {}
    return {key: member[key] for key in ("join_timestamp", "flags") if key in member}


def bare_thread(thread: Json) -> Json:
    """A thread with the bot's own membership in one form."""
    return {key: value for key, value in thread.items() if key != "member"} | {"member": own_member(thread)}


def bare_member(member: Json) -> Json:
    """A member without its user, which is kept for itself."""
    return {name: value for name, value in member.items() if name not in ("user", "guild_id")}


def bare_presence(presence: Json) -> Json:
    """A presence with the user's id alone, as it is kept, and without what only a PRESENCE_UPDATE adds."""
    made = {name: value for name, value in presence.items() if name not in ("guild_id", "roles")}
    return made | {"user": {"id": presence["user"]["id"]}}


@dataclass(frozen=True, slots=True)
class Messages:
    """What a place's messages should be: `told` must be there as they are; `others` may be, for want of being told."""

    told: Objects = field(default_factory=dict)
    others: frozenset[str] = frozenset()


def messages(truth: GuildTruth, place: str, cached: Objects) -> Messages:
    """The messages of a channel or thread.

    Discord does not repeat messages: those that were last changed while no bot listened, or saw the place, or before
    the cache was read anew, may be missing, old, or deleted in truth. Of what the world itself has forgotten
    (`forgotten`) nothing is known.
    """
    told: Objects = {}
    others: set[str] = set()
    forgotten = max((int(view.state["forgotten"].get(place, 0)) for view in truth.views), default=0)
    for view in truth.views:
        if not _sees(view.state, place):
            continue
        state = view.state
        told_since = max(view.told_since, *(state["since"].get(p, 0) for p in _places(state, place)))
        for message in state["messages"]:
            if message["channel_id"] == place:
                changed = state["changes"].get(message["id"], 0)
                if changed > told_since:
                    told[message["id"]] = message
                else:
                    others.add(message["id"])
        alive = {message["id"] for message in state["messages"]}
        for key in cached.keys() - alive:
            if state["changes"].get(key, told_since + 1) <= told_since or int(key) <= forgotten:
                others.add(key)
    # A message that should no longer be there takes the place of one that should.
    ghosts = len((cached.keys() & others) - told.keys())
    room = PER_CHANNEL - ghosts
    latest = sorted(told, key=int)[-room:] if ghosts else list(told)
    others |= told.keys() - set(latest)
    return Messages({key: told[key] for key in latest}, frozenset(others - set(latest)))


def _sees(state: Json, place: str) -> bool:
    if place in state["threads"]:
        return True
    return place in state["channels"] and not state["channels"][place]["flags"] & OBFUSCATED


def _places(state: Json, place: str) -> tuple[str, ...]:
    thread = state["threads"].get(place)
    return (place,) if thread is None else (place, str(thread["parent_id"]))


@dataclass(slots=True)
class People:
    """Users, and which guilds they share with the bots; `told` is what must be so, `vague` what nobody was told."""

    users: Objects = field(default_factory=dict)
    guilds: dict[str, set[str]] = field(default_factory=dict)
    vague_guilds: set[str] = field(default_factory=set)
    vague_users: set[str] = field(default_factory=set)


def people_of(truths: Iterable[GuildTruth]) -> People:
    """Every user who is a member of these guilds.

    In a guild in an outage nobody is told of changed names; in one without GUILD_MEMBERS, or in doubt, of anything.
    """
    found = People()
    certain: set[str] = set()
    for truth in truths:
        if not truth.has(GUILD_MEMBERS) or truth.is_in_doubt:
            found.vague_guilds.add(truth.id)
            found.vague_users |= truth.state["members"].keys()
            continue
        for key, member in truth.state["members"].items():
            found.users[key] = member["user"]
            found.guilds.setdefault(key, set()).add(truth.id)
            if not truth.state["unavailable"]:
                certain.add(key)
    found.vague_users |= found.users.keys() - certain
    return found
