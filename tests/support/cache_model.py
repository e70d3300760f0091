"""A model of the cache: the script's rules in a simple form, on Python objects, one event at a time."""

import copy
from collections import defaultdict
from typing import Any

from sandwich_node.cache.settings import CacheWriter, letters_of
from tests.support.cache_places import Places, has_ended
from tests.support.cache_visibility import NONE, VOICE_STATUS, Guild, Json, is_hidden

LISTS = {
    "roles": ("r", "id"),
    "emojis": ("e", "id"),
    "stickers": ("s", "id"),
    "channels": ("c", "id"),
    "threads": ("t", "id"),
    "stage_instances": ("g", "id"),
    "guild_scheduled_events": ("x", "id"),
    "soundboard_sounds": ("o", "sound_id"),
    "voice_states": ("v", "user_id"),
    "presences": ("p", ""),
    "members": ("m", ""),
}
SHOW_MEMBERS = ("MESSAGE_CREATE", "MESSAGE_REACTION_ADD", "TYPING_START", "VOICE_STATE_UPDATE")
WITHOUT_MEMBERSHIP = frozenset(
    {"READY", "GUILD_CREATE", "GUILD_DELETE", "GUILD_MEMBERS_CHUNK", "PRESENCE_UPDATE", "USER_UPDATE"}
    | {"MESSAGE_CREATE", "MESSAGE_UPDATE", "MESSAGE_DELETE"}
)
"""Events that apply although the application is not in the guild: Redis lost it, and Discord sends it again."""


class CacheModel:
    """The whole namespace. `apply` takes events as (sequence, type, d) and returns the same as the cache."""

    def __init__(self) -> None:
        self.guilds: dict[str, Guild] = defaultdict(Guild)
        self.users: dict[str, Json] = {}
        self.mutual: dict[str, set[str]] = defaultdict(set)
        self.locations: dict[str, dict[str, str]] = defaultdict(dict)
        self.index: dict[tuple[str, str], set[str]] = defaultdict(set)
        self.waiting: dict[str, dict[str, str]] = defaultdict(dict)
        self.records: dict[tuple[str, str], tuple[int, str, int]] = {}
        self.extras: dict[tuple[str, str], dict[int, Json]] = defaultdict(dict)

    def apply(self, writer: CacheWriter, session: str, events: list[tuple[int, str, Json]]) -> dict[int, Json] | None:
        """The additions to each event; None when a newer owner has written."""
        key = (writer.shard.app, writer.location)
        fence, of, stood = self.records.get(key, (0, "", -1))
        if fence > writer.fence:
            return None
        if of != session:
            stood, self.extras[key] = -1, {}
        made = {}
        for seq, name, data in events:
            if seq > stood:
                self.extras[key][seq] = copy.deepcopy(_Step(self, writer).take(name, copy.deepcopy(data)))
                stood = seq
            if self.extras[key].get(seq):
                made[seq] = self.extras[key][seq]
        self.records[key] = (writer.fence, session, stood)
        return made

    def switch(self, old: CacheWriter, new: CacheWriter, session: str, seq: int) -> None:
        """The new writer's group replaces the old one's, in the middle of this session."""
        app, was, now = new.shard.app, old.location, new.location
        self.locations[app] = {guild: now if at == was else at for guild, at in self.locations[app].items()}
        self.index[app, now] |= self.index.pop((app, was), set())
        _, of, stood = self.records.get((app, was), (0, "", -1))
        self.records[app, was] = (new.fence, of, stood)
        self.records[app, now] = (new.fence, session, seq)

    def release(self, writer: CacheWriter) -> None:
        """The shard's group is removed."""
        _Step(self, writer).relocate(set())


