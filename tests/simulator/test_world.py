"""A cache that applies a bot's events has exactly the bot's view of its guilds."""

import random
from typing import Any

import msgspec
import pytest

from sandwich_simulator import BotConfig, ConfigError, SimulatorConfig
from sandwich_simulator.action_context import ActionContext
from sandwich_simulator.actions import talk
from sandwich_simulator.clock import Now
from sandwich_simulator.events import Event
from sandwich_simulator.gateway import Bot, Gateway
from sandwich_simulator.mix import WEIGHTS, Mix
from sandwich_simulator.outbox import Outbox
from sandwich_simulator.protocol import Connection

from .gateway_client import identify_payload
from .reference_cache import ReferenceCache, differences

WALL_MS = 1_750_000_000_000
KEPT = 6


class Stage:
    """A gateway without sockets, with bots and a cache for each bot that applies the bot's events."""

    def __init__(self, *bots: BotConfig, seed: int = 1) -> None:
        self.gateway = Gateway(SimulatorConfig(bots=list(bots), seed=seed))
        self.moment = 0
        self.seen: set[str] = set()
        self.caches: dict[str, ReferenceCache] = {}
        self._outboxes: dict[str, Outbox] = {}
        self._mixes = {bot.id: Mix(bot.world, random.Random(f"{seed}:{bot.id}")) for bot in self.bots}

    @property
    def bots(self) -> list[Bot]:
        return list(self.gateway.bots.values())

    @property
    def now(self) -> Now:
        return Now(self.moment / 1000, (WALL_MS + self.moment) * 1_000_000)

    def connect(self, bot: Bot, **fields: Any) -> ReferenceCache:
        connection = Connection(self.gateway, version="10", host="h", compress="")
        connection.open(self.now)
        connection.receive(
            msgspec.json.encode({"op": 2, "d": identify_payload(bot.config.token, large_threshold=250, **fields)}),
            self.now,
        )
        self._outboxes[bot.id] = connection.outbox
        self.caches[bot.id] = ReferenceCache(bot.id, bot.config.messages_kept)
        while self.gateway.pump(self.now, guilds=100):
            pass
        self.deliver()
        return self.caches[bot.id]

    def deliver(self) -> None:
        """The caches apply what is in the outboxes."""
        for bot, outbox in self._outboxes.items():
            for item in outbox.take(len(outbox)):
                assert isinstance(item, bytes)
                payload = msgspec.json.decode(item)
                if payload["op"] == 0:
                    self.seen.add(payload["t"])
                    self.caches[bot].apply(payload["t"], payload["d"])

    def play(self, moments: int) -> None:
        """Makes `moments` actions, in turn for each bot."""
        for _ in range(moments):
            self.moment += 1
            bot = self.bots[self.moment % len(self.bots)]
            for event in self._mixes[bot.id].next_events(self.now.wall_ms):
                self.gateway.publish(bot, event, self.now)
            self.deliver()

    def publish(self, bot: Bot, event: Event) -> None:
        self.gateway.publish(bot, event, self.now)
        self.deliver()

    def check(self, bot: Bot) -> None:
        """Asserts that the bot's cache equals its view of the world."""
        cache, world = self.caches[bot.id], bot.world
        (session,) = bot.sessions
        assert set(cache.guilds) - cache.down == {str(g) for g in world.guild_ids if not world.is_unavailable(g)}
        for guild_id in world.guild_ids:
            if not world.is_unavailable(guild_id):
                state = msgspec.json.decode(msgspec.json.encode(world.guild_state(guild_id, as_seen=True)))
                assert differences(cache.guilds[str(guild_id)], state, session.moment) == []
        assert {name: cache.user[name] for name in world.me} == world.me


def bot_config(name: str, **fields: Any) -> BotConfig:
    known = {"guilds": 4, "members_per_guild": 12, "messages_kept": KEPT, "hidden_channels": 0.25}
    return BotConfig(**(known | {"token": f"{name}-token", "name": name} | fields))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_cache_that_applies_the_events_equals_the_world(seed: int) -> None:
    stage = Stage(bot_config("a"), seed=seed)
    (bot,) = stage.bots
    stage.connect(bot)
    for _ in range(12):
        stage.play(1000)
        stage.check(bot)
    missing = {"MESSAGE_CREATE", "GUILD_CREATE", "GUILD_DELETE", "CHANNEL_DELETE", "GUILD_ROLE_DELETE"} - stage.seen
    assert not missing
    assert len(stage.seen) > len(WEIGHTS)


