"""The cluster as named objects, and how two pictures of it differ. Pure.

Objects have a name (`shard/welcomer/0/3`) and fields. Those that are stored in etcd are the same on every node at the
same revision; problems and figures are what the node that serves finds out itself.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandwich_coordinator.access.roles import Identity
from sandwich_coordinator.ids import GroupId, ShardId
from sandwich_coordinator.operations.snapshot import Snapshot
from sandwich_coordinator.problems import Problem, app_of_subject
from sandwich_coordinator.status import NodeStatus
from sandwich_coordinator.types import ClaimRecord, GroupRecord, NodeRecord
from sandwich_coordinator.view import ClusterView, Entry

Fields = Mapping[str, Any]
Objects = Mapping[str, Fields]


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one object. `fields`: all of them, or (`part`) those that changed; None when it is gone."""

    name: str
    fields: Fields | None
    part: bool = False

    def value(self) -> dict[str, Any]:
        """As readers get it."""
        if self.fields is None:
            return {"object": self.name, "removed": True}
        return {"object": self.name, "patch" if self.part else "set": self.fields}


@dataclass(frozen=True, slots=True)
class Scope:
    """The applications that a reader sees. None: all of them, and the cluster itself."""

    apps: frozenset[str] | None = None

    @classmethod
    def of(cls, identity: Identity) -> "Scope":
        """The scope of an identity."""
        return cls(identity.apps)

    @property
    def tag(self) -> str:
        """A short name: a reader whose scope is another one than before begins with a snapshot."""
        if self.apps is None:
            return "all"
        return hashlib.sha256("\n".join(sorted(self.apps)).encode()).hexdigest()[:12]

    def sees(self, name: str) -> bool:
        """Whether an object is within the scope."""
        return self.apps is None or app_of(name) in self.apps


def app_of(name: str) -> str | None:
    """The application that an object belongs to; None: the cluster."""
    kind, _, rest = name.partition("/")
    if kind in ("app", "group", "shard"):
        return rest.partition("/")[0]
    if kind == "problem":
        _, _, subject = rest.partition("/")
        return app_of_subject(subject) or None
    return None


def merged(before: Fields, after: Fields) -> dict[str, Any]:
    """The fields of `after` that `before` has otherwise; a field that is gone is None (RFC 7396)."""
    changed = {name: value for name, value in after.items() if name not in before or before[name] != value}
    return changed | dict.fromkeys(before.keys() - after.keys())


def differences(before: Objects, after: Objects) -> list[Change]:
    """How two sets of objects differ, in the order of their names."""
    return [
        change
        for name in sorted(before.keys() | after.keys())
        if (change := _difference(name, before.get(name), after.get(name))) is not None
    ]


def _difference(name: str, before: Fields | None, after: Fields | None) -> Change | None:
    if before == after:
        return None
    if after is None:
        return Change(name, None)
    return Change(name, after) if before is None else Change(name, merged(before, after), part=True)


# --- what is stored in etcd -------------------------------------------------------------------------------------------


def _node(record: NodeRecord) -> dict[str, Any]:
    return {
        "state": record.state,
        "address": record.address,
        "version": record.version,
        "capacity": record.capacity,
        "max_shards": record.max_shards,
        "workers": record.workers,
        "started_at": record.started_at,
    }


def _app(view: ClusterView, name: str) -> dict[str, Any] | None:
    entry = view.apps.get(name)
    if entry is None:
        return None
    proposal = view.proposals.get(name)
    return {
        "paused": entry.record.paused or bool(entry.record.paused_at),
        "removing": name in view.removals,
        "proposed_shards": proposal.record.count if proposal is not None else 0,
        "revision": entry.mod_revision,
    }


def _group(record: GroupRecord) -> dict[str, Any]:
    return {
        "shards": record.count,
        "ids": record.ids,
        "state": record.state,
        "phase": record.phase,
        "reason": record.reason,
        "replaces": -1 if record.replaces is None else record.replaces,
        "created_at": record.created_at,
    }


def _shard(record: ClaimRecord) -> dict[str, Any]:
    return {
        "state": record.state,
        "node": record.node,
        "worker": record.worker,
        "since": record.since,
        "reason": record.reason,
    }


def _record(entry: Entry[Any] | None, fields: Callable[[Any], dict[str, Any]]) -> dict[str, Any] | None:
    return None if entry is None else fields(entry.record)


def stored_object(view: ClusterView, name: str) -> dict[str, Any] | None:
    """The fields of the stored object of this name; None when it is not there."""
    kind, *rest = name.split("/")
    match kind, rest:
        case "leader", []:
            return {"node": view.leader.record.node} if view.leader is not None else None
        case "node", [node]:
            return _record(view.nodes.get(node), _node)
        case "app", [app]:
            return _app(view, app)
        case "group", [app, group]:
            return _record(view.groups.get(GroupId(app, int(group))), _group)
        case "shard", [app, group, shard]:
            return _record(view.claims.get(ShardId(app, int(group), int(shard))), _shard)
    return None


def stored_names(view: ClusterView) -> Iterator[str]:
    """The names of all stored objects."""
    if view.leader is not None:
        yield "leader"
    yield from (f"node/{node}" for node in view.nodes)
    yield from (f"app/{app}" for app in view.apps)
    yield from (f"group/{key.app}/{key.group}" for key in view.groups)
    yield from (f"shard/{key.app}/{key.group}/{key.shard}" for key in view.claims)


