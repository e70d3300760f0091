"""One contract, two stores: etcd (real, with its faults) and the one in memory."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import pytest

from sandwich_coordinator.store.base import (
    Behind,
    Compacted,
    Compare,
    Delete,
    LeaseLost,
    Put,
    Store,
    StoreAmbiguous,
    StoreError,
    StoreRefused,
    StoreUnavailable,
    WatchEvent,
)
from sandwich_coordinator.store.etcd import EtcdStore, TlsOptions
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_node.dev.embedded import EmbeddedEtcd, etcd_cluster
from sandwich_node.dev.ports import free_ports
from tests.support.servers import Certificates

pytestmark = pytest.mark.contract
DEADLINE_S = 60.0


@pytest.fixture(params=["memory", "etcd"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore(asyncio.get_running_loop().time)
        return
    async with EmbeddedEtcd(tmp_path / "etcd") as server:
        found = EtcdStore([server.url])
        yield found
        await found.close()


@pytest.fixture
async def etcd(tmp_path: Path) -> AsyncIterator[EmbeddedEtcd]:
    async with EmbeddedEtcd(tmp_path / "etcd") as server:
        yield server


async def take(store: Store, prefix: str, revision: int, count: int) -> list[WatchEvent]:
    """The first `count` events of a watch."""
    events: list[WatchEvent] = []
    async with asyncio.timeout(DEADLINE_S), aclosing(cast(Any, store.watch(prefix, revision))) as batches:
        async for batch in batches:
            events += batch.events
            if len(events) >= count:
                return events
    raise AssertionError("a watch never ends by itself")


async def eventually(check: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            if await check():
                return
            await asyncio.sleep(0.02)


async def put(store: Store, key: str, value: bytes, lease: int = 0) -> int:
    """Write; repeat it when the outcome is unknown: the value is the same."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                return (await store.txn([], [Put(key, value, lease)])).revision
            except (StoreAmbiguous, StoreUnavailable):
                await asyncio.sleep(0.05)


async def test_a_transaction_applies_all_of_its_writes_or_none(store: Store) -> None:
    made = await store.txn([Compare("/a", "create_revision", 0)], [Put("/a", b"1"), Put("/b", b"")])
    again = await store.txn([Compare("/a", "create_revision", 0)], [Put("/a", b"2"), Delete("/b")])
    assert (made.succeeded, again.succeeded) == (True, False)
    assert again.revision == made.revision
    listing = await store.list("/")
    assert [(kv.key, kv.value, kv.mod_revision, kv.version) for kv in listing.items] == [
        ("/a", b"1", made.revision, 1),
        ("/b", b"", made.revision, 1),
    ]
    assert listing.revision == made.revision


async def test_guards_compare_revisions_and_values(store: Store) -> None:
    first = (await store.txn([], [Put("/k", b"one")])).revision
    assert (await store.txn([Compare("/k", "mod_revision", first)], [Put("/k", b"two")])).succeeded
    assert not (await store.txn([Compare("/k", "mod_revision", first)], [Put("/k", b"x")])).succeeded
    assert (await store.txn([Compare("/k", "create_revision", first)], [Put("/k", b"three")])).succeeded
    assert (await store.txn([Compare("/k", "value", b"three")], [Delete("/k")])).succeeded
    assert await store.get("/k") is None
    assert not (await store.txn([Compare("/k", "value", b"")], [Put("/k", b"x")])).succeeded
    assert (await store.txn([Compare("/k", "mod_revision", 0)], [Put("/k", b"back")])).succeeded


async def test_any_bytes_and_names_are_read_back_as_written(store: Store) -> None:
    value = bytes(range(256))
    await store.txn([], [Put("/ä/名", value), Put("/ä0", b"beside"), Put("/ä/\U0001f96a", b"")])
    found = await store.list("/ä/")
    assert {kv.key: kv.value for kv in found.items} == {"/ä/名": value, "/ä/\U0001f96a": b""}
    deleted = await store.txn([], [Delete("/ä/", prefix=True)])
    assert [kv.key for kv in (await store.list("/")).items] == ["/ä0"]
    events = await take(store, "/ä/", deleted.revision, 2)
    assert [(e.kind, e.kv.value, e.kv.mod_revision) for e in events] == [("delete", b"", deleted.revision)] * 2


