"""From a cluster file to what is written: what changes, what is refused, and how secrets are kept."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from sandwich_coordinator.cli.changes import change_lines
from sandwich_coordinator.cli.load import ConfigError, parse_config
from sandwich_coordinator.config import ClusterSettings, DiscordSettings, NatsSettings
from sandwich_coordinator.ids import Fence, LeaderTerm
from sandwich_coordinator.operations.changes import AppChange, AppRemoved, SettingsAuthenticated, ShardsRetried
from sandwich_coordinator.operations.configuration import apply_configuration, read_configuration
from sandwich_coordinator.operations.configuration_plan import ConfigurationPlan, Sealer, Wanted, plan_configuration
from sandwich_coordinator.operations.errors import Conflict, Refused
from sandwich_coordinator.operations.export import exported_cluster
from sandwich_coordinator.sealing import ClusterKey
from sandwich_coordinator.store.base import Compare, Delete, KeyValue, Listing, Put, TxnResult
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_coordinator.types import (
    AppRecord,
    BudgetRecord,
    ClaimRecord,
    GroupRecord,
    Record,
    RemovalRecord,
    RestartRecord,
    ShardState,
)

KEYS = Keys()
SEALER = Sealer(ClusterKey.generate())
ENV = {"T": "canary-one", "U": "canary-two", "P": "canary-nats"}
A, B = "  a: {token: {env: T}, intents: 1}\n", "  b: {token: {env: U}, intents: 1}\n"


def wanted(apps: str) -> Wanted:
    head = 'version: 1\nnats: {servers: ["nats://h:1"], password: {env: P}}\nredis: {url: "redis://h/0"}\napps:\n'
    loaded = parse_config(head + apps, source="c.yml", env=ENV, directory=Path("."))
    return Wanted(loaded.config, loaded.tokens, loaded.nats_password, loaded.redis_url, loaded.redis_password)


def after(plan: ConfigurationPlan) -> Listing:
    puts = [write for _, write in plan.writes if isinstance(write, Put)]
    return Listing(tuple(KeyValue(put.key, put.value, 7, 7, 1) for put in puts), 7)


def run(
    current: Listing, apps: str, *, sealer: Sealer = SEALER, prune: bool = False, rekey: bool = False, now: float = 5.0
) -> ConfigurationPlan:
    return plan_configuration(current, wanted(apps), keys=KEYS, sealer=sealer, prune=prune, rekey=rekey, now=now)


def lines(plan: ConfigurationPlan) -> list[str]:
    """What `sandwich cluster apply` shows of a plan."""
    return change_lines(plan.changes)


def with_claim(current: Listing, app: str, shard: int, state: ShardState, reason: str = "") -> Listing:
    record = ClaimRecord(
        app=app, group=0, shard=shard, node="n", instance="i", worker=0, state=state, reason=reason, fence=Fence(9)
    )
    item = KeyValue(KEYS.claim(app, 0, shard), record.encode(), 9, 11, 1, lease=77)
    return Listing((*current.items, item), 11)


def test_the_first_apply_writes_everything_sealed_and_a_second_writes_nothing() -> None:
    first = run(Listing((), 0), A + B)
    assert [guard.expected for guard, _ in first.writes] == [0, 0, 0]
    assert b"canary" not in b"".join(item.value for item in after(first).items)
    assert run(after(first), A + B) == ConfigurationPlan()


def test_an_edit_names_the_field_and_is_guarded_by_the_revision_read() -> None:
    changes = run(after(run(Listing((), 0), A)), A.replace("intents: 1", "intents: 3"))
    assert changes.changes == (AppChange("a", "intents", 1, 3),)
    assert lines(changes) == ["~ application a: intents: [GUILDS] -> [GUILDS, GUILD_MEMBERS]"]
    assert [guard.expected for guard, _ in changes.writes] == [7]


def test_an_application_not_in_the_file_goes_only_with_prune() -> None:
    current = after(run(Listing((), 0), A + B))
    kept = run(current, A)
    assert kept.writes == ()
    assert kept.kept == ("b",)
    assert [write for _, write in run(current, A, prune=True).writes] == [Delete(KEYS.app("b"))]


def test_renaming_an_application_without_prune_is_refused() -> None:
    current = after(run(Listing((), 0), A))
    with pytest.raises(Refused, match="token of application 'a'"):
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
    assert run(after(first), A + discord) == ConfigurationPlan()
    assert run(after(first), A).changes != ()


@pytest.mark.parametrize("proxy", ["proxy.test:3128", "socks5://h:1", "http://u:hush@h:1", "http://", ""])
def test_what_is_no_proxy_is_refused_and_no_password_is_repeated(proxy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run(Listing((), 0), A + f"discord: {{proxy: '{proxy}'}}\n")
    assert "discord.proxy" in str(caught.value)
    assert "hush" not in str(caught.value)


def test_another_cluster_key_is_refused_with_both_ids_and_seals_again_when_it_is_meant() -> None:
    current = after(run(Listing((), 0), A))
    other = Sealer(ClusterKey.generate())
    with pytest.raises(Refused, match=f"cluster key {SEALER.key_id}, and this is cluster key {other.key_id}"):
        run(current, A, sealer=other)
    changes = run(current, A, sealer=other, rekey=True)
    assert lines(changes) == ["~ cluster: nats.password: changed", "~ application a: token: changed"]
    assert AppChange("a", "token", None, None, is_secret=True) in changes.changes
    assert run(after(changes), A, sealer=other) == ConfigurationPlan()
    with pytest.raises(Refused):
        run(after(changes), A)


def test_rekey_is_not_for_two_keys() -> None:
    """A secret that only the other one opens would stay, and nodes with one key could not open it."""
    current = after(run(Listing((), 0), A))
    assert SEALER.key is not None
    both = Sealer(ClusterKey.from_base64(f"{ClusterKey.generate().to_base64()},{SEALER.key.to_base64()}"))
    with pytest.raises(Refused, match="sandwich cluster rekey"):
        run(current, A, sealer=both, rekey=True)


def test_a_cluster_without_any_secret_still_knows_its_key() -> None:
    (settings, _) = after(run(Listing((), 0), A)).items
    bare = msgspec.structs.replace(
        ClusterSettings.decode(settings.value), nats=NatsSettings(servers=["nats://h:1"]), version=1
    )
    with pytest.raises(Refused, match=SEALER.key_id):
        run(Listing((KeyValue(KEYS.config, bare.encode(), 7, 7, 1),), 7), A, sealer=Sealer(ClusterKey.generate()))


@pytest.mark.parametrize("to_plain", [True, False])
def test_taking_the_key_away_and_giving_a_first_one_must_be_meant_too(to_plain: bool) -> None:
    old, new = (SEALER, Sealer(None)) if to_plain else (Sealer(None), SEALER)
    current = after(run(Listing((), 0), A, sealer=old))
    with pytest.raises(Refused, match="no cluster key"):
        run(current, A, sealer=new)
    changed = after(run(current, A, sealer=new, rekey=True))
    assert run(changed, A, sealer=new) == ConfigurationPlan()
    assert (b"canary" in b"".join(item.value for item in changed.items)) is to_plain


def test_a_new_key_needs_the_token_of_every_application_that_stays() -> None:
    current, other = after(run(Listing((), 0), A + B)), Sealer(ClusterKey.generate())
    with pytest.raises(Refused, match="b is not in the file"):
        run(current, A, sealer=other, rekey=True)
    removed = run(current, A, sealer=other, rekey=True, prune=True)
    assert AppRemoved("b") in removed.changes
    assert "- application b: removed" in lines(removed)


def test_a_configuration_of_an_older_version_gets_its_proof_by_one_apply() -> None:
    settings, app = after(run(Listing((), 0), A)).items
    old = msgspec.structs.replace(ClusterSettings.decode(settings.value), proof="")
    changes = run(Listing((KeyValue(KEYS.config, old.encode(), 7, 7, 1), app), 7), A)
    assert changes.changes == (SettingsAuthenticated(SEALER.key_id),)
    assert lines(changes) == [f"~ cluster: its addresses are authenticated with cluster key {SEALER.key_id}"]
    assert run(Listing((*after(changes).items, app), 7), A) == ConfigurationPlan()


def test_what_a_stranger_changed_in_the_addresses_is_shown_and_put_right() -> None:
    settings, app = after(run(Listing((), 0), A)).items
    evil = msgspec.structs.replace(
        ClusterSettings.decode(settings.value), discord=DiscordSettings(api_url="https://stranger.example")
    )
    changes = run(Listing((KeyValue(KEYS.config, evil.encode(), 7, 7, 1), app), 7), A)
    assert lines(changes) == ["~ cluster: discord.api_url: https://stranger.example -> https://discord.com/api/v10"]


def test_failed_shards_of_an_application_that_is_applied_again_try_again() -> None:
    current = after(run(Listing((), 0), A))
    for shard in (0, 1, 2, 5):
        current = with_claim(current, "a", shard, "live" if shard == 5 else "failed", "4014: disallowed intents")
    changes = run(with_claim(current, "gone", 0, "failed"), A)
    assert changes.changes == (ShardsRetried("a", (0, 1, 2)),)
    assert lines(changes) == ["~ application a: failed shards 0-2 try again"]
    assert [write for _, write in changes.writes] == [
        Put(KEYS.restart("a", 0, shard), RestartRecord(at=5.0).encode()) for shard in (0, 1, 2)
    ]
    assert changes.writes[0][0] == Compare(KEYS.claim("a", 0, 0), "create_revision", 9)


async def test_a_configuration_is_applied_read_back_and_not_written_twice() -> None:
    store, key = MemoryStore(), SEALER.key
    with pytest.raises(Refused, match="the cluster is not configured"):
        await read_configuration(store, KEYS, key)
    planned = await apply_configuration(store, KEYS, wanted(A), SEALER, now=5.0, dry_run=True)
    assert (await store.list(KEYS.prefix)).items == ()
    assert lines(planned) == ["+ cluster: configured", "+ application a: shards auto, intents [GUILDS]"]
    await apply_configuration(store, KEYS, wanted(A), SEALER, now=5.0)
    assert await apply_configuration(store, KEYS, wanted(A), SEALER, now=5.0) == ConfigurationPlan()
    stored = await read_configuration(store, KEYS, key)
    assert [record.app for record in stored.apps] == ["a"]
    assert stored.is_checked
    assert not (await read_configuration(store, KEYS, None)).is_checked


class Interfering(MemoryStore):
    """Another operator's write comes between our reading and our transaction."""

    async def txn(self, compares: Sequence[Compare], writes: Sequence[Put | Delete]) -> TxnResult:
        await super().txn([], [Put(KEYS.config, b"{}")])
        return await super().txn(compares, writes)


