"""To which invite joins are attributed. Virtual time."""

from typing import Any

import pytest

from sandwich_node.invites.attribution import ByInvite, Reason, Unknown
from sandwich_node.invites.invite_counts import JOINS_MAX, LAG_S, SETTLE_S
from sandwich_node.invites.tracker import DENIED_S, QUIET_S, ROUND_MAX_S
from sandwich_node.invites.wire import VANITY

from .discord_model import ME, Delays, Guild, Model

APART_S = LAG_S + 1.0


def known(model: Model, **fields: Any) -> Guild:
    """A guild whose counts are known."""
    guild = model.add_guild(**fields)
    model.run(1.0)
    return guild


def test_a_join_is_attributed_to_the_invite_whose_count_rose() -> None:
    model = Model()
    guild = model.add_guild()
    model.make(guild, "a", uses=3, announced=False)
    model.make(guild, "b", uses=5, announced=False)
    model.run(1.0)
    user = model.join(guild, "b")
    model.run(1.0)
    attribution = model.reported[user]
    assert isinstance(attribution, ByInvite)
    assert (attribution.invite.code, attribution.invite.inviter and attribution.invite.inviter.id) == ("b", "by-b")
    assert (attribution.vanity, attribution.last_use) == (False, False)


def test_an_attribution_takes_one_request_and_the_time_to_settle() -> None:
    model = Model(delays=Delays(event_s=0.0))
    guild = known(model)
    model.make(guild, "a")
    user = model.join(guild, "a")
    requests = len(model.requests)
    model.run(model.delays.answer_s + SETTLE_S - 0.001)
    assert user not in model.reported
    model.run(0.002)
    assert model.code_reported(user) == "a"
    assert len(model.requests) == requests + 1


def test_a_join_by_the_vanity_url_is_reported_as_vanity() -> None:
    model = Model()
    guild = known(model, vanity="disc")
    user = model.join(guild, VANITY)
    model.run(1.0)
    attribution = model.reported[user]
    assert isinstance(attribution, ByInvite)
    assert (attribution.vanity, attribution.invite.code) == (True, "disc")


@pytest.mark.parametrize(
    ("bot", "manages", "reason"),
    [(True, True, Reason.BOT), (False, False, Reason.NO_PERMISSION), (False, True, Reason.NO_INVITE)],
)
def test_a_join_that_no_invite_explains_says_why(bot: bool, manages: bool, reason: Reason) -> None:
    model = Model()
    guild = known(model, manages=manages)
    requests = len(model.requests)
    user = model.join(guild, bot=bot)
    model.run(1.0)
    assert model.reason(user) is reason
    assert len(model.requests) - requests == (reason is Reason.NO_INVITE)


def test_no_request_is_sent_for_a_guild_that_the_bot_may_not_manage() -> None:
    model = Model()
    guild = known(model, manages=False)
    model.join(guild)
    model.run(10.0)
    assert model.requests == []
    model.event("GUILD_ROLE_UPDATE", {"guild_id": "1", "role": {"id": "77", "permissions": "8"}})
    model.run(1.0)
    assert len(model.requests) == 1
    model.event("GUILD_MEMBER_UPDATE", {"guild_id": "1", "user": {"id": ME}, "roles": []})
    user = model.join(guild)
    model.run(1.0)
    assert model.reason(user) is Reason.NO_PERMISSION
    assert len(model.requests) == 1


@pytest.mark.parametrize(
    ("name", "d"),
    [
        ("GUILD_ROLE_DELETE", {"guild_id": "1", "role_id": "77"}),
        ("GUILD_UPDATE", {"id": "1", "owner_id": "5", "roles": []}),
        ("GUILD_ROLE_UPDATE", {"guild_id": "1", "role": {"id": "77", "permissions": "16"}}),
    ],
)
def test_the_permission_is_lost_with_the_role_that_granted_it(name: str, d: dict[str, Any]) -> None:
    model = Model()
    guild = known(model)
    model.event(name, d)
    user = model.join(guild)
    model.run(1.0)
    assert model.reason(user) is Reason.NO_PERMISSION


