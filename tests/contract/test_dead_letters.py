"""Dead letters on a real nats-server: which events become dead letters, and replays."""

import asyncio
import io
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from nats.js.api import DiscardPolicy, StreamConfig

from sandwich_coordinator.cli.main import main
from sandwich_coordinator.operations import dead_letters as operations
from sandwich_node.dev.embedded import EmbeddedEtcd, EmbeddedNats
from sandwich_sdk import Consumer, Event, Failure, HandlerCancelled, Unfinished, dead_letter_store, jetstream
from sandwich_sdk.wire import subjects
from sandwich_sdk.wire.headers import FrameHeaders
from tests.support.publisher import Publisher, running, settled, take, until

pytestmark = pytest.mark.contract
ANY = operations.LetterFilter()


async def found(publisher: Publisher, wanted: operations.LetterFilter = ANY) -> list[operations.StoredLetter]:
    return [each async for each in operations.read_letters(publisher.client, publisher.app, wanted)]


def failing(
    server: EmbeddedNats, *poison: int, group: str = "g", **options: Any
) -> tuple[Consumer, list[int], list[Failure]]:
    """A worker whose handler fails for some events; the events it handled, and the failures it reported."""
    defaults: dict[str, Any] = {"start": "all", "nak_delay": 0.01, "max_tries": 3}
    consumer = Consumer(server.url, app="bot", group=group, **(defaults | options))
    handled: list[int] = []
    failures: list[Failure] = []
    consumer.on_error(failures.append)

    @consumer.on_any
    async def handle(event: Event) -> None:
        if event.data["n"] in poison:
            raise ValueError(f"cannot bear\n{event.data['n']} \N{SNOWMAN}")
        handled.append(event.data["n"])

    return consumer, handled, failures


async def test_an_event_is_a_dead_letter_after_its_tries_over_all_workers_and_the_rest_of_its_frame_is_not(
    server: EmbeddedNats, publisher: Publisher
) -> None:
    await publisher.events(3)
    tries: list[tuple[int, bool]] = []
    for _ in range(3):
        consumer, _, failures = failing(server, 2)
        async with running(consumer):
            await until(lambda: bool(failures))  # noqa: B023 (awaited in this turn)
        tries.append((failures[0].tries, failures[0].given_up))
    assert tries == [(1, False), (2, False), (3, True)]
    await settled(publisher, "g")
    (letter,) = await found(publisher)
    assert (letter.letter.id, letter.letter.type, letter.letter.tries) == ("abc:2", "A", 3)
    assert (letter.letter.group, letter.letter.stream_seq, letter.letter.kind) == ("g", 1, "event")
    assert letter.letter.error == "ValueError: cannot bear 2 \\u2603"
    assert letter.letter.subject == "sandwich.bot.events.all.0.0"
    content = await operations.read_content(publisher.client, letter)
    assert content.event["d"]["n"] == 2


async def test_a_frame_that_stopping_workers_hand_back_unbegun_uses_up_no_tries(
    server: EmbeddedNats, publisher: Publisher
) -> None:
    await publisher.events(1)
    for _ in range(5):
        idle = Consumer(server.url, app="bot", group="g", start="all")
        async with idle:
            await until(lambda: bool(idle._intake.held))  # noqa: B023 (awaited in this turn)
    consumer, _, failures = failing(server, 1, max_tries=2)
    async with running(consumer):
        await until(lambda: len(failures) == 2)
    assert [(failure.tries, failure.given_up) for failure in failures] == [(1, False), (2, True)]


async def test_an_event_that_ends_its_workers_is_a_dead_letter_without_another_run(
    server: EmbeddedNats, publisher: Publisher
) -> None:
    await publisher.events(2)
    for _ in range(3):
        async with Consumer(server.url, app="bot", group="g", start="all", max_tries=2) as consumer:
            assert (await anext(consumer)).data["n"] == 1
    consumer = Consumer(server.url, app="bot", group="g", max_tries=2)
    failures: list[Failure] = []
    consumer.on_error(failures.append)
    async with consumer:
        assert (await anext(consumer)).data["n"] == 2
    assert isinstance(failures[0].error, Unfinished)
    assert failures[0].given_up
    assert [letter.letter.id for letter in await found(publisher)] == ["abc:1"]


