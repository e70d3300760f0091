"""Records kept in etcd: what each key's value holds.

Values are JSON. A reader ignores fields it does not know, so that a cluster may run two versions during a
rolling upgrade. Times are Unix seconds (wall clock, for humans only: nodes agree through revisions and leases).
"""

from typing import Any, Literal

import msgspec

from sandwich_coordinator.ids import Fence, LeaderTerm

NodeState = Literal["ready", "cordoned", "draining"]
ShardState = Literal[
    "claiming", "connecting", "identifying", "resuming", "ready", "holding", "live", "draining", "ended", "failed"
]
"""`ready` and `holding`: of an upcoming group, output withheld. `ended`: of a closing group, its chain is complete."""
GroupState = Literal["waiting", "starting", "live", "degraded", "failed", "paused", "closing"]
GroupPhase = Literal["canary", "preparing", "holding", "switching", "active", "closing"]
"""Where a group is between its start and its end (docs/design/scaling.md). Only the leader changes it."""


CAPACITY = 100
"""The weight of a node that was started without one."""


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of every record: immutable, JSON, unknown fields ignored."""

    def encode(self) -> bytes:
        """The value as stored."""
        return msgspec.json.encode(self)


class NodeRecord(Record, frozen=True):
    """`nodes/<node>`, under the node's lease; each process has its own `instance`.

    `capacity` is a weight, `max_shards` a limit (0: none). `labels`: also those that the node sets itself
    (`placement.INTERNAL_LABELS`). `status_key`: random in each process, signs what is asked of it and what it answers
    (`access.node_signatures`); "" for a node of an older version, which is asked plainly. `tls`: SHA-256 of the
    certificate that it shows, in hex; "": it is asked by `address` alone. `cluster_keys`: ids of the cluster keys that
    it can open secrets with; [] for a node of an older version, or one without a key.
    """

    node: str
    instance: str
    address: str
    version: str
    capacity: int = CAPACITY
    max_shards: int = 0
    state: NodeState = "ready"
    workers: int = 1
    labels: dict[str, str] = {}
    started_at: float = 0.0
    protocol: int = 1
    status_key: str = ""
    tls: str = ""
    cluster_keys: list[str] = []


class DepartedRecord(Record, frozen=True):
    """`departed/<node>`: a node that is not registered any more, for one hour.

    `left`: it left in order, or an operator has forgotten it. The node writes that itself. Otherwise the leader writes
    the record, and the node was killed or lost.
    """

    node: str
    at: float
    left: bool = False


class LeaderRecord(Record, frozen=True):
    """`leader`, under the leader's lease. Its create revision is the leader term, which guards every write."""

    node: str
    instance: str


class ShardsSpec(Record, frozen=True):
    """How an application is sharded: a fixed count or "auto"; `ids` ("0-7,12") limits which run here.

    Of an automatic count: more shards are proposed above `guilds_per_shard`, looked at every `check_every_s`, and never
    more than `max` (0: no limit). With `confirm` an operator accepts a proposal; without, the leader does, within
    `window` ("02:00-06:00 UTC"; "": at any time).
    """

    count: int | Literal["auto"] = "auto"
    ids: str | None = None
    guilds_per_shard: int = 1000
    check_every_s: float = 28_800.0
    max: int = 0
    window: str = ""
    confirm: bool = True


class CacheSpec(Record, frozen=True):
    """What of an application is kept in Redis, and under which namespace ("": the application's own name).

    Users are kept by reference from members, so they need `members`. Messages are those of guilds: at most
    `messages_per_channel` of a channel (0: none), none longer than `messages_ttl_s`.
    """

    enabled: bool = True
    namespace: str = ""
    guilds: bool = True
    channels: bool = True
    threads: bool = True
    roles: bool = True
    emojis: bool = True
    stickers: bool = True
    members: bool = True
    users: bool = True
    voice_states: bool = True
    presences: bool = False
    scheduled_events: bool = True
    stages: bool = True
    sounds: bool = True
    messages_per_channel: int = 0
    messages_ttl_s: int = 3600
    chunk_members: bool = False

    def namespace_of(self, app: str) -> str:
        """The namespace that application `app` writes to."""
        return self.namespace or app


class PrefixSpec(Record, frozen=True):
    """Which messages are commands: with the guild's own prefixes, else `fallback` ("": none); `mention`: of the bot."""

    fallback: str = ""
    mention: bool = True


class LaneSpec(Record, frozen=True):
    """A named part of an application's events: `types` may end in `*`; `max_age_s` 0: as the stream."""

    types: list[str]
    max_age_s: float = 0.0


class EventsSpec(Record, frozen=True):
    """What becomes of events. `ignore` and `cache_only` name types, a trailing `*` matches any rest.

    `ignore`: not even parsed. `cache_only`: they change the cache and are not published. `ignore_bots`: nor are
    messages of bots. `prefixes`: messages are only published when they begin with one.
    """

    ignore: list[str] = []
    cache_only: list[str] = []
    ignore_bots: bool = False
    prefixes: PrefixSpec | None = None
    lanes: dict[str, LaneSpec] = {}


class InvitesSpec(Record, frozen=True):
    """Whether joins say by whose invite they came, and how long one may wait for the answer."""

    track: bool = False
    hold_ms: float = 300.0


