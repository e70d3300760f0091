"""A frame that cannot be decoded is counted, then a dead letter, and later events continue."""

import msgspec
import pytest
import zstandard

from sandwich_sdk import Consumer, Event, Failure
from sandwich_sdk.cache.objects import read_object
from sandwich_sdk.event import read_gap
from sandwich_sdk.guild_events import derive
from sandwich_sdk.rpc import Rpc
from sandwich_sdk.testing import FakeCluster, _Stored
from sandwich_sdk.wire import frame
from sandwich_sdk.wire.dead import EVENT, DeadLetter
from sandwich_sdk.wire.headers import FrameHeaders, WireError
from sandwich_sdk.wire.rpc import Answer, RpcError, encode_result
from sandwich_sdk.wire.status import decode_status

DEEP = b"[" * 100_000 + b"]" * 100_000
META = b'"__sandwich":{"v":1,"app":"app","bot":"1","route":"","shard":[0,0,1],"id":"x:1"}'


def line(data: bytes, *, meta: bytes = META, extra: bytes = b"{}") -> bytes:
    return b'{"t":"SONG","s":1,"op":0,"d":%b,%b,"__extra":%b}\n' % (data, meta, extra)


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


UNREADABLE = {
    "nested too deeply": zstd(line(DEEP)),
    "extra nested too deeply": zstd(line(b"1", extra=b'{"before":%b}' % DEEP)),
    "an id that is not UTF-8": zstd(line(b"1", meta=META.replace(b"x:1", b"\xff"))),
    "a type that is not UTF-8": zstd(line(b"1").replace(b"SONG", b"S\xc3")),
    "two lines of one event": zstd(line(b'{"a":\n1}')),
    "no meta": zstd(b'{"t":"SONG","s":1,"op":0,"d":1}\n'),
    "a list": zstd(b"[1]\n"),
    "a shard that is none": zstd(line(b"1", meta=META.replace(b"[0,0,1]", b"[0]"))),
    "not zstd": b"{}",
    "nothing": b"",
    "half a frame": zstd(line(b"1"))[:-3],
    "no end of line": zstd(line(b"1")[:-1]),
    "a number too large": zstd(line(b"1").replace(b'"s":1', b'"s":1' + b"0" * 5000)),
}


def put(cluster: FakeCluster, payload: bytes, **changed: str) -> None:
    headers = FrameHeaders(session="s", first_seq=1, last_seq=1, count=1, epoch=1, types=frozenset({"SONG"}))
    named = headers.encode() | {name.replace("_", "-"): value for name, value in changed.items()}
    cluster._stored += 1
    cluster._pending.append(_Stored(cluster._stored, "sandwich.app.events.all.0.0", named, payload))


async def read_all(cluster: FakeCluster, *, ordered: bool = False) -> tuple[list[str], list[Failure]]:
    consumer = Consumer(app="app", source=cluster, nak_delay=0.0, ordered=ordered)
    failures: list[Failure] = []
    consumer.on_error(failures.append)
    seen: list[str] = []

    @consumer.on_any
    async def handle(event: Event) -> None:
        seen.append(event.type)

    await consumer.run(handle_signals=False)
    return seen, failures


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("kind", ["end", "switch", "of a later version", ""])
@pytest.mark.parametrize("payload", [b"", b"no zstd", b'{"from":0,"after":{"0":1}}'])
async def test_a_frame_without_events_is_acknowledged_whatever_its_kind(
    kind: str, payload: bytes, ordered: bool
) -> None:
    cluster = FakeCluster("app")
    put(cluster, payload, Sandwich_Kind=kind, Sandwich_Count="0")
    cluster.dispatch("AFTER", {})
    assert await read_all(cluster, ordered=ordered) == (["AFTER"], [])
    looping = Consumer(app="app", source=cluster, ordered=ordered)
    put(cluster, payload, Sandwich_Kind=kind, Sandwich_Count="0")
    cluster.dispatch("LATER", {})
    assert [event.type async for event in looping] == ["LATER"]
    assert (cluster.delays, cluster.dead) == ([], [])


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("what", UNREADABLE)
async def test_a_frame_that_cannot_be_decoded_is_counted_and_then_a_dead_letter(what: str, ordered: bool) -> None:
    cluster = FakeCluster(tries_max=5)
    put(cluster, UNREADABLE[what])
    behind = cluster.dispatch("GOOD", 1)
    seen, failures = await read_all(cluster, ordered=ordered)
    assert seen == ["GOOD"]
    assert cluster.handled == [behind]
    assert [failure.given_up for failure in failures] == [False, False, True]
    assert [(dead.id, dead.tries) for dead in cluster.dead] == [("", 3)]


