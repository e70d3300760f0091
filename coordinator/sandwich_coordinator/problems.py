"""Problems: what is wrong in a cluster, as values. Pure.

Every problem has a code from a closed list. Exit codes, colours and JSON follow from severity and code; no program has
to look into a text. `docs/reference/problems.md` is this module's table, held complete by a test.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

import msgspec


class Severity(StrEnum):
    """How bad a problem is. A cluster with a critical problem or a warning is degraded."""

    CRITICAL = "critical"
    """Something does not do its work now."""
    WARNING = "warning"
    """It works, and part of it is wrong or will fail."""
    NOTICE = "notice"
    """Worth knowing; the cluster is healthy."""

    @classmethod
    def _missing_(cls, value: object) -> "Severity":
        """A newer version's severity."""
        return cls.WARNING


class Code(StrEnum):
    """Every kind of problem. The value is part of the JSON schema and never changes its meaning."""

    NOT_CONFIGURED = "not-configured"
    NO_NODES = "no-nodes"
    NO_LEADER = "no-leader"
    BAD_RECORD = "bad-record"
    SETTINGS_OUTDATED = "settings-outdated"
    SETTINGS_REFUSED = "settings-refused"

    NODE_UNREACHABLE = "node-unreachable"
    NODE_MISDIRECTED = "node-misdirected"
    NODE_ADDRESS_LOCAL = "node-address-local"
    NODE_GONE = "node-gone"
    NODE_STARTING = "node-starting"
    NODE_LEAVING = "node-leaving"
    NODE_ID_TAKEN = "node-id-taken"
    WORKER_NOT_READY = "worker-not-ready"
    CLOCK_DIFFERS = "clock-differs"
    TOO_FEW_FILES = "too-few-files"
    CERTIFICATE_REFUSED = "certificate-refused"

    APP_DOWN = "app-down"
    APP_INVALID = "app-invalid"
    APP_PAUSED = "app-paused"
    REMOVAL_UNFINISHED = "removal-unfinished"
    TOKEN_REFUSED = "token-refused"
    TOKEN_UNUSABLE = "token-unusable"
    GATEWAY_UNTRUSTED = "gateway-untrusted"
    SHARDS_FAILED = "shards-failed"
    SHARDS_UNCLAIMED = "shards-unclaimed"
    CAPACITY_SHORT = "capacity-short"
    PLACEMENT_UNMET = "placement-unmet"
    SHARDS_STUCK = "shards-stuck"
    PIN_UNMET = "pin-unmet"
    SHARDS_NOT_LIVE = "shards-not-live"
    SHARDS_WAITING = "shards-waiting"
    SHARD_COUNT_PENDING = "shard-count-pending"
    SESSION_STARTS_LOW = "session-starts-low"
    SESSION_STARTS_RESERVED = "session-starts-reserved"
    SESSION_STARTS_EXHAUSTED = "session-starts-exhausted"

    WEBHOOK_FAILING = "webhook-failing"

    CACHE_WAITING = "cache-waiting"
    CACHE_INCOMPLETE = "cache-incomplete"
    STREAM_REMADE = "stream-remade"
    FOREIGN_MESSAGES = "foreign-messages"
    DEAD_LETTERS = "dead-letters"
    CONSUMER_BEHIND = "consumer-behind"

    ETCD_UNREACHABLE = "etcd-unreachable"
    ETCD_NO_SPACE = "etcd-no-space"
    ETCD_CORRUPT = "etcd-corrupt"
    ETCD_NO_LEADER = "etcd-no-leader"
    ETCD_MIXED = "etcd-mixed"
    ETCD_MEMBER_UNREACHABLE = "etcd-member-unreachable"
    ETCD_LEARNER = "etcd-learner"
    ETCD_NEARLY_FULL = "etcd-nearly-full"
    ETCD_MEMBER_BEHIND = "etcd-member-behind"
    ETCD_OLD = "etcd-old"

    NATS_UNREACHABLE = "nats-unreachable"
    NATS_UNAUTHORIZED = "nats-unauthorized"
    NATS_OLD = "nats-old"
    JETSTREAM_DISABLED = "jetstream-disabled"
    JETSTREAM_SILENT = "jetstream-silent"
    JETSTREAM_LIMIT = "jetstream-limit"
    STREAM_UNREADABLE = "stream-unreadable"
    STREAM_NO_LEADER = "stream-no-leader"
    STREAM_REPLICAS_MISSING = "stream-replicas-missing"
    STREAM_REPLICAS_BEHIND = "stream-replicas-behind"

    REDIS_UNREACHABLE = "redis-unreachable"
    REDIS_UNAUTHORIZED = "redis-unauthorized"
    REDIS_UNUSABLE = "redis-unusable"
    REDIS_LOADING = "redis-loading"
    REDIS_READ_ONLY = "redis-read-only"
    REDIS_REPLICA = "redis-replica"
    REDIS_FULL = "redis-full"
    REDIS_NEARLY_FULL = "redis-nearly-full"
    REDIS_EVICTS = "redis-evicts"
    REDIS_NOT_SAVED = "redis-not-saved"
    REDIS_CONNECTIONS = "redis-connections"

    OTHER = "other"

    @classmethod
    def _missing_(cls, value: object) -> "Code":
        """A code of another version of Sandwich, during a rolling upgrade."""
        return cls.OTHER


