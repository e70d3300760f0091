"""Operating dead letters: list, show, replay to their group, discard.

A replayed letter is copied into the replay stream of its application, under its group, and removed when the copy is
stored: at each moment at least one stream has it. The next replay removes the copies that the group has handled.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.api import ConsumerConfig, DeliverPolicy, RawStreamMsg

from sandwich_coordinator.operations.errors import NotFound
from sandwich_coordinator.operations.jetstream_api import API_TIMEOUT_S, answered
from sandwich_sdk.streams import keep_streams
from sandwich_sdk.wire import subjects
from sandwich_sdk.wire.dead import EVENT, MESSAGE_ID, REPLAY_SUBJECT, DeadLetter, frame_of
from sandwich_sdk.wire.frame import inflate
from sandwich_sdk.wire.headers import PART, UNREADABLE, WireError
from sandwich_sdk.wire.surrogates import without_lone_surrogates

REPLAYS_PENDING_MAX = 1000
ACK_WAIT_S = 30.0
SHARD_DIGITS_MAX = 9
NESTING_SHOWN_MAX = 200
"""A front end that prints JSON with indents takes a stack frame for each level."""
_GONE = (10037, 10043, 10057)
"""JetStream's error codes for a message that does not exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterFilter:
    """Which letters: those named (numbers or event ids; empty: any), of this group, of this event type."""

    names: tuple[str, ...] = ()
    group: str | None = None
    type: str | None = None

    def matches(self, stored: "StoredLetter") -> bool:
        """Whether this letter is one of them."""
        letter = stored.letter
        return (
            (not self.names or str(stored.number) in self.names or (letter.id != "" and letter.id in self.names))
            and self.group in (None, letter.group)
            and self.type in (None, letter.type)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLetter:
    """A letter in its stream: `number` is its last message's sequence, `seqs` those of all its messages, in order."""

    app: str
    number: int
    seqs: tuple[int, ...]
    letter: DeadLetter

    @property
    def shard(self) -> tuple[int | None, int | None]:
        """Shard group and shard, from the event's subject; None where that names none: a consumer wrote it."""
        group, shard = ("", *self.letter.subject.split("."))[-2:]
        return _number(group), _number(shard)


def _number(token: str) -> int | None:
    return int(token) if token.isascii() and token.isdecimal() and len(token) <= SHARD_DIGITS_MAX else None


@dataclass(frozen=True, slots=True)
class LetterList:
    """The newest letters, newest first, and how many there are."""

    total: int
    letters: tuple[StoredLetter, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterContent:
    """A letter and what it holds: `event`, or `headers` and `payload` where that is no event that can be shown.

    `unreadable`: why an event cannot be shown.
    """

    stored: StoredLetter
    event: Any = None
    unreadable: str = ""
    headers: Mapping[str, str] | None = None
    payload: bytes | None = None


@dataclass(frozen=True, slots=True)
class Replayed:
    """The letter is in the replay stream and no longer a dead letter."""

    stored: StoredLetter


@dataclass(frozen=True, slots=True)
class GroupNotRead:
    """No consumer group of this name reads the application now: it receives the letters when a worker of it runs."""

    app: str
    group: str


ReplayReport = Callable[[Replayed | GroupNotRead], None]


async def list_letters(client: Client, apps: Iterable[str], wanted: LetterFilter, *, limit: int) -> LetterList:
    """The newest `limit` letters of these applications that match. Raises Refused and Unavailable."""
    total = 0
    newest: list[StoredLetter] = []
    for app in apps:
        of_app: deque[StoredLetter] = deque(maxlen=limit)
        async for stored in read_letters(client, app, wanted):
            of_app.append(stored)
            total += 1
        newest += of_app
    return LetterList(total, tuple(newest_first(newest)[:limit]))


def newest_first(letters: Iterable[StoredLetter]) -> list[StoredLetter]:
    """The letters of several applications in the order of a list."""
    return sorted(letters, key=lambda stored: (stored.letter.at, stored.number), reverse=True)


async def find_letters(client: Client, app: str, wanted: LetterFilter) -> list[StoredLetter]:
    """The letters that match, oldest first. Raises NotFound when one that is named does not exist, or none matches."""
    found = [stored async for stored in read_letters(client, app, wanted)]
    check_found(app, wanted, found)
    return found


def check_found(app: str, wanted: LetterFilter, found: Iterable[StoredLetter]) -> None:
    """Raise NotFound when a letter that is named was not found, or none matches."""
    there = {str(stored.number) for stored in found} | {stored.letter.id for stored in found}
    missing = ", ".join(name for name in wanted.names if name not in there)
    see = f"see sandwich dead list --app {app}"
    if missing:
        raise NotFound("dead letter", missing, (), f"{app} has no dead letter {missing}: {see}")
    if not there:
        raise NotFound("dead letter", "", (), f"{app} has no such dead letters: {see}")


async def read_letters(client: Client, app: str, wanted: LetterFilter) -> AsyncIterator[StoredLetter]:
    """The letters of an application that match, oldest first. Raises Refused and Unavailable."""
    with answered():
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
                    # The rest was replayed or discarded in the meantime.
                    break
                raise
            pending = message.metadata.num_pending
            found = gather(app, begun, message.metadata.sequence.stream, message.headers or {})
            if found is not None and wanted.matches(found):
                yield found
        await reading.unsubscribe()


def gather(app: str, begun: dict[str, list[int]], seq: int, headers: dict[str, str]) -> StoredLetter | None:
    """The letter that this message completes, if it does. `begun` keeps the sequences of parts, by letter."""
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
    return StoredLetter(app=app, number=seq, seqs=tuple(seqs), letter=letter)


async def _pieces(client: Client, found: StoredLetter) -> list[RawStreamMsg]:
    """A letter's messages. Raises NotFound when it is gone."""
    jetstream = client.jetstream(timeout=API_TIMEOUT_S)
    with answered():
        try:
            return [await jetstream.get_msg(subjects.dead_stream_name(found.app), seq) for seq in found.seqs]
        except nats.js.errors.NotFoundError:
            gone = f"dead letter {found.number} of {found.app} is gone: another operator took it just now"
            raise NotFound("dead letter", str(found.number), (), gone) from None


async def read_content(client: Client, found: StoredLetter) -> LetterContent:
    """A letter with what it holds. Raises NotFound, Refused and Unavailable."""
    pieces = await _pieces(client, found)
    return content_of(found, pieces[0].headers or {}, b"".join(piece.data or b"" for piece in pieces))


def content_of(found: StoredLetter, headers: Mapping[str, str], payload: bytes) -> LetterContent:
    """What the messages of a letter hold. Pure."""
    unreadable = ""
    if found.letter.kind == EVENT:
        try:
            event = msgspec.json.decode(without_lone_surrogates(inflate(payload)))
            if _nests_beyond(event, NESTING_SHOWN_MAX):
                raise WireError(f"it nests deeper than {NESTING_SHOWN_MAX} levels")
            return LetterContent(stored=found, event=event)
        except UNREADABLE as error:
            unreadable = f"{type(error).__name__}: {error}"
    return LetterContent(stored=found, unreadable=unreadable, headers=frame_of(headers), payload=payload)


def _nests_beyond(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        lists = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        level = [child for children in lists for child in children]
        if not level:
            return False
    return True


async def replay_letters(client: Client, letters: Sequence[StoredLetter], *, report: ReplayReport) -> None:
    """Send letters back to their groups, in this order; each one is reported when it is done.

    Raises NotFound for a letter that is gone, Refused and Unavailable.
    """
    for app, group in sorted({(stored.app, stored.letter.group) for stored in letters}):
        if not await open_replays(client, app, group):
            report(GroupNotRead(app, group))
    for stored in letters:
        await replay_letter(client, stored)
        report(Replayed(stored))


async def replay_letter(client: Client, found: StoredLetter) -> None:
    """Copy a letter to its group's replays, see `open_replays`, and remove it when the copy is stored.

    Raises NotFound, Refused and Unavailable.
    """
    jetstream = client.jetstream(timeout=API_TIMEOUT_S)
    subject = subjects.replay_subject(found.app, found.letter.group, found.number)
    pieces = await _pieces(client, found)
    with answered():
        for index, piece in enumerate(pieces, start=1):
            headers = frame_of(piece.headers) | {REPLAY_SUBJECT: found.letter.subject}
            # With the letter's time: in a stream that was made again, numbers begin at 1 again.
            headers[MESSAGE_ID] = f"replay/{found.number}/{found.letter.at:.3f}/{index}"
            if len(pieces) > 1:
                headers[PART] = f"{index}/{len(pieces)}"
            await jetstream.publish(subject, piece.data or b"", headers=headers)
    await discard_letter(client, found)


async def discard_letters(client: Client, letters: Iterable[StoredLetter]) -> None:
    """Remove letters for good. Raises Refused and Unavailable."""
    for stored in letters:
        await discard_letter(client, stored)


async def discard_letter(client: Client, found: StoredLetter) -> None:
    """Remove a letter for good; one that is gone already is no error. Raises Refused and Unavailable."""
    jetstream = client.jetstream(timeout=API_TIMEOUT_S)
    with answered():
        for seq in found.seqs:
            try:
                await jetstream.delete_msg(subjects.dead_stream_name(found.app), seq)
            except nats.js.errors.APIError as error:
                if error.err_code not in _GONE:
                    raise


async def open_replays(client: Client, app: str, group: str) -> bool:
    """Make what a group's replays need, and remove the handled ones. False: no group of that name reads the app.

    Raises Refused and Unavailable.
    """
    jetstream = client.jetstream(timeout=API_TIMEOUT_S)
    stream = subjects.replay_stream_name(app)
    filter_subject = subjects.replay_subject(app, group, "*")
    with answered():
        await _keep_streams(client, app)
        try:
            reading = (await jetstream.consumer_info(subjects.stream_name(app), group)).config
        except nats.js.errors.NotFoundError:
            reading = None
        wanted = ConsumerConfig(
            name=group,
            durable_name=group,
            filter_subject=filter_subject,
            # As for its events: its workers time their progress reports by it.
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
