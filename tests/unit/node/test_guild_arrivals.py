"""Whether a guild was announced, is back, or is new."""

import itertools
import json

import msgspec
import pytest

from sandwich_node.events.asks import Arrival
from sandwich_node.events.guild_arrivals import ShardGuilds
from sandwich_sdk.guild_events import derive

ANNOUNCED, BACK, NEW = Arrival(True, False), Arrival(False, True), Arrival(False, False)
OUTAGE = Arrival(False, True)


def create(guilds: ShardGuilds, guild: str, **fields: object) -> Arrival | None:
    return guilds.take("GUILD_CREATE", json.dumps({"id": guild, **fields}).encode())


def delete(guilds: ShardGuilds, guild: str, **fields: object) -> Arrival | None:
    return guilds.take("GUILD_DELETE", json.dumps({"id": guild, **fields}).encode())


def test_backfill_is_no_join_and_an_outage_no_leave() -> None:
    guilds = ShardGuilds(2, announced=frozenset({"1", "2"}))
    assert create(guilds, "1", unavailable=False) == ANNOUNCED
    assert create(guilds, "2") == ANNOUNCED, "Discord may leave `unavailable` out"
    assert delete(guilds, "2", unavailable=True) == OUTAGE
    assert create(guilds, "2", unavailable=False) == BACK
    assert guilds.count == 2


def test_a_join_counts_once_and_a_leave_takes_it_back() -> None:
    guilds = ShardGuilds(5)
    assert create(guilds, "9") == NEW
    create(guilds, "9")
    assert guilds.count == 6
    assert delete(guilds, "9") == NEW
    assert guilds.count == 5


def test_an_announced_guild_that_starts_in_an_outage_is_still_announced_when_it_comes() -> None:
    guilds = ShardGuilds(1, announced=frozenset({"1"}))
    assert delete(guilds, "1", unavailable=True) == Arrival(True, True)
    assert create(guilds, "1", unavailable=True) == Arrival(True, True)
    assert create(guilds, "1", unavailable=False) == Arrival(True, True), "that it is away was said before"


def test_a_new_owner_that_gets_all_that_followed_ready_knows_what_was_announced() -> None:
    for before, key in itertools.product(WENT_BEFORE, ("false", "true")):
        listed, bot = Bot(announced=True), Bot(announced=False)
        bot.guilds = ShardGuilds(1, after_ready=True)
        for one in (listed, bot):
            one.go_through(before)
        looked = bot.guilds.look("GUILD_CREATE", msgspec.json.encode({"id": "1"} | KEYS[key]))
        wanted, _ = listed.send("GUILD_CREATE", **KEYS[key])
        arrival, _ = bot.send("GUILD_CREATE", **KEYS[key])
        assert looked == arrival == wanted, f"before: {before}, key {key}"


def test_a_join_and_what_follows_it_are_not_taken_for_announced_behind_ready() -> None:
    guilds = ShardGuilds(1, after_ready=True)
    assert create(guilds, "9") == NEW
    assert create(guilds, "9", unavailable=False) == BACK
    assert delete(guilds, "9", unavailable=True) == OUTAGE
    assert delete(guilds, "9") == NEW
    assert delete(guilds, "8") == NEW
    assert guilds.count == 0


def test_announced_guilds_are_counted_as_they_come_and_once() -> None:
    listed, unlisted = ShardGuilds(2, announced=frozenset({"1", "2"})), ShardGuilds(2)
    for guild in ("1", "1", "9"):
        create(listed, guild, unavailable=False)
        create(unlisted, guild, unavailable=False)
    delete(listed, "2", unavailable=True)
    delete(unlisted, "2", unavailable=True)
    assert (listed.arrived, unlisted.arrived) == (1, 2)


def test_a_look_changes_nothing() -> None:
    guilds = ShardGuilds(1, announced=frozenset({"1"}))
    for _ in range(2):
        assert guilds.look("GUILD_CREATE", b'{"id":"1","unavailable":false}') == ANNOUNCED
        assert guilds.look("GUILD_CREATE", b'{"id":"9"}') == NEW
        assert guilds.look("GUILD_CREATE", b'{"id":7}') is None
    assert (guilds.awaited, guilds.count) == (1, 1)


def test_what_is_no_guild_is_passed_over() -> None:
    guilds = ShardGuilds(1)
    assert guilds.take("GUILD_CREATE", b'{"id":7}') is None
    assert guilds.count == 1


def test_damaged_lists_of_a_guild_do_not_cost_its_flags() -> None:
    guilds = ShardGuilds(1, announced=frozenset({"1"}))
    assert create(guilds, "1", members=None, roles=7, channels=[None], unavailable=False) == ANNOUNCED
    assert create(guilds, "9", members=[{}], presences="x") == NEW