async def test_an_event_that_always_fails_does_not_block_its_shard_in_an_ordered_group(
    server: EmbeddedNats, publisher: Publisher
) -> None:
    await publisher.events(2)
    await publisher.events(2)
    consumer, handled, failures = failing(server, 1, 3, ordered=True)
    async with running(consumer):
        await until(lambda: handled == [2, 4])
    assert [failure.tries for failure in failures] == [1, 2, 3, 1, 2, 3]
    assert [letter.letter.id for letter in await found(publisher)] == ["abc:1", "abc:3"]


async def test_an_event_whose_dead_letter_is_refused_is_retried(server: EmbeddedNats, publisher: Publisher) -> None:
    stream = publisher.client.jetstream()
    config = StreamConfig(
        name=subjects.dead_stream_name("bot"), subjects=["sandwich.bot.dead.*"], discard=DiscardPolicy.NEW, max_bytes=64
    )
    await stream.add_stream(config)
    await publisher.events(1)
    consumer, _, failures = failing(server, 1, max_tries=2)
    async with running(consumer):
        await until(lambda: len(failures) >= 4)
        assert not any(failure.given_up for failure in failures)
        await stream.update_stream(config, max_bytes=-1)
        await until(lambda: failures[-1].given_up)
    assert [letter.letter.tries for letter in await found(publisher)] == [2]


async def test_a_frame_that_cannot_be_read_is_stored_unchanged(server: EmbeddedNats, publisher: Publisher) -> None:
    headers, payload = publisher.frame(1)
    await publisher.send(headers.encode(), payload[:-3])
    consumer, _, failures = failing(server, corrupt_tries=2)
    async with running(consumer):
        await until(lambda: len(failures) == 2)
        await settled(publisher, "g")
    (letter,) = await found(publisher)
    assert (letter.letter.kind, letter.letter.id, letter.letter.tries) == ("corrupt", "", 2)
    content = await operations.read_content(publisher.client, letter)
    assert content.headers is not None
    assert content.headers["Sandwich-Session"] == "abc"
    assert content.payload == payload[:-3]


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_frame_that_is_nested_too_deeply_is_a_dead_letter_after_each_replay(
    server: EmbeddedNats, publisher: Publisher, monkeypatch: pytest.MonkeyPatch, ordered: bool
) -> None:
    monkeypatch.setattr(jetstream, "REPLAY_POLL_S", 0.05)
    headers, _ = publisher.frame(1)
    line = b'{"t":"A","s":1,"op":0,"d":%b,"__sandwich":{}}\n' % (b"[" * 50_000 + b"]" * 50_000)
    payload = zstandard.ZstdCompressor().compress(line)
    await publisher.send(headers.encode(), payload)
    await publisher.events(1)
    consumer, handled, failures = failing(server, corrupt_tries=2, ordered=ordered)
    async with running(consumer):
        await until(lambda: handled == [2])
        await until(lambda: len(failures) == 2)
        (letter,) = await found(publisher)
        assert (letter.letter.kind, letter.letter.tries) == ("corrupt", 2)
        content = await operations.read_content(publisher.client, letter)
        assert content.payload == payload
        await operations.open_replays(publisher.client, "bot", "g")
        await operations.replay_letter(publisher.client, letter)
        await until(lambda: len(failures) == 4)
        await publisher.events(1)
        await until(lambda: handled == [2, 3])
    assert [failure.given_up for failure in failures] == [False, True, False, True]
    assert [letter.letter.kind for letter in await found(publisher)] == ["corrupt"]


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_handler_that_awaits_something_cancelled_fails_in_a_replay_as_before(
    server: EmbeddedNats, publisher: Publisher, monkeypatch: pytest.MonkeyPatch, ordered: bool
) -> None:
    monkeypatch.setattr(jetstream, "REPLAY_POLL_S", 0.05)
    await publisher.events(1, types=("BAD",))
    await publisher.events(1)
    consumer, handled, failures = failing(server, 1, max_tries=1, ordered=ordered)
    cancelled = asyncio.get_running_loop().create_future()
    cancelled.cancel()

    @consumer.on("BAD")
    async def handle(event: Event) -> None:
        await cancelled

    async with running(consumer):
        await until(lambda: handled == [2])
        (letter,) = await found(publisher)
        await operations.open_replays(publisher.client, "bot", "g")
        await operations.replay_letter(publisher.client, letter)
        await until(lambda: len(failures) == 2)
        await publisher.events(1)
        await until(lambda: handled == [2, 3])
    assert [type(failure.error) for failure in failures] == [HandlerCancelled, HandlerCancelled]
    assert [letter.letter.id for letter in await found(publisher)] == ["abc:1"]


