"""Requests over a real nats-server: which cluster answers, and their limits."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from sandwich_coordinator.ids import ShardId
from sandwich_node.dev.embedded import EmbeddedNats
from sandwich_node.ipc import AppInfo
from sandwich_node.nats_connection import NatsConnection
from sandwich_node.nats_options import NatsOptions
from sandwich_node.publishing.jetstream import JetStreamLog
from sandwich_node.publishing.log import LogUnavailable
from sandwich_node.rpc import admission
from sandwich_node.rpc import server as server_module
from sandwich_node.rpc.nats_requests import NatsRequests
from sandwich_node.rpc.server import RpcServer
from sandwich_node.rpc.shard import ShardGone
from sandwich_sdk.rpc import Rpc
from sandwich_sdk.wire import subjects
from sandwich_sdk.wire.rpc import RpcError

pytestmark = pytest.mark.contract


class Questions:
    """A cluster's cache that returns only the cluster's name. It answers after `gate` is set."""

    def __init__(self, cluster: str) -> None:
        self.cluster = cluster
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def answer(self, app: str, verb: str, body: bytes) -> bytes:
        self.asked += 1
        await self.gate.wait()
        return json.dumps(self.cluster).encode()


class Commands:
    """A shard's commands, which wait for the gate and return the same answer."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.answer = b'{"members":[]}'
        self.asked = 0
        self.has_ended = False
        self.shows: dict[str, Any] | None = None

    async def handle(self, verb: str, body: bytes) -> bytes:
        self.asked += 1
        await self.gate.wait()
        if self.has_ended:
            raise ShardGone
        return self.answer

    def presence(self) -> dict[str, Any] | None:
        return self.shows


class Node:
    """The parts of a cluster's worker that handle requests."""

    def __init__(self, cluster: str, apps: dict[str, AppInfo], client: Client, group: asyncio.TaskGroup) -> None:
        self.apps = apps
        self.cluster = cluster
        self.elsewhere: set[str] = set()
        self.questions = Questions(cluster)
        self._client = client
        given: Any = self.questions
        self.server = RpcServer(
            NatsRequests(client),
            lambda: self.apps,
            given,
            group,
            cluster=cluster,
            belongs_elsewhere=self.belongs_elsewhere,
        )

    async def belongs_elsewhere(self, app: str) -> bool:
        return app in self.elsewhere

    async def add_shard(self, shard: ShardId, commands: Any) -> None:
        """Once this returns, requests of other clients reach the shard."""
        await self.server.add_shard(shard, commands)
        await self._client.flush()


@asynccontextmanager
async def nodes(server: EmbeddedNats, *of: tuple[str, str]) -> AsyncIterator[list[Node]]:
    """Run nodes: (cluster, the names of its applications)."""
    clients = [await nats.connect(server.url) for _ in of]
    async with asyncio.TaskGroup() as group:
        made = [
            Node(cluster, {app: AppInfo(group=1, count=1) for app in apps.split()}, client, group)
            for (cluster, apps), client in zip(of, clients, strict=True)
        ]
        running = [group.create_task(node.server.run()) for node in made]
        await until(lambda: all(node.server._listening.keys() == node.apps.keys() for node in made))
        for client in clients:
            await client.flush()
        yield made
        for task in running:
            task.cancel()
    for client in clients:
        await client.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def ask(client: Client, app: str, verb: str = "fetch_guild", **body: Any) -> dict[str, Any]:
    answer = await client.request(subjects.rpc_subject(app, verb), json.dumps(body).encode(), timeout=30)
    return json.loads(answer.data)  # type: ignore[no-any-return]


async def test_a_cluster_does_not_answer_for_applications_of_others(server: EmbeddedNats) -> None:
    async with (
        nodes(server, ("one", "music chess"), ("one", "music chess"), ("two", "other")) as (a, b, c),
        Rpc(server.url, app="music") as music,
        Rpc(server.url, app="other") as other,
    ):
        answers = [await music.fetch("guild", guild_id="1") for _ in range(60)]
        assert answers == ["one"] * 60
        assert [await other.fetch("guild", guild_id="1") for _ in range(20)] == ["two"] * 20
        assert a.questions.asked + b.questions.asked == 60
        assert min(a.questions.asked, b.questions.asked) > 0
        assert c.questions.asked == 20


