"""`sandwich tail`: events as they are published, from now on, read straight from JetStream."""

import asyncio
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

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
from sandwich_coordinator.event_filter import EventFilter
from sandwich_coordinator.event_names import DOCUMENTED, matches, unknown_event
from sandwich_coordinator.operations.frame_events import decoded_event, joined, one_line
from sandwich_sdk.wire.frame import inflate, split_events
from sandwich_sdk.wire.headers import UNREADABLE, FrameHeaders, WireError
from sandwich_sdk.wire.subjects import stream_name, stream_subjects

NEXT_TIMEOUT_S = 1.0
PIPE_WIDTH = 160
"""Columns of a line without a terminal."""
_OURS = frozenset({"SANDWICH_MEMBER_INVITED"})


@dataclass(frozen=True, kw_only=True)
class TailOptions(EventFilter):
    """The events to show, and how."""

    as_json: bool = False


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
    decoded = decoded_event(event)
    if not options.wants(decoded["t"], decoded.get("d")):
        return None
    if options.as_json:
        return Line(one_line(event))
    return Line(event_lines.event_line(app, decoded, width, paint))


def frame_lines(
    app: str, headers: FrameHeaders, payload: bytes, options: TailOptions, width: int = PIPE_WIDTH, paint: Paint = PLAIN
) -> list[Line]:
    """The selected events of one frame. Raises WireError for a corrupt one."""
    if headers.count == 0:
        return [gap_line(app, headers.last_seq)] if headers.kind == "gap" else []
    if not options.may_want(headers.types):
        return []
    lines = (line_or_reason(app, event, options, width, paint) for event in split_events(inflate(payload)))
    return [line for line in lines if line is not None]


def gap_line(app: str, last_seq: int) -> Line:
    """That events were lost after the event of this number."""
    return Line(f"{app} gap: events were lost after {last_seq}", is_note=True)


def line_or_reason(app: str, event: bytes, options: TailOptions, width: int, paint: Paint) -> Line | None:
    """One event as shown, or why it cannot be shown: a corrupt one must not hide others or end the command."""
    try:
        return event_line(app, event, options, width, paint)
    except (LookupError, TypeError, *UNREADABLE) as error:
        text = f"{app} (an event of {len(event)} bytes that cannot be read: {type(error).__name__})"
        return Line(text, is_note=True)


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
