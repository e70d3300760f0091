"""Which events of a hold the replaced group has published already (docs/design/scaling.md). Pure.

Both groups receive a guild's events X. The old one published X up to its end; of that, what is stored behind L is read,
L being the stream's last sequence shortly before the hold. So of each guild, the published events are a run: it begins
with some that the upcoming group had received before its hold, and goes on with the first events of the hold.

Where a guild's published events fit as a run, their end in the hold is known, also for events that repeat themselves
(mute, unmute, mute). Where they do not fit, the two sessions received the guild's events in another order, or not the
same events. Then the last published ones are looked for, and the events up to them are matched by identity and count.
Where they are found nowhere, all are matched so, without any order.

Where the old shard lost a session, it did not receive what was sent between that one and the next. Then the events of
each of its sessions are a run. What is between two runs was not published.

Where a session of the upcoming group began in the hold, it did not receive what was sent between the two sessions.
There the first events of the new session are the last published ones.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set

from sandwich_node.events.identity import Identity

LAST_EVENTS = 16
"""So many of the last published events of a guild say where it goes on."""
COMPARISONS_MAX = 200_000
"""For one guild. Only events that repeat themselves without end need more."""


def published_before(
    before: Sequence[Identity],
    recent: int,
    held: Sequence[Identity | None],
    published: Sequence[Identity],
    old_count: int,
    began: int | None = None,
    sessions: Sequence[str] = (),
    gaps: Set[int] = frozenset(),
) -> list[bool]:
    """For each held event, whether the old group has published it.

    before     what was received last before the hold, in order
    recent     how many of these, at the end, were received since L was read
    held       None: the event is never one of the old group's
    published  what the old group published behind L, in order
    old_count  the number of its shards
    began      the place in `held` of the first event of a session that began in the hold; None: none did
    sessions   the old group's session of each published event; (): each old shard had only one
    gaps       the old shards that lost a session behind L
    """
    counts = Counter(published)

    def chain_of(guild: int) -> int:
        return (guild >> 22) % old_count

    begins = _Begins(before, recent, held, counts, chain_of)
    early, late, stored = (_by_guild(events) for events in (before, held, published))
    sooner = Counter(one[0] for one in held[:began] if one is not None)
    left: Counter[Identity] = Counter()
    placed: dict[int, frozenset[int]] = {}
    runs = _runs(published, sessions, gaps, chain_of)
    for guild in stored.keys() & late.keys():
        likely = begins.among(guild)
        if guild in runs:
            places = _places_of_runs(early[guild], late[guild], runs[guild], likely)
            if places is not None:
                placed[guild] = places
                continue
        end = _end_of_run(early[guild], late[guild], stored[guild], likely)
        if end is None and began is not None:
            until = _end_in_session(late[guild], sooner[guild], stored[guild])
            if until is not None:
                # What the session before received may not have been published at all.
                left.update(Counter(late[guild][:until]) & Counter(stored[guild]))
                continue
        if end is None:
            ours = Counter(stored[guild])
            ours.subtract(one for one in early[guild][likely:] if one in counts)
            left.update(ours & Counter(late[guild][: _end_of_last(early[guild], late[guild], stored[guild])]))
        else:
            left.update(late[guild][:end])
    twins = []
    seen = Counter[int]()
    for one in held:
        if one is not None and one[0] in placed:
            is_twin = seen[one[0]] in placed[one[0]]
            seen[one[0]] += 1
        else:
            is_twin = one is not None and left[one] > 0
            if one is not None and is_twin:
                left[one] -= 1
        twins.append(is_twin)
    return twins


def _runs(
    published: Sequence[Identity], sessions: Sequence[str], gaps: Set[int], chain_of: Callable[[int], int]
) -> dict[int, list[list[Identity]]]:
    """By guild of an old shard that lost a session: its events of each session, in order."""
    found: dict[int, list[list[Identity]]] = defaultdict(list)
    if not gaps:
        return found
    last: dict[int, str] = {}
    for one, session in zip(published, sessions, strict=True):
        guild = one[0]
        if chain_of(guild) not in gaps:
            continue
        if last.get(guild) != session:
            found[guild].append([])
            last[guild] = session
        found[guild][-1].append(one)
    return found


def _places_of_runs(
    early: Sequence[Identity], late: Sequence[Identity], runs: Sequence[Sequence[Identity]], likely: int
) -> frozenset[int] | None:
    """Which of a guild's held events are in one of the runs, each behind the one before; None: one fits nowhere.

    The first ends where `_place_of_run` finds it, as if it had no session before. If it had, it may begin in the hold.
    There, and for each of the others, it is the first place where it fits.
    """
    received = [*early, *late]
    known = set(received)
    places: set[int] = set()
    end, left = 0, COMPARISONS_MAX
    for number, run in enumerate(runs):
        if not end and known.isdisjoint(run):
            # It is older than all that is known.
            continue
        found = _place_of_run(early, late, run, likely) if not number else None
        if found is None:
            found, left = _next_place(received, run, end, left)
        if found is None:
            return None
        end = found
        places.update(range(max(len(early), end - len(run)), end))
    return frozenset(place - len(early) for place in places)


def _next_place(
    received: Sequence[Identity], run: Sequence[Identity], start: int, comparisons: int
) -> tuple[int | None, int]:
    """Where the run ends that is first found from `start` on, and how many comparisons are left of so many."""
    for at in range(start, len(received) - len(run) + 1):
        same = 0
        while same < len(run) and received[at + same] == run[same]:
            same += 1
        if same == len(run):
            return at + same, comparisons
        comparisons -= same + 1
        if comparisons < 0:
            break
    return None, comparisons


def _by_guild(events: Iterable[Identity | None]) -> dict[int, list[Identity]]:
    found: dict[int, list[Identity]] = defaultdict(list)
    for one in events:
        if one is not None:
            found[one[0]].append(one)
    return found


def _end_of_run(
    early: Sequence[Identity], late: Sequence[Identity], stored: Sequence[Identity], likely: int
) -> int | None:
    """How many of a guild's held events (`late`) are among the stored ones; None when these fit nowhere."""
    end = _place_of_run(early, late, stored, likely)
    return None if end is None else max(0, end - len(early))


