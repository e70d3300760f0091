"""A small run of the scenarios of `make scale`, with what has to hold at every size."""

import asyncio

import pytest

from verification.scale.fleet import Feed
from verification.scale.scenarios import Row, Run, Size
from verification.simulation.loop import run_virtual

SIZE = Size(shards=48, nodes=6, apps=2, workers=1, concurrency=4, lost=1)


def test_every_scenario_ends_with_all_shards_live_without_breaking_a_rule_of_discord() -> None:
    rows: list[Row] = []

    async def main() -> None:
        await Run(SIZE, rows.append).run()

    run_virtual(main())
    by_name = {row.name: row for row in rows}
    assert [row.broken for row in rows] == [0] * len(rows)
    assert by_name["start-up"].identifies == SIZE.of_app * SIZE.apps
    assert by_name["quiet"].writes == 0
    # A start needs six turns of each bucket, five seconds apart.
    assert 25.0 <= by_name["start-up"].seconds <= 33.0
    moved = [row for row in rows if row.name not in ("start-up", "quiet", f"scale to {SIZE.after_scale}")]
    assert [row.identifies for row in moved] == [0] * 3, "a lost or restarted node costs no session start"
    assert by_name["1 nodes lost at once"].moves == 8
    assert by_name[f"scale to {SIZE.after_scale}"].identifies == SIZE.after_scale


def test_a_feed_that_fails_ends_the_run_with_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[Row] = []

    async def fail(feed: Feed) -> None:
        raise asyncio.QueueFull

    async def main() -> None:
        await Run(SIZE, rows.append).run()

    monkeypatch.setattr(Feed, "run", fail)
    with pytest.raises(ExceptionGroup) as failed:
        run_virtual(main())
    assert failed.group_contains(asyncio.QueueFull)
    assert rows == []
