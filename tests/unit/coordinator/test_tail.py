"""The output of `sandwich tail` for frames."""

import json
from typing import Any

import msgspec
import pytest
import zstandard
from rich.cells import cell_len

from sandwich_coordinator.cli.errors import CommandError
from sandwich_coordinator.cli.paint import Paint
from sandwich_coordinator.cli.tail import Line, TailOptions, check_filter, frame_lines, unknown_types
from sandwich_coordinator.operations.frame_events import joined
from sandwich_sdk.wire.headers import FrameHeaders

ALL = TailOptions()
ONLY_X = TailOptions(types=frozenset({"X"}))
GUILD, CHANNEL, ADA = "81384788765712384", "813000000000000001", "53908099506183680"
MESSAGE = {
    "tts": False,
    "nonce": "n" * 400,
    "guild_id": GUILD,
    "channel_id": CHANNEL,
    "content": "hello there",
    "author": {"id": ADA, "username": "ada", "avatar": "a" * 100},
}


def headers(*, count: int = 1, kind: str = "", part: tuple[int, int] | None = None) -> FrameHeaders:
    return FrameHeaders(session="aa", first_seq=7, last_seq=7, count=count, epoch=1, kind=kind, part=part)


def frame(*lines: bytes) -> bytes:
    return zstandard.compress(b"".join(line + b"\n" for line in lines))


def event(kind: str, data: Any) -> bytes:
    body = {"t": kind, "s": 7, "op": 0, "d": data, "__sandwich": {"shard": [0, 3, 4]}}
    return msgspec.json.encode(body)


def shown(kind: str, data: Any, options: TailOptions = ALL, width: int = 100) -> list[str]:
    return [line.text for line in frame_lines("music", headers(), frame(event(kind, data)), options, width)]


def test_a_message_begins_with_author_channel_and_text_and_ends_with_its_type() -> None:
    assert shown("MESSAGE_CREATE", MESSAGE) == [f"ada #{CHANNEL} hello there  MESSAGE_CREATE music 3/4"]


@pytest.mark.parametrize(
    ("kind", "data", "begin"),
    [
        ("MESSAGE_UPDATE", {**MESSAGE, "author": None, "member": {"user": {"id": ADA, "username": "ada"}}}, "ada #813"),
        (
            "TYPING_START",
            {"user_id": ADA, "channel_id": CHANNEL, "timestamp": 1},
            f'{ADA} #{CHANNEL} {{"timestamp":1}}',
        ),
        ("GUILD_CREATE", {"id": GUILD, "name": "Chess"}, f"guild {GUILD} "),
        ("GUILD_MEMBER_ADD", {"guild_id": GUILD, "user": {"id": ADA}}, f"{ADA} guild {GUILD}  GUILD_MEMBER_ADD"),
        ("CHANNEL_CREATE", {"id": CHANNEL, "guild_id": GUILD, "name": "general"}, f"guild {GUILD} "),
        ("CHANNEL_CREATE", {"id": CHANNEL, "name": "direct"}, f"#{CHANNEL} "),
        ("RESUMED", None, "RESUMED music 3/4"),
        ("SONG", [1, 2], "[1,2]  SONG"),
        ("MESSAGE_CREATE", {"author": {"username": ["x"]}, "content": 5, "channel_id": {}}, "['x']  MESSAGE_CREATE"),
        ("X", {"author": "none", "user": [], "member": None}, "X music"),
    ],
)
def test_any_event_is_one_line_that_begins_with_its_known_parts(kind: str, data: Any, begin: str) -> None:
    (line,) = shown(kind, data)
    assert line.startswith(begin)


@pytest.mark.parametrize("width", [10, 20, 40, 60, 80, 100, 300])
@pytest.mark.parametrize("text", ["棋" * 500, "x" * 5000, "👩‍👩‍👧‍👦" * 100, "a\nb\x1b[2J\u202e" * 50])
def test_a_line_is_never_wider_than_the_terminal_and_always_names_the_type(width: int, text: str) -> None:
    for kind in ("MESSAGE_CREATE", "GUILD_SCHEDULED_EVENT_USER_REMOVE"):
        data = {**MESSAGE, "content": text, "author": {"username": text}}
        (line,) = shown(kind, data, width=width)
        assert cell_len(line) <= max(width, 20)
        assert kind[:8] in line
        assert "\n" not in line


