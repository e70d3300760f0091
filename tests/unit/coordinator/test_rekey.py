"""Another cluster key while nodes run: what is sealed again, what is refused, and what one that ended early leaves"""

from collections.abc import Sequence

import msgspec
import pytest

from sandwich_coordinator.access.records import TokenRecord, UserRecord, is_genuine, proved
from sandwich_coordinator.config import (
    LOGIN_SECRET,
    NATS_SECRET,
    ApiSettings,
    ClusterSettings,
    DiscordLoginSettings,
    RedisSettings,
)
from sandwich_coordinator.config import NatsSettings as Nats
from sandwich_coordinator.ids import LeaderTerm
from sandwich_coordinator.operations import rekey as operation
from sandwich_coordinator.operations.errors import Conflict, Refused
from sandwich_coordinator.operations.rekey import plan_rekey, rekey
from sandwich_coordinator.operations.webhooks import open_destination, seal_name
from sandwich_coordinator.sealing import ClusterKey, SealingError
from sandwich_coordinator.store.base import Compare, Delete, Put, StoreUnavailable, TxnResult
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_coordinator.trust import api_proof_of, check_settings, follow_settings, key_id_of, proof_of
from sandwich_coordinator.types import AppRecord, GroupRecord, NodeRecord, Record
from sandwich_coordinator.view import ClusterView
from sandwich_coordinator.webhooks.records import WebhookRecord

KEYS = Keys()
OLD, NEW = ClusterKey.generate(), ClusterKey.generate()
DESTINATION = '{"url":"https://h.test/1","secret":"canary-canary-canary","allow_private":false}'


def both(first: ClusterKey = NEW, second: ClusterKey = OLD) -> ClusterKey:
    return ClusterKey.from_base64(f"{first.to_base64()},{second.to_base64()}")


def settings_with(key: ClusterKey) -> ClusterSettings:
    login = DiscordLoginSettings(client_id="1", client_secret=key.seal(LOGIN_SECRET, "canary-login"), guilds={})
    settings = ClusterSettings(
        nats=Nats(servers=["nats://h:1"], user="u", password=key.seal(NATS_SECRET, "canary-nats")),
        redis=RedisSettings(url="redis://h/0"),
        api=ApiSettings(discord_login=login),
    )
    return msgspec.structs.replace(
        settings, proof=proof_of(settings, "default", key), api_proof=api_proof_of(settings, "default", key)
    )


def records(key: ClusterKey, *, cluster_keys: Sequence[str]) -> dict[str, Record]:
    node = NodeRecord(node="a", instance="i", address="", version="1", cluster_keys=list(cluster_keys))
    group = GroupRecord(
        app="bot", group=0, count=1, ids="0", term=LeaderTerm(1), token=key.seal("bot", "canary-before"), token_hash="e"
    )
    token = TokenRecord(id="t1", name="ci", role="admin", hash="0" * 64)
    return {
        KEYS.node("a"): node,
        KEYS.app("bot"): AppRecord(app="bot", token=key.seal("bot", "canary-now"), token_hash="f", intents=1),
        KEYS.group("bot", 0): group,
        KEYS.group("bot", 1): msgspec.structs.replace(group, group=1, token="", token_hash=""),
        KEYS.webhook("w"): WebhookRecord(name="w", type="generic", sealed=key.seal(seal_name("w"), DESTINATION)),
        KEYS.token("t1"): proved(token, "default", key),
        KEYS.user("5"): proved(UserRecord(user="5", role="viewer"), "default", key),
    }


async def filled(key: ClusterKey = OLD, *, cluster_keys: Sequence[str] | None = None) -> MemoryStore:
    store = MemoryStore()
    held = both().key_ids if cluster_keys is None else cluster_keys
    found = records(key, cluster_keys=held)
    node = found.pop(KEYS.node("a"))
    lease = await store.grant(60)
    puts = [Put(name, record.encode()) for name, record in found.items()]
    await store.txn(
        (), (*puts, Put(KEYS.config, settings_with(key).encode()), Put(KEYS.node("a"), node.encode(), lease))
    )
    return store