@pytest.mark.parametrize(
    ("mix", "most", "share", "size"),
    [("messages", "MESSAGE_CREATE", 0.55, 1230), ("presences", "PRESENCE_UPDATE", 0.82, 640)],
)
def test_the_mixes_of_large_bots_have_the_documented_types_and_sizes(
    mix: str, most: str, share: float, size: int
) -> None:
    stage = Stage(bot_config("a", mix=mix, members_per_guild=40, hidden_channels=0.0), seed=1)
    (bot,) = stage.bots
    stage.connect(bot)
    made = Mix(bot.world, random.Random(1))
    events = [event for _ in range(4000) for event in made.next_events(WALL_MS)]
    assert sum(event.name == most for event in events) / len(events) == pytest.approx(share, abs=0.03)
    assert sum(len(msgspec.json.encode(event.data)) + 60 for event in events) / len(events) == pytest.approx(
        size, rel=0.1
    )


@pytest.mark.parametrize("mix", ["messages", "presences"])
def test_a_cache_equals_the_world_of_a_large_bot(mix: str) -> None:
    stage = Stage(bot_config("a", mix=mix), seed=1)
    (bot,) = stage.bots
    stage.connect(bot)
    for _ in range(4):
        stage.play(1000)
        stage.check(bot)


def test_an_unknown_mix_is_refused() -> None:
    with pytest.raises(ConfigError, match="messages"):
        bot_config("a", mix="quiet")


@pytest.mark.parametrize("seed", [4, 5])
def test_bots_of_one_world_each_see_their_part_of_it(seed: int) -> None:
    stage = Stage(bot_config("a", world="w"), bot_config("b", world="w", guilds=3), seed=seed)
    for bot in stage.bots:
        stage.connect(bot)
    for _ in range(12):
        stage.play(1000)
        for bot in stage.bots:
            stage.check(bot)
    one, other = stage.bots
    both = set(one.world.guild_ids) & set(other.world.guild_ids)
    assert both
    for guild_id in both:
        assert {one.id, other.id} <= set(one.world.guild(guild_id).members)


@pytest.mark.parametrize("fields", [{"obfuscation": False}, {"hidden_channels": 0.0}])
def test_without_obfuscation_hidden_channels_are_sent_whole_but_their_events_are_not(fields: dict[str, Any]) -> None:
    stage = Stage(bot_config("a", **fields), seed=6)
    (bot,) = stage.bots
    cache = stage.connect(bot)
    stage.play(5000)
    names = {channel["name"] for guild in cache.guilds.values() for channel in guild["channels"].values()}
    assert "___hidden___" not in names
    hidden = any(guild.views[bot.id].hidden for guild in bot.world.known_guilds())
    assert hidden == (fields.get("hidden_channels") is None)
    if not hidden:
        stage.check(bot)


def test_a_new_session_has_what_changed_while_no_session_existed() -> None:
    stage = Stage(bot_config("a"), seed=9)
    (bot,) = stage.bots
    stage.play(3000)
    before = set(bot.world.guild_ids)
    stage.connect(bot)
    stage.check(bot)
    for session in bot.sessions:
        stage.gateway.end_session(bot, session, stage.now)
    stage.play(6000)
    assert set(bot.world.guild_ids) != before
    stage.moment += 5000
    stage.connect(bot)
    stage.check(bot)


def test_an_edited_message_has_its_current_author() -> None:
    stage = Stage(bot_config("one", guilds=1))
    bot = stage.bots[0]
    guild = bot.world.guild(next(iter(bot.world.guild_ids)))
    action = ActionContext(bot.world, guild, random.Random(1), WALL_MS)
    (written,) = talk.message(action)
    author = guild.members[written.data["author"]["id"]]
    author["nick"] = "the new one"
    (edited,) = talk.message_edit(action)
    assert (edited.data["id"], edited.data["member"]["nick"]) == (written.data["id"], "the new one")
    del guild.members[written.data["author"]["id"]]
    (edited,) = talk.message_edit(action)
    assert "member" not in edited.data
    assert edited.data["author"] == written.data["author"]
