"""The live view of `sandwich-node dev` in narrow terminals."""

import io

import pytest
from rich.console import Console

from sandwich_coordinator.ids import LeaderTerm
from sandwich_coordinator.operations.snapshot import Snapshot
from sandwich_coordinator.store.base import KeyValue
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import ClaimRecord, GroupRecord, NodeRecord, Record, ShardState
from sandwich_coordinator.view import ClusterView
from sandwich_node.dev.demo import Seen, print_plain, screen

KEYS = Keys()
HEADINGS = {
    "node",
    "state",
    "leads",
    "shards",
    "address",
    "app",
    "wrong",
    "published/s",
    "consumed/s",
    "guilds",
    "total",
}


def snapshot(node: str = "node-a") -> Snapshot:
    records: dict[str, Record] = {
        KEYS.node(node): NodeRecord(node=node, instance="i", address="127.0.0.1:45835", version="1", state="ready"),
        KEYS.group("welcomer", 1): GroupRecord(app="welcomer", group=1, count=16, ids="0-15", term=LeaderTerm(1)),
    }
    states: tuple[ShardState, ...] = ("live", "resuming", "identifying", "draining")
    for shard, state in enumerate(states):
        records[KEYS.claim("welcomer", 1, shard)] = ClaimRecord(
            app="welcomer", group=1, shard=shard, node=node, instance="i", worker=0, state=state
        )
    items = {key: KeyValue(key, record.encode(), 1, 1, 1, 9) for key, record in records.items()}
    return Snapshot(cluster="default", view=ClusterView.from_items(KEYS, items), configured=True, now=0.0)


def shown(width: int, node: str = "node-a") -> list[str]:
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    console.print(screen(snapshot(node), {"welcomer": Seen(), "music": Seen()}, 12.0, width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def headings(lines: list[str]) -> set[str]:
    return {word for line in lines if "┃" in line for word in line.replace("┃", " ").split()}


@pytest.mark.parametrize("width", [40, 60, 72, 80, 100, 200])
def test_no_heading_is_cut_and_no_line_is_wider_than_the_terminal(width: int) -> None:
    lines = shown(width)
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)
    assert headings(lines) <= HEADINGS
    assert {"node", "state", "shards", "app"} <= headings(lines)


def test_at_80_columns_everything_is_there() -> None:
    lines = shown(80)
    assert headings(lines) == HEADINGS
    for state in ("live", "resuming", "identifying", "draining", "unassigned"):
        assert any(state in line for line in lines)


def test_names_are_neither_markup_nor_control_codes() -> None:
    name = "[red]x[bold]\x1b[2J"
    lines = shown(100, name)
    assert any("[red]x[bold]\\x1b[2J" in line for line in lines)
    console = Console(width=100, file=io.StringIO(), force_terminal=False)
    print_plain(console, snapshot(name), {"[/nope]\x1b": Seen()}, 1.0)
    assert isinstance(console.file, io.StringIO)
    assert "[/nope]\\x1b: no shards" in console.file.getvalue()