@pytest.mark.parametrize(
    "changed",
    [
        {"Sandwich_Version": "9" * 5000},
        {"Sandwich_Version": "\u0661\u0662"},
        {"Sandwich_Version": "one"},
        {"Sandwich_Count": "1" * 5000},
        {"Sandwich_Part": "1/x"},
        {"Sandwich_Part": "1/0"},
        {"Sandwich_Part": "0/2"},
        {"Sandwich_Part": "3/2"},
        {"Sandwich_Part": "-1/2"},
    ],
)
async def test_invalid_headers_are_a_corrupt_frame(changed: dict[str, str]) -> None:
    cluster = FakeCluster(tries_max=5)
    put(cluster, zstd(line(b"1")), **changed)
    cluster.dispatch("GOOD", 1)
    seen, failures = await read_all(cluster)
    assert seen == ["GOOD"]
    assert [failure.given_up for failure in failures] == [False, False, True]


@pytest.mark.parametrize("payload", [DEEP, b'{"at":%b}' % DEEP, b'{"reason":"\xff"}', b"[1]", b"\xff", b"{"])
async def test_a_gap_whose_payload_cannot_be_decoded_is_a_corrupt_frame(payload: bytes) -> None:
    cluster = FakeCluster(tries_max=5)
    put(cluster, payload, Sandwich_Kind="gap", Sandwich_Count="0")
    cluster.dispatch("GOOD", 1)
    seen, failures = await read_all(cluster)
    assert seen == ["GOOD"]
    assert [failure.given_up for failure in failures] == [False, False, True]
    headers = FrameHeaders(session="s", first_seq=1, last_seq=1, count=0, epoch=1, kind="gap")
    with pytest.raises(WireError):
        read_gap("sandwich.app.events.all.0.0", payload, headers)


async def test_a_decoder_that_runs_out_of_memory_fails_only_one_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    real = frame.split_events
    bomb = b"bomb"

    def split(inflated: bytes) -> list[bytes]:
        if bomb in inflated:
            raise MemoryError
        return real(inflated)

    monkeypatch.setattr("sandwich_sdk.event.split_events", split)
    cluster = FakeCluster(tries_max=5)
    put(cluster, zstd(line(b'"bomb"')))
    cluster.dispatch("GOOD", 1)
    seen, failures = await read_all(cluster)
    assert seen == ["GOOD"]
    assert failures[-1].given_up


def test_a_payload_that_inflates_beyond_the_limit_is_refused() -> None:
    with pytest.raises(WireError, match="inflates beyond"):
        frame.inflate(zstd(b"0" * 5000 + b"\n"), limit=4096)


async def test_an_event_that_only_its_handler_cannot_decode_is_a_failed_try() -> None:
    """A decoder's depth limit depends on the caller's stack: the reader may succeed where a handler fails."""
    cluster = FakeCluster(tries_max=5)
    # The frame's decoder skips `d`; its numbers are read by the handler.
    put(cluster, zstd(line(b"1e999")))
    cluster.dispatch("GOOD", 1)
    consumer = Consumer(app="app", source=cluster, nak_delay=0.0, max_tries=2)
    failures: list[Failure] = []
    consumer.on_error(failures.append)
    seen: list[object] = []

    @consumer.on_any
    async def handle(event: Event) -> None:
        seen.append(event.data)

    await consumer.run(handle_signals=False)
    assert seen == [1]
    assert [failure.given_up for failure in failures] == [False, True]


