"""What an operator has to know of JetStream's answers about its account and our streams. Pure.

Source: nats-server, server/jetstream_api.go: `$JS.API.INFO` and `$JS.API.STREAM.INFO.<stream>`. The server reports its
own limits (`max_file_store`) to system accounts only. A refused append shows that one is reached.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import TypeVar

import msgspec

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


def account_findings(answer: bytes | None) -> list[str]:
    """What is wrong with the account. `answer` None: there was none."""
    if answer is None:
        return ["JetStream does not answer: has its cluster lost its meta leader?"]
    account = _read(answer, _Account)
    if account is None:
        return []
    if account.error is not None:
        return [f"JetStream does not answer: {account.error.description} ({account.error.err_code})"]
    found = list(_limits(account, ""))
    for name, tier in sorted(account.tiers.items()):
        found += _limits(tier, f" of tier {name}")
    return found


def stream_findings(stream: str, answer: bytes | None) -> list[str]:
    """What is wrong with a stream of ours. `answer` None: there was none, as when it has no leader."""
    if answer is None:
        return [f"stream {stream} does not answer: has it lost its leader because too few of its replicas are up?"]
    info = _read(answer, _Stream)
    if info is None or (info.error is not None and info.error.err_code == _NO_STREAM):
        # A shard makes it when it starts.
        return []
    if info.error is not None:
        return [f"stream {stream} cannot be read: {info.error.description} ({info.error.err_code})"]
    return list(_replicas(stream, info))


def _is_gone(peer: _Peer, led_s: float) -> bool:
    """Whether a replica is gone. NATS reports `offline` late. `led_s`: for how long its leader has been the leader.

    `active` is the time in nanoseconds since its last answer to the leader; 0 and not current: it never answered.
    """
    if peer.offline or peer.current:
        return peer.offline
    return peer.active >= SILENT_S * 1_000_000_000 or (peer.active == 0 and led_s >= SILENT_S)


def _replicas(stream: str, info: _Stream) -> Iterator[str]:
    cluster, wanted = info.cluster, info.config.num_replicas
    if cluster is None or wanted < 2:
        return
    if not cluster.leader:
        yield f"stream {stream} has no leader: too few of its replicas are up; events wait"
    led_s = (info.ts - cluster.leader_since).total_seconds() if info.ts and cluster.leader_since else SILENT_S
    offline = sorted(peer.name for peer in cluster.replicas if _is_gone(peer, led_s))
    missing = wanted - 1 - len(cluster.replicas)
    if offline or missing > 0:
        gone = ", ".join([*offline, *([f"{missing} not placed"] if missing > 0 else [])])
        yield f"stream {stream} lacks replicas ({gone} of {wanted}): start the servers again before one more is lost"
    behind = sorted(peer.name for peer in cluster.replicas if peer.name not in offline and peer.lag >= LAG_MAX)
    if behind:
        yield f"replicas of stream {stream} are behind ({', '.join(behind)}): are their disks or network too slow?"


def _limits(tier: _Tier, where: str) -> Iterator[str]:
    limits = tier.limits
    if limits.max_storage > 0 and tier.storage >= NEARLY_FULL * limits.max_storage:
        yield (
            f"JetStream's storage limit{where} is nearly used up ({tier.storage / MIB:.0f} of "
            f"{limits.max_storage / MIB:.0f} MiB): raise the account's limit, or limit the streams (nats.stream)"
        )
    if 0 < limits.max_streams <= tier.streams:
        yield f"JetStream takes no more streams{where} ({tier.streams}): raise the account's limit"
    if 0 < limits.max_consumers <= tier.consumers:
        yield f"JetStream takes no more consumers{where} ({tier.consumers}): raise the account's limit"


def _read(answer: bytes, kind: type[_Answer]) -> _Answer | None:
    try:
        return msgspec.json.decode(answer, type=kind)
    except (msgspec.MsgspecError, RecursionError):
        return None
