"""One picture of the cluster: what is stored in etcd, and what every node reports about itself."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp
import msgspec

from sandwich_coordinator.config import ClusterSettings
from sandwich_coordinator.fingerprints import fingerprints
from sandwich_coordinator.operations.node_requests import NodeSilent, NotAuthentic, ask_node
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.problems import Problem, Severity
from sandwich_coordinator.status import NodeStatus
from sandwich_coordinator.store.base import Listing, StoreError
from sandwich_coordinator.store.etcd import EtcdStore
from sandwich_coordinator.store.etcd_health import etcd_problems
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import NodeRecord
from sandwich_coordinator.view import ClusterView


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
    version, found = await ask_etcd(store)
    async with aiohttp.ClientSession() as http:
        answers = await ask_nodes(http, view)
    return compose(view, answers, etcd_version=version, etcd_found=found, now=time.time())


async def ask_etcd(store: EtcdStore) -> tuple[str, list[Problem]]:
    """Its version and what is wrong with it; "" and nothing where it does not say."""
    try:
        version = await store.server_version()
    except StoreError:
        version = ""
    try:
        return version, etcd_problems(await store.member_statuses())
    except StoreError:
        return version, []


async def ask_nodes(http: aiohttp.ClientSession, view: ClusterView) -> dict[str, NodeStatus | str]:
    """The status of every registered node, asked all at once; or why it did not answer within a second."""
    records = [entry.record for entry in view.nodes.values()]
    async with asyncio.TaskGroup() as tasks:
        asked = {record.node: tasks.create_task(_ask(http, record)) for record in records if record.address}
    return {node: task.result() for node, task in asked.items()}


def compose(
    view: ClusterView,
    answers: Mapping[str, NodeStatus | str],
    *,
    etcd_version: str,
    etcd_found: Sequence[Problem],
    now: float,
) -> Snapshot:
    """The picture that these parts make. Pure."""
    others = misdirected(answers)
    settings = _settings(view)
    return Snapshot(
        cluster=view.keys.cluster,
        view=view,
        configured=view.config is not None,
        now=now,
        answers={**answers, **{node: f"node {other} answers there" for node, other in others.items()}},
        misdirected=others,
        settings=fingerprints(settings) if settings is not None else {},
        policy=settings.policy.policy() if settings is not None else Policy(),
        etcd_version=etcd_version,
        # Which members a node reaches, that node reports.
        etcd_problems=tuple(one for one in etcd_found if one.severity is Severity.CRITICAL),
    )


def misdirected(answers: Mapping[str, NodeStatus | str]) -> dict[str, str]:
    """The nodes for which another node answered, and which. Figures of such an answer would count twice. Pure."""
    return {
        node: answer.node for node, answer in answers.items() if isinstance(answer, NodeStatus) and answer.node != node
    }


def _settings(view: ClusterView) -> ClusterSettings | None:
    """The stored settings; None when there are none that can be read."""
    if view.config is None:
        return None
    try:
        return ClusterSettings.decode(view.config.value)
    except (msgspec.MsgspecError, ValueError):
        return None


async def _ask(http: aiohttp.ClientSession, record: NodeRecord) -> NodeStatus | str:
    try:
        return msgspec.json.decode(await ask_node(http, record, "/status"), type=NodeStatus)
    except NotAuthentic as error:
        return _other_node(record, error)
    except NodeSilent as error:
        return str(error)
    except msgspec.MsgspecError:
        return "its answer is not a node's status"


def _other_node(record: NodeRecord, error: NotAuthentic) -> NodeStatus | str:
    """What another node answers there is kept for its name only (`misdirected`): it says where to look."""
    try:
        said = msgspec.json.decode(error.body, type=NodeStatus)
    except msgspec.MsgspecError:
        return str(error)
    return said if said.node != record.node else str(error)
