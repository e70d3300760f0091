"""The cached objects. Pure.

Each is a read-only mapping of Discord's JSON (`channel["topic"]`, `channel.get("rtc_region")`, `channel.raw`) with
typed attributes for the common fields, named as Discord names them. An attribute is None (or empty, 0, False) when its
field is missing, null or of another type than Discord documents: what Discord adds or changes later breaks no reader.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Generic, Self, TypeVar, overload

import msgspec

from sandwich_sdk.cache.permissions import ROLE, Overwrite, Permissions
from sandwich_sdk.wire.headers import UNREADABLE

T = TypeVar("T")
CHANNEL_OBFUSCATED = 1 << 17
PRIVATE_THREAD = 12
PERMISSION_DIGITS_MAX = 100


def _id(value: object) -> str:
    return value if isinstance(value, str) else ""


def _id_or_none(value: object) -> str | None:
    return _id(value) or None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _count(value: object) -> int:
    return _number(value) or 0


def _amount(value: object) -> float | None:
    try:
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    except OverflowError:
        return None


def _flag(value: object) -> bool:
    return value is True


def _texts(value: object) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def _objects(value: object) -> tuple[dict[str, Any], ...]:
    return tuple(item for item in value if isinstance(item, dict)) if isinstance(value, list) else ()


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _moment(value: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    # A time without a zone cannot be compared with one that has a zone.
    return moment if moment is not None and moment.tzinfo is not None else None


def _bits(value: object) -> int:
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= PERMISSION_DIGITS_MAX:
        return int(value)
    return max(_count(value), 0)


def _permissions(value: object) -> Permissions:
    return Permissions(_bits(value))


def _overwrites(value: object) -> tuple[Overwrite, ...]:
    return tuple(
        Overwrite(_id(one.get("id")), kind, _bits(one.get("allow")), _bits(one.get("deny")))
        for one in _objects(value)
        if (kind := _number(one.get("type", ROLE))) is not None
    )


class Field(Generic[T]):
    """A typed attribute: `read` makes its value of the JSON field of the same name."""

    __slots__ = ("_name", "_read")

    def __init__(self, read: Callable[[object], T]) -> None:
        self._read = read

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, entity: None, owner: type) -> Self: ...

    @overload
    def __get__(self, entity: "Entity", owner: type) -> T: ...

    def __get__(self, entity: "Entity | None", owner: type) -> "Self | T":
        return self if entity is None else self._read(entity.raw.get(self._name))


class Entity(Mapping[str, Any]):
    """Base of all: Discord's object in `raw`."""

    __slots__ = ("raw",)

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw

    def __getitem__(self, key: str) -> Any:
        return self.raw[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.raw)

    def __len__(self) -> int:
        return len(self.raw)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.raw.get('id') or self.raw.get('user_id') or ''})"


def read_object(value: bytes) -> dict[str, Any]:
    """A JSON object. Raises ValueError when it is not one."""
    try:
        raw = msgspec.json.decode(value)
    except UNREADABLE:
        raw = None
    if not isinstance(raw, dict):
        raise ValueError("not a JSON object")
    return raw


class User(Entity):
    """A user."""

    __slots__ = ()
    id = Field(_id)
    username = Field(_text)
    global_name = Field(_text)
    avatar = Field(_text)
    bot = Field(_flag)
    public_flags = Field(_count)

    @property
    def display_name(self) -> str:
        """The name that Discord shows outside of guilds; "" if unknown."""
        return self.global_name or self.username or ""


class Guild(Entity):
    """A guild without its collections. While it is `unavailable` (an outage) the rest is as it was before."""

    __slots__ = ()
    id = Field(_id)
    name = Field(_text)
    owner_id = Field(_id_or_none)
    icon = Field(_text)
    description = Field(_text)
    features = Field(_texts)
    member_count = Field(_number)
    large = Field(_flag)
    unavailable = Field(_flag)
    joined_at = Field(_moment)
    vanity_url_code = Field(_text)
    preferred_locale = Field(_text)
    premium_tier = Field(_count)
    system_channel_id = Field(_id_or_none)
    rules_channel_id = Field(_id_or_none)
    afk_channel_id = Field(_id_or_none)


class Channel(Entity):
    """A channel or a category of a guild."""

    __slots__ = ()
    id = Field(_id)
    guild_id = Field(_id_or_none)
    type = Field(_number)
    name = Field(_text)
    position = Field(_count)
    parent_id = Field(_id_or_none)
    topic = Field(_text)
    nsfw = Field(_flag)
    flags = Field(_count)
    rate_limit_per_user = Field(_count)
    last_message_id = Field(_id_or_none)
    permission_overwrites = Field(_overwrites)
    status = Field(_text)

    @property
    def is_obfuscated(self) -> bool:
        """Whether the bot cannot see it: Discord sent neither its name nor its overwrites."""
        return bool(self.flags & CHANNEL_OBFUSCATED)


