"""Permissions: cases from Discord's documentation, and a comparison with discord.py for generated guilds."""

import functools
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import discord
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sandwich_sdk.cache import Permissions
from sandwich_sdk.cache.permissions import ALL, TIMED_OUT
from sandwich_sdk.cache.testing import FakeCache

GUILD, OWNER, USER, BOT = "100", "1", "2", "3"
NOW = datetime(2026, 5, 1, tzinfo=UTC)
P = Permissions
ROLES = ("101", "102", "103")
TEXT, VOICE, CATEGORY, NEWS, STAGE, FORUM = 0, 2, 4, 5, 13, 15
PUBLIC_THREAD = 11
THREADED = (TEXT, NEWS, FORUM)
CHANNEL, THREAD = "200", "300"


def role(role_id: str, permissions: int) -> dict[str, Any]:
    colors = {"primary_color": 0, "secondary_color": None, "tertiary_color": None}
    made = {"id": role_id, "name": role_id, "permissions": str(int(permissions)), "position": int(role_id) - 100}
    return made | {"color": 0, "colors": colors, "hoist": False, "managed": False, "mentionable": False, "flags": 0}


def overwrite(of: str, kind: int, *, allow: int = 0, deny: int = 0) -> dict[str, Any]:
    return {"id": of, "type": kind, "allow": str(int(allow)), "deny": str(int(deny))}


def guild(
    *,
    everyone: int = 0,
    roles: Mapping[str, int] | None = None,
    has: tuple[str, ...] = (),
    overwrites: tuple[dict[str, Any], ...] = (),
    kind: int = TEXT,
    flags: int = 0,
    until: datetime | None = None,
) -> dict[str, Any]:
    """A GUILD_CREATE with one channel, one thread in it, and one member under test."""
    channel = {
        "id": CHANNEL,
        "type": kind,
        "name": "c",
        "position": 0,
        "flags": flags,
        "parent_id": None,
        "bitrate": 64000,
        "user_limit": 0,
    }
    in_channel = {
        "id": THREAD,
        "type": PUBLIC_THREAD,
        "name": "t",
        "parent_id": CHANNEL,
        "owner_id": OWNER,
        "guild_id": GUILD,
        "message_count": 0,
        "member_count": 1,
        "rate_limit_per_user": 0,
    }
    in_channel |= {"thread_metadata": {"archived": False, "auto_archive_duration": 60, "archive_timestamp": str(NOW)}}
    member: dict[str, Any] = {"roles": list(has), "joined_at": None, "flags": 0, "deaf": False, "mute": False}
    people = [
        member | {"user": {"id": who, "username": who, "discriminator": "0", "avatar": None}} for who in (OWNER, BOT)
    ]
    user = {"id": USER, "username": "u", "discriminator": "0", "avatar": None}
    people.append(member | {"user": user, "communication_disabled_until": until and until.isoformat()})
    return {
        "id": GUILD,
        "name": "g",
        "owner_id": OWNER,
        "member_count": 3,
        "roles": [role(GUILD, everyone), *(role(one, bits) for one, bits in (roles or {}).items())],
        "channels": [channel | {"permission_overwrites": list(overwrites)}],
        "threads": [in_channel],
        "members": people,
    }


async def ask(made: dict[str, Any], channel: str | None = CHANNEL, user: str = USER) -> Permissions | None:
    cache = FakeCache()
    cache.put_guild(made)
    return await cache.permissions(GUILD, user, channel, now=NOW)


async def test_roles_add_up_to_what_everyone_may_do() -> None:
    made = guild(everyone=P.VIEW_CHANNEL, roles={"101": P.KICK_MEMBERS, "102": P.BAN_MEMBERS}, has=("101",))
    assert await ask(made, None) == P.VIEW_CHANNEL | P.KICK_MEMBERS


@pytest.mark.parametrize("channel", [None, CHANNEL, THREAD])
async def test_the_owner_may_do_everything_and_so_may_an_administrator(channel: str | None) -> None:
    denied = (overwrite(GUILD, 0, deny=ALL), overwrite(USER, 1, deny=ALL))
    assert await ask(guild(overwrites=denied), channel, OWNER) == ALL
    assert await ask(guild(overwrites=denied, roles={"101": P.ADMINISTRATOR}, has=("101",)), channel) == ALL
    assert await ask(guild(overwrites=denied, everyone=P.ADMINISTRATOR, until=NOW + timedelta(1)), channel) == ALL


