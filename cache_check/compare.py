"""What the cache should hold of a guild, by the simulator's state of it, and where it differs. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
Objects = dict[str, Json]

COLLECTIONS: Mapping[str, str] = {
    "channels": "channels",
    "threads": "threads",
    "roles": "roles",
    "emojis": "emojis",
    "stickers": "stickers",
    "members": "members",
    "voice": "voice_states",
    "presences": "presences",
    "events": "events",
    "stages": "stages",
    "sounds": "sounds",
}
"""The cache's collections, and how the simulator calls them."""

EXAMPLES_MAX = 5


@dataclass(slots=True)
class Comparison:
    """How many of each kind were compared, and how many differ; with some examples."""

    compared: Counter[str] = field(default_factory=Counter)
    different: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def check(self, kind: str, where: str, cached: Any, true: Any) -> None:
        """Compare one thing; None is "not there"."""
        self.compared[kind] += 1
        if cached != true:
            self.different[kind] += 1
            if len(self.examples) < EXAMPLES_MAX:
                self.examples.append(f"{kind} {where}: {_difference(cached, true)}")

    def check_all(self, kind: str, where: str, cached: Objects, true: Objects) -> None:
        """Compare a collection, id by id."""
        for key in cached.keys() | true.keys():
            self.check(kind, f"{where}/{key}", cached.get(key), true.get(key))


def _difference(cached: Any, true: Any) -> str:
    if cached is None or true is None:
        return "only in the cache" if true is None else "not in the cache"
    if not isinstance(cached, dict) or not isinstance(true, dict):
        return f"cached {cached!r}, true {true!r}"
    fields = sorted(name for name in cached.keys() | true.keys() if cached.get(name, ...) != true.get(name, ...))
    shown = (f"{name}: cached {cached.get(name, '(none)')!r}, true {true.get(name, '(none)')!r}" for name in fields)
    return "; ".join(shown)[:600]


def true_guild(state: Json) -> Json:
    """The guild's own object."""
    made: Json = state["guild"] | {"unavailable": bool(state["unavailable"])}
    return made


def true_collection(name: str, state: Json) -> Objects:
    """One collection of a guild as the cache keeps it."""
    guild_id = state["guild"]["id"]
    found: Objects = state[COLLECTIONS[name]]
    match name:
        case "channels" | "threads" | "voice":
            return {key: value | {"guild_id": guild_id} for key, value in found.items()}
        case "members":
            roles = set(state["roles"])
            return {key: _member(value, roles) for key, value in found.items()}
        case "presences":
            return {key: _presence(value) for key, value in found.items()}
    return found


def shown(name: str, cached: Objects, state: Json) -> Objects:
    """A cached collection without what Discord does not tell of.

    No event says that members lost a role which was deleted, and Discord itself no longer lists it.
    """
    if name == "members":
        roles = set(state["roles"])
        return {key: _member(value, roles) for key, value in cached.items()}
    if name in ("channels", "threads", "voice"):
        return cached
    return {key: _presence(value) for key, value in cached.items()} if name == "presences" else cached


def _member(member: Json, roles: set[str]) -> Json:
    made = {name: value for name, value in member.items() if name not in ("user", "guild_id")}
    return made | {"roles": [role for role in made.get("roles", ()) if role in roles]}


def _presence(presence: Json) -> Json:
    made = {name: value for name, value in presence.items() if name not in ("guild_id", "roles")}
    return made | {"user": {"id": presence["user"]["id"]}}


def users_of(states: Iterator[Json]) -> tuple[Objects, dict[str, set[str]]]:
    """Every user who is a member of these guilds, and the guilds of each."""
    users: Objects = {}
    guilds: dict[str, set[str]] = {}
    for state in states:
        for key, member in state["members"].items():
            users[key] = member["user"]
            guilds.setdefault(key, set()).add(state["guild"]["id"])
    return users, guilds
