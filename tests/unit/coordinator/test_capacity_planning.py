"""The planner with limits, placements and weights, against definitions that are written out naively here."""

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandwich_coordinator.ids import GroupId, ShardId
from sandwich_coordinator.planner import GroupShards, NodeCapacity, PlanLimits, plan

ZONES: tuple[dict[str, str], ...] = ({}, {"zone": "a"}, {"zone": "b"}, {"zone": "a", "disk": "ssd"})


@dataclass(frozen=True)
class Case:
    nodes: list[NodeCapacity]
    groups: list[GroupShards]
    current: dict[GroupId, dict[int, str]]
    pinned: dict[ShardId, str]

    @property
    def shards(self) -> dict[ShardId, GroupShards]:
        return {ShardId(g.app, g.group, number): g for g in self.groups for number in g.shard_ids}

    def owner(self, shard: ShardId) -> str | None:
        return self.current[shard.of].get(shard.shard)


def may_run(group: GroupShards, node: NodeCapacity) -> bool:
    labels = node.labels or {}
    return node.accepts and all(labels.get(name) == value for name, value in group.placement.items())


def flat(result: Mapping[GroupId, Mapping[int, str]]) -> dict[ShardId, str]:
    return {ShardId(*key, number): node for key, shards in result.items() for number, node in shards.items()}


@st.composite
def cases(
    draw: st.DrawFn,
    *,
    weights: Sequence[float] = (1.0,),
    nodes_max: int = 4,
    shards_max: int = 8,
    limits: bool = True,
    refusing: bool = True,
    pins: bool = False,
) -> Case:
    names = "abcdef"[: draw(st.integers(1, nodes_max))]
    nodes = []
    for name in names:
        state = draw(st.sampled_from(["ready", "ready", "ready", "cordoned", "draining"] if refusing else ["ready"]))
        nodes.append(
            NodeCapacity(
                name,
                draw(st.integers(1, 4)),
                accepts_new=state == "ready",
                drains=state == "draining",
                max_shards=draw(st.sampled_from([0, 0, 1, 2, 3])) if limits else 0,
                labels=draw(st.sampled_from(ZONES)),
            )
        )
    groups, current = [], {}
    for app in ("x", "y", "z")[: draw(st.integers(1, 3))]:
        count = draw(st.integers(0, shards_max))
        placement, weight = draw(st.sampled_from(ZONES[:3])), draw(st.sampled_from(list(weights)))
        groups.append(GroupShards(app, 0, range(count), placement, weight))
        owners = draw(st.lists(st.sampled_from([*names, "gone", None]), min_size=count, max_size=count))
        current[GroupId(app, 0)] = {number: owner for number, owner in enumerate(owners) if owner is not None}
    pinned = st.dictionaries(
        st.builds(lambda app, number: ShardId(app, 0, number), st.sampled_from("xyz"), st.integers(0, shards_max)),
        st.sampled_from([*names, "gone"]),
        max_size=4 if pins else 0,
    )
    return Case(nodes, groups, current, draw(pinned))


def fair_loads(case: Case) -> dict[str, float]:
    """The fairest division of the loads of `case`, by trying every set of applications. Only for ready nodes."""
    left, open_nodes, loads = list(case.groups), {node.node: node for node in case.nodes}, dict[str, float]()
    left = [group for group in left if group.shard_ids and any(may_run(group, node) for node in case.nodes)]
    while left:
        best: tuple[float, int, tuple[GroupShards, ...]] | None = None
        for size in range(1, len(left) + 1):
            for chosen in itertools.combinations(left, size):
                names = [name for name, node in open_nodes.items() if any(may_run(group, node) for group in chosen)]
                load = sum(len(group.shard_ids) * group.weight for group in chosen)
                level = level_of([open_nodes[name] for name in names], load)
                # Of sets with the same level the largest one.
                if best is None or (level, size) > (best[0] + 1e-9, 0) or (abs(level - best[0]) <= 1e-9):
                    best = (level, size, chosen)
        assert best is not None
        for name in [n for n, node in open_nodes.items() if any(may_run(group, node) for group in best[2])]:
            node = open_nodes.pop(name)
            loads[name] = min(best[0] * node.capacity, node.max_shards or math.inf)
        left = [group for group in left if group not in best[2]]
    return {node.node: loads.get(node.node, 0.0) for node in case.nodes}


