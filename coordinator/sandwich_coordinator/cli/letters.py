"""Dead letters as an operator handles them: look, send back to their group, throw away.

A replayed letter is copied into the replay stream of its application, under its group, and removed when the copy is
stored: it is never in neither. What the group has handled of its replays is swept from there by the next replay.
"""

import base64
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.api import ConsumerConfig, DeliverPolicy, RawStreamMsg

from sandwich_coordinator.cli.errors import CommandError
from sandwich_coordinator.cli.render import table
from sandwich_coordinator.durations import duration
from sandwich_sdk.errors import reason
from sandwich_sdk.streams import keep_streams
from sandwich_sdk.wire import subjects
from sandwich_sdk.wire.dead import EVENT, MESSAGE_ID, REPLAY_SUBJECT, DeadLetter, frame_of
from sandwich_sdk.wire.frame import inflate
from sandwich_sdk.wire.headers import PART, UNREADABLE, WireError
from sandwich_sdk.wire.plain_text import plain_json, plain_text
from sandwich_sdk.wire.surrogates import without_lone_surrogates

API_TIMEOUT_S = 5.0
REPLAYS_PENDING_MAX = 1000
ACK_WAIT_S = 30.0
ERROR_SHOWN = 60
SHARD_DIGITS_MAX = 9
NESTING_SHOWN_MAX = 200
"""Printing JSON with indents takes a frame of the stack for each level."""
_GONE = (10037, 10043, 10057)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which letters: these (numbers or event ids; none: any), of this group, of this event type."""

    names: tuple[str, ...] = ()
    group: str | None = None
    type: str | None = None

    def wants(self, found: "Found") -> bool:
        """Whether this letter is one of them."""
        letter = found.letter
        return (
            (not self.names or str(found.number) in self.names or (letter.id != "" and letter.id in self.names))
            and self.group in (None, letter.group)
            and self.type in (None, letter.type)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A letter in its stream: `number` is its last message's sequence, `seqs` those of all its messages, in order."""

    app: str
    number: int
    seqs: tuple[int, ...]
    letter: DeadLetter

    def row(self) -> dict[str, Any]:
        """What JSON and tables show of it."""
        letter = self.letter
        where = ("", *letter.subject.split("."))[-2:]
        # A letter says what its writer wrote there.
        shard_group, shard = (
            int(token) if token.isascii() and token.isdecimal() and len(token) <= SHARD_DIGITS_MAX else None
            for token in where
        )
        return {
            "app": self.app,
            "number": self.number,
            "kind": letter.kind,
            "group": letter.group,
            "type": letter.type or None,
            "id": letter.id or None,
            "shard_group": shard_group,
            "shard": shard,
            "stream_seq": letter.stream_seq,
            "tries": letter.tries,
            "at": letter.at,
            "error": letter.error,
        }


@contextmanager
def _answered() -> Iterator[None]:
    """NATS's troubles as a command's."""
    try:
        yield
    except nats.js.errors.APIError as error:
        raise CommandError(f"JetStream refused: {error.description or error.code}", 1) from None
    except (nats.errors.Error, TimeoutError, OSError) as error:
        raise CommandError(f"NATS does not answer: {reason(error)}") from None


async def read_letters(client: Client, app: str, wanted: Wanted) -> AsyncIterator[Found]:
    """The wanted letters of an application, oldest first. Raises CommandError."""
    with _answered():
        jetstream = client.jetstream(timeout=API_TIMEOUT_S)
        try:
            state = (await jetstream.stream_info(subjects.dead_stream_name(app))).state
        except nats.js.errors.NotFoundError:
            return
        if not state.messages:
            return
        reading = await jetstream.subscribe(
            subjects.dead_subject(app, "*"),
            stream=subjects.dead_stream_name(app),
            ordered_consumer=True,
            deliver_policy=DeliverPolicy.ALL,
            config=ConsumerConfig(headers_only=True),
        )
        begun: dict[str, list[int]] = {}
        pending = state.messages
        while pending:
            try:
                message = await reading.next_msg(timeout=API_TIMEOUT_S)
            except nats.errors.TimeoutError:
                if client.is_connected:
                    # What was left has been taken or discarded meanwhile.
                    break
                raise
            pending = message.metadata.num_pending
            found = gather(app, begun, message.metadata.sequence.stream, message.headers or {})
            if found is not None and wanted.wants(found):
                yield found
        await reading.unsubscribe()


def gather(app: str, begun: dict[str, list[int]], seq: int, headers: dict[str, str]) -> Found | None:
    """A letter, when this message is all or the last of it. `begun` keeps the sequences of parts, by letter."""
    try:
        letter = DeadLetter.decode(headers)
        index, _, total = headers.get(PART, "1/1").partition("/")
        last, first = int(index) == int(total), index == "1"
    except (WireError, ValueError):
        return None
    name = headers.get(MESSAGE_ID, "").removesuffix(f"/{index}") if total != "1" else ""
    seqs = [*([] if first else begun.pop(name, [])), seq]
    if not last:
        begun[name] = seqs
        return None
    if len(seqs) != int(total):
        return None
    return Found(app=app, number=seq, seqs=tuple(seqs), letter=letter)


async def _pieces(client: Client, found: Found) -> list[RawStreamMsg]:
    """A letter's messages. Raises CommandError (1) when it is gone."""
    jetstream = client.jetstream(timeout=API_TIMEOUT_S)
    with _answered():
        try:
            return [await jetstream.get_msg(subjects.dead_stream_name(found.app), seq) for seq in found.seqs]
        except nats.js.errors.NotFoundError:
            raise CommandError(
                f"dead letter {found.number} of {found.app} is gone: somebody took it just now", 1
            ) from None