async def test_overwrites_apply_in_order_everyone_then_roles_then_the_member() -> None:
    base = P.VIEW_CHANNEL | P.SEND_MESSAGES | P.ADD_REACTIONS
    one_role = (overwrite(GUILD, 0, deny=P.ADD_REACTIONS), overwrite("101", 0, allow=P.ADD_REACTIONS))
    made = guild(everyone=base, roles={"101": 0, "102": 0}, has=("101", "102"), overwrites=one_role)
    assert await ask(made) == base
    # Among roles an allow wins over a deny, whatever the order of the roles.
    two_roles = (*one_role, overwrite("102", 0, deny=P.ADD_REACTIONS))
    assert await ask(guild(everyone=base, roles={"101": 0, "102": 0}, has=("101", "102"), overwrites=two_roles)) == base
    mine = (*two_roles, overwrite(USER, 1, deny=P.ADD_REACTIONS))
    made = guild(everyone=base, roles={"101": 0, "102": 0}, has=("101", "102"), overwrites=mine[::-1])
    assert await ask(made) == base & ~P.ADD_REACTIONS


async def test_an_overwrite_of_another_member_or_of_a_role_not_held_changes_nothing() -> None:
    strange = (overwrite("101", 0, deny=ALL), overwrite(BOT, 1, deny=ALL), overwrite(USER, 0, deny=ALL))
    assert await ask(guild(everyone=P.VIEW_CHANNEL, roles={"101": 0}, overwrites=strange)) == P.VIEW_CHANNEL


async def test_a_member_who_does_not_see_a_channel_has_no_permissions_there() -> None:
    made = guild(everyone=ALL & ~P.ADMINISTRATOR, overwrites=(overwrite(GUILD, 0, deny=P.VIEW_CHANNEL),))
    found = await ask(made)
    assert found is not None
    assert not found & (P.SEND_MESSAGES | P.CONNECT | P.MANAGE_CHANNELS | P.ADD_REACTIONS)
    assert found & P.BAN_MEMBERS


async def test_a_member_who_cannot_send_cannot_mention_everyone_attach_or_embed() -> None:
    sending = P.MENTION_EVERYONE | P.ATTACH_FILES | P.EMBED_LINKS | P.SEND_TTS_MESSAGES
    made = guild(everyone=P.VIEW_CHANNEL | P.ADD_REACTIONS | sending)
    assert await ask(made) == P.VIEW_CHANNEL | P.ADD_REACTIONS


@pytest.mark.parametrize("kind", [VOICE, STAGE])
async def test_a_member_who_cannot_connect_cannot_manage_a_voice_channel(kind: int) -> None:
    everyone = P.VIEW_CHANNEL | P.SPEAK | P.MANAGE_CHANNELS | P.MANAGE_ROLES | P.SEND_MESSAGES
    assert await ask(guild(everyone=everyone, kind=kind)) == P.VIEW_CHANNEL | P.SEND_MESSAGES
    assert await ask(guild(everyone=everyone | P.CONNECT, kind=kind)) == everyone | P.CONNECT


async def test_a_thread_has_its_parents_permissions_except_for_sending() -> None:
    everyone = P.VIEW_CHANNEL | P.SEND_MESSAGES | P.ATTACH_FILES | P.ADD_REACTIONS
    assert await ask(guild(everyone=everyone), THREAD) == P.VIEW_CHANNEL | P.ADD_REACTIONS
    both = guild(everyone=everyone | P.SEND_MESSAGES_IN_THREADS)
    assert await ask(both, THREAD) == (everyone | P.SEND_MESSAGES_IN_THREADS) & ~P.SEND_MESSAGES
    hidden = guild(everyone=everyone, overwrites=(overwrite(GUILD, 0, deny=P.VIEW_CHANNEL),))
    assert await ask(hidden, THREAD) == P(0)


async def test_a_time_out_leaves_only_seeing_and_reading_until_it_ends() -> None:
    everyone = TIMED_OUT | P.SEND_MESSAGES | P.KICK_MEMBERS
    for channel in (None, CHANNEL):
        assert await ask(guild(everyone=everyone, until=NOW + timedelta(seconds=1)), channel) == TIMED_OUT
        assert await ask(guild(everyone=everyone, until=NOW), channel) == everyone


async def test_unknown_permissions_are_none_and_not_denied() -> None:
    everything = guild(everyone=P.VIEW_CHANNEL)
    assert await ask(everything, "999") is None
    assert await ask(everything, "999", OWNER) is None
    assert await ask(everything, CHANNEL, "999") is None
    assert await ask(everything | {"owner_id": None}) is None
    assert await ask(everything | {"roles": []}) is None
    assert await ask(everything | {"channels": []}, THREAD) is None
    assert await FakeCache().permissions(GUILD, USER) is None


@pytest.mark.parametrize("channel", [CHANNEL, THREAD])
async def test_a_channel_that_discord_hides_from_the_bot_gives_no_result_for_other_members(channel: str) -> None:
    redacted = (overwrite(GUILD, 0, deny=P.VIEW_CHANNEL),)
    hidden = guild(everyone=P.VIEW_CHANNEL, overwrites=redacted, flags=1 << 17)
    assert await ask(hidden, channel) is None
    assert await ask(hidden, channel, OWNER) == ALL
    boss = guild(roles={"101": P.ADMINISTRATOR}, has=("101",), overwrites=redacted, flags=1 << 17)
    assert await ask(boss, channel) == ALL


