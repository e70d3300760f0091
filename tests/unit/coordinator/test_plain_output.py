"""Untrusted text in the output of commands: none prints a raw control character."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandwich_coordinator.cli import output, render
from sandwich_coordinator.cli.errors import CommandError, command_error
from sandwich_coordinator.cli.letter_text import content_row, content_text, letters_text
from sandwich_coordinator.cli.lookups import guild_text, mutual_text, where_text
from sandwich_coordinator.cli.paint import Paint
from sandwich_coordinator.ids import LeaderTerm, ShardId
from sandwich_coordinator.operations.dead_letters import LetterContent, StoredLetter
from sandwich_coordinator.operations.errors import NotFound, NotReached
from sandwich_coordinator.operations.shards import _is_live
from sandwich_coordinator.operations.snapshot import Snapshot
from sandwich_coordinator.problems import Code, problem
from sandwich_coordinator.status import FailoverStatus, LossStatus, NodeStatus, ShardStatus
from sandwich_coordinator.store.base import KeyValue
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import AppRecord, BudgetRecord, ClaimRecord, GroupRecord, LeaderRecord, NodeRecord
from sandwich_coordinator.view import ClusterView
from sandwich_sdk.wire.dead import DeadLetter

KEYS = Keys()
NASTY = "x\x1b[2J\x9b1m\x7f\r\n  ! forged\u2028\u202e\u2066"
CLI = Path(output.__file__).parent


def snapshot() -> Snapshot:
    records = {
        KEYS.node("n1"): NodeRecord(node="n1", instance="i", address=NASTY, version=NASTY),
        KEYS.leader: LeaderRecord(node=NASTY, instance="i"),
        KEYS.app("a"): AppRecord(app="a", token="v1:x", token_hash="h", intents=1),
        KEYS.group("a", 1): GroupRecord(
            app="a", group=1, count=2, ids="0-1", term=LeaderTerm(1), state="failed", reason=NASTY
        ),
        KEYS.claim("a", 1, 0): ClaimRecord(
            app="a", group=1, shard=0, node=NASTY, instance="i", worker=0, state="failed", reason=NASTY
        ),
        KEYS.budget("h"): BudgetRecord(
            url="u", shards=2, total=1, remaining=1, reset_at=1.0, max_concurrency=1, fetched_at=0.0, error=NASTY
        ),
    }
    items = {key: KeyValue(key, record.encode(), 1, 1, 1, 9) for key, record in records.items()}
    items[KEYS.app(NASTY)] = KeyValue(KEYS.app(NASTY), NASTY.encode(), 1, 1, 1, 9)
    failover = FailoverStatus(
        app=NASTY, group=1, shard=0, cause=NASTY, source=NASTY, node=NASTY, how="resumed", replayed=1, took_s=1.0,
        silent_s=1.0, at=1.0,
    )  # fmt: skip
    loss = LossStatus(app=NASTY, group=1, shard=0, node="n", session=NASTY, last_seq=1, reason=NASTY, at=1.0)
    status = NodeStatus(
        node="n1",
        instance="i",
        version=NASTY,
        uptime_s=1.0,
        problems=[NASTY, problem(Code.REDIS_FULL, NASTY, NASTY, NASTY)],
        shards=[ShardStatus(app="a", group=1, shard=0, worker=0, state=NASTY, reason=NASTY)],
        failovers=[failover],
        losses=[loss],
    )
    view = ClusterView.from_items(KEYS, items)
    return Snapshot(
        cluster=NASTY, view=view, configured=True, now=0.0, answers={"n1": status, NASTY: NASTY}, etcd_version="3.5.0"
    )


def assert_plain(text: str) -> None:
    assert text
    assert all(line.isprintable() for line in text.split("\n")), repr(text)
    assert not any(line.startswith("  ! forged") for line in text.split("\n"))


def test_tables_and_problems_of_the_cluster_are_plain() -> None:
    shown = snapshot()
    for text in (render.status_text(shown), render.nodes_text(shown), render.apps_text(shown)):
        assert_plain(text)
    assert_plain(render.shards_text(shown))
    assert_plain(render.shards_text(shown, NASTY))


def test_colours_are_the_only_control_sequences() -> None:
    painted = render.status_text(snapshot(), Paint(on=True))
    assert "\x1b[31mdegraded\x1b[0m" in painted
    assert_plain(re.sub(r"\x1b\[\d+m", "", painted))
    assert re.sub(r"\x1b\[\d+m", "", painted) == render.status_text(snapshot())


def test_dead_letters_are_plain() -> None:
    letter = DeadLetter(
        kind="event", group=NASTY, id=NASTY, type=NASTY, subject=NASTY, stream_seq=1, tries=1, error=NASTY, at=1.0
    )
    found = StoredLetter(app=NASTY, number=1, seqs=(1,), letter=letter)
    assert_plain(letters_text([found], 5, 2.0))
    event = LetterContent(stored=found, event={"content": NASTY, NASTY: [NASTY]})
    assert_plain(content_text(content_row(event)))
    frame = LetterContent(stored=found, headers={NASTY: NASTY}, payload=NASTY.encode(), unreadable=NASTY)
    assert_plain(content_text(content_row(frame)))
    assert_plain(content_text(content_row(frame) | {"payload": NASTY}))


def test_cached_guilds_and_users_are_plain() -> None:
    row = {"app": NASTY, "namespace": NASTY, "group": 1, "shard": 1, "node": NASTY, "state": NASTY}
    thing = {"id": NASTY, "name": NASTY, "user": {"id": NASTY, "username": NASTY}, "nick": NASTY}
    lists = {name: [thing] for name in ("channels", "roles", "members")}
    guild: dict[str, Any] = {"id": NASTY, "namespace": NASTY, "guild": {"name": NASTY, "owner_id": NASTY}}
    assert_plain(guild_text(guild | {"where": [row], "cached": {"members": 1}} | lists))
    assert_plain(where_text([row]))
    assert_plain(mutual_text([{"guild": "1", "name": NASTY, "namespace": NASTY, "apps": [NASTY]}], "1", [NASTY]))


def test_errors_are_plain_and_keep_their_own_line_feeds(capsys: pytest.CaptureFixture[str]) -> None:
    assert_plain(str(CommandError(f"failed: {NASTY}")))
    assert str(CommandError(["a", f"b{NASTY}"])).count("\n") == 1
    assert_plain(str(command_error(NotFound("application", NASTY, [NASTY]))))
    claim = ClaimRecord(app="a", group=1, shard=0, node="n", instance="i", worker=0, state="failed", reason=NASTY)
    with pytest.raises(NotReached) as caught:
        _is_live(ShardId("a", 1, 0), claim)
    assert_plain(str(command_error(caught.value)))
    output.fail("sandwich", f"a{NASTY}")
    output.warn(NASTY)
    output.say(NASTY, err=True)
    for line in capsys.readouterr().err.split("\n"):
        assert line.isprintable()


def test_json_and_yaml_decode_to_the_same_values(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"name": f"café {NASTY}", "more": [NASTY, "\x00", "\ud83d"]}
    output.show_json_document(value)
    printed = capsys.readouterr().out
    assert_plain(printed)
    assert json.loads(printed) == value
    assert "café" in printed
    value["more"].pop()  # type: ignore[attr-defined]
    output.show_yaml(value)
    printed = capsys.readouterr().out
    assert_plain(printed)
    assert yaml.safe_load(printed) == value
    output.show_yaml({"name": "café"})
    assert capsys.readouterr().out == "name: café\n"


def test_commands_write_only_where_text_is_made_plain() -> None:
    allowed = {"output.py", "options.py", "main.py"}  # help and version: our own text
    for path in CLI.glob("*.py"):
        if path.name not in allowed:
            assert "typer.echo" not in path.read_text(), path.name
            assert "sys.stdout.write" not in path.read_text(), path.name


@pytest.mark.parametrize(
    ("env", "tty", "on"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"TERM": "dumb"}, True, False),
    ],
)
def test_colours_are_used_on_terminals_without_no_color(
    env: dict[str, str], tty: bool, on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stream:
        def isatty(self) -> bool:
            return tty

    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert output.paint_for(Stream()).on is on  # type: ignore[arg-type]
