"""What the drill reads from the status, and what it takes for wrong in a count."""

import json
from dataclasses import replace

from verification.deploy.count import Tally
from verification.deploy.status import Status, read_status

FOUND = {
    "v": 1,
    "problems": [
        {"code": "node-gone", "severity": "warning", "summary": "node c is gone"},
        {"code": "etcd-old", "severity": "notice", "summary": "etcd is old"},
    ],
    "leader": "a",
    "nodes": [{"node": "a", "answers": True, "shards": 2}, {"node": "b", "answers": False, "shards": 0}],
    "apps": [{"app": "welcomer", "shards": {"live": 5, "resuming": 1}}, {"app": "music", "shards": {}}],
}
GOOD = Tally(owed=1000, identifies=8)


def test_the_status_is_read_without_its_notices() -> None:
    status = read_status(1, f"{json.dumps(FOUND, indent=2)}\n")
    assert (status.code, status.problems, status.leader) == (1, frozenset({"node-gone"}), "a")
    assert status.answering == {"a"}
    assert status.live == {"welcomer": 5, "music": 0}


def test_without_an_answer_of_etcd_there_is_only_the_exit_code() -> None:
    error = json.dumps({"v": 1, "error": {"code": "unavailable", "message": "etcd did not answer"}})
    assert read_status(2, error) == read_status(2, "no JSON at all") == Status(2)


def test_everything_but_a_second_delivery_to_a_group_is_wrong() -> None:
    assert GOOD.wrong(8) == []
    assert replace(GOOD, again=3, refills=1).wrong(8) == []
    for name in ("lost", "doubled", "disordered", "missed", "gaps"):
        assert replace(GOOD, **{name: 1}).wrong(8) == [name]
    assert replace(GOOD, identifies=9).wrong(8) == ["9 IDENTIFYs in place of 8"]
    assert Tally(identifies=8).wrong(8) == ["no event was owed"]


def test_a_step_is_the_difference_of_two_totals() -> None:
    assert replace(GOOD, owed=1500, again=2) - GOOD == Tally(owed=500, again=2)