def level_of(nodes: Sequence[NodeCapacity], load: float) -> float:
    """By bisection: the level at which these nodes hold `load`."""

    def held(level: float) -> float:
        return sum(min(level * node.capacity, node.max_shards or math.inf) for node in nodes)

    low, high = 0.0, 1e6
    if not nodes or held(high) < load:
        return high
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if held(middle) < load else (low, middle)
    return high


def test_a_shard_above_a_lowered_limit_goes_where_its_pin_wants_it_at_once() -> None:
    nodes = [NodeCapacity("a", capacity=1, max_shards=1), NodeCapacity("b", capacity=1)]
    group = GroupShards("x", 0, range(2))
    owners, pinned = {GroupId("x", 0): {0: "a", 1: "a"}}, {ShardId("x", 0, 0): "b"}
    assert flat(plan(nodes, [group], owners, PlanLimits(0, False), pinned)) == {
        ShardId("x", 0, 0): "b",
        ShardId("x", 0, 1): "a",
    }


@given(cases(weights=(0.5, 1.0, 3.0), pins=True), st.sampled_from([None, 0, 1, 3]), st.booleans())
@settings(max_examples=200, deadline=None)
def test_limits_and_placements_hold_whatever_else_is_asked(case: Case, moves: int | None, rebalance: bool) -> None:
    result = flat(plan(case.nodes, case.groups, case.current, PlanLimits(moves, rebalance), case.pinned))
    assert result.keys() <= case.shards.keys()
    known = {node.node: node for node in case.nodes}
    load = Counter(result.values())
    for shard, name in result.items():
        assert may_run(case.shards[shard], known[name]) or case.owner(shard) == name
    for name, node in known.items():
        if node.accepts and node.max_shards:
            assert load[name] <= node.max_shards
    for shard, group in case.shards.items():
        free = [n for n in case.nodes if may_run(group, n) and (not n.max_shards or load[n.node] < n.max_shards)]
        owner = known.get(case.owner(shard) or "")
        if shard not in result:
            # A move that has to wait keeps its place.
            assert not free or moves is not None or not rebalance or case.pinned, "it has no node although one has room"
            assert owner is None or owner.accepts, "it was stopped where it could have stayed"
        if owner is not None and not owner.accepts and owner.accepts_new is False and not owner.drains:
            fits = all((owner.labels or {}).get(k) == v for k, v in group.placement.items())
            assert not fits or shard in case.pinned or result[shard] == owner.node, "a cordoned node keeps what fits it"
    moved = [s for s, name in result.items() if case.owner(s) in known and case.owner(s) != name]
    evicted = Counter(case.owner(shard) for shard in case.shards if case.owner(shard) in known)
    over = sum(max(0, evicted[n.node] - n.max_shards) for n in case.nodes if n.accepts and n.max_shards)
    assert moves is None or len(moved) <= moves + over


@given(cases(weights=(0.5, 1.0, 3.0), pins=True))
@settings(max_examples=150, deadline=None)
def test_planning_again_changes_nothing_in_any_order_of_the_input(case: Case) -> None:
    result = plan(case.nodes, case.groups, case.current, pinned=case.pinned)
    assert plan(case.nodes[::-1], case.groups[::-1], case.current, pinned=case.pinned) == result
    assert plan(case.nodes, case.groups, result, pinned=case.pinned) == result


def test_what_an_overfull_node_gives_up_comes_before_new_shards() -> None:
    nodes = [NodeCapacity("a", 1, max_shards=1), NodeCapacity("c", 1, max_shards=1)]
    m, x = GroupId("m", 0), GroupId("x", 0)
    groups = [GroupShards("m", 0, (5, 6)), GroupShards("x", 0, range(1))]
    for limits in (PlanLimits(), PlanLimits(moves_max=0)):
        assert plan(nodes, groups, {m: {5: "a", 6: "a"}}, limits) == {m: {5: "a", 6: "c"}, x: {}}


