"""Problems in the status of etcd's members."""

from typing import Any

import msgspec
import pytest

from sandwich_coordinator.cli.render import Snapshot, problems, serious, status_text, to_json
from sandwich_coordinator.findings import Finding
from sandwich_coordinator.status import NodeStatus
from sandwich_coordinator.store.etcd_health import MIB, MemberStatus, etcd_findings
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.view import ClusterView

REAL = (
    b'{"header":{"cluster_id":"17697865009923488636","member_id":"5438523429066223889","revision":"13","raft_term":"2"},'
    b'"version":"3.5.1","dbSize":"28672","leader":"5438523429066223889","raftIndex":"16","raftTerm":"2",'
    b'"raftAppliedIndex":"16","errors":["memberID:5438523429066223889 alarm:NOSPACE "],"dbSizeInUse":"16384"}'
)


def member(**fields: Any) -> MemberStatus:
    return msgspec.structs.replace(MemberStatus(leader=7, db_size_quota=100 * MIB), **fields)


def texts(**members: MemberStatus | str) -> str:
    return "\n".join(finding.text for finding in etcd_findings(members))


def test_a_healthy_etcd_gives_no_problem() -> None:
    assert etcd_findings({"a": member(), "b": member(db_size=79 * MIB), "c": MemberStatus(leader=1)}) == []
    assert etcd_findings({}) == []


def test_an_alarm_is_found_in_a_real_answer_and_blocks() -> None:
    answer = msgspec.json.decode(REAL, type=MemberStatus, strict=False)
    (found,) = etcd_findings({"a": answer, "b": answer})
    assert found.blocks
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
def test_a_members_problem_is_reported_with_its_endpoint(fields: dict[str, Any], words: str, blocks: bool) -> None:
    (found,) = etcd_findings({"http://x:2379": member(**fields), "http://y:2379": member()})
    assert words in found.text
    assert found.blocks is blocks


def test_a_member_that_does_not_answer_is_reported_while_others_do() -> None:
    assert etcd_findings({"a": "refused", "b": member()}) == [
        Finding("etcd at a does not answer (refused): the cluster can lose fewer members than it seems")
    ]
    assert etcd_findings({"a": "refused", "b": "refused"}) == []
    (found,) = etcd_findings({"a": "refused", "b": "etcdserver: no leader"})
    assert (found.blocks, "etcd at b has no leader" in found.text) == (True, True)


def test_endpoints_of_two_clusters_are_reported() -> None:
    one, other = (type(MemberStatus().header)(cluster_id=number) for number in (1, 2))
    assert "different etcd clusters" in texts(a=member(header=one), b=member(header=other))


def test_the_status_reports_it_once_and_as_serious() -> None:
    keys = Keys()
    nodes = {
        name: NodeStatus(node=name, instance="i", version="1", uptime_s=1.0, problems=["etcd is full", "Redis is full"])
        for name in ("b", "a")
    }
    snapshot = Snapshot(
        cluster="default",
        view=ClusterView(keys=keys),
        configured=True,
        now=0.0,
        answers=nodes,
        etcd_version="3.4.0",
        etcd_troubles=("etcd is full",),
    )
    assert problems(snapshot)[0] == "etcd is full"
    assert [text for text in problems(snapshot) if text.startswith("node")] == ["nodes a, b: Redis is full"]
    assert serious(snapshot)
    assert "degraded" in status_text(snapshot)
    assert to_json(snapshot)["healthy"] is False
