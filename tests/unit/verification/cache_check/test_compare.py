"""The comparison finds each kind of wrong value, and no difference where there is none."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.unit.verification.cache_check.worlds import (
    ADA,
    APP,
    BOB,
    BOT,
    CHANNEL,
    GUILD,
    OTHER,
    THREAD,
    UNTOLD_OF_MEMBERS,
    VOICE,
    cache_of,
    channel,
    hidden,
    message,
    state,
    view,
)
from verification.cache_check.compare import Comparison, compare
from verification.cache_check.reading import Cached
from verification.cache_check.truth import GuildTruth

COLLECTIONS = (
    *("channels", "threads", "roles", "emojis", "stickers", "voice", "members", "presences", "events", "stages"),
    "sounds",
)


def found(cached: Cached, *truths: GuildTruth) -> dict[str, int]:
    """The number of differences by kind."""
    comparison = Comparison()
    compare(comparison, cached, truths)
    assert len(comparison.examples) <= comparison.different.total()
    return {kind: count for kind, count in comparison.different.items() if count}


@pytest.fixture
def truth() -> GuildTruth:
    return GuildTruth((view(state()),))


def test_a_correct_cache_has_no_differences(truth: GuildTruth) -> None:
    comparison = Comparison()
    compare(comparison, cache_of(truth), [truth])
    assert not comparison.different
    assert {*COLLECTIONS, "guild", "apps", "located", "user", "mutual", "messages"} == set(comparison.compared)


@pytest.mark.parametrize("name", COLLECTIONS)
def test_a_changed_field_is_found(truth: GuildTruth, name: str) -> None:
    cached = cache_of(truth)
    next(iter(cached.collections[name][GUILD].values()))["wrong"] = True
    assert found(cached, truth) == {name: 1}


@pytest.mark.parametrize("name", COLLECTIONS)
def test_a_missing_value_is_found(truth: GuildTruth, name: str) -> None:
    cached = cache_of(truth)
    cached.collections[name][GUILD].popitem()
    assert found(cached, truth) == {name: 1}


@pytest.mark.parametrize("name", COLLECTIONS)
def test_an_extra_value_is_found(truth: GuildTruth, name: str) -> None:
    cached = cache_of(truth)
    ghost = next(iter(cached.collections[name][GUILD].values()))
    cached.collections[name][GUILD]["7777"] = dict(ghost)
    assert found(cached, truth) == {name: 1}


def spoil_guild(cached: Cached) -> None:
    cached.guilds[GUILD]["name"] = "Go"


def lose_guild(cached: Cached) -> None:
    del cached.guilds[GUILD]


def invent_guild(cached: Cached) -> None:
    cached.guilds["1001"] = {"id": "1001"}


def lose_application(cached: Cached) -> None:
    cached.apps[GUILD] = set()


def misplace_guild(cached: Cached) -> None:
    cached.located[APP] = {"1001"}


def rename_user(cached: Cached) -> None:
    cached.users[ADA] = cached.users[ADA] | {"username": "another"}


def lose_user(cached: Cached) -> None:
    del cached.users[BOB]


def invent_user(cached: Cached) -> None:
    cached.users["7777"] = {"id": "7777"}


def add_shared_guild(cached: Cached) -> None:
    cached.mutual[ADA].add("1001")


def remove_shared_guild(cached: Cached) -> None:
    cached.mutual[ADA].clear()


def add_unknown_user(cached: Cached) -> None:
    cached.mutual["7777"] = {GUILD}


def keep_deleted_message(cached: Cached) -> None:
    cached.messages[GUILD][CHANNEL]["13"] = message("13")


def keep_message_of_deleted_channel(cached: Cached) -> None:
    cached.messages[GUILD]["3001"] = {"13": message("13", "3001")}


def lose_message(cached: Cached) -> None:
    del cached.messages[GUILD][THREAD]["12"]


def keep_old_version(cached: Cached) -> None:
    cached.messages[GUILD][CHANNEL]["11"] = message("11") | {"content": "before the edit"}


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (spoil_guild, "guild"),
        (lose_guild, "guild"),
        (invent_guild, "guild"),
        (lose_application, "apps"),
        (misplace_guild, "located"),
        (rename_user, "user"),
        (lose_user, "user"),
        (invent_user, "user"),
        (add_shared_guild, "mutual"),
        (remove_shared_guild, "mutual"),
        (add_unknown_user, "mutual"),
        (keep_deleted_message, "messages"),
        (keep_message_of_deleted_channel, "messages"),
        (lose_message, "messages"),
        (keep_old_version, "messages"),
    ],
)
def test_each_other_wrong_value_is_found(truth: GuildTruth, spoil: Callable[[Cached], None], kind: str) -> None:
    cached = cache_of(truth)
    spoil(cached)
    assert found(cached, truth) == {kind: 1}


def test_an_example_shows_the_wrong_and_the_true_value(truth: GuildTruth) -> None:
    cached = cache_of(truth)
    spoil_guild(cached)
    comparison = Comparison()
    compare(comparison, cached, [truth])
    assert comparison.examples == [f"guild {GUILD}: name: cached 'Go', true 'Chess'"]


def test_a_guild_in_an_outage_may_be_missing_but_not_be_wrong() -> None:
    down = state() | {"unavailable": True}
    truth = GuildTruth((view(down),))
    empty = Cached(located={APP: {GUILD}})
    assert found(empty, truth) == {}
    cached = cache_of(truth)
    assert found(cached, truth) == {}
    cached.collections["roles"][GUILD].clear()
    assert found(cached, truth) == {"roles": 1}


def test_a_guild_in_an_outage_during_a_resync_is_left_out_and_counted() -> None:
    first, second = (replace(one, state=one.state | {"unavailable": True}) for one in shared_truth().views)
    lost = GuildTruth((first, replace(second, was_resynced=True)))
    cached = cache_of(lost)
    cached.apps[GUILD].remove(OTHER)
    cached.collections["roles"][GUILD].clear()
    del cached.users[ADA]
    cached.mutual[BOB].clear()
    comparison = Comparison()
    compare(comparison, cached, [lost])
    assert (comparison.different.total(), comparison.left_out) == (0, 1)
    down = GuildTruth((first, second))
    assert found(cached, down) == {"apps": 1, "roles": 1, "mutual": 1}
    cached.located[OTHER].clear()
    assert found(cached, lost) == {"located": 1}


def test_messages_that_changed_before_the_session_began_may_be_missing_but_others_not() -> None:
    truth = GuildTruth((view(state(), began=20),))
    cached = cache_of(truth)
    del cached.messages[GUILD][CHANNEL]["10"]
    assert found(cached, truth) == {}
    del cached.messages[GUILD][CHANNEL]["11"]
    assert found(cached, truth) == {"messages": 1}


def test_a_status_sent_before_the_guild_may_be_missing_but_not_be_wrong() -> None:
    seen = state() | {"created": 30}
    truth = GuildTruth((view(seen),))
    cached = cache_of(truth)
    cached.collections["channels"][GUILD][VOICE]["status"] = "bullet"
    assert found(cached, truth) == {"channels": 1}
    del cached.collections["channels"][GUILD][VOICE]["status"]
    assert found(cached, truth) == {}
    known_since = GuildTruth((view(seen | {"created": 5}),))
    assert found(cached, known_since) == {"channels": 1}


def test_a_member_has_existing_roles_and_no_deleted_ones(truth: GuildTruth) -> None:
    cached = cache_of(truth)
    assert found(cached, truth) == {}
    cached.collections["members"][GUILD][ADA]["roles"] = ["4000", "4999"]
    assert found(cached, truth) == {"members": 1}
    cached.collections["members"][GUILD][ADA]["roles"] = []
    assert found(cached, truth) == {"members": 1}


def shared_truth() -> GuildTruth:
    """The second bot does not see the text channel and has no intent GUILD_MEMBERS."""
    seen = state()
    seen["channels"] = seen["channels"] | {CHANNEL: hidden(CHANNEL)}
    seen["threads"], seen["messages"] = {}, []
    return GuildTruth((view(state()), view(seen, app=OTHER, bot=BOB, intents=UNTOLD_OF_MEMBERS)))


def test_a_shared_namespace_holds_what_any_bot_sees() -> None:
    truth = shared_truth()
    assert found(cache_of(truth), truth) == {}
    assert found(cache_of(truth), GuildTruth(truth.views[::-1])) == {}


def test_a_shared_namespace_without_what_one_bot_sees_is_found() -> None:
    truth, cached = shared_truth(), cache_of(shared_truth())
    cached.collections["channels"][GUILD][CHANNEL] = hidden(CHANNEL) | {"guild_id": GUILD}
    cached.collections["threads"][GUILD].clear()
    cached.messages[GUILD].clear()
    assert found(cached, truth) == {"channels": 1, "threads": 1, "messages": 3}


def test_the_cache_must_not_hold_what_no_bot_sees() -> None:
    seen = state()
    seen["channels"] = seen["channels"] | {CHANNEL: hidden(CHANNEL)}
    seen["threads"], seen["messages"] = {}, []
    cached = cache_of(GuildTruth((view(state()),)))
    assert found(cached, GuildTruth((view(seen),))) == {"channels": 1, "threads": 1, "messages": 3}


def test_without_members_intent_only_unsent_values_are_not_checked() -> None:
    truth = GuildTruth((view(state(), intents=UNTOLD_OF_MEMBERS),))
    cached = cache_of(truth)
    cached.collections["presences"][GUILD].clear()
    cached.collections["members"][GUILD][ADA]["nick"] = "of last week"
    cached.collections["threads"][GUILD][THREAD]["member_count"] = 9
    cached.guilds[GUILD]["member_count"] = 9
    assert found(cached, truth) == {}
    cached.collections["members"][GUILD][BOT]["nick"] = "not me"
    cached.collections["threads"][GUILD][THREAD]["name"] = "wrong"
    cached.guilds[GUILD]["name"] = "wrong"
    assert found(cached, truth) == {"members": 1, "threads": 1, "guild": 1}


def test_after_a_resync_only_two_counters_are_not_checked(truth: GuildTruth) -> None:
    resynced = GuildTruth((replace(truth.views[0], was_resynced=True),))
    cached = cache_of(truth)
    cached.collections["events"][GUILD]["6200"]["user_count"] = 2
    cached.collections["threads"][GUILD][THREAD]["message_count"] = 9
    assert found(cached, resynced) == {}
    assert found(cached, truth) == {"events": 1, "threads": 1}
    cached.collections["events"][GUILD]["6200"]["name"] = "wrong"
    cached.collections["threads"][GUILD][THREAD]["name"] = "wrong"
    assert found(cached, resynced) == {"events": 1, "threads": 1}
    del cached.collections["events"][GUILD]["6200"]
    assert found(cached, resynced) == {"events": 1, "threads": 1}


def test_a_thread_that_one_bot_with_members_intent_sees_has_the_right_count() -> None:
    truth, cached = shared_truth(), cache_of(shared_truth())
    cached.collections["threads"][GUILD][THREAD]["member_count"] = 9
    assert found(cached, truth) == {"threads": 1}


def test_messages_of_an_unknown_channel_are_found(truth: GuildTruth) -> None:
    cached = cache_of(truth)
    cached.collections["channels"][GUILD]["2002"] = channel("2002", guild_id=GUILD)
    assert found(cached, truth) == {"channels": 1}
