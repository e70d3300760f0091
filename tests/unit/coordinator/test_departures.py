"""What the leader records of nodes that are gone."""

from sandwich_coordinator.departures import KEPT_MAX, KEPT_S, departure_writes, expiry
from sandwich_coordinator.store.base import Delete, KeyValue, Put
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import DepartedRecord, NodeRecord
from sandwich_coordinator.view import ClusterView

KEYS = Keys()
WALL = 50_000.0


def view(*nodes: tuple[str, int], departed: tuple[tuple[DepartedRecord, int], ...] = ()) -> ClusterView:
    """Registrations and records, each with its revision."""
    items = {}
    for name, revision in nodes:
        record = NodeRecord(node=name, instance=name, address="", version="1")
        items[KEYS.node(name)] = KeyValue(KEYS.node(name), record.encode(), revision, revision, 1, 7)
    for gone, revision in departed:
        key = KEYS.departed_node(gone.node)
        items[key] = KeyValue(key, gone.encode(), revision, revision, 1, 0)
    return ClusterView.from_items(KEYS, items)


def writes(seen: ClusterView, departed: dict[str, float], wall: float = WALL) -> list[Put | Delete]:
    return [one for write in departure_writes(seen, departed, now=100.0, wall=wall) for one in write.writes]


def test_a_node_that_vanished_is_recorded_with_when() -> None:
    (write,) = writes(view(("a", 1)), {"b": 97.0})
    assert write == Put(KEYS.departed_node("b"), DepartedRecord(node="b", at=WALL - 3).encode())


def test_nothing_is_written_for_a_node_that_is_there_or_recorded() -> None:
    left = DepartedRecord(node="b", at=WALL, left=True)
    assert writes(view(("b", 1)), {"b": 97.0}) == []
    assert writes(view(("a", 1), departed=((left, 5),)), {"b": 97.0}) == []


def test_a_record_goes_when_the_node_is_back_and_stays_while_it_is_leaving() -> None:
    left = DepartedRecord(node="b", at=WALL, left=True)
    assert writes(view(("b", 4), departed=((left, 5),)), {}) == []
    assert writes(view(("b", 6), departed=((left, 5),)), {}) == [Delete(KEYS.departed_node("b"))]


def test_a_record_goes_after_an_hour_unless_the_node_vanished_just_now() -> None:
    left = DepartedRecord(node="b", at=WALL - KEPT_S - 1, left=True)
    seen = view(departed=((left, 5),))
    assert writes(seen, {"b": 97.0}) == []
    assert writes(seen, {}) == [Delete(KEYS.departed_node("b"))]
    assert writes(seen, {}, WALL - 10) == []
    assert expiry(seen, now=100.0, wall=WALL - 10) == [110.0]


def test_a_record_of_a_clock_that_is_far_ahead_does_not_stay() -> None:
    ahead = DepartedRecord(node="b", at=WALL + 2 * KEPT_S)
    assert writes(view(departed=((ahead, 5),)), {}) == [Delete(KEYS.departed_node("b"))]


def test_the_number_of_records_is_bounded() -> None:
    assert len(writes(view(), {f"n{number}": 99.0 for number in range(KEPT_MAX + 10)})) == KEPT_MAX
