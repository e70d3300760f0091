"""Arguments of Cache: each error is explained, and no message contains a secret."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandwich_sdk.cache import Cache, Tls
from sandwich_sdk.cache.address import Address
from sandwich_sdk.cache.snowflake import is_snowflake, snowflake, snowflakes
from sandwich_sdk.cache.testing import FakeCache
from sandwich_sdk.wire import cache_keys

SECRET = "hunter2"


@pytest.mark.parametrize(
    "value", [0, -1, 1 << 64, True, "", "0", "01", "12a", "１２", " 1", "1\n", "9" * 21, None, 1.5, b"1"]
)
def test_an_invalid_snowflake_is_refused_by_name(value: object) -> None:
    with pytest.raises(ValueError, match=r"guild .* is not a Discord id"):
        snowflake(value, what="guild")  # type: ignore[arg-type]


@given(value=st.integers(1, (1 << 64) - 1))
def test_a_snowflake_may_be_a_number_or_a_string(value: int) -> None:
    assert snowflake(value) == snowflake(str(value)) == str(value)


def test_a_long_wrong_id_is_shortened_in_the_message() -> None:
    with pytest.raises(ValueError) as failed:
        snowflake("x" * 10_000)
    assert len(str(failed.value)) < 80


@given(values=st.lists(st.binary()))
def test_members_of_a_set_that_are_not_ids_are_left_out(values: list[bytes]) -> None:
    found = snowflakes([*values, b"20", b"3"])
    assert {"3", "20"} <= set(found)
    assert all(map(is_snowflake, found))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "starts with redis://"),
        ("http://h", "starts with redis://"),
        (f"redis://u:{SECRET}@", "names no server"),
        ("unix://", "names no server"),
        (f"redis://u:{SECRET}/x@h:1", "cannot be read"),
        (f"redis://:{SECRET}@h:port", "cannot be read"),
        (f"redis://:{SECRET}@h:99999", "cannot be read"),
        (f"redis://:{SECRET}@h/zero", "is a number"),
        (f"redis://h?password={SECRET}", "takes no options"),
        ("redis://h?ssl_cert_reqs=none", "takes no options"),
    ],
)
def test_a_url_that_cannot_be_used_is_explained_without_its_secret(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as failed:
        Cache(url, namespace="music")
    assert SECRET not in str(failed.value)


def test_a_url_is_parsed() -> None:
    one = Address.parse(f"rediss://ada:{SECRET}%40%2F@redis.example:7000/3")
    assert (one.server, one.host, one.port, one.db, one.is_tls) == (
        "redis.example:7000",
        "redis.example",
        7000,
        3,
        True,
    )
    assert (one.username, one.password) == ("ada", f"{SECRET}@/")
    assert SECRET not in repr(one)
    assert Address.parse("redis://[::1]").server == "[::1]:6379"
    socket = Address.parse("unix:///run/redis.sock?db=2")
    assert (socket.server, socket.path, socket.db) == ("/run/redis.sock", "/run/redis.sock", 2)


@pytest.mark.parametrize("namespace", ["", "Music", "a b", "a:b", "{a}", "a*", "a" * 33, "-a", "é"])
def test_a_namespace_that_could_change_a_key_is_refused(namespace: str) -> None:
    with pytest.raises(ValueError, match="cache namespace"):
        Cache(namespace=namespace)
    with pytest.raises(ValueError, match="cache namespace"):
        FakeCache().in_namespace(namespace)


@pytest.mark.parametrize("arguments", [{"timeout": 0}, {"connections": 0}, {"scan_timeout": 0}, {"tls": Tls()}])
def test_invalid_arguments_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Cache(namespace="music", **arguments)  # type: ignore[arg-type]


def test_a_missing_certificate_is_named() -> None:
    with pytest.raises(ValueError, match=r"the file nowhere\.pem"):
        Cache("rediss://h", namespace="music", tls=Tls(ca="nowhere.pem"))


async def test_every_method_refuses_an_invalid_id() -> None:
    cache = FakeCache()
    for question in (
        cache.guild, cache.guilds, cache.guild_apps, cache.sizes, cache.channels, cache.threads, cache.roles,
        cache.emojis, cache.stickers, cache.voice_states, cache.scheduled_events, cache.stages, cache.sounds,
        cache.members, cache.user, cache.mutual_guilds,
    ):  # fmt: skip
        with pytest.raises(ValueError, match="is not a Discord id"):
            await question("1; DROP")
    for one in (
        cache.channel, cache.thread, cache.role, cache.emoji, cache.sticker, cache.voice_state, cache.presence,
        cache.scheduled_event, cache.member, cache.permissions,
    ):  # fmt: skip
        for ids in (("x", "1"), ("1", "x")):
            with pytest.raises(ValueError, match="is not a Discord id"):
                await one(*ids)
    for app in ("", "A", "a*"):
        with pytest.raises(ValueError, match="application"):
            await cache.where_is_guild("1", app)
        with pytest.raises(ValueError, match="application"):
            await cache.mutual_guilds("1", app=app)


async def test_limits_are_checked() -> None:
    cache = FakeCache()
    for limit in (0, 1001):
        with pytest.raises(ValueError, match="1 to 1000"):
            await cache.members("1", limit=limit)
        with pytest.raises(ValueError, match="1 to 1000"):
            await cache.messages("1", "2", limit=limit)
    with pytest.raises(ValueError, match="at most 1000"):
        await cache.members("1", ids=range(1, 1002))
    with pytest.raises(ValueError, match="either ids or query"):
        await cache.members("1", ids=[1], query="a")


@given(text=st.text() | st.from_regex(r"\d{0,3}:\d{0,3}"))
def test_a_location_is_two_numbers_or_refused(text: str) -> None:
    try:
        group, shard = cache_keys.parse_location(text)
    except ValueError:
        return
    assert cache_keys.parse_location(cache_keys.location(group, shard)) == (group, shard)


def test_a_collection_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="'apps' is not a collection"):
        cache_keys.collection_key("music", 1, "apps")