def test_a_guild_event_that_is_nested_too_deeply_has_no_derived_name() -> None:
    assert derive("GUILD_CREATE", msgspec.Raw(b'{"x":%b}' % DEEP), msgspec.Raw(b"{}")) is None
    assert derive("GUILD_DELETE", msgspec.Raw(b"{}"), msgspec.Raw(b'{"before":%b}' % DEEP)) is None


@pytest.mark.parametrize("value", [DEEP, b'{"x":%b}' % DEEP, b'{"x":"\xff"}', b'{"x":1e999}', b'{"x":"\\ud83d"}'])
def test_a_cached_value_that_cannot_be_decoded_is_treated_as_missing(value: bytes) -> None:
    with pytest.raises(ValueError, match="not a JSON object"):
        read_object(value)


@pytest.mark.parametrize("body", [DEEP, b'{"ok":true,"result":%b}' % DEEP, b"\xff", b'{"ok":"\xff"}', b""])
def test_an_answer_that_cannot_be_decoded_is_a_wire_error(body: bytes) -> None:
    answer = Answer()
    assert answer.add(body, None)
    with pytest.raises(WireError):
        answer.result()


@pytest.mark.parametrize("body", [DEEP, b'{"kind":%b}' % DEEP, b'{"kind":"\xff"}', b"\xff"])
def test_a_status_event_that_cannot_be_decoded_is_a_wire_error(body: bytes) -> None:
    with pytest.raises(WireError):
        decode_status(body)


async def test_a_request_that_nests_too_deeply_is_refused_before_it_is_sent() -> None:
    data: list[object] = []
    for _ in range(5000):
        data = [data]
    with pytest.raises(RpcError) as refused:
        await Rpc(app="app").relay("SONG", data)
    assert refused.value.code == "invalid"


async def test_an_answer_whose_result_cannot_be_decoded_is_an_rpc_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answered(self: Rpc, verb: str, body: bytes) -> bytes:
        answer = Answer()
        answer.add(encode_result(b"1e999"), None)
        return answer.result()

    monkeypatch.setattr(Rpc, "_ask_once", answered)
    with pytest.raises(RpcError) as failed:
        await Rpc(app="app").ask("fetch_guild")
    assert failed.value.code == "unavailable"


@pytest.mark.parametrize("at", ["nan", "inf", "-inf", "1e300", "-1"])
def test_a_dead_letter_with_an_invalid_time_is_refused(at: str) -> None:
    letter = DeadLetter(
        kind=EVENT, group="g", id="x:1", type="A", subject="s", stream_seq=1, tries=1, error="", at=1.0
    ).encode()
    assert DeadLetter.decode(letter).at == 1.0
    with pytest.raises(WireError):
        DeadLetter.decode(letter | {"Sandwich-Dead-At": at})


@pytest.mark.parametrize(
    ("data", "read"),
    [
        (rb'"\ud83d"', "\ufffd"),
        (rb'"a\uDE00b"', "a\ufffdb"),
        (rb'"\ude00\ud83d"', "\ufffd\ufffd"),
        (rb'"\ud83d\ud83d\ude00"', "\ufffd\U0001f600"),
        (rb'"\\ud83d \ud83d"', "\\ud83d \ufffd"),
        (rb'"\\\ud83d\\"', "\\\ufffd\\"),
        (rb'{"\ud83d":["\uD83D\uDE00","\u00e9","\n"]}', {"\ufffd": ["\U0001f600", "é", "\n"]}),
    ],
)
def test_a_lone_surrogate_is_replaced_and_the_rest_of_the_event_is_unchanged(data: bytes, read: object) -> None:
    raw = line(data, extra=b'{"before":%b}' % data)[:-1]
    event = Event(raw)
    assert event.data == event.before == read
    assert event.raw == raw
    assert (event.type, event.id) == ("SONG", "x:1")
