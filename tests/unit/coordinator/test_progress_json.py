"""What an operation reports is the same after a way over HTTP."""

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_args

import pytest

from sandwich_coordinator.cli.progress import progress_lines
from sandwich_coordinator.ids import ShardId
from sandwich_coordinator.operations import progress as happened
from sandwich_coordinator.operations.progress_json import progress_value, read_progress
from sandwich_coordinator.rebalance import Move
from sandwich_coordinator.scale_plan import ScaleProgress
from sandwich_coordinator.types import NodeState

VALUES: dict[Any, Any] = {
    str: "a name",
    int: 3,
    float: 2.5,
    bool: True,
    int | None: None,
    float | None: 7.25,
    tuple[int, ...]: (0, 4, 5),
    tuple[str, ...]: ("a", "b"),
    Mapping[str, int]: {"welcomer": 4},
    NodeState: "draining",
    tuple[Move, ...]: (Move(ShardId("w", 2, 3), "a", "b", "balance"), Move(ShardId("w", 2, 4), "", "b", "orphan")),
}
VALUES[ScaleProgress] = ScaleProgress(
    app="w", group=3, replaces=2, phase="preparing", done=2, total=8, failed=(5,), seconds_left=12.5
)


def example(kind: Any) -> happened.Progress:
    made: happened.Progress = kind(**{f.name: VALUES[f.type] for f in fields(kind)})
    return made


@pytest.mark.parametrize("kind", get_args(happened.Progress), ids=lambda kind: kind.__name__)
def test_every_kind_comes_back_equal_and_reads_the_same(kind: Any) -> None:
    event = example(kind)
    found = read_progress(json.loads(json.dumps(progress_value(event))))
    assert found == event
    assert found is not None
    assert progress_lines(found) == progress_lines(event)


@pytest.mark.parametrize("value", [{}, {"kind": "Rewound"}, {"kind": None}])
def test_a_kind_of_a_newer_version_is_passed_over(value: dict[str, Any]) -> None:
    assert read_progress(value) is None
