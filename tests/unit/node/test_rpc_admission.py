"""How many requests may be under way."""

from sandwich_node.rpc.admission import Admission


def test_what_one_application_has_under_way_is_nothing_to_another() -> None:
    places = Admission(at_once_max=3)
    taken = [places.take("music") for _ in range(5)]
    assert [ticket is not None for ticket in taken] == [True, True, True, False, False]
    assert places.take("chess") is not None
    assert taken[0] is not None
    places.give_back(taken[0])
    assert places.take("music") is not None
    assert places.take("music") is None


def test_who_asks_what_is_asked_already_takes_no_place_of_its_own() -> None:
    places = Admission(at_once_max=2, waiters_max=5)
    first = places.take("music", "q")
    waiters = [places.take("music", "q") for _ in range(6)]
    assert [ticket is not None for ticket in waiters] == [True] * 5 + [False]
    assert places.take("music", "another question") is not None
    assert places.take("music") is None
    assert places.take("chess", "q") is not None
    assert first is not None
    places.give_back(first)
    for ticket in waiters[:5]:
        assert ticket is not None
        places.give_back(ticket)
    # No request with this question is left: the next one is a request again.
    assert places.take("music", "q") is not None
    assert places.take("music") is None


def test_nothing_is_remembered_of_what_is_over() -> None:
    places = Admission()
    for number in range(100):
        ticket = places.take("music", number)
        assert ticket is not None
        places.give_back(ticket)
    assert not places._asked
