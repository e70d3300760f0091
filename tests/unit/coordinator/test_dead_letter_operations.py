"""Dead letters: how they are read from their stream, chosen and shown."""

import base64
import json

import pytest
import zstandard

from sandwich_coordinator.cli.dead import _wanted
from sandwich_coordinator.cli.errors import CommandError
from sandwich_coordinator.cli.letter_text import content_row, content_text, letter_row, letters_text
from sandwich_coordinator.operations.dead_letters import LetterContent, LetterFilter, StoredLetter, content_of, gather
from sandwich_sdk.wire.dead import MESSAGE_ID, DeadLetter


def letter(**changes: object) -> DeadLetter:
    values: dict[str, object] = {
        "kind": "event", "group": "worker", "id": "aa:7", "type": "A", "subject": "sandwich.music.events.all.3.5",
        "stream_seq": 40, "tries": 10, "error": "ValueError: no", "at": 1000.0,
    }  # fmt: skip
    return DeadLetter(**{**values, **changes})  # type: ignore[arg-type]


def found(number: int, **changes: object) -> StoredLetter:
    return StoredLetter(app="music", number=number, seqs=(number,), letter=letter(**changes))


def part(index: int, total: int, event: str = "aa:7") -> dict[str, str]:
    return {**letter(id=event).encode(), "Sandwich-Part": f"{index}/{total}", MESSAGE_ID: f"worker/40/{event}/{index}"}


def test_a_letter_in_one_message_is_found_at_once() -> None:
    assert gather("music", {}, 9, letter().encode()) == found(9)


def test_parts_make_one_letter_though_another_ones_come_between() -> None:
    begun: dict[str, list[int]] = {}
    headers = [part(1, 2), part(1, 3, "bb:8"), part(2, 2), part(2, 3, "bb:8"), part(3, 3, "bb:8")]
    letters = [gather("music", begun, seq, each) for seq, each in enumerate(headers, start=1)]
    whole = [each for each in letters if each is not None]
    assert [(each.number, each.seqs, each.letter.id) for each in whole] == [(3, (1, 3), "aa:7"), (5, (2, 4, 5), "bb:8")]
    assert begun == {}


def test_a_letter_that_was_not_written_to_its_end_is_none_and_the_next_attempt_is_one() -> None:
    begun: dict[str, list[int]] = {}
    assert gather("music", begun, 1, part(1, 2)) is None
    assert gather("music", begun, 2, part(1, 2)) is None
    again = gather("music", begun, 3, part(2, 2))
    assert again is not None
    assert again.seqs == (2, 3)
    assert gather("music", begun, 4, part(2, 2)) is None


def test_what_is_no_letter_is_passed_over() -> None:
    assert gather("music", {}, 1, {"Sandwich-Version": "1"}) is None
    assert gather("music", {}, 1, {**letter().encode(), "Sandwich-Part": "x/y"}) is None


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (LetterFilter(), [1, 2, 3]),
        (LetterFilter(names=("2", "cc:9")), [2, 3]),
        (LetterFilter(group="other"), [2]),
        (LetterFilter(type="B"), [3]),
        (LetterFilter(names=("1",), type="B"), []),
    ],
)
def test_letters_are_chosen_by_number_event_group_and_type(wanted: LetterFilter, numbers: list[int]) -> None:
    letters = [found(1), found(2, group="other"), found(3, id="cc:9", type="B")]
    assert [each.number for each in letters if wanted.matches(each)] == numbers


def test_a_command_that_changes_letters_must_name_them() -> None:
    with pytest.raises(CommandError, match="say which letters"):
        _wanted((), None, None, checked=True)
    with pytest.raises(CommandError, match="either letters or --all"):
        _wanted(("1",), None, None, everything=True, checked=True)
    assert _wanted((), None, "message_create", checked=True) == LetterFilter(type="MESSAGE_CREATE")


def test_the_table_says_what_where_and_why() -> None:
    text = letters_text([found(9, error="ValueError: " + "x" * 100)], 3, 1000.0 + 7200)
    heads, row, more = text.splitlines()
    assert heads.split() == ["APP", "LETTER", "SINCE", "GROUP", "TYPE", "SHARD", "TRIES", "EVENT", "ERROR"]
    assert row.split()[:10] == ["music", "9", "2h", "0m", "ago", "worker", "A", "5", "10", "aa:7"]
    assert row.endswith("x...")
    assert more == "and 2 older: see --limit"
    assert letters_text([], 0, 0.0) == "no dead letters: every event was handled"


def test_a_frame_that_could_not_be_read_is_shown_by_its_kind() -> None:
    corrupt = found(9, kind="corrupt", id="", type="")
    assert "corrupt" in letters_text([corrupt], 1, 1000.0)
    content = LetterContent(stored=corrupt, headers={"Sandwich-Count": "1"}, payload=b"hi")
    text = content_text(content_row(content))
    assert "kind         corrupt" in text
    assert "aGk=" in text
    assert "None" not in text


def test_an_event_is_shown_as_json() -> None:
    content = content_of(found(1), {}, zstandard.compress(b'{"t":"A","d":{"a":[1]}}\n'))
    assert content.event == {"t": "A", "d": {"a": [1]}}
    assert content_row(content)["event"] == content.event


@pytest.mark.parametrize(
    "payload",
    [zstandard.compress(b'{"d":%b}\n' % (b"[" * depth + b"]" * depth)) for depth in (300, 800, 980, 50_000)]
    + [
        zstandard.compress(b'{"d":"\xff"}\n'),
        zstandard.compress(b'{"d":1e999}\n'),
        zstandard.compress(b"{"),
        b"no zstd",
    ],
)
def test_an_event_that_cannot_be_decoded_or_printed_is_shown_as_it_came(payload: bytes) -> None:
    content = content_of(found(1), {"Sandwich-Version": "1", "Sandwich-Dead-Kind": "event"}, payload)
    assert content.unreadable
    assert content.headers == {"Sandwich-Version": "1"}
    assert content.payload == payload
    row = content_row(content)
    assert base64.b64decode(row["payload"]) == payload
    assert row["payload"] in content_text(row)
    assert json.loads(json.dumps(row, indent=2)) == row


def test_an_event_as_deep_as_a_relay_may_be_is_shown() -> None:
    content = content_of(found(1), {}, zstandard.compress(b'{"d":%b}\n' % (b"[" * 100 + b"]" * 100)))
    assert content_text(content_row(content)).count("[") == 100


@pytest.mark.parametrize("subject", ["", "x", "a.b", "a.1", "a.b.1.x", f"a.{'1' * 5000}.2", "a.\u00b2.\u0663"])
def test_a_letter_from_an_odd_subject_is_shown(subject: str) -> None:
    odd = found(1, subject=subject)
    assert len(letters_text([odd], 1, 2000.0).splitlines()) == 2
    assert letter_row(odd)["shard_group"] in (None, 1)


def test_a_letter_says_its_shard() -> None:
    row = letter_row(found(1))
    assert (row["shard_group"], row["shard"]) == (3, 5)
