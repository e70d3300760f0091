from typing import Any

import pytest

from sandwich_coordinator.access.identities import token_identity
from sandwich_coordinator.access.records import TokenRecord, proved, secret_hash, token_text
from sandwich_coordinator.access.roles import Role
from sandwich_coordinator.operations import access
from sandwich_coordinator.operations.audit import ENTRIES_MAX, AuditEntry, read_entries, write_entry
from sandwich_coordinator.operations.errors import Conflict, Invalid, NotFound, Refused
from sandwich_coordinator.sealing import ClusterKey
from sandwich_coordinator.store.base import Put
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_coordinator.types import AppRecord
from sandwich_coordinator.view import ClusterView

KEYS, KEY, NOW = Keys("c"), ClusterKey.generate(), 1_800_000_000.0
USER = "613425648685547541"


async def view_of(store: MemoryStore) -> ClusterView:
    return ClusterView.from_items(KEYS, {item.key: item for item in (await store.list(KEYS.prefix)).items})


async def with_app() -> MemoryStore:
    store = MemoryStore()
    await store.txn(
        (), [Put(KEYS.app("welcomer"), AppRecord(app="welcomer", token="", token_hash="", intents=0).encode())]
    )
    return store


async def test_a_token_is_made_listed_used_and_taken_away() -> None:
    store = await with_app()
    made = await access.create_token(store, KEYS, KEY, name="ci", role="operator", apps=["welcomer"], now=NOW)
    assert made.text not in repr(made)
    secret = made.text.rpartition("_")[2]
    stored = b"".join(item.value for item in (await store.list("/")).items)
    assert secret.encode() not in stored
    assert [record.name for record in await access.list_tokens(store, KEYS)] == ["ci"]
    identity = token_identity(await view_of(store), KEY, made.text, NOW)
    assert identity is not None
    assert (identity.role, identity.apps) == (Role.OPERATOR, frozenset({"welcomer"}))
    assert await access.revoke_token(store, KEYS, "ci") == made.record
    assert token_identity(await view_of(store), KEY, made.text, NOW) is None
    with pytest.raises(NotFound):
        await access.revoke_token(store, KEYS, "ci")


async def test_what_cannot_be_read_can_be_taken_away() -> None:
    store = await with_app()
    await store.txn((), [Put(KEYS.token("bad"), b"{"), Put(KEYS.user(USER), b"{")])
    assert await access.revoke_token(store, KEYS, "bad") is None
    assert await access.remove_user(store, KEYS, USER) is None
    assert (await view_of(store)).bad == {}


async def test_of_two_tokens_with_one_name_at_the_same_time_one_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    store = await with_app()
    txn = store.txn

    async def late(compares: Any, writes: Any) -> Any:
        monkeypatch.setattr(store, "txn", txn)
        await access.create_token(store, KEYS, KEY, name="ci", role="viewer", now=NOW)
        return await txn(compares, writes)

    monkeypatch.setattr(store, "txn", late)
    with pytest.raises(Conflict):
        await access.create_token(store, KEYS, KEY, name="ci", role="admin", now=NOW)
    assert [(record.name, record.role) for record in await access.list_tokens(store, KEYS)] == [("ci", "viewer")]


async def test_a_name_can_be_used_again_and_the_token_before_stays_refused() -> None:
    store = await with_app()
    before = await access.create_token(store, KEYS, KEY, name="ci", role="viewer", now=NOW)
    await access.revoke_token(store, KEYS, "ci")
    after = await access.create_token(store, KEYS, KEY, name="ci", role="viewer", now=NOW)
    assert token_identity(await view_of(store), KEY, before.text, NOW) is None
    assert token_identity(await view_of(store), KEY, after.text, NOW) is not None


async def test_a_token_with_a_random_id_of_an_older_version_counts() -> None:
    store = await with_app()
    record = TokenRecord(id="k3vq7m2x", name="ci", role="viewer", hash=secret_hash("s" * 43))
    await store.txn((), [Put(KEYS.token(record.id), proved(record, KEYS.cluster, KEY).encode())])
    identity = token_identity(await view_of(store), KEY, token_text(record.id, "s" * 43), NOW)
    assert identity is not None
    assert identity.name == "ci"
    with pytest.raises(Refused):
        await access.create_token(store, KEYS, KEY, name="ci", role="viewer", now=NOW)
    await access.revoke_token(store, KEYS, "ci")
    assert await access.list_tokens(store, KEYS) == []


