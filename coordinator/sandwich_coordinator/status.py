"""What a node says of itself at `GET /status`: written by the node, read by `sandwich cluster status` and dashboards.

A reader ignores fields it does not know, so that a cluster may run two versions during a rolling upgrade.
"""

from collections.abc import Sequence

import msgspec

from sandwich_coordinator.problems import Problem


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One worker process. `cpu_percent` is of one core; `figures_age_s`: None before its first figures.

    All figures of its shards are of that age, about a second at most while all is well.
    """

    id: int
    pid: int = 0
    rss_bytes: int = 0
    cpu_percent: float = 0.0
    figures_age_s: float | None = None


class CacheStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How much of an application the cache holds, of the shards on one node; totals count since the agent started.

    shards, incomplete   shards that keep a cache, and those of them that lack something
    refilling            shards whose guilds are being read again
    awaited              guilds that Discord announced and has not sent yet
    backlog              events that wait for Redis
    behind               shards with something still to be written, by this node or by the shard's last owner
    to_chunk             guilds whose members are still to be asked for (chunk_members)
    applied_total ...    events by what became of them: applied; applied before (replayed); too late for their frame;
                         dropped while Redis was away; not of the known shape, wholly or in part (malformed);
                         refused because a newer owner writes
    lost_total           parts of events (a member, a list) that had not the known shape and were left out
    damaged_total        values in Redis that were not ours and were replaced
    failed_total         changes that Redis refused
    """

    shards: int = 0
    incomplete: int = 0
    refilling: int = 0
    awaited: int = 0
    backlog: int = 0
    behind: int = 0
    to_chunk: int = 0
    applied_total: int = 0
    replayed_total: int = 0
    late_total: int = 0
    dropped_total: int = 0
    malformed_total: int = 0
    lost_total: int = 0
    refused_total: int = 0
    damaged_total: int = 0
    failed_total: int = 0


class InviteStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How an application's joins were attributed on one node; totals count since the agent started.

    told_total            joins by their source (invite, vanity), unknown ones by their reason
    late_total            of these, reported in an event of their own
    requests_total        requests to Discord's REST API
    limited_total         of these, answered 429
    """

    told_total: dict[str, int] = {}
    late_total: int = 0
    requests_total: int = 0
    limited_total: int = 0


class AppStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One application's figures on one node; totals count since the agent started.

    unreadable_total     events published as they came, by type ("other": not documented), that could not be read wholly
    passed_over_total    dispatches without a name or sequence that can be used, which could not be published
    """

    published_total: int = 0
    events_per_s: float = 0.0
    guilds: int = 0
    publish_errors: int = 0
    backlog_events: int = 0
    replayed_total: int = 0
    gaps_total: int = 0
    unpublished_total: int = 0
    unreadable_total: dict[str, int] = {}
    passed_over_total: int = 0
    foreign_total: int = 0
    cache: CacheStatus | None = None
    invites: InviteStatus | None = None


class ShardStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One shard on this node. `since` is in Unix seconds; `latency_ms` is None when not measured.

    `cache`: what its cache lacks or waits for, "" when it has everything or there is none.
    """

    app: str
    group: int
    shard: int
    worker: int
    state: str
    reason: str = ""
    latency_ms: float | None = None
    guilds: int = 0
    events_per_s: float = 0.0
    since: float = 0.0
    cache: str = ""


class FailoverStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A shard lost at one place (`source`) and back on `node`. `how`: resumed or identified. Times: Unix seconds.

    `took_s` counts from when the loss was noticed, `silent_s` from the last frame in the stream (None: there was none).
    """

    at: float
    app: str
    group: int
    shard: int
    source: str
    node: str
    cause: str
    how: str
    replayed: int = 0
    took_s: float = 0.0
    silent_s: float | None = None


class LossStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A session (its public name) that could not be resumed: what Discord sent after `last_seq` is lost."""

    at: float
    app: str
    group: int
    shard: int
    node: str
    session: str
    last_seq: int
    reason: str


class FailoverTotal(msgspec.Struct, frozen=True, kw_only=True):
    """How often and how long (seconds in all) shards of an application came back here, by cause and way."""

    app: str
    cause: str
    how: str
    count: int
    seconds: float


class ConsumerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A consumer group. `lag`: frames that are not acknowledged; `floor` grows when some are."""

    app: str
    group: str
    lag: int
    floor: int = 0


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A node's report about itself.

    `problems`: worst first. A node of an older version reports plain sentences.
    `fenced_total`: by application, how often another owner took a shard over while it ran here.
    `consumers`, `dead_letters`: of every application; the leader alone asks JetStream for them.
    `desired_shards`: by application, how many shards the cluster should have room for; of the leader alone.
    `settings`: fingerprints of the settings that the node runs with, by section.
    `at`: the node's clock, in Unix seconds; None of an older version.
    """

    node: str
    instance: str
    version: str
    uptime_s: float
    leader: bool = False
    workers: list[WorkerStatus] = []
    apps: dict[str, AppStatus] = {}
    shards: list[ShardStatus] = []
    problems: Sequence[Problem | str] = ()
    failovers: list[FailoverStatus] = []
    failover_totals: list[FailoverTotal] = []
    losses: list[LossStatus] = []
    fenced_total: dict[str, int] = {}
    consumers: list[ConsumerStatus] = []
    dead_letters: dict[str, int] = {}
    desired_shards: dict[str, int] = {}
    settings: dict[str, str] = {}
    at: float | None = None
