from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from sandwich_coordinator.ids import GroupId, ShardId
from sandwich_coordinator.planner import GroupShards, NodeCapacity, PlanLimits, plan

NODES = st.dictionaries(st.sampled_from("abcdefg"), st.integers(1, 5), min_size=1)
OWNERS = st.lists(st.sampled_from("abcdefgxyz"), max_size=40)
KEY = GroupId("app", 0)


def setup(
    weights: Mapping[str, int], owners: list[str]
) -> tuple[list[NodeCapacity], list[GroupShards], dict[GroupId, dict[int, str]]]:
    nodes = [NodeCapacity(name, weight) for name, weight in weights.items()]
    return nodes, [GroupShards("app", 0, range(len(owners)))], {KEY: dict(enumerate(owners))}


@given(NODES, OWNERS)
@settings(max_examples=100, deadline=None)
def test_every_shard_is_placed_once_within_one_of_proportional_and_planning_again_changes_nothing(
    weights: dict[str, int], owners: list[str]
) -> None:
    nodes, groups, current = setup(weights, owners)
    result = plan(nodes, groups, current)
    assert sorted(result[KEY]) == list(range(len(owners)))
    for name, weight in weights.items():
        exact = len(owners) * weight / sum(weights.values())
        assert abs(list(result[KEY].values()).count(name) - exact) < 1
    assert plan(nodes[::-1], groups, result) == result
    assert plan(nodes[::-1], groups, current) == result


@given(NODES, OWNERS, st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_no_more_than_the_limit_moves_and_a_cordoned_node_keeps_what_it_has(
    weights: dict[str, int], owners: list[str], limit: int
) -> None:
    nodes, groups, current = setup(weights, owners)
    nodes[0] = NodeCapacity(nodes[0].node, 1, accepts_new=False)
    result = plan(nodes, groups, current, PlanLimits(limit))[KEY]
    known = {node.node for node in nodes}
    assert sum(result[s] != o for s, o in current[KEY].items() if o in known and s in result) <= limit
    held = {s for s, o in current[KEY].items() if o == nodes[0].node}
    assert {s for s, o in result.items() if o == nodes[0].node} == held


def test_a_new_group_is_contiguous_and_a_draining_node_gives_all_its_shards_away() -> None:
    nodes, groups, _ = setup({"a": 1, "b": 1}, ["x"] * 8)
    assert list(plan(nodes, groups, {})[KEY].values()) == ["a"] * 4 + ["b"] * 4
    drained = [NodeCapacity("a", 1, drains=True), nodes[1]]
    assert set(plan(drained, groups, plan(nodes, groups, {}))[KEY].values()) == {"b"}


PINS = st.dictionaries(st.integers(0, 39), st.sampled_from("abcdefgxyz"), max_size=6)


@given(NODES, OWNERS, PINS)
@settings(max_examples=200, deadline=None)
def test_pinned_shards_are_where_they_should_be_and_the_rest_is_as_even_as_they_allow(
    weights: dict[str, int], owners: list[str], pins: dict[int, str]
) -> None:
    nodes, groups, current = setup(dict.fromkeys(weights, 1), owners)
    pinned = {ShardId("app", 0, shard): node for shard, node in pins.items()}
    result = plan(nodes, groups, current, pinned=pinned)
    assert sorted(result[KEY]) == list(range(len(owners)))
    honoured = {shard: node for shard, node in pins.items() if shard < len(owners) and node in weights}
    assert {shard: result[KEY][shard] for shard in honoured} == honoured
    loads = {name: list(result[KEY].values()).count(name) for name in weights}
    held = {name: list(honoured.values()).count(name) for name in weights}
    for name, load in loads.items():
        assert load == held[name] or load <= min(loads.values()) + 1
    assert plan(nodes[::-1], groups, result, pinned=pinned) == result


@given(NODES, OWNERS)
@settings(max_examples=200, deadline=None)
def test_no_plan_moves_fewer_shards(weights: dict[str, int], owners: list[str]) -> None:
    nodes, groups, current = setup(weights, owners)
    result = plan(nodes, groups, current)[KEY]
    moved = sum(owner in weights and result[shard] != owner for shard, owner in current[KEY].items())
    exact = {name: len(owners) * weight / sum(weights.values()) for name, weight in weights.items()}
    have = {name: list(current[KEY].values()).count(name) for name in weights}
    # A node above its rounded-up share must give the difference away, and only so many shares may be rounded up.
    floors = {name: int(value) for name, value in exact.items()}
    extra = len(owners) - sum(floors.values())
    over = sorted((have[name] - floors[name] for name in weights if have[name] > floors[name]), reverse=True)
    fractional = sum(have[name] > floors[name] and exact[name] > floors[name] for name in weights)
    assert moved == sum(over) - min(extra, fractional)