async def test_of_two_operators_who_apply_at_the_same_time_the_second_is_refused() -> None:
    with pytest.raises(Conflict, match="another operator changed the configuration at the same time"):
        await apply_configuration(Interfering(), KEYS, wanted(A), SEALER, now=5.0)


def with_records(current: Listing, **records: Record) -> Listing:
    """The listing with these records, by key with _ for each slash."""
    items = {item.key: item for item in current.items}
    for name, record in records.items():
        key = KEYS.prefix + name.replace("_", "/")
        items[key] = KeyValue(key, record.encode(), 8, 8, 1)
    return Listing(tuple(items.values()), 8)


def stored_app(current: Listing, name: str) -> AppRecord:
    (item,) = (item for item in current.items if item.key == KEYS.app(name))
    return msgspec.json.decode(item.value, type=AppRecord)


@pytest.mark.parametrize("said", ["", ", paused: false", ", paused: true"])
def test_what_a_command_paused_stays_paused_and_the_rest_of_the_file_is_applied(said: str) -> None:
    current = after(run(Listing((), 0), A))
    paused = msgspec.structs.replace(stored_app(current, "a"), paused=True, paused_at=3.0)
    current = with_records(current, apps_a=paused)
    plan = run(current, f"  a: {{token: {{env: T}}, intents: 1, route: r{said}}}\n")
    assert lines(plan) == ["~ application a: route:  -> r"]
    assert plan.warnings == ("application a stays paused by command: sandwich app resume a starts it",)
    changed = stored_app(after(plan), "a")
    assert (changed.paused, changed.paused_at, changed.route) == (True, 3.0, "r")


