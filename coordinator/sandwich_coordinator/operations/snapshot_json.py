"""A snapshot as JSON and back, without secrets: what `sandwich --api` reads in place of etcd. Pure."""

from dataclasses import replace
from typing import Any

import msgspec

from sandwich_coordinator.operations.snapshot import Snapshot
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.problems import Problem
from sandwich_coordinator.status import NodeStatus
from sandwich_coordinator.store.base import KeyValue
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import Record
from sandwich_coordinator.view import BadEntry, ClusterView, Entry

VERSION = 1
_SECRETS = {
    "apps": ("token",),
    "groups": ("token",),
    "nodes": ("status_key",),
    "sessions": ("session_id", "resume_url"),
}
"""What is not given away, by table: sealed tokens, and what would let a reader take a session over."""

_GIVEN = {"webhooks": ("name", "type"), "webhook_states": ("of", "failing_since", "error")}
"""All that is given of these tables: where notices go, and what they say, is for administrators."""

_NOT_GIVEN = frozenset({"tokens", "users", "sign_ins"})
"""Who has access is for administrators."""


class StoredRecord(msgspec.Struct, frozen=True, array_like=True):
    """One key below the cluster's prefix: its value, its revisions and its lease (0: none)."""

    key: str
    value: msgspec.Raw
    create_revision: int
    mod_revision: int
    lease: int


class SnapshotDocument(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a `Snapshot`. `records`: what the view has, but the cluster's settings and who has access."""

    v: int
    cluster: str
    revision: int
    configured: bool
    now: float
    records: list[StoredRecord]
    bad: dict[str, tuple[str, int, int]]
    answers: dict[str, NodeStatus | str]
    misdirected: dict[str, str]
    settings: dict[str, str]
    policy: dict[str, Any]
    etcd_version: str
    etcd_problems: list[Problem]


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """The snapshot as JSON."""
    return msgspec.json.encode(
        SnapshotDocument(
            v=VERSION,
            cluster=snapshot.cluster,
            revision=snapshot.view.revision,
            configured=snapshot.configured,
            now=snapshot.now,
            records=_records(snapshot.view),
            bad={key: (bad.reason, bad.mod_revision, bad.lease) for key, bad in snapshot.view.bad.items()},
            answers=dict(snapshot.answers),
            misdirected=dict(snapshot.misdirected),
            settings=dict(snapshot.settings),
            policy=msgspec.to_builtins(snapshot.policy),
            etcd_version=snapshot.etcd_version,
            etcd_problems=list(snapshot.etcd_problems),
        )
    )


def decode_snapshot(body: bytes) -> Snapshot:
    """The snapshot that `encode_snapshot` wrote. Raises ValueError for what is not one, or of a newer version."""
    try:
        document = msgspec.json.decode(body, type=SnapshotDocument)
        if document.v != VERSION:
            raise ValueError(f"the snapshot has version {document.v}; this program knows {VERSION}")
        return Snapshot(
            cluster=document.cluster,
            view=_view(document),
            configured=document.configured,
            now=document.now,
            answers=document.answers,
            misdirected=document.misdirected,
            settings=document.settings,
            policy=msgspec.convert(document.policy, Policy),
            etcd_version=document.etcd_version,
            etcd_problems=document.etcd_problems,
        )
    except msgspec.MsgspecError as error:
        raise ValueError(f"this is not a snapshot: {error}") from None


def _records(view: ClusterView) -> list[StoredRecord]:
    keys = view.keys
    found: list[StoredRecord] = []
    for name, prefix in keys.tables().items():
        if name in _NOT_GIVEN:
            continue
        for identity, entry in getattr(view, name).items():
            parts = identity if isinstance(identity, tuple) else (identity,)
            found.append(_record(prefix + "/".join(map(str, parts)), entry, _given(name, entry.record)))
    if view.leader is not None:
        found.append(_record(keys.leader, view.leader, view.leader.record))
    return found


def _given(table: str, record: Record) -> Record:
    """What is given of a record."""
    if table in _GIVEN:
        return type(record)(**{name: getattr(record, name) for name in _GIVEN[table]})
    blanked = {name: "" for name in _SECRETS.get(table, ()) if getattr(record, name, "")}
    return msgspec.structs.replace(record, **blanked) if blanked else record


def _record(key: str, entry: Entry[Any], record: Record) -> StoredRecord:
    value = msgspec.Raw(record.encode())
    return StoredRecord(key, value, entry.create_revision, entry.mod_revision, entry.lease)


def _view(document: SnapshotDocument) -> ClusterView:
    items = {
        one.key: KeyValue(one.key, bytes(one.value), one.create_revision, one.mod_revision, 1, one.lease)
        for one in document.records
    }
    view = ClusterView.from_items(Keys(document.cluster), items, document.revision)
    return replace(view, bad={**view.bad, **{key: BadEntry(*found) for key, found in document.bad.items()}})