def test_the_owner_has_the_permission_and_the_role_of_all_members_can_grant_it() -> None:
    for change in ({"owner_id": ME}, {"roles": [{"id": "1", "permissions": "32"}]}):
        model = Model()
        model.add_guild(manages=False)
        model.event("GUILD_CREATE", model.guild_json(model.guilds["1"], manages=False) | change)
        model.run(1.0)
        assert len(model.requests) == 1


def test_a_refusal_that_was_not_expected_is_remembered() -> None:
    model = Model()
    guild = known(model)
    model.failing = lambda request: (Reason.NO_PERMISSION, 0.0)
    first = model.join(guild)
    model.run(1.0)
    second, requests = model.join(guild), len(model.requests)
    model.run(1.0)
    assert (model.reason(first), model.reason(second)) == (Reason.NO_PERMISSION, Reason.NO_PERMISSION)
    assert len(model.requests) == requests
    model.run(DENIED_S)
    model.join(guild)
    model.run(1.0)
    assert len(model.requests) == requests + 1


@pytest.mark.parametrize("delete_first", [False, True])
def test_the_last_use_of_an_invite_is_inferred_from_its_deletion(delete_first: bool) -> None:
    model = Model()
    guild = known(model)
    model.make(guild, "once", max_uses=1)
    user = model.join(guild, "once", delete_first=delete_first)
    model.run(1.0)
    attribution = model.reported[user]
    assert isinstance(attribution, ByInvite)
    assert (attribution.invite.code, attribution.last_use) == ("once", True)
    model.run(APART_S)
    other = model.join(guild)
    model.run(1.0)
    assert model.reason(other) is Reason.NO_INVITE


def test_an_invite_that_is_gone_for_another_reason_is_only_a_candidate() -> None:
    model = Model()
    guild = known(model)
    model.make(guild, "a", max_uses=5)
    model.run(1.0)
    model.delete(guild, "a")
    user = model.join(guild)
    model.run(1.0)
    assert model.reported[user] == Unknown(Reason.INVITE_GONE, ("a",))


def test_an_invite_deleted_long_before_has_nothing_to_do_with_a_join() -> None:
    model = Model()
    guild = known(model)
    model.make(guild, "a", max_uses=1)
    model.run(1.0)
    model.delete(guild, "a")
    model.run(1.0)
    user = model.join(guild)
    model.run(1.0)
    assert model.reason(user) is Reason.NO_INVITE


def test_an_invite_gone_without_an_event_is_only_a_candidate_even_with_one_use_left() -> None:
    model = Model()
    guild = known(model)
    model.make(guild, "a", max_uses=1)
    model.run(1.0)
    model.delete(guild, "a", announced=False)
    user = model.join(guild)
    model.run(1.0)
    assert model.reported[user] == Unknown(Reason.INVITE_GONE, ("a",))


def test_an_expiry_without_an_event_explains_no_later_join() -> None:
    model = Model()
    guild = known(model)
    model.make(guild, "a", max_uses=1, age_s=10)
    model.run(30.0)
    user = model.join(guild)
    model.run(1.0)
    assert model.reason(user) is Reason.NO_INVITE


def test_an_invite_that_expired_just_now_is_a_candidate() -> None:
    model = Model()
    guild = known(model)
    model.make(guild, "a", age_s=10)
    model.run(9.99)
    user = model.join(guild, "a")
    model.run(1.0)
    assert model.reported[user] == Unknown(Reason.INVITE_GONE, ("a",))


@pytest.mark.parametrize("error_s", [-1000.0, 1000.0])
def test_with_a_clock_that_is_wrong_no_code_is_wrong(error_s: float) -> None:
    model = Model()
    model.clock_error_s = error_s
    guild = known(model)
    model.make(guild, "a", age_s=100)
    first = model.join(guild, "a")
    model.run(APART_S)
    second = model.join(guild)
    model.run(1.0)
    assert model.code_reported(first) == "a"
    assert model.reason(second) is Reason.NO_INVITE