class Thread(Channel):
    """An active thread."""

    __slots__ = ()
    owner_id = Field(_id_or_none)
    member_count = Field(_number)
    message_count = Field(_number)

    @property
    def archived(self) -> bool:
        """Whether it is archived; archived threads do not stay in the cache."""
        return _flag(_object(self.raw.get("thread_metadata")).get("archived"))

    @property
    def locked(self) -> bool:
        """Whether only moderators may unarchive it."""
        return _flag(_object(self.raw.get("thread_metadata")).get("locked"))

    @property
    def is_private(self) -> bool:
        """Whether only invited members, and those with MANAGE_THREADS, see it."""
        return self.type == PRIVATE_THREAD


class Role(Entity):
    """A role; @everyone has the guild's id."""

    __slots__ = ()
    id = Field(_id)
    name = Field(_text)
    permissions = Field(_permissions)
    position = Field(_count)
    color = Field(_count)
    hoist = Field(_flag)
    managed = Field(_flag)
    mentionable = Field(_flag)


class Emoji(Entity):
    """A guild's emoji; `roles` are those who may use it, empty for all."""

    __slots__ = ()
    id = Field(_id)
    name = Field(_text)
    roles = Field(_texts)
    animated = Field(_flag)
    available = Field(_flag)
    managed = Field(_flag)


class Sticker(Entity):
    """A guild's sticker."""

    __slots__ = ()
    id = Field(_id)
    name = Field(_text)
    description = Field(_text)
    tags = Field(_text)
    format_type = Field(_number)
    available = Field(_flag)


class Member(Entity):
    """A member of the guild `guild_id`. `raw["user"]` is the whole user when the cache has it, else only its id."""

    __slots__ = ("guild_id",)
    nick = Field(_text)
    avatar = Field(_text)
    roles = Field(_texts)
    joined_at = Field(_moment)
    premium_since = Field(_moment)
    pending = Field(_flag)
    deaf = Field(_flag)
    mute = Field(_flag)
    flags = Field(_count)
    communication_disabled_until = Field(_moment)

    def __init__(self, raw: dict[str, Any], guild_id: str = "") -> None:
        super().__init__(raw)
        self.guild_id = guild_id

    @property
    def user_id(self) -> str:
        """The user's id."""
        return _id(_object(self.raw.get("user")).get("id"))

    @property
    def user(self) -> User | None:
        """The user, None when the cache has only the id."""
        raw = _object(self.raw.get("user"))
        return User(raw) if "username" in raw else None

    @property
    def display_name(self) -> str:
        """The name that Discord shows in this guild; "" if unknown."""
        user = self.user
        return self.nick or (user.display_name if user else "")

    def __repr__(self) -> str:
        return f"Member({self.user_id}, guild_id={self.guild_id})"


class VoiceState(Entity):
    """A user in a voice or stage channel."""

    __slots__ = ()
    guild_id = Field(_id_or_none)
    channel_id = Field(_id_or_none)
    user_id = Field(_id)
    session_id = Field(_text)
    deaf = Field(_flag)
    mute = Field(_flag)
    self_deaf = Field(_flag)
    self_mute = Field(_flag)
    self_stream = Field(_flag)
    self_video = Field(_flag)
    suppress = Field(_flag)
    request_to_speak_timestamp = Field(_moment)


class Presence(Entity):
    """The status and activities of a member. Offline members have none."""

    __slots__ = ()
    status = Field(_text)
    activities = Field(_objects)
    client_status = Field(_object)

    @property
    def user_id(self) -> str:
        """The user's id."""
        return _id(_object(self.raw.get("user")).get("id"))

    def __repr__(self) -> str:
        return f"Presence({self.user_id}, {self.status})"


class ScheduledEvent(Entity):
    """A guild's scheduled event. `status`: 1 scheduled, 2 active, 3 completed, 4 cancelled."""

    __slots__ = ()
    id = Field(_id)
    guild_id = Field(_id_or_none)
    channel_id = Field(_id_or_none)
    creator_id = Field(_id_or_none)
    name = Field(_text)
    description = Field(_text)
    scheduled_start_time = Field(_moment)
    scheduled_end_time = Field(_moment)
    status = Field(_number)
    entity_type = Field(_number)
    user_count = Field(_number)


class Stage(Entity):
    """A stage that is live."""

    __slots__ = ()
    id = Field(_id)
    guild_id = Field(_id_or_none)
    channel_id = Field(_id_or_none)
    topic = Field(_text)
    privacy_level = Field(_number)
    guild_scheduled_event_id = Field(_id_or_none)


class Sound(Entity):
    """A sound of the guild's soundboard."""

    __slots__ = ()
    sound_id = Field(_id)
    name = Field(_text)
    volume = Field(_amount)
    emoji_id = Field(_id_or_none)
    emoji_name = Field(_text)
    available = Field(_flag)

    def __repr__(self) -> str:
        return f"Sound({self.sound_id})"


class Message(Entity):
    """A message of a guild. `content` is empty without the MESSAGE_CONTENT intent."""

    __slots__ = ()
    id = Field(_id)
    channel_id = Field(_id_or_none)
    guild_id = Field(_id_or_none)
    type = Field(_number)
    content = Field(_text)
    timestamp = Field(_moment)
    edited_timestamp = Field(_moment)
    webhook_id = Field(_id_or_none)
    pinned = Field(_flag)
    flags = Field(_count)

    @property
    def author(self) -> User | None:
        """The author; for a webhook it is not a real user."""
        raw = _object(self.raw.get("author"))
        return User(raw) if raw else None