class AppRecord(Record, frozen=True):
    """`apps/<app>`: an application's configuration; `token` is sealed with the cluster key.

    `placement`: labels that a node must have to run its shards. `weight`: how heavy one shard is, compared with those
    of other applications.
    `paused_at` (Unix seconds): paused by an operator's command since then, which `apply` does not undo; 0: not so.
    """

    app: str
    token: str
    token_hash: str
    intents: int
    shards: ShardsSpec = ShardsSpec()
    route: str = ""
    presence: dict[str, Any] | None = None
    compression: Literal["zstd-stream", "zlib-stream", "none"] = "zstd-stream"
    large_threshold: int = 50
    paused: bool = False
    placement: dict[str, str] = {}
    weight: float = 1.0
    paused_at: float = 0.0
    stream: dict[str, Any] = {}
    cache: CacheSpec = CacheSpec()
    events: EventsSpec = EventsSpec()
    invites: InvitesSpec = InvitesSpec()


class GroupRecord(Record, frozen=True):
    """`groups/<app>/<group>`: one generation of an application's shards. Only the leader writes it.

    `term`: the leader's at its last write; stored as `epoch`. `replaces`: the group that it takes over from, while its
    phase is not `active`. `intents`, `token` (sealed) and `token_hash`: of its sessions; "" and 0: the application's.
    `restart`: that of the application's `RolloutRecord` when the group was made.
    """

    app: str
    group: int
    count: int
    ids: str
    term: LeaderTerm = msgspec.field(name="epoch")
    state: GroupState = "starting"
    reason: str = ""
    created_at: float = 0.0
    phase: GroupPhase = "active"
    replaces: int | None = None
    intents: int = 0
    token: str = ""
    token_hash: str = ""
    restart: int = 0


class RolloutRecord(Record, frozen=True):
    """`rollouts/<app>`: what operators asked of the application's groups, beside its configuration.

    `restart` counts the requests for a new group of the same shape; `hard`: the last one wants the old group to end
    first. `auto_count`: the count that was accepted for an application with an automatic one; 0: none.
    """

    restart: int = 0
    hard: bool = False
    auto_count: int = 0


class GroupNumberRecord(Record, frozen=True):
    """`group-numbers/<app>`: the highest number that a group of the application ever had.

    A number is not given twice while the stream may have frames of the first group. The key stays when the application
    is removed, unless its stream is removed with it.
    """

    newest: int


class ProposalRecord(Record, frozen=True):
    """`proposals/<app>`: a shard count that the leader proposes for an automatic one, and why. `at`: Unix seconds.

    `waits`: why the leader does not accept it by itself although it may; "" for nothing.
    """

    count: int
    reason: str
    guilds: int = 0
    at: float = 0.0
    waits: str = ""


class RemovalRecord(Record, frozen=True):
    """`removals/<app>`: an operator removes the application, since `at` (Unix seconds). It goes when all else is gone.

    `groups`: count of each of its shard groups, by number. `cache`: what it kept. `clean` grows each time that the
    leader's node is asked to remove the application's guilds from the cache; 0: the cache stays, or its turn is later.
    """

    at: float
    keep_cache: bool = False
    delete_stream: bool = False
    cache: CacheSpec = CacheSpec()
    groups: dict[int, int] = {}
    clean: int = 0


class PlanRecord(Record, frozen=True):
    """`plan/<app>/<group>`: what the leader planned, node -> shard ranges ("0-3,7"); `term` is stored as `epoch`."""

    app: str
    group: int
    term: LeaderTerm = msgspec.field(name="epoch")
    nodes: dict[str, str]


class ClaimRecord(Record, frozen=True):
    """`claims/<app>/<group>/<shard>`, under the node's lease: the right to run a shard now.

    `fence` is the revision of the transaction that made the claim; 0 in the claiming write itself (it cannot know
    its own revision), whose `mod_revision` then is the fence. `close_code`: the gateway's, of a failed shard; 0: none.
    `rereads`: the shard is live, and waits for a second session to read its guilds again for the cache.
    """

    app: str
    group: int
    shard: int
    node: str
    instance: str
    worker: int
    fence: Fence = Fence(0)
    state: ShardState = "claiming"
    reason: str = ""
    since: float = 0.0
    close_code: int = 0
    rereads: bool = False

    @property
    def is_queued(self) -> bool:
        """Whether the shard waits for its turn to IDENTIFY, or has just had it."""
        return self.rereads or self.state == "identifying"


class SessionRecord(Record, frozen=True):
    """`sessions/<app>/<group>/<shard>`: a Discord session that may be resumed. The sequence lives in the stream.

    `guilds`: how many the shard was in when this was written, for the next owner's status: RESUME lists none.
    """

    session_id: str
    resume_url: str
    intents: int
    count: int
    first_seq: int
    token_hash: str
    guilds: int = 0


class PinRecord(Record, frozen=True):
    """`pins/<app>/<group>/<shard>`: an operator wants this shard on `node`. It waits while the node takes no shards."""

    node: str
    at: float = 0.0


class RestartRecord(Record, frozen=True):
    """`restarts/<app>/<group>/<shard>`: a claim older than this key is to be released and created again."""

    at: float = 0.0


class IdentifyRecord(Record, frozen=True):
    """`identify/<token-hash>/<bucket>`, under a short lease: this bucket is taken for the next five seconds."""

    node: str
    app: str
    shard: int
    group: int = 0


class BudgetRecord(Record, frozen=True):
    """`budget/<token-hash>`: what `GET /gateway/bot` said, less what was spent since. `reset_at` in Unix seconds.

    `unreachable`: why a node's shards cannot connect to `url`; it asks the leader to look again. `confirmed` counts the
    answers in a row that named the same address all the same.
    """

    url: str
    shards: int
    total: int
    remaining: int
    reset_at: float
    max_concurrency: int
    fetched_at: float
    bot_id: str = ""
    bot_name: str = ""
    error: str = ""
    unreachable: str = ""
    confirmed: int = 0
