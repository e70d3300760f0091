"""Every command says and does the same with etcd and with `--api`."""

import json
from pathlib import Path

import pytest

from sandwich_node.dev.embedded import EmbeddedNats, EmbeddedRedis
from sandwich_simulator import BotConfig
from sandwich_simulator.pytest_plugin import MakeSimulator, make_simulator
from tests.support.api_cluster import TOKEN
from tests.support.both_ways import ONE, TWO, both_ways

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
        assert (await both(*restart, "--yes"))[0] == 1
        code, _, said = await both(*restart, "--yes", "--force", "--timeout", "0")
        assert (code, "is not scaled after 0 s" in said) == (1, True), said
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
        await both("app", "set", "music", "large_threshold=60", "--token-file", "token", "--json")
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
        assert (await both(*remove, "--yes", "welcomer"))[0] == 2
        code, _, said = await both(*remove, "--yes", "welcomer", "--force", "--timeout", "0")
        assert (code, "whether consumers read it is not known" in said) == (1, True), said