@dataclass(frozen=True, slots=True)
class Kind:
    """What a code means. `advice` holds where a problem has none of its own. `momentary`: it happened once."""

    severity: Severity
    meaning: str
    advice: str
    momentary: bool = False


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong. Make it with `problem`.

    subject   what it is about: `cluster`, `node/a`, `app/welcomer`, `app/welcomer/shards/0-3`, `etcd`, `nats`, `redis`
    summary   one clause that says what is wrong
    advice    one clause that says what to do
    since     Unix seconds; None when it is not known
    nodes     the nodes that report it; none when the snapshot itself shows it
    """

    code: Code
    severity: Severity
    subject: str
    summary: str
    advice: str = ""
    since: float | None = None
    nodes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Summary and advice on one line."""
        return f"{self.summary}: {self.advice}" if self.advice else self.summary

    @property
    def same(self) -> tuple[Code, str, str]:
        """Equal for the same problem that several nodes report."""
        return self.code, self.subject, self.summary


def problem(code: Code, subject: str, summary: str, advice: str | None = None, since: float | None = None) -> Problem:
    """A problem with its code's severity, and with its code's advice unless there is a better one."""
    kind = KINDS[code]
    return Problem(
        code=code,
        severity=kind.severity,
        subject=subject,
        summary=summary,
        advice=kind.advice if advice is None else advice,
        since=since,
    )


def app_of_subject(subject: str) -> str:
    """The application that a problem's subject belongs to; "": the cluster."""
    return subject.split("/")[1] if subject.startswith("app/") else ""


def degraded(problems: Iterable[Problem]) -> bool:
    """Whether a cluster with these problems is degraded."""
    return any(found.severity is not Severity.NOTICE for found in problems)


def worst_first(problems: Iterable[Problem]) -> list[Problem]:
    """Sorted by severity; the order within one severity stays."""
    order = list(Severity)
    return sorted(problems, key=lambda found: order.index(found.severity))


_C, _W, _N = Severity.CRITICAL, Severity.WARNING, Severity.NOTICE
_APPLY = "run sandwich cluster apply -f cluster.yml"
_START_NATS = "start the NATS servers again"

