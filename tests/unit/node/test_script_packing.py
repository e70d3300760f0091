"""Commands packed with hiredis are the bytes that redis-py's own connections would send."""

from typing import Any

import pytest
import redis.asyncio as redis

from sandwich_node.cache.script_calls import Words, packing_in_c


@pytest.mark.parametrize("kind", [redis.Connection, redis.SSLConnection, redis.UnixDomainSocketConnection])
@pytest.mark.parametrize(
    "words",
    [
        ("PING",),
        ("EVALSHA", "a" * 40, 2, "sw:{ns:1}:guild", "sw:{ns:1}:guild:pending", 0, -1, 2**63 - 1, b"", ""),
        ("SET", "ключ", "schlüssel\u2028\U0001f96a", b"\x00\xff\r\n"),
        ("CLIENT SETINFO", "LIB-NAME", "x"),
        ("SET", "large", b"x" * 100_000),
    ],
)
def test_packed_commands_are_those_of_redis_py(kind: type[redis.Connection], words: Words) -> None:
    ours, theirs = packing_in_c(kind)(), kind()
    assert b"".join(ours.pack_commands([words])) == b"".join(theirs.pack_commands([words]))


def test_a_word_of_another_type_is_refused() -> None:
    word: Any = object()
    with pytest.raises(redis.DataError):
        packing_in_c(redis.Connection)().pack_command("SET", "key", word)