@pytest.mark.parametrize("unavailable", [None, 0, "no", [], {}])
def test_a_damaged_key_is_no_join(unavailable: object) -> None:
    assert create(ShardGuilds(1), "9", unavailable=unavailable) == BACK


WENT_BEFORE = ("nothing", "came", "came and left", "outage", "stub", "came and outage", "came, outage and back")
KEYS = {"absent": {}, "false": {"unavailable": False}, "true": {"unavailable": True}}
CACHES = ("off", "on", "emptied", "behind")


class Bot:
    """A shard's one guild, sent to its owner and to a cache that records the same as the cache's script."""

    def __init__(self, *, announced: bool) -> None:
        self.guilds = ShardGuilds(0, announced=frozenset({"1"} if announced else ()))
        self.waiting = "l" if announced else ""

    def send(self, event_type: str, **fields: object) -> tuple[Arrival, str]:
        """What the owner makes of an event, and what the cache remembers of the guild."""
        data = json.dumps({"id": "1", **fields}).encode()
        arrival = self.guilds.take(event_type, data)
        assert arrival is not None
        remembered = self.waiting
        if fields.get("unavailable") is True:
            remembered = self.waiting = self.waiting.replace("u", "") + "u"
        else:
            self.waiting = ""
        return arrival, remembered

    def go_through(self, before: str) -> None:
        """What happened before."""
        if "came" in before:
            self.send("GUILD_CREATE", unavailable=False)
        if "left" in before:
            self.send("GUILD_DELETE")
        if "outage" in before:
            self.send("GUILD_DELETE", unavailable=True)
        if "stub" in before:
            self.send("GUILD_CREATE", unavailable=True)
        if "back" in before:
            self.send("GUILD_CREATE", unavailable=False)


def meaning(*, announced: bool, before: str, key: str, resumed: bool, remembers: bool) -> str | None:
    """What the GUILD_CREATE means, by Discord's documentation; of a resumed session by what can be known."""
    if key == "true":
        return "GUILD_UNAVAILABLE"
    is_awaited = announced and before in ("nothing", "outage", "stub")
    was_down = before in ("outage", "stub", "came and outage")
    if resumed:
        # The new owner did not see READY: only a cache that has lost nothing knows who was announced.
        if is_awaited and remembers:
            return "GUILD_AVAILABLE" if was_down else None
        return "GUILD_JOIN" if key == "absent" else "GUILD_AVAILABLE"
    is_there = (announced and before != "came and left") or before in (
        *("came", "outage", "came and outage", "came, outage and back"),
    )
    if key == "absent" and not is_there:
        return "GUILD_JOIN"
    return None if is_awaited and not was_down else "GUILD_AVAILABLE"


@pytest.mark.parametrize("resumed", [False, True], ids=["same node", "moved"])
@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("announced", [True, False], ids=["announced", "new"])
def test_a_join_is_only_a_guild_without_the_key_that_ready_did_not_announce(
    announced: bool, cache: str, resumed: bool
) -> None:
    for before, key in itertools.product(WENT_BEFORE, KEYS):
        bot = Bot(announced=announced)
        bot.go_through(before)
        if resumed:
            bot.guilds = ShardGuilds(1)
        arrival, remembered = bot.send("GUILD_CREATE", **KEYS[key])
        if cache == "emptied":
            remembered = "u" if key == "true" else ""
        if cache in ("on", "emptied"):
            arrival = arrival.as_cached(lazy="l" in remembered, unavailable="u" in remembered)
        data = msgspec.json.encode({"id": "1"} | KEYS[key])
        means = derive("GUILD_CREATE", msgspec.Raw(data), msgspec.Raw(b"{%b}" % arrival.fields()))
        wanted = meaning(announced=announced, before=before, key=key, resumed=resumed, remembers=cache == "on")
        assert means == wanted, f"announced {announced}, before: {before}, key {key}, cache {cache}, resumed {resumed}"
        assert (means == "GUILD_JOIN") == (arrival == NEW)


def test_what_the_new_owner_saw_itself_is_not_the_caches_to_say() -> None:
    guilds = ShardGuilds(1)
    assert create(guilds, "1", unavailable=False) == BACK
    again = create(guilds, "1", unavailable=False)
    assert again is not None
    assert again.as_cached(lazy=True, unavailable=False) == BACK
    delete(guilds, "1")
    joined = create(guilds, "1")
    assert joined is not None
    assert joined.as_cached(lazy=True, unavailable=False) == NEW
