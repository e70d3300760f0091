"""Why the cache cannot be used, grouped by what to do about it. No message contains a password or a value.

`redis_errors.py` finds them.
"""

from sandwich_coordinator.problems import Code


class CacheError(Exception):
    """The cache cannot be used at the moment. `code`: its problem."""

    code = Code.REDIS_UNUSABLE


class CacheUnavailable(CacheError):
    """Redis does not answer, or not yet. Whether the last call was applied is unknown; it may be sent again."""

    code = Code.REDIS_UNREACHABLE


class CacheReadOnly(CacheError):
    """Redis takes no writes: a replica, or a master whose disk fails or whose replicas are missing. Try again later."""

    code = Code.REDIS_READ_ONLY


class CacheFull(CacheError):
    """Redis has no memory left for this; nothing of the call was applied. Raise maxmemory, or cache less."""

    code = Code.REDIS_FULL


class CacheRefused(CacheError):
    """Redis refuses the user name, the password or a command. An operator must act."""

    code = Code.REDIS_UNAUTHORIZED


class NoSuchDatabase(CacheRefused):
    """Redis has no database of the number in redis.url. An operator must act."""

    code = Code.REDIS_UNUSABLE


class NotRedis(CacheError):
    """The server is not Redis 6.2 or later. An operator must act."""
