"""An agent with everything real: etcd, Discord over HTTPS, worker processes, an HTTP server."""

import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

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
from sandwich_node.api.access import identify, record
from sandwich_node.api.cluster import ApiCluster
from sandwich_node.api.idempotency import Answers
from sandwich_node.api.messaging import open_messaging
from sandwich_node.api.picture import open_picture
from sandwich_node.api.server import add_routes
from sandwich_node.api.table import ROUTES
from sandwich_node.discord_http import discord_session
from sandwich_node.http.app import make_app, serve
from sandwich_node.worker_process import WorkerProcess


def compose_agent(options: NodeOptions, store: EtcdStore, key: ClusterKey | None) -> Agent:
    """A node that is ready to `run`."""
    dependencies = AgentDependencies(
        store=store,
        listen=_listener(store, options.cluster, key),
        open_discord=_open_discord,
        make_worker=WorkerProcess,
        make_server_health=lambda redis, ask_nats: Servers(store, redis, ask_nats=ask_nats),
        rng=random.SystemRandom(),
        wall=time.time,
    )
    return Agent(options, dependencies, key)


def _listener(store: EtcdStore, cluster: str, key: ClusterKey | None) -> Listen:
    """The HTTP server of a node: its own status, and the API over the whole cluster."""

    @asynccontextmanager
    async def listen(facts: NodeFacts, address: Address) -> AsyncIterator[int]:
        async with open_picture(store) as picture:
            app = make_app(facts)
            keys = Keys(cluster)
            async with open_messaging(facts.settings, key) as messaging:
                api = ApiCluster(
                    store=store,
                    keys=keys,
                    key=key,
                    facts=facts,
                    picture=picture,
                    answers=Answers(store, keys, key),
                    messaging=messaging,
                )
                add_routes(app, ROUTES, api, identify=identify, record=record)
                async with serve(app, address) as port:
                    yield port

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
