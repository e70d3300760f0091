"""A writer to etcd without the cluster key cannot choose where secrets are sent."""

from typing import Any

import msgspec
import pytest

from sandwich_coordinator.config import (
    ApiSettings,
    ClusterSettings,
    DiscordLoginSettings,
    DiscordSettings,
    NatsSettings,
    RedisSettings,
)
from sandwich_coordinator.gateway_trust import gateway_refusal
from sandwich_coordinator.sealing import ClusterKey, SealingError
from sandwich_coordinator.trust import (
    NotAuthenticated,
    api_proof_of,
    check_settings,
    key_id_of,
    proof_of,
)

KEY = ClusterKey.generate()
DISCORD = "https://discord.com/api/v10"
SIMULATOR = "http://127.0.0.1:8080/api/v10"


def proved(cluster: str = "default", key: ClusterKey = KEY) -> ClusterSettings:
    settings = ClusterSettings(
        nats=NatsSettings(servers=["nats://n1:4222", "nats://n2:4222"], user="node", password="v1:x:y"),
        redis=RedisSettings(url="redis://r:6379/0", tls_ca="/ca.pem"),
        discord=DiscordSettings(api_url=DISCORD),
    )
    return msgspec.structs.replace(settings, proof=proof_of(settings, cluster, key))


def changed(section: str, **fields: Any) -> ClusterSettings:
    settings = proved()
    part = msgspec.structs.replace(getattr(settings, section), **fields)
    return msgspec.structs.replace(settings, **{section: part})


def test_settings_that_were_applied_with_the_key_are_accepted_from_etcd() -> None:
    stored = ClusterSettings.decode(proved().encode())
    check_settings(stored, "default", KEY)
    # Limits are not authenticated: another version may write more of them.
    check_settings(msgspec.structs.replace(stored, policy=type(stored.policy)(linger_ms=3)), "default", KEY)


@pytest.mark.parametrize(
    "settings",
    [
        changed("discord", api_url="https://stranger.example/api/v10"),
        changed("nats", servers=["nats://stranger:4222"]),
        changed("nats", servers=["nats://n1:4222", "nats://n2:4222", "nats://stranger:4222"]),
        changed("nats", servers=['nats://n1:4222", "nats://n2:4222']),
        changed("nats", user="other"),
        changed("nats", credentials="/etc/shadow"),
        changed("nats", tls_ca="/tmp/ca.pem"),
        changed("nats", tls_cert="/tmp/c.pem"),
        changed("nats", tls_key="/tmp/k.pem"),
        changed("redis", url="redis://stranger/0"),
        changed("redis", tls_ca=""),
        changed("redis", tls_cert="/tmp/c.pem"),
        changed("redis", tls_key="/tmp/k.pem"),
    ],
    ids=range(13),
)
def test_a_changed_destination_is_refused(settings: ClusterSettings) -> None:
    with pytest.raises(SealingError, match="no cluster key: find out who can write to etcd"):
        check_settings(settings, "default", KEY)


def test_a_removed_proof_is_refused_with_advice() -> None:
    with pytest.raises(NotAuthenticated, match=r"older version.*apply"):
        check_settings(msgspec.structs.replace(proved(), proof=""), "default", KEY)


def test_the_proof_of_another_cluster_or_key_is_refused() -> None:
    other = ClusterKey.generate()
    with pytest.raises(SealingError, match="were changed"):
        check_settings(proved("staging"), "default", KEY)
    with pytest.raises(SealingError, match=f"cluster key {other.key_id}, and this is key {KEY.key_id}"):
        check_settings(proved(key=other), "default", KEY)
    forged = msgspec.structs.replace(proved(), proof=f"v1:{KEY.key_id}:AAAA")
    with pytest.raises(SealingError, match="were changed"):
        check_settings(forged, "default", KEY)
    with pytest.raises(SealingError):
        check_settings(msgspec.structs.replace(proved(), proof="plain:ü\ud800"), "default", KEY)


def with_api(**fields: Any) -> ClusterSettings:
    login = DiscordLoginSettings(client_id="1", client_secret="v1:x:y", guilds={"10": {"100": "viewer"}})
    api = ApiSettings(enabled=True, public_url="https://s.example", discord_login=login)
    settings = msgspec.structs.replace(proved(), api=api)
    settings = msgspec.structs.replace(settings, api_proof=api_proof_of(settings, "default", KEY))
    return msgspec.structs.replace(settings, api=msgspec.structs.replace(api, **fields))