async def test_a_name_whose_record_cannot_be_read_is_named_with_its_id() -> None:
    store = await with_app()
    made = await access.create_token(store, KEYS, KEY, name="ci", role="viewer", now=NOW)
    await store.txn((), [Put(KEYS.token(made.record.id), b"{")])
    with pytest.raises(Refused, match=made.record.id):
        await access.create_token(store, KEYS, KEY, name="ci", role="viewer", now=NOW)
    await access.revoke_token(store, KEYS, made.record.id)
    await access.create_token(store, KEYS, KEY, name="ci", role="viewer", now=NOW)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"name": ""}, Invalid),
        ({"name": "a\nb"}, Invalid),
        ({"name": " ci"}, Invalid),
        ({"name": "x" * 65}, Invalid),
        ({"name": "taken"}, Refused),
        ({"apps": ["nope"]}, NotFound),
        ({"apps": []}, Invalid),
        ({"expires_at": NOW}, Invalid),
    ],
)
async def test_a_wrong_token_is_refused_and_nothing_is_written(
    changes: dict[str, object], error: type[Exception]
) -> None:
    store = await with_app()
    await access.create_token(store, KEYS, KEY, name="taken", role="viewer", now=NOW)
    before = (await store.list("/")).items
    with pytest.raises(error):
        await access.create_token(store, KEYS, KEY, **({"name": "ci", "role": "viewer", "now": NOW} | changes))  # type: ignore[arg-type]
    assert (await store.list("/")).items == before


async def test_a_cluster_has_one_first_token() -> None:
    store = await with_app()
    first = await access.create_first_token(store, KEYS, KEY, NOW)
    assert first is not None
    assert await access.create_first_token(store, KEYS, KEY, NOW) is None
    store.database.advance(access.FIRST_TOKEN_S + 1)
    assert await access.list_tokens(store, KEYS) == []


async def test_the_first_token_goes_for_good_with_an_admin() -> None:
    store = await with_app()
    first = await access.create_first_token(store, KEYS, KEY, NOW)
    assert first is not None
    await access.create_token(store, KEYS, KEY, name="limited", role="admin", apps=["welcomer"], now=NOW)
    await access.set_user(store, KEYS, KEY, user=USER, role="operator", now=NOW)
    assert token_identity(await view_of(store), KEY, first.text, NOW) is not None
    await access.set_user(store, KEYS, KEY, user=USER, role="admin", now=NOW)
    await access.remove_user(store, KEYS, USER)
    assert token_identity(await view_of(store), KEY, first.text, NOW) is None


async def test_no_first_token_where_a_user_has_access() -> None:
    store = await with_app()
    await access.set_user(store, KEYS, KEY, user=USER, role="viewer", now=NOW)
    assert await access.create_first_token(store, KEYS, KEY, NOW) is None


async def test_a_user_is_let_in_changed_and_removed_with_the_sessions() -> None:
    store = await with_app()
    assert (await access.set_user(store, KEYS, KEY, user=USER, role="admin", now=NOW))[0] is None
    before, after = await access.set_user(store, KEYS, KEY, user=USER, role="viewer", apps=["welcomer"], now=NOW)
    assert (before and before.role, after.role) == ("admin", "viewer")
    sign_in = await access.begin_web_session(store, KEYS, USER)
    assert await access.begin_web_session(store, KEYS, USER) == sign_in
    await access.remove_user(store, KEYS, USER)
    view = await view_of(store)
    assert (view.users, view.sign_ins) == ({}, {})
    with pytest.raises(NotFound):
        await access.remove_user(store, KEYS, USER)


async def test_removing_a_user_without_a_record_ends_the_web_sessions() -> None:
    """Their role comes from a Discord guild alone."""
    store = await with_app()
    await access.begin_web_session(store, KEYS, USER)
    assert await access.remove_user(store, KEYS, USER) is None
    assert (await view_of(store)).sign_ins == {}
    with pytest.raises(NotFound):
        await access.remove_user(store, KEYS, USER)
    await store.txn((), [Put(KEYS.sign_in(USER), b"{")])
    assert await access.remove_user(store, KEYS, USER) is None
    assert (await view_of(store)).bad == {}


async def test_a_user_who_is_let_in_while_their_web_sessions_end_is_not_removed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = await with_app()
    await access.begin_web_session(store, KEYS, USER)
    txn = store.txn

    async def late(compares: Any, writes: Any) -> Any:
        monkeypatch.setattr(store, "txn", txn)
        await access.set_user(store, KEYS, KEY, user=USER, role="viewer", now=NOW)
        return await txn(compares, writes)

    monkeypatch.setattr(store, "txn", late)
    with pytest.raises(Conflict):
        await access.remove_user(store, KEYS, USER)
    assert list((await view_of(store)).users) == [USER]


@pytest.mark.parametrize("user", ["", "0", "01", "abc", "1" * 21, "١"])
async def test_a_user_is_a_discord_id(user: str) -> None:
    with pytest.raises(Invalid):
        await access.set_user(MemoryStore(), KEYS, KEY, user=user, role="viewer", now=NOW)


async def test_the_audit_log_keeps_the_last_entries() -> None:
    store = MemoryStore()
    for number in range(ENTRIES_MAX + 3):
        await write_entry(store, KEYS, AuditEntry(at=NOW, who="token:ci", what=str(number)))
    entries = await read_entries(store, KEYS)
    assert len(entries) == ENTRIES_MAX
    assert (entries[0].number, entries[0].what) == (ENTRIES_MAX + 3, str(ENTRIES_MAX + 2))
    assert entries[-1].number == 4
    assert not KEYS.audit.startswith(KEYS.prefix)
