"""The check of events over several sessions can fail, and fails for the right reason."""

from collections.abc import Iterable

import msgspec
import pytest

from sandwich_node.dev.event_check import EventCheck, JournalEntry
from sandwich_sdk.wire.frame import session_hash

OLD, NEW = session_hash("old"), session_hash("new")
Sent = tuple[str, int, int]
"""A dispatch: session, number of the event, guild."""


def entries(sent: Iterable[Sent], of: int = 2) -> list[JournalEntry]:
    seqs: dict[str, int] = {}
    found = []
    for session, event, guild in sent:
        seqs[session] = seqs.get(session, 0) + 1
        count = 1 if session == "old" else 2
        shard = 0 if session == "old" else (guild >> 22) % 2
        name = str(guild) if guild else ""
        found.append(JournalEntry(session, shard, count, seqs[session], "TYPING_START", event, name, of))
    return found


def check_of(sent: Iterable[JournalEntry], arrived: Iterable[str]) -> EventCheck:
    check = EventCheck()
    for entry in sent:
        check.sent(entry)
    for event_id in arrived:
        check.take(event_id)
    return check


def both(*events: tuple[int, int]) -> list[JournalEntry]:
    """The sessions get READY and these events (number, guild)."""
    return entries([(s, 0, 0) for s in ("old", "new")] + [(s, *event) for event in events for s in ("old", "new")])


SWITCH = both((1, 7), (2, 9), (3, 7), (4, 7), (5, 9))
"""In both sessions event n has the sequence n + 1."""
OLD_PART = [f"{OLD}:{seq}" for seq in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("new_part", "expected"),
    [
        ([5, 6], {}),
        ([6, 5], {}),
        ([6], {"lost": 1}),
        ([5], {"lost": 1}),
        ([4, 5, 6], {"doubled": 1}),
        ([5, 6, 6], {"doubled": 1}),
        ([5, 6, 7], {"unknown": 1}),
        ([1, 5, 6], {"bound": 2}),
        ([1, 1, 5, 6], {"bound": 3, "bound_doubled": 1}),
    ],
)
def test_each_fault_of_a_switch_is_distinguished(new_part: list[int], expected: dict[str, int]) -> None:
    """Guild 7 ends with event 4 in the new session, guild 9 with event 5; the order of two guilds is free."""
    verdict = check_of(SWITCH, [*OLD_PART, *(f"{NEW}:{seq}" for seq in new_part)]).verdict()
    figures = {"lost": 0, "doubled": 0, "disordered": 0, "unknown": 0, "bound": 1, "bound_doubled": 0} | expected
    assert {name: getattr(verdict, name) for name in figures} == figures
    assert verdict.owed == 5
    assert verdict.clean == (not set(expected) - {"bound"})
    assert bool(verdict.notes) == (not {"lost", "doubled", "unknown"}.isdisjoint(expected))


def test_an_event_after_a_later_one_of_its_guild_is_disordered_whatever_sessions_they_came_by() -> None:
    arrived = [f"{OLD}:2", f"{OLD}:3", f"{NEW}:5", f"{OLD}:4", f"{NEW}:6"]
    verdict = check_of(SWITCH, arrived).verdict()
    assert (verdict.lost, verdict.doubled, verdict.disordered, verdict.clean) == (0, 0, 1, False)
    assert verdict.notes == (f"disordered: event 3, TYPING_START of guild 7, by {OLD}:4",)


def test_nothing_owed_is_not_a_success() -> None:
    assert not check_of([], []).verdict().clean


def test_what_one_session_gets_is_owed_between_two_events_that_were_published_of_it() -> None:
    """Event 1 comes before the new session publishes, event 3 while it does, and the old one never got either."""
    sent = entries([("new", 1, 7), ("old", 2, 7), ("new", 2, 7), ("new", 3, 7), ("old", 4, 7), ("new", 4, 7)])
    verdict = check_of(sent, [f"{NEW}:2", f"{NEW}:4"]).verdict()
    assert (verdict.lost, verdict.one_sided, verdict.owed) == (1, 1, 3)
    assert verdict.notes == ("lost: event 3, TYPING_START of guild 7",)