def test_text_from_discord_cannot_control_the_terminal_or_forge_a_line() -> None:
    nasty = "\x1b[2J\x9b1m\x7f\r\n\u2028music 3/4\u202e\u2066\ud83d"
    for data in ({**MESSAGE, "content": nasty}, {"a": nasty}, {**MESSAGE, "author": {"username": nasty}}):
        line = json.dumps({"t": f"T{nasty}", "d": data, "__sandwich": {"shard": [0, nasty, 4]}}).encode()
        # msgspec refuses a lone surrogate: the event is shown as unreadable.
        for raw in (line, line.replace(b"\\ud83d", b"")):
            for found in frame_lines("music", headers(), frame(raw), ALL):
                assert found.text.isprintable()


def test_colours_are_added_to_plain_text() -> None:
    (line,) = frame_lines("music", headers(), frame(event("X", MESSAGE)), ALL, 100, Paint(on=True))
    assert "\x1b[36mada\x1b[0m" in line.text


def test_an_event_as_json_is_one_line_that_decodes_to_the_same_value() -> None:
    content = "café \x7f\x9b\u202e\u2028"
    raw = event("MESSAGE_CREATE", {"content": content}).replace(b'"d":', b'"d":\r\t')
    (line,) = frame_lines("music", headers(), frame(raw), TailOptions(as_json=True))
    assert line.text.isprintable()
    assert "café" in line.text
    assert json.loads(line.text)["d"]["content"] == content


@pytest.mark.parametrize("raw", [b"{", b'{"t":1}', b"[]", b'{"t":"X","d":"\xff"}', b"[" * 5000, b'{"d":1}', b"\x1b"])
def test_an_unreadable_event_is_shown_as_a_note(raw: bytes) -> None:
    for options in (ALL, TailOptions(as_json=True), TailOptions(text="x")):
        for line in frame_lines("music", headers(), frame(raw), options):
            assert line.is_note
            assert line.text.isprintable()


def test_other_types_and_fences_are_not_shown_and_a_gap_is() -> None:
    assert shown("Y", {}, ONLY_X) == []
    assert frame_lines("music", headers(count=0, kind="fence"), b"", ONLY_X) == []
    for kind in ("end", "switch", "of a later version"):
        assert frame_lines("music", headers(count=0, kind=kind), b'{"from":0,"after":{}}', ALL) == []
    gap = frame_lines("music", headers(count=0, kind="gap"), b"{}", ONLY_X)
    assert gap == [Line("music gap: events were lost after 7", is_note=True)]


@pytest.mark.parametrize(
    ("options", "kind", "data", "wanted"),
    [
        (TailOptions(types=frozenset({"MESSAGE_*"})), "MESSAGE_UPDATE", {}, True),
        (TailOptions(types=frozenset({"MESSAGE_*"})), "TYPING_START", {}, False),
        (TailOptions(guild=GUILD), "MESSAGE_CREATE", MESSAGE, True),
        (TailOptions(guild=GUILD), "GUILD_UPDATE", {"id": GUILD}, True),
        (TailOptions(guild=GUILD), "CHANNEL_UPDATE", {"id": GUILD}, False),
        (TailOptions(guild=GUILD), "INTERACTION_CREATE", {"guild": {"id": GUILD}}, True),
        (TailOptions(guild="1"), "MESSAGE_CREATE", MESSAGE, False),
        (TailOptions(channel=CHANNEL), "MESSAGE_CREATE", MESSAGE, True),
        (TailOptions(channel=CHANNEL), "THREAD_CREATE", {"id": "1", "parent_id": CHANNEL}, True),
        (TailOptions(channel=CHANNEL), "CHANNEL_DELETE", {"id": CHANNEL}, True),
        (TailOptions(channel=CHANNEL), "GUILD_ROLE_CREATE", {"id": CHANNEL}, False),
        (TailOptions(user=ADA), "MESSAGE_CREATE", MESSAGE, True),
        (TailOptions(user=ADA), "VOICE_STATE_UPDATE", {"user_id": ADA}, True),
        (TailOptions(user=ADA), "INTERACTION_CREATE", {"member": {"user": {"id": ADA}}}, True),
        (TailOptions(user=ADA), "GUILD_MEMBERS_CHUNK", {"members": [{"user": {"id": ADA}}]}, True),
        (TailOptions(user=ADA), "THREAD_MEMBERS_UPDATE", {"removed_member_ids": [ADA]}, True),
        (TailOptions(user=ADA), "MESSAGE_CREATE", {"content": ADA}, False),
        (TailOptions(text="HELLO"), "MESSAGE_CREATE", MESSAGE, True),
        (TailOptions(text="rules"), "MESSAGE_CREATE", {"embeds": [{"description": "The Rules"}]}, True),
        (TailOptions(text="straße"), "CHANNEL_UPDATE", {"topic": "STRASSE"}, True),
        (TailOptions(text="bye"), "MESSAGE_CREATE", MESSAGE, False),
        (TailOptions(text="ada", guild="1"), "MESSAGE_CREATE", MESSAGE, False),
        (TailOptions(guild=GUILD, channel=CHANNEL, user=ADA, text="x"), "X", None, False),
        (TailOptions(guild=GUILD, channel=CHANNEL, user=ADA, text="x"), "X", [[]], False),
    ],
)
def test_filters_by_type_guild_channel_user_and_text(options: TailOptions, kind: str, data: Any, wanted: bool) -> None:
    assert bool(shown(kind, data, options)) is wanted


