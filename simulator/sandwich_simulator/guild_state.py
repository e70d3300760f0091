"""The authoritative state of one guild, and what each bot in it has received. No I/O, no randomness.

Collections are keyed by id and hold exactly the JSON that the gateway sends, so a cache can be compared entity by
entity. Data that the gateway sends apart from the object is kept apart here too: thread members, the status of voice
channels, subscribers of scheduled events.
"""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from .entities import PRIVATE_THREAD, Json

CHANGES_KEPT = 2_000
"""For how many messages of a guild the last change is kept: more than the number of kept messages."""


class MessageLog:
    """The latest messages of a guild, at most `kept` for each channel or thread, and their reaction counts."""

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._by_place: dict[str, dict[str, Json]] = {}
        self._reactions: dict[str, Counter[str]] = {}
        self.forgotten: dict[str, str] = {}
        """By place: the latest message that was removed to make room. Others may still have messages up to it."""

    def __len__(self) -> int:
        return sum(map(len, self._by_place.values()))

    def __iter__(self) -> Iterator[Json]:
        return (message for messages in self._by_place.values() for message in messages.values())

    def __reversed__(self) -> Iterator[Json]:
        return (message for messages in self._by_place.values() for message in reversed(messages.values()))

    def put(self, message: Json) -> None:
        """Adds a message, or replaces it by a new version."""
        messages = self._by_place.setdefault(message["channel_id"], {})
        messages[message["id"]] = message
        if len(messages) > self._kept:
            oldest = self.forgotten[message["channel_id"]] = next(iter(messages))
            del messages[oldest]
            self._reactions.pop(oldest, None)

    def of(self, place: str) -> list[Json]:
        """The messages of a channel or thread, oldest first."""
        return list(self._by_place.get(place, {}).values())

    def choose(self, rng: random.Random) -> Json | None:
        """A random message; None when there is none."""
        if not self._by_place:
            return None
        messages = self._by_place[rng.choice(list(self._by_place))]
        return messages[rng.choice(list(messages))]

    def remove(self, message: Json) -> None:
        """Removes a message. KeyError when it does not exist."""
        messages = self._by_place[message["channel_id"]]
        del messages[message["id"]]
        self._reactions.pop(message["id"], None)
        if not messages:
            del self._by_place[message["channel_id"]]

    def drop(self, place: str) -> None:
        """Removes the messages of a channel or thread."""
        self.forgotten.pop(place, None)
        for message_id in self._by_place.pop(place, {}):
            self._reactions.pop(message_id, None)

    def reactions(self, message_id: str) -> Counter[str]:
        """The number of reactions by emoji; the caller may change it in place."""
        return self._reactions.setdefault(message_id, Counter())


@dataclass(slots=True)
class BotView:
    """What one bot sees of the guild, and what it has received."""

    hidden: frozenset[str] = frozenset()
    """Channels that it may not view."""
    stale: set[str] = field(default_factory=set)
    """Channels that it lost silently: in its view they are unchanged."""
    uncertain: set[str] = field(default_factory=set)
    """Channels that it has ever lost silently: its messages and status of them may be out of date."""
    since: dict[str, int] = field(default_factory=dict)
    """By channel or thread: the moment since which it receives the events there; absent: it always has."""
    joined: int = 0
    """The moment at which it was added to the guild."""
    created: int = 0
    """The moment of its last GUILD_CREATE."""


@dataclass(slots=True)
class GuildState:
    """One guild: `base` is the guild object without collections; the rest are maps by id."""

    base: Json
    messages: MessageLog
    obfuscates: bool = True
    roles: dict[str, Json] = field(default_factory=dict)
    emojis: dict[str, Json] = field(default_factory=dict)
    stickers: dict[str, Json] = field(default_factory=dict)
    channels: dict[str, Json] = field(default_factory=dict)
    threads: dict[str, Json] = field(default_factory=dict)
    members: dict[str, Json] = field(default_factory=dict)
    voice_states: dict[str, Json] = field(default_factory=dict)
    presences: dict[str, Json] = field(default_factory=dict)
    events: dict[str, Json] = field(default_factory=dict)
    stages: dict[str, Json] = field(default_factory=dict)
    sounds: dict[str, Json] = field(default_factory=dict)
    invites: dict[str, Json] = field(default_factory=dict)
    vanity_uses: int = 0
    archived: dict[str, Json] = field(default_factory=dict)
    """Archived threads. No bot receives events of them until they are active again."""
    thread_members: dict[str, dict[str, Json]] = field(default_factory=dict)
    """By thread and user, in the form of THREAD_MEMBERS_UPDATE."""
    subscribers: dict[str, set[str]] = field(default_factory=dict)
    """By scheduled event."""
    voice_info: dict[str, Json] = field(default_factory=dict)
    """`status` and `voice_start_time` of voice channels; channel objects do not have them."""
    views: dict[str, BotView] = field(default_factory=dict)
    """By bot; only bots that are in the guild."""
    changes: dict[str, int] = field(default_factory=dict)
    """The moment of the last change of a message (deleted ones too) or of a voice channel's status."""
    unavailable: bool = False

    @property
    def id(self) -> str:
        """The guild's id."""
        return str(self.base["id"])

    def channels_of(self, *kinds: int) -> list[str]:
        """Ids of the channels of these types."""
        return [key for key, channel in self.channels.items() if channel["type"] in kinds]

    def people(self) -> list[str]:
        """Ids of the members that are not bots of this world."""
        return [key for key in self.members if key not in self.views]

    def note_change(self, what: str, moment: int) -> None:
        """Records a change of something that GUILD_CREATE does not repeat."""
        self.changes.pop(what, None)
        self.changes[what] = moment
        if len(self.changes) > CHANGES_KEPT:
            del self.changes[next(iter(self.changes))]

    def sees(self, bot: str, place: str) -> bool:
        """Whether a bot receives the events of a channel or thread. A deleted place hides nothing."""
        hidden = self.views[bot].hidden
        if place in hidden:
            return False
        thread = self.threads.get(place) or self.archived.get(place)
        if thread is None:
            return True
        if thread["parent_id"] in hidden:
            return False
        # Only members see a private thread: MANAGE_THREADS is not simulated.
        return thread["type"] != PRIVATE_THREAD or bot in self.thread_members[place]

    def unseen_by(self, place: str) -> frozenset[str]:
        """The bots that do not receive the events of a channel or thread."""
        return frozenset(bot for bot in self.views if not self.sees(bot, place))

    def as_json(self) -> Json:
        """The whole state, whatever a bot may view."""
        names = (
            *("roles", "emojis", "stickers", "channels", "threads", "members", "voice_states", "presences", "events"),
            *("stages", "sounds", "invites", "archived", "thread_members", "voice_info"),
        )
        return {
            "guild": self.base,
            **{name: getattr(self, name) for name in names},
            "messages": list(self.messages),
            "vanity_uses": self.vanity_uses,
            "unavailable": self.unavailable,
        }
