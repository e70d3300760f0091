from pathlib import Path

import msgspec
import pytest
import yaml
from pydantic import BaseModel

from sandwich_coordinator.cli.load import ConfigError, load_config, parse_config
from sandwich_coordinator.config import (
    SECTIONS,
    ClusterSettings,
    NatsSettings,
    PolicySettings,
    RedisSettings,
    StreamConfig,
)
from sandwich_coordinator.config_values import parse_duration, parse_size, reserve_of
from sandwich_coordinator.operations.configuration_plan import Sealer, Wanted, cluster_settings
from sandwich_coordinator.operations.export import exported_cluster
from sandwich_coordinator.sealing import ClusterKey
from sandwich_coordinator.trust import check_settings

EXAMPLE = Path(__file__).parents[3] / "cluster.example.yml"
TOP = 'version: 1\nnats: {servers: ["nats://h:1"]}\nredis: {url: "redis://h/0"}\n'
HEAD = f"{TOP}apps:\n"
CANARY = "canary-token-7f3a"
ENV = {"T": CANARY, "U": "other-token"}


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(HEAD + text, source="c.yml", env=ENV, directory=Path("."))
    return caught.value.problems


def test_the_example_names_every_key_with_its_default() -> None:
    loaded = load_config(EXAMPLE, {"WELCOMER_TOKEN": CANARY})
    text = EXAMPLE.read_text()
    for model in SECTIONS.values():
        assert [name for name in model.model_fields if name != "literal" and name not in text] == []
    for section in ("discord", "policy", "api"):
        value: BaseModel = getattr(loaded.config, section)
        assert value == type(value)()
    assert loaded.config.nats.stream == StreamConfig()
    app = loaded.config.apps["welcomer"]
    defaults = {name: f.default for name, f in type(app).model_fields.items() if not f.is_required()}
    del defaults["presence"]
    assert {name: getattr(app, name) for name in defaults} == defaults


@pytest.mark.parametrize(
    ("app", "expected"),
    [
        ("{token: {env: T}, intnets: 1, intents: 1}", "c.yml:5: apps.a.intnets: unknown key (did you mean intents?)"),
        ("{token: {env: T}, intents: [GUILD]}", "unknown intent 'GUILD' (did you mean GUILDS?)"),
        ("{token: {env: T}, intents: 131072}", "bits that Discord does not define (17)"),
        ("{token: {env: NONE}, intents: 1}", "apps.a.token: the environment variable NONE is not set"),
        ("{token: {file: /nonexistent}, intents: 1}", "the file /nonexistent cannot be read"),
        ("{token: 'mfa.x', intents: 1}", "not a bot token but a user's"),
        ("{token: {env: T}, intents: 1, shards: {count: 0}}", "apps.a.shards.count: must be auto, or a number"),
        ("{token: {env: T}, intents: 1, shards: {count: 4, ids: '2-4'}}", "with 4 shards the last id is 3"),
        ("{token: {env: T}, intents: 1, stream: {max_age: 24}}", "apps.a.stream.max_age: write a duration"),
        ("{token: {env: T}, intents: 1, presence: {activities: [{name: x, type: 1}]}}", "activities[0]: type 1"),
        ("{token: {env: T}}", "apps.a.intents: is required"),
        ("{token: {env: T}, intents: 1, cache: {namespace: A}}", "apps.a.cache.namespace: must be 1 to 32 characters"),
        (
            "{token: {env: T}, intents: 1, cache: {presence: true}}",
            "cache.presence: unknown key (did you mean presences",
        ),
        ("{token: {env: T}, intents: 1, cache: {messages: {ttl: 9}}}", "apps.a.cache.messages.ttl: write a duration"),
        ("{token: {env: T}, intents: 1, cache: {chunk_members: true}}", "needs the intent GUILD_MEMBERS"),
        (
            "{token: {env: T}, intents: 1, events: {ignore: [MESSAGE_CREAT]}}",
            "events.ignore[0]: unknown event MESSAGE_CREAT",
        ),
        ("{token: {env: T}, intents: 1, events: {ignore: ['*']}}", "READY and RESUMED cannot be ignored"),
        ("{token: {env: T}, intents: 1, events: {ignore: [GUILD_ROLE_*]}}", "what is cached of roles becomes wrong"),
        ("{token: {env: T}, intents: 1, events: {ignore: [GUILD_CREATE]}}", "would leave the cache empty or wrong"),
        ("{token: {env: T}, intents: 1, events: {lanes: {all: {types: [X*]}}}}", "is where all other types go"),
        (
            "{token: {env: T}, intents: 1, events: {lanes: {m: {types: [MESSAGE_*]}, n: {types: [MESSAGE_UPDATE]}}}}",
            "MESSAGE_UPDATE is in lanes 'm' and 'n'",
        ),
        ("{token: {env: T}, intents: 1, invites: {hold: 9s}}", "apps.a.invites.hold: must be from 0s to 5s"),
    ],
)
def test_an_error_has_its_path(app: str, expected: str) -> None:
    found = problems(f"  a: {app}\n")
    assert len(found) == 1
    assert expected in found[0]