def test_an_invite_used_before_its_invite_create_arrives_is_still_attributed() -> None:
    model = Model()
    guild = known(model)
    model.make(guild, "new", announced=False)
    user = model.join(guild, "new")
    model.event("INVITE_CREATE", model.invite_json(guild, guild.invites["new"]))
    model.run(APART_S)
    again = model.join(guild, "new")
    model.run(1.0)
    assert (model.code_reported(user), model.code_reported(again)) == ("new", "new")


def test_an_invite_created_during_a_request_does_not_count_as_gone() -> None:
    model = Model(delays=Delays(event_s=0.0, read_s=0.01, answer_s=0.1))
    guild = known(model)
    first = model.join(guild)
    model.at(model.now + 0.05, lambda: model.make(guild, "late"))
    model.run(1.0)
    assert model.reason(first) is Reason.NO_INVITE
    model.run(APART_S)
    second = model.join(guild, "late")
    model.run(1.0)
    assert model.code_reported(second) == "late"


def test_several_joins_by_one_invite_are_all_attributed_with_few_requests() -> None:
    model = Model()
    guild = known(model)
    model.make(guild, "raid")
    requests = len(model.requests)
    users = [model.join(guild, "raid") for _ in range(50)]
    model.run(2.0)
    assert {model.code_reported(user) for user in users} == {"raid"}
    assert len(model.requests) - requests <= 2


def test_several_joins_at_once_by_several_invites_are_ambiguous() -> None:
    model = Model()
    guild = known(model)
    model.make(guild, "a")
    model.make(guild, "b")
    users = [model.join(guild, code) for code in ("a", "b")]
    model.run(2.0)
    for user in users:
        attribution = model.reported[user]
        assert isinstance(attribution, Unknown)
        assert (attribution.reason, set(attribution.candidates)) == (Reason.AMBIGUOUS, {"a", "b"})


def test_answers_in_between_distinguish_joins_in_short_succession() -> None:
    model = Model(delays=Delays(event_s=0.0, read_s=0.01, answer_s=0.1))
    guild = known(model)
    model.make(guild, "a")
    model.make(guild, "b")
    first = model.join(guild, "a")
    model.run(0.05)
    second = model.join(guild, "b")
    model.run(1.0)
    assert (model.code_reported(first), model.code_reported(second)) == ("a", "b")


def test_a_join_whose_event_arrives_after_the_answer_causes_no_wrong_code() -> None:
    model = Model(delays=Delays(event_s=0.0, read_s=0.05, answer_s=0.06))
    guild = known(model)
    model.make(guild, "a")
    model.run(1.0)
    first = model.join(guild)
    model.run(0.04)
    model.delays.event_s = SETTLE_S * 0.9
    second = model.join(guild, "a")
    model.run(2.0)
    assert model.reported[first] == Unknown(Reason.AMBIGUOUS, ("a",))
    assert model.code_reported(second) is None


def test_more_uses_than_joins_give_no_join_a_code() -> None:
    model = Model()
    guild = known(model)
    model.make(guild, "a")
    model.make(guild, "b")
    model.run(1.0)
    guild.invites["b"] = guild.invites["a"]
    model.make(guild, "b", uses=2, announced=False)
    user = model.join(guild, "a")
    model.run(1.0)
    assert model.reason(user) is Reason.AMBIGUOUS


def test_a_count_that_rises_late_is_attributed_to_no_join() -> None:
    model = Model(delays=Delays(lag_s=1.5))
    guild = model.add_guild()
    model.make(guild, "a", announced=False)
    model.run(5.0)
    first = model.join(guild, "a")
    model.run(10.0)
    second = model.join(guild)
    model.run(5.0)
    assert model.reason(first) is Reason.NO_INVITE
    assert model.reason(second) is Reason.NO_INVITE
    model.delays.lag_s = 0.0
    third = model.join(guild, "a")
    model.run(5.0)
    assert model.code_reported(third) == "a"


