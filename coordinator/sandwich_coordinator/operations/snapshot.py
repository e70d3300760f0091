"""One picture of the cluster: what is stored in etcd, and what every node reports about itself."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp
import msgspec

from sandwich_coordinator.addresses import http_url
from sandwich_coordinator.config import ClusterSettings
from sandwich_coordinator.fingerprints import fingerprints
from sandwich_coordinator.network_errors import network_words
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.problems import Problem, Severity
from sandwich_coordinator.status import NodeStatus
from sandwich_coordinator.store.base import Listing, StoreError
from sandwich_coordinator.store.etcd import EtcdStore
from sandwich_coordinator.store.etcd_health import etcd_problems
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import NodeRecord
from sandwich_coordinator.view import ClusterView

NODE_TIMEOUT_S = 1.0
STATUS_BYTES_MAX = 32 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The cluster at `now` (Unix seconds).

    answers         each node's own status, or why it did not answer
    misdirected     by node: which other node answers at the address that it advertises
    settings        fingerprints of the stored settings, by section
    policy          the stored limits; the defaults when there are none
    etcd_problems   why etcd does not do its work
    """

    cluster: str
    view: ClusterView
    configured: bool
    now: float
    answers: Mapping[str, NodeStatus | str] = field(default_factory=dict)
    misdirected: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    policy: Policy = field(default_factory=Policy)
    etcd_version: str = ""
    etcd_problems: Sequence[Problem] = ()


async def take_snapshot(store: EtcdStore, keys: Keys) -> Snapshot:
    """Read the cluster and ask every node, all at once. Raises StoreError when etcd does not answer."""
    listing: Listing = await store.list(keys.prefix)
    view = ClusterView.from_items(keys, {item.key: item for item in listing.items}, listing.revision)
    try:
        version = await store.server_version()
    except StoreError:
        version = ""
    try:
        found = etcd_problems(await store.member_statuses())
    except StoreError:
        found = []
    records = [entry.record for entry in view.nodes.values()]
    async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as tasks:
        asked = {record.node: tasks.create_task(_ask(http, record)) for record in records if record.address}
    answers = {node: task.result() for node, task in asked.items()}
    others = misdirected(answers)
    settings = _settings(listing, keys)
    return Snapshot(
        cluster=keys.cluster,
        view=view,
        configured=any(item.key == keys.config for item in listing.items),
        now=time.time(),
        answers=answers | {node: f"node {other} answers there" for node, other in others.items()},
        misdirected=others,
        settings=fingerprints(settings) if settings is not None else {},
        policy=settings.policy.policy() if settings is not None else Policy(),
        etcd_version=version,
        # Which members a node reaches, that node reports.
        etcd_problems=tuple(one for one in found if one.severity is Severity.CRITICAL),
    )


def misdirected(answers: Mapping[str, NodeStatus | str]) -> dict[str, str]:
    """The nodes for which another node answered, and which. Figures of such an answer would count twice. Pure."""
    return {
        node: answer.node for node, answer in answers.items() if isinstance(answer, NodeStatus) and answer.node != node
    }


def _settings(listing: Listing, keys: Keys) -> ClusterSettings | None:
    """The stored settings; None when there are none that can be read."""
    for item in listing.items:
        if item.key == keys.config:
            try:
                return ClusterSettings.decode(item.value)
            except (msgspec.MsgspecError, ValueError):
                return None
    return None


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