async def test_an_application_that_no_cluster_has_is_not_found(server: EmbeddedNats) -> None:
    async with nodes(server, ("one", "music"), ("two", "other")), Rpc(server.url, app="absent") as rpc:
        for asked in (rpc.where_is_guild("1"), rpc.relay("SONG", 1), rpc.update_presence(), rpc.request_members("1")):
            start = time.monotonic()
            with pytest.raises(RpcError, match="'absent'") as caught:
                await asked
            assert caught.value.code == "not_found"
            assert time.monotonic() - start < 5


async def test_a_request_waits_for_a_shard_that_no_node_has_at_this_moment(server: EmbeddedNats) -> None:
    async with nodes(server, ("one", "music")) as (node,), Rpc(server.url, app="music") as rpc:
        asking = asyncio.create_task(rpc.relay("SONG", 1, shard=0))
        done, _ = await asyncio.wait([asking], timeout=1.5)
        assert not done
        commands = Commands()
        commands.answer = b'{"id":"own:1"}'
        commands.gate.set()
        given: Any = commands
        await node.add_shard(ShardId("music", 1, 0), given)
        assert await asking == "own:1"


async def test_a_request_without_a_client_that_retries_does_not_see_the_switch(server: EmbeddedNats) -> None:
    async with nodes(server, ("one", "music"), ("one", "music")) as both:
        client = await nats.connect(server.url)
        # The old shard has ended; the new one is not there yet.
        asking = asyncio.create_task(ask(client, "music", "request_members", guild_id=str(1 << 22)))
        done, _ = await asyncio.wait([asking], timeout=0.5)
        assert not done
        for node in both:
            node.apps = {"music": AppInfo(group=2, count=2)}
        new: Any = running(b'{"members":["new"]}')
        await both[1].add_shard(ShardId("music", 2, 1), new)
        assert (await asking)["result"] == {"members": ["new"]}
        assert new.asked == 1
        await client.close()


async def test_a_request_under_way_in_a_shard_that_ends_is_answered_by_the_one_that_continues(
    server: EmbeddedNats,
) -> None:
    async with nodes(server, ("one", "music"), ("one", "music")) as both:
        client = await nats.connect(server.url)
        old: Any = Commands()
        await both[0].add_shard(ShardId("music", 1, 0), old)
        asking = [
            asyncio.create_task(ask(client, "music", "request_members", guild_id=str(1 << 22))) for _ in range(20)
        ]
        relaying = asyncio.create_task(ask(client, "music", "relay", guild_id=str(1 << 22)))
        await until(lambda: old.asked == 21)
        for node in both:
            node.apps = {"music": AppInfo(group=2, count=2)}
        new: Any = running(b'{"members":["new"]}')
        await both[1].add_shard(ShardId("music", 2, 1), new)
        old.has_ended = True
        await both[0].server.remove_shard(ShardId("music", 1, 0))
        old.gate.set()
        answers = await asyncio.gather(relaying, *asking)
        assert [answer["result"] for answer in answers] == [{"members": ["new"]}] * 21
        assert new.asked == 21
        await client.close()


async def test_requests_that_no_shard_takes_up_end_with_an_error_that_says_to_retry(server: EmbeddedNats) -> None:
    async with nodes(server, ("one", "music")) as (node,):
        client = await nats.connect(server.url)
        ended: Any = running(b"null")
        ended.has_ended = True
        await node.add_shard(ShardId("music", 1, 0), ended)
        answer = await ask(client, "music", "request_members", guild_id="1")
        assert (answer["error"]["code"], answer["error"]["retry_after"]) == ("unavailable", 1.0)
        assert ended.asked == server_module.PASSED_MAX + 1
        node.server.end()
        assert not (await ask(client, "music", "request_members", guild_id="1"))["ok"]
        assert ended.asked == server_module.PASSED_MAX + 2, "a worker that ends passes nothing on"
        await node.server.remove_shard(ShardId("music", 1, 0))
        answer = await ask(client, "music", "request_members", guild_id="1", timeout=0.1)
        assert (answer["error"]["message"], answer["error"]["retry_after"]) == (server_module.NO_OWNER, 0.2)
        await client.close()