def test_before_the_counts_are_known_a_join_does_not_wait_and_its_guild_is_asked_for_first() -> None:
    model = Model()
    for number in range(20):
        model.add_guild(str(number))
    model.failing = lambda request: None
    user = model.join(model.guilds["15"])
    model.run(0.02)
    assert model.reason(user) is Reason.NO_BASELINE
    model.run(2.0)
    second = model.join(model.guilds["15"])
    model.run(1.0)
    assert model.reason(second) is Reason.NO_INVITE


def test_a_join_during_the_first_fetch_is_not_attributed_to_a_later_join() -> None:
    model = Model(delays=Delays(event_s=0.0, read_s=0.01, answer_s=0.2))
    guild = model.add_guild()
    model.make(guild, "a")
    model.run(0.05)
    model.join(guild, "a")
    model.run(3.0)
    second = model.join(guild)
    model.run(1.0)
    assert model.reason(second) is Reason.NO_INVITE


def test_a_failed_request_ends_the_wait_and_is_repeated() -> None:
    model = Model()
    guild = known(model)
    model.make(guild, "a")
    model.failing = lambda request: (Reason.RATE_LIMITED, 1.5)
    user = model.join(guild, "a")
    model.run(0.2)
    assert model.released[user] == Unknown(Reason.RATE_LIMITED)
    assert user not in model.reported
    model.failing = lambda request: None
    model.run(10.0)
    assert model.code_reported(user) == "a"


def test_a_round_is_given_up_when_discord_stays_unavailable_and_its_counts_are_not_used_later() -> None:
    model = Model()
    guild = known(model)
    model.make(guild, "a")
    model.failing = lambda request: (Reason.UNAVAILABLE, 0.0)
    lost = model.join(guild, "a")
    model.run(ROUND_MAX_S + 1)
    assert isinstance(model.reported[lost], Unknown)
    model.failing = lambda request: None
    model.run(100.0)
    user = model.join(guild)
    model.run(1.0)
    assert model.reason(user) is Reason.NO_INVITE


def test_a_raid_is_released_at_once_and_ends() -> None:
    model = Model()
    guild = known(model)
    model.make(guild, "raid")
    requests, users = len(model.requests), []
    for _ in range(400):
        users.append(model.join(guild, "raid"))
        model.run(0.005)
    assert len(model.requests) - requests <= 6
    assert all(user in model.released or user in model.reported for user in users[100:-2])
    model.run(20.0)
    assert {model.code_reported(user) for user in users} == {"raid"}


def test_an_endless_raid_is_given_up_in_time_and_in_number() -> None:
    model = Model()
    guild = known(model)
    model.make(guild, "raid")
    users = []
    for _ in range(JOINS_MAX * 2):
        users.append(model.join(guild, "raid"))
        model.run(0.03)
    model.run(60.0)
    assert all(user in model.reported for user in users)
    assert model.wrong() == []


def test_a_repeated_join_event_of_one_user_is_one_join() -> None:
    model = Model(delays=Delays(event_s=0.0))
    guild = known(model)
    model.make(guild, "a")
    user = model.join(guild, "a")
    model.event("GUILD_MEMBER_ADD", {"guild_id": "1", "user": {"id": user}, "roles": []})
    model.run(1.0)
    assert model.code_reported(user) == "a"


def test_an_outage_and_a_new_session_make_the_counts_unknown_again() -> None:
    model = Model()
    guild = known(model)
    model.make(guild, "a", announced=False)
    model.run(1.0)
    model.event("GUILD_DELETE", {"id": "1", "unavailable": True})
    model.run(1.0)
    guild.invites["a"] = guild.invites["a"]
    model.make(guild, "a", uses=1, announced=False)
    model.event("GUILD_CREATE", model.guild_json(guild))
    model.run(1.0)
    user = model.join(guild)
    model.run(1.0)
    assert model.reason(user) is Reason.NO_INVITE
    model.tracker.begin("another", ME, kept={})
    early = model.join(guild)
    model.run(1.0)
    assert model.reason(early) is Reason.NO_BASELINE


