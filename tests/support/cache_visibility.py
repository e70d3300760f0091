"""The part of the cache's model for visibility: what each application sees, and which is authoritative for a thread."""

from dataclasses import dataclass, field
from typing import Any

from sandwich_node.cache.settings import LETTERS, CacheWriter

Json = dict[str, Any]
HIDDEN = 1 << 17
NONE: Any = object()
VOICE_STATUS = frozenset({"status", "voice_start_time"})
THREAD_COUNTS = ("message_count", "total_message_sent", "last_message_id", "member")


@dataclass
class Guild:
    """One guild: its object, collections by letter, and its writers."""

    guild: Json | None = None
    of: dict[str, dict[str, Json]] = field(default_factory=lambda: {letter: {} for letter in LETTERS})
    apps: set[str] = field(default_factory=set)
    by: dict[str, tuple[str, str, int]] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    early: set[str] = field(default_factory=set)
    """Members written by an application without member events; an application with them has to count them yet."""
    seen: dict[str, list[str]] = field(default_factory=dict)
    """By thread: the applications that see it; the one that has seen it longest is first. For shared guilds."""
    own: dict[tuple[str, str], Json] = field(default_factory=dict)
    """By application and thread: its counts and own membership, if it is not the first in `seen`."""
    unseen: dict[tuple[str, str], Json] = field(default_factory=dict)
    """By application and channel: the redacted form of a channel that it may not view. For shared guilds."""
    voiced: dict[str, list[str]] = field(default_factory=dict)
    """By channel: the applications that received its current voice status. For shared guilds."""
    previous: dict[str, tuple[str, Any]] = field(default_factory=dict)
    messages: dict[str, dict[str, Json]] = field(default_factory=dict)


def is_hidden(channel: Json) -> bool:
    """Whether a channel is in its redacted form."""
    return bool(channel.get("flags", 0) & HIDDEN)


def last_message(old: Json | None, new: Json) -> Json:
    """A channel's last message, if a later one is known already."""
    was, now = (old or {}).get("last_message_id"), new.get("last_message_id", "")
    return {"last_message_id": was} if was and now != "" and int(was) > int(now or 0) else {}


