"""What workers are sent about the shards that they run: what starts one, and what changes for it while it runs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from sandwich_coordinator.assignment import LocalShard, Start
from sandwich_coordinator.ids import GroupId, ShardId
from sandwich_coordinator.types import AppRecord, GroupPhase, GroupRecord
from sandwich_coordinator.view import ClusterView
from sandwich_node import ipc

NO_PRESENCE: dict[str, Any] = {"since": None, "activities": [], "status": "online", "afk": False}
"""What an application without a presence shows, to replace one that it had."""


def with_token_of(group: GroupRecord, app: AppRecord) -> AppRecord:
    """The application with the token of one of its groups, which may be an earlier one."""
    if group.token_hash in ("", app.token_hash):
        return app
    return msgspec.structs.replace(app, token=group.token, token_hash=group.token_hash)


def start_message(
    start: Start, view: ClusterView, *, run: int, token: str, api_url: str, stream: tuple[float, int, int]
) -> ipc.StartShard:
    """What starts a shard whose application, group and budget are in the view.

    `stream`: age (s), bytes and replicas of the application's stream.
    """
    app, group = view.apps[start.shard.app].record, view.groups[start.shard.of].record
    budget = view.budgets[start.config.token_hash].record
    age_s, size, replicas = stream
    return ipc.StartShard(
        key=start.shard,
        run=run,
        fence=start.fence,
        count=group.count,
        route=app.route or app.app,
        bot=budget.bot_id,
        token=token,
        token_hash=start.config.token_hash,
        gateway_url=budget.url,
        api_url=api_url,
        intents=start.config.intents,
        compression=app.compression,
        large_threshold=app.large_threshold,
        presence=app.presence,
        session=start.session,
        stream_max_age_s=age_s,
        stream_max_bytes=size,
        stream_replicas=replicas,
        options=_options_of(app),
        phase=group.phase,
        previous=_previous(view, start.shard.of),
    )


def _previous(view: ClusterView, key: GroupId) -> ipc.PreviousGroup | None:
    """The group that a group replaces."""
    replaces = view.groups[key].record.replaces
    entry = view.groups.get(GroupId(key.app, replaces)) if replaces is not None else None
    if entry is None:
        return None
    record = entry.record
    return ipc.PreviousGroup(group=record.group, count=record.count, ids=record.ids, intents=record.intents)


def _options_of(app: AppRecord) -> ipc.ShardOptions:
    return ipc.ShardOptions(cache=app.cache, events=app.events, invites=app.invites)


@dataclass(slots=True)
class _Sent:
    """What a shard was sent last."""

    presence: dict[str, Any] | None
    options: ipc.ShardOptions
    phase: GroupPhase


class ShardChanges:
    """What running shards follow without a reconnect: the application's presence and options, their group's phase."""

    def __init__(self) -> None:
        self._sent: dict[ShardId, _Sent] = {}

    def started(self, message: ipc.StartShard) -> None:
        """The shard was sent this."""
        self._sent[message.key] = _Sent(message.presence, message.options, message.phase)

    def forget(self, shard: ShardId) -> None:
        """The shard does not run here any more."""
        self._sent.pop(shard, None)

    def messages(self, view: ClusterView, local: Mapping[ShardId, LocalShard]) -> Iterator[tuple[int, ipc.ToWorker]]:
        """What is to be sent now, each to the worker before it. It counts as sent."""
        wanted = {name: _options_of(entry.record) for name, entry in view.apps.items()}
        for shard, running in local.items():
            sent, app, group = self._sent.get(shard), view.apps.get(shard.app), view.groups.get(shard.of)
            if sent is None or running.phase != "running":
                continue
            if app is not None and app.record.presence != sent.presence:
                sent.presence = app.record.presence
                yield running.worker, ipc.SetPresence(shard, app.record.presence or NO_PRESENCE)
            if app is not None and (options := wanted[shard.app]) != sent.options:
                sent.options = options
                yield running.worker, ipc.SetOptions(shard, options)
            if group is not None and group.record.phase != sent.phase:
                sent.phase = group.record.phase
                yield running.worker, ipc.SetPhase(shard, group.record.phase)
