"""The permissions that docs/consumers.md lists are enough."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from sandwich_coordinator.cli import letters as commands
from sandwich_node.dev.embedded import EmbeddedNats
from sandwich_sdk import Consumer, Event, Failure, jetstream
from tests.support.publisher import Publisher, until

pytestmark = pytest.mark.contract
DOCS = Path(__file__).parents[2] / "docs" / "consumers.md"
PARTITIONS = 4


def documented() -> list[str]:
    """Every subject of the permissions section, for application "bot" and group "g"."""
    section = DOCS.read_text().partition("\n## Permissions\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```\n(.*?)```", section, re.DOTALL)
    lines = [line for block in blocks for line in block.split()] + ["sandwich.<app>.workers.<group>"]
    named = [line.replace("<app>", "bot").replace("<group>", "g") for line in lines]
    return [line.replace("<p>", str(p)) for line in named for p in range(PARTITIONS if "<p>" in line else 1)]


class GuardedNats(EmbeddedNats):
    """A server on which user "worker" may do what the docs say, and whoever gives no name everything."""

    def command(self) -> Sequence[str]:
        command = super().command()
        allowed = json.dumps(documented())
        heard = json.dumps(["_INBOX.>", "sandwich.bot.workers.g"])
        with (self.directory / "nats.conf").open("a") as file:
            file.write(
                'no_auth_user: operator\nauthorization { users: [ { user: operator, password: "o" }, '
                f'{{ user: worker, password: "w", permissions: {{ publish: {allowed}, subscribe: {heard} }} }} ] }}\n'
            )
        return command


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedNats]:
    async with GuardedNats(tmp_path / "nats") as server:
        yield server


@pytest.fixture
async def operator(server: EmbeddedNats) -> AsyncIterator[Client]:
    client = await nats.connect(server.url)
    yield client
    await client.close()


async def publish(operator: Client) -> None:
    """Event 1 in two parts, and event 2."""
    publisher = Publisher(operator, shard=1)
    await publisher.make_stream()
    headers, payload = publisher.frame(1)
    for index, piece in enumerate((payload[:40], payload[40:]), start=1):
        await publisher.send({**headers.encode(), "Sandwich-Part": f"{index}/2"}, piece)
    await publisher.events(1)


class Workers:
    """Two workers with the documented permissions; the handler fails for event 1 until it is a dead letter."""

    def __init__(self, url: str, *, ordered: bool) -> None:
        self.seen: list[int] = []
        self.failures: list[Failure] = []
        self.consumers = [self._consumer(url, ordered), self._consumer(url, ordered)]

    def _consumer(self, url: str, ordered: bool) -> Consumer:
        options: dict[str, Any] = {"app": "bot", "group": "g", "start": "all", "max_tries": 2, "nak_delay": 0.01}
        consumer = Consumer(url, ordered=ordered, connection={"user": "worker", "password": "w"}, **options)
        consumer.on_error(self.failures.append)
        consumer.on_any(self._handle)
        return consumer

    async def _handle(self, event: Event) -> None:
        if event.data["n"] == 1 and len(self.failures) < 2:
            raise RuntimeError("twice")
        self.seen.append(event.data["n"])


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_worker_needs_no_more_than_the_docs_say(
    server: EmbeddedNats,
    operator: Client,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    ordered: bool,
) -> None:
    monkeypatch.setattr(jetstream, "REPLAY_LOOK_S", 0.05)
    await publish(operator)
    workers = Workers(server.url, ordered=ordered)
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        for each in workers.consumers:
            tasks.create_task(each.run(handle_signals=False))
        await until(lambda: workers.seen == [2] and len(workers.failures) == 2 and workers.failures[-1].given_up)
        (letter,) = [each async for each in commands.read_letters(operator, "bot", commands.Wanted())]
        assert await commands.open_replays(operator, "bot", "g")
        await commands.replay(operator, letter)
        await until(lambda: workers.seen == [2, 1])
        for each in workers.consumers:
            await each.close()
    assert "ermissions" not in caplog.text