async def test_an_unreadable_frame_of_a_stream_created_again_is_stored_although_its_sequence_was_stored_before(
    server: EmbeddedNats, publisher: Publisher
) -> None:
    consumer, _, failures = failing(server, corrupt_tries=1)
    async with running(consumer):
        for count in (1, 2):
            headers, payload = publisher.frame(1)
            assert await publisher.send(headers.encode(), payload[:-3]) == 1
            await until(lambda: len(failures) == count)  # noqa: B023 (awaited in this turn)
            await publisher.client.jetstream().delete_stream(subjects.stream_name("bot"))
            await publisher.make_stream()
    assert [letter.letter.stream_seq for letter in await found(publisher)] == [1, 1]


async def test_an_own_event_of_another_lane_is_a_dead_letter_and_is_replayed_unchanged(
    server: EmbeddedNats, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetstream, "REPLAY_POLL_S", 0.05)
    meta = {"v": 1, "app": "bot", "bot": "1", "route": "r", "shard": [0, 0, 1], "id": "own:x7"}
    line = json.dumps({"t": "SONG_ENDED", "s": None, "op": 0, "d": {"n": 1}, "__sandwich": meta}).encode()
    headers = FrameHeaders(session="abc", first_seq=5, last_seq=4, count=1, epoch=1, types=frozenset({"SONG_ENDED"}))
    await publisher.send(headers.encode(), zstandard.ZstdCompressor().compress(line + b"\n"), lane="music")
    consumer, _, failures = failing(server, lane="*", max_tries=1)
    seen: list[Event] = []
    broken = [True]

    @consumer.on("SONG_ENDED")
    async def handle(event: Event) -> None:
        if broken:
            raise RuntimeError("not now")
        seen.append(event)

    async with running(consumer):
        await until(lambda: bool(failures))
        (letter,) = await found(publisher)
        assert (letter.letter.id, letter.letter.subject) == ("own:x7", "sandwich.bot.events.music.0.0")
        broken.clear()
        await operations.open_replays(publisher.client, "bot", "g")
        await operations.replay_letter(publisher.client, letter)
        await until(lambda: bool(seen))
    assert (seen[0].raw, seen[0].seq) == (line, 0)


async def test_a_gap_whose_handler_fails_is_a_dead_letter_and_can_be_replayed(
    server: EmbeddedNats, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetstream, "REPLAY_POLL_S", 0.05)
    await publisher.control("gap", b'{"at":7}')
    consumer, _, failures = failing(server, max_tries=2)
    gaps: list[tuple[int, dict[str, Any]]] = []
    broken = True

    @consumer.on_gap
    async def gap(gap: Any) -> None:
        if broken:
            raise RuntimeError("not now")
        gaps.append((gap.shard, gap.detail))

    async with running(consumer):
        await until(lambda: bool(failures) and failures[-1].given_up)
        broken = False
        (letter,) = await found(publisher)
        assert letter.letter.kind == "gap"
        await operations.open_replays(publisher.client, "bot", "g")
        await operations.replay_letter(publisher.client, letter)
        await until(lambda: gaps == [(0, {"at": 7})])


