"""An agent with everything real: etcd, Discord over HTTPS, worker processes, an HTTP server."""

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp

from sandwich_coordinator.addresses import Address
from sandwich_coordinator.config import DiscordSettings
from sandwich_coordinator.discord_api import CurrentUser, GatewayBot, fetch_current_user, fetch_gateway_bot
from sandwich_coordinator.sealing import ClusterKey
from sandwich_coordinator.store.etcd import EtcdStore
from sandwich_coordinator.store.keys import Keys
from sandwich_node.agent.agent import Agent
from sandwich_node.agent.dependencies import AgentDependencies, Listen
from sandwich_node.agent.node_facts import NodeFacts
from sandwich_node.agent.options import NodeOptions
from sandwich_node.agent.server_health import Servers
from sandwich_node.api.access import Access
from sandwich_node.api.audit import Audit
from sandwich_node.api.cluster import ApiCluster
from sandwich_node.api.first_admin import Show, offer_first_admin
from sandwich_node.api.history import History
from sandwich_node.api.idempotency import Answers
from sandwich_node.api.live import cluster_logs
from sandwich_node.api.live.parts import open_live
from sandwich_node.api.messaging import open_messaging
from sandwich_node.api.picture import open_picture
from sandwich_node.api.server import add_routes
from sandwich_node.api.signing_in import SigningIn
from sandwich_node.api.table import ROUTES
from sandwich_node.api.written_store import WrittenStore
from sandwich_node.dashboard.serving import add_dashboard
from sandwich_node.discord_http import discord_session
from sandwich_node.http.app import make_app, serve
from sandwich_node.http.node_requests import BetweenNodes
from sandwich_node.http.pages import page_guards
from sandwich_node.http.tls import ServerTls, keep_certificate
from sandwich_node.log_lines import LogRing
from sandwich_node.webhooks.sender import WebhookSender
from sandwich_node.worker_process import WorkerProcess


def compose_agent(
    options: NodeOptions,
    store: EtcdStore,
    key: ClusterKey | None,
    show_first_token: Show | None = None,
    tls: ServerTls | None = None,
) -> Agent:
    """A node that is ready to `run`. `show_first_token`: see `api.first_admin`; `tls` None: it serves plain HTTP."""
    fingerprint = tls.fingerprint if tls is not None else ""
    options = replace(options, status_key=secrets.token_hex(32), tls_fingerprint=fingerprint)
    ring = LogRing(int(time.time() * 1000))
    dependencies = AgentDependencies(
        store=store,
        listen=_listener(store, options, key, ring, show_first_token, tls),
        open_discord=_open_discord,
        make_worker=WorkerProcess,
        make_server_health=lambda redis, ask_nats: Servers(store, redis, ask_nats=ask_nats),
        rng=random.SystemRandom(),
        wall=time.time,
        clock=time.monotonic,
        logs=ring,
        http_problems=lambda: tls.problems(options.node) if tls is not None else (),
    )
    return Agent(options, dependencies, key)


def _listener(
    store: EtcdStore,
    options: NodeOptions,
    key: ClusterKey | None,
    ring: LogRing,
    show: Show | None,
    tls: ServerTls | None,
) -> Listen:
    """The HTTP server of a node: its own status, and the API over the whole cluster."""

    @asynccontextmanager
    async def listen(facts: NodeFacts, address: Address) -> AsyncIterator[int]:
        async with (
            open_picture(store) as picture,
            open_messaging(facts.settings, key) as messaging,
            open_live(options.node, ring, facts, picture, messaging) as live,
        ):
            keys, between_nodes = Keys(options.cluster), BetweenNodes(options.status_key)
            history = History(store, keys, facts, picture)
            api = ApiCluster(
                store=WrittenStore(store, keys.prefix),
                keys=keys,
                key=key,
                facts=facts,
                picture=picture,
                answers=Answers(store, keys, key),
                messaging=messaging,
                live=live,
                history=history,
            )
            access, audit = Access(api, address.host), Audit(api)
            app = make_app(facts, page_guards(access, between_nodes, address.host))
            app.router.add_get(cluster_logs.PATH, between_nodes.only(cluster_logs.logs_page(ring)))
            add_routes(app, ROUTES, api, identify=access.identify, record=audit.record)
            add_dashboard(app)
            SigningIn(access, audit, lambda discord: discord_session(discord.proxy)).add_to(app)
            sender = WebhookSender(store, keys, key, facts, picture, options.node)
            tasks = [
                asyncio.create_task(offer_first_admin(access, address.host, show)),
                asyncio.create_task(sender.run(), name="webhooks"),
                asyncio.create_task(history.run(), name="history"),
            ]
            if tls is not None:
                tasks.append(asyncio.create_task(keep_certificate(tls, store, api.keys, options.node, facts)))
            try:
                async with serve(app, address, tls.context if tls is not None else None) as port:
                    yield port
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
                await api.going_on.close()

    return listen


class _DiscordRest:
    """`DiscordApi` over one HTTP session."""

    def __init__(self, http: aiohttp.ClientSession, api_url: str) -> None:
        self._http = http
        self._api_url = api_url

    async def gateway_bot(self, token: str) -> GatewayBot:
        """See `DiscordApi.gateway_bot`."""
        return await fetch_gateway_bot(self._http, self._api_url, token)

    async def current_user(self, token: str) -> CurrentUser:
        """See `DiscordApi.current_user`."""
        return await fetch_current_user(self._http, self._api_url, token)


@asynccontextmanager
async def _open_discord(settings: DiscordSettings) -> AsyncIterator[_DiscordRest]:
    async with discord_session(settings.proxy) as http:
        yield _DiscordRest(http, settings.api_url)
