"""What a running node takes of changed settings, and in which order its shards follow. Pure."""

from collections.abc import Collection, Mapping

import msgspec

from sandwich_coordinator.assignment import LocalShard
from sandwich_coordinator.config import ClusterSettings
from sandwich_coordinator.ids import ShardId
from sandwich_node.agent.status import ShardFacts

SHARDS_AT_ONCE = 8
"""So many live shards of a node may be between two workers: each is silent for the time of a RESUME."""
SPREAD_MAX_S = 60.0
_SETTLED = ("live", "ready", "holding")
_CONNECTING = ("connecting", "resuming")


def without_restart(running: ClusterSettings, stored: ClusterSettings) -> ClusterSettings:
    """`stored` with what a node takes at its start only: `discord`, and the TTL that its lease was granted with."""
    policy = msgspec.structs.replace(stored.policy, lease_ttl_s=running.policy.lease_ttl_s)
    return msgspec.structs.replace(stored, discord=running.discord, policy=policy)


def spread_s(nodes: int, fraction: float) -> float:
    """How long a node waits before it replaces its workers, so that not all nodes do it at once.

    On average one node begins each second. `fraction` is random, from 0 to 1.
    """
    return min(float(nodes), SPREAD_MAX_S) * fraction


def shards_to_stop(
    local: Mapping[ShardId, LocalShard], facts: Mapping[ShardId, ShardFacts], retiring: Collection[int]
) -> list[ShardId]:
    """Which shards of retiring workers stop now, to start again in another worker of the node.

    A shard that has no session stops at once: nothing becomes silent. Of the others only so many stop that no more than
    SHARDS_AT_ONCE shards of the node are between two connections.
    """

    states = {shard: facts[shard].state if shard in facts else "" for shard in sorted(local)}
    leaving = [shard for shard in states if local[shard].worker in retiring and local[shard].phase == "running"]
    silent = [shard for shard in leaving if states[shard] not in _SETTLED]
    between = sum(
        each.phase == "stopping" or (each.worker not in retiring and states[shard] in _CONNECTING)
        for shard, each in local.items()
    )
    settled = [shard for shard in leaving if states[shard] in _SETTLED]
    return [*silent, *settled[: max(0, SHARDS_AT_ONCE - between)]]
