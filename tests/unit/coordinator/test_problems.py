"""Problems as values: the table of codes, its page, and what another version's problems become."""

import re
from pathlib import Path

import msgspec
import pytest

from sandwich_coordinator.cli.render import problem_line
from sandwich_coordinator.close_codes import STOP_CODES, stop_advice, stop_cure
from sandwich_coordinator.problems import KINDS, Code, Kind, Problem, Severity, degraded, problem, worst_first
from sandwich_coordinator.status import NodeStatus
from sandwich_node.gateway.opcodes import CLOSE_RULES, CloseAction

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "problems.md"


def row(code: Code, kind: Kind) -> str:
    return f"| `{code}` | {kind.severity} | {kind.meaning} | {kind.advice or '-'} |"


def test_every_code_has_a_kind_and_a_row_in_the_reference() -> None:
    assert set(KINDS) == set(Code)
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `") and line.count("|") == 5]
    assert rows == [row(code, kind) for code, kind in KINDS.items()]


def test_every_close_code_that_stops_a_shard_has_one_source_of_advice() -> None:
    stopping = {code: rule for code, rule in CLOSE_RULES.items() if rule.action is CloseAction.STOP}
    assert {code: (rule.meaning, rule.advice) for code, rule in stopping.items()} == {
        code: (stop.meaning, stop_cure(code)) for code, stop in STOP_CODES.items()
    }
    assert "correct what the reason names" in stop_cure(0)


def test_the_page_has_each_close_code_with_its_cure_and_command() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if re.match(r"\| 4\d{3} \|", line)]
    assert rows == [
        f"| {code} | {stop.meaning} | {stop_cure(code)} | `{stop.then}` |" for code, stop in STOP_CODES.items()
    ]


@pytest.mark.parametrize("code", [*STOP_CODES, 0])
def test_the_advice_names_a_command_for_these_shards(code: int) -> None:
    advice = stop_advice(code, app="bot", shards="0-15", intents="GUILD_MEMBERS", count=32)
    command = advice.partition("; then run ")[2]
    assert command.startswith("sandwich ")
    assert " bot " in command
    assert not re.search("APP|SHARDS|COUNT|INTENTS", advice)
    if code == 4014:
        assert "enable GUILD_MEMBERS in Discord's developer portal" in advice
        assert command == "sandwich shard restart bot 0-15"
    if code in (4010, 4011):
        assert command == "sandwich app scale bot --shards 32"


def test_a_cluster_is_degraded_by_all_but_notices_and_the_worst_comes_first() -> None:
    notice, warning, critical = (
        problem(code, "cluster", "x") for code in (Code.ETCD_OLD, Code.REDIS_EVICTS, Code.NO_LEADER)
    )
    assert not degraded([])
    assert not degraded([notice])
    assert degraded([notice, warning])
    assert worst_first([notice, warning, critical]) == [critical, warning, notice]


@pytest.mark.parametrize(
    ("one", "line"),
    [
        (problem(Code.NO_NODES, "cluster", "no nodes", ""), "! no nodes"),
        (problem(Code.NO_NODES, "cluster", "no nodes", "start one"), "! no nodes: start one"),
        (problem(Code.ETCD_OLD, "etcd", "old", ""), "- old"),
        (problem(Code.SHARDS_NOT_LIVE, "app/a", "slow", "", since=40.0), "! slow (for 1m)"),
        (problem(Code.NODE_GONE, "node/b", "b is gone", "look", since=88.0), "! b is gone (12s ago): look"),
    ],
)
def test_a_problem_is_one_line(one: Problem, line: str) -> None:
    assert problem_line(one, 100.0) == line
    shown = msgspec.structs.replace(one, nodes=("a", "b"))
    assert problem_line(shown, 100.0) == f"{line[:2]}nodes a, b: {line[2:]}"


def test_problems_of_an_older_and_of_a_newer_node_can_be_read() -> None:
    body = {
        "node": "a",
        "instance": "i",
        "version": "9",
        "uptime_s": 1.0,
        "problems": [
            "a sentence of an older node",
            {"code": "of-a-newer-node", "severity": "deadly", "subject": "x", "summary": "y", "more": 1},
        ],
    }
    old, new = msgspec.json.decode(msgspec.json.encode(body), type=NodeStatus).problems
    assert old == "a sentence of an older node"
    assert new == Problem(code=Code.OTHER, severity=Severity.WARNING, subject="x", summary="y")


def test_a_problem_reads_back_from_json_as_it_was() -> None:
    one = problem(Code.NODE_GONE, "node/a", "a is gone", since=5.0)
    assert msgspec.json.decode(msgspec.json.encode(one), type=Problem) == one
    assert msgspec.to_builtins(one) == {
        "code": "node-gone",
        "severity": "warning",
        "subject": "node/a",
        "summary": "a is gone",
        "advice": KINDS[Code.NODE_GONE].advice,
        "since": 5.0,
        "nodes": (),
    }
