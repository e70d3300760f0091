"""Shard ranges: read with the wrong part named, quickly whatever they say."""

import pytest

from sandwich_coordinator.operations.errors import Invalid, NotFound, OperationError
from sandwich_coordinator.operations.progress import ignore
from sandwich_coordinator.operations.shards import restart_shards
from sandwich_coordinator.ranges import format_ranges, parse_ranges
from tests.unit.coordinator.test_shard_operations import KEYS, Cluster


@pytest.mark.parametrize(
    ("text", "shards"),
    [("0-4,6-7", [0, 1, 2, 3, 4, 6, 7]), (" 1 , 3 - 4 ", [1, 3, 4]), ("7,2", [2, 7]), ("3-3", [3]), ("", [])],
)
def test_ranges_are_read_with_spaces_and_in_any_order(text: str, shards: list[int]) -> None:
    assert parse_ranges(text, once=True) == shards
    assert parse_ranges(format_ranges(shards)) == shards


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4-2", "bad shard range '4-2': it ends before it starts"),
        ("0-3,2-5", "bad shard range '2-5': it names shard 2 again"),
        ("0,0", "bad shard range '0': it names shard 0 again"),
        ("-1", "bad shard range '-1': write it as '3' or '0-7'"),
        ("0--3", "bad shard range '0--3': write it as '3' or '0-7'"),
        ("0,,2", "bad shard range '': write it as '3' or '0-7'"),
        ("1.5", "bad shard range '1.5': write it as '3' or '0-7'"),
        ("\u0661-\u0663", "write it as '3' or '0-7'"),
        ("0-99999999", "bad shard range '0-99999999': too large"),
        ("9" * 400, "write it as '3' or '0-7'"),
        ("0-16", "bad shard range '0-16': with 16 shards the last id is 15"),
    ],
)
def test_the_wrong_part_is_named(text: str, message: str) -> None:
    count = 16 if text == "0-16" else None
    with pytest.raises(ValueError, match="bad shard range") as caught:
        parse_ranges(text, count=count, once=True)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 120


def test_what_an_older_version_stored_twice_is_still_read_and_thousands_of_large_ranges_are_not() -> None:
    assert parse_ranges("0-3,2-4") == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="too large"):
        parse_ranges(",".join(["0-65535"] * 100_000))


@pytest.mark.parametrize(
    ("ranges", "kind", "words"),
    [
        ("", Invalid, "no shards are named"),
        (" ", Invalid, "no shards are named"),
        ("0-99999999", Invalid, "shards '0-99999999': bad shard range '0-99999999': too large"),
        ("1,0-2", Invalid, "it names shard 1 again"),
        ("2-4", NotFound, "bot has no shard 4; it has 0-3"),
    ],
)
async def test_a_command_names_the_shards_that_it_cannot_use(
    ranges: str, kind: type[OperationError], words: str
) -> None:
    cluster = await Cluster().begin()
    with pytest.raises(kind) as caught:
        await restart_shards(cluster.store, KEYS, "bot", ranges, timeout_s=1, report=ignore)
    assert words in str(caught.value)
