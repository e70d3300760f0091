"""Which events of a hold are twins: the replaced group has published them. Pure.

Whether a filter would publish an event is decided when it is released. So that twins are recognised, it is looked up
here as well, as far as that needs no request.
"""

import logging
from collections import deque
from collections.abc import Iterable, Set

import msgspec

from sandwich_node.events.asks import Arrival
from sandwich_node.events.filters import EventFilter
from sandwich_node.events.identity import Identity, identity
from sandwich_node.publishing.old_chains import Follower
from sandwich_node.publishing.overlap import published_before
from sandwich_node.shards.hold import BEFORE_MAX, Hold, HoldNote, identity_text

_log = logging.getLogger(__name__)


def published_identity(
    rules: EventFilter, type: str, data: msgspec.Raw, arrival: Arrival | None
) -> tuple[Identity | None, bool]:
    """The identity of an event that is published, and whether a look-up decides about that."""
    lane, is_asked = rules.lane(type), False
    if lane and rules.looks_inside(type):
        try:
            verdict = rules.judge(type, data, lane)
        except Exception:
            # The intake counts and logs it when the event is released.
            _log.debug("an event %s could not be judged", type)
        else:
            lane, is_asked = verdict.lane, verdict.ask is not None
    if not lane:
        return None, False
    lazy, unavailable = (arrival.lazy, arrival.unavailable) if arrival is not None else (False, False)
    return identity(type, bytes(data), lazy=lazy, unavailable=unavailable), is_asked


class EventsBefore:
    """The last events before a hold, oldest first: `events`, of which the last `recent` came late.

    Late: since the stream's last sequence was read, behind which the old group's frames are read.
    """

    def __init__(self, events: Iterable[Identity] = (), recent: int = 0) -> None:
        self._events: deque[tuple[Identity, bool]] = deque(((one, False) for one in events), maxlen=BEFORE_MAX)
        self._recent = recent

    def add(self, one: Identity, *, is_asked: bool) -> None:
        """One more. `is_asked`: a look-up decides whether it is published."""
        self._events.append((one, is_asked))
        self._recent = min(self._recent + 1, BEFORE_MAX)

    def stream_was_read(self) -> None:
        """What comes from now on comes late."""
        self._recent = 0

    def note(self, old: HoldNote) -> HoldNote:
        """The note of the marker that begins the hold. `old`: says which group is replaced."""
        before = tuple(identity_text(one) for one, is_asked in self._events if not is_asked)
        return HoldNote(
            group=old.group, count=old.count, ids=old.ids, before=before, recent=min(self._recent, len(before))
        )

    def published(self, known: Set[Identity]) -> tuple[list[Identity], int]:
        """Those that are published, and how many of them came late. Where a look-up decides: those in `known`."""
        late_from = len(self._events) - min(self._recent, len(self._events))
        found = [
            (at >= late_from, one) for at, (one, is_asked) in enumerate(self._events) if not is_asked or one in known
        ]
        return [one for _, one in found], sum(is_late for is_late, _ in found)


def mark_twins(hold: Hold, before: EventsBefore, follower: Follower, old_count: int) -> int:
    """Mark the events of the hold that the old group has published. Returns how many these are.

    `follower`: what its chains hold. `old_count`: how many shards the old group has; 0: there was none.
    """
    events, published = hold.events, list(follower.published)
    known = set(published)
    those, recent = before.published(known)
    held = [event.identity if not event.is_asked or event.identity in known else None for event in events]
    twins = published_before(
        those, recent, held, published, max(1, old_count), hold.began, list(follower.sessions), follower.gaps
    )
    for event, is_twin in zip(events, twins, strict=True):
        event.is_twin = is_twin
    return sum(twins)