def test_what_an_overfull_node_gives_up_takes_no_place_of_a_shard_that_has_to_leave_it() -> None:
    """Neither z/0 nor z/1 may stay on `a`; there is room for one of them, when x makes it."""
    nodes = [NodeCapacity("a", 1, max_shards=3), NodeCapacity("c", 1, max_shards=1, labels={"zone": "a"})]
    groups = [
        GroupShards("x", 0, range(1), weight=0.5),
        GroupShards("y", 0, range(2), weight=0.5),
        GroupShards("z", 0, range(2), placement={"zone": "a"}, weight=0.5),
    ]
    x, y, z = (GroupId(app, 0) for app in "xyz")
    current = {x: {0: "c"}, y: {0: "a", 1: "a"}, z: {0: "a", 1: "a"}}
    result = plan(nodes, groups, current)
    assert result == {x: {0: "a"}, y: {0: "a", 1: "a"}, z: {0: "c"}}
    assert plan(nodes, groups, result) == result


@given(cases(weights=(0.5, 1.0, 3.0), pins=True))
@settings(max_examples=200, deadline=None)
def test_steps_with_a_limit_on_moves_come_to_an_end_that_is_balanced(case: Case) -> None:
    current: Mapping[GroupId, Mapping[int, str]] = case.current
    for _ in range(60):
        # One move at a time cannot exchange two shards of nodes at their limits: a step allows two.
        after = plan(case.nodes, case.groups, current, PlanLimits(3), case.pinned)
        if after == current:
            break
        current = after
    assert plan(case.nodes, case.groups, current, pinned=case.pinned) == current


@given(cases(nodes_max=3, shards_max=3, limits=True, refusing=False))
@settings(max_examples=150, deadline=None)
def test_with_equal_weights_loads_are_rounded_shares_and_no_valid_plan_moves_fewer(case: Case) -> None:
    result = flat(plan(case.nodes, case.groups, case.current))
    nodes = {node.node: node for node in case.nodes}
    if not all(
        may_run(case.shards[shard], nodes[result[shard]]) if shard in result else False for shard in case.shards
    ):
        return
    fair = fair_loads(case)
    bounds = {name: (math.floor(load + 1e-6), math.ceil(load - 1e-6)) for name, load in fair.items()}

    def is_valid(places: Sequence[str]) -> bool:
        counts = Counter(places)
        return all(low <= counts[name] <= high for name, (low, high) in bounds.items())

    assert is_valid(list(result.values()))
    choices = [[n for n in nodes if may_run(group, nodes[n])] for group in case.shards.values()]
    over = {name: node.max_shards for name, node in nodes.items() if node.max_shards}
    held = Counter(owner for shard in case.shards if (owner := case.owner(shard)) in nodes)
    if any(held[name] > limit for name, limit in over.items()):
        return

    def moved(places: Sequence[str]) -> int:
        owners = [case.owner(shard) for shard in case.shards]
        return sum(owner in nodes and owner != place for owner, place in zip(owners, places, strict=True))

    fewest = min(moved(places) for places in itertools.product(*choices) if is_valid(places))
    assert moved([result[shard] for shard in case.shards]) == fewest


@given(cases(weights=(0.5, 1.0, 1.5, 4.0), shards_max=20, limits=False, refusing=False))
@settings(max_examples=150, deadline=None)
def test_with_several_weights_a_load_is_within_the_heaviest_shard_of_its_share(case: Case) -> None:
    placeable = [group for group in case.groups if any(may_run(group, node) for node in case.nodes)]
    result = flat(plan(case.nodes, placeable, case.current))
    fair = fair_loads(replace(case, groups=placeable))
    heaviest = max((group.weight for group in placeable if group.shard_ids), default=0.0)
    loads = dict.fromkeys(fair, 0.0)
    for shard, name in result.items():
        loads[name] += case.shards[shard].weight
    for name, load in loads.items():
        assert abs(load - fair[name]) < heaviest + 1e-6


# --- stories --------------------------------------------------------------------------------------------------------


def of(app: str, count: int, **options: object) -> GroupShards:
    return replace(GroupShards(app, 0, range(count)), **options)  # type: ignore[arg-type]


KEY = GroupId("bot", 0)


