"""Holds what a consumer received against the events of the simulated Discord, whatever sessions they came by. Pure.

While an application changes its shards, two sessions get each event, and it is owed once. `DeliveryCheck` counts
sequences of sessions and cannot say this. The simulator's journal names the event of each dispatch: the same number in
all sessions that get it, growing with time. It is exact also for events with equal bytes, and it knows nothing of
`events.identity`, which it checks.
"""

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from sandwich_sdk.wire.frame import session_hash

NOTES_MAX = 10
_GUILD_SHIFT = 22


class JournalEntry(msgspec.Struct, gc=False):
    """A dispatch in the simulator's journal (docs/reference/simulator.md). `event` 0: of this session only."""

    session: str
    shard: int
    count: int
    seq: int
    t: str
    event: int
    guild: str
    sessions: int


@dataclass(frozen=True, slots=True)
class EventVerdict:
    """The comparison for one application.

    owed           events that had to arrive
    received       events that arrived
    lost           owed events that did not arrive
    doubled        arrivals of an event that had arrived before
    disordered     arrivals of an event after a later event of its guild, if all sessions of the guild got it, and it is
                   not one that a lost session of the group before missed
    one_sided      events that did not arrive, that not all sessions of the guild got, and that were not between two
                   published events of a session
    in_gaps        events that did not arrive while their shard had no session, as a gap frame reports
    bound          arrivals of events of one session only: READY, its backfill, RESUMED, answers to requests
    bound_doubled  how many of these had arrived before
    unknown        arrivals that the journal does not have
    notes          the first faults in words
    """

    owed: int
    received: int
    lost: int
    doubled: int
    disordered: int
    one_sided: int
    in_gaps: int
    bound: int
    bound_doubled: int
    unknown: int
    notes: tuple[str, ...]

    @property
    def clean(self) -> bool:
        """Each owed event arrived, once, in its guild's order, and there was something to deliver."""
        return self.owed > 0 and not (
            self.lost or self.doubled or self.disordered or self.bound_doubled or self.unknown
        )


@dataclass(slots=True)
class _Session:
    """A session's dispatches by sequence, from 1 on: numbers of events, and places in the journal.

    `began_after`: the last event in the journal when it began.
    """

    shard: int
    count: int
    began_after: int
    events: "array[int]" = field(default_factory=lambda: array("Q"))
    places: "array[int]" = field(default_factory=lambda: array("Q"))
    first: int = 0
    last: int = 0
    """The first and the last sequence that arrived; 0: none did."""

    @property
    def after(self) -> int:
        """The last event that was sent before it began: its first one is not always delivered first."""
        return min((event for event in self.events if event), default=self.began_after + 1) - 1


@dataclass(slots=True)
class _Outage:
    """A shard without a session.

    group   the shard group; 0 when nothing says
    after   the last event that was sent before the lost session began
    last    by guild, its last event in what was published of the lost session, and by the group that this one replaces
    until   the last event that was sent before the shard's next session began; None: there is none
    served  by guild, the first event that arrived in that time: the next shard group may serve it already

    An event is named by its number, which is given when it is sent. Its place in the journal is no measure: an event
    that was sent before a session began may be delivered to another session later.
    """

    shard: int
    count: int
    group: int
    after: int
    last: dict[int, int]
    until: int | None
    served: dict[int, int] = field(default_factory=dict)