async def view_of(store: MemoryStore) -> ClusterView:
    listing = await store.list(KEYS.prefix)
    return ClusterView.from_items(KEYS, {item.key: item for item in listing.items}, listing.revision)


async def assert_only_new(store: MemoryStore) -> None:
    view = await view_of(store)
    assert view.config is not None
    settings = ClusterSettings.decode(view.config.value)
    login = settings.api.discord_login
    assert login is not None
    check_settings(settings, "default", NEW)
    assert NEW.unseal(NATS_SECRET, settings.nats.password) == "canary-nats"
    assert NEW.unseal(LOGIN_SECRET, login.client_secret) == "canary-login"
    assert NEW.unseal("bot", view.apps["bot"].record.token) == "canary-now"
    groups = {key.group: entry.record.token for key, entry in view.groups.items()}
    assert (NEW.unseal("bot", groups[0]), groups[1]) == ("canary-before", "")
    assert open_destination(view.webhooks["w"].record, NEW).url == "https://h.test/1"
    assert is_genuine(view.tokens["t1"].record, "default", NEW)
    assert is_genuine(view.users["5"].record, "default", NEW)


async def test_everything_is_sealed_with_the_new_key_and_a_second_run_writes_nothing() -> None:
    store = await filled()
    planned = await rekey(store, KEYS, both(), dry_run=True)
    assert len(planned.sealed) == 6
    assert planned.sealed[0] == "the settings of the cluster", "from then on nodes seal with the new key"
    assert plan_rekey(await store.list(KEYS.prefix), KEYS, both()).sealed == planned.sealed, "nothing was written"
    assert (await rekey(store, KEYS, both())).sealed == planned.sealed
    await assert_only_new(store)
    again = await rekey(store, KEYS, both())
    assert (again.sealed, again.left) == ((), ())
    assert (await rekey(store, KEYS, NEW)).sealed == (), "the new key alone is enough to see that"


async def test_a_run_that_ends_early_is_finished_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    store = await filled()
    monkeypatch.setattr(operation, "WRITES_PER_TXN_MAX", 1)
    txn, left = store.txn, 3

    async def failing(compares: Sequence[Compare], writes: Sequence[Put | Delete]) -> TxnResult:
        nonlocal left
        left -= 1
        if left < 0:
            raise StoreUnavailable("gone")
        return await txn(compares, writes)

    monkeypatch.setattr(store, "txn", failing)
    with pytest.raises(StoreUnavailable):
        await rekey(store, KEYS, both())
    monkeypatch.setattr(store, "txn", txn)
    # Meanwhile a node with both keys opens all of it, whichever it was given first.
    for key in (both(), both(OLD, NEW)):
        view = await view_of(store)
        assert key.unseal("bot", view.apps["bot"].record.token) == "canary-now"
        assert is_genuine(view.tokens["t1"].record, "default", key)
    assert len((await rekey(store, KEYS, both())).sealed) == 3
    await assert_only_new(store)


async def test_a_record_that_another_writer_changes_meanwhile_is_kept_and_sealed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = await filled()
    txn, raced = store.txn, False

    async def racing(compares: Sequence[Compare], writes: Sequence[Put | Delete]) -> TxnResult:
        nonlocal raced
        if not raced:
            raced = True
            group = (await view_of(store)).groups
            record = next(entry.record for key, entry in group.items() if key.group == 0)
            changed = msgspec.structs.replace(record, state="live")
            await txn((), (Put(KEYS.group("bot", 0), changed.encode()),))
        return await txn(compares, writes)

    monkeypatch.setattr(store, "txn", racing)
    await rekey(store, KEYS, both())
    await assert_only_new(store)
    view = await view_of(store)
    assert [entry.record.state for key, entry in view.groups.items() if key.group == 0] == ["live"]


