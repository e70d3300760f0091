"""A minimal cache that applies events as documented, and its comparison with the simulator's state."""

from typing import Any

Json = dict[str, Any]
Objects = dict[str, Json]

LISTS = {
    "roles": "id",
    "emojis": "id",
    "stickers": "id",
    "channels": "id",
    "threads": "id",
    "stage_instances": "id",
    "guild_scheduled_events": "id",
    "soundboard_sounds": "sound_id",
    "voice_states": "user_id",
}
KEYED = {
    "GUILD_ROLE": ("roles", "role_id"),
    "CHANNEL": ("channels", "id"),
    "THREAD": ("threads", "id"),
    "STAGE_INSTANCE": ("stage_instances", "id"),
    "GUILD_SCHEDULED_EVENT": ("guild_scheduled_events", "id"),
    "GUILD_SOUNDBOARD_SOUND": ("soundboard_sounds", "sound_id"),
}
CALLED = {
    **{name: name for name in ("roles", "emojis", "stickers", "channels", "members", "presences", "voice_states")},
    "stage_instances": "stages",
    "guild_scheduled_events": "events",
    "soundboard_sounds": "sounds",
}
"""By list of GUILD_CREATE: the name in the simulator's state."""
FORUM, PRIVATE_THREAD, OBFUSCATED = 15, 12, 1 << 17


