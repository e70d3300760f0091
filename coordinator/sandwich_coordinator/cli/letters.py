"""Dead letters as an operator handles them: look, send back to their group, throw away.

A replayed letter is copied into the replay stream of its application, under its group, and removed when the copy is
stored: it is never in neither. What the group has handled of its replays is swept from there by the next replay.
"""

import base64
import json
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.api import ConsumerConfig, DeliverPolicy, RawStreamMsg

from sandwich_coordinator.cli.context import CommandError
from sandwich_coordinator.cli.render import duration, table
from sandwich_sdk.streams import keep_streams
from sandwich_sdk.wire import subjects
from sandwich_sdk.wire.dead import EVENT, MESSAGE_ID, REPLAY_SUBJECT, DeadLetter, frame_of
from sandwich_sdk.wire.frame import inflate
from sandwich_sdk.wire.headers import PART, WireError

API_TIMEOUT_S = 5.0
REPLAYS_PENDING_MAX = 1000
ACK_WAIT_S = 30.0
ERROR_SHOWN = 60
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
        where = letter.subject.split(".")[-2:]
        shard_group, shard = (int(token) if token.isdecimal() else None for token in where)
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
        raise CommandError(f"NATS does not answer ({type(error).__name__})") from None


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
    """A letter with what it holds: `event`, or `headers` and `payload` (base64) of what is none."""
    pieces = await _pieces(client, found)
    payload = b"".join(piece.data or b"" for piece in pieces)
    row = found.row()
    if found.letter.kind == EVENT:
        try:
            return row | {"event": msgspec.json.decode(inflate(payload))}
        except (WireError, msgspec.MsgspecError) as error:
            raise CommandError(f"dead letter {found.number} of {found.app} cannot be read: {error}", 1) from None
    return row | {"headers": frame_of(pieces[0].headers), "payload": base64.b64encode(payload).decode()}


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


def letters_text(found: Sequence[Found], total: int, now: float) -> str:
    """The letters, newest first, as a table."""
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
    return text if len(text) <= ERROR_SHOWN else text[: ERROR_SHOWN - 3] + "..."


def content_text(content: dict[str, Any]) -> str:
    """One letter with all that is in it, for people."""
    row = dict(content)
    inside = {name: row.pop(name) for name in ("event", "headers", "payload") if name in row}
    row["at"] = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row["at"]))
    width = max(map(len, row))
    lines = [f"{name.ljust(width)}  {value}" for name, value in row.items() if value is not None]
    for name, value in inside.items():
        body = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
        lines.append(f"{name}\n{body}")
    return "\n".join(lines)
