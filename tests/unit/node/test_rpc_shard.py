"""Commands of a shard and the dispatches that answer them. Virtual time."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sandwich_coordinator.intents import ALL
from sandwich_node.cache.errors import CacheUnavailable
from sandwich_node.publishing.own_events import OwnEvent
from sandwich_node.rpc.shard import RELEASE_WAIT_S, Leaving, ShardCommands, ShardGone
from sandwich_sdk.wire.rpc import RpcError
from verification.simulation.loop import run_virtual

GUILD = "81384788765712384"


class Discord:
    """What was sent to Discord; tests dispatch the answers."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, dict[str, Any]]] = []
        self.refuse = ""
        self.leaves = False
        self.turn_s = 0.0
        self.away = False
        self.grew = asyncio.Event()

    def send(self, op: int, data: dict[str, Any]) -> None:
        if self.leaves:
            raise Leaving
        if self.refuse:
            raise ValueError(self.refuse)
        self.sent.append((op, data))
        self.grew.set()

    async def take_turn(self, namespace: str, app: str, guild: str, every_s: float) -> float:
        if self.away:
            raise CacheUnavailable("Redis does not answer")
        turn_s, self.turn_s = self.turn_s, 0.0
        return turn_s


def play(story: Callable[[ShardCommands, Discord], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        discord = Discord()

        async def relay(event: OwnEvent) -> str:
            return "own:1"

        commands = ShardCommands(
            app="bot",
            namespace="bot",
            intents=ALL,
            bot=lambda: "9",
            send=discord.send,
            relay=relay,
            presence=lambda: None,
            cache=discord,  # type: ignore[arg-type]
            rng=random.Random(1),
            clock=asyncio.get_running_loop().time,
        )
        try:
            return await story(commands, discord)
        finally:
            await commands.close()

    return run_virtual(main())


def ask(commands: ShardCommands, verb: str, **fields: Any) -> "asyncio.Task[bytes]":
    return asyncio.create_task(commands.handle(verb, json.dumps({"guild_id": GUILD, **fields}).encode()))


async def sent(discord: Discord, number: int) -> dict[str, Any]:
    while len(discord.sent) < number:
        discord.grew.clear()
        await discord.grew.wait()
    return discord.sent[number - 1][1]


def chunk(nonce: str, index: int, count: int, *users: str) -> bytes:
    members = [{"user": {"id": user}} for user in users]
    made = {"guild_id": GUILD, "members": members, "chunk_index": index, "chunk_count": count, "nonce": nonce}
    return json.dumps(made).encode()


def test_chunks_are_put_together_whatever_their_order() -> None:
    async def story(commands: ShardCommands, discord: Discord) -> None:
        asking = ask(commands, "request_members", query="")
        nonce = (await sent(discord, 1))["nonce"]
        assert len(nonce.encode()) <= 32
        commands.observe("GUILD_MEMBERS_CHUNK", chunk("another", 0, 1, "7"))
        commands.observe("GUILD_MEMBERS_CHUNK", chunk(nonce, 1, 2, "2"))
        commands.observe("GUILD_MEMBERS_CHUNK", chunk(nonce, 1, 2, "2"))
        commands.observe("GUILD_MEMBERS_CHUNK", chunk(nonce, 0, 2, "1"))
        result = json.loads(await asking)
        assert [member["user"]["id"] for member in result["members"]] == ["1", "2"]
        assert result["count"] == 2
        assert not commands.is_waiting

    play(story)


def test_equal_requests_under_way_are_asked_once_and_one_who_gives_up_does_not_take_the_others_along() -> None:
    async def story(commands: ShardCommands, discord: Discord) -> None:
        impatient = ask(commands, "request_members", query="a", limit=5, timeout=1.0)
        patient = ask(commands, "request_members", query="a", limit=5, timeout=9.0)
        other = ask(commands, "request_members", query="b", limit=5, timeout=9.0)
        nonce = (await sent(discord, 2))["nonce"], discord.sent[0][1]["nonce"]
        with pytest.raises(RpcError, match="within 1 s"):
            await impatient
        for one in nonce:
            commands.observe("GUILD_MEMBERS_CHUNK", chunk(one, 0, 1, "1"))
        assert json.loads(await patient)["count"] == 1
        assert json.loads(await other)["count"] == 1
        assert len(discord.sent) == 2

    play(story)


def test_a_whole_list_is_asked_for_once_in_30_s_also_when_another_node_asked() -> None:
    async def story(commands: ShardCommands, discord: Discord) -> None:
        clock = asyncio.get_running_loop().time
        discord.turn_s = 12.0
        first = ask(commands, "request_members", query="", timeout=60.0)
        nonce = (await sent(discord, 1))["nonce"]
        assert clock() >= 12.0
        commands.observe("GUILD_MEMBERS_CHUNK", chunk(nonce, 0, 1))
        await first
        asked_at = clock()
        discord.away = True
        second = ask(commands, "request_members", query="", timeout=60.0)
        nonce = (await sent(discord, 2))["nonce"]
        assert clock() - asked_at >= 29.9, "without Redis the node remembers by itself"
        commands.observe("GUILD_MEMBERS_CHUNK", chunk(nonce, 0, 1))
        await second

    play(story)


def test_a_request_that_discord_limits_is_sent_again_later() -> None:
    async def story(commands: ShardCommands, discord: Discord) -> None:
        clock = asyncio.get_running_loop().time
        asking = ask(commands, "request_members", query="a", limit=1)
        nonce = (await sent(discord, 1))["nonce"]
        limited = {"opcode": 8, "retry_after": 7.5, "meta": {"guild_id": GUILD, "nonce": nonce}}
        limited_at = clock()
        commands.observe("RATE_LIMITED", json.dumps(limited).encode())
        again = (await sent(discord, 2))["nonce"]
        assert clock() - limited_at >= 7.5
        assert again != nonce
        commands.observe("GUILD_MEMBERS_CHUNK", chunk(again, 0, 1, "1"))
        assert json.loads(await asking)["count"] == 1

    play(story)


def test_a_new_session_is_asked_again() -> None:
    async def story(commands: ShardCommands, discord: Discord) -> None:
        asking = ask(commands, "request_members", query="a", limit=1)
        nonce = (await sent(discord, 1))["nonce"]
        commands.observe("GUILD_MEMBERS_CHUNK", chunk(nonce, 0, 2, "1"))
        commands.session_began()
        again = (await sent(discord, 2))["nonce"]
        commands.observe("GUILD_MEMBERS_CHUNK", chunk(again, 0, 1, "5"))
        assert json.loads(await asking)["members"] == [{"user": {"id": "5"}}]

    play(story)


def test_joining_voice_is_answered_with_both_events_and_leaving_with_one() -> None:
    async def story(commands: ShardCommands, discord: Discord) -> None:
        joining = ask(commands, "update_voice_state", channel_id="21")
        await sent(discord, 1)
        other = {"guild_id": GUILD, "user_id": "8", "channel_id": "21"}
        commands.observe("VOICE_STATE_UPDATE", json.dumps(other).encode())
        commands.observe("VOICE_SERVER_UPDATE", json.dumps({"guild_id": GUILD, "token": "t"}).encode())
        assert not joining.done()
        mine = other | {"user_id": "9", "session_id": "s"}
        commands.observe("VOICE_STATE_UPDATE", json.dumps(mine).encode())
        assert json.loads(await joining) == {"state": mine, "server": {"guild_id": GUILD, "token": "t"}}
        leaving = ask(commands, "update_voice_state", channel_id=None)
        await sent(discord, 2)
        commands.observe("VOICE_STATE_UPDATE", json.dumps(mine | {"channel_id": None}).encode())
        assert json.loads(await leaving)["server"] is None

    play(story)


def test_silence_ends_in_an_error_and_a_refusal_is_reported_at_once() -> None:
    async def story(commands: ShardCommands, discord: Discord) -> None:
        with pytest.raises(RpcError, match="the channel is full or gone") as caught:
            await ask(commands, "update_voice_state", channel_id="21", timeout=2.0)
        assert caught.value.code == "timeout"
        discord.refuse = "256 commands are waiting already"
        with pytest.raises(RpcError, match="256 commands") as caught:
            await ask(commands, "request_sounds")
        assert caught.value.code == "refused"
        assert not commands.is_waiting

    play(story)


def test_requests_that_wait_for_discord_end_with_the_shard_as_not_acted_on() -> None:
    async def story(commands: ShardCommands, discord: Discord) -> None:
        asked = [
            ask(commands, "request_members", query="a", limit=10),
            ask(commands, "request_sounds"),
            ask(commands, "update_voice_state", channel_id="5"),
        ]
        await sent(discord, 3)
        await commands.close()
        for each in asked:
            with pytest.raises(ShardGone) as ended:
                await each
            assert (ended.value.code, ended.value.retry_after) == ("unavailable", 1.0)

    play(story)


def test_a_command_that_a_leaving_shard_does_not_take_is_not_refused_by_discord() -> None:
    async def story(commands: ShardCommands, discord: Discord) -> None:
        discord.leaves = True
        for verb, fields in (("request_members", {"query": "a", "limit": 10}), ("request_sounds", {})):
            with pytest.raises(ShardGone):
                await ask(commands, verb, **fields)
        with pytest.raises(ShardGone):
            await commands.handle("update_presence", b"{}")

    play(story)


def test_before_the_switch_only_a_presence_is_set_and_other_requests_wait_for_it() -> None:
    async def story(commands: ShardCommands, discord: Discord) -> None:
        commands.withhold()
        assert await commands.handle("update_presence", b"{}") == b"null"
        asking = ask(commands, "request_sounds")
        await asyncio.sleep(RELEASE_WAIT_S - 1.0)
        assert len(discord.sent) == 1
        commands.release()
        await sent(discord, 2)
        commands.observe("SOUNDBOARD_SOUNDS", json.dumps({"guild_id": GUILD, "soundboard_sounds": []}).encode())
        assert json.loads(await asking)["guild_id"] == GUILD

    play(story)


def test_a_request_waits_for_the_switch_for_a_bounded_time_and_not_beyond_the_shards_end() -> None:
    async def story(commands: ShardCommands, discord: Discord) -> None:
        commands.withhold()
        with pytest.raises(ShardGone):
            await ask(commands, "relay", type="SONG")
        asking = ask(commands, "request_sounds")
        await asyncio.sleep(0.1)
        await commands.close()
        with pytest.raises(ShardGone):
            await asking
        assert discord.sent == []

    play(story)
