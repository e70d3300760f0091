"""What of a hold the replaced group has published already."""

import random

import pytest

from sandwich_node.events.identity import Identity
from sandwich_node.publishing.old_chains import old_chains
from sandwich_node.publishing.overlap import published_before

GUILD = 7 << 22


def named(text: str, guild: int = GUILD) -> list[Identity]:
    """One event for each letter; equal letters are events that look alike."""
    return [(guild, letter.encode() * 16) for letter in text]


def left(before: str, held: str, published: str, *, recent: int = 0, began: int | None = None) -> str:
    """What of the hold is still to be published."""
    twins = published_before(named(before), recent, named(held), named(published), 4, began)
    return "".join(letter for letter, is_twin in zip(held, twins, strict=True) if not is_twin)


@pytest.mark.parametrize(
    ("before", "held", "published", "expected"),
    [
        ("", "abc", "", "abc"),
        ("ab", "cde", "bc", "de"),
        ("ab", "cde", "bcde", ""),
        ("abc", "def", "b", "def"),
        # Nothing is known of what was received before the hold.
        ("", "bcd", "abc", "d"),
        ("", "cde", "ab", "cde"),
        # Mute, unmute, mute: m was published before the hold, and comes again behind the end of the old group.
        ("m", "um", "m", "um"),
        ("m", "um", "mu", "m"),
        ("m", "um", "mum", ""),
        ("mu", "mum", "umu", "m"),
        ("xmum", "umy", "mumum", "y"),
        # Published events of before everything that is known repeat themselves within the hold.
        ("ab", "cdm", "mabc", "dm"),
    ],
)
def test_the_published_events_are_a_run_that_ends_in_the_hold(
    before: str, held: str, published: str, expected: str
) -> None:
    assert left(before, held, published) == expected


@pytest.mark.parametrize(
    ("before", "recent", "held", "published", "expected"),
    [("m", 0, "m", "m", ""), ("m", 1, "m", "m", "m"), ("xmum", 1, "umy", "mum", "y"), ("xmum", 3, "umy", "mum", "umy")],
)
def test_of_two_places_that_fit_the_one_where_the_stream_was_read_counts(
    before: str, recent: int, held: str, published: str, expected: str
) -> None:
    assert left(before, held, published, recent=recent) == expected


def test_events_of_other_guilds_of_the_old_shard_show_how_late_it_was() -> None:
    other = GUILD + (4 << 22)
    before = [*named("v", other), *named("m"), *named("xyz", other)]
    published = [*named("v", other), *named("m"), *named("xyz", other)]
    assert published_before(before, 0, named("m"), published, 4) == [False]
    stranger = GUILD + (1 << 22)
    before = [*named("v", stranger), *named("m"), *named("xyz", stranger)]
    published = [*named("v", stranger), *named("m"), *named("xyz", stranger)]
    assert published_before(before, 0, named("m"), published, 4) == [True]


def test_events_that_the_sessions_received_in_another_order_are_matched_by_their_identities() -> None:
    assert left("", "bac", "ab") == "c"
    assert left("", "acb", "abx") == "c"


def test_an_event_without_an_identity_is_never_a_twin() -> None:
    assert published_before([], 0, [None, *named("a")], named("a"), 1) == [False, True]


def test_guilds_are_counted_apart() -> None:
    held = [*named("a", 1 << 22), *named("a", 2 << 22)]
    assert published_before([], 0, held, named("a", 2 << 22), 1) == [False, True]


@pytest.mark.parametrize("seed", range(400))
def test_what_the_old_group_published_and_what_is_left_are_what_discord_sent(seed: int) -> None:
    """Two guilds, few kinds of events: nearly all repeat themselves. Three single events are among them."""
    rng = random.Random(seed)
    guilds = [GUILD, GUILD + (4 << 22)]
    sent = [(rng.choice(guilds), rng.choice(b"muo").to_bytes() * 16) for _ in range(rng.randint(20, 60))]
    for at in range(0, len(sent), 4):
        sent[at] = sent[at][0], at.to_bytes(16)
    stream_read = rng.randint(8, 12)
    lag = rng.randint(0, 2)
    hold = rng.randint(stream_read + 4, len(sent))
    end = rng.randint(hold, len(sent))
    published = sent[stream_read - lag : end]
    held = sent[hold:]
    twins = published_before(sent[:hold], hold - stream_read, held, published, 4)
    assert [one for one, is_twin in zip(held, twins, strict=True) if not is_twin] == sent[end:]
    assert twins == sorted(twins, reverse=True)


