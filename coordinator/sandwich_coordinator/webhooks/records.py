"""Webhooks as they are kept in etcd, and as of which facts each of them was last sent something. Pure."""

from typing import Literal

import msgspec

from sandwich_coordinator.types import Record

HookType = Literal["discord", "generic"]
NoticeKind = Literal["problems", "budget", "nodes", "leader", "apps", "shards", "failovers", "losses"]
NOTICE_KINDS: tuple[NoticeKind, ...] = (
    "problems",
    "budget",
    "nodes",
    "leader",
    "apps",
    "shards",
    "failovers",
    "losses",
)
DEFAULT_KINDS: tuple[NoticeKind, ...] = ("problems", "budget", "nodes", "apps", "losses")


class WebhookRecord(Record, frozen=True):
    """`webhooks/<name>`. `sealed`: its URL, secret and `allow_private`, with the cluster key (`Destination`).

    host, last4    of the URL, to be shown
    events         which kinds of notices it reports
    min_severity   the least severity of a notice
    apps           only notices of these applications; none: all, and those of the cluster
    template       the words of a notice; "": our own
    """

    name: str
    type: HookType
    sealed: str = ""
    host: str = ""
    last4: str = ""
    events: tuple[str, ...] = ()
    min_severity: str = "notice"
    apps: tuple[str, ...] = ()
    template: str = ""
    signed: bool = False
    allow_private: bool = False
    created_at: float = 0.0


class KnownProblem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A problem that a webhook reported. `app`: "" for one of the cluster. `nodes`: whose answers show it."""

    severity: str
    summary: str
    app: str = ""
    nodes: tuple[str, ...] = ()


class Facts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The cluster as far as webhooks report it.

    apps        by name: "running", "paused" or "removing"
    groups      the state of each serving group, by application
    not_live    the shards of serving groups that are not live, as ranges, by application
    problems    by code and subject (`problem_name`)
    failovers   Unix seconds of the last one that each node reports; 0: it answers and has none
    losses      likewise
    at          Unix seconds: what a node that is in neither of them has from before then is not new
    """

    leader: str = ""
    nodes: list[str] = []
    apps: dict[str, str] = {}
    groups: dict[str, str] = {}
    not_live: dict[str, str] = {}
    problems: dict[str, KnownProblem] = {}
    failovers: dict[str, float] = {}
    losses: dict[str, float] = {}
    at: float = 0.0


class WebhookStateRecord(Record, frozen=True):
    """`webhook-states/<name>`, of the webhook with the create revision `of`. Only the leader's node writes it.

    facts           what the last message was about, and all before it
    missed          notices that were given up since
    failing_since   Unix seconds since when messages do not arrive; 0: they do
    error           why not
    """

    of: int
    facts: Facts = Facts()
    missed: int = 0
    sent_at: float = 0.0
    failing_since: float = 0.0
    error: str = ""