class EventCheck:
    """Takes one bot's journal and what its consumer received, each in order; the two in any order."""

    def __init__(self) -> None:
        self._sessions: dict[str, _Session] = {}
        self._places = 0
        self._types: dict[str, int] = {}
        # Columns by the number of the event.
        self._type = array("H", [0])
        self._guild = array("Q", [0])
        self._of = array("H", [0])
        """How many sessions of the bot its guild had."""
        self._hashes: dict[str, int] = {}
        self._groups: dict[str, int] = {}
        self._arrived_by = array("L")
        self._arrived_seq = array("Q")

    def sent(self, entry: JournalEntry) -> None:
        """Discord sent this. ValueError when the session's journal does not start at 1 or has a hole."""
        name = session_hash(entry.session)
        session = self._sessions.get(name)
        if session is None:
            session = self._sessions[name] = _Session(entry.shard, entry.count, len(self._of) - 1)
        if entry.seq != len(session.events) + 1:
            raise ValueError(f"the journal is incomplete before {entry.seq} of session {name}")
        session.events.append(entry.event)
        self._places += 1
        session.places.append(self._places)
        if missing := max(0, entry.event + 1 - len(self._of)):
            for column in (self._type, self._guild, self._of):
                column.extend([0] * missing)
        if entry.event and not self._of[entry.event]:
            self._type[entry.event] = self._types.setdefault(entry.t, len(self._types))
            self._guild[entry.event] = int(entry.guild or 0)
            self._of[entry.event] = entry.sessions

    def take(self, event_id: str, group: int = 0) -> None:
        """One event arrived; `event_id` is the wire's `<session hash>:<seq>`, `group` that of its shard."""
        name, _, seq = event_id.partition(":")
        self._groups[name] = group
        self._arrived_by.append(self._hashes.setdefault(name, len(self._hashes)))
        self._arrived_seq.append(int(seq))

    def verdict(self, gaps: Mapping[str, int] | None = None, groups: Mapping[str, int] | None = None) -> EventVerdict:
        """Compare. `gaps`: by gap frame, the hash of the session that was lost and the last sequence of it.

        `groups`: the group of each of these sessions, also of one of which nothing arrived.
        """
        gaps = gaps or {}
        self._groups |= groups or {}
        found, notes = Counter[str](), list[str]()
        self._find_spans()
        one_sided, inside = self._deliveries(gaps)
        outages = [self._outage(name, last) for name, last in gaps.items() if name in self._sessions]
        arrived = self._judge_arrivals(one_sided, outages, found, notes)
        by_group = self._arrived_by_group()
        for event, group in enumerate(by_group):
            for outage in outages:
                if group is not None and group < outage.group and self._is_within(event, outage):
                    # The group before still published: the outage begins behind that.
                    outage.last[self._guild[event]] = event
        for event, of in enumerate(self._of):
            if not of:
                continue
            hit = [outage for outage in outages if self._is_within(event, outage)]
            if arrived[event]:
                for outage in hit:
                    outage.served.setdefault(self._guild[event], event)
            elif any(event < outage.served.get(self._guild[event], event + 1) for outage in hit):
                found["in_gaps"] += 1
            elif one_sided[event] and not inside[event]:
                found["one_sided"] += 1
            else:
                found["lost"] += 1
                notes.append(f"lost: {self._named(event)}")
        received = sum(arrived)
        return EventVerdict(
            owed=received + found["lost"],
            received=received,
            lost=found["lost"],
            doubled=found["doubled"],
            disordered=found["disordered"],
            one_sided=found["one_sided"],
            in_gaps=found["in_gaps"],
            bound=found["bound"],
            bound_doubled=found["bound_doubled"],
            unknown=found["unknown"],
            notes=tuple(notes[:NOTES_MAX]),
        )

    def _named(self, event: int) -> str:
        return f"event {event}, {list(self._types)[self._type[event]]} of guild {self._guild[event]}"

    def _arrivals(self) -> Iterator[tuple[str, _Session | None, int]]:
        """Hash, session and sequence of each arrival, in order; None for one that the journal does not have."""
        names = list(self._hashes)
        for by, seq in zip(self._arrived_by, self._arrived_seq, strict=True):
            session = self._sessions.get(names[by])
            is_known = session is not None and 0 < seq <= len(session.events)
            yield names[by], session if is_known else None, seq

    def _arrived_by_group(self) -> list[int | None]:
        """By event, the group that published it; None: it did not arrive."""
        found: list[int | None] = [None] * len(self._of)
        for name, session, seq in self._arrivals():
            if session is not None and (event := session.events[seq - 1]):
                found[event] = self._groups[name]
        return found

    def _find_spans(self) -> None:
        for _, session, seq in self._arrivals():
            if session is not None:
                session.first, session.last = min(session.first or seq, seq), max(session.last, seq)

    def _deliveries(self, gaps: Mapping[str, int]) -> tuple[bytearray, bytearray]:
        """By event: whether a session did not get it, and whether something was published around it by one that did.

        A session that was lost has only events up to its gap, and is not missed after it.
        """
        got, inside = array("H", [0]) * len(self._of), bytearray(len(self._of))
        for name, session in self._sessions.items():
            end = gaps.get(name, len(session.events))
            for seq, event in enumerate(session.events, 1):
                if event:
                    got[event] += 1
                    inside[event] |= session.first <= seq <= min(session.last, end)
        return bytearray(one < of for one, of in zip(got, self._of, strict=True)), inside

    def _judge_arrivals(
        self, one_sided: bytearray, outages: Sequence[_Outage], found: Counter[str], notes: list[str]
    ) -> bytearray:
        """Counts what is wrong with the arrivals; returns by event whether it arrived."""
        arrived = bytearray(len(self._of))
        latest: dict[int, int] = {}
        bound: set[tuple[str, int]] = set()
        for name, session, seq in self._arrivals():
            event = 0 if session is None else session.events[seq - 1]
            guild = self._guild[event]
            if session is None:
                found["unknown"] += 1
                notes.append(f"not in the journal: {name}:{seq}")
            elif not event:
                found["bound"] += 1
                found["bound_doubled"] += (name, seq) in bound
                bound.add((name, seq))
            elif arrived[event]:
                found["doubled"] += 1
                notes.append(f"doubled: {self._named(event)}, by {name}:{seq}")
            else:
                arrived[event] = 1
                # What only one session got may come when the other one has published later events.
                if event < latest.get(guild, 0) and not (
                    one_sided[event] or any(self._is_rescued(event, self._groups[name], each) for each in outages)
                ):
                    found["disordered"] += 1
                    notes.append(f"disordered: {self._named(event)}, by {name}:{seq}")
                latest[guild] = max(event, latest.get(guild, 0))
        return arrived

    def _outage(self, name: str, last_seq: int) -> _Outage:
        """From a session's last event until the next session of the shard of which something arrived."""
        lost = self._sessions[name]
        began = lost.places[min(last_seq, len(lost.places)) - 1] if last_seq else 0
        same = (s for s in self._sessions.values() if (s.shard, s.count) == (lost.shard, lost.count))
        later = min((s for s in same if s.last and s.places[0] > began), key=lambda s: s.places[0], default=None)
        last = {self._guild[event]: event for event in lost.events[:last_seq] if event}
        group, until = self._groups.get(name, 0), None if later is None else later.after
        return _Outage(lost.shard, lost.count, group, lost.after, last, until)

    def _is_rescued(self, event: int, group: int, outage: _Outage) -> bool:
        """Whether this group delivers what one before it missed, between two of whose sessions the event was sent."""
        return outage.group < group and outage.until is not None and self._is_within(event, outage)

    def _is_within(self, event: int, outage: _Outage) -> bool:
        guild = self._guild[event]
        if (guild >> _GUILD_SHIFT) % outage.count != outage.shard:
            return False
        is_before = outage.until is None or event <= outage.until
        return is_before and event > outage.last.get(guild, outage.after)