class ReferenceCache:
    """One bot's cache, filled from its dispatches."""

    def __init__(self, me: str, messages_kept: int) -> None:
        self.me = me
        self.kept = messages_kept
        self.guilds: dict[str, Json] = {}
        self.down: set[str] = set()
        self.user: Json = {}

    def apply(self, name: str, d: Json) -> None:
        if name == "READY":
            self.user = d["user"]
        elif name == "USER_UPDATE":
            self.user |= d
        elif name in ("GUILD_CREATE", "GUILD_DELETE") and d.get("unavailable"):
            self.down.add(d["id"])
        elif name == "GUILD_CREATE":
            self._create(d)
        elif name == "GUILD_DELETE":
            del self.guilds[d["id"]]
        elif (guild := self.guilds.get(d.get("guild_id") or d.get("id") or "")) is not None:
            self._apply(name, d, guild)

    def _create(self, d: Json) -> None:
        self.down.discard(d["id"])
        d.pop("unavailable", None)
        for name, key in LISTS.items():
            d[name] = {item[key]: item for item in d[name]}
        for name in ("members", "presences"):
            d[name] = {item["user"]["id"]: item for item in d[name]}
        d["voice_info"] = {}
        open_to_us = {key for key, channel in d["channels"].items() if not channel["flags"] & OBFUSCATED}
        known = self.guilds.get(d["id"], {}).get("messages", {})
        d["messages"] = {key: held for key, held in known.items() if key in open_to_us | d["threads"].keys()}
        self.guilds[d["id"]] = d

    def _apply(self, name: str, d: Json, guild: Json) -> None:
        kind, _, verb = name.rpartition("_")
        if kind in KEYED:
            self._entity(kind, verb, d, guild)
        elif kind == "GUILD_MEMBER":
            self._member(verb, d, guild)
        elif name.startswith("THREAD_"):
            self._thread(name, d, guild)
        elif name.startswith("MESSAGE_") and "REACTION" not in name:
            self._message(name, d, guild)
        elif name in ("VOICE_CHANNEL_STATUS_UPDATE", "VOICE_CHANNEL_START_TIME_UPDATE"):
            fields = {key: value for key, value in d.items() if key not in ("id", "guild_id")}
            guild["voice_info"].setdefault(d["id"], {}).update(fields)
        elif name == "VOICE_STATE_UPDATE":
            guild["voice_states"].pop(d["user_id"], None)
            if d["channel_id"] is not None:
                guild["voice_states"][d["user_id"]] = _without(d, "guild_id", "member")
        elif name == "PRESENCE_UPDATE":
            known = guild["presences"].pop(d["user"]["id"], {})
            if d["status"] != "offline":
                guild["presences"][d["user"]["id"]] = (
                    known | _without(d, "guild_id") | {"user": {"id": d["user"]["id"]}}
                )
        else:
            self._rest(name, d, guild)

    def _rest(self, name: str, d: Json, guild: Json) -> None:
        if name in ("GUILD_EMOJIS_UPDATE", "GUILD_STICKERS_UPDATE"):
            collection = "emojis" if "EMOJIS" in name else "stickers"
            guild[collection] = {item["id"]: item for item in d[collection]}
        elif name == "GUILD_SOUNDBOARD_SOUNDS_UPDATE":
            guild["soundboard_sounds"] |= {item["sound_id"]: item for item in d["soundboard_sounds"]}
        elif name == "GUILD_UPDATE":
            lists = {key: {item["id"]: item for item in d.pop(key)} for key in ("roles", "emojis", "stickers")}
            guild.update(d, **lists)
        elif name == "CHANNEL_PINS_UPDATE":
            place = guild["threads"].get(d["channel_id"]) or guild["channels"][d["channel_id"]]
            place["last_pin_timestamp"] = d["last_pin_timestamp"]
        elif name.startswith("GUILD_SCHEDULED_EVENT_USER_"):
            event = guild["guild_scheduled_events"][d["guild_scheduled_event_id"]]
            if "user_count" in event:
                event["user_count"] += 1 if name.endswith("ADD") else -1

    def _entity(self, kind: str, verb: str, d: Json, guild: Json) -> None:
        collection, key = KEYED[kind]
        item = _without(d.get("role", d), "newly_created")
        if kind == "CHANNEL":
            item.pop("guild_id", None)
        if verb == "DELETE":
            gone = guild[collection].pop(d[key], None)
            if kind == "GUILD_ROLE":
                for member in guild["members"].values():
                    member["roles"] = [role for role in member["roles"] if role != gone["id"]]
            elif kind in ("CHANNEL", "THREAD"):
                self._lose(guild, d["id"], is_over=True)
            return
        found = guild[collection]
        if kind == "GUILD_SCHEDULED_EVENT" and item["status"] in (3, 4):
            found.pop(item["id"], None)
            return
        if kind == "THREAD" and item["thread_metadata"]["archived"]:
            found.pop(item["id"], None)
            self._lose(guild, item["id"])
            return
        merges = verb == "UPDATE" and kind in ("THREAD", "GUILD_SCHEDULED_EVENT")
        found[item[LISTS[collection]]] = found.get(item[LISTS[collection]], {}) | item if merges else item
        if kind == "CHANNEL" and item["flags"] & OBFUSCATED:
            self._lose(guild, item["id"])
        if d.get("newly_created") and guild["channels"][item["parent_id"]]["type"] == FORUM:
            guild["channels"][item["parent_id"]]["last_message_id"] = item["id"]

    def _lose(self, guild: Json, place: str, *, is_over: bool = False) -> None:
        """Removes everything of a channel or thread that is deleted or no longer visible."""
        guild["messages"].pop(place, None)
        guild["voice_info"].pop(place, None)
        for key in [key for key, thread in guild["threads"].items() if thread["parent_id"] == place]:
            del guild["threads"][key]
            guild["messages"].pop(key, None)
        for name in ("stage_instances", "guild_scheduled_events") if is_over else ():
            guild[name] = {key: it for key, it in guild[name].items() if it["channel_id"] != place}

    def _member(self, verb: str, d: Json, guild: Json) -> None:
        user_id = d["user"]["id"]
        if verb == "REMOVE":
            guild["member_count"] -= user_id in guild["members"]
            for name in ("members", "presences", "voice_states"):
                guild[name].pop(user_id, None)
        else:
            guild["member_count"] += verb == "ADD" and user_id not in guild["members"]
            guild["members"][user_id] = guild["members"].get(user_id, {}) | _without(d, "guild_id")

    def _thread(self, name: str, d: Json, guild: Json) -> None:
        threads = guild["threads"]
        if name == "THREAD_LIST_SYNC":
            members = {member["id"]: member for member in d["members"]}
            listed = {thread["id"]: thread for thread in d["threads"]}
            for key, thread in list(threads.items()):
                if "channel_ids" not in d or thread["parent_id"] in d["channel_ids"]:
                    del threads[key]
                    if key not in listed:
                        guild["messages"].pop(key, None)
            for key, thread in listed.items():
                threads[key] = thread | ({"member": members[key]} if key in members else {})
        elif d["id"] not in threads:
            return
        elif name == "THREAD_MEMBER_UPDATE":
            threads[d["id"]]["member"] = d
        else:
            thread = threads[d["id"]]
            thread["member_count"] = d["member_count"]
            for member in d.get("added_members", ()):
                if member["user_id"] == self.me:
                    thread["member"] = member
            if self.me in d.get("removed_member_ids", ()):
                thread.pop("member", None)
                if thread["type"] == PRIVATE_THREAD:
                    del threads[d["id"]]
                    guild["messages"].pop(d["id"], None)

    def _message(self, name: str, d: Json, guild: Json) -> None:
        messages = guild["messages"].setdefault(d["channel_id"], {})
        place = guild["threads"].get(d["channel_id"]) or guild["channels"][d["channel_id"]]
        if name in ("MESSAGE_CREATE", "MESSAGE_UPDATE"):
            messages[d["id"]] = d
            for key in sorted(messages, key=int)[: -self.kept]:
                del messages[key]
        if name == "MESSAGE_CREATE":
            place["last_message_id"] = d["id"]
        ids = d.get("ids") or [d["id"]]
        if name.startswith("MESSAGE_DELETE"):
            for key in ids:
                messages.pop(key, None)
        counted = [key for key in ids if key != d["channel_id"]]
        if d["channel_id"] in guild["threads"]:
            if name == "MESSAGE_CREATE":
                place["message_count"] += len(counted)
                place["total_message_sent"] += len(counted)
            elif name.startswith("MESSAGE_DELETE"):
                place["message_count"] = max(0, place["message_count"] - len(counted))


