"""What a reader of changes is sent, by its scope and by what it says that it knows."""

import json
from dataclasses import replace
from typing import Any

import pytest

from sandwich_coordinator.store.base import KeyValue, WatchBatch, WatchEvent
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import AppRecord, NodeRecord
from sandwich_coordinator.view import ClusterView, Entry
from sandwich_node.agent.recent_changes import RecentChanges
from sandwich_node.api.live.change_events import KnownToReaders, ResumeFrom
from sandwich_node.api.live.cluster_changes import Change, Scope

ALL, MUSIC = Scope(), Scope(frozenset({"music"}))
KEYS = Keys()
VIEW = replace(
    ClusterView(keys=KEYS),
    revision=40,
    nodes={"a": Entry(NodeRecord("a", "i", "10.0.0.1:1", "1"), 10, 10, 5)},
    apps={
        name: Entry(AppRecord(app=name, token="t", token_hash="h", intents=1), revision, revision, 0)
        for name, revision in (("music", 20), ("radio", 30))
    },
)
KNOWN = KnownToReaders(
    VIEW,
    problems={"problem/no-leader/cluster": {"code": "no-leader"}, "problem/app-paused/app/music": {"code": "x"}},
    figures={"app/music": {"guilds": 3}, "node/a": {"guilds": 9}},
)


def read(event: bytes | None) -> tuple[str, str, Any]:
    """Its id, its name and its data."""
    assert event is not None
    id, name, data = (line.partition(": ")[2] for line in event.decode().strip().split("\n"))
    return id, name, json.loads(data)


def recent() -> RecentChanges:
    """What changed since revision 15."""
    changes = RecentChanges()
    changes.restart(15)
    for name, entry in VIEW.apps.items():
        item = KeyValue(KEYS.app(name), entry.record.encode(), entry.create_revision, entry.mod_revision, 1)
        changes.note([WatchBatch((WatchEvent("put", item),), entry.mod_revision)])
    return changes


@pytest.mark.parametrize("text", ["", "40", "-1-all", "x-all", "²-all", "40-", "9" * 20 + "-all"])
def test_an_id_that_this_stream_did_not_give_says_nothing(text: str) -> None:
    assert ResumeFrom.parse(text) is None


def test_an_id_is_read_as_it_is_written() -> None:
    assert ResumeFrom.parse(str(ResumeFrom(40, "a-b"))) == ResumeFrom(40, "a-b")


def test_a_snapshot_has_what_the_scope_sees() -> None:
    id, name, data = read(KNOWN.snapshot(ALL))
    assert (id, name) == ("40-all", "snapshot")
    assert {"node/a", "app/music", "app/radio", "problem/no-leader/cluster"} <= data["objects"].keys()
    assert data["figures"].keys() == {"app/music", "node/a"}
    id, _, data = read(KNOWN.snapshot(MUSIC))
    assert id == f"40-{MUSIC.tag}"
    assert "app/music" in data["objects"]
    assert not {"node/a", "app/radio", "problem/no-leader/cluster"} & data["objects"].keys()
    assert data["figures"].keys() == {"app/music"}


def test_a_change_is_sent_to_the_scopes_that_see_it() -> None:
    changes = [Change("app/radio", None), Change("node/a", {"state": "draining"}, part=True)]
    _, name, data = read(KNOWN.changes(changes, ALL))
    assert (name, data["changes"]) == (
        "changes",
        [{"object": "app/radio", "removed": True}, {"object": "node/a", "patch": {"state": "draining"}}],
    )
    assert KNOWN.changes(changes, MUSIC) == b""
    assert read(KNOWN.new_figures(MUSIC))[1:] == ("figures", {"app/music": {"guilds": 3}})


def test_a_reader_that_was_here_gets_what_changed_since() -> None:
    id, name, data = read(KNOWN.resumed(ResumeFrom(25, "all"), ALL, recent()))
    assert (id, name) == ("40-all", "resumed")
    assert [change["object"] for change in data["changes"]] == ["app/radio"]
    assert len(data["problems"]) == 2
    _, _, data = read(KNOWN.resumed(ResumeFrom(25, MUSIC.tag), MUSIC, recent()))
    assert (data["changes"], data["figures"].keys()) == ([], {"app/music"})


@pytest.mark.parametrize(
    ("resume", "is_behind"),
    [(None, False), (ResumeFrom(14, "all"), False), (ResumeFrom(30, "other"), False), (ResumeFrom(41, "all"), True)],
    ids=["new", "too long ago", "of another scope", "ahead of this node"],
)
def test_a_reader_that_cannot_go_on_gets_a_snapshot(resume: ResumeFrom | None, is_behind: bool) -> None:
    assert KNOWN.resumed(resume, ALL, recent()) is None
    assert KNOWN.is_behind(resume) is is_behind