def stored_objects(view: ClusterView, scope: Scope) -> dict[str, Fields]:
    """All stored objects that a scope sees."""
    return {
        name: fields
        for name in stored_names(view)
        if scope.sees(name) and (fields := stored_object(view, name)) is not None
    }


def stored_changes(before: ClusterView, after: ClusterView) -> list[Change]:
    """How the stored objects of two views differ. Looks only at what changed, as 10,000 shards need it."""
    names = [
        *(["leader"] if before.leader is not after.leader else ()),
        *(f"node/{node}" for node in _changed(before.nodes, after.nodes)),
        *(f"app/{app}" for app in sorted(_changed_apps(before, after))),
        *(f"group/{key.app}/{key.group}" for key in _changed(before.groups, after.groups)),
        *(f"shard/{key.app}/{key.group}/{key.shard}" for key in sorted(after.changed_claims(before))),
    ]
    found = (_difference(name, stored_object(before, name), stored_object(after, name)) for name in names)
    return [change for change in found if change is not None]


def _changed(before: Mapping[Any, Any], after: Mapping[Any, Any]) -> list[Any]:
    if before is after:
        return []
    return sorted(key for key in before.keys() | after.keys() if before.get(key) is not after.get(key))


def _changed_apps(before: ClusterView, after: ClusterView) -> set[str]:
    return {
        *_changed(before.apps, after.apps),
        *_changed(before.removals, after.removals),
        *_changed(before.proposals, after.proposals),
    }


def object_of_key(view: ClusterView, key: str) -> str | None:
    """The name of the object that a key of etcd belongs to; None for one that no object shows."""
    keys = view.keys
    if key == keys.leader:
        return "leader"
    for prefix, kind, parts in (
        (keys.claims, "shard", 3),
        (keys.groups, "group", 2),
        (keys.nodes, "node", 1),
        (keys.apps, "app", 1),
        (keys.removals, "app", 1),
        (keys.proposals, "app", 1),
    ):
        rest = key.removeprefix(prefix)
        if rest != key:
            pieces = rest.split("/")
            numbers_ok = all(piece.isascii() and piece.isdecimal() for piece in pieces[1:])
            return f"{kind}/{rest}" if len(pieces) == parts and all(pieces) and numbers_ok else None
    return None


def resumed(view: ClusterView, touched: Iterable[str], scope: Scope) -> list[Change]:
    """The present state of every object that one of these keys belongs to."""
    names = {name for key in touched if (name := object_of_key(view, key)) is not None and scope.sees(name)}
    return [Change(name, stored_object(view, name)) for name in sorted(names)]


# --- what the node finds out ------------------------------------------------------------------------------------------


def problem_objects(problems: Iterable[Problem]) -> dict[str, Fields]:
    """Problems by name: `problem/<code>/<subject>`. The worst of one name is shown."""
    found: dict[str, Fields] = {}
    for one in problems:
        found.setdefault(
            f"problem/{one.code.value}/{one.subject}",
            {
                "code": one.code.value,
                "severity": one.severity.value,
                "subject": one.subject,
                "summary": one.summary,
                "advice": one.advice,
                "since": one.since,
                "nodes": list(one.nodes),
            },
        )
    return found


def figures(snapshot: Snapshot) -> dict[str, dict[str, Any]]:
    """The figures of nodes and applications, by `node/<node>` and `app/<app>`."""
    view = snapshot.view
    found: dict[str, dict[str, Any]] = {}
    statuses: dict[str, NodeStatus] = {}
    for node in view.nodes:
        answer = snapshot.answers.get(node)
        status = answer if isinstance(answer, NodeStatus) else None
        if status is not None:
            statuses[node] = status
        found[f"node/{node}"] = {
            "answers": status is not None,
            "shards": len(view.claimed_by.get(node, ())),
            "guilds": sum(app.guilds for app in status.apps.values()) if status else 0,
            "events_per_s": round(sum(app.events_per_s for app in status.apps.values()), 1) if status else 0.0,
            "rss_bytes": sum(worker.rss_bytes for worker in status.workers) if status else 0,
            "cpu_percent": round(sum(worker.cpu_percent for worker in status.workers), 1) if status else 0.0,
        }
    live: dict[str, int] = {}
    for shard, claim in view.claims.items():
        live[shard.app] = live.get(shard.app, 0) + (claim.record.state == "live")
    for app, entry in view.apps.items():
        parts = [status.apps[app] for status in statuses.values() if app in status.apps]
        budget = view.budgets.get(entry.record.token_hash)
        found[f"app/{app}"] = {
            "live_shards": live.get(app, 0),
            "guilds": sum(part.guilds for part in parts),
            "events_per_s": round(sum(part.events_per_s for part in parts), 1),
            "backlog_events": sum(part.backlog_events for part in parts),
            "session_starts_left": budget.record.remaining if budget is not None else 0,
        }
    return found


def within(changes: Sequence[Change], scope: Scope) -> list[Change]:
    """The changes that a scope sees."""
    return [change for change in changes if scope.sees(change.name)]
