"""`sandwich tail`: events as they are published, from now on, read straight from JetStream."""

import asyncio
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.api import DeliverPolicy

from sandwich_coordinator.cli import event_lines
from sandwich_coordinator.cli.cache import check_id
from sandwich_coordinator.cli.errors import CommandError
from sandwich_coordinator.cli.messaging import Messaging, connect
from sandwich_coordinator.cli.output import paint_for, say, show_painted
from sandwich_coordinator.cli.paint import PLAIN, Paint
from sandwich_coordinator.event_names import DOCUMENTED, matches, matches_any, unknown_event
from sandwich_sdk.wire.frame import inflate, split_events
from sandwich_sdk.wire.headers import UNREADABLE, FrameHeaders, WireError
from sandwich_sdk.wire.plain_text import plain_json
from sandwich_sdk.wire.subjects import stream_name, stream_subjects
from sandwich_sdk.wire.surrogates import without_lone_surrogates

NEXT_TIMEOUT_S = 1.0
PIPE_WIDTH = 160
"""Columns of a line without a terminal."""
_OURS = frozenset({"SANDWICH_MEMBER_INVITED"})
_SPACES = {ord(character): " " for character in "\t\n\r"}


@dataclass(frozen=True, kw_only=True)
class TailOptions:
    """The events to show: types (patterns; none: all), guild, channel, user and text ("": any)."""

    types: frozenset[str] = frozenset()
    guild: str = ""
    channel: str = ""
    user: str = ""
    text: str = ""
    as_json: bool = False

    def wants(self, kind: str, data: object) -> bool:
        """Whether an event of this type and content is shown."""
        return (
            (not self.types or matches_any(self.types, kind))
            and (not self.guild or self.guild in event_lines.guilds(kind, data))
            and (not self.channel or self.channel in event_lines.channels(kind, data))
            and (not self.user or self.user in event_lines.users(data))
            and (not self.text or event_lines.has_text(data, self.text))
        )


@dataclass(frozen=True, slots=True)
class Line:
    """A line to show; a note is about the stream, not an event of it."""

    text: str
    is_note: bool = False


Show = Callable[[Line], None]


def check_filter(option: str, value: str | None) -> str:
    """The id of a filter, "" for none. Raises CommandError."""
    try:
        return check_id(value) if value is not None else ""
    except CommandError as error:
        raise CommandError(f"{option}: {error}") from None


def unknown_types(types: Iterable[str]) -> list[str]:
    """A warning for each type that no event has, unless a bot of the cluster publishes it."""
    found = []
    for name in sorted(types - _OURS if isinstance(types, frozenset) else types):
        if name.endswith("*"):
            known = any(matches(name, documented) for documented in DOCUMENTED)
            warning = None if known else f"Discord documents no event {name}"
        else:
            warning = unknown_event(name)
        if warning is not None:
            found.append(f"--type {name}: {warning}")
    return found


def shown(options: TailOptions) -> Show:
    """Writes lines to stdout; with JSON, notes go to stderr."""

    def show(line: Line) -> None:
        if line.is_note:
            say(line.text, err=options.as_json)
        else:
            show_painted(line.text)

    return show


def event_line(app: str, event: bytes, options: TailOptions, width: int, paint: Paint = PLAIN) -> Line | None:
    """One event as shown; None when it is filtered out. Raises LookupError, TypeError, UNREADABLE for a corrupt one."""
    decoded = msgspec.json.decode(without_lone_surrogates(event))
    kind = decoded["t"]
    if not isinstance(kind, str):
        raise TypeError("its type is no string")
    if not options.wants(kind, decoded.get("d")):
        return None
    if options.as_json:
        # Strings of valid JSON contain no line breaks: all line breaks are between values.
        return Line(plain_json(event.decode(errors="replace").translate(_SPACES)))
    return Line(event_lines.event_line(app, decoded, width, paint))


def frame_lines(
    app: str, headers: FrameHeaders, payload: bytes, options: TailOptions, width: int = PIPE_WIDTH, paint: Paint = PLAIN
) -> list[Line]:
    """The selected events of one frame. Raises WireError for a corrupt one."""
    if headers.count == 0:
        lost = Line(f"{app} gap: events were lost after {headers.last_seq}", is_note=True)
        return [lost] if headers.kind == "gap" else []
    if options.types and headers.types and not any(matches_any(options.types, kind) for kind in headers.types):
        return []
    lines = (_line_or_reason(app, event, options, width, paint) for event in split_events(inflate(payload)))
    return [line for line in lines if line is not None]


def _line_or_reason(app: str, event: bytes, options: TailOptions, width: int, paint: Paint) -> Line | None:
    """One event as shown, or why it cannot be shown: a corrupt one must not hide others or end the command."""
    try:
        return event_line(app, event, options, width, paint)
    except (LookupError, TypeError, *UNREADABLE) as error:
        text = f"{app} (an event of {len(event)} bytes that cannot be read: {type(error).__name__})"
        return Line(text, is_note=True)


def joined(parts: dict[str, bytes], subject: str, headers: FrameHeaders, payload: bytes) -> bytes | None:
    """A frame's payload; None while parts are missing. `parts` collects the parts by subject."""
    index, total = headers.part or (1, 1)
    before = parts.pop(subject, b"") if index > 1 else b""
    if index > 1 and not before:
        # The command started in the middle of the frame.
        return None
    if index < total:
        parts[subject] = before + payload
        return None
    return before + payload


async def tail(messaging: Messaging, options: TailOptions, show: Show) -> None:
    """Show events until cancelled. Raises CommandError when NATS or the stream is not available."""
    failure: BaseException | None = None
    async with connect(messaging) as client:
        try:
            async with asyncio.TaskGroup() as group:
                for app in messaging.apps:
                    group.create_task(_show(client, app, options, show))
        except* (CommandError, BrokenPipeError) as failed:
            failure = failed.exceptions[0]
    if failure is not None:
        raise failure


async def _show(client: Client, app: str, options: TailOptions, show: Show) -> None:
    parts: dict[str, bytes] = {}
    paint = paint_for(sys.stdout)
    try:
        subscription = await client.jetstream().subscribe(
            stream_subjects(app)[0],
            stream=stream_name(app),
            ordered_consumer=True,
            deliver_policy=DeliverPolicy.NEW,
        )
    except (nats.js.errors.Error, nats.errors.Error, TimeoutError):
        raise CommandError(f"application {app} has no stream yet: no shard of it has published", 1) from None
    while True:
        try:
            message = await subscription.next_msg(timeout=NEXT_TIMEOUT_S)
        except nats.errors.TimeoutError:
            if client.is_closed:
                raise CommandError("the connection to NATS was lost") from None
            continue
        try:
            headers = FrameHeaders.decode(message.headers)
            payload = joined(parts, message.subject, headers, message.data)
            width = shutil.get_terminal_size((PIPE_WIDTH, 24)).columns
            lines = frame_lines(app, headers, payload, options, width, paint) if payload is not None else []
        except WireError as error:
            lines = [Line(f"{app} (a frame that cannot be read: {error})", is_note=True)]
        for line in lines:
            show(line)
