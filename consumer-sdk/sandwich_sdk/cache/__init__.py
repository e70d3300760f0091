"""The state of guilds and users, read directly from Redis. Needs `pip install sandwich-sdk[cache]`."""

try:
    import hiredis as _hiredis  # noqa: F401
    import redis as _redis  # noqa: F401
except ImportError as missing:
    raise ImportError("sandwich_sdk.cache needs redis and hiredis: pip install 'sandwich-sdk[cache]'") from missing

from sandwich_sdk.cache.address import Tls
from sandwich_sdk.cache.errors import CacheUnavailable
from sandwich_sdk.cache.objects import (
    Channel,
    Emoji,
    Entity,
    Guild,
    Member,
    Message,
    Presence,
    Role,
    ScheduledEvent,
    Sound,
    Stage,
    Sticker,
    Thread,
    User,
    VoiceState,
)
from sandwich_sdk.cache.permissions import Overwrite, Permissions
from sandwich_sdk.cache.reader import Cache, Location
from sandwich_sdk.cache.search import MemberPage

__all__ = [
    "Cache",
    "CacheUnavailable",
    "Channel",
    "Emoji",
    "Entity",
    "Guild",
    "Location",
    "Member",
    "MemberPage",
    "Message",
    "Overwrite",
    "Permissions",
    "Presence",
    "Role",
    "ScheduledEvent",
    "Sound",
    "Stage",
    "Sticker",
    "Thread",
    "Tls",
    "User",
    "VoiceState",
]
