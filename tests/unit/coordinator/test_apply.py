from pathlib import Path

import pytest

from sandwich_coordinator.apply import ApplyRefused, Changes, Sealer, Wanted, diff
from sandwich_coordinator.cli.export import exported_cluster
from sandwich_coordinator.cli.load import ConfigError, parse_config
from sandwich_coordinator.config import ClusterSettings
from sandwich_coordinator.sealing import ClusterKey
from sandwich_coordinator.store.base import Delete, KeyValue, Listing, Put
from sandwich_coordinator.store.keys import Keys

KEYS = Keys()
SEALER = Sealer(ClusterKey.generate())
ENV = {"T": "canary-one", "U": "canary-two", "P": "canary-nats"}
A, B = "  a: {token: {env: T}, intents: 1}\n", "  b: {token: {env: U}, intents: 1}\n"


def wanted(apps: str) -> Wanted:
    head = 'version: 1\nnats: {servers: ["nats://h:1"], password: {env: P}}\nredis: {url: "redis://h/0"}\napps:\n'
    loaded = parse_config(head + apps, source="c.yml", env=ENV, directory=Path("."))
    return Wanted(loaded.config, loaded.tokens, loaded.nats_password, loaded.redis_url, loaded.redis_password)


def after(changes: Changes) -> Listing:
    puts = [write for _, write in changes.writes if isinstance(write, Put)]
    return Listing(tuple(KeyValue(put.key, put.value, 7, 7, 1) for put in puts), 7)


def run(current: Listing, apps: str, *, sealer: Sealer = SEALER, prune: bool = False) -> Changes:
    return diff(current, wanted(apps), keys=KEYS, sealer=sealer, prune=prune)


def test_the_first_apply_writes_everything_sealed_and_a_second_writes_nothing() -> None:
    first = run(Listing((), 0), A + B)
    assert [guard.expected for guard, _ in first.writes] == [0, 0, 0]
    assert b"canary" not in b"".join(item.value for item in after(first).items)
    assert run(after(first), A + B) == Changes()


def test_an_edit_names_the_field_and_is_guarded_by_the_revision_read() -> None:
    changes = run(after(run(Listing((), 0), A)), A.replace("intents: 1", "intents: 3"))
    assert changes.lines == ("~ application a: intents: [GUILDS] -> [GUILDS, GUILD_MEMBERS]",)
    assert [guard.expected for guard, _ in changes.writes] == [7]


def test_an_application_not_in_the_file_goes_only_with_prune() -> None:
    current = after(run(Listing((), 0), A + B))
    kept = run(current, A)
    assert kept.writes == ()
    assert "b is not in the file and stays" in kept.warnings[0]
    assert [write for _, write in run(current, A, prune=True).writes] == [Delete(KEYS.app("b"))]


def test_renaming_an_application_without_prune_is_refused() -> None:
    current = after(run(Listing((), 0), A))
    with pytest.raises(ApplyRefused, match="token of application 'a'"):
        run(current, A.replace("a:", "c:", 1))


@pytest.mark.parametrize("proxy", ["http://proxy.test:3128", "https://proxy.test"])
def test_the_proxy_on_the_way_to_discord_is_stored_and_exported(proxy: str) -> None:
    discord = f"discord: {{proxy: '{proxy}'}}\n"
    first = run(Listing((), 0), A + discord)
    stored = next(item.value for item in after(first).items if item.key == KEYS.config)
    settings = ClusterSettings.decode(stored)
    assert settings.discord.proxy == proxy
    exported = exported_cluster("default", settings, [])
    assert exported["discord"] == {"api_url": "https://discord.com/api/v10", "proxy": proxy}
    assert run(after(first), A + discord) == Changes()
    assert run(after(first), A).lines != ()


@pytest.mark.parametrize("proxy", ["proxy.test:3128", "socks5://h:1", "http://u:hush@h:1", "http://", ""])
def test_what_is_no_proxy_is_refused_and_no_password_is_repeated(proxy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run(Listing((), 0), A + f"discord: {{proxy: '{proxy}'}}\n")
    assert "discord.proxy" in str(caught.value)
    assert "hush" not in str(caught.value)


def test_another_cluster_key_seals_again() -> None:
    current = after(run(Listing((), 0), A))
    changes = run(current, A, sealer=Sealer(ClusterKey.generate()))
    assert changes.lines == ("~ cluster: nats.password: changed", "~ application a: token: changed")