async def test_a_presence_for_all_shards_reaches_those_of_the_next_group_too(server: EmbeddedNats) -> None:
    async with nodes(server, ("one", "music"), ("one", "music")) as both:
        client = await nats.connect(server.url)
        for node in both:
            node.apps = {"music": AppInfo(group=1, count=2, upcoming=(2, 3))}
        shards: dict[ShardId, Any] = {}
        for group, count in ((1, 2), (2, 2)):
            for number in range(count):
                shards[ShardId("music", group, number)] = running(b"null")
        for key, commands in shards.items():
            await both[key.shard].add_shard(key, commands)
        answer = await ask(client, "music", "update_presence", status="dnd")
        # The third shard of the next group is not there: that is no failure.
        assert answer["result"] == {"shards": 2, "failed": {}}
        assert [commands.asked for commands in shards.values()] == [1, 1, 1, 1]
        # A shard that ends does not send what is for all of them to all of them again.
        shards[ShardId("music", 1, 0)].has_ended = True
        answer = await ask(client, "music", "update_presence", status="idle")
        assert answer["result"] == {"shards": 1, "failed": {"0": "the shard moves to another node at this moment"}}
        assert [commands.asked for commands in shards.values()] == [2, 2, 2, 2]
        await client.close()


async def test_a_presence_for_all_shards_goes_to_the_group_that_serves_afterwards(server: EmbeddedNats) -> None:
    async with nodes(server, ("one", "music")) as (node,):
        client = await nats.connect(server.url)
        old: Any = Commands()
        new: Any = running(b"null")
        await node.add_shard(ShardId("music", 1, 0), old)
        await node.add_shard(ShardId("music", 2, 0), new)
        asking = asyncio.create_task(ask(client, "music", "update_presence", status="dnd"))
        await until(lambda: old.asked)
        node.apps = {"music": AppInfo(group=2, count=1)}
        old.has_ended = True
        old.gate.set()
        assert (await asking)["result"] == {"shards": 1, "failed": {}}
        assert new.asked == 1
        await client.close()


async def test_a_shard_asks_another_one_for_the_presence_that_the_bot_shows(server: EmbeddedNats) -> None:
    async with nodes(server, ("one", "music"), ("one", "music")) as (a, b):
        shown: dict[str, Any] = {"status": "dnd", "activities": [], "since": None, "afk": False}
        old: Any = running(b"null")
        await a.add_shard(ShardId("music", 1, 0), old)
        assert await b.server.presence_of(ShardId("music", 1, 0)) is None
        old.shows = shown
        assert await b.server.presence_of(ShardId("music", 1, 0)) == shown
        assert await b.server.presence_of(ShardId("music", 1, 1)) is None
        assert old.asked == 0


def running(answer: bytes) -> Commands:
    """A shard that answers at once."""
    made = Commands()
    made.answer = answer
    made.gate.set()
    return made


async def test_added_and_removed_applications_are_served_accordingly(server: EmbeddedNats) -> None:
    async with nodes(server, ("one", "music")) as (node,), Rpc(server.url, app="late") as rpc:
        asking = asyncio.create_task(rpc.fetch("guild", guild_id="1"))
        node.apps = {"late": AppInfo(group=1, count=1)}
        node.server.apps_changed()
        assert await asking == "one"
        assert node.server._listening.keys() == {"late"}


