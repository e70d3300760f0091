"""Which error of the cache an exception of redis-py is."""

import os
import re

from redis import exceptions as rx

from sandwich_node.cache.errors import (
    CacheError,
    CacheFull,
    CacheReadOnly,
    CacheRefused,
    CacheUnavailable,
    NoSuchDatabase,
    NotRedis,
)
from sandwich_sdk.cache.errors import tls_trouble

_READ_ONLY = ("READONLY", "MISCONF", "NOREPLICAS")
_BUSY = ("BUSY", "UNKILLABLE")


def classify(error: BaseException) -> CacheError:
    """The CacheError for an exception of redis-py."""
    kind = type(error).__name__
    if trouble := tls_trouble(error):
        return CacheUnavailable(f"TLS with Redis fails: {trouble}")
    match error:
        case CacheError():
            return error
        case rx.AuthenticationError() | rx.AuthenticationWrongNumberOfArgsError() | rx.AuthorizationError():
            return CacheRefused("Redis refuses the user name or password (authorization refused)")
        case rx.NoPermissionError():
            return CacheRefused("Redis refuses a command or key: the user lacks rights that docs/guide/cache.md lists")
        case rx.OutOfMemoryError():
            return CacheFull("Redis is full: it has reached its maxmemory")
        case rx.ReadOnlyError():
            return CacheReadOnly("Redis is read-only: it is a replica")
        case rx.InvalidResponse() | rx.ConnectionError(args=["Connection not ready"]):
            # redis-py: a new connection has unread data, which no request caused.
            return NotRedis("what answers there does not speak Redis's protocol")
        case rx.MovedError() | rx.AskError() | rx.ClusterDownError() | rx.TryAgainError():
            return CacheUnavailable(f"the Redis Cluster cannot serve a slot now ({kind})")
        case rx.ResponseError() if "DB index" in str(error):
            return NoSuchDatabase("Redis has no database of the number in redis.url")
        case rx.ResponseError():
            return _of_response(str(error))
        case rx.RedisError() | rx.RedisClusterException() | OSError() | TimeoutError():
            return CacheUnavailable(f"Redis does not answer ({_why(error)})")
        case _:
            return CacheError(f"the cache failed ({kind})")


def _why(error: BaseException) -> str:
    """The cause and the address. Of redis-py's text only the error number and the address are used."""
    if isinstance(error, rx.TimeoutError | TimeoutError):
        return "no answer in time"
    if found := re.match(r"Error (-?[0-9]{1,4}) connecting to (\S+?)\.\s", f"{error} "):
        number, where = int(found[1]), found[2]
        return f"{os.strerror(number).lower()} at {where}" if number > 0 else f"the name in {where} cannot be resolved"
    return type(error).__name__


def _of_response(text: str) -> CacheError:
    if any(word in text for word in _READ_ONLY):
        return CacheReadOnly("Redis takes no writes now")
    if "OOM" in text:
        return CacheFull("Redis is full: it has reached its maxmemory")
    if text.startswith(_BUSY):
        return CacheUnavailable("Redis is busy with another script")
    if "unknown command" in text:
        return NotRedis("what answers there lacks a command of Redis 6.2")
    return CacheError("Redis reports an error that is not expected here")
