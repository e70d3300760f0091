"""Every command says and does the same with etcd and with `--api`."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest
import redis.asyncio as redis

from sandwich_node.dev.embedded import EmbeddedNats, EmbeddedRedis
from sandwich_sdk.cache.testing import guild_layout
from sandwich_sdk.streams import keep_streams
from sandwich_sdk.wire import subjects
from sandwich_sdk.wire.dead import MESSAGE_ID, DeadLetter
from sandwich_simulator import BotConfig
from sandwich_simulator.pytest_plugin import MakeSimulator, make_simulator
from tests.support.api_cluster import TOKEN
from tests.support.both_ways import ONE, TWO, BothWays, both_ways
from tests.support.cache_layout import ADA, GUILD, rich_guild, store
from tests.support.hook_server import hook_server
from tests.support.processes import started
from tests.support.publisher import Publisher

pytestmark = pytest.mark.contract
__all__ = ["make_simulator"]
NEW_TOKEN = "MTAwMDAwMDAwMDAwMDAwMDA.GaaaaX.canary-of-a-new-bot-0123456789"


async def test_applications_are_shown_and_scaled(tmp_path: Path) -> None:
    async with both_ways(tmp_path) as both:
        assert "WELCOMER_TOKEN" in (await both("app", "show", "welcomer"))[1]
        assert json.loads((await both("app", "show", "welcomer", "--json"))[1])["intents"] == ["GUILDS"]
        assert "# default" in (await both("app", "show", "welcomer", "--all"))[1]
        await both("app", "show", "welcomer", "--all", "--json")
        code, _, said = await both("app", "show", "welcomr")
        assert (code, "did you mean welcomer?" in said) == (1, True)

        scale = ("app", "scale", "welcomer")
        assert "8 session starts" in (await both(*scale, "--shards", "8", "--plan"))[1]
        await both(*scale, "--shards", "8", "--ids", "0-3", "--plan", "--json")
        await both(*scale, "--shards", "4", "--plan")
        for refused in (("0",), ("8", "--ids", "0-9"), ("eight",)):
            assert (await both(*scale, "--shards", *refused))[0] in (1, 2)
        await both("app", "scale", "welcomr", "--shards", "8")
        code, _, said = await both(*scale, "--shards", "8")
        assert (code, "say --yes" in said) == (1, True), said
        code, _, said = await both(*scale, "--shards", "8", "--timeout", "0", "--yes")
        assert (code, "welcomer is not scaled after 0 s" in said) == (1, True), said
        assert (await both(*scale, "--cancel"))[1] == "welcomer: taken back; the present shards serve as before\n"
        assert json.loads((await both(*scale, "--cancel", "--json"))[1])["cancelled"] is False
        assert (await both(*scale, "--accept"))[2] == "sandwich: welcomer: no shard count is proposed\n"

        restart = ("app", "restart", "welcomer")
        await both(*restart, "--plan")
        await both(*restart, "--hard", "--plan", "--json")
        assert (await both(*restart))[0] == 1
        code, _, said = await both(*restart, "--yes", "--force", "--timeout", "0")
        assert code == 1, said
        await both("app", "restart", "music")
        stored = [(await both.store.get(keys.app("welcomer"))) for keys in (ONE, TWO)]
        assert all(item is not None and b'"count":4' in item.value for item in stored)


async def test_a_proposed_count_is_accepted(tmp_path: Path) -> None:
    async with both_ways(tmp_path) as both:
        assert (await both("app", "set", "welcomer", "shards.count=auto"))[0] == 0
        await both("app", "scale", "welcomer", "--accept", "--plan")
        accept = ("app", "scale", "welcomer", "--accept", "--yes", "--force", "--timeout", "0")
        assert (await both(*accept))[0] == 1
        for keys in (ONE, TWO):
            item = await both.store.get(keys.rollout("welcomer"))
            assert item is not None
            assert json.loads(item.value)["auto_count"] == 8


async def test_applications_are_added_and_changed(tmp_path: Path, make_simulator: MakeSimulator) -> None:
    simulator = await make_simulator(
        BotConfig(token=NEW_TOKEN, name="new", application_id=10**17, guilds=3),
        BotConfig(token=TOKEN, name="Welcomer", application_id=80351110224678912, guilds=3),
    )
    async with both_ways(tmp_path, api_url=simulator.api_url) as both:
        (tmp_path / "token").write_text(NEW_TOKEN)
        (tmp_path / "token").chmod(0o600)
        add = ("app", "add", "new", "--intents", "GUILDS,GUILD_MESSAGES")
        code, _, said = await both(*add, piped="MTAwMDAwMDAwMDAwMDAwMDA.Gaaaaa.not-known-0123456789abcdefghijk")
        assert (code, "Discord refused the token (401)" in said) == (1, True), said
        assert (await both(*add, "--shards", "2", "--ids", "0-2", piped=NEW_TOKEN))[0] == 1
        assert (await both(*add, "presence.status=idlee", piped=NEW_TOKEN))[0] == 1
        code, said, _ = await both(*add, "--token-file", "token", "--dry-run")
        assert (code, "new would be added (dry run" in said) == (0, True), said
        code, said, _ = await both(*add, "--paused", "weight=2.5", "--json", piped=f"Bot {NEW_TOKEN}")
        assert (code, json.loads(said)["bot"]["name"], json.loads(said)["paused"]) == (0, "new", True), said
        assert "there is an application new already" in (await both(*add, piped=NEW_TOKEN))[2]
        await both("app", "show", "new", "--all", "--json")

        change = ("app", "set", "welcomer")
        assert (await both(*change, "events.ignore=[TYPING_START]", "--dry-run"))[0] == 0
        await both(*change, "events.ignore=[TYPING_START]", "cache.presences=true", "presence.status=idle")
        await both(*change, "events.ignore=[TYPING_START]", "--json")
        assert (await both(*change, "events.ignored=[TYPING_START]"))[0] == 1
        assert (await both(*change, "large_threshold=9"))[0] == 1
        code, _, said = await both(*change, "intents=[GUILDS, GUILD_MEMBERS]", "stream.max_age=3h", "--dry-run")
        assert (code, "4 session starts" in said, "portal" in said) == (0, True, True), said
        assert (await both(*change, "intents=[GUILDS, GUILD_MESSAGES]"))[0] == 1
        code, said, _ = await both(*change, "intents=[GUILDS, GUILD_MESSAGES]", "--yes", "--force")
        assert (code, "intents: [GUILDS] -> [GUILDS, GUILD_MESSAGES]" in said) == (0, True), said
        assert "is the token of new" in (await both(*change, "--token-file", "token"))[2]
        await both("app", "set", "music", "large_threshold=60", "--token-file", "token", "--no-check", "--json")
        for keys in (ONE, TWO):
            item = await both.store.get(keys.app("music"))
            assert item is not None
            assert b'"large_threshold":60' in item.value
            assert NEW_TOKEN.encode() not in item.value
        assert NEW_TOKEN not in both.seen
        assert "Traceback" not in both.seen


async def test_applications_are_removed(tmp_path: Path) -> None:
    async with (
        EmbeddedNats(tmp_path / "n1") as nats1,
        EmbeddedNats(tmp_path / "n2") as nats2,
        EmbeddedRedis(tmp_path / "r1") as redis1,
        EmbeddedRedis(tmp_path / "r2") as redis2,
        both_ways(tmp_path, nats=(nats1.url, nats2.url), redis=(redis1.url, redis2.url)) as both,
    ):
        remove = ("app", "remove", "welcomer")
        assert "removing welcomer:" in (await both(*remove, "--dry-run"))[1]
        await both(*remove, "--dry-run", "--json", "--keep-cache", "--delete-stream")
        assert (await both(*remove))[0] == 1
        assert (await both(*remove, "--yes", "welcomr"))[0] == 1
        assert "there is no application welcomr" in (await both("app", "remove", "welcomr", "--yes", "welcomr"))[2]
        code, _, said = await both(*remove, "--yes", "welcomer", "--timeout", "0")
        assert code == 1, said
        assert "as it was begun" in (await both(*remove, "--yes", "welcomer", "--timeout", "0", "--keep-cache"))[1]
        await both("app", "set", "welcomer", "weight=2")
        code, said, _ = await both("app", "remove", "music", "--yes", "music", "--delete-stream", "--json")
        assert (code, json.loads(said)["deleted_stream"]) == (0, True)
        assert "there are: welcomer" in (await both("app", "show", "music"))[2]
        await nats1.stop()
        await nats2.stop()
        # A node that was connected says so: the texts differ in that.
        for code, _, said in await both.run(*remove, "--yes", "welcomer"):
            assert (code, "NATS is not" in said) == (2, True), said
        for code, _, said in await both.run(*remove, "--yes", "welcomer", "--force", "--timeout", "0"):
            assert (code, "whether consumers read it is not known" in said) == (1, True), said


@asynccontextmanager
async def with_messages(directory: Path) -> AsyncIterator[BothWays]:
    """Two clusters that have the same dead letters and the same guilds."""
    async with (
        EmbeddedNats(directory / "n1") as nats1,
        EmbeddedNats(directory / "n2") as nats2,
        EmbeddedRedis(directory / "r") as server,
    ):
        for url in (nats1.url, nats2.url):
            client = await nats.connect(url)
            publisher = Publisher(client, "welcomer")
            await publisher.make_stream()
            await keep_streams(client.jetstream(), "welcomer", replicas=1)
            for number in range(1, 4):
                letter = DeadLetter(
                    kind="event", group="greeter", id=f"own:{number}", type="MESSAGE_CREATE",
                    subject=f"sandwich.welcomer.events.0.{number}", stream_seq=number, tries=5,
                    error="ValueError: cannot bear it", at=1_700_000_000.0 + number,
                )  # fmt: skip
                headers, payload = publisher.frame(1)
                written = {**headers.encode(), **letter.encode(), MESSAGE_ID: letter.id}
                await client.jetstream().publish(subjects.dead_subject("welcomer", "greeter"), payload, headers=written)
            await client.close()
        async with redis.Redis.from_url(server.url) as cache:
            await store(cache, guild_layout("welcomer", rich_guild(), app="welcomer", group=0, shard=1))
        # One Redis: another one gives members in another order.
        async with both_ways(directory, nats=(nats1.url, nats2.url), redis=(server.url, server.url)) as both:
            yield both


async def test_dead_letters_and_consumer_groups(tmp_path: Path) -> None:
    async with with_messages(tmp_path) as both:
        found = json.loads((await both("dead", "list", "--json"))[1])
        assert (found["total"], [one["id"] for one in found["letters"]]) == (3, ["own:3", "own:2", "own:1"])
        assert "and 2 older" in (await both("dead", "list", "--app", "welcomer", "--limit", "1"))[1]
        await both("dead", "list", "--group", "other")
        assert "did you mean welcomer?" in (await both("dead", "list", "--app", "welcomr"))[2]
        assert "cannot bear it" in (await both("dead", "show", "welcomer", "1"))[1]
        await both("dead", "show", "welcomer", "own:2", "--json")
        assert "has no dead letter own:9" in (await both("dead", "show", "welcomer", "own:9"))[2]
        assert "has no dead letter 9" in (await both("dead", "replay", "welcomer", "9", "1"))[2]
        code, _, said = await both("dead", "replay", "welcomer", "own:1", "--json")
        assert (code, "no group greeter reads welcomer now" in said) == (0, True), said
        assert "Say --yes" in (await both("dead", "discard", "welcomer", "--type", "MESSAGE_CREATE"))[2]
        assert (await both("dead", "discard", "welcomer", "2", "--yes"))[
            1
        ] == "1 dead letter discarded, of group greeter\n"
        assert (await both("dead", "replay", "welcomer", "--all"))[0] == 0
        assert (await both("dead", "replay", "welcomer", "--type", "MESAGE_CREATE"))[0] == 1

        assert (await both("group", "create", "welcomer", "greeter", "--start", "all"))[0] == 0
        assert (await both("group", "create", "welcomer", "greeter", "--lane", "chat"))[0] == 1
        assert (await both("group", "create", "music", "greeter"))[0] == 1
        assert (await both("group", "create", "welcomer", "no.name"))[0] == 2
        assert "Traceback" not in both.seen


async def test_consumer_groups_are_listed_and_removed(tmp_path: Path) -> None:
    async with with_messages(tmp_path) as both:
        # What it left behind: three dead letters.
        assert " 3 " in (await both("group", "list", "welcomer"))[1]
        code, said, _ = await both("group", "create", "welcomer", "index", "--ordered", "--json")
        assert (code, json.loads(said)["group"], json.loads(said)["ordered"]) == (0, "index", True), said
        rows = []
        for code, said, _ in await both.run("group", "list", "welcomer", "--json"):
            listed = json.loads(said)
            assert [row.pop("created_at") is None for row in listed] == [True, False]
            rows.append(listed)
            assert code == 0
        assert rows[0] == rows[1]
        assert [(row["group"], row["lag_frames"], row["dead_letters"], row["partitions"]) for row in rows[0]] == [
            ("greeter", None, 3, 0),
            ("index", 0, 0, 32),
        ]
        assert "there are none" not in (await both("group", "list", "music"))[1]
        assert "did you mean welcomer?" in (await both("group", "list", "welcomr"))[2]
        remove = ("group", "remove", "welcomer")
        assert "did you mean greeter?" in (await both(*remove, "greetr", "--yes"))[2]
        code, said, error = await both(*remove, "greeter")
        assert (code, "dead letters  3" in said, "Say --yes" in error) == (1, True, True), (said, error)
        code, said, _ = await both(*remove, "greeter", "--yes")
        assert (code, said.splitlines()[-1]) == (0, "group greeter of welcomer is removed, with 3 dead letters")
        assert (await both("dead", "list", "--app", "welcomer"))[1].startswith("no dead letters")
        for code, said, _ in await both.run(*remove, "index", "--yes", "--json"):
            assert (code, json.loads(said)["removed"], json.loads(said)["partitions"]) == (0, True, 32), said
        assert (await both("group", "list", "welcomer", "--json"))[1] == "[]\n"
        assert (await both(*remove, "index", "--yes"))[0] == 1
        assert "Traceback" not in both.seen


async def test_guilds_and_users(tmp_path: Path) -> None:
    async with with_messages(tmp_path) as both:
        assert "alpha" in (await both("guild", "where", GUILD))[1]
        await both("guild", "where", GUILD, "--app", "welcomer", "--json")
        code, out, said = await both("guild", "where", "1", "--json")
        assert (code, out, "it would be on shard 0 of welcomer" in said) == (1, "[]\n", True), said
        await both("guild", "where", GUILD, "--app", "music")
        await both("guild", "where", GUILD, "--app", "nope")
        assert "namespace" in (await both("guild", "show", GUILD, "--channels", "--roles", "--members"))[1]
        await both("guild", "show", GUILD, "--members", "--json")
        await both("guild", "show", "1")
        assert GUILD in (await both("user", "mutual", ADA))[1]
        await both("user", "mutual", ADA, "--namespace", "nope")
        await both("user", "mutual", "1", "--app", "welcomer", "--json")


async def test_servers_that_do_not_answer(tmp_path: Path) -> None:
    async with both_ways(tmp_path) as both:
        assert (await both("guild", "where", GUILD))[0] == 2
        assert (await both("dead", "list"))[0] == 2
        assert (await both("group", "create", "welcomer", "greeter"))[0] == 2
        assert (await both("group", "list", "welcomer"))[0] == 2
        assert (await both("group", "remove", "welcomer", "greeter", "--yes"))[0] == 2


async def test_webhooks_and_the_configuration(tmp_path: Path) -> None:
    async with both_ways(tmp_path) as both, hook_server() as server:
        assert "discord:" in (await both("cluster", "export"))[1]
        await both("cluster", "export", "--json")
        assert (await both("webhook", "list"))[0] == 0
        add = ("webhook", "add", "alerts")
        assert (await both(*add, piped=server.url))[0] == 1
        assert "there is no event lunch" in (await both(*add, "--event", "lunch", piped=server.url))[2]
        assert (await both(*add, "--allow-private", "--app", "nope", piped=server.url))[0] == 1
        assert (await both(*add, "--allow-private", "--app", "welcomer", "--json", piped=server.url))[0] == 0
        assert (await both(*add, "--allow-private", piped=server.url))[0] == 1
        await both("webhook", "list")
        (row,) = json.loads((await both("webhook", "list", "--json"))[1])
        assert (row["webhook"], row["apps"]) == ("alerts", ["welcomer"])
        assert (await both("webhook", "test", "alerts"))[1] == "webhook alerts took the test message\n"
        server.answers = [(404, {}, ""), (404, {}, "")]
        assert (await both("webhook", "test", "alerts"))[0] == 2
        assert (await both("webhook", "test", "nope"))[0] == 1
        assert (await both("webhook", "remove", "alerts"))[0] == 0
        assert (await both("webhook", "remove", "alerts"))[0] == 1
        assert "/hush" not in both.seen


async def test_events_are_shown_as_they_are_published(tmp_path: Path) -> None:
    async with EmbeddedNats(tmp_path / "nats") as server, both_ways(tmp_path, nats=(server.url, server.url)) as both:
        assert (await both("tail", "--app", "welcomer"))[0] == 1, "there is no stream yet"
        client = await nats.connect(server.url)
        publisher = Publisher(client, "welcomer")
        await publisher.make_stream()
        shown = []
        for env in (both.etcd_env, both.api_env):
            async with asyncio.timeout(60), started(
                sys.executable, "-m", "sandwich_coordinator.cli.main", "tail", "--app", "welcomer", "--type", "B",
                env=env, stdout=asyncio.subprocess.PIPE,
            ) as process:  # fmt: skip
                assert process.stdout is not None
                reading = asyncio.create_task(process.stdout.readline())
                while not reading.done():
                    # It shows what is published after it began to look, which nothing announces.
                    await publisher.events(2, types=("A", "B"))
                    await asyncio.wait({reading}, timeout=0.2)
                shown.append(re.sub(rb'"n": ?[0-9]+', b"N", reading.result()))
        await client.close()
        assert shown[0] == shown[1]
        assert b"B welcomer 0/64" in shown[0]
