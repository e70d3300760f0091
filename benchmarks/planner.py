"""How long the planner takes: CPU milliseconds for 10,000 shards of 20 applications on 100 nodes. The bar is 100 ms."""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from sandwich_coordinator.planner import Assignment, GroupShards, NodeCapacity, plan

NODES, APPS, SHARDS = 100, 20, 500
ZONES: tuple[dict[str, str], ...] = ({}, {"zone": "a"}, {"zone": "b", "disk": "ssd"}, {"rack": "3"}, {"disk": "hdd"})
WEIGHTS = (1.0, 2.0, 5.0, 0.5)


def nodes(*, limit: int = 0) -> list[NodeCapacity]:
    return [
        NodeCapacity(
            f"n{number:03d}",
            100,
            max_shards=limit,
            labels={"zone": "abc"[number % 3], "disk": ("ssd", "hdd")[number % 2], "rack": str(number % 7)},
        )
        for number in range(NODES)
    ]


def groups(*, placed: bool = False, weights: Sequence[float] = (1.0,)) -> list[GroupShards]:
    return [
        GroupShards(
            f"app{number:02d}",
            0,
            range(SHARDS),
            ZONES[number % len(ZONES)] if placed else {},
            weights[number % len(weights)],
        )
        for number in range(APPS)
    ]


CASES: dict[str, tuple[list[NodeCapacity], list[GroupShards]]] = {
    "equal": (nodes(), groups()),
    "5 placements": (nodes(), groups(placed=True)),
    "4 weights": (nodes(), groups(weights=WEIGHTS)),
    "5 placements, 4 weights": (nodes(), groups(placed=True, weights=WEIGHTS)),
    "5 placements, 4 weights, a limit of 120": (nodes(limit=120), groups(placed=True, weights=WEIGHTS)),
    "5 placements, 4 weights, a limit of 90: too little room": (
        nodes(limit=90),
        groups(placed=True, weights=WEIGHTS),
    ),
    "20 different weights": (nodes(), groups(weights=[1 + number / 10 for number in range(APPS)])),
}


def took_ms(rounds: int, work: Callable[[], object]) -> tuple[float, float]:
    """Median and maximum."""
    found = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        found.append((time.process_time() - began) * 1e3)
    return statistics.median(found), max(found)


def main(rounds: int) -> None:
    size = f"{NODES} nodes, {APPS * SHARDS:,} shards, {APPS} applications"
    print(f"| {size} | start | nothing to do | 10 nodes lost | drain of 10 |")
    print("|---|---|---|---|---|")
    for name, (all_nodes, all_groups) in CASES.items():
        before: Assignment = plan(all_nodes, all_groups, {})
        draining = [replace(node, drains=number % 10 == 0) for number, node in enumerate(all_nodes)]
        situations = [
            partial(plan, all_nodes, all_groups, {}),
            partial(plan, all_nodes, all_groups, before),
            partial(plan, all_nodes[10:], all_groups, before),
            partial(plan, draining, all_groups, before),
        ]
        cells = [took_ms(rounds, work) for work in situations]
        print(f"| {name} | {' | '.join(f'{median:.0f} ({most:.0f})' for median, most in cells)} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planner", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    main(parser.parse_args().rounds)