@pytest.mark.parametrize("piece", [1_000_000, 64])
async def test_a_replay_reaches_its_group_once_and_no_other(
    server: EmbeddedNats, publisher: Publisher, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr(jetstream, "REPLAY_POLL_S", 0.05)
    monkeypatch.setattr(dead_letter_store, "piece_bytes", lambda max_payload: piece)
    await publisher.events(1)
    poison = [1]
    workers = [failing(server, group=name, max_tries=1) for name in ("g", "g", "h")]
    seen: dict[str, list[str]] = {"g": [], "h": []}

    def collect(consumer: Consumer, group: str) -> None:
        @consumer.on("A")
        async def handle(event: Event) -> None:
            if event.data["n"] in poison:
                raise RuntimeError("poison")
            seen[group].append(event.id)

    for (consumer, _, _), group in zip(workers, ("g", "g", "h"), strict=True):
        collect(consumer, group)
    async with running(*(consumer for consumer, _, _ in workers)):
        await until(lambda: sum(failure.given_up for _, _, failures in workers for failure in failures) == 2)
        (letter,) = await found(publisher, operations.LetterFilter(group="g"))
        assert await operations.open_replays(publisher.client, "bot", "g")
        await operations.replay_letter(publisher.client, letter)
        await until(lambda: sum(failure.given_up for _, _, failures in workers[:2] for failure in failures) == 2)
        (again,) = await found(publisher, operations.LetterFilter(names=("abc:1",), group="g"))
        assert again.number != letter.number
        assert (len(again.seqs) > 1) == (piece == 64)
        poison.clear()
        await operations.open_replays(publisher.client, "bot", "g")
        await operations.replay_letter(publisher.client, again)
        await until(lambda: seen == {"g": ["abc:1"], "h": []})
        await publisher.events(1)
        await until(lambda: seen == {"g": ["abc:1", "abc:2"], "h": ["abc:2"]})
    assert [each.letter.group for each in await found(publisher)] == ["h"]
    assert not await operations.open_replays(publisher.client, "bot", "absent")
    await operations.open_replays(publisher.client, "bot", "g")
    state = (await publisher.client.jetstream().stream_info(subjects.replay_stream_name("bot"))).state
    assert state.messages == 0


class Cli:
    """Run the command in a thread of this process; returns its exit code and output."""

    def __init__(self, etcd: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self._etcd, self._monkeypatch, self._capfd = etcd, monkeypatch, capfd

    async def __call__(self, *arguments: str) -> tuple[int, str]:
        self._monkeypatch.setattr(sys, "argv", ["sandwich", "--etcd", self._etcd, *arguments])

        def run() -> int:
            with pytest.raises(SystemExit) as ended:
                main()
            assert isinstance(ended.value.code, int)
            return ended.value.code

        code = await asyncio.to_thread(run)
        out, err = self._capfd.readouterr()
        assert "Traceback" not in out + err
        return code, out + err

    async def rows(self, *arguments: str) -> list[dict[str, Any]]:
        code, output = await self("dead", *arguments, "--json")
        assert code == 0, output
        rows: list[dict[str, Any]] = json.loads(output)["letters"]
        return rows


@pytest.fixture
async def sandwich(
    server: EmbeddedNats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> AsyncIterator[Cli]:
    """The command for a cluster with the application "bot" on our NATS."""
    async with EmbeddedEtcd(tmp_path / "etcd") as etcd:
        file = tmp_path / "cluster.yml"
        file.write_text(
            f"version: 1\nnats: {{servers: [{server.url!r}]}}\nredis: {{url: 'redis://127.0.0.1:6379/0'}}\n"
            "apps: {bot: {token: {env: TOKEN}, intents: [GUILDS]}}\n"
        )
        monkeypatch.setenv("TOKEN", "canary")
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        run = Cli(etcd.url, monkeypatch, capfd)
        code, output = await run("cluster", "apply", "-f", str(file), "--insecure-plaintext")
        assert code == 0, output
        yield run


async def test_an_operator_lists_replays_and_discards_dead_letters(
    server: EmbeddedNats, publisher: Publisher, sandwich: Cli
) -> None:
    await publisher.events(4, types=("A", "B"))
    consumer, _, failures = failing(server, 1, 2, 3, max_tries=1)
    assert await sandwich("dead", "list") == (0, "no dead letters: every event was handled\n")
    async with running(consumer):
        await until(lambda: len(failures) == 3)
    code, text = await sandwich("dead", "list", "--app", "bot", "--limit", "2")
    assert (code, text.count("\n"), "and 1 older: see --limit" in text) == (0, 4, True)
    assert text.index("abc:3") < text.index("abc:2")
    assert [
        (row["id"], row["type"], row["shard"], row["tries"]) for row in await sandwich.rows("list", "--type", "b")
    ] == [
        ("abc:3", "B", 0, 1),
        ("abc:1", "B", 0, 1),
    ]
    code, text = await sandwich("dead", "show", "bot", "abc:2")
    assert (code, '"n": 2' in text, "ValueError: cannot bear 2" in text) == (0, True, True)
    assert await sandwich("dead", "replay", "bot", "abc:2") == (0, "1 dead letter handed back to group g\n")
    assert await sandwich("dead", "discard", "bot", "--all") == (
        1,
        "sandwich: 2 dead letters of bot will be gone for good. Say --yes\n",
    )
    discarded = await sandwich("dead", "discard", "bot", "--group", "g", "--yes")
    assert discarded == (0, "2 dead letters discarded, of group g\n")
    assert await sandwich.rows("list") == []
    again, handled, _ = failing(server)
    async with running(again):
        await until(lambda: handled == [2])


async def test_a_failure_is_one_line_with_an_exit_code(
    server: EmbeddedNats, publisher: Publisher, sandwich: Cli
) -> None:
    refused = [
        await sandwich("dead", "list", "--app", "absent"),
        await sandwich("dead", "show", "bot", "7"),
        await sandwich("dead", "replay", "bot", "--all"),
        await sandwich("dead", "replay", "bot"),
    ]
    assert refused == [
        (1, "sandwich: there is no application absent; there are: bot\n"),
        (1, "sandwich: bot has no dead letter 7: see sandwich dead list --app bot\n"),
        (1, "sandwich: bot has no such dead letters: see sandwich dead list --app bot\n"),
        (2, "sandwich: say which letters: their numbers, --group, --type, or --all\n"),
    ]
    await publisher.client.close()
    await server.stop()
    code, text = await sandwich("dead", "list")
    assert (code, text.startswith("sandwich: NATS is not reachable")) == (2, True)


async def test_an_operator_creates_a_group_for_workers_that_may_not(
    server: EmbeddedNats, publisher: Publisher, sandwich: Cli
) -> None:
    js = publisher.client.jetstream()
    await publisher.events(2)
    assert await sandwich("group", "create", "bot", "plain", "--start", "all") == (0, "group plain of bot is there\n")
    assert await take(Consumer(server.url, app="bot", group="plain"), 2) == [1, 2]
    ordered = ("group", "create", "bot", "ordered", "--ordered", "--start", "all", "--shards")
    for shards, durables in (("256", 33), ("257", 65)):
        code, text = await sandwich(*ordered, shards)
        assert (code, text) == (0, "group ordered of bot is there\n")
        made = [each.name for each in await js.consumers_info("SANDWICH_bot")]
        assert sum(name == "ordered" or name.startswith("ordered@") for name in made) == durables
    assert await take(Consumer(server.url, app="bot", group="ordered", ordered=True), 2) == [1, 2]
    refused = [
        await sandwich("group", "create", "bot", "plain", "--ordered"),
        await sandwich("group", "create", "bot", "plain", "--lane", "other"),
        await sandwich("group", "create", "bot", "Plain"),
        await sandwich("group", "create", "bot", "plain", "--start", "yesterday"),
        await sandwich("group", "create", "bot", "plain", "--start", "2026-01-31"),
        await sandwich("group", "create", "absent", "plain"),
    ]
    assert [code for code, _ in refused] == [1, 1, 2, 2, 2, 1]
    assert "ordered" in refused[0][1]
    assert "reads sandwich.bot.events.all.>, not sandwich.bot.events.other.>" in refused[1][1]
    await js.delete_stream("SANDWICH_bot")
    code, text = await sandwich("group", "create", "bot", "plain")
    assert (code, "is not there yet" in text) == (1, True)