def test_what_one_session_gets_may_come_late() -> None:
    sent = entries([("new", 1, 7), ("old", 2, 7), ("new", 2, 7), ("old", 3, 7), ("new", 3, 7)])
    verdict = check_of(sent, [f"{OLD}:1", f"{NEW}:1", f"{NEW}:3"]).verdict()
    assert verdict.clean
    assert verdict.received == 3


def test_events_in_a_gap_are_not_owed_until_something_of_their_guild_arrives() -> None:
    """The old session is lost after event 1. A session beside it gets events 2 to 4; events 3 and 5 are published."""
    sent = entries(
        [
            ("old", 1, 7),
            *((s, event, 7) for event in (2, 3, 4, 5) for s in ("old", "new")),
        ]
    )
    for entry in sent[:1]:
        entry.sessions = 1
    check = check_of(sent, [f"{OLD}:1", f"{NEW}:2", f"{NEW}:4"])
    assert check.verdict().lost == 2
    verdict = check.verdict({OLD: 1})
    assert (verdict.in_gaps, verdict.lost, verdict.owed) == (1, 1, 4)
    assert check.verdict({OLD: 1, session_hash("unheard of"): 5}) == verdict


def test_a_gap_ends_with_the_next_session_of_the_shard() -> None:
    """Events 2 and 3 were sent to no session that lives on; event 4 was sent to the next one."""
    sent = entries([("old", 1, 7), ("old", 2, 7), ("old", 3, 7)], of=1)
    again = [JournalEntry("again", 0, 1, seq, "TYPING_START", event, "7", 1) for seq, event in ((1, 0), (2, 4), (3, 5))]
    check = check_of([*sent, *again], [f"{OLD}:1", f"{session_hash('again')}:1", f"{session_hash('again')}:3"])
    verdict = check.verdict({OLD: 1})
    assert (verdict.in_gaps, verdict.lost, verdict.clean) == (2, 1, False)


def dispatches(*sent: tuple[str, int, int, int]) -> list[JournalEntry]:
    """In the order of delivery: session, number of the event (0: READY), guild, how many sessions there were."""
    seqs: dict[str, int] = {}
    found = []
    for session, event, guild, of in sent:
        seqs[session] = seqs.get(session, 0) + 1
        found.append(JournalEntry(session, 0, 2 if session == "new" else 1, seqs[session], "T", event, str(guild), of))
    return found


def test_an_event_that_is_delivered_late_is_in_the_gap_in_which_it_was_sent() -> None:
    """The old session is lost behind event 1. Event 3 is sent before the next one begins, and delivered to another
    session behind its READY, and behind event 4 of another guild. Event 5 is sent later."""
    sent = dispatches(
        *(("new", 0, 0, 2), ("old", 0, 0, 2), ("new", 1, 2 << 22, 2), ("old", 1, 2 << 22, 2), ("new", 2, 2 << 22, 1)),
        *(("again", 0, 0, 2), ("again", 4, 4 << 22, 2), ("new", 3, 2 << 22, 1), ("new", 4, 4 << 22, 2)),
        *(("again", 5, 2 << 22, 2), ("new", 5, 2 << 22, 2), ("again", 6, 4 << 22, 2), ("new", 6, 4 << 22, 2)),
    )
    again = session_hash("again")
    check = check_of(sent, [f"{OLD}:1", f"{OLD}:2", f"{again}:1", f"{again}:2", f"{again}:4"])
    verdict = check.verdict({OLD: 2})
    assert (verdict.in_gaps, verdict.lost, verdict.owed) == (2, 1, 4)
    assert verdict.notes == ("lost: event 5, T of guild 8388608",)


def test_what_the_lost_session_was_delivered_late_is_in_the_gap_and_what_was_published_of_it_is_not() -> None:
    """Event 1 is delivered to the other session before the lost one's last published event, event 2 of another guild.
    With event 1 published and event 2 not, event 2 is no part of the gap behind event 1."""
    sent = dispatches(
        *(("new", 0, 0, 2), ("old", 0, 0, 2), ("new", 1, 2 << 22, 2), ("old", 2, 4 << 22, 2), ("new", 2, 4 << 22, 2)),
        *(("old", 1, 2 << 22, 2), ("again", 0, 0, 2), ("again", 3, 2 << 22, 2), ("new", 3, 2 << 22, 2)),
    )
    again = session_hash("again")
    check = check_of(sent, [f"{OLD}:1", f"{OLD}:2", f"{again}:1", f"{again}:2"])
    verdict = check.verdict({OLD: 2})
    assert (verdict.in_gaps, verdict.lost, verdict.owed) == (1, 0, 2)
    hole = check_of(sent, [f"{OLD}:1", f"{OLD}:3", f"{again}:1", f"{again}:2"]).verdict({OLD: 3})
    assert (hole.in_gaps, hole.lost, hole.notes) == (0, 1, ("lost: event 2, T of guild 16777216",))


