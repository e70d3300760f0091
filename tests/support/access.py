"""A node's HTTP server with its real access checks, over a store in memory."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec
from aiohttp import web
from aiohttp.test_utils import TestServer

from sandwich_coordinator.access.identities import SESSION_S, WebSession, web_session_text
from sandwich_coordinator.access.records import SignInRecord
from sandwich_coordinator.access.roles import RoleName
from sandwich_coordinator.config import (
    ApiSettings,
    ClusterSettings,
    DiscordSettings,
    NatsSettings,
    RedisSettings,
)
from sandwich_coordinator.operations.access import begin_web_session, create_token
from sandwich_coordinator.sealing import ClusterKey
from sandwich_coordinator.store.base import Put
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_coordinator.trust import api_proof_of, proof_of
from sandwich_coordinator.types import AppRecord
from sandwich_node.api.access import Access
from sandwich_node.api.audit import Audit
from sandwich_node.api.routing import Route
from sandwich_node.api.server import add_routes
from sandwich_node.api.signing_in import SigningIn
from sandwich_node.api.table import ROUTES
from sandwich_node.discord_http import discord_session
from sandwich_node.http.app import make_app
from sandwich_node.http.node_requests import BetweenNodes
from sandwich_node.http.pages import page_guards
from tests.support.api import KEYS, NOW, FixedPicture, StoredFacts, settling_cluster

KEY = ClusterKey.generate()


def proved_settings(settings: ClusterSettings) -> ClusterSettings:
    """The settings as `apply` stores them."""
    cluster = KEYS.cluster
    return msgspec.structs.replace(
        settings, proof=proof_of(settings, cluster, KEY), api_proof=api_proof_of(settings, cluster, KEY)
    )


SETTINGS = ClusterSettings(nats=NatsSettings(servers=["nats://n"]), redis=RedisSettings(url="redis://r"))


def _client() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar())


@dataclass
class Node:
    """A node that listens. `wall` is the time that it believes in, in Unix seconds."""

    store: MemoryStore
    facts: StoredFacts
    access: Access
    http: aiohttp.ClientSession
    url: str
    wall: float = NOW

    async def token(self, name: str, role: RoleName, apps: list[str] | None = None, **more: Any) -> str:
        """A new API token."""
        made = await create_token(self.store, KEYS, KEY, name=name, role=role, apps=apps, now=self.wall, **more)
        await self.facts.refresh()
        return made.text

    async def session(self, user: str, **more: Any) -> str:
        """A web session of this user, as after a sign-in."""
        sign_in: SignInRecord = await begin_web_session(self.store, KEYS, user)
        await self.facts.refresh()
        session = WebSession(user=user, name="rock", ends_at=self.wall + SESSION_S, **more)
        return web_session_text(session, KEYS.cluster, KEY, sign_in)

    async def use(self, **api: Any) -> None:
        """Change the section `api`, and `api_url` of `discord`."""
        url = api.pop("api_url", "")
        discord = DiscordSettings(api_url=url) if url else SETTINGS.discord
        settings = ClusterSettings(nats=SETTINGS.nats, redis=SETTINGS.redis, discord=discord, api=ApiSettings(**api))
        await self.store.txn((), [Put(KEYS.config, proved_settings(settings).encode())])
        await self.facts.refresh()

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and body of a request; `_` in the names of headers is `-`."""
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        async with self.http.request(
            method, self.url + path, json=body, headers=named, allow_redirects=False
        ) as response:
            raw = await response.read()
            kind = response.headers.get("Content-Type", "")
            return response.status, (await response.json(content_type=None)) if "json" in kind and raw else raw.decode()


@asynccontextmanager
async def a_node(
    *,
    host: str = "127.0.0.1",
    routes: Iterable[Route] = ROUTES,
    store: MemoryStore | None = None,
    also: Callable[[web.Application], None] = lambda app: None,
) -> AsyncIterator[Node]:
    """A node that believes to listen on `host`. Without `store`: with settings and two applications.

    `also` adds to the server.
    """
    if store is None:
        store = MemoryStore()
        apps = [AppRecord(app=name, token="", token_hash=name, intents=0) for name in ("welcomer", "other")]
        await store.txn((), [Put(KEYS.app(app.app), app.encode()) for app in apps])
        await store.txn((), [Put(KEYS.config, proved_settings(SETTINGS).encode())])
    facts = StoredFacts(store)
    await facts.refresh()
    cluster = settling_cluster(store, facts, FixedPicture(), key=KEY)
    access = Access(cluster, host, wall=lambda: node.wall)
    audit = Audit(cluster, wall=lambda: node.wall)
    app = make_app(facts, page_guards(access, BetweenNodes("k" * 64), host))
    add_routes(app, routes, cluster, identify=access.identify, record=audit.record)
    SigningIn(access, audit, lambda discord: discord_session(discord.proxy)).add_to(app)
    also(app)
    async with TestServer(app) as server, _client() as http:
        node = Node(store, facts, access, http, str(server.make_url("")).rstrip("/"))
        yield node
