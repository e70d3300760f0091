"""Problems in the status of etcd's members."""

from typing import Any

import msgspec
import pytest

from sandwich_coordinator.cli.render import status_text, to_json
from sandwich_coordinator.operations.health import find_problems
from sandwich_coordinator.operations.snapshot import Snapshot
from sandwich_coordinator.problems import Code, Severity, degraded, problem
from sandwich_coordinator.status import NodeStatus
from sandwich_coordinator.store.etcd_health import MIB, MemberStatus, etcd_problems
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.view import ClusterView

FULL = problem(Code.ETCD_NO_SPACE, "etcd", "etcd is full")
REDIS = problem(Code.REDIS_FULL, "redis", "Redis is full")
REAL = (
    b'{"header":{"cluster_id":"17697865009923488636","member_id":"5438523429066223889","revision":"13","raft_term":"2"},'
    b'"version":"3.5.1","dbSize":"28672","leader":"5438523429066223889","raftIndex":"16","raftTerm":"2",'
    b'"raftAppliedIndex":"16","errors":["memberID:5438523429066223889 alarm:NOSPACE "],"dbSizeInUse":"16384"}'
)


def member(**fields: Any) -> MemberStatus:
    return msgspec.structs.replace(MemberStatus(leader=7, db_size_quota=100 * MIB), **fields)


def texts(**members: MemberStatus | str) -> str:
    return "\n".join(one.text for one in etcd_problems(members))


def test_a_healthy_etcd_has_no_problem() -> None:
    assert etcd_problems({"a": member(), "b": member(db_size=79 * MIB), "c": MemberStatus(leader=1)}) == []
    assert etcd_problems({}) == []


def test_an_alarm_is_found_in_a_real_answer_and_blocks() -> None:
    answer = msgspec.json.decode(REAL, type=MemberStatus, strict=False)
    (found,) = etcd_problems({"a": answer, "b": answer})
    assert (found.code, found.severity) == (Code.ETCD_NO_SPACE, Severity.CRITICAL)
    assert "NOSPACE" in found.text
    assert "etcdctl alarm disarm" in found.text


@pytest.mark.parametrize(
    ("fields", "words", "blocks"),
    [
        ({"errors": ["memberID:1 alarm:CORRUPT "]}, "damaged data", True),
        ({"leader": 0, "errors": ["etcdserver: no leader"]}, "no leader", True),
        ({"is_learner": True}, "learner", False),
        (
            {"db_size": 81 * MIB, "db_size_in_use": 2 * MIB},
            "81 MiB (2 MiB of it in use) and takes no more than 100",
            False,
        ),
        ({"raft_index": 9000, "raft_applied_index": 8000}, "1000 entries behind", False),
    ],
)
def test_a_problem_of_a_member_names_its_endpoint(fields: dict[str, Any], words: str, blocks: bool) -> None:
    (found,) = etcd_problems({"http://x:2379": member(**fields), "http://y:2379": member()})
    assert words in found.text
    assert (found.severity is Severity.CRITICAL) is blocks


def test_a_member_that_does_not_answer_is_a_problem_while_others_do() -> None:
    (found,) = etcd_problems({"a": "refused", "b": member()})
    assert (found.code, found.subject) == (Code.ETCD_MEMBER_UNREACHABLE, "etcd/a")
    assert found.summary == "etcd at a does not answer (refused)"
    assert "the cluster can lose fewer members than it seems" in found.advice
    assert etcd_problems({"a": "refused", "b": "refused"}) == []
    (found,) = etcd_problems({"a": "refused", "b": "etcdserver: no leader"})
    assert (found.code, "etcd at b has no leader" in found.text) == (Code.ETCD_NO_LEADER, True)


def test_endpoints_of_two_clusters_are_a_problem() -> None:
    one, other = (type(MemberStatus().header)(cluster_id=number) for number in (1, 2))
    assert "different etcd clusters" in texts(a=member(header=one), b=member(header=other))


def test_the_status_reports_it_once_and_as_serious() -> None:
    keys = Keys()
    nodes = {
        name: NodeStatus(node=name, instance="i", version="1", uptime_s=1.0, problems=[FULL, REDIS])
        for name in ("b", "a")
    }
    snapshot = Snapshot(
        cluster="default",
        view=ClusterView(keys=keys),
        configured=True,
        now=0.0,
        answers=nodes,
        etcd_version="3.4.0",
        etcd_problems=(FULL,),
    )
    found = find_problems(snapshot)
    assert found[0] == FULL
    assert [one for one in found if one.nodes] == [msgspec.structs.replace(REDIS, nodes=("a", "b"))]
    assert "nodes a, b: Redis is full" in status_text(snapshot)
    assert degraded(found)
    assert "degraded" in status_text(snapshot)
    assert to_json(snapshot)["healthy"] is False
