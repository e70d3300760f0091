"""Whether a guild was announced, is back, or is new."""

import json

from sandwich_node.events.arrivals import Arrival, ShardGuilds

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
    assert create(guilds, "1", unavailable=False) == ANNOUNCED


def test_what_is_no_guild_is_passed_over() -> None:
    guilds = ShardGuilds(1)
    assert guilds.take("GUILD_CREATE", b'{"id":7}') is None
    assert guilds.count == 1