KINDS: Final[Mapping[Code, Kind]] = MappingProxyType(
    {
        Code.NOT_CONFIGURED: Kind(_C, "The cluster has no configuration.", _APPLY),
        Code.NO_NODES: Kind(_C, "No node is registered: nothing runs.", "start one with sandwich-node join --etcd URL"),
        Code.NO_LEADER: Kind(
            _C,
            "No node leads, so nothing is decided. Normal for some seconds after a crash.",
            "if this lasts over 10 s look at the nodes' logs and at etcd",
        ),
        Code.BAD_RECORD: Kind(_W, "A value in etcd cannot be used and is ignored.", "apply again or delete the key"),
        Code.SETTINGS_OUTDATED: Kind(
            _W,
            "A running node uses older settings than those that are stored. It takes changes of nats, redis and policy "
            "within a minute or two; discord and policy.lease_ttl are read at its start.",
            "wait two minutes",
        ),
        Code.SETTINGS_REFUSED: Kind(
            _W,
            "A running node cannot work with the stored settings and keeps those it has: a server does not accept "
            "them, or the cluster key does not authenticate them.",
            "correct them and apply again, or make the server accept them: the node tries again by itself",
        ),
        Code.NODE_UNREACHABLE: Kind(
            _C,
            "A registered node does not answer at the address that it advertises.",
            "see that its address is reachable from here",
        ),
        Code.NODE_MISDIRECTED: Kind(
            _C,
            "Another node answers at the address that a node advertises: two nodes advertise the same address, or a "
            "loopback address.",
            "start each node with its own --advertise HOST:PORT",
        ),
        Code.NODE_ADDRESS_LOCAL: Kind(
            _W,
            "A node advertises a loopback address (or 0.0.0.0) while other nodes run on other hosts.",
            "start it with --advertise HOST:PORT, an address that the other hosts reach",
        ),
        Code.NODE_GONE: Kind(
            _W,
            "A node disappeared without leaving: it was killed, or its host or network failed. Shown for one hour.",
            "start it again, or find out why it ended, then sandwich node forget NODE; stop nodes with SIGTERM",
            momentary=True,
        ),
        Code.NODE_STARTING: Kind(_W, "A node is not ready yet; the summary says what it waits for.", ""),
        Code.NODE_LEAVING: Kind(_W, "A node hands its shards over and ends.", "wait until it has ended"),
        Code.NODE_ID_TAKEN: Kind(
            _W,
            "An earlier process is still registered under a node's name.",
            "wait until its lease has run out, at most some seconds",
        ),
        Code.WORKER_NOT_READY: Kind(_W, "A worker process is starting, or cannot be started.", "see the node's log"),
        Code.CLOCK_DIFFERS: Kind(
            _W,
            "A node's clock and that of the machine that asks differ by more than 30 s. Events, leases and shards do "
            "not depend on it; the reset of session starts, the expiry of API tokens and all times that are shown do.",
            "let NTP set the clocks of all machines",
        ),
        Code.TOO_FEW_FILES: Kind(
            _W,
            "A node has more planned shards than file descriptors for them: the others wait.",
            "raise the limit (LimitNOFILE= of the unit, --ulimit nofile= of the container, ulimit -Hn), or run more "
            "workers",
        ),
        Code.CERTIFICATE_REFUSED: Kind(
            _W,
            "A node cannot use its changed TLS certificate, or the changed files for etcd, and uses those before.",
            "correct the files of --tls-cert and --tls-key, or of --etcd-ca, --etcd-cert and --etcd-key; the node "
            "reads them again by itself",
        ),
        Code.APP_DOWN: Kind(
            _C, "No node is there to run an application.", "start a node; its sessions are resumed if that is soon"
        ),
        Code.APP_INVALID: Kind(
            _C,
            "An application cannot start as it is configured; the summary has the reason.",
            "correct the application's configuration; then apply again",
        ),
        Code.APP_PAUSED: Kind(
            _N, "An operator paused an application with sandwich app pause.", "sandwich app resume APP starts it again"
        ),
        Code.REMOVAL_UNFINISHED: Kind(
            _W,
            "The removal of an application began over a minute ago and is not finished: it was interrupted, or waits.",
            "run sandwich app remove APP again: it goes on",
        ),
        Code.TOKEN_REFUSED: Kind(
            _C,
            "Discord refused an application's token.",
            "store the application's current token: sandwich app set APP --token-file FILE",
        ),
        Code.TOKEN_UNUSABLE: Kind(
            _C,
            "A node cannot unseal an application's token.",
            "give every node the cluster key that sealed it, or apply again with the nodes' key",
        ),
        Code.GATEWAY_UNTRUSTED: Kind(
            _C,
            "The gateway's address in etcd is neither Discord's nor that of discord.api_url: no token is sent there.",
            "unless discord.api_url itself answered with it, find out who can write to etcd",
        ),
        Code.SHARDS_FAILED: Kind(
            _C,
            "Discord refused shards in a way that no retry can change. The advice follows from the close code.",
            "do what the advice of the close code asks (below); then run sandwich shard restart APP SHARDS",
        ),
        Code.SHARDS_UNCLAIMED: Kind(_C, "No node runs these shards.", "they start when a node takes them"),
        Code.CAPACITY_SHORT: Kind(
            _C,
            "Shards run nowhere: every node that may run them has as many shards as its limit allows.",
            "start another node, or start nodes with a higher --max-shards",
        ),
        Code.PLACEMENT_UNMET: Kind(
            _C,
            "Shards run nowhere: no node that takes shards has the labels that their application requires.",
            "start a node with these labels (--label), or change the application's placement",
        ),
        Code.SHARDS_STUCK: Kind(
            _W,
            "Shards stay on a node that drains, or that lacks the labels their application requires: no other node may "
            "take them or has room.",
            "start another node that may run them",
        ),
        Code.PIN_UNMET: Kind(
            _W,
            "A pin cannot be followed; the shard runs on another node meanwhile, as if it had no pin.",
            "make the node take it, or remove the pin: sandwich shard move APP SHARDS --to any",
        ),
        Code.SHARDS_NOT_LIVE: Kind(
            _W,
            "A node runs these shards and they have not been live for over a minute.",
            "sandwich shard list shows what each one waits for",
        ),
        Code.SHARDS_WAITING: Kind(
            _W, "Shards cannot go on or cannot publish; the summary says what they wait for.", ""
        ),
        Code.SHARD_COUNT_PENDING: Kind(
            _W,
            "shards.count is auto, and another count than the running one is proposed: for the number of guilds, by "
            "Discord's recommendation, or after close code 4011. It costs a session start for each shard.",
            "sandwich app scale APP --accept; or fix the count that you want",
        ),
        Code.SESSION_STARTS_LOW: Kind(
            _W,
            "A tenth or less of the day's session starts is left, or no more than what is kept for failover.",
            "avoid restarts that cannot resume until the reset",
        ),
        Code.SESSION_STARTS_RESERVED: Kind(
            _W,
            "Shards cannot start before the reset of the day's session starts: what is left is kept for shards that "
            "lose their session (policy.identify_reserve).",
            "wait until the reset, or start fewer shards",
        ),
        Code.SESSION_STARTS_EXHAUSTED: Kind(
            _C,
            "The day's session starts are used up: shards without a session start after the reset. More IDENTIFYs "
            "would make Discord reset the token.",
            "wait until the reset; find out what used them up",
        ),
        Code.WEBHOOK_FAILING: Kind(
            _W,
            "Messages of a webhook have not arrived for over a minute. They are tried again; after an hour they are "
            "given up and counted.",
            "sandwich webhook test NAME says more; correct or remove it",
        ),
        Code.CACHE_WAITING: Kind(_W, "The cache cannot be written now; events flow without `before`.", ""),
        Code.CACHE_INCOMPLETE: Kind(_W, "The cache lacks something; it is read again when that is possible.", ""),
        Code.STREAM_REMADE: Kind(
            _W,
            "An application's stream was deleted and made again. Shown for ten minutes.",
            "what consumers had not read of it is lost",
            momentary=True,
        ),
        Code.FOREIGN_MESSAGES: Kind(
            _W,
            "A client that is no node published into an application's stream. Shown for ten minutes.",
            "nothing is lost by it; give NATS users, see deploy/nats.conf",
            momentary=True,
        ),
        Code.DEAD_LETTERS: Kind(
            _W,
            "Events that a consumer group could not handle wait as dead letters.",
            "sandwich dead list; then replay or discard them",
        ),
        Code.CONSUMER_BEHIND: Kind(
            _W,
            "A consumer group has had many unacknowledged frames for a minute, or acknowledged none for five minutes.",
            "see that its workers run; start more of them; one that is abandoned: sandwich group remove APP GROUP",
        ),
        Code.ETCD_UNREACHABLE: Kind(
            _C, "A node does not reach etcd. Its shards keep running; nothing is moved.", "restore etcd"
        ),
        Code.ETCD_NO_SPACE: Kind(
            _C,
            "etcd's NOSPACE alarm: it refuses writes, so no shard can start or move.",
            "raise --quota-backend-bytes, or compact and defragment, then run etcdctl alarm disarm",
        ),
        Code.ETCD_CORRUPT: Kind(
            _C,
            "etcd's CORRUPT alarm: a member has damaged data and etcd refuses requests.",
            "replace that member, then run etcdctl alarm disarm",
        ),
        Code.ETCD_NO_LEADER: Kind(_C, "An etcd member has no leader.", "too few members reach each other: start them"),
        Code.ETCD_MIXED: Kind(
            _C, "The etcd endpoints belong to different etcd clusters.", "name the members of one etcd cluster"
        ),
        Code.ETCD_MEMBER_UNREACHABLE: Kind(
            _W, "An etcd member does not answer.", "start it: the cluster can lose fewer members than it seems"
        ),
        Code.ETCD_LEARNER: Kind(
            _W,
            "An etcd endpoint is a learner and does not serve.",
            "run etcdctl member promote, or leave it out of --etcd",
        ),
        Code.ETCD_NEARLY_FULL: Kind(
            _W, "An etcd member's database is near its quota.", "defragment it, or raise --quota-backend-bytes"
        ),
        Code.ETCD_MEMBER_BEHIND: Kind(
            _W, "An etcd member applies entries too slowly.", "look at the speed of its disk"
        ),
        Code.ETCD_OLD: Kind(
            _N,
            "etcd is older than 3.5.13 and may lose data after a crash.",
            "upgrade it; nodes with the label development=true do not report it",
        ),
        Code.NATS_UNREACHABLE: Kind(
            _C,
            "A worker does not reach NATS; its shards wait.",
            "start NATS, or correct nats in cluster.yml and apply: nodes take it while they run",
        ),
        Code.NATS_UNAUTHORIZED: Kind(
            _C,
            "NATS refuses the user, password or credentials of the nodes.",
            "correct nats.user, nats.password or nats.credentials and apply: nodes take them while they run",
        ),
        Code.NATS_OLD: Kind(_C, "nats-server is too old.", "upgrade it to 2.12 or newer"),
        Code.JETSTREAM_DISABLED: Kind(
            _C, "JetStream is not enabled on the NATS server.", "add jetstream {} to its configuration"
        ),
        Code.JETSTREAM_SILENT: Kind(
            _C, "NATS is connected and JetStream does not answer.", "see whether its cluster has a meta leader"
        ),
        Code.JETSTREAM_LIMIT: Kind(
            _W,
            "A limit of the JetStream account is reached, or nearly.",
            "raise the account's limit, or limit the streams (nats.stream)",
        ),
        Code.STREAM_UNREADABLE: Kind(_C, "JetStream reports an error for a stream.", "look at the NATS server's log"),
        Code.STREAM_NO_LEADER: Kind(
            _C, "A stream has no leader: too few of its replicas are up; events wait.", _START_NATS
        ),
        Code.STREAM_REPLICAS_MISSING: Kind(
            _W,
            "A stream lacks replicas: NATS servers are down, or had no space and disabled their JetStream.",
            f"{_START_NATS} before one more is lost; one whose disk was full, too, once there is space",
        ),
        Code.STREAM_REPLICAS_BEHIND: Kind(
            _W, "Replicas of a stream are behind.", "look at the space and speed of their disks, and at their network"
        ),
        Code.REDIS_UNREACHABLE: Kind(_C, "A node does not reach Redis.", "start Redis, or correct redis.url"),
        Code.REDIS_UNAUTHORIZED: Kind(
            _C,
            "Redis refuses the user, the password, or a right of the nodes.",
            "correct redis.password and apply, or the ACL (docs/guide/cache.md): nodes take it while they run",
        ),
        Code.REDIS_UNUSABLE: Kind(
            _C, "What answers at redis.url is not a Redis that can be used.", "correct redis.url, or upgrade Redis"
        ),
        Code.REDIS_LOADING: Kind(_C, "Redis still loads its data from disk.", "wait: nothing is cached until then"),
        Code.REDIS_READ_ONLY: Kind(
            _C,
            "Redis takes no writes: it is a replica, or its disk fails.",
            "name the master in redis.url; see Redis's log",
        ),
        Code.REDIS_REPLICA: Kind(
            _W,
            "Redis is a writable replica: what is written there is lost with its next synchronisation.",
            "name the master in redis.url",
        ),
        Code.REDIS_FULL: Kind(
            _C, "Redis has reached its maxmemory and refuses writes.", "raise maxmemory, or cache less"
        ),
        Code.REDIS_NEARLY_FULL: Kind(_W, "Redis is near its maxmemory.", "raise maxmemory, or cache less"),
        Code.REDIS_EVICTS: Kind(
            _W,
            "Redis evicts keys when it is full: the cache loses entries without a trace.",
            "set maxmemory-policy noeviction",
        ),
        Code.REDIS_NOT_SAVED: Kind(
            _W,
            "Redis could not store its data and may refuse writes.",
            "see its log and the space on its disk",
        ),
        Code.REDIS_CONNECTIONS: Kind(_W, "Redis is near its limit of connections.", "raise maxclients"),
        Code.OTHER: Kind(_W, "A node of another version of Sandwich reports it.", "read its summary, or upgrade"),
    }
)
