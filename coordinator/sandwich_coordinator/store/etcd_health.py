"""Problems that the status of etcd's members shows. Pure.

Source: etcd's Maintenance API, `Status` (rpc.proto). Each member answers for itself, from memory and without a quorum;
alarms apply to the whole cluster.
"""

from collections.abc import Mapping, Sequence

import msgspec

from sandwich_coordinator.findings import Finding

NEARLY_FULL = 0.8
BEHIND_MAX = 1000
"""Entries that are committed and not applied yet. At 5,000 etcd refuses requests."""
MIB = 1024 * 1024
_NO_LEADER = "no leader"


class _Header(msgspec.Struct, frozen=True):
    cluster_id: int = 0


class MemberStatus(msgspec.Struct, frozen=True, rename="camel"):
    """One member's answer. `leader` 0: none. `db_size_quota` 0: unknown (etcd before 3.6)."""

    header: _Header = _Header()
    version: str = ""
    db_size: int = 0
    db_size_in_use: int = 0
    db_size_quota: int = 0
    leader: int = 0
    raft_index: int = 0
    raft_applied_index: int = 0
    errors: Sequence[str] = ()
    is_learner: bool = False


def etcd_findings(members: Mapping[str, MemberStatus | str]) -> list[Finding]:
    """The problems, worst first. `members`: for each endpoint its answer, or the reason why there is none."""
    known = {endpoint: member for endpoint, member in members.items() if isinstance(member, MemberStatus)}
    errors = " ".join(error for member in known.values() for error in member.errors)
    found = _alarms(errors)
    for endpoint, member in known.items():
        if not member.leader:
            found.append(_without_leader(endpoint))
        found += [Finding(f"etcd at {endpoint} {text}") for text in _warnings(member, full="NOSPACE" in errors)]
    if len({member.header.cluster_id for member in known.values()}) > 1:
        found.append(
            Finding("the etcd endpoints belong to different etcd clusters: name the members of one", blocks=True)
        )
    silent = {endpoint: why for endpoint, why in members.items() if isinstance(why, str)}
    leaderless = [endpoint for endpoint, why in silent.items() if _NO_LEADER in why]
    found += [_without_leader(endpoint) for endpoint in leaderless]
    if known:
        # When none answers, every request already fails with that reason.
        found += [
            Finding(f"etcd at {endpoint} does not answer ({why}): the cluster can lose fewer members than it seems")
            for endpoint, why in silent.items()
            if endpoint not in leaderless
        ]
    return found


def _without_leader(endpoint: str) -> Finding:
    return Finding(f"etcd at {endpoint} has no leader: too few members reach each other", blocks=True)


def _alarms(errors: str) -> list[Finding]:
    found = []
    if "NOSPACE" in errors:
        found.append(
            Finding(
                "etcd is out of space (NOSPACE alarm) and refuses writes: no shard can start or move. Raise "
                "--quota-backend-bytes, or compact and defragment, then run etcdctl alarm disarm",
                blocks=True,
            )
        )
    if "CORRUPT" in errors:
        found.append(
            Finding(
                "a member of etcd has damaged data (CORRUPT alarm) and etcd refuses requests: replace that member, "
                "then run etcdctl alarm disarm",
                blocks=True,
            )
        )
    return found


def _warnings(member: MemberStatus, *, full: bool) -> list[str]:
    found = []
    if member.is_learner:
        found.append("is a learner and does not serve: run etcdctl member promote, or leave it out of --etcd")
    if not full and member.db_size_quota and member.db_size >= NEARLY_FULL * member.db_size_quota:
        in_use = f"{member.db_size_in_use / MIB:.0f} MiB of it in use"
        found.append(
            f"has a database of {member.db_size / MIB:.0f} MiB ({in_use}) and takes no more than "
            f"{member.db_size_quota / MIB:.0f}: defragment it, or raise --quota-backend-bytes"
        )
    if (behind := member.raft_index - member.raft_applied_index) >= BEHIND_MAX:
        found.append(f"is {behind} entries behind what the cluster agreed on: is its disk too slow?")
    return found