def test_a_guild_that_the_bot_left_is_forgotten_and_its_joins_are_reported() -> None:
    model = Model()
    guild = known(model)
    user = model.join(guild)
    model.run(0.02)
    model.event("GUILD_DELETE", {"id": "1"})
    model.run(1.0)
    assert model.reason(user) is Reason.INTERRUPTED


def test_the_invites_of_a_deleted_channel_are_gone_with_it() -> None:
    model = Model()
    guild = known(model)
    model.make(guild, "a")
    model.run(1.0)
    guild.invites.clear()
    model._changed(guild)
    model.event("CHANNEL_DELETE", {"id": "c1", "guild_id": "1"})
    model.run(1.0)
    user = model.join(guild)
    model.run(1.0)
    assert model.reason(user) is Reason.NO_INVITE


def test_requests_that_a_read_pause_delayed_are_sent_after_it() -> None:
    model = Model()
    model.tracker.reading_changed(model.moment, is_current=False)
    guild = model.add_guild()
    model.run(100.0)
    assert model.requests == []
    model.tracker.reading_changed(model.moment, is_current=True)
    model.run(3.0)
    user = model.join(guild)
    model.run(1.0)
    assert model.reason(user) is Reason.NO_INVITE


def test_no_round_ends_during_a_read_pause() -> None:
    model = Model(delays=Delays(event_s=0.0))
    guild = known(model)
    model.make(guild, "a")
    model.run(1.0)
    first = model.join(guild)
    model.run(0.01)
    model.tracker.reading_changed(model.moment, is_current=False)
    model._pump()
    assert model.released[first] == Unknown(Reason.TIMEOUT)
    model.delays.event_s = 6.0
    second = model.join(guild, "a")
    model.run(5.0)
    assert first not in model.reported
    model.run(1.0)
    model.tracker.reading_changed(model.moment, is_current=True)
    model.run(20.0)
    assert model.wrong() == []
    assert model.reason(first) is Reason.AMBIGUOUS
    assert second in model.reported


def test_counts_of_a_quiet_guild_are_saved_and_the_next_owner_continues_with_them() -> None:
    model = Model(persists=True)
    guild = known(model, vanity="disc")
    model.make(guild, "a", max_uses=9, age_s=5000)
    model.run(QUIET_S + 1)
    model.hand_over(replayed_s=0.0)
    by_a = model.join(guild, "a")
    model.run(APART_S)
    by_vanity = model.join(guild, VANITY)
    model.run(1.0)
    assert (model.code_reported(by_a), model.code_reported(by_vanity)) == ("a", "disc")


def test_a_join_removes_the_saved_counts_until_it_is_attributed() -> None:
    model = Model(persists=True)
    guild = known(model)
    model.make(guild, "a")
    model.run(QUIET_S + 1)
    assert model.counts_kept()
    model.join(guild, "a")
    model.run(0.02)
    assert not model.counts_kept()
    model.run(QUIET_S + 1)
    assert model.counts_kept()


def test_without_saved_counts_the_next_owner_has_no_baseline() -> None:
    model = Model(persists=True)
    guild = known(model)
    model.hand_over(replayed_s=0.0)
    user = model.join(guild)
    model.run(1.0)
    assert model.reason(user) is Reason.NO_BASELINE


@pytest.mark.parametrize("event", ["INVITE_DELETE", "CHANNEL_DELETE", "GUILD_ROLE_DELETE", "GUILD_DELETE"])
def test_an_event_that_outdates_saved_counts_removes_them(event: str) -> None:
    model = Model(persists=True)
    guild = known(model)
    model.make(guild, "a")
    model.run(QUIET_S + 1)
    d = {"guild_id": "1", "code": "a", "id": "c1", "role_id": "77"}
    model.event(event, d | ({"id": "1"} if event == "GUILD_DELETE" else {}))
    model.run(0.5)
    assert not model.counts_kept()