def _without(d: Json, *names: str) -> Json:
    return {key: value for key, value in d.items() if key not in names}


def differences(cached: Json, state: Json, session_began: int) -> list[str]:
    """The differences between a cached guild and the bot's view of it; the session began at this moment."""
    found: list[str] = []
    cached = _without_stale(cached, set(state["stale"]))
    state = _without_stale(state, set(state["stale"]))
    own = _without(cached, *CALLED, "threads", "voice_info", "messages")
    _compare(found, "guild", {"": own}, {"": state["guild"]})
    for name, called in CALLED.items():
        _compare(found, called, cached[name], state[called])
    bare = {key: _own_member(thread) for key, thread in cached["threads"].items()}
    _compare(found, "threads", bare, {key: _own_member(thread) for key, thread in state["threads"].items()})
    certain = {key: info for key, info in state["voice_info"].items() if key not in state["uncertain"]}
    for channel, info in certain.items():
        sent_since = max(state["created"], state["since"].get(channel, 0))
        for field, value in info.items():
            known = cached["voice_info"].get(channel, {}).get(field, ...)
            was_sent = state["changes"].get(f"{channel}:{field}", 0) > sent_since
            if known != value and (was_sent or known is not ...):
                found.append(f"voice_info {channel} {field}: {known} instead of {value}")
    return found + _message_differences(cached, state, session_began)


def _without_stale(guild: Json, stale: set[str]) -> Json:
    """The guild without the channels that the bot lost silently: their cached state is undefined."""
    threads = {key: thread for key, thread in guild["threads"].items() if thread["parent_id"] not in stale}
    gone = stale | (guild["threads"].keys() - threads.keys())
    channels = {key: channel for key, channel in guild["channels"].items() if key not in stale}
    messages = guild["messages"]
    if isinstance(messages, dict):
        messages = {place: held for place, held in messages.items() if place not in gone}
    return guild | {"threads": threads, "channels": channels, "messages": messages}


def _message_differences(cached: Json, state: Json, session_began: int) -> list[str]:
    """Compares messages that were sent or changed while the bot saw their channel."""
    found: list[str] = []
    true: dict[str, Objects] = {}
    for message in state["messages"]:
        place = message["channel_id"]
        parent = state["threads"].get(place, {}).get("parent_id", "")
        sent_since = max(session_began, state["joined"], state["since"].get(place, 0), state["since"].get(parent, 0))
        if state["changes"].get(message["id"], 0) > sent_since:
            true.setdefault(place, {})[message["id"]] = message
    for place in true.keys() | cached["messages"].keys():
        mine, theirs = cached["messages"].get(place, {}), true.get(place, {})
        mine = {key: m for key, m in mine.items() if int(key) > int(state["forgotten"].get(place, 0))}
        if {place, state["threads"].get(place, {}).get("parent_id")} & set(state["uncertain"]):
            mine = {key: m for key, m in mine.items() if key in theirs}
        _compare(found, "messages", mine, theirs)
    return found


def _own_member(thread: Json) -> Json:
    """The bot's own membership. It is sent in four forms; two fields are in all of them."""
    member = thread.get("member")
    bare = _without(thread, "member")
    return bare | ({"member": {key: member[key] for key in ("join_timestamp", "flags")}} if member else {})


def _compare(found: list[str], kind: str, mine: Objects, theirs: Objects) -> None:
    for key in mine.keys() | theirs.keys():
        a, b = mine.get(key), theirs.get(key)
        if a != b:
            fields = "" if a is None or b is None else sorted(n for n in a.keys() | b.keys() if a.get(n) != b.get(n))
            found.append(f"{kind} {key}: {fields or ('only cached' if b is None else 'not cached')}")
