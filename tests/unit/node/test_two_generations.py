"""What identities can and cannot say about the overlap of two generations, judged by the simulator's journal."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import pytest

from sandwich_node.events.identity import Identity
from tests.support.two_generations import Lags, NewShard, Seen, Switch

CONTEXT = 16
LAGS = [
    Lags(),
    Lags(new_s=0.3),
    Lags(old_s=0.3),
    Lags(old_s=0.3, new_s=0.3),
    Lags(old_s=0.05, new_s=0.05, stored_s=0.3),
    Lags(old_s=0.3, acks_wait=False),
    Lags(new_s=0.3, acks_wait=False),
]
lagging = pytest.mark.parametrize("lags", LAGS, ids=str)


def guilds_of(events: list[Seen]) -> dict[int, list[Seen]]:
    found: dict[int, list[Seen]] = defaultdict(list)
    for seen in events:
        found[seen.identity[0]].append(seen)
    return found


def aligned(switch: Switch, shard: NewShard) -> Iterator[Seen]:
    """Of each guild: what the new shard got after the place that looks most like the old generation's end."""
    published, before = guilds_of(switch.published), guilds_of(shard.before)
    for guild, held in guilds_of(shard.held).items():
        ours = [*before[guild][-CONTEXT:], *held]
        theirs = [seen.identity for seen in published[guild][-CONTEXT:]]
        yield from held[max(0, _end(theirs, [seen.identity for seen in ours]) - (len(ours) - len(held))) :]


def _end(theirs: Sequence[Identity], ours: Sequence[Identity]) -> int:
    best, at = -1, 0
    for end in range(len(ours) + 1):
        run = 0
        while run < min(end, len(theirs)) and ours[end - 1 - run] == theirs[-1 - run]:
            run += 1
        if run > best:
            best, at = run, end
    return at


def counted(switch: Switch, shard: NewShard) -> Iterator[Seen]:
    """Without as many of each identity as the old generation published since the hold was asked for."""
    published = Counter(seen.identity for seen in switch.published[shard.stored :])
    for seen in shard.held:
        if published[seen.identity]:
            published[seen.identity] -= 1
        else:
            yield seen


@lagging
def test_the_last_published_events_of_a_guild_say_where_the_other_generation_goes_on(lags: Lags) -> None:
    for seed in range(3):
        switch = Switch(seed, lags)
        verdict = switch.verdict(seen for shard in switch.shards for seen in aligned(switch, shard))
        assert verdict.clean, verdict
        assert verdict.owed > 500
        assert verdict.one_sided == verdict.in_gaps == 0


def test_counting_alone_loses_an_event_whose_equal_came_before_the_hold() -> None:
    """Mute, before the hold and stored behind its start; unmute; mute, after the old generation's end."""
    lost = doubled = 0
    for seed in range(4):
        switch = Switch(seed, Lags(old_s=0.3, new_s=0.3))
        verdict = switch.verdict(seen for shard in switch.shards for seen in counted(switch, shard))
        lost, doubled = lost + verdict.lost, doubled + verdict.doubled
        assert verdict.lost == 0 or {note.split(",")[0].split(":")[0] for note in verdict.notes} == {"lost"}
    assert lost > 0
    assert doubled == 0


def test_without_a_reconciliation_events_are_doubled_and_without_a_hold_they_are_lost() -> None:
    switch = Switch(1, Lags(new_s=0.2))
    everything = switch.verdict(seen for shard in switch.shards for seen in shard.held)
    assert (everything.lost, everything.doubled > 50) == (0, True)
    ends = {seen.identity for seen in switch.published}
    late = [seen for shard in switch.shards for seen in shard.held if seen.identity not in ends][40:]
    nothing_held = switch.verdict(late)
    assert nothing_held.lost >= 40
    assert nothing_held.doubled == 0


def test_a_guilds_events_out_of_order_are_found() -> None:
    switch = Switch(1, Lags())
    released = [seen for shard in switch.shards for seen in aligned(switch, shard)]
    verdict = switch.verdict(reversed(released))
    assert verdict.lost == verdict.doubled == 0
    assert verdict.disordered > 50
