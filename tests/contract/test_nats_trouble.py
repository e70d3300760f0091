"""A NATS that refuses connections: a node says what was refused, and where."""

import re
from pathlib import Path

import pytest

from sandwich_node import nats_connection
from sandwich_node.dev.embedded import EmbeddedNats
from sandwich_node.nats_connection import NatsConnection, NatsUnreachable
from sandwich_node.nats_options import NatsOptions
from sandwich_node.publishing.jetstream import JetStreamLog
from sandwich_node.publishing.log import Append, LogUnavailable

pytestmark = pytest.mark.contract


async def test_a_server_that_is_not_there_is_said_to_refuse_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_connection, "CONNECT_TIMEOUT_S", 1.0)
    connection = NatsConnection(NatsOptions(servers=("nats://127.0.0.1:9", "nats://127.0.0.1:10")))
    with pytest.raises(NatsUnreachable) as caught:
        await connection.connect()
    assert str(caught.value) == "NATS is not reachable at 127.0.0.1:9, 127.0.0.1:10: Connection refused"
    await connection.close()


async def test_a_server_that_went_away_is_named_by_whatever_needs_it(tmp_path: Path) -> None:
    async with EmbeddedNats(tmp_path) as server:
        log = JetStreamLog(NatsConnection(NatsOptions(servers=(server.url,))))
        await log.connection.connect()
        await log.ensure_stream("bot")
        where = server.url.removeprefix("nats://")
        await server.stop()
        said = set()
        for ask in (
            lambda: log.append(Append("sandwich.bot.all.0.0", b"x", {}, "sandwich.bot.*.0.0", 0)),
            lambda: log.tail("SANDWICH_bot", "sandwich.bot.*.0.0"),
            log.check,
            lambda: log.ensure_stream("other"),
        ):
            with pytest.raises(LogUnavailable) as caught:
                await ask()
            said.add(str(caught.value))
        assert all(where in text for text in said), said
        assert not any(re.search(r"\w+Error\b", text) for text in said), said
        await log.connection.close()