def test_an_application_that_is_being_removed_is_not_added_again_meanwhile() -> None:
    current = with_records(after(run(Listing((), 0), A)), removals_a=RemovalRecord(at=1.0))
    with pytest.raises(Refused, match="a is being removed: sandwich app remove a finishes that, then apply again"):
        run(current, A)
    assert run(current, B, prune=True).changes[0] == AppRemoved("a")


def test_shards_that_cannot_run_are_refused_when_they_change_and_left_alone_when_they_do_not() -> None:
    ids = "  a: {token: {env: T}, intents: 1, shards: {ids: '0-4'}}\n"
    current = after(run(Listing((), 0), A))
    group = GroupRecord(app="a", group=0, count=4, ids="0-3", term=LeaderTerm(1))
    with pytest.raises(Refused, match=r"apps.a.shards.ids: bad shard range '0-4': with 4 shards the last id is 3"):
        run(with_records(current, groups_a_0=group), ids)
    budget = BudgetRecord(url="u", shards=8, total=9, remaining=5, reset_at=100.0, max_concurrency=1, fetched_at=0.0)
    known = with_records(current, **{f"budget_{stored_app(current, 'a').token_hash}": budget})
    with pytest.raises(Refused, match="10 shards need as many session starts, and Discord allows this bot 9 a day"):
        run(known, "  a: {token: {env: T}, intents: 1, shards: {count: 10}}\n")
    plan = run(known, "  a: {token: {env: T}, intents: 1, shards: {count: 6}}\n")
    assert len(plan.warnings) == 1
    assert "6 session starts are needed and 5 are left" in plan.warnings[0]
    kept = with_records(after(run(Listing((), 0), ids)), groups_a_0=group)
    assert run(kept, ids).warnings == ()


