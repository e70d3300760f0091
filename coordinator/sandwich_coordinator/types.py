"""Records kept in etcd: what each key's value holds.

Values are JSON. A reader ignores fields it does not know, so that a cluster may run two versions during a
rolling upgrade. Times are Unix seconds (wall clock, for humans only: nodes agree through revisions and leases).
"""

from typing import Any, Literal

import msgspec

NodeState = Literal["ready", "cordoned", "draining"]
ShardState = Literal["claiming", "connecting", "identifying", "resuming", "live", "draining", "failed"]
GroupState = Literal["waiting", "starting", "live", "degraded", "failed", "paused", "closing"]


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of every record: immutable, JSON, unknown fields ignored."""

    def encode(self) -> bytes:
        """The value as stored."""
        return msgspec.json.encode(self)


class NodeRecord(Record, frozen=True):
    """`nodes/<node>`, under the node's lease. `capacity` is a weight; `instance` tells two processes apart."""

    node: str
    instance: str
    address: str
    version: str
    capacity: int = 100
    state: NodeState = "ready"
    workers: int = 1
    labels: dict[str, str] = {}
    started_at: float = 0.0
    protocol: int = 1


class LeaderRecord(Record, frozen=True):
    """`leader`, under the leader's lease. Its create-revision is the epoch of all the leader writes."""

    node: str
    instance: str


class ShardsSpec(Record, frozen=True):
    """How an application is sharded: a fixed count or "auto"; `ids` ("0-7,12") limits which run here."""

    count: int | Literal["auto"] = "auto"
    ids: str | None = None


class AppRecord(Record, frozen=True):
    """`apps/<app>`: an application's configuration; `token` is sealed with the cluster key."""

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
    stream: dict[str, Any] = {}


class GroupRecord(Record, frozen=True):
    """`groups/<app>/<group>`: one generation of an application's shards. Only the leader writes it."""

    app: str
    group: int
    count: int
    ids: str
    epoch: int
    state: GroupState = "starting"
    reason: str = ""
    created_at: float = 0.0


class PlanRecord(Record, frozen=True):
    """`plan/<app>/<group>`: the leader's wish, node -> shard ranges ("0-3,7")."""

    app: str
    group: int
    epoch: int
    nodes: dict[str, str]


class ClaimRecord(Record, frozen=True):
    """`claims/<app>/<group>/<shard>`, under the node's lease: the right to run a shard now.

    `fence` is the revision of the transaction that made the claim; 0 in the claiming write itself (it cannot know
    its own revision), whose `mod_revision` then is the fence.
    """

    app: str
    group: int
    shard: int
    node: str
    instance: str
    worker: int
    fence: int = 0
    state: ShardState = "claiming"
    reason: str = ""
    since: float = 0.0


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
    """`restarts/<app>/<group>/<shard>`: a claim older than this key is to be released and made anew."""

    at: float = 0.0


class IdentifyRecord(Record, frozen=True):
    """`identify/<token-hash>/<bucket>`, under a short lease: this bucket is taken for the next five seconds."""

    node: str
    app: str
    shard: int


class BudgetRecord(Record, frozen=True):
    """`budget/<token-hash>`: what `GET /gateway/bot` said, less what was spent since. `reset_at` in Unix seconds."""

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