def test_a_filter_with_an_invalid_id_is_refused_with_its_option() -> None:
    assert check_filter("--guild", None) == ""
    assert check_filter("--guild", GUILD) == GUILD
    with pytest.raises(CommandError, match=r"^--user: 'ada' is not a Discord id"):
        check_filter("--user", "ada")


def test_an_unknown_type_gives_a_warning_with_the_nearest_name() -> None:
    assert unknown_types(frozenset({"MESAGE_UPDATE"})) == [
        "--type MESAGE_UPDATE: Discord documents no event MESAGE_UPDATE: did you mean MESSAGE_UPDATE?"
    ]
    assert unknown_types(frozenset({"MESSAGE_*", "TYPING_START", "SANDWICH_MEMBER_INVITED"})) == []
    assert [text.split(":")[0] for text in unknown_types(frozenset({"SONG", "MESAGE_*"}))] == [
        "--type MESAGE_*",
        "--type SONG",
    ]


def test_parts_are_joined_and_parts_without_their_start_are_skipped() -> None:
    parts: dict[str, bytes] = {}
    assert joined(parts, "s", headers(part=(2, 3)), b"b") is None
    assert joined(parts, "s", headers(part=(3, 3)), b"c") is None
    assert joined(parts, "s", headers(part=(1, 2)), b"a") is None
    assert joined(parts, "s", headers(part=(2, 2)), b"b") == b"ab"
    assert parts == {}


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize(
    "damaged",
    [
        b'{"t":"X","s":7,"op":0,"d":"\xff","__sandwich":{"shard":[0,3,4]}}',
        b'{"t":"X","s":7,"op":0,"d":%b,"__sandwich":{"shard":[0,3,4]}}' % (b"[" * 50_000 + b"]" * 50_000),
        b'{"t":"X","s":7,"op":0,"d":1e999,"__sandwich":{"shard":[0,3,4]}}',
        b'{"t":["X"],"s":7,"op":0,"d":1,"__sandwich":{"shard":[0,3,4]}}',
        b'{"t":"X","s":7,"op":0,"d":{"a":',
        b"1}",
        b"[]",
        b"",
    ],
)
def test_a_corrupt_event_hides_no_other_event_of_its_frame(damaged: bytes, as_json: bool) -> None:
    good = b'{"t":"X","s":8,"op":0,"d":{"a":1},"__sandwich":{"shard":[0,3,4]}}'
    options = TailOptions(types=frozenset({"X"}), as_json=as_json)
    lines = frame_lines("music", headers(count=2), frame(damaged, good), options)
    assert len(lines) == 2
    assert lines[0].is_note
    assert f"music (an event of {len(damaged)} bytes that cannot be read: " in lines[0].text
    assert lines[1].text == (good.decode() if as_json else '{"a":1}  X music 3/4')


@pytest.mark.parametrize("shard", [b"[]", b"{}", b"1", b"null"])
def test_an_event_with_an_unusual_shard_field_is_still_one_line(shard: bytes) -> None:
    line = b'{"t":"X","s":7,"op":0,"d":1,"__sandwich":{"shard":%b}}' % shard
    (short,) = frame_lines("music", headers(), frame(line), ALL)
    assert "X music" in short.text
    assert [found.text for found in frame_lines("music", headers(), frame(line), TailOptions(as_json=True))] == [
        line.decode()
    ]
