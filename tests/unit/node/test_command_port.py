"""Where requests reach a shard: the presence that it starts with, and what it takes before it serves."""

import asyncio
import random
from typing import Any

import pytest

from sandwich_coordinator.ids import ShardId
from sandwich_coordinator.types import CacheSpec, EventsSpec, InvitesSpec
from sandwich_node import ipc
from sandwich_node.rpc.shard import ShardGone
from sandwich_node.shards.command_port import CommandPort
from sandwich_node.shards.services import WorkerServices
from verification.simulation.loop import run_virtual

CONFIGURED: dict[str, Any] = {"status": "online", "activities": [], "since": None, "afk": False}
SHOWN = CONFIGURED | {"status": "dnd"}


class Rpc:
    """Knows the presence of some shards; remembers which were asked for it, and which are served."""

    def __init__(self, shows: dict[ShardId, dict[str, Any]]) -> None:
        self.shows = shows
        self.asked: list[ShardId] = []
        self.served: list[ShardId] = []

    async def presence_of(self, key: ShardId) -> dict[str, Any] | None:
        self.asked.append(key)
        return self.shows.get(key)

    async def add_shard(self, key: ShardId, commands: Any) -> None:
        self.served.append(key)


def port(rpc: Rpc | None, previous: ipc.PreviousGroup | None) -> CommandPort:
    start = ipc.StartShard(
        key=ShardId("bot", 2, 4),
        run=1,
        fence=1,
        count=6,
        route="bot",
        bot="9",
        token="t",
        token_hash="h",
        gateway_url="wss://gateway.discord.gg",
        intents=1,
        compression="none",
        large_threshold=50,
        presence=CONFIGURED,
        session=None,
        stream_max_age_s=0.0,
        stream_max_bytes=0,
        stream_replicas=1,
        options=ipc.ShardOptions(cache=CacheSpec(), events=EventsSpec(), invites=InvitesSpec()),
        previous=previous,
    )
    given: Any = rpc
    none: Any = None
    services = WorkerServices(
        log=none,
        previous=none,
        http=none,
        send=lambda message: None,
        rng=random.Random(1),
        clock=lambda: 0.0,
        wall=lambda: 0.0,
        rpc=given,
    )
    return CommandPort(start, services, none, bot=lambda: "9", lane=lambda name: None)


def test_a_new_groups_session_starts_with_the_presence_that_the_bot_shows() -> None:
    def first(rpc: Rpc | None, previous: ipc.PreviousGroup | None) -> dict[str, Any] | None:
        return run_virtual(port(rpc, previous).first_presence())

    old = ipc.PreviousGroup(group=1, count=4, ids="0-3")
    knows = Rpc({ShardId("bot", 1, 0): SHOWN})
    assert first(knows, old) == SHOWN
    assert knows.asked == [ShardId("bot", 1, 0)]
    partly = Rpc({ShardId("bot", 1, 2): SHOWN})
    assert first(partly, ipc.PreviousGroup(group=1, count=4, ids="1-3")) == SHOWN
    assert first(Rpc({}), old) == CONFIGURED
    assert first(knows, None) == CONFIGURED
    assert first(knows, ipc.PreviousGroup(group=1, count=4, ids="1,3")) == CONFIGURED
    assert first(None, old) == CONFIGURED


def test_a_withheld_shard_is_reached_and_a_request_waits_for_its_release() -> None:
    async def story() -> None:
        rpc = Rpc({})
        made = port(rpc, None)
        await made.open(withheld=True)
        assert rpc.served == [ShardId("bot", 2, 4)]
        asking = asyncio.create_task(made.commands.handle("relay", b'{"type":"SONG"}'))
        await asyncio.sleep(5.0)
        assert not asking.done()
        made.release()
        # No connection is attached: the shard ends here.
        with pytest.raises(ShardGone):
            await asking
        assert made.commands.presence() is None

    run_virtual(story())