def test_all_errors_are_reported_together_and_none_shows_a_token() -> None:
    found = problems(f"  a: {{token: {{literal: {CANARY}, env: T}}, intents: [X]}}\n  B: {{token: {CANARY}}}\n")
    assert len(found) >= 4
    assert CANARY not in "\n".join(found)


def test_one_token_under_two_names_gives_a_warning() -> None:
    text = "  a: {token: {env: T}, intents: 1}\n  b: {token: 'Bot canary-token-7f3a', intents: 1}\n"
    warnings = parse_config(HEAD + text, source="c.yml", env=ENV, directory=Path(".")).warnings
    assert [warning for warning in warnings if "also the token" in warning] == [
        "c.yml:6: apps.b.token: is also the token of 'a': both are sessions of one bot, each has all its events, and "
        "they share its session starts"
    ]


@pytest.mark.parametrize(
    ("api", "expected"),
    [
        ("{enabled: maybe}", "api.enabled"),
        ("{open: [health]}", "api.open"),
        ("{public_url: 'http://s.example'}", "api.public_url: must start with https://"),
        ("{public_url: 'https://s.example/app'}", "api.public_url: has a path"),
        ("{public_url: 'https://s.example?a=1'}", "api.public_url: must not contain anything after ?"),
        ("{trusted_proxies: [10.0.0.1/8]}", "api.trusted_proxies[0]: must be an address or a network"),
        ("{discord_login: {client_id: 1, client_secret: {env: T}}}", "api: discord_login needs public_url"),
        (
            "{public_url: 'https://s.example', discord_login: {client_id: a, client_secret: {env: T}}}",
            "api.discord_login.client_id: must be an id of Discord",
        ),
        (
            "{public_url: 'https://s.example', discord_login: {client_id: 1, client_secret: {env: NONE}}}",
            "api.discord_login.client_secret: the environment variable NONE is not set",
        ),
        (
            "{public_url: 'https://s.example', discord_login: "
            "{client_id: 1, client_secret: {env: T}, guilds: {'1': {'2': root}}}}",
            "api.discord_login.guilds.1.2",
        ),
    ],
)
def test_an_error_in_the_section_api_has_its_path(api: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(f"{TOP}api: {api}\n", source="c.yml", env=ENV, directory=Path("."))
    assert any(expected in problem for problem in caught.value.problems), caught.value.problems
    assert CANARY not in str(caught.value)


def test_the_section_api_is_stored_exported_and_read_again() -> None:
    text = (
        f"{TOP}api: {{enabled: true, open: [healthz], public_url: 'http://localhost:5469/', "
        "trusted_proxies: [10.0.0.5], discord_login: {client_id: 613425648685547541, client_secret: {env: T}, "
        "guilds: {'1': {'2': operator}}}}\n"
    )
    loaded = parse_config(text, source="c.yml", env=ENV, directory=Path("."))
    assert loaded.login_secret == CANARY
    key = ClusterKey.generate()
    wanted = Wanted(loaded.config, {}, redis_url="redis://h/0", login_secret=loaded.login_secret)
    settings = cluster_settings(wanted, Sealer(key), None)
    check_settings(ClusterSettings.decode(settings.encode()), "default", key)
    assert settings.api.public_url == "http://localhost:5469"
    assert CANARY.encode() not in settings.encode()
    # A secret that did not change keeps its stored form.
    assert cluster_settings(wanted, Sealer(key), settings) == settings
    exported = yaml.safe_dump(exported_cluster("default", settings, ()))
    again = parse_config(exported, source="c.yml", env={"DISCORD_CLIENT_SECRET": CANARY}, directory=Path("."))
    assert again.config.api.model_dump(exclude={"discord_login": {"client_secret"}}) == loaded.config.api.model_dump(
        exclude={"discord_login": {"client_secret"}}
    )


def test_a_key_given_twice_is_refused() -> None:
    assert "given twice" in problems("  a: {token: {env: T}, intents: 1, intents: 2}\n")[0]


def test_units_are_read() -> None:
    assert [parse_duration(text) for text in ("250ms", "1.5m", "24h", 0)] == [0.25, 90.0, 86400.0, 0.0]
    assert [parse_size(text) for text in ("10GiB", "2GB", 5)] == [10 * 1024**3, 2 * 10**9, 5]


@pytest.mark.parametrize(
    ("written", "reserve", "exported"),
    [
        ("20%", 200, "20%"),
        ("0", 0, "0%"),
        ("35", 35, 35),
        ("0%", 0, "0%"),
        ("12.5%", 125, "12.5%"),
        ("100%", 1000, "100%"),
    ],
)
def test_the_reserve_of_session_starts_is_a_number_or_a_part_of_the_total(
    written: str, reserve: int, exported: object
) -> None:
    text = f"{TOP}policy: {{identify_reserve: {written}}}\n"
    config = parse_config(text, source="c.yml", env=ENV, directory=Path(".")).config
    number, percent = reserve_of(config.policy.identify_reserve)
    stored = PolicySettings(identify_reserve=number, identify_reserve_percent=percent)
    assert stored.policy().reserve_of(1000) == reserve
    settings = ClusterSettings(
        nats=NatsSettings(servers=[]),
        redis=RedisSettings(url=""),
        policy=msgspec.json.decode(stored.encode(), type=PolicySettings),
    )
    assert exported_cluster("c", settings, [])["policy"]["identify_reserve"] == exported
    assert PolicySettings().policy().reserve_of(999) == 200, "a fifth by default, rounded up"


@pytest.mark.parametrize("written", ["101%", "-1", "true", "half", "100001", "1.5", "[1]", "null", "1e3%"])
def test_a_reserve_that_is_no_number_and_no_percentage_is_one_error(written: str) -> None:
    text = f"{TOP}policy: {{identify_reserve: {written}}}\n"
    with pytest.raises(ConfigError) as caught:
        parse_config(text, source="c.yml", env=ENV, directory=Path("."))
    assert [line.split(": ", 1)[1] for line in caught.value.problems] == [
        "policy.identify_reserve: must be a number of session starts from 0 to 100000, or a percentage such as 20%"
    ]


def test_applications_that_share_a_cache_must_store_the_same_thing_the_same_way() -> None:
    app = "{token: {env: %s}, intents: 1, cache: {namespace: shared, users: %s}}"
    found = problems(f"  a: {app % ('T', 'true')}\n  b: {app % ('U', 'false')}\n")
    assert found == [
        "c.yml:6: apps.b.cache.users: is False here and True for 'a': both write to the namespace 'shared', "
        "where it can only be one way"
    ]


def test_options_that_need_a_missing_intent_give_a_warning() -> None:
    text = "  a: {token: {env: T}, intents: 1, events: {prefixes: {fallback: '!'}}, invites: {track: true}}\n"
    warnings = parse_config(HEAD + text, source="c.yml", env=ENV, directory=Path(".")).warnings
    assert [warning.split(": ")[1] for warning in warnings] == ["apps.a.events.prefixes", "apps.a.invites.track"]
    assert "MESSAGE_CONTENT" in warnings[0]
    assert "GUILD_INVITES and GUILD_MEMBERS" in warnings[1]


def test_invite_tracking_without_join_events_gives_a_warning() -> None:
    events = "events: {cache_only: [GUILD_MEMBER_*]}"
    text = f"  a: {{token: {{env: T}}, intents: 67, {events}, invites: {{track: true}}}}\n"
    _, warning = parse_config(HEAD + text, source="c.yml", env=ENV, directory=Path(".")).warnings
    assert "apps.a.invites.track: GUILD_MEMBER_ADD is kept from consumers" in warning