async def test_of_two_clusters_with_an_application_of_the_same_name_the_one_that_has_its_stream_answers(
    server: EmbeddedNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = [JetStreamLog(NatsConnection(NatsOptions(servers=(server.url,))), cluster=name) for name in ("one", "two")]
    for log in logs:
        await log.connection.connect()
    first, second = logs
    await first.ensure_stream("music")
    await first.ensure_stream("music")
    with pytest.raises(LogUnavailable, match="belongs to cluster 'one'"):
        await second.ensure_stream("music")
    assert not await first.belongs_elsewhere("music")
    assert await second.belongs_elsewhere("music")
    assert not await second.belongs_elsewhere("chess")
    async with nodes(server, ("one", "music")) as (one,), asyncio.TaskGroup() as group:
        two = Node("two", {"music": AppInfo(group=1, count=1)}, second.connection.client, group)
        two.server._belongs_elsewhere = second.belongs_elsewhere
        assert await two.server._follow()
        async with Rpc(server.url, app="music") as rpc:
            assert [await rpc.fetch("guild", guild_id="1") for _ in range(20)] == ["one"] * 20
        assert (one.questions.asked, two.questions.asked) == (20, 0)
    for log in logs:
        await log.connection.close()


async def test_a_stream_from_before_gets_the_name_of_its_cluster(server: EmbeddedNats) -> None:
    old = JetStreamLog(NatsConnection(NatsOptions(servers=(server.url,))))
    await old.connection.connect()
    await old.ensure_stream("music")
    new = JetStreamLog(NatsConnection(NatsOptions(servers=(server.url,))), cluster="one")
    await new.connection.connect()
    await new.ensure_stream("music")
    info = await old.connection.client.jetstream().stream_info("SANDWICH_music")
    assert info.config.metadata is not None
    assert info.config.metadata["sandwich.cluster"] == "one"
    assert "sandwich.made_by" in info.config.metadata
    for log in (old, new):
        await log.connection.close()


async def test_a_burst_above_the_limit_is_refused_at_once_only_above_it(server: EmbeddedNats) -> None:
    async with nodes(server, ("one", "music chess")) as (node,):
        client = await nats.connect(server.url)
        node.questions.gate.clear()
        asked = [asyncio.create_task(ask(client, "music")) for _ in range(admission.AT_ONCE_MAX + 500)]
        await until(lambda: sum(task.done() for task in asked) == 500)
        refused = [task.result() for task in asked if task.done()]
        assert {(one["ok"], one["error"]["code"]) for one in refused} == {(False, "limited")}
        assert all("busy" in one["error"]["message"] and one["error"]["retry_after"] for one in refused)
        assert node.questions.asked == admission.AT_ONCE_MAX
        # Another application is not affected.
        other = asyncio.create_task(ask(client, "chess"))
        await until(lambda: node.questions.asked == admission.AT_ONCE_MAX + 1)
        node.questions.gate.set()
        answers = await asyncio.gather(other, *asked)
        assert sum(one["ok"] for one in answers) == admission.AT_ONCE_MAX + 1
        assert (await ask(client, "music"))["ok"]
        await client.close()


async def test_identical_requests_do_not_use_up_the_limit_of_others(server: EmbeddedNats) -> None:
    async with nodes(server, ("one", "music")) as (node,):
        client = await nats.connect(server.url)
        commands = Commands()
        commands.answer = b'{"members":[%b]}' % b",".join(b'{"user":{"id":"%d"}}' % n for n in range(20_000))
        given: Any = commands
        await node.add_shard(ShardId("music", 1, 0), given)
        many = admission.AT_ONCE_MAX * 2
        asked = [asyncio.create_task(ask_members(client, "81384788765712384")) for _ in range(many)]
        await until(lambda: commands.asked == many)
        # The next request is a different one.
        other = asyncio.create_task(ask_members(client, "81384788765712385"))
        await until(lambda: commands.asked == many + 1)
        commands.gate.set()
        assert await other > 0
        assert len(set(await asyncio.gather(*asked))) == 1
        await client.close()


async def ask_members(client: Client, guild: str) -> int:
    """The size of the answer's first part in bytes."""
    body = json.dumps({"guild_id": guild, "query": ""}).encode()
    answer = await client.request(subjects.rpc_subject("music", "request_members"), body, timeout=60)
    assert b'"ok":false' not in answer.data
    return len(answer.data)