async def test_bits_that_this_version_does_not_know_are_kept() -> None:
    new = 1 << 60
    made = guild(everyone=P.VIEW_CHANNEL | P.ATTACH_FILES | new, kind=VOICE)
    assert await ask(made) == P.VIEW_CHANNEL | new
    assert await ask(made, THREAD) == P.VIEW_CHANNEL | new


async def test_a_role_that_was_deleted_adds_no_permissions() -> None:
    made = guild(everyone=P.VIEW_CHANNEL, has=("101",), overwrites=(overwrite("101", 0, allow=P.SEND_MESSAGES),))
    assert await ask(made) == P.VIEW_CHANNEL


def test_permissions_keep_unknown_bits_and_are_named_as_discord_names_them() -> None:
    assert (P.VIEW_CHANNEL | P.SPEAK | 1 << 60).names() == ["VIEW_CHANNEL", "SPEAK"]


# --- discord.py -------------------------------------------------------------------------------------------------

DISCORD_PY_KNOWS = discord.Permissions.all().value
NOT_IN_TEXT = discord.Permissions.voice().value

bits = st.one_of(st.just(0), st.integers(0, (1 << 53) - 1), st.sets(st.sampled_from(list(P)), max_size=6).map(sum))
kinds = st.sampled_from([TEXT, VOICE, CATEGORY, NEWS, STAGE, FORUM])


@st.composite
def guilds(draw: st.DrawFn) -> dict[str, Any]:
    administrator = P.ADMINISTRATOR if draw(st.integers(0, 9)) == 0 else 0
    roles = {one: (draw(bits) & ~P.ADMINISTRATOR) | administrator for one in ROLES}
    targets = st.sampled_from([(GUILD, 0), (USER, 1), (OWNER, 1), (BOT, 1), *((one, 0) for one in ROLES)])
    chosen = draw(st.lists(targets, unique=True, max_size=6))
    return guild(
        everyone=draw(bits) & ~P.ADMINISTRATOR,
        roles=roles,
        has=tuple(draw(st.lists(st.sampled_from(ROLES), unique=True))),
        overwrites=tuple(overwrite(of, kind, allow=draw(bits), deny=draw(bits)) for of, kind in chosen),
        kind=draw(kinds),
        # discord.py compares with the clock.
        until=draw(st.sampled_from([None, datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)])),
    )


@functools.cache
def discord_py_state() -> Any:
    state = discord.Client(intents=discord.Intents.all())._connection
    user = {"id": BOT, "username": "b", "discriminator": "0", "avatar": None}
    state.user = discord.ClientUser(state=state, data=user)  # type: ignore[arg-type]
    return state


def second_opinion(made: dict[str, Any], channel: str | None, user: str) -> int:
    theirs = discord.Guild(data=made, state=discord_py_state())  # type: ignore[arg-type]
    member = theirs.get_member(int(user))
    assert member is not None
    if channel is None:
        found = member.guild_permissions
    else:
        where = theirs.get_channel_or_thread(int(channel))
        assert where is not None
        found = where.permissions_for(member)
        if isinstance(where, discord.CategoryChannel):
            # discord.py stops after the overwrites.
            where._apply_implicit_permissions(found)
    return found.value


@given(made=guilds(), channel=st.sampled_from([None, CHANNEL, THREAD]), user=st.sampled_from([OWNER, USER]))
@settings(max_examples=200, deadline=None)
async def test_discord_py_gives_the_same_result(made: dict[str, Any], channel: str | None, user: str) -> None:
    kind = made["channels"][0]["type"]
    assume(channel != THREAD or kind in THREADED)
    cache = FakeCache()
    cache.put_guild(made)
    ours = await cache.permissions(GUILD, user, channel)
    assert ours is not None
    theirs = second_opinion(made, channel, user)
    ignored = ~DISCORD_PY_KNOWS
    if channel is not None:
        # discord.py leaves these in a channel that is not seen; Discord's table gives them channel types.
        ignored |= int(P.CREATE_EVENTS | P.MANAGE_EVENTS | P.SET_VOICE_CHANNEL_STATUS)
        if channel == CHANNEL and kind in THREADED:
            # discord.py leaves out permissions that a kind of channel does not have.
            ignored |= NOT_IN_TEXT
        if kind in (VOICE, STAGE):
            # Has an effect only in a call; discord.py keeps it without CONNECT.
            ignored |= int(P.REQUEST_TO_SPEAK)
        if channel == THREAD:
            # discord.py gives a thread the permissions of its parent.
            ignored |= int(P.SEND_MESSAGES)
    assert int(ours) & ~ignored == theirs & ~ignored, P(int(ours) ^ theirs & ~ignored).names()
