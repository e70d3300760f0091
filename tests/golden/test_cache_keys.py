"""Frozen key names of cache contract version 1: what readers in the field ask for. A change needs a new version."""

import json
from pathlib import Path

from sandwich_sdk.cache.testing import guild_layout, message_layout
from sandwich_sdk.wire import cache_keys
from tests.support.cache_layout import ADA, CHANNEL, GUILD, message, rich_guild

FROZEN = json.loads((Path(__file__).parent / "cache_keys.json").read_text())


def test_the_key_names_are_those_that_were_frozen() -> None:
    assert FROZEN["version"] == cache_keys.CACHE_VERSION
    made = {
        "guild": cache_keys.guild_key("music", GUILD),
        "apps": cache_keys.apps_key("music", GUILD),
        **{name: cache_keys.collection_key("music", GUILD, name) for name in cache_keys.COLLECTIONS},
        "messages": cache_keys.messages_key("music", GUILD, CHANNEL),
        "message order": cache_keys.message_order_key("music", GUILD, CHANNEL),
        "user": cache_keys.user_key("music", ADA),
        "mutual": cache_keys.mutual_key("music", ADA),
        "locations": cache_keys.locations_key("music", "welcomer"),
    }
    assert made == FROZEN["keys"]
    assert cache_keys.location(3, 7) == FROZEN["location"]


def test_a_guild_fills_the_frozen_keys_and_no_others() -> None:
    layout = guild_layout("music", rich_guild(), app="welcomer") | message_layout("music", message(0))
    ours = {key for key in layout if GUILD in key or ADA in key or "welcomer" in key}
    assert ours == set(FROZEN["keys"].values())