async def test_a_record_that_is_never_left_alone_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    store = await filled()

    async def refused(compares: Sequence[Compare], writes: Sequence[Put | Delete]) -> TxnResult:
        return TxnResult(False, 1)

    monkeypatch.setattr(store, "txn", refused)
    with pytest.raises(Conflict):
        await rekey(store, KEYS, both())


async def test_a_node_without_the_new_key_refuses_it() -> None:
    store = await filled(cluster_keys=OLD.key_ids)
    with pytest.raises(Refused, match=f"cluster key {NEW.key_id} is not known to a"):
        await rekey(store, KEYS, both())
    older = await filled(cluster_keys=())
    with pytest.raises(Refused, match="not known to a"):
        await rekey(older, KEYS, both())
    assert len((await rekey(older, KEYS, both(), force=True)).sealed) == 6


async def test_keys_that_are_not_the_clusters_and_settings_that_none_proves_are_refused() -> None:
    store = await filled()
    for key in (NEW, both(NEW, ClusterKey.generate())):
        with pytest.raises(Refused, match=f"sealed with cluster key {OLD.key_id}.*give both"):
            await rekey(store, KEYS, key)
    settings = msgspec.structs.replace(settings_with(OLD), nats=Nats(servers=["nats://evil:1"]))
    await store.txn((), (Put(KEYS.config, settings.encode()),))
    with pytest.raises(Refused, match="has no cluster key"):
        await rekey(store, KEYS, both())
    with pytest.raises(Refused, match="not configured"):
        await rekey(MemoryStore(), KEYS, both())


async def test_what_neither_key_opens_or_proves_stays_and_is_named() -> None:
    store, stranger = await filled(), ClusterKey.generate()
    theirs = proved(TokenRecord(id="t2", name="x", role="admin", hash="1" * 64), "default", stranger)
    unproved = msgspec.structs.replace(theirs, id="t3", proof="")
    other = AppRecord(app="b2", token=stranger.seal("b2", "x"), token_hash="f", intents=1)
    puts = [Put(KEYS.token("t2"), theirs.encode()), Put(KEYS.token("t3"), unproved.encode())]
    await store.txn((), (*puts, Put(KEYS.app("b2"), other.encode())))
    before = await view_of(store)
    done = await rekey(store, KEYS, both())
    assert done.left == ("application b2", "API token t2", "API token t3")
    after = await view_of(store)
    assert [after.tokens[name] for name in ("t2", "t3")] == [before.tokens[name] for name in ("t2", "t3")]
    assert after.apps["b2"] == before.apps["b2"]
    await assert_only_new(store)


def test_two_keys_open_what_either_sealed_and_the_proof_of_the_settings_names_the_one_that_seals() -> None:
    key = both()
    assert key.key_ids == (NEW.key_id, OLD.key_id)
    for one in (OLD, NEW):
        assert key.unseal("bot", one.seal("bot", "x")) == "x"
        assert key.proves("n", b"m", one.prove("n", b"m"))
        follow_settings(settings_with(one), "default", key)
        assert key_id_of(key.seal("bot", "x")) == key_id_of(key.prove("n", b"m")) == one.key_id
    assert not key.proves("n", b"m", ClusterKey.generate().prove("n", b"m"))
    with pytest.raises(SealingError, match=f"{NEW.key_id} and {OLD.key_id}"):
        follow_settings(settings_with(ClusterKey.generate()), "default", key)
    assert NEW.to_base64() not in repr(key)
    assert both().to_base64() == key.to_base64()


@pytest.mark.parametrize("text", [",", "{old},", "{old},{new},{new}", "{old} {new}", "{old},short"])
def test_text_that_is_not_one_or_two_keys_is_refused_and_not_repeated(text: str) -> None:
    given = text.format(old=OLD.to_base64(), new=NEW.to_base64())
    with pytest.raises(SealingError) as caught:
        ClusterKey.from_base64(given)
    assert OLD.to_base64() not in str(caught.value)