async def test_a_transaction_that_is_too_large_or_contradictory_is_refused(store: Store) -> None:
    with pytest.raises(StoreRefused):
        await store.txn([], [Put("/huge", b"x" * 2_000_000)])
    with pytest.raises(StoreRefused):
        await store.txn([], [Put(f"/{n}", b"") for n in range(129)])
    with pytest.raises(StoreRefused):
        await store.txn([], [Put("/twice", b"1"), Put("/twice", b"2")])
    assert (await store.list("/")).items == ()


async def test_a_revoked_lease_deletes_its_keys_in_one_revision(store: Store) -> None:
    lease = await store.grant(30)
    assert await store.keep_alive(lease) == 30.0
    revision = (await store.txn([], [Put("/l/b", b"1", lease), Put("/l/a", b"2", lease), Put("/l/c", b"3")])).revision
    kept = await store.get("/l/a")
    assert kept is not None
    assert kept.lease == lease
    await store.revoke(lease)
    events = await take(store, "/l/", revision + 1, 2)
    assert [(e.kind, e.kv.key) for e in events] == [("delete", "/l/a"), ("delete", "/l/b")]
    assert {e.kv.mod_revision for e in events} == {revision + 1}
    await store.revoke(lease)
    with pytest.raises(LeaseLost):
        await store.keep_alive(lease)
    with pytest.raises(LeaseLost):
        await store.txn([], [Put("/l/d", b"", lease)])


async def test_a_lease_that_is_not_renewed_expires_and_watchers_see_it(store: Store) -> None:
    lease = await store.grant(2)
    revision = (await store.txn([], [Put("/e", b"", lease)])).revision
    events = await take(store, "/e", revision + 1, 1)
    assert events[0].kind == "delete"
    with pytest.raises(LeaseLost):
        await store.keep_alive(lease)


async def test_a_burst_of_two_thousand_events_arrives_complete_and_in_order(store: Store) -> None:
    start = (await store.list("/")).revision
    watching = asyncio.create_task(take(store, "/burst/", start + 1, 2000))
    for block in range(20):
        async with asyncio.TaskGroup() as group:
            for n in range(10):
                keys = [f"/burst/{block}/{n}/{k}" for k in range(10)]
                group.create_task(store.txn([], [Put(key, b"x" * 100) for key in keys]))
    events = await watching
    assert len({e.kv.key for e in events}) == len(events) == 2000
    revisions = [e.kv.mod_revision for e in events]
    assert revisions == sorted(revisions)
    assert events == await take(store, "/burst/", start + 1, 2000)


async def test_a_watch_from_a_compacted_revision_raises_compacted(store: EtcdStore | MemoryStore) -> None:
    for n in range(5):
        last = (await store.txn([], [Put("/c", b"%d" % n)])).revision
    if isinstance(store, MemoryStore):
        store.compact(last)
    else:
        await store.compact(last)
    with pytest.raises(Compacted) as caught:
        await take(store, "/c", last - 2, 1)
    assert caught.value.revision == last
    assert (await take(store, "/c", last, 1))[0].kv.value == b"4"


async def test_a_watch_survives_kill_and_restart_of_the_server(etcd: EmbeddedEtcd) -> None:
    store = EtcdStore([etcd.url], timeout_s=1.0)
    try:
        start = (await store.list("/")).revision
        watching = asyncio.create_task(take(store, "/r/", start + 1, 40))
        for n in range(20):
            await put(store, f"/r/{n:02}", b"")
        await etcd.kill()
        with pytest.raises(StoreUnavailable):
            await store.txn([], [Put("/never", b"")])
        await etcd.start()
        for n in range(20, 40):
            await put(store, f"/r/{n:02}", b"")
        assert [e.kv.key for e in await watching] == [f"/r/{n:02}" for n in range(40)]
    finally:
        await store.close()


async def test_a_dead_endpoint_before_a_good_one_is_skipped(etcd: EmbeddedEtcd) -> None:
    store = EtcdStore([f"127.0.0.1:{free_ports(1)[0]}", etcd.url])
    try:
        done = await store.txn([], [Put("/d", b"1")])
        assert done.succeeded
        assert (await take(store, "/d", done.revision, 1))[0].kv.value == b"1"
        assert (await store.server_version()).startswith("3.")
    finally:
        await store.close()


