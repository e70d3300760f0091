"""What an agent and its workers say to each other: messages, each a line of JSON. They travel in `ipc_channel.py`.

Tokens travel here and nowhere else: not in arguments, not in the environment.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from sandwich_coordinator.ids import ShardId
from sandwich_coordinator.problems import Code, Problem
from sandwich_coordinator.status import ConsumerStatus
from sandwich_coordinator.types import CacheSpec, EventsSpec, GroupPhase, InvitesSpec, SessionRecord
from sandwich_node.cache.options import RedisOptions
from sandwich_node.log_lines import LogLine
from sandwich_node.nats_options import NatsOptions


class ShardOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What of an application's configuration a shard follows while it runs."""

    cache: CacheSpec
    events: EventsSpec
    invites: InvitesSpec


class SetOptions(msgspec.Struct, tag=True, frozen=True):
    """The application's configuration changed: follow it from the next event on."""

    key: ShardId
    options: ShardOptions


class PreviousGroup(msgspec.Struct, frozen=True, kw_only=True):
    """The group that an upcoming group replaces. `ids`: its shards, as ranges ("0-3,7"). `intents` 0: not known."""

    group: int
    count: int
    ids: str
    intents: int = 0


class StartShard(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """Run this shard under this claim. `run` distinguishes this start from every other one of this agent.

    `session` is what etcd knows; the sequence is read from the stream. `phase`: its group's now; SetPhase follows
    every change. `previous`: the group that its group replaces, while the phase is not `active`.
    """

    key: ShardId
    run: int
    fence: int
    count: int
    route: str
    bot: str
    token: str
    token_hash: str
    gateway_url: str
    api_url: str | None = None
    intents: int
    compression: str
    large_threshold: int
    presence: dict[str, Any] | None
    session: SessionRecord | None
    stream_max_age_s: float
    stream_max_bytes: int
    stream_replicas: int
    options: ShardOptions
    phase: GroupPhase = "active"
    previous: PreviousGroup | None = None

    def __repr__(self) -> str:
        return f"StartShard({self.key}, fence={self.fence})"


class StopShard(msgspec.Struct, tag=True, frozen=True):
    """Stop reading, publish what was read, close with the session kept, say ShardStopped."""

    key: ShardId
    reason: str


class SetPhase(msgspec.Struct, tag=True, frozen=True):
    """The phase of the shard's group changed (docs/design/scaling.md)."""

    key: ShardId
    phase: GroupPhase


class SetPresence(msgspec.Struct, tag=True, frozen=True):
    """The application's presence changed: show it now, and in every later IDENTIFY."""

    key: ShardId
    presence: dict[str, Any]


class AppInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An application, for who answers requests: the shard group that serves, its bot's user id, its cache.

    `upcoming`: number and shard count of the next group, whose sessions show the bot's presence too.
    """

    group: int = 0
    count: int = 0
    upcoming: tuple[int, int] | None = None
    bot: str = ""
    caches: bool = True
    namespace: str = ""


class AppsChanged(msgspec.Struct, tag=True, frozen=True):
    """The cluster's applications as they are now."""

    apps: dict[str, AppInfo]


class NextGroup(msgspec.Struct, frozen=True, kw_only=True):
    """The group that has the guilds of one that ended. `ids`: its shards, as ranges ("0-3,7").

    `continues`: its sessions had begun before the old group ended, so that it has every guild that the old one had.
    Otherwise its READYs say which guilds it has.
    """

    group: int
    count: int
    ids: str
    continues: bool


class CleanGroupCache(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """A shard group is gone: take its guilds out of the cache, under a fence above all that its shards had.

    The guilds of `next` stay.
    """

    app: str
    group: int
    count: int
    fence: int
    cache: CacheSpec
    next: NextGroup | None = None


class RelocateGuilds(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """Every shard of a group ended and `to` took over: locate its guilds at `to`. GuildsRelocated follows."""

    app: str
    group: int
    to: NextGroup
    cache: CacheSpec


class IdentifyGranted(msgspec.Struct, tag=True, frozen=True):
    """The shard may send its IDENTIFY now."""

    key: ShardId


class GatewayMoved(msgspec.Struct, tag=True, frozen=True):
    """`GET /gateway/bot` names another address now."""

    key: ShardId
    url: str


class PublishStatus(msgspec.Struct, tag=True, frozen=True):
    """Publish this status message of the application."""

    app: str
    body: str


class LeaseHeld(msgspec.Struct, tag=True, frozen=True):
    """The node's lease now: a worker that finds its agent dead releases it. None: there is none."""

    lease: int | None


class EtcdOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach etcd."""

    endpoints: tuple[str, ...]
    username: str | None = None
    password: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    def __repr__(self) -> str:
        return f"EtcdOptions(endpoints={len(self.endpoints)})"


class WorkerSettings(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """The first message to a worker: how to reach NATS, Redis and Discord's REST API."""

    worker: int
    node: str
    cluster: str = ""
    nats: NatsOptions
    redis: RedisOptions | None = None
    api_url: str
    proxy: str = ""
    linger_s: float = 0.0
    log_level: str = "INFO"
    etcd: EtcdOptions | None = None

    def __repr__(self) -> str:
        return f"WorkerSettings(worker={self.worker}, node={self.node!r})"


class AskNats(msgspec.Struct, tag=True, frozen=True):
    """Ask NATS how JetStream and our streams are: NatsSaid follows."""


class Shutdown(msgspec.Struct, tag=True, frozen=True):
    """Stop every shard with its session kept, then end."""


class WorkerReady(msgspec.Struct, tag=True, frozen=True):
    """The worker is connected to NATS and JetStream answers."""


class WorkerWaiting(msgspec.Struct, tag=True, frozen=True):
    """The worker waits for something outside: for what, and which problem that is."""

    reason: str
    code: Code = Code.WORKER_NOT_READY


class ShardChanged(msgspec.Struct, tag=True, frozen=True):
    """The shard's state, and why it is in it."""

    key: ShardId
    state: str
    reason: str = ""


class SessionSaved(msgspec.Struct, tag=True, frozen=True):
    """A new session began and is to be kept."""

    key: ShardId
    session: SessionRecord
    bot_id: str
    bot_name: str


class SessionDropped(msgspec.Struct, tag=True, frozen=True):
    """The session cannot be resumed any more."""

    key: ShardId
    reason: str


class ShardBack(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """The shard streams: `how` is resumed or identified. `stored_at`: the stream's last frame before (Unix seconds)."""

    key: ShardId
    how: str
    replayed: int = 0
    stored_at: float | None = None


class GatewayUnreachable(msgspec.Struct, tag=True, frozen=True):
    """The shard cannot reach the gateway at `url`; said again with every attempt."""

    key: ShardId
    url: str
    reason: str


class EventsLost(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """A session, by its public name, cannot be resumed: what came after `last_seq` is lost."""

    key: ShardId
    session: str
    last_seq: int
    reason: str


class StreamRemade(msgspec.Struct, tag=True, frozen=True):
    """The application's stream was deleted under its shards; this worker made it again."""

    app: str


class NatsSaid(msgspec.Struct, tag=True, frozen=True):
    """What is wrong with JetStream or our streams, how far consumer groups are, and how many dead letters there are."""

    problems: list[Problem]
    consumers: list[ConsumerStatus] = []
    dead_letters: dict[str, int] = {}


class IdentifyWanted(msgspec.Struct, tag=True, frozen=True):
    """The shard is connected and asks for its turn to IDENTIFY. `spare`: only if starts are left over."""

    key: ShardId
    spare: bool = False


class IdentifyWithdrawn(msgspec.Struct, tag=True, frozen=True):
    """The connection was lost before the turn came."""

    key: ShardId


class IdentifySent(msgspec.Struct, tag=True, frozen=True):
    """The IDENTIFY left just now, or has arrived by now: the bucket's five seconds begin, or begin again."""

    key: ShardId


class ShardStopped(msgspec.Struct, tag=True, frozen=True):
    """The run of the shard that StartShard called `run` is over.

    `how`: released (all published), ended (its group is closing, its chain is complete), fenced (by claim `newer`),
    failed (with the gateway's `close_code`) or crashed.
    """

    key: ShardId
    run: int
    how: str
    reason: str = ""
    newer: int = 0
    close_code: int = 0


class CacheNumbers(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a shard's cache is: totals since it started here, what waits now, and why it lacks something ("": nothing).

    `behind`: something is still to be written, by this shard or by its last owner.
    """

    applied: int = 0
    replayed: int = 0
    late: int = 0
    dropped: int = 0
    malformed: int = 0
    lost: int = 0
    damaged: int = 0
    failed: int = 0
    refused: int = 0
    backlog: int = 0
    behind: bool = False
    waiting: str = ""
    incomplete: str = ""
    refilling: bool = False
    to_chunk: int = 0


class InviteNumbers(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a shard's joins were reported, totals since it started here.

    `reported`: by source, unknown ones by their reason; `late`: of these, in an event of their own. `requests` went to
    Discord; `limited` of them it answered 429.
    """

    reported: dict[str, int] = {}
    late: int = 0
    requests: int = 0
    limited: int = 0


class ShardNumbers(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A shard's figures since it started here, and its backlog now.

    `unreadable`: events published as they came, by type, though something here could not read them; `passed_over`:
    dispatches that could not be published at all. `held`: kept now, until the switch between shard groups; `twins`:
    of these, what the replaced group had published already, in total.
    """

    key: ShardId
    events: int = 0
    frames: int = 0
    bytes: int = 0
    gaps: int = 0
    replayed: int = 0
    repeated: int = 0
    retries: int = 0
    foreign: int = 0
    backlog_events: int = 0
    backlog_bytes: int = 0
    guilds: int = 0
    awaited: int = 0
    unpublished: int = 0
    unreadable: dict[str, int] = {}
    passed_over: int = 0
    cache: CacheNumbers | None = None
    invites: InviteNumbers | None = None
    latency_ms: float | None = None
    waiting: str = ""
    held: int = 0
    twins: int = 0


class WorkerStats(msgspec.Struct, tag=True, frozen=True):
    """Once a second. `at`: of the monotonic clock, which is one for all processes of a machine (clock_gettime(2))."""

    rss_bytes: int
    cpu_s: float
    shards: list[ShardNumbers]
    at: float | None = None


class LogLines(msgspec.Struct, tag=True, frozen=True):
    """Once a second: what the worker has logged, and how many lines more than it may report."""

    lines: list[LogLine]
    dropped: int = 0


class GuildsRelocated(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """The guilds of `group` that `to` serves are located there, `moved` of them now. `error`: why not; "": they are."""

    app: str
    group: int
    to: int
    moved: int = 0
    error: str = ""


ToWorker = (
    StartShard
    | StopShard
    | SetPhase
    | SetPresence
    | SetOptions
    | IdentifyGranted
    | GatewayMoved
    | WorkerSettings
    | Shutdown
    | PublishStatus
    | LeaseHeld
    | CleanGroupCache
    | RelocateGuilds
    | AppsChanged
    | AskNats
)
ToAgent = (
    WorkerReady
    | WorkerWaiting
    | ShardChanged
    | SessionSaved
    | SessionDropped
    | ShardBack
    | GatewayUnreachable
    | EventsLost
    | StreamRemade
    | NatsSaid
    | IdentifyWanted
    | IdentifyWithdrawn
    | IdentifySent
    | ShardStopped
    | GuildsRelocated
    | LogLines
    | WorkerStats
)

_encoder = msgspec.json.Encoder()
read_as_worker: Callable[[bytes], ToWorker] = msgspec.json.Decoder(ToWorker).decode
"""The message in a line of the agent. Raises msgspec.MsgspecError."""
read_as_agent: Callable[[bytes], ToAgent] = msgspec.json.Decoder(ToAgent).decode
"""The message in a line of a worker. Raises msgspec.MsgspecError."""


def line_of(message: ToWorker | ToAgent) -> bytes:
    """The message as a line, with its end."""
    return _encoder.encode(message) + b"\n"