def test_a_node_gets_its_share_until_its_limit_and_the_others_take_the_rest() -> None:
    nodes = [NodeCapacity("a", 100, max_shards=2), NodeCapacity("b", 100), NodeCapacity("c", 200)]
    assert Counter(plan(nodes, [of("bot", 14)], {})[KEY].values()) == {"a": 2, "b": 4, "c": 8}


def test_without_room_running_shards_stay_then_failover_comes_then_the_lowest_new_ids() -> None:
    nodes = [NodeCapacity("a", 1, max_shards=2), NodeCapacity("b", 1, max_shards=2)]
    current = {KEY: {4: "a", 5: "gone"}}
    assert plan(nodes, [of("bot", 6)], current)[KEY].keys() == {0, 1, 4, 5}
    two = plan(nodes, [of("bot", 3), of("other", 3)], {})
    assert {key.app: set(shards) for key, shards in two.items()} == {"bot": {0, 1}, "other": {0, 1}}


def test_a_placement_is_followed_when_labels_change_and_nodes_join() -> None:
    eu = of("bot", 4, placement={"region": "eu"})
    us = NodeCapacity("a", 1, labels={"region": "us"})
    assert plan([us], [eu], {})[KEY] == {}
    # What runs is not stopped as long as it cannot run elsewhere.
    assert plan([us], [eu], {KEY: dict.fromkeys(range(4), "a")})[KEY] == dict.fromkeys(range(4), "a")
    joined = [us, NodeCapacity("b", 1, labels={"region": "eu"})]
    assert plan(joined, [eu], {KEY: dict.fromkeys(range(4), "a")})[KEY] == dict.fromkeys(range(4), "b")


def test_an_application_without_placement_leaves_the_nodes_that_another_one_needs() -> None:
    nodes = [NodeCapacity("a", 1, labels={"disk": "ssd"}), NodeCapacity("b", 1)]
    result = plan(nodes, [of("bot", 4), of("disk", 4, placement={"disk": "ssd"})], {})
    assert set(result[KEY].values()) == {"b"}
    assert set(result[GroupId("disk", 0)].values()) == {"a"}


def test_a_pin_to_a_full_node_makes_room_there_and_stops_no_shard() -> None:
    nodes = [NodeCapacity("a", 1, max_shards=2), NodeCapacity("b", 1, max_shards=2)]
    current = {KEY: {0: "a", 1: "a", 2: "b", 3: "b"}}
    result = plan(nodes, [of("bot", 4)], current, pinned={ShardId("bot", 0, 3): "a"})[KEY]
    assert result == {0: "a", 1: "b", 2: "b", 3: "a"}
    full = [NodeCapacity("a", 1, max_shards=2), NodeCapacity("b", 1, max_shards=1), NodeCapacity("c", 1, drains=True)]
    there = {KEY: {0: "a", 1: "a", 2: "b", 3: "c"}}
    assert plan(full, [of("bot", 4)], there, pinned={ShardId("bot", 0, 3): "a"})[KEY] == there[KEY]


def test_two_nodes_at_their_limits_exchange_shards() -> None:
    nodes = [
        NodeCapacity("a", 1, max_shards=1, labels={"z": "a"}),
        NodeCapacity("b", 1, max_shards=1, labels={"z": "b"}),
    ]
    groups = [of("bot", 1, placement={"z": "b"}), of("other", 1, placement={"z": "a"})]
    current = {KEY: {0: "a"}, GroupId("other", 0): {0: "b"}}
    assert flat(plan(nodes, groups, current)) == {ShardId("bot", 0, 0): "b", ShardId("other", 0, 0): "a"}


@pytest.mark.parametrize("pin", ["full", "unfit"])
def test_a_pin_that_cannot_be_followed_is_no_pin(pin: str) -> None:
    nodes = [NodeCapacity("a", 1), NodeCapacity("full", 1, max_shards=1), NodeCapacity("unfit", 1)]
    groups = [of("bot", 4, placement={} if pin == "full" else {"no": "where"})]
    pinned = {ShardId("bot", 0, 0): "full", ShardId("bot", 0, 1): pin}
    result = plan(nodes, groups, {}, pinned=pinned)[KEY]
    if pin == "full":
        assert result[0] == "full"
        assert "full" not in {result[number] for number in (1, 2, 3)}
    else:
        assert result == {}
