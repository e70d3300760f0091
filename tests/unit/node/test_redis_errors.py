"""Which error of the cache an exception is: by what an operator has to do, and without what it quotes."""

import pytest
from redis import exceptions as rx

from sandwich_coordinator.problems import Code
from sandwich_node.cache.errors import (
    CacheError,
    CacheFull,
    CacheReadOnly,
    CacheRefused,
    CacheUnavailable,
    NoSuchDatabase,
    NotRedis,
)
from sandwich_node.cache.redis_errors import classify


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (rx.AuthenticationError("WRONGPASS secret"), CacheRefused, Code.REDIS_UNAUTHORIZED),
        (rx.NoPermissionError("secret"), CacheRefused, Code.REDIS_UNAUTHORIZED),
        (rx.OutOfMemoryError("secret"), CacheFull, Code.REDIS_FULL),
        (rx.ResponseError("OOM command not allowed: secret"), CacheFull, Code.REDIS_FULL),
        (rx.ReadOnlyError("secret"), CacheReadOnly, Code.REDIS_READ_ONLY),
        (rx.ResponseError("MISCONF secret"), CacheReadOnly, Code.REDIS_READ_ONLY),
        (rx.ResponseError("NOREPLICAS secret"), CacheReadOnly, Code.REDIS_READ_ONLY),
        (rx.ResponseError("BUSY secret"), CacheUnavailable, Code.REDIS_UNREACHABLE),
        (rx.ClusterDownError("secret"), CacheUnavailable, Code.REDIS_UNREACHABLE),
        (rx.TimeoutError("secret"), CacheUnavailable, Code.REDIS_UNREACHABLE),
        (ConnectionResetError("secret"), CacheUnavailable, Code.REDIS_UNREACHABLE),
        (rx.ResponseError("DB index is out of range"), NoSuchDatabase, Code.REDIS_UNUSABLE),
        (rx.InvalidResponse("secret"), NotRedis, Code.REDIS_UNUSABLE),
        (rx.ResponseError("unknown command 'secret'"), NotRedis, Code.REDIS_UNUSABLE),
        (rx.ResponseError("secret"), CacheError, Code.REDIS_UNUSABLE),
        (RuntimeError("secret"), CacheError, Code.REDIS_UNUSABLE),
    ],
    ids=lambda value: repr(value) if isinstance(value, BaseException) else "",
)
def test_an_exception_is_the_error_that_says_what_to_do(
    error: BaseException, kind: type[CacheError], code: Code
) -> None:
    found = classify(error)
    assert (type(found), found.code) == (kind, code)
    assert "secret" not in str(found)


def test_an_error_of_the_cache_stays_what_it_is() -> None:
    error = CacheFull("full")
    assert classify(error) is error


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Error 111 connecting to 10.0.0.5:6379. Connection refused.", "connection refused at 10.0.0.5:6379"),
        ("Error -2 connecting to redis:6379. Name or service not known.", "the name in redis:6379 cannot be resolved"),
        ("Error while reading: secret", "ConnectionError"),
    ],
)
def test_where_redis_does_not_answer_is_said(text: str, said: str) -> None:
    assert str(classify(rx.ConnectionError(text))) == f"Redis does not answer ({said})"