def test_the_section_api_has_a_proof_of_its_own() -> None:
    settings = with_api()
    check_settings(ClusterSettings.decode(settings.encode()), "default", KEY)
    # A version without the section accepts the rest, and stores it without the section.
    check_settings(proved(), "default", KEY)
    assert settings.proof == proved().proof
    # What a newer version adds is not known here.
    newer = settings.encode().replace(b'"public_url"', b'"newer":1,"public_url"')
    check_settings(ClusterSettings.decode(newer), "default", KEY)


@pytest.mark.parametrize(
    "settings",
    [
        with_api(open=["status"]),
        with_api(public_url="https://stranger.example"),
        with_api(trusted_proxies=["0.0.0.0/0"]),
        with_api(discord_login=DiscordLoginSettings(client_id="2", client_secret="v1:x:y")),
        with_api(
            discord_login=DiscordLoginSettings(client_id="1", client_secret="v1:x:y", guilds={"10": {"100": "admin"}})
        ),
        msgspec.structs.replace(with_api(), api_proof=""),
        msgspec.structs.replace(with_api(), api_proof=proved().proof),
        msgspec.structs.replace(proved(), api=ApiSettings(enabled=True)),
    ],
    ids=range(8),
)
def test_a_changed_section_api_is_refused(settings: ClusterSettings) -> None:
    with pytest.raises(SealingError, match=r"the section api .* no cluster key: find out who can write to etcd"):
        check_settings(settings, "default", KEY)


def test_without_a_key_only_settings_without_a_proof_are_accepted() -> None:
    check_settings(msgspec.structs.replace(proved(), proof=""), "default", None)
    with pytest.raises(SealingError, match=f"sealed with cluster key {KEY.key_id} and this node has none"):
        check_settings(proved(), "default", None)


def test_the_key_of_a_stored_value_is_distinguished_from_plain_text_and_nothing() -> None:
    assert key_id_of(KEY.seal("a", "secret")) == KEY.key_id
    assert key_id_of(proved().proof) == KEY.key_id
    assert (key_id_of("plain:secret"), key_id_of("")) == ("", None)


@pytest.mark.parametrize(
    ("url", "api_url"),
    [
        ("wss://gateway.discord.gg", DISCORD),
        ("wss://gateway-us-east1-b.discord.gg/?v=10", DISCORD),
        ("wss://GATEWAY.Discord.GG:443/", DISCORD),
        ("wss://gateway.discord.gg", "http://proxy:8080/api/v10"),
        ("ws://127.0.0.1:9001", SIMULATOR),
        ("ws://127.0.0.1:9001", "http://localhost:8080/api/v10"),
        ("ws://[::1]:9001/", "http://[::1]:8080/api"),
        ("wss://proxy:9443/x", "https://proxy/api/v10"),
        ("wss://proxy:9443/x", "http://proxy/api/v10"),
    ],
)
def test_discords_gateways_and_the_host_of_the_api_are_connected_to(url: str, api_url: str) -> None:
    assert gateway_refusal(url, api_url) == ""


@pytest.mark.parametrize(
    ("url", "api_url"),
    [
        ("wss://stranger.example", DISCORD),
        ("wss://discord.gg.stranger.example", DISCORD),
        ("wss://evildiscord.gg", DISCORD),
        ("wss://gateway.discord.gg@stranger.example", DISCORD),
        ("wss://stranger.example\\@gateway.discord.gg", DISCORD),
        ("wss://stranger.example\\.discord.gg", DISCORD),
        ("wss://stranger.example%2f.discord.gg", DISCORD),
        ("wss://stranger.example/.discord.gg", DISCORD),
        ("wss://stranger.example?.discord.gg", DISCORD),
        ("wss://stranger.example#.discord.gg", DISCORD),
        ("wss://stranger。discord.gg", DISCORD),
        ("wss://gateway.discord.gg.", DISCORD),
        ("ws://gateway.discord.gg", DISCORD),
        ("ws://gateway.discord.gg", SIMULATOR),
        ("https://gateway.discord.gg", DISCORD),
        ("wss://gateway.discord.gg:99999", DISCORD),
        ("wss://", DISCORD),
        ("wss://[", DISCORD),
        ("", DISCORD),
        ("ws://proxy", "https://proxy/api/v10"),
        ("ws://127.0.0.2:9001", SIMULATOR),
        ("ws://localhost:9001", DISCORD),
        ("wss://[fe80::1%25eth0]:9001", "http://[fe80::1]:8080"),
    ],
)
def test_no_other_host_gets_the_token(url: str, api_url: str) -> None:
    assert gateway_refusal(url, api_url)
