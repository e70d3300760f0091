"""What a worker is made of: the log in JetStream, the cache in Redis, Discord's REST API, and limits of the process."""

import logging
import random
import time
from dataclasses import dataclass

import aiohttp

from sandwich_node.cache.options import RedisOptions
from sandwich_node.cache.redis_store import RedisCache
from sandwich_node.ipc import StreamRemade, WorkerSettings
from sandwich_node.ipc_channel import Channel
from sandwich_node.nats_connection import NatsConnection
from sandwich_node.open_files import SocketRoom, raise_limit, sockets_for_shards
from sandwich_node.publishing.jetstream import JetStreamLog
from sandwich_node.publishing.previous_group import PreviousGroups
from sandwich_node.rest.clients import RestClients
from sandwich_node.shards.failures import FailureLog
from sandwich_sdk.cache import Cache, Tls

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerParts:
    """What the shards of one process share. Without Redis `cache` and `reader` are None.

    nats      the connection that events and requests share
    log       where events go
    previous  what replaced shard groups have published
    http      for gateway connections
    rests     Discord's REST API, a client for each bot
    cache     what events change in Redis
    reader    answers requests from the cache
    failures  limits how often a failure is logged
    room      limits how many shards have a socket
    """

    nats: NatsConnection
    log: JetStreamLog
    previous: PreviousGroups
    http: aiohttp.ClientSession
    rests: RestClients
    cache: RedisCache | None
    reader: Cache | None
    failures: FailureLog
    room: SocketRoom
    rng: random.Random

    async def close(self) -> None:
        """Close the connections that belong to the worker; `http` belongs to the caller."""
        await self.nats.close()
        if self.cache is not None:
            await self.cache.close()
        if self.reader is not None:
            await self.reader.close()


def compose_worker_parts(channel: Channel, settings: WorkerSettings, http: aiohttp.ClientSession) -> WorkerParts:
    """The real parts. Nothing is connected yet; the process's limit of open files is raised."""
    redis = settings.redis
    nats = NatsConnection(settings.nats, name=f"sandwich {settings.node}/{settings.worker}")
    log = JetStreamLog(nats, cluster=settings.cluster, on_remade=lambda app: channel.send(StreamRemade(app)))
    rng = random.Random()
    return WorkerParts(
        nats=nats,
        log=log,
        previous=PreviousGroups(log, rng),
        http=http,
        rests=RestClients(http, settings.api_url),
        cache=RedisCache(redis, clock=time.monotonic) if redis is not None else None,
        reader=_reader(redis) if redis is not None else None,
        failures=FailureLog(),
        room=SocketRoom(sockets_for_shards(raise_limit())),
        rng=rng,
    )


def _reader(options: RedisOptions) -> Cache | None:
    """For requests; each request names its namespace. None: this machine lacks a file, or the URL is of no use."""
    tls = Tls(ca=options.ca, cert=options.cert, key=options.key) if options.ca or options.cert else None
    try:
        return Cache(options.url, namespace="none", password=options.password, tls=tls)
    except ValueError as error:
        _log.error("until the worker is started again it answers no request from the cache: redis: %s", error)
        return None
