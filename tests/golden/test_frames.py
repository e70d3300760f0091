"""Frozen frames of wire version 1: what readers in the field rely on. A change here needs a new wire version."""

import json
from pathlib import Path

import pytest

from sandwich_sdk.event import Shard, read_events, read_gap
from sandwich_sdk.parts import COMPLETE, Assembly
from sandwich_sdk.wire import subjects
from sandwich_sdk.wire.dead import DeadLetter, frame_of
from sandwich_sdk.wire.frame import inflate
from sandwich_sdk.wire.headers import FrameHeaders, WireError
from sandwich_sdk.wire.switch import Switch

FRAMES = Path(__file__).parent / "frames"
SUBJECT = "sandwich.music.events.all.3.5"


def frozen(name: str) -> tuple[dict[str, str], bytes]:
    return json.loads((FRAMES / f"{name}.headers.json").read_text()), (FRAMES / f"{name}.payload").read_bytes()


@pytest.mark.parametrize("name", ["events", "behind", "part-1", "part-2", "fence", "marker", "gap", "end", "switch"])
def test_headers_are_encoded_as_they_were_frozen(name: str) -> None:
    headers, _ = frozen(name)
    assert FrameHeaders.decode(headers).encode() == headers


def test_the_frozen_events_are_read() -> None:
    headers, payload = frozen("events")
    message, role = read_events(inflate(payload), FrameHeaders.decode(headers), published_ns=7)
    assert (message.type, message.seq, message.id) == ("MESSAGE_CREATE", 41, "9f86d081884c7d65:41")
    assert (message.app, message.bot, message.route) == ("music", "80351110224678912", "eu")
    assert message.shard == Shard(group=3, id=5, count=16)
    assert message.data == {"id": "1", "content": 'hé "x"\n', "guild_id": "2"}
    assert (message.extra, message.before, message.published_ns) == ({}, None, 7)
    assert role.before == {"id": "3", "name": "old"}
    assert role.data_as(dict[str, object])["guild_id"] == "2"


def test_a_frame_ahead_of_the_cache_and_an_event_of_a_consumers_own_are_read() -> None:
    headers, payload = frozen("behind")
    assert FrameHeaders.decode(headers).behind
    change, own = read_events(inflate(payload), FrameHeaders.decode(headers))
    assert (change.extra, change.before) == ({"before": None, "cache": "behind"}, None)
    assert (own.type, own.seq, own.id, own.data) == ("SONG_ENDED", 0, "own:5f2c", {"song": 7})


def test_the_frozen_parts_make_the_frozen_frame() -> None:
    assembly = Assembly(SUBJECT, FrameHeaders.decode(frozen("part-1")[0]))
    for name in ("part-1", "part-2"):
        headers, payload = frozen(name)
        assembly.add(SUBJECT, FrameHeaders.decode(headers), payload)
    assert assembly.state == COMPLETE
    assert assembly.payload == frozen("events")[1]


def test_the_frozen_switch_is_read_and_written() -> None:
    _, payload = frozen("switch")
    switch = Switch(old_group=2, after={0: 1234, 8: 1240})
    assert (Switch.decode(payload), switch.encode()) == (switch, payload)
    assert Switch.decode(payload[:-1] + b',"more":[]}') == switch


def test_the_frozen_gap_is_read() -> None:
    headers, payload = frozen("gap")
    gap = read_gap(SUBJECT, payload, FrameHeaders.decode(headers))
    assert (gap.app, gap.group, gap.shard, gap.last_seq, gap.detail) == ("music", 3, 5, 43, {"at": 1700000000})


def test_a_newer_wire_version_is_refused_by_its_number() -> None:
    with pytest.raises(WireError, match="version 2"):
        FrameHeaders.decode(frozen("newer-version")[0])


def test_a_frame_whose_count_is_wrong_is_refused() -> None:
    headers, payload = frozen("events")
    with pytest.raises(WireError, match="2 events"):
        read_events(inflate(payload), FrameHeaders.decode({**headers, "Sandwich-Count": "3"}))


@pytest.mark.parametrize("cut", [1, 20])
def test_a_truncated_frame_is_refused(cut: int) -> None:
    with pytest.raises(WireError):
        inflate(frozen("events")[1][:-cut])


def test_the_frozen_dead_letter_is_read_and_encoded_as_it_was_frozen() -> None:
    headers, payload = frozen("dead")
    letter = DeadLetter.decode(headers)
    assert letter == DeadLetter(
        kind="event",
        group="worker",
        id="9f86d081884c7d65:41",
        type="MESSAGE_CREATE",
        subject=SUBJECT,
        stream_seq=1234,
        tries=10,
        error="ValueError: bad guild",
        at=1767225600.25,
    )
    assert letter.encode().items() <= headers.items()
    assert letter.encode().keys() == {name for name in headers if name.startswith("Sandwich-Dead-")}
    frame = FrameHeaders.decode(frame_of(headers))
    (event,) = read_events(inflate(payload), frame)
    original, events = frozen("events")
    assert event.raw == read_events(inflate(events), FrameHeaders.decode(original))[0].raw


def test_the_names_of_a_groups_own_streams_and_subjects_are_as_they_were_frozen() -> None:
    assert subjects.dead_stream_name("music") == "SANDWICH-DEAD_music"
    assert subjects.dead_subject("music", "worker") == "sandwich.music.dead.worker"
    assert subjects.replay_stream_name("music") == "SANDWICH-REPLAY_music"
    assert subjects.replay_subject("music", "worker", 17) == "sandwich.music.replay.worker.17"
    assert subjects.tries_stream_name("music") == "SANDWICH-TRIES_music"
    assert subjects.tries_subject("music", "worker", "replay-3-17") == "sandwich.music.tries.worker.replay-3-17"
    assert subjects.workers_subject("music", "worker") == "sandwich.music.workers.worker"


def test_no_applications_name_makes_another_ones_dead_letters_its_events() -> None:
    makers = (subjects.dead_stream_name, subjects.replay_stream_name, subjects.tries_stream_name)
    ours = {make(name).lower() for make in makers for name in ("x", "dead_x", "x_dead", "x-dead")}
    events = {subjects.stream_name(name).lower() for name in ("x", "dead_x", "x_dead", "x-dead", "-dead_x"[1:])}
    assert len(ours) == 12
    assert not ours & events