async def test_a_frozen_member_loses_neither_calls_nor_watches(tmp_path: Path) -> None:
    members = etcd_cluster(tmp_path)
    try:
        async with asyncio.TaskGroup() as group:
            for member in members:
                group.create_task(member.start())
        store = EtcdStore([member.url for member in members], timeout_s=2.0, watch_silence_s=0.5)
        start = await put(store, "/f/0", b"")
        watching = asyncio.create_task(take(store, "/f/", start, 2))
        await eventually(lambda: _answers(store))
        await members[0].pause()
        await put(store, "/f/1", b"")
        assert [e.kv.key for e in await watching][:2] == ["/f/0", "/f/1"]
        await store.close()
    finally:
        for member in members:
            await member.kill()


async def test_a_frozen_server_leaves_a_write_ambiguous_and_a_read_unavailable(etcd: EmbeddedEtcd) -> None:
    store = EtcdStore([etcd.url], timeout_s=0.3)
    try:
        await put(store, "/w", b"")
        await etcd.pause()
        with pytest.raises(StoreAmbiguous):
            await store.txn([], [Put("/w", b"1")])
        with pytest.raises(StoreUnavailable):
            await store.get("/w")
    finally:
        await store.close()


async def test_an_expired_token_is_renewed_for_calls_and_a_wrong_password_is_refused(tmp_path: Path) -> None:
    async with EmbeddedEtcd(tmp_path / "etcd", extra=["--auth-token-ttl", "1", "--bcrypt-cost", "4"]) as server:
        plain = EtcdStore([server.url])
        for path, body in (
            ("/auth/user/add", {"name": "root", "password": "pw"}),
            ("/auth/role/add", {"name": "root"}),
            ("/auth/user/grant", {"user": "root", "role": "root"}),
            ("/auth/enable", {}),
        ):
            await plain._call((path, body), dict)
        store = EtcdStore([server.url], username="root", password="pw")
        wrong = EtcdStore([server.url], username="root", password="no")
        try:
            await put(store, "/auth", b"1")
            store._token = "expired.1"
            assert await store.get("/auth") is not None
            for refused in (plain, wrong):
                with pytest.raises(StoreRefused):
                    await refused.get("/auth")
        finally:
            for each in (plain, store, wrong):
                await each.close()


async def _answers(store: Store) -> bool:
    try:
        await store.get("/f/0")
    except StoreError:
        return False
    return True


async def test_a_watch_from_beyond_the_server_s_revision_raises_at_once(etcd: EmbeddedEtcd) -> None:
    store = EtcdStore([etcd.url])
    try:
        revision = await put(store, "/b", b"")
        with pytest.raises(Behind):
            await anext(aiter(store.watch("/b", revision + 100)))
    finally:
        await store.close()


class TlsEtcd(EmbeddedEtcd):
    """A member that speaks TLS and asks for a client certificate."""

    def __init__(self, directory: Path, certificates: Certificates) -> None:
        cert, key = certificates.issue("server", "127.0.0.1")
        files = ("--cert-file", str(cert), "--key-file", str(key), "--trusted-ca-file", str(certificates.ca))
        super().__init__(directory, extra=(*files, "--client-cert-auth"))
        self.options = TlsOptions(certificates.ca, *certificates.issue("client"))

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    async def ready(self) -> bool:
        return await said(self.url, self.options) == ""


async def said(url: str, options: TlsOptions) -> str:
    """Why etcd does not answer; "": it does."""
    store = EtcdStore([url], tls=options)
    try:
        await store.get("/x")
    except StoreUnavailable as error:
        return str(error)
    finally:
        await store.close()
    return ""


async def test_tls_with_another_ca_or_client_certificate_fails_and_the_error_says_which(tmp_path: Path) -> None:
    (tmp_path / "others").mkdir()
    mine, others = Certificates(tmp_path), Certificates(tmp_path / "others")
    async with TlsEtcd(tmp_path / "etcd", mine) as etcd:
        other_ca = "(a CA that is not trusted here made its certificate)"
        assert other_ca in await said(etcd.url, TlsOptions(others.ca))
        assert other_ca in await said(etcd.url, TlsOptions())
        refused = "it refuses the client certificate, or that there is none"
        assert refused in await said(etcd.url, TlsOptions(mine.ca))
        assert refused in await said(etcd.url, TlsOptions(mine.ca, *others.issue("client")))
        elsewhere = etcd.url.replace("127.0.0.1", "localhost")
        assert "certificate is not valid for 'localhost'" in await said(elsewhere, etcd.options)