def test_a_gap_of_the_next_group_begins_behind_what_the_one_before_published() -> None:
    """The next group's session is lost behind event 1. The group before still publishes event 2, and ends. The next
    session begins behind event 4."""
    sent = dispatches(
        *(("old", 0, 0, 2), ("new", 0, 0, 2)),
        *((session, event, 2 << 22, 2) for event in (1, 2, 3, 4) for session in ("old", "new")),
        *(("again", 0, 0, 1), ("again", 5, 2 << 22, 1)),
    )
    sent = [entry if entry.session == "old" else msgspec.structs.replace(entry, shard=0, count=2) for entry in sent]
    check = check_of(sent, ())
    for event_id, group in ((f"{OLD}:2", 1), (f"{OLD}:3", 1), (f"{session_hash('again')}:2", 2)):
        check.take(event_id, group)
    verdict = check.verdict({NEW: 2}, {NEW: 2})
    assert (verdict.in_gaps, verdict.lost) == (2, 0)
    hole = check_of(sent, ())
    for event_id, group in ((f"{OLD}:2", 1), (f"{OLD}:4", 1), (f"{session_hash('again')}:2", 2)):
        hole.take(event_id, group)
    verdict = hole.verdict({NEW: 2}, {NEW: 2})
    assert (verdict.in_gaps, verdict.lost, verdict.notes) == (1, 1, ("lost: event 2, T of guild 8388608",))


def test_what_a_lost_session_missed_may_come_late_from_the_next_group() -> None:
    """The old session is lost behind event 1, and the next one of its group begins behind event 2."""
    sent = dispatches(
        *(("old", 0, 0, 2), ("new", 0, 0, 2), ("old", 1, 2 << 22, 2), ("new", 1, 2 << 22, 2), ("old", 2, 2 << 22, 2)),
        *(("new", 2, 2 << 22, 2), ("again", 0, 0, 2), ("again", 3, 2 << 22, 2), ("new", 3, 2 << 22, 2)),
    )
    again = session_hash("again")
    arrived = ((f"{OLD}:2", 1), (f"{again}:2", 1), (f"{NEW}:3", 2))
    sent = [msgspec.structs.replace(entry, count=1) if entry.session == "again" else entry for entry in sent]
    for gaps, disordered in (({OLD: 2}, 0), ({}, 1)):
        check = check_of(sent, ())
        for event_id, group in arrived:
            check.take(event_id, group)
        verdict = check.verdict(gaps)
        assert (verdict.disordered, verdict.lost, verdict.in_gaps) == (disordered, 0, 0)


def test_behind_the_last_session_of_a_group_the_order_counts() -> None:
    """The old session is lost behind event 1, and its group has no other."""
    sent = dispatches(
        *(("old", 0, 0, 2), ("new", 0, 0, 2), ("old", 1, 2 << 22, 2), ("new", 1, 2 << 22, 2), ("old", 2, 2 << 22, 2)),
        *(("new", 2, 2 << 22, 2), ("old", 3, 2 << 22, 2), ("new", 3, 2 << 22, 2)),
    )
    check = check_of(sent, ())
    for event_id, group in ((f"{OLD}:2", 1), (f"{NEW}:4", 2), (f"{NEW}:3", 2)):
        check.take(event_id, group)
    assert check.verdict({OLD: 2}).disordered == 1


def test_a_journal_with_a_hole_is_refused() -> None:
    check = EventCheck()
    check.sent(entries([("old", 1, 7)])[0])
    with pytest.raises(ValueError, match="incomplete before 3"):
        check.sent(JournalEntry("old", 0, 1, 3, "TYPING_START", 3, "7", 1))
