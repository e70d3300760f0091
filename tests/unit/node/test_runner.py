"""What a shard's runner works out by itself: how many guilds, and whose token it is."""

import base64
import json

from sandwich_node.shards.runner import GuildCount, bot_id_of


def event(guild: str, **fields: object) -> bytes:
    return json.dumps({"t": "X", "s": 1, "op": 0, "d": {"id": guild, **fields}}).encode()


def test_backfill_is_no_join_and_an_outage_no_leave() -> None:
    guilds = GuildCount(2, expected={"1", "2"})
    guilds.take(event("1", unavailable=False), "GUILD_CREATE")
    guilds.take(event("2"), "GUILD_CREATE")
    guilds.take(event("2", unavailable=True), "GUILD_DELETE")
    guilds.take(event("2", unavailable=False), "GUILD_CREATE")
    assert guilds.count == 2


def test_a_join_counts_once_and_a_leave_takes_it_back() -> None:
    guilds = GuildCount(5)
    guilds.take(event("9"), "GUILD_CREATE")
    guilds.take(event("9"), "GUILD_CREATE")
    assert guilds.count == 6
    guilds.take(event("9"), "GUILD_DELETE")
    assert guilds.count == 5


def test_the_bots_id_is_read_from_a_token_of_the_usual_form_only() -> None:
    head = base64.urlsafe_b64encode(b"123456789012345678").decode().rstrip("=")
    assert bot_id_of(f"{head}.GaBcDe.xyz") == "123456789012345678"
    assert bot_id_of("some-other-token") == ""
