"""What JetStream reports to a client about its account and our streams, and the problems in it. Pure.

Source: nats-server, server/jetstream_api.go: `$JS.API.INFO` and `$JS.API.STREAM.INFO.<stream>`. The server reports its
own limits (`max_file_store`) to system accounts only; appends show that they are reached.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import TypeVar

import msgspec

from sandwich_coordinator.problems import Code, Problem, problem

NEARLY_FULL = 0.9
SILENT_S = 10
LAG_MAX = 1000
"""Messages that a replica lacks; fewer are normal under load."""
MIB = 1024 * 1024
_NO_STREAM = 10059
_Answer = TypeVar("_Answer")


class _Error(msgspec.Struct, frozen=True):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Limits(msgspec.Struct, frozen=True):
    max_memory: int = -1
    max_storage: int = -1
    max_streams: int = -1
    max_consumers: int = -1


class _Tier(msgspec.Struct, frozen=True):
    storage: int = 0
    streams: int = 0
    consumers: int = 0
    limits: _Limits = _Limits()


class _Account(_Tier, frozen=True):
    tiers: dict[str, _Tier] = {}
    error: _Error | None = None


class _Peer(msgspec.Struct, frozen=True):
    name: str = ""
    current: bool = False
    offline: bool = False
    active: int = 0
    lag: int = 0


class _Cluster(msgspec.Struct, frozen=True):
    leader: str = ""
    leader_since: datetime | None = None
    replicas: list[_Peer] = []


class _Config(msgspec.Struct, frozen=True):
    num_replicas: int = 1


class _Stream(msgspec.Struct, frozen=True):
    config: _Config = _Config()
    cluster: _Cluster | None = None
    ts: datetime | None = None
    error: _Error | None = None


def account_problems(answer: bytes | None) -> list[Problem]:
    """What is wrong with the account. `answer` None: there was none."""
    if answer is None:
        return [problem(Code.JETSTREAM_SILENT, "nats", "JetStream does not answer")]
    account = _read(answer, _Account)
    if account is None:
        return []
    if account.error is not None:
        words = f"JetStream does not answer: {account.error.description} ({account.error.err_code})"
        return [problem(Code.JETSTREAM_SILENT, "nats", words)]
    found = list(_limits(account, ""))
    for name, tier in sorted(account.tiers.items()):
        found += _limits(tier, f" of tier {name}")
    return found


def stream_problems(stream: str, answer: bytes | None) -> list[Problem]:
    """What is wrong with a stream of ours. `answer` None: there was none, as when it has no leader."""
    subject = f"nats/{stream}"
    if answer is None:
        return [problem(Code.STREAM_NO_LEADER, subject, f"stream {stream} does not answer, as one without a leader")]
    info = _read(answer, _Stream)
    if info is None or (info.error is not None and info.error.err_code == _NO_STREAM):
        # A shard makes it when it starts.
        return []
    if info.error is not None:
        words = f"stream {stream} cannot be read: {info.error.description} ({info.error.err_code})"
        return [problem(Code.STREAM_UNREADABLE, subject, words)]
    return [problem(code, subject, words) for code, words in _replicas(stream, info)]


def _is_gone(peer: _Peer, led_s: float) -> bool:
    """Whether a replica is gone. NATS reports `offline` late. `led_s`: for how long its leader has been the leader.

    `active` is the time in nanoseconds since its last answer to the leader; 0 and not current: it never answered.
    """
    if peer.offline or peer.current:
        return peer.offline
    return peer.active >= SILENT_S * 1_000_000_000 or (peer.active == 0 and led_s >= SILENT_S)


def _replicas(stream: str, info: _Stream) -> Iterator[tuple[Code, str]]:
    cluster, wanted = info.cluster, info.config.num_replicas
    if cluster is None or wanted < 2:
        return
    if not cluster.leader:
        yield Code.STREAM_NO_LEADER, f"stream {stream} has no leader, so its events wait"
    led_s = (info.ts - cluster.leader_since).total_seconds() if info.ts and cluster.leader_since else SILENT_S
    offline = sorted(peer.name for peer in cluster.replicas if _is_gone(peer, led_s))
    missing = wanted - 1 - len(cluster.replicas)
    if offline or missing > 0:
        gone = ", ".join([*offline, *([f"{missing} not placed"] if missing > 0 else [])])
        yield Code.STREAM_REPLICAS_MISSING, f"stream {stream} lacks replicas ({gone} of {wanted})"
    behind = sorted(peer.name for peer in cluster.replicas if peer.name not in offline and peer.lag >= LAG_MAX)
    if behind:
        yield Code.STREAM_REPLICAS_BEHIND, f"replicas of stream {stream} are behind ({', '.join(behind)})"


def _limits(tier: _Tier, where: str) -> Iterator[Problem]:
    limits, found = tier.limits, []
    if limits.max_storage > 0 and tier.storage >= NEARLY_FULL * limits.max_storage:
        figures = f"{tier.storage / MIB:.0f} of {limits.max_storage / MIB:.0f} MiB"
        found.append(f"JetStream's storage limit{where} is nearly used up ({figures})")
    if 0 < limits.max_streams <= tier.streams:
        found.append(f"JetStream takes no more streams{where} ({tier.streams})")
    if 0 < limits.max_consumers <= tier.consumers:
        found.append(f"JetStream takes no more consumers{where} ({tier.consumers})")
    yield from (problem(Code.JETSTREAM_LIMIT, "nats", words) for words in found)


def _read(answer: bytes, kind: type[_Answer]) -> _Answer | None:
    try:
        return msgspec.json.decode(answer, type=kind)
    except (msgspec.MsgspecError, RecursionError):
        return None
