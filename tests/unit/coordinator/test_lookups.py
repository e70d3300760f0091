"""The output of `sandwich guild` and `sandwich user`."""

from typing import Any

import pytest
from rich.cells import cell_len

from sandwich_coordinator.cli.cache import check_id
from sandwich_coordinator.cli.errors import CommandError
from sandwich_coordinator.cli.lookups import guild_text, mutual_text, plain, where_text
from sandwich_coordinator.ids import LeaderTerm
from sandwich_coordinator.operations.cached_guilds import not_cached, where_row
from sandwich_coordinator.store.base import KeyValue
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import ClaimRecord, GroupRecord
from sandwich_coordinator.view import ClusterView

GUILD = "81384788765712384"
KEYS = Keys("default")


def view(*, claimed: bool = True) -> ClusterView:
    group = GroupRecord(app="music", group=3, count=16, ids="0-15", term=LeaderTerm(1))
    items = {KEYS.group("music", 3): group.encode()}
    if claimed:
        claim = ClaimRecord(app="music", group=3, shard=7, node="node-a", instance="i", worker=0, state="live")
        items[KEYS.claim("music", 3, 7)] = claim.encode()
    listed = {
        key: KeyValue(key=key, value=value, create_revision=1, mod_revision=1, version=1, lease=1)
        for key, value in items.items()
    }
    return ClusterView.from_items(KEYS, listed, 1)


def found(**more: Any) -> dict[str, Any]:
    sizes = dict.fromkeys(("channels", "threads", "roles", "emojis", "stickers", "voice", "presences", "events"), 123)
    where = [where_row(view(), "music", "shared", 3, 7), where_row(view(), "other", "shared", 1, 0)]
    guild = {"id": GUILD, "name": "Chess", "owner_id": "1", "member_count": 5, "unavailable": False}
    return {"id": GUILD, "namespace": "shared", "guild": guild, "where": where, "cached": sizes | {"members": 0}} | more


def test_where_a_guild_is_names_node_and_state_or_that_its_shard_runs_nowhere() -> None:
    rows = [where_row(view(), "music", "shared", 3, 7), where_row(view(claimed=False), "music", "shared", 3, 7)]
    head, here, nowhere = where_text(rows).splitlines()
    assert head.split() == ["APP", "NAMESPACE", "GROUP", "SHARD", "STATE", "NODE"]
    assert here.split() == ["music", "shared", "3", "7", "live", "node-a"]
    assert nowhere.split() == ["music", "shared", "3", "7", "runs", "nowhere", "-"]


def test_a_guild_that_no_application_has_is_explained_with_the_shard_it_would_be_on() -> None:
    shard = (int(GUILD) >> 22) % 16
    said = not_cached(view(), GUILD, ["music", "other"])
    assert said.startswith(f"no application of this cluster is in guild {GUILD}")
    assert said.endswith(f"it would be on shard {shard} of music")
    assert not_cached(view(), GUILD, ["other"]) == f"application other is not in guild {GUILD}, or has not seen it yet"


def test_a_guild_is_shown_within_80_columns() -> None:
    lines = guild_text(found()).splitlines()
    assert lines[:2] == ["Chess", f"  id         {GUILD}"]
    assert "  music: shard 7 of group 3, on node-a, live" in lines
    assert "  other: shard 0 of group 1, runs nowhere" in lines
    assert not any("members 0" in line for line in lines)
    assert max(map(len, lines)) <= 80
    down = guild_text(found(guild={"unavailable": True, "name": None}, where=[], cached={}))
    assert "outage" in down
    assert "nothing of it" in down
    assert "state      not known" in guild_text(found(guild=None))


def test_lists_are_tables_that_mark_hidden_and_missing_objects() -> None:
    channels = [
        {"id": "1", "type": 0, "name": "general"},
        {"id": "2", "type": 2, "name": "___hidden___", "flags": 1 << 17},
        {"id": "3", "type": []},
    ]
    members = [{"user": {"id": "4", "username": "ada"}, "nick": "Countess"}, {"user": {"id": "5"}}]
    shown = guild_text(found(channels=channels, members=members, roles=[]))
    tables = shown.split("\n\n")[1:]
    assert tables[0].splitlines() == [
        "CHANNEL  TYPE           NAME",
        "1        text           general",
        "2        voice, hidden  ___hidden___",
        "3        other          -",
    ]
    assert tables[1] == "no roles are cached"
    assert tables[2].splitlines() == ["MEMBER  NAME", "4       ada (Countess)", "5       -"]
    some = guild_text(found(members=members, cached={"members": 102}))
    assert some.endswith("5       -\nand 100 more")


def test_mutual_guilds_are_a_table_in_80_columns_with_long_names_truncated() -> None:
    rows: list[dict[str, Any]] = [
        {"guild": GUILD, "name": "棋" * 100, "namespace": "shared", "apps": ["music", "welcomer"]},
        {"guild": "9", "name": None, "namespace": "shared", "apps": ["music"]},
    ]
    head, first, second = mutual_text(rows, "1", ["music"]).splitlines()
    assert head.split() == ["GUILD", "APPLICATIONS", "NAME"]
    assert first.startswith(f"{GUILD}  music, welcomer  棋")
    assert first.endswith("…")
    assert cell_len(first) <= 80
    assert second.split() == ["9", "music", "-"]
    both = mutual_text([rows[0], rows[1] | {"namespace": "other"}], "1", ["music"])
    assert "NAMESPACE" in both
    assert max(map(cell_len, both.splitlines())) <= 80
    assert mutual_text([], "1", ["music", "other"]) == "user 1 shares no cached guild with music, other"


def test_a_name_cannot_control_the_terminal() -> None:
    assert plain("a\x1b[2J\n\u202eb\x9b1m", 40) == "a?[2J??b?1m"
    assert plain("exactly", 7) == "exactly"
    assert plain("exactly!", 7) == "exactl…"
    assert "\x1b" not in guild_text(found(guild={"name": "\x1b[2J", "owner_id": "\x1b", "member_count": ["\x1b"]}))


@pytest.mark.parametrize("text", ["", "0", "-1", "abc", "1" * 21, str(2**64), "１", "1 "])
def test_an_invalid_id_is_refused_with_an_explanation(text: str) -> None:
    with pytest.raises(CommandError, match="is not a Discord id") as refused:
        check_id(text)
    assert refused.value.code == 2
