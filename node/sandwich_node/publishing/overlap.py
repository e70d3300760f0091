"""Which events of a hold the replaced group has published already (docs/design/scaling.md). Pure.

Both groups receive a guild's events X. The old one published X from some point to its end; what is read of it begins
behind L, the stream's last sequence before the hold. So the published part begins with events that the upcoming group
had received before its hold, and goes on with the first events of the hold. Events are matched by identity and counted:
no order between guilds or sessions is assumed.

An identity can be that of several events (mute, unmute, mute). Where one was received shortly before the hold and comes
again within it, the count alone does not say which of them was published behind L. Then the order of the guild's events
decides: the published ones are a run of those that were received.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from sandwich_node.events.identity import Identity

COMPARISONS_MAX = 200_000
"""For one guild. Only events that repeat themselves without end need more."""


def published_before(
    before: Sequence[Identity],
    recent: int,
    held: Sequence[Identity | None],
    published: Sequence[Identity],
) -> list[bool]:
    """For each held event, whether the old group has published it.

    before     what was received last before the hold, in order
    recent     how many of these, at the end, were received since L was read
    held       None: the event is never one of the old group's
    published  what the old group published behind L, in order
    """
    left = Counter(published)
    left.subtract(_before_the_hold(before, recent, held, published, left))
    dropped = []
    for one in held:
        is_twin = one is not None and left[one] > 0
        if one is not None and is_twin:
            left[one] -= 1
        dropped.append(is_twin)
    return dropped


def _before_the_hold(
    before: Sequence[Identity],
    recent: int,
    held: Sequence[Identity | None],
    published: Sequence[Identity],
    counts: Mapping[Identity, int],
) -> Counter[Identity]:
    """How many published events of each identity are those that were received before the hold.

    Only identities that also occur within the hold matter.
    """
    doubtful = {one for one in before if one in counts}.intersection(held)
    if not doubtful:
        return Counter()
    guilds = {guild for guild, _ in doubtful}
    early, late, stored = (_by_guild(events, guilds) for events in (before, held, published))
    lately = Counter(before[len(before) - recent :])
    found: Counter[Identity] = Counter()
    for guild in guilds:
        start = _start(early[guild], late[guild], stored[guild])
        if start is None:
            # The two sessions received the guild's events in another order, or not the same events.
            found.update({one: min(lately[one], counts[one]) for one in doubtful if one[0] == guild})
        else:
            found.update(one for one in early[guild][start:] if one in doubtful)
    return found


def _by_guild(events: Iterable[Identity | None], guilds: set[int]) -> dict[int, list[Identity]]:
    found: dict[int, list[Identity]] = defaultdict(list)
    for one in events:
        if one is not None and one[0] in guilds:
            found[one[0]].append(one)
    return found


def _start(early: Sequence[Identity], late: Sequence[Identity], stored: Sequence[Identity]) -> int | None:
    """Where, in the events before the hold, those begin that were stored: the last place that fits; None: none does.

    `len(early)`: they begin in the hold. 0 also when what was stored begins before the events that are known.
    """
    received = [*early, *late]
    comparisons = 0
    for start in range(len(early), -len(stored), -1):
        if start + len(stored) > len(received):
            continue
        at, unknown = max(start, 0), max(-start, 0)
        fits = True
        while fits and unknown < len(stored):
            fits = stored[unknown] == received[at]
            at, unknown, comparisons = at + 1, unknown + 1, comparisons + 1
        if fits:
            return max(start, 0)
        if comparisons > COMPARISONS_MAX:
            return None
    return None