class Visibility:
    """The changes of an event to what applications see."""

    app: str
    writer: CacheWriter
    on: set[str]
    """Letters of the enabled collections."""

    @property
    def guild(self) -> Guild:
        """The event's guild."""
        raise NotImplementedError

    def before(self, slot: str, old: Any, new: Any, shown: Any = NONE) -> None:
        """Record the event's `before`; `shown` if it differs from `old`."""
        raise NotImplementedError

    def upsert(self, letter: str, key: str, value: Json) -> None:
        """Store an entity."""
        raise NotImplementedError

    def change(self, letter: str, key: str, value: Json, *, merge: bool = False) -> None:
        """Store an entity with its `before`; with `merge`, `value` has only the changed fields."""
        raise NotImplementedError

    def remove(self, letter: str, key: str) -> None:
        """Remove an entity."""
        raise NotImplementedError

    def patch(self, letters: str, key: str, value: Json, *, reports: bool = True) -> None:
        """Change fields of an entity in the first of these collections that has it."""
        raise NotImplementedError

    @property
    def is_shared(self) -> bool:
        return len(self.guild.apps) > 1

    @property
    def is_absent(self) -> bool:
        """Only other applications are in the guild: Redis lost it, and this application has not received it again."""
        return bool(self.guild.apps) and self.app not in self.guild.apps

    def viewers(self) -> list[str]:
        return [app for app, (letters, _, _) in self.guild.by.items() if app != self.app and "c" in letters]

    def only(self, letter: str, listed: set[str]) -> None:
        guild = self.guild
        for key in [key for key in guild.of[letter] if key not in listed]:
            if letter == "t":
                self.lose_thread(key)
            else:
                del guild.of["c"][key]
                self.forget_channel(key)
        if letter == "t" and "c" in self.writer.maintains:
            known = {*listed, *guild.of["c"], *guild.of["t"]}
            guild.messages = {place: held for place, held in guild.messages.items() if place in known}

    def forget_channel(self, key: str) -> None:
        self.guild.messages.pop(key, None)
        for app in (self.app, *self.viewers()):
            self.guild.unseen.pop((app, key), None)
        self.guild.voiced.pop(key, None)

    def drop_thread(self, key: str) -> None:
        self.guild.of["t"].pop(key, None)
        self.guild.messages.pop(key, None)
        self.guild.seen.pop(key, None)
        self.guild.own = {(app, of): own for (app, of), own in self.guild.own.items() if of != key}

    def lose_thread(self, key: str) -> bool:
        guild = self.guild
        if self.is_shared:
            was = guild.seen.get(key, [])
            others = guild.seen[key] = [app for app in was if app != self.app]
            if others:
                guild.own.pop((self.app, key), None)
                if others[0] != was[0] and (others[0], key) in guild.own:
                    counts = guild.own.pop((others[0], key))
                    gone = {"member": None} if "member" in guild.of["t"].get(key, {}) else {}
                    guild.of["t"][key] |= gone | counts
                return False
        self.drop_thread(key)
        return True

    def lose_threads(self, channel: str) -> None:
        for key in [key for key, thread in self.guild.of["t"].items() if thread["parent_id"] == channel]:
            self.lose_thread(key)

    def see_thread(self, key: str) -> None:
        apps = self.guild.seen.setdefault(key, []) if self.is_shared else [self.app]
        if self.app not in apps:
            apps.append(self.app)

    def for_all(self, key: str, channel: Json) -> tuple[Json, bool, bool]:
        """The channel to store; whether this application can no longer view it; whether no application can."""
        guild, old = self.guild, self.guild.of["c"].get(key)
        is_shown = old is not None and not is_hidden(old)
        if not is_hidden(channel):
            guild.unseen.pop((self.app, key), None)
            return channel, False, False
        if not self.is_shared:
            return channel, is_shown, True
        is_new = (self.app, key) not in guild.unseen
        guild.unseen[self.app, key] = channel
        self.forget_voice_status(key)
        if is_shown and any((app, key) not in guild.unseen for app in self.viewers()):
            assert old is not None
            return old, is_new, False
        return channel, is_new, True

    def note_voice_status(self, channel: str, *, is_new: bool) -> None:
        apps = [] if is_new else self.guild.voiced.get(channel, [])
        self.guild.voiced[channel] = [*apps, self.app] if self.app not in apps else apps

    def forget_voice_status(self, channel: str) -> None:
        self.guild.voiced[channel] = [app for app in self.guild.voiced.get(channel, []) if app != self.app]

    def is_voiced_by_others(self, channel: str) -> bool:
        """Whether another application would have received a change of the channel's voice status."""
        guild = self.guild
        voiced = guild.voiced.get(channel, [])
        return any(app in voiced and (app, channel) not in guild.unseen for app in self.viewers())

    def put_place(self, letter: str, place: Json) -> None:
        key, held = place["id"], self.guild.of[letter]
        if letter == "c":
            new, _, is_lost = self.for_all(key, place)
            kept = {}
            if is_lost:
                self.guild.messages.pop(key, None)
            elif self.is_shared and not VOICE_STATUS.isdisjoint(held.get(key, {})):
                self.forget_voice_status(key)
                known = held[key] if self.is_voiced_by_others(key) else {}
                kept = {name: value for name, value in known.items() if name in VOICE_STATUS and name not in new}
            if self.is_shared and not is_lost:
                kept |= last_message(held.get(key), new)
            held[key] = new | kept
            return
        self.see_thread(key)
        held[key] = place | self.counts("t", key, place, is_whole=True)

    def leads(self, thread: str) -> tuple[bool, bool]:
        guild = self.guild
        apps = guild.seen.get(thread) or [self.app]
        by = {app: letters for app, (letters, _, _) in guild.by.items()} | {self.app: self.writer.maintains}
        of_members = [app for app in apps if "m" in by.get(app, "")] or apps
        return apps[0] == self.app, of_members[0] == self.app

    def counts(self, letter: str, key: str, new: Json, *, is_whole: bool = False) -> Json:
        """The counts of the authoritative application, which stay."""
        old = self.guild.of[letter].get(key)
        if old is None or not self.is_shared:
            return {}
        names: tuple[str, ...] = ()
        stays: Json = {}
        if letter == "t":
            messages, members = self.leads(key)
            names = (*(() if messages else THREAD_COUNTS), *(() if members else ("member_count",)))
            if not messages:
                self.keep_own(key, new, is_whole=is_whole)
                stays = {"member": None} if "member" in new else {}
        elif letter == "x" and self.app != min(self.guild.apps):
            names = ("user_count",)
        return stays | {name: old[name] for name in names if name in old}

    def keep_own(self, thread: str, new: Json, *, is_whole: bool = False) -> None:
        known = {} if is_whole else self.guild.own.get((self.app, thread), {})
        self.guild.own[self.app, thread] = known | {name: new[name] for name in THREAD_COUNTS if name in new}

    def counted_thread(self, thread: str) -> Json | None:
        """The object in which this application counts a thread's messages."""
        if self.is_shared and not self.leads(thread)[0]:
            return self.guild.own.get((self.app, thread))
        return self.guild.of["t"].get(thread)

    def stop_sharing(self) -> None:
        guild = self.guild
        for thread in [thread for thread, apps in guild.seen.items() if self.app in apps]:
            self.lose_thread(thread)
        for key, channel in list(guild.of["c"].items()):
            guild.unseen.pop((self.app, key), None)
            shown = [guild.unseen.get((app, key)) for app in self.viewers()]
            if shown and None not in shown and not is_hidden(channel):
                guild.of["c"][key] = shown[-1] or {}
                guild.messages.pop(key, None)
