"""The differences between one namespace of the cache and what it should hold. Pure."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from verification.cache_check.reading import Cached
from verification.cache_check.truth import (
    AS_THEY_ARE,
    GuildTruth,
    Json,
    Objects,
    bare_member,
    bare_presence,
    bare_thread,
    messages,
    people_of,
)

EXAMPLES_MAX = 8
EXAMPLES_OF_A_KIND_MAX = 2


@dataclass(slots=True)
class Comparison:
    """The numbers of compared and of different values by kind, with some examples.

    `left_out` counts guilds that are not compared, because they were in an outage when the cache was resynced.
    """

    compared: Counter[str] = field(default_factory=Counter)
    different: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    left_out: int = 0

    def check(self, kind: str, where: str, cached: Any, true: Any) -> None:
        """Compare one value; None means absent."""
        self.compared[kind] += 1
        if cached != true:
            self.different[kind] += 1
            if self.different[kind] <= EXAMPLES_OF_A_KIND_MAX and len(self.examples) < EXAMPLES_MAX:
                self.examples.append(f"{kind} {where}: {difference(cached, true)}")

    def check_all(self, kind: str, where: str, cached: Objects, true: Objects) -> None:
        """Compare a collection by id."""
        for key in cached.keys() | true.keys():
            self.check(kind, f"{where}/{key}", cached.get(key), true.get(key))

    def fail(self, kind: str, where: str, why: str) -> None:
        """Record an error that is not a difference of two values."""
        self.compared[kind] += 1
        self.different[kind] += 1
        self.examples.append(f"{kind} {where}: {why}")


def difference(cached: Any, true: Any) -> str:
    """A description of the difference."""
    if cached is None or true is None:
        return "only in the cache" if true is None else "not in the cache"
    if isinstance(cached, set) and isinstance(true, set):
        return f"only in the cache: {sorted(cached - true)[:5]}; not in it: {sorted(true - cached)[:5]}"
    if not isinstance(cached, dict) or not isinstance(true, dict):
        return f"cached {cached!r}, true {true!r}"
    fields = sorted(name for name in cached.keys() | true.keys() if cached.get(name, ...) != true.get(name, ...))
    shown = (f"{name}: cached {cached.get(name, '(none)')!r}, true {true.get(name, '(none)')!r}" for name in fields)
    return "; ".join(shown)[:600]


def compare(comparison: Comparison, cached: Cached, truths: Iterable[GuildTruth]) -> None:
    """Compare one namespace with the true states of its guilds.

    Discord sends no events of a guild in an outage: the cache has it as it was before, or not at all if no session
    existed before the outage. If the cache was incomplete meanwhile, the guild may also be out of date.
    """
    held = {truth.id: truth for truth in truths}
    hidden = {guild for guild, truth in held.items() if truth.state["unavailable"] and guild not in cached.guilds}
    shown = {guild: truth for guild, truth in held.items() if guild not in hidden}
    for guild in cached.guilds.keys() | shown.keys():
        if guild in held and held[guild].is_uncertain:
            comparison.left_out += 1
        elif guild in shown:
            _compare_guild(comparison, cached, shown[guild])
        else:
            comparison.check("guild", guild, cached.guilds.get(guild), None)
    for app in {app for truth in held.values() for app in truth.apps}:
        mine = {guild for guild, truth in held.items() if app in truth.apps}
        comparison.check("located", app, cached.located.get(app, set()), mine)
    _compare_people(comparison, cached, shown.values(), hidden)


def _compare_guild(comparison: Comparison, cached: Cached, truth: GuildTruth) -> None:
    guild = truth.id
    kept = {name: of.get(guild, {}) for name, of in cached.collections.items()}
    known = cached.guilds.get(guild)
    comparison.check("guild", guild, known, truth.guild(known or {}))
    comparison.check("apps", guild, cached.apps.get(guild), truth.apps)
    channels = kept.get("channels", {})
    comparison.check_all("channels", guild, channels, truth.channels(channels))
    threads = kept.get("threads", {})
    bare = {key: bare_thread(thread) for key, thread in threads.items()}
    comparison.check_all("threads", guild, bare, truth.threads(threads))
    members = {key: bare_member(member) for key, member in kept.get("members", {}).items()}
    comparison.check_all("members", guild, members, truth.members(members))
    presences = {key: bare_presence(presence) for key, presence in kept.get("presences", {}).items()}
    true_presences = {key: bare_presence(presence) for key, presence in truth.presences().items()}
    comparison.check_all("presences", guild, presences, true_presences)
    events = kept.get("events", {})
    comparison.check_all("events", guild, events, truth.events(events))
    for name, called in AS_THEY_ARE.items():
        true = truth.state[called]
        if name == "voice":
            true = {key: state | {"guild_id": guild} for key, state in true.items()}
        comparison.check_all(name, guild, kept.get(name, {}), true)
    _compare_messages(comparison, cached, truth)


def _compare_messages(comparison: Comparison, cached: Cached, truth: GuildTruth) -> None:
    places = {message["channel_id"] for view in truth.views for message in view.state["messages"]}
    for place in places | cached.messages[truth.id].keys():
        kept = cached.messages[truth.id].get(place, {})
        true = messages(truth, place, kept)
        checked = {key: message for key, message in kept.items() if key in true.certain or key not in true.optional}
        comparison.check_all("messages", f"{truth.id}/{place}", checked, true.certain)


def _compare_people(comparison: Comparison, cached: Cached, truths: Iterable[GuildTruth], hidden: set[str]) -> None:
    people = people_of(truths)
    unknown = people.unknown_guilds | hidden
    members = cached.collections["members"]
    unknown_users = people.unknown_users | {user for guild in unknown for user in members.get(guild, ())}
    for user in cached.users.keys() | people.users.keys():
        if user in unknown_users:
            continue
        comparison.check("user", user, cached.users.get(user), people.users.get(user))
    for user in cached.mutual.keys() | people.guilds.keys():
        comparison.check("mutual", user, cached.mutual.get(user, set()) - unknown, people.guilds.get(user, set()))


__all__ = ["Comparison", "Json", "compare", "difference"]
