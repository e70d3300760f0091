"""The HTTP API over a store in memory, or over real etcd, with an identity of the test's choice."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from sandwich_coordinator.access.roles import Identity, Role
from sandwich_coordinator.config import ClusterSettings
from sandwich_coordinator.operations.snapshot import Snapshot, compose
from sandwich_coordinator.sealing import ClusterKey
from sandwich_coordinator.status import NodeStatus
from sandwich_coordinator.store.base import Store
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.view import ClusterView
from sandwich_node.agent.recent_changes import RecentChanges
from sandwich_node.api.cluster import ApiCluster
from sandwich_node.api.findings import Findings
from sandwich_node.api.idempotency import Answers
from sandwich_node.api.messaging import Messaging
from sandwich_node.api.routing import Call, Changes, Route
from sandwich_node.api.server import BODY_BYTES_MAX, add_routes, problems_only
from sandwich_node.api.table import ROUTES
from sandwich_node.api.written_store import WrittenStore

ADMIN = Identity("token", "test", Role.ADMIN)
NOW = 1_800_000_000.0
KEYS = Keys("c")


class StoredFacts:
    """A node whose view is what the store holds. Call `refresh` after a write that did not go through the API."""

    def __init__(self, store: Store, keys: Keys = KEYS) -> None:
        self._store = store
        self._keys = keys
        self._view: ClusterView | None = None
        self._following: asyncio.Task[None] | None = None
        self._recent = RecentChanges()

    async def refresh(self) -> None:
        listing = await self._store.list(self._keys.prefix)
        self._recent.restart(listing.revision)
        self._view = ClusterView.from_items(self._keys, {item.key: item for item in listing.items}, listing.revision)

    def status(self) -> NodeStatus:
        return NodeStatus(node="a", instance="i", version="1", uptime_s=1.0)

    def not_ready(self) -> Sequence[str]:
        return ()

    def view(self) -> ClusterView | None:
        return self._view

    def recent(self) -> RecentChanges:
        return self._recent

    def settings(self) -> ClusterSettings | None:
        view = self._view
        return ClusterSettings.decode(view.config.value) if view is not None and view.config is not None else None


class FixedPicture:
    """Snapshots with these answers of nodes, made at `now`."""

    def __init__(self, answers: dict[str, NodeStatus | str] | None = None) -> None:
        self.answers = answers or {}
        self.now = NOW
        self.findings = Findings()

    async def snapshot(self, view: ClusterView) -> Snapshot:
        return compose(view, self.answers, etcd_version="3.5.13", etcd_found=(), now=self.now)


class _Settling(ApiCluster):
    """After a change the test's view is read again."""

    async def settle(self) -> None:
        assert isinstance(self.facts, StoredFacts)
        await self.facts.refresh()


def settling_cluster(
    store: Store,
    facts: StoredFacts,
    picture: FixedPicture,
    *,
    keys: Keys = KEYS,
    key: ClusterKey | None = None,
    **more: Any,
) -> ApiCluster:
    """What handlers reach. `more`: further parts of ApiCluster."""
    parts: dict[str, Any] = {
        "store": WrittenStore(store, keys.prefix),
        "keys": keys,
        "key": key,
        "facts": facts,
        "picture": picture,
    }
    parts |= {"answers": Answers(store, keys, key), "messaging": Messaging(facts.settings, key), **more}
    return _Settling(**parts)


@dataclass
class Api:
    """A running API. `identity` is who asks; `store` is behind it.

    recorded  what went to the audit log: who, which route, the error
    changes   and what was before and after
    """

    store: Store
    cluster: ApiCluster
    http: aiohttp.ClientSession
    picture: FixedPicture
    url: str
    identity: Identity = ADMIN
    recorded: list[tuple[str, str, str]] = field(default_factory=list)
    changes: list[Changes] = field(default_factory=list)

    async def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and decoded body of one request below `/api/v1`; None for an empty body."""
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        async with self.http.request(method, f"/api/v1{path}", json=body, headers=named) as response:
            raw = await response.read()
            return response.status, (await response.json(content_type=None)) if raw else None


@asynccontextmanager
async def api_over(
    store: Store,
    *,
    keys: Keys = KEYS,
    routes: Iterable[Route] = ROUTES,
    key: ClusterKey | None = None,
    also: Callable[[web.Application], None] = lambda app: None,
    **more: Any,
) -> AsyncIterator[Api]:
    """The API over `store`. `also` adds to the server; `more`: further parts of ApiCluster."""
    facts, picture = more.pop("facts", None) or StoredFacts(store, keys), more.pop("picture", None) or FixedPicture()
    await facts.refresh()
    cluster = settling_cluster(store, facts, picture, keys=keys, key=key, **more)

    async def identify(_request: web.Request, _route: Route) -> Identity:
        return api.identity

    async def record(call: Call, route: Route, error: Exception | None) -> None:
        api.recorded.append((call.identity.name, f"{route.method} {route.path}", str(error or "")))
        api.changes.append(call.changes)

    app = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[problems_only])
    add_routes(app, routes, cluster, identify=identify, record=record)
    also(app)
    async with TestServer(app) as server, aiohttp.ClientSession(str(server.make_url("/"))) as http:
        api = Api(store, cluster, http, picture, str(server.make_url("")))
        try:
            yield api
        finally:
            await cluster.going_on.close()
            await cluster.messaging.close()