@pytest.mark.parametrize("kept", [b"garbage", b'{"v":1,"session":"another","counts":{}}', b'{"v":2}'])
def test_saved_counts_of_another_session_or_version_are_not_used(kept: bytes) -> None:
    model = Model(persists=True)
    guild = known(model)
    model.store["1"] = kept
    model.hand_over(replayed_s=0.0)
    user = model.join(guild)
    model.run(1.0)
    assert model.reason(user) is Reason.NO_BASELINE


def test_the_next_owner_sends_no_request_without_permission_until_the_roles_change() -> None:
    model = Model(persists=True)
    guild = known(model, manages=False)
    model.hand_over(replayed_s=0.0)
    first = model.join(guild)
    model.run(1.0)
    assert (model.reason(first), model.requests) == (Reason.NO_PERMISSION, [])
    model.event("GUILD_ROLE_UPDATE", {"guild_id": "1", "role": {"id": "77", "permissions": "0"}})
    model.run(1.0)
    assert model.requests == []
    model.event("GUILD_ROLE_UPDATE", {"guild_id": "1", "role": {"id": "77", "permissions": "32"}})
    model.run(1.0)
    second = model.join(guild)
    model.run(1.0)
    assert model.reason(second) is Reason.NO_INVITE


@pytest.mark.parametrize("joined", [False, True])
def test_the_next_owner_fetches_counts_that_were_unknown_without_waiting_for_a_join(joined: bool) -> None:
    model = Model(persists=True)
    guild = model.add_guild()
    model.make(guild, "a", announced=False)
    model.run(1.0 if joined else 0.02)
    if joined:
        model.join(guild, "a")
        model.run(0.03)
    assert not model.counts_kept()
    model.hand_over(replayed_s=0.0)
    model.run(APART_S)
    user = model.join(guild, "a")
    model.run(1.0)
    assert model.code_reported(user) == "a"


def test_the_next_owner_sends_no_request_for_a_guild_that_the_bot_left() -> None:
    model = Model(persists=True)
    known(model)
    model.event("GUILD_DELETE", {"id": "1"})
    model.run(1.0)
    assert model.store == {}


def test_role_changes_that_grant_nothing_cause_no_further_request() -> None:
    model = Model()
    guild = known(model)
    model.failing = lambda request: (Reason.NO_PERMISSION, 0.0)
    model.join(guild)
    model.run(1.0)
    requests = len(model.requests)
    for _ in range(50):
        model.event("GUILD_ROLE_UPDATE", {"guild_id": "1", "role": {"id": "77", "permissions": "32"}})
        model.event("GUILD_UPDATE", model.guild_json(guild))
        model.join(guild)
        model.run(1.0)
    assert len(model.requests) == requests


def test_a_join_before_its_guild_create_is_reported_as_well() -> None:
    model = Model()
    guild = Guild("1")
    model.guilds["1"] = guild
    user = model.join(guild)
    model.event("GUILD_CREATE", model.guild_json(guild))
    model.run(APART_S)
    second = model.join(guild)
    model.run(1.0)
    assert (model.reason(user), model.reason(second)) == (Reason.NO_BASELINE, Reason.NO_INVITE)


def test_a_discord_that_is_unavailable_for_days_receives_few_requests() -> None:
    model = Model()
    guild = known(model)
    model.failing = lambda request: (Reason.UNAVAILABLE, 0.0)
    requests = len(model.requests)
    model.join(guild)
    model.run(2 * 86400.0)
    assert 2000 < len(model.requests) - requests < 3000


def test_joins_that_wait_when_the_shard_moves_are_reported_as_interrupted() -> None:
    model = Model(persists=True)
    guild = known(model)
    user = model.join(guild)
    model.run(0.02)
    model.tracker.hand_over(model.moment)
    model.run(60.0)
    assert (model.reason(user), len(model.requests)) == (Reason.INTERRUPTED, 2)
    assert not model.counts_kept()


def test_the_owner_that_hands_over_saves_its_counts_at_once() -> None:
    model = Model(persists=True)
    known(model)
    assert not model.counts_kept()
    model.tracker.hand_over(model.moment)
    model._pump()
    assert model.counts_kept()
