"""One picture of the cluster: what is stored, and what every node says of itself."""

import asyncio
import time

import aiohttp
import msgspec

from sandwich_coordinator.addresses import http_url
from sandwich_coordinator.cli.connection import Connection
from sandwich_coordinator.cli.errors import CommandError
from sandwich_coordinator.cli.render import Snapshot
from sandwich_coordinator.config import ClusterSettings
from sandwich_coordinator.network_errors import network_words
from sandwich_coordinator.sealing import ClusterKey
from sandwich_coordinator.status import NodeStatus
from sandwich_coordinator.store.base import KeyValue, Listing, StoreError
from sandwich_coordinator.store.etcd import EtcdStore
from sandwich_coordinator.store.etcd_health import etcd_findings
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.trust import check_settings
from sandwich_coordinator.types import NodeRecord
from sandwich_coordinator.view import ClusterView

__all__ = ["CommandError", "Connection", "take_snapshot"]

NODE_TIMEOUT_S = 1.0
STATUS_BYTES_MAX = 32 * 1024 * 1024


def read_settings(connection: Connection, item: KeyValue, key: ClusterKey | None) -> ClusterSettings:
    """The cluster's settings as stored; with a key only if it authenticates them.

    Raises CommandError when they cannot be read, SealingError when the key is another one or another writer changed
    them.
    """
    try:
        settings = ClusterSettings.decode(item.value)
    except (msgspec.MsgspecError, ValueError) as error:
        raise CommandError(f"the stored configuration cannot be read: {error}", 1) from None
    if key is not None:
        check_settings(settings, connection.keys.cluster, key)
    return settings


async def _ask(http: aiohttp.ClientSession, record: NodeRecord) -> NodeStatus | str:
    try:
        async with asyncio.timeout(NODE_TIMEOUT_S), http.get(f"{http_url(record.address)}/status") as response:
            if response.status != 200:
                return f"HTTP {response.status}"
            body = await response.content.read(STATUS_BYTES_MAX)
            while chunk := await response.content.read(STATUS_BYTES_MAX - len(body)):
                body += chunk
            return msgspec.json.decode(body, type=NodeStatus)
    except TimeoutError:
        return f"no answer in {NODE_TIMEOUT_S:g} s"
    except msgspec.MsgspecError:
        return "its answer is not a node's status"
    except (aiohttp.ClientError, OSError) as error:
        return network_words(error)
    except ValueError:
        return "its address cannot be used"


async def take_snapshot(store: EtcdStore, keys: Keys) -> Snapshot:
    """Read the cluster and ask every node, all at once. Raises StoreError when etcd does not answer."""
    listing: Listing = await store.list(keys.prefix)
    view = ClusterView.from_items(keys, {item.key: item for item in listing.items}, listing.revision)
    try:
        version = await store.server_version()
    except StoreError:
        version = ""
    try:
        findings = etcd_findings(await store.member_statuses())
    except StoreError:
        findings = []
    records = [entry.record for entry in view.nodes.values()]
    async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as tasks:
        asked = {record.node: tasks.create_task(_ask(http, record)) for record in records if record.address}
    return Snapshot(
        cluster=keys.cluster,
        view=view,
        configured=any(item.key == keys.config for item in listing.items),
        now=time.time(),
        answers={node: task.result() for node, task in asked.items()},
        etcd_version=version,
        # Which members a node reaches, that node says.
        etcd_troubles=tuple(finding.text for finding in findings if finding.blocks),
    )