def _place_of_run(
    early: Sequence[Identity], late: Sequence[Identity], stored: Sequence[Identity], likely: int
) -> int | None:
    """How many of a guild's known events, before the hold and in it, there are up to the last stored one.

    None when the stored ones fit nowhere.

    Of several places where they fit, the one that begins nearest to `likely` counts. A run may begin before the events
    that are known (`early`), if it fits nowhere else. Then more events have to agree than seem to be out of order.
    """
    received = [*early, *late]
    last = min(len(early), len(received) - len(stored))
    within: list[int] = sorted(range(last + 1), key=lambda start: abs(start - likely))
    starts: list[int] = [*within, *range(-1, -len(stored), -1)]
    comparisons = 0
    for start in starts:
        at, unknown = max(start, 0), max(-start, 0)
        fits = len(stored) + start <= len(received)
        while fits and unknown < len(stored):
            fits = stored[unknown] == received[at]
            at, unknown, comparisons = at + 1, unknown + 1, comparisons + 1
        if fits and (start >= 0 or len(stored) + start > _repeated(stored[:-start], received)):
            return start + len(stored)
        if comparisons > COMPARISONS_MAX:
            return None
    return None


def _end_in_session(late: Sequence[Identity], began: int, stored: Sequence[Identity]) -> int | None:
    """How many of a guild's held events there are up to the last published one, in the session that began at `began`.

    None where it is not certain that its first events are the last published ones: where more published events are
    right behind them, or the last published ones agree better elsewhere. The old group may have lost some, too.
    """
    ours, known = late[began:], set(stored)
    end = agree_best = comparisons = 0
    for at in range(1, len(ours) + 1):
        agree = 0
        while agree < min(at, len(stored)) and ours[at - 1 - agree] == stored[-1 - agree]:
            agree += 1
        comparisons += agree
        agree_best = max(agree_best, agree)
        end = at if agree == at else end
        if comparisons > COMPARISONS_MAX:
            return None
    behind = next((at for at, one in enumerate(ours[end:]) if one not in known), len(ours) - end)
    return began + end if behind < max(1, end) and agree_best <= end else None


def _end_of_last(early: Sequence[Identity], late: Sequence[Identity], stored: Sequence[Identity]) -> int | None:
    """How many of a guild's held events there are up to the last published ones; None where these are not found."""
    last = stored[-LAST_EVENTS:]
    received = [*early, *late]
    found = [at for at in range(len(last), len(received) + 1) if received[at - len(last) : at] == last]
    return max(0, found[-1] - len(early)) if len(found) == 1 and len(last) == LAST_EVENTS else None


def _repeated(unknown: Sequence[Identity], received: Sequence[Identity]) -> int:
    """How many published events of before all known ones look like one that was received."""
    known = set(received)
    return sum(one in known for one in unknown)


class _Begins:
    """Where, among the events before the hold, those begin that are stored behind L, as far as single events show it.

    An event that was received once, and is published at most once, is stored behind L if it is published there. An old
    shard stores its events in order, so that one place divides them best. Without such events it is where L was read.
    """

    def __init__(
        self,
        before: Sequence[Identity],
        recent: int,
        held: Sequence[Identity | None],
        counts: Mapping[Identity, int],
        chain_of: Callable[[int], int],
    ) -> None:
        self._before = before
        self._read_at = len(before) - recent
        self._times = Counter(before)
        self._times.update(one for one in held if one is not None)
        self._counts = counts
        self._chain_of = chain_of
        self._places: dict[int, int] = {}

    def among(self, guild: int) -> int:
        """How many of the guild's events before the hold are stored up to L."""
        chain = self._chain_of(guild)
        if chain not in self._places:
            self._places[chain] = self._place(chain)
        return sum(one[0] == guild for one in self._before[: self._places[chain]])

    def _place(self, chain: int) -> int:
        """The index in `before` of the old shard's first event behind L."""
        wrong = 0
        """Events that would be on the wrong side, compared with a division before all of them."""
        best = (0, self._read_at, 0)
        for at, one in enumerate(self._before, start=1):
            if self._chain_of(one[0]) == chain and self._times[one] == 1 and self._counts.get(one, 0) <= 1:
                wrong += 1 if one in self._counts else -1
            best = min(best, (wrong, abs(at - self._read_at), at))
        return best[2]
