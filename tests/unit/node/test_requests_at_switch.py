"""Requests while one shard group replaces another, on virtual time: every one is answered, by the group that serves."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from sandwich_node.ipc import AppInfo
from sandwich_node.rpc.server import RpcServer
from sandwich_sdk.wire import subjects
from tests.support.memory_requests import MemoryRequests
from tests.support.two_groups import Group, World, switch
from tests.unit.node.test_group_switch import check, settled
from verification.simulation.loop import run_virtual

SHOWN: dict[str, Any] = {"since": None, "activities": [], "status": "dnd", "afk": False}


class Cluster:
    """A world whose shards take requests; `info` is what the nodes know of the application."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.info = AppInfo()
        self.requests = MemoryRequests(world.tasks)
        self.errors: list[dict[str, Any]] = []
        self.answered = 0
        world.rpc = RpcServer(
            self.requests,
            lambda: {"bot": self.info},
            None,
            world.tasks,
            cluster="one",
            belongs_elsewhere=self._belongs_elsewhere,
        )
        self.serving = world.tasks.create_task(world.rpc.run())

    async def _belongs_elsewhere(self, app: str) -> bool:
        return False

    async def ask(self, verb: str, **fields: Any) -> dict[str, Any]:
        body = json.dumps(fields).encode()
        answer = await self.requests.request(subjects.rpc_subject("bot", verb), body, timeout_s=20, headers={})
        return json.loads(answer.body)  # type: ignore[no-any-return]

    async def keep_asking(self) -> None:
        """A request to Discord about one guild after the other, as a client that retries nothing."""
        while True:
            for guild in self.world.discord.guilds:
                answer = await self.ask("request_sounds", guild_id=str(guild))
                if not answer["ok"]:
                    self.errors.append(answer)
                elif answer["result"]["guild_id"] == str(guild):
                    self.answered += 1

    def follow(self, old: Group, new: Group) -> Callable[[str], None]:
        """What the nodes know before each step of the switch."""

        def step(name: str) -> None:
            if name == "switching":
                self.info = AppInfo(group=new.number, count=new.count)
            elif name != "active":
                self.info = AppInfo(group=old.number, count=old.count, upcoming=(new.number, new.count))

        return step


def play(story: Callable[[Cluster], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.TaskGroup() as tasks:
            cluster = Cluster(World(tasks))
            await story(cluster)
            cluster.serving.cancel()

    run_virtual(run())


def test_every_request_during_a_switch_is_answered() -> None:
    async def story(cluster: Cluster) -> None:
        world = cluster.world
        old = Group(world, 1, 2)
        cluster.info = AppInfo(group=1, count=2)
        await old.serve()
        traffic = world.tasks.create_task(world.discord.traffic(20.0))
        asking = [world.tasks.create_task(cluster.keep_asking()) for _ in range(5)]
        await asyncio.sleep(1)
        new = Group(world, 2, 3, previous=old)
        before = cluster.answered
        await switch(world, old, new, between=cluster.follow(old, new))
        await asyncio.sleep(1)
        for task in (traffic, *asking):
            task.cancel()
        await settled(world, old, new)
        check(world, old, new)
        assert cluster.errors == []
        assert cluster.answered > before > 0
        assert {session.count for session in world.discord.sessions if session.commands.get(31)} == {2, 3}

    play(story)


def test_a_presence_that_a_request_set_holds_for_the_new_groups_sessions() -> None:
    async def story(cluster: Cluster) -> None:
        world = cluster.world
        old = Group(world, 1, 2)
        cluster.info = AppInfo(group=1, count=2)
        await old.serve()
        assert (await cluster.ask("update_presence", status="dnd"))["result"] == {"shards": 2, "failed": {}}
        new = Group(world, 2, 3, previous=old)
        follow = cluster.follow(old, new)
        asked: list[asyncio.Task[dict[str, Any]]] = []

        def step(name: str) -> None:
            follow(name)
            if name == "holding":
                assert [new.session_of(shard).presence for shard in range(3)] == [SHOWN] * 3, "from the first moment"
                asked.append(world.tasks.create_task(cluster.ask("update_presence", status="idle")))

        await switch(world, old, new, between=step)
        assert (await asked[0])["result"] == {"shards": 2, "failed": {}}
        assert [new.session_of(shard).presence for shard in range(3)] == [SHOWN | {"status": "idle"}] * 3
        await settled(world, old, new)

    play(story)


def test_an_own_event_of_the_time_of_the_switch_is_stored_once() -> None:
    async def story(cluster: Cluster) -> None:
        world = cluster.world
        old = Group(world, 1, 2)
        cluster.info = AppInfo(group=1, count=2)
        await old.serve()
        new = Group(world, 2, 3, previous=old)
        relayed: list[asyncio.Task[dict[str, Any]]] = []

        async def relay() -> None:
            for number in range(200):
                fields = {"type": "SONG", "data": {"song": number}, "guild_id": str(world.discord.guilds[number % 5])}
                relayed.append(world.tasks.create_task(cluster.ask("relay", **fields)))
                await asyncio.sleep(0.02)

        sending = world.tasks.create_task(relay())
        await asyncio.sleep(0.5)
        await switch(world, old, new, between=cluster.follow(old, new))
        await sending
        answers = [await one for one in relayed]
        await settled(world, old, new)
        assert all(answer["ok"] for answer in answers), [answer for answer in answers if not answer["ok"]][:3]
        assert sorted(world.songs(old, new)) == list(range(200))
        for shard in range(3):
            kinds = world.kinds(new, shard)
            assert "" not in kinds[: kinds.index("switch")], "not before the old group's events"

    play(story)