async def read_content(client: Client, found: Found) -> dict[str, Any]:
    """A letter with what it holds, see `content_of`. Raises CommandError."""
    pieces = await _pieces(client, found)
    return content_of(found, pieces[0].headers or {}, b"".join(piece.data or b"" for piece in pieces))


def content_of(found: Found, headers: Mapping[str, str], payload: bytes) -> dict[str, Any]:
    """A letter's row with its `event`; with `headers` and `payload` (base64) where it is no event that can be shown."""
    row = found.row()
    if found.letter.kind == EVENT:
        try:
            event = msgspec.json.decode(without_lone_surrogates(inflate(payload)))
            if _nests_beyond(event, NESTING_SHOWN_MAX):
                raise WireError(f"it nests deeper than {NESTING_SHOWN_MAX} levels")
            return row | {"event": event}
        except UNREADABLE as error:
            row["unreadable"] = f"{type(error).__name__}: {error}"
    return row | {"headers": frame_of(headers), "payload": base64.b64encode(payload).decode()}


def _nests_beyond(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        lists = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        level = [child for children in lists for child in children]
        if not level:
            return False
    return True


async def replay(client: Client, found: Found) -> None:
    """Hand a letter to its group, and remove it when it is stored there. Raises CommandError."""
    jetstream = client.jetstream(timeout=API_TIMEOUT_S)
    subject = subjects.replay_subject(found.app, found.letter.group, found.number)
    pieces = await _pieces(client, found)
    with _answered():
        for index, piece in enumerate(pieces, start=1):
            headers = frame_of(piece.headers) | {REPLAY_SUBJECT: found.letter.subject}
            # With its time: letters of a stream that was made again are numbered from 1 again.
            headers[MESSAGE_ID] = f"replay/{found.number}/{found.letter.at:.3f}/{index}"
            if len(pieces) > 1:
                headers[PART] = f"{index}/{len(pieces)}"
            await jetstream.publish(subject, piece.data or b"", headers=headers)
    await discard(client, found)


async def discard(client: Client, found: Found) -> None:
    """Remove a letter for good; one that is gone already is no error. Raises CommandError."""
    jetstream = client.jetstream(timeout=API_TIMEOUT_S)
    with _answered():
        for seq in found.seqs:
            try:
                await jetstream.delete_msg(subjects.dead_stream_name(found.app), seq)
            except nats.js.errors.APIError as error:
                if error.err_code not in _GONE:
                    raise


async def open_replays(client: Client, app: str, group: str) -> bool:
    """Make what a group's replays need, and sweep those it has handled. False: no group of that name reads the app.

    Raises CommandError.
    """
    jetstream = client.jetstream(timeout=API_TIMEOUT_S)
    stream = subjects.replay_stream_name(app)
    filter_subject = subjects.replay_subject(app, group, "*")
    with _answered():
        await _keep_streams(client, app)
        try:
            reading = (await jetstream.consumer_info(subjects.stream_name(app), group)).config
        except nats.js.errors.NotFoundError:
            reading = None
        wanted = ConsumerConfig(
            name=group,
            durable_name=group,
            filter_subject=filter_subject,
            # As for its events: its workers tell their progress by that.
            ack_wait=reading.ack_wait if reading is not None else ACK_WAIT_S,
            max_ack_pending=REPLAYS_PENDING_MAX,
        )
        info = await jetstream.add_consumer(stream, wanted)
        if info.ack_floor is not None and info.ack_floor.stream_seq:
            await jetstream.purge_stream(stream, seq=info.ack_floor.stream_seq + 1, subject=filter_subject)
    return reading is not None


async def _keep_streams(client: Client, app: str) -> None:
    jetstream = client.jetstream(timeout=API_TIMEOUT_S)
    events = (await jetstream.stream_info(subjects.stream_name(app))).config
    await keep_streams(jetstream, app, replicas=events.num_replicas or 1)


def letters_text(found: Sequence[Found], total: int, now: float, *, filtered: bool = False) -> str:
    """The letters, newest first, as a table. `filtered`: others may be there."""
    if not found and filtered:
        return "no dead letters of this group and type"
    if not found:
        return "no dead letters: every event was handled"
    rows = [
        (
            each.app,
            each.number,
            f"{duration(now - each.letter.at)} ago",
            each.letter.group,
            each.letter.type or each.letter.kind,
            each.row()["shard"],
            each.letter.tries,
            each.letter.id or "-",
            short(each.letter.error),
        )
        for each in found
    ]
    heads = ("APP", "LETTER", "SINCE", "GROUP", "TYPE", "SHARD", "TRIES", "EVENT", "ERROR")
    lines = table(heads, rows)
    if total > len(found):
        lines.append(f"and {total - len(found)} older: see --limit")
    return "\n".join(lines)


def short(text: str) -> str:
    """An error as a table shows it."""
    text = plain_text(text)
    return text if len(text) <= ERROR_SHOWN else text[: ERROR_SHOWN - 3] + "..."


def content_text(content: dict[str, Any]) -> str:
    """One letter with all that is in it, for people."""
    row = dict(content)
    inside = {name: row.pop(name) for name in ("event", "headers", "payload") if name in row}
    row["at"] = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row["at"]))
    width = max(map(len, row))
    lines = [plain_text(f"{name.ljust(width)}  {value}") for name, value in row.items() if value is not None]
    for name, value in inside.items():
        body = plain_text(value) if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
        lines.append(f"{name}\n{plain_json(body)}")
    return "\n".join(lines)