@pytest.mark.parametrize(
    ("before", "held", "began", "published", "expected"),
    [
        # c and the first m are of the time between the two sessions; m comes again behind the old group's end.
        ("ab", "defm", 0, "bcmde", "fm"),
        ("ab", "cfghm", 1, "bcdmfg", "hm"),
        ("ab", "cfghm", 1, "bcdmfgh", "m"),
        # The old group published nothing of the guild since the session began.
        ("ab", "dcx", 0, "bcm", "dcx"),
        ("ab", "c", 1, "bcd", ""),
        # It lost c and d, or so many are in another order: they are counted.
        ("ab", "cdefgh", 0, "bef", "cdgh"),
        ("ab", "fedgh", 0, "bcdef", "gh"),
        ("ab", "mdefgh", 0, "bcdefm", "gh"),
        # d was held before the session began, and never published.
        ("x", "cbdf", 3, "bc", "df"),
    ],
)
def test_where_a_session_began_in_the_hold_its_first_events_are_the_last_published_ones(
    before: str, held: str, began: int, published: str, expected: str
) -> None:
    assert left(before, held, published, began=began) == expected


@pytest.mark.parametrize(
    ("before", "held", "published", "expected"),
    [
        # c, the first m and d are of the time between the old shard's sessions; the second m is of the next one.
        ("ab", "cmdmefg", "b mef", "cmdg"),
        # Both sessions were lost in the hold.
        ("ab", "cmdmemfmg", "bc m fm", "dmemg"),
        # The first one published nothing behind L, or what it published is older than all that is known.
        ("ab", "cmdmefg", " mef", "cmdg"),
        ("ab", "cmdmefg", "xy mef", "cmdg"),
        # The lost session's events end before the hold.
        ("amb", "cmdefmg", "m def", "cmmg"),
    ],
)
def test_each_session_of_an_old_shard_that_lost_one_published_a_run(
    before: str, held: str, published: str, expected: str
) -> None:
    runs = published.split(" ")
    events = [one for run in runs for one in named(run)]
    sessions = [str(number) for number, run in enumerate(runs) for _ in run]
    twins = published_before(named(before), 0, named(held), events, 4, None, sessions, frozenset({GUILD >> 22 & 3}))
    assert "".join(letter for letter, is_twin in zip(held, twins, strict=True) if not is_twin) == expected


@pytest.mark.parametrize("seed", range(200))
def test_a_session_that_the_old_shard_lost_in_the_hold_costs_nothing(seed: int) -> None:
    """As above, in the other group: what is between its two sessions was not published."""
    rng = random.Random(seed)
    sent = [(GUILD, rng.choice(b"muo").to_bytes() * 16) for _ in range(rng.randint(60, 90))]
    for at in range(0, len(sent), 2):
        sent[at] = sent[at][0], at.to_bytes(16)
    hold = rng.randint(12, 16)
    lost = rng.randint(hold - 2, hold + 8)
    began = rng.randint(lost + 1, lost + 12)
    end = rng.randint(began + 4, len(sent))
    published = [*sent[10:lost], *sent[began:end]]
    sessions = ["a"] * (lost - 10) + ["b"] * (end - began)
    gaps = frozenset({GUILD >> 22 & 3})
    twins = published_before(sent[:hold], hold - 10, sent[hold:], published, 4, None, sessions, gaps)
    missed = sent[max(hold, lost) : began] if began > hold else []
    expected = [*missed, *sent[max(end, hold) :]]
    assert [one for one, is_twin in zip(sent[hold:], twins, strict=True) if not is_twin] == expected


@pytest.mark.parametrize("seed", range(400))
def test_a_session_that_began_in_the_hold_costs_nothing(seed: int) -> None:
    """As above, with a time between two sessions of which nothing is known. Half of the events are single ones."""
    rng = random.Random(seed)
    sent = [(GUILD, rng.choice(b"muo").to_bytes() * 16) for _ in range(rng.randint(40, 80))]
    for at in range(0, len(sent), 2):
        sent[at] = sent[at][0], at.to_bytes(16)
    hold = rng.randint(12, 16)
    lost = rng.randint(hold, hold + 8)
    began = rng.randint(lost + 1, lost + 8)
    end = rng.randint(began + 4, len(sent))
    held = [*sent[hold:lost], *sent[began:]]
    twins = published_before(sent[:hold], hold - 10, held, sent[10:end], 4, lost - hold)
    assert [one for one, is_twin in zip(held, twins, strict=True) if not is_twin] == sent[end:]


def test_endless_repetition_is_bounded() -> None:
    """Published is what fits nowhere as a run: it is counted."""
    events = named("mu" * 3000)
    assert published_before([], 0, events[:3000], [*events, *named("x")], 1, 0) == [True] * 3000
    twins = published_before(events[:2000], 10, events[2000:4000], [*events[1990:3000], *named("x")], 1)
    assert twins == [True] * 1000 + [False] * 1000


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 2), (4, 6), (1, 8), (8, 1), (16, 64), (5, 5)])
def test_a_shard_reads_the_chains_of_all_its_guilds_and_of_no_more_than_needed(before: int, after: int) -> None:
    for shard in range(after):
        of_guilds = {guild % before for guild in range(before * after) if guild % after == shard}
        assert old_chains(shard, after, before, range(before)) == of_guilds
        assert old_chains(shard, after, before, [0]) == of_guilds & {0}
    assert old_chains(0, after, 0, []) == frozenset()
