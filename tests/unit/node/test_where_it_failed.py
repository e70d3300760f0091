"""A node that cannot listen, or cannot reach what it needs, says what was refused, where, and what to do."""

import os
import socket

import pytest
import redis.asyncio as redis
from aiohttp import web

from sandwich_coordinator.addresses import Address
from sandwich_coordinator.store.base import KeyValue
from sandwich_node.agent.membership import _taken
from sandwich_node.cache.redis_errors import classify
from sandwich_node.http.app import HttpError, serve


async def refusal(host: str, port: int) -> str:
    with pytest.raises(HttpError) as caught:
        async with serve(web.Application(), Address(host, port)):
            pass
    return str(caught.value)


async def test_a_second_node_on_one_machine_is_pointed_to_listen() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = await refusal("127.0.0.1", port)
    assert said.startswith(f"cannot listen on 127.0.0.1:{port}: the address is in use: another node on this machine?")
    assert "--node-id" in said
    assert "--listen" in said
    assert "--listen" in _taken("a", KeyValue("k", b"{", 1, 1, 1, 1))


@pytest.mark.parametrize(("host", "reason"), [("192.0.2.1", os.strerror(99)), ("no-such-host.invalid", "not known")])
async def test_an_address_that_is_not_ours_is_said_with_the_option(host: str, reason: str) -> None:
    said = await refusal(host, 0)
    assert said.startswith(f"cannot listen on {host}:0: ")
    assert reason in said
    assert "--listen" in said


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://127.0.0.1:9/0", "Redis does not answer (connection refused at 127.0.0.1:9)"),
        ("redis://[::1]:9/0", "at ::1:9)"),
        ("unix:///no/such.sock", "Redis does not answer (no such file or directory at /no/such.sock)"),
        ("redis://no-such-host.invalid/0", "Redis does not answer (the name in no-such-host.invalid:6379 cannot be"),
    ],
)
async def test_a_redis_that_is_not_there_is_said_with_its_address(url: str, said: str) -> None:
    client = redis.Redis.from_url(url, retry=None)
    with pytest.raises(redis.RedisError) as caught:
        await client.ping()
    assert said in str(classify(caught.value))
    assert str(classify(redis.TimeoutError("x"))) == "Redis does not answer (no answer in time)"
    await client.aclose()