def test_two_applications_that_share_a_token_stay_and_a_renamed_one_is_still_refused() -> None:
    both = after(run(Listing((), 0), A + "  b: {token: {env: T}, intents: 1}\n"))
    assert run(both, A).kept == ("b",)
    assert lines(run(both, A + "  b: {token: {env: T}, intents: 1}\n")) == []
    with pytest.raises(Refused, match="is the token of application"):
        run(both, "  c: {token: {env: T}, intents: 1}\n")


def lacking(apps: str, *names: str) -> Wanted:
    """As `wanted`, in a shell without these variables."""
    head = 'version: 1\nnats: {servers: ["nats://h:2"], password: {env: P}}\nredis: {url: "redis://h/0"}\napps:\n'
    env = {name: value for name, value in ENV.items() if name not in names}
    loaded = parse_config(head + apps, source="c.yml", env=env, directory=Path("."), absence_allowed=True)
    secrets = loaded.tokens, loaded.nats_password, loaded.redis_url, loaded.redis_password
    return Wanted(loaded.config, *secrets, absent=loaded.absent)


def test_a_secret_that_is_stored_need_not_be_in_the_shell_for_another_change() -> None:
    current = after(run(Listing((), 0), A + B))
    other = A.replace("intents: 1", "intents: 3")
    plan = plan_configuration(current, lacking(other + B, "T", "P"), keys=KEYS, sealer=SEALER)
    assert lines(plan) == [
        "~ cluster: nats.servers: ['nats://h:1'] -> ['nats://h:2']",
        "~ application a: intents: [GUILDS] -> [GUILDS, GUILD_MEMBERS]",
    ]
    assert plan.warnings == (
        "c.yml:5: apps.a.token: the environment variable T is not set: the stored secret stays",
        "c.yml:2: nats.password: the environment variable P is not set: the stored secret stays",
    )
    was, now = ({item.key: item.value for item in listing.items} for listing in (current, after(plan)))
    before, later = (msgspec.json.decode(found[KEYS.app("a")], type=AppRecord) for found in (was, now))
    assert (later.token, later.token_hash) == (before.token, before.token_hash)
    old, new = (ClusterSettings.decode(found[KEYS.config]) for found in (was, now))
    assert new.nats.password == old.nats.password != ""


def test_a_secret_that_is_neither_in_the_shell_nor_stored_is_refused_with_its_place() -> None:
    current = after(run(Listing((), 0), A))
    with pytest.raises(Refused) as refused:
        plan_configuration(current, lacking(A + B, "T", "U"), keys=KEYS, sealer=SEALER)
    assert refused.value.lines == ("c.yml:6: apps.b.token: the environment variable U is not set",)
    with pytest.raises(Refused, match="the environment variable T is not set"):
        plan_configuration(Listing((), 0), lacking(A, "T"), keys=KEYS, sealer=SEALER)


def test_another_key_does_not_keep_what_it_cannot_open() -> None:
    current = after(run(Listing((), 0), A))
    with pytest.raises(Refused, match="is not set"):
        plan_configuration(current, lacking(A, "T"), keys=KEYS, sealer=Sealer(ClusterKey.generate()), rekey=True)