class _Step(Places):
    """One event of one writer."""

    def __init__(self, model: CacheModel, writer: CacheWriter) -> None:
        self.model = model
        self.writer = writer
        self.app = writer.shard.app
        self.on = set(letters_of(writer.settings))
        self.users = writer.settings.users and writer.settings.members
        self.extra: Json = {}

    def take(self, name: str, d: Json) -> Json:
        handler = getattr(self, "on_" + name.lower(), None)
        if handler is not None:
            self.id = d.get("guild_id") or d.get("id", "")
            if name not in WITHOUT_MEMBERSHIP and self.is_absent:
                self.extra = dict.fromkeys(self.extra_of(name, d).keys() & {"before"})
            else:
                handler(d)
        learns = self.writer.settings.members and not self.writer.receives_members
        if learns and name in SHOW_MEMBERS and "member" in d:
            self.learn(d)
        return self.extra

    def extra_of(self, name: str, d: Json) -> Json:
        """The additions of an event that has no effect."""
        step = _Step(copy.deepcopy(self.model), self.writer)
        step.id = self.id
        getattr(step, "on_" + name.lower())(d)
        return step.extra

    @property
    def guild(self) -> Guild:
        return self.model.guilds[self.id]

    def may_replace(self, letter: str) -> bool:
        theirs = "".join(letters for app, (letters, _, _) in self.guild.by.items() if app != self.app)
        return letter in self.writer.maintains or letter not in theirs

    def before(self, slot: str, old: Any, new: Any, shown: Any = NONE) -> None:
        shown = old if shown is NONE else shown
        if self.is_shared:
            if old == new:
                app, value = self.guild.previous.get(slot, (self.app, None))
                shown = value if app != self.app else shown
            else:
                self.guild.previous[slot] = (self.app, shown)
        self.extra["before"] = shown

    # users

    def store_user(self, user: Json | None) -> None:
        if user is not None and self.users:
            self.model.users[user["id"]] = user

    def drop_user(self, user_id: str) -> None:
        shares = self.model.mutual[user_id]
        if self.id in shares:
            shares.discard(self.id)
            if not shares:
                self.model.users.pop(user_id, None)

    def split(self, member: Json) -> tuple[str, Json, Json | None]:
        member = dict(member)
        user = member["user"]
        if not self.users:
            return user["id"], member, None
        member["user"] = {"id": user["id"]}
        return user["id"], member, user

    def whole(self, member: Json | None) -> Json | None:
        if member is None or set(member["user"]) != {"id"}:
            return member
        return member | {"user": self.model.users.get(member["user"]["id"], member["user"])}

    def store_member(self, member: Json) -> None:
        user_id, stored, user = self.split(member)
        self.guild.of["m"][user_id] = stored
        self.model.mutual[user_id].add(self.id)
        self.store_user(user)

    def put_members(self, members: list[Json]) -> None:
        for member in members:
            user, may_replace = member["user"]["id"], self.may_replace("m")
            if may_replace:
                self.guild.gone.discard(user)
            is_new = user not in self.guild.of["m"]
            if is_new and not may_replace and self.is_shared:
                self.guild.early.add(user)
            if is_new or may_replace:
                self.store_member(member)
            else:
                self.model.mutual[user].add(self.id)

    def has_left(self, user: str) -> bool:
        """Whether a user has left and has not returned."""
        return user in self.guild.gone and user not in self.guild.of["m"]

    def learn(self, d: Json) -> None:
        if "guild_id" not in d or not self.may_replace("m") or self.is_absent:
            return
        member = d["member"] if "author" not in d else d["member"] | {"user": d["author"]}
        user_id, new, user = self.split(member)
        self.guild.of["m"][user_id] = self.guild.of["m"].get(user_id, {}) | new
        self.model.mutual[user_id].add(self.id)
        self.store_user(user)

    def count(self, change: int) -> None:
        if self.guild.guild is not None and "member_count" in self.guild.guild:
            self.guild.guild["member_count"] = max(0, self.guild.guild["member_count"] + change)

    def member_count(self, new: Json) -> Json:
        """The count of an application with member events."""
        old = self.guild.guild or {}
        knows = self.may_replace("m") or "member_count" not in new or "member_count" not in old
        return {} if knows else {"member_count": old["member_count"]}

    # locations of guilds

    def on_ready(self, d: Json) -> None:
        if self.users:
            self.model.users[d["user"]["id"]] = d["user"]
        listed = {guild["id"] for guild in d["guilds"]}
        self.relocate(listed)
        for guild in listed:
            self.model.locations[self.app][guild] = self.writer.location
            self.model.waiting[self.app][guild] = "l"

    def relocate(self, listed: set[str]) -> None:
        key = (self.app, self.writer.location)
        for guild in self.model.index[key] - listed:
            if self.model.locations[self.app].get(guild) == self.writer.location:
                del self.model.locations[self.app][guild]
                self.model.waiting[self.app].pop(guild, None)
                self.id = guild
                self.leave()
        self.model.index[key] = set(listed)

    def is_held_by_newer(self) -> bool:
        held = self.model.locations[self.app].get(self.id)
        return held is not None and int(held.split(":")[0]) > self.writer.shard.group

    def leave(self) -> None:
        guild = self.guild
        letters, _, group = guild.by.get(self.app, ("", "", 0))
        if group > self.writer.shard.group:
            return
        if self.is_shared and self.app in guild.apps:
            self.stop_sharing()
        guild.apps.discard(self.app)
        guild.by.pop(self.app, None)
        if not self.is_shared:
            guild.seen.clear()
            guild.own.clear()
            guild.unseen.clear()
            guild.voiced.clear()
        if not guild.apps:
            for user in list(guild.of["m"]):
                self.drop_user(user)
            del self.model.guilds[self.id]
            return
        theirs = "".join(value[0] for value in guild.by.values())
        for letter in set(letters) - set(theirs):
            if letter == "m":
                bots = {bot for _, bot, _ in guild.by.values()}
                for user in [user for user in guild.of["m"] if user not in bots]:
                    del guild.of["m"][user]
                    self.drop_user(user)
            else:
                guild.of[letter].clear()

    def down(self) -> None:
        waiting = self.model.waiting[self.app]
        was = waiting.get(self.id, "")
        self.extra |= {"lazy": "l" in was, "unavailable": True}
        waiting[self.id] = was.replace("u", "") + "u"
        self.locate()

    def on_guild_create(self, d: Json) -> None:
        waiting = self.model.waiting[self.app]
        if d.get("unavailable"):
            if self.guild.guild is not None:
                self.guild.guild = self.guild.guild | {"unavailable": True}
            self.down()
            return
        guild = self.guild
        if len(guild.apps) == 1 and self.app not in guild.apps:
            (first,) = guild.apps
            guild.seen = {thread: [first] for thread in guild.of["t"]}
            guild.unseen = {(first, key): channel for key, channel in guild.of["c"].items() if is_hidden(channel)}
            guild.voiced = {
                key: [first]
                for key, channel in guild.of["c"].items()
                if not is_hidden(channel) and not VOICE_STATUS.isdisjoint(channel)
            }
        guild.apps.add(self.app)
        if guild.by.get(self.app, ("", "", 0))[2] <= self.writer.shard.group:
            guild.by[self.app] = (self.writer.maintains, self.writer.bot, self.writer.shard.group)
        if self.writer.settings.guilds:
            new = {key: value for key, value in d.items() if key not in LISTS} | {"unavailable": False}
            guild.guild = new | self.member_count(new)
        if self.may_replace("m"):
            guild.gone.clear()
        self.lists(d)
        flags = waiting.pop(self.id, "")
        self.extra |= {"lazy": "l" in flags, "unavailable": "u" in flags}
        self.locate()

    def locate(self) -> None:
        if not self.is_held_by_newer():
            self.model.locations[self.app][self.id] = self.writer.location
        self.model.index[self.app, self.writer.location].add(self.id)

    def lists(self, d: Json) -> None:
        for name, (letter, key) in LISTS.items():
            if name not in d or letter not in self.on:
                continue
            held = self.guild.of[letter]
            if letter == "x":
                d[name] = [item | self.counts(letter, item["id"], item) for item in d[name]]
            if letter == "m":
                now = {member["user"]["id"] for member in d[name]}
                if self.may_replace("m"):
                    for user in [user for user in held if user not in now]:
                        del held[user]
                        self.drop_user(user)
                self.put_members(d[name])
                continue
            if letter in "ct":
                self.only(letter, {item["id"] for item in d[name]})
            elif self.may_replace(letter):
                held.clear()
            for item in d[name]:
                if (letter == "x" and has_ended(item)) or (letter == "v" and item["channel_id"] is None):
                    continue
                if letter in "ctv":
                    item.setdefault("guild_id", self.id)
                if letter in "ct":
                    self.put_place(letter, item)
                elif letter != "p":
                    held[item[key]] = item
                elif item["status"] != "offline":
                    held[item["user"]["id"]] = item | {"user": {"id": item["user"]["id"]}}

    def on_guild_update(self, d: Json) -> None:
        self.lists(d)
        if self.writer.settings.guilds:
            old = self.guild.guild
            new = {key: value for key, value in d.items() if key not in LISTS}
            new = (old or {}) | new | self.member_count(new)
            self.before("guild", old, new)
            self.guild.guild = new

    def on_guild_delete(self, d: Json) -> None:
        waiting = self.model.waiting[self.app]
        self.extra["before"] = self.guild.guild
        if d.get("unavailable"):
            if self.guild.guild is not None:
                self.guild.guild = self.guild.guild | {"unavailable": True}
            self.down()
            return
        self.extra |= {"lazy": False, "unavailable": False}
        self.leave()
        if self.id in self.model.guilds and self.guild.of["m"].pop(self.writer.bot, None) is not None:
            self.drop_user(self.writer.bot)
        self.model.index[self.app, self.writer.location].discard(self.id)
        if not self.is_held_by_newer():
            self.model.locations[self.app].pop(self.id, None)
            waiting.pop(self.id, None)

    # one entity

    def upsert(self, letter: str, key: str, value: Json) -> None:
        if letter in self.on:
            self.guild.of[letter][key] = value | (self.counts(letter, key, value) if letter == "x" else {})

    def change(self, letter: str, key: str, value: Json, *, merge: bool = False) -> None:
        if letter in self.on:
            old = self.guild.of[letter].get(key)
            new = (old or {}) | value | self.counts(letter, key, value) if merge else value
            self.before(letter + key, old, new)
            self.guild.of[letter][key] = new

    def remove(self, letter: str, key: str) -> None:
        if letter in self.on:
            self.before(letter + key, self.guild.of[letter].get(key), None)
            self.guild.of[letter].pop(key, None)
            if letter == "t":
                self.drop_thread(key)

    def patch(self, letters: str, key: str, value: Json, *, reports: bool = True) -> None:
        for letter in letters:
            old = self.guild.of[letter].get(key) if letter in self.on else None
            if old is not None:
                if letter == "t" and self.is_shared and self.app not in self.guild.seen.get(key, []):
                    value = {}
                value = value | self.counts(letter, key, value)
                if reports:
                    self.before(letter + key, old, old | value)
                if letter == "c" and self.is_shared and not VOICE_STATUS.isdisjoint(value):
                    self.note_voice_status(key, is_new=old | value != old)
                self.guild.of[letter][key] = old | value
                return
        if reports:
            self.extra["before"] = None

    def on_guild_role_create(self, d: Json) -> None:
        self.upsert("r", d["role"]["id"], d["role"])

    def on_guild_role_update(self, d: Json) -> None:
        self.change("r", d["role"]["id"], d["role"])

    def on_guild_role_delete(self, d: Json) -> None:
        self.remove("r", d["role_id"])
        for member in self.guild.of["m"].values():
            member["roles"] = [role for role in member["roles"] if role != d["role_id"]]

    def whole_list(self, letter: str, key: str, items: list[Json]) -> None:
        held = self.guild.of[letter]
        self.before(letter, in_order(list(held.values())), in_order(items))
        if self.may_replace(letter):
            held.clear()
        held.update({item[key]: item for item in items})

    def on_guild_emojis_update(self, d: Json) -> None:
        self.whole_list("e", "id", d["emojis"])

    def on_guild_stickers_update(self, d: Json) -> None:
        self.whole_list("s", "id", d["stickers"])

    def on_guild_soundboard_sound_create(self, d: Json) -> None:
        self.upsert("o", d["sound_id"], d)

    def on_guild_soundboard_sound_update(self, d: Json) -> None:
        self.change("o", d["sound_id"], d)

    def on_guild_soundboard_sound_delete(self, d: Json) -> None:
        self.remove("o", d["sound_id"])

    def on_stage_instance_create(self, d: Json) -> None:
        self.upsert("g", d["id"], d)

    def on_stage_instance_update(self, d: Json) -> None:
        self.change("g", d["id"], d)

    def on_stage_instance_delete(self, d: Json) -> None:
        self.remove("g", d["id"])

    # members

    def on_guild_member_add(self, d: Json) -> None:
        user = d["user"]["id"]
        is_new = user not in self.guild.of["m"] or user in self.guild.early
        self.guild.early.discard(user)
        self.guild.gone.discard(user)
        self.store_member(d)
        if is_new:
            self.count(1)

    def on_guild_member_update(self, d: Json) -> None:
        user_id, new, user = self.split(d)
        old = self.guild.of["m"].get(user_id)
        if self.has_left(user_id):
            # A late update does not bring a departed member back.
            self.before("m" + user_id, None, None)
            return
        known = self.model.users.get(user_id) if old is not None else None
        merged = (old or {}) | new
        had = known if user is not None else None
        gets = user if known is not None else None
        self.before("m" + user_id, (old, had), (merged, gets), self.whole(old))
        self.guild.of["m"][user_id] = merged
        self.model.mutual[user_id].add(self.id)
        self.store_user(user)

    def on_guild_member_remove(self, d: Json) -> None:
        user = d["user"]["id"]
        guild = self.guild
        old = guild.of["m"].pop(user, None)
        self.before("m" + user, old, None, self.whole(old))
        guild.of["p"].pop(user, None)
        guild.of["v"].pop(user, None)
        self.drop_user(user)
        is_first = not self.is_shared or user not in guild.gone
        guild.gone.add(user)
        known = len(guild.of["m"]) if guild.guild is not None else 0
        if old is not None or (is_first and guild.guild and known < guild.guild.get("member_count", 0)):
            self.count(-1)

    def on_guild_members_chunk(self, d: Json) -> None:
        self.put_members(d["members"])

    def on_presence_update(self, d: Json) -> None:
        user = d["user"]
        if self.is_absent:
            self.extra |= {"before": None} if "p" in self.on else {}
        elif self.has_left(user["id"]) and d.get("status") != "offline":
            self.before("p" + user["id"], None, None)
        elif d.get("status") == "offline":
            self.remove("p", user["id"])
        else:
            self.change("p", user["id"], d | {"user": {"id": user["id"]}}, merge=True)
        if self.users and user["id"] in self.model.users:
            self.model.users[user["id"]] = self.model.users[user["id"]] | user

    def on_voice_state_update(self, d: Json) -> None:
        if d["channel_id"] is None:
            self.remove("v", d["user_id"])
        elif self.has_left(d["user_id"]):
            self.before("v" + d["user_id"], None, None)
        else:
            self.change("v", d["user_id"], {key: value for key, value in d.items() if key != "member"})

    def on_user_update(self, d: Json) -> None:
        old = self.model.users.get(d["id"])
        self.extra["before"] = old
        self.model.users[d["id"]] = (old or {}) | d


def in_order(items: list[Json]) -> list[Json]:
    """An unordered list, sorted for comparison."""
    return sorted(items, key=lambda item: str(item.get("id", item.get("sound_id"))))
