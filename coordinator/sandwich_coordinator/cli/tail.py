"""`sandwich tail`: events as they are published, from now on, read straight from JetStream."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.api import DeliverPolicy

from sandwich_coordinator.cli.context import CommandError
from sandwich_coordinator.cli.messaging import Messaging, connect
from sandwich_sdk.wire.frame import inflate, split_events
from sandwich_sdk.wire.headers import UNREADABLE, FrameHeaders, WireError
from sandwich_sdk.wire.subjects import stream_name, stream_subjects
from sandwich_sdk.wire.text import without_lone_surrogates

NEXT_TIMEOUT_S = 1.0
_TEXT_MAX = 160


@dataclass(frozen=True, kw_only=True)
class TailOptions:
    """What to show: these applications and event types (no types: all), as JSON lines or one short line each."""

    apps: tuple[str, ...]
    types: frozenset[str]
    as_json: bool


def event_line(app: str, event: bytes, options: TailOptions) -> str | None:
    """One event as shown; None when its type is not wanted. Raises LookupError, TypeError, UNREADABLE for damage."""
    decoded = msgspec.json.decode(without_lone_surrogates(event))
    kind, shard = decoded["t"], decoded["__sandwich"]["shard"]
    if options.types and kind not in options.types:
        return None
    if options.as_json:
        return event.decode(errors="replace")
    data = msgspec.json.encode(decoded.get("d")).decode(errors="replace")
    short = data if len(data) <= _TEXT_MAX else data[: _TEXT_MAX - 3] + "..."
    return f"{app} {shard[1]}/{shard[2]} {decoded.get('s')} {kind} {short}"


def frame_lines(app: str, headers: FrameHeaders, payload: bytes, options: TailOptions) -> list[str]:
    """The wanted events of one frame. Raises WireError for a corrupt one."""
    if headers.count == 0:
        return [f"{app} gap: events were lost after {headers.last_seq}"] if headers.kind == "gap" else []
    if options.types and headers.types and not options.types & headers.types:
        return []
    lines = (_line_or_reason(app, event, options) for event in split_events(inflate(payload)))
    return [line for line in lines if line is not None]


def _line_or_reason(app: str, event: bytes, options: TailOptions) -> str | None:
    """One event as shown, or why it cannot be: a damaged one hides no other, and ends nothing."""
    try:
        return event_line(app, event, options)
    except (LookupError, TypeError, *UNREADABLE) as error:
        return f"{app} (an event of {len(event)} bytes that cannot be read: {type(error).__name__})"


def joined(parts: dict[str, bytes], subject: str, headers: FrameHeaders, payload: bytes) -> bytes | None:
    """A frame's payload; None while parts of it are still to come. `parts` keeps what came, by subject."""
    index, total = headers.part or (1, 1)
    before = parts.pop(subject, b"") if index > 1 else b""
    if index > 1 and not before:
        # We began to look in the middle of it.
        return None
    if index < total:
        parts[subject] = before + payload
        return None
    return before + payload


async def tail(messaging: Messaging, options: TailOptions, show: Callable[[str], None]) -> None:
    """Show events until cancelled. Raises CommandError when NATS or the stream is not there."""
    failure: BaseException | None = None
    async with connect(messaging) as client:
        try:
            async with asyncio.TaskGroup() as group:
                for app in options.apps:
                    group.create_task(_show(client, app, options, show))
        except* (CommandError, BrokenPipeError) as failed:
            failure = failed.exceptions[0]
    if failure is not None:
        raise failure


async def _show(client: Client, app: str, options: TailOptions, show: Callable[[str], None]) -> None:
    parts: dict[str, bytes] = {}
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
            lines = frame_lines(app, headers, payload, options) if payload is not None else []
        except WireError as error:
            lines = [f"{app} (a frame that cannot be read: {error})"]
        for line in lines:
            show(line)
