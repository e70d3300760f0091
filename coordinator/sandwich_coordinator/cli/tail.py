"""`sandwich tail`: events as they are published, from now on, read straight from JetStream."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.api import DeliverPolicy

from sandwich_coordinator.cli.context import CommandError
from sandwich_coordinator.config import NATS_SECRET, NatsSettings
from sandwich_coordinator.sealing import ClusterKey, open_plain
from sandwich_coordinator.store.etcd import TlsOptions
from sandwich_sdk.wire.frame import inflate, split_events
from sandwich_sdk.wire.headers import FrameHeaders, WireError
from sandwich_sdk.wire.subjects import stream_name, stream_subjects

CONNECT_TIMEOUT_S = 3
NEXT_TIMEOUT_S = 1.0
_TEXT_MAX = 160


@dataclass(frozen=True, kw_only=True)
class TailOptions:
    """What to show: one application, these event types (none: all), as JSON lines or one short line each."""

    app: str
    types: frozenset[str]
    as_json: bool


def event_line(event: bytes, options: TailOptions) -> str | None:
    """One event as shown; None when its type is not wanted or it is not JSON."""
    try:
        decoded = msgspec.json.decode(event)
        kind, shard = decoded["t"], decoded["__sandwich"]["shard"]
    except (msgspec.MsgspecError, KeyError, TypeError):
        return None
    if options.types and kind not in options.types:
        return None
    if options.as_json:
        return event.decode(errors="replace")
    data = msgspec.json.encode(decoded.get("d")).decode(errors="replace")
    short = data if len(data) <= _TEXT_MAX else data[: _TEXT_MAX - 3] + "..."
    return f"{options.app} {shard[1]}/{shard[2]} {decoded.get('s')} {kind} {short}"


def frame_lines(headers: FrameHeaders, payload: bytes, options: TailOptions) -> list[str]:
    """The wanted events of one frame. Raises WireError for a corrupt one."""
    if headers.count == 0:
        return [f"{options.app} gap: events were lost after {headers.last_seq}"] if headers.kind == "gap" else []
    if headers.part is not None:
        return [f"{options.app} (an event in {headers.part[1]} parts)"] if headers.part[0] == 1 else []
    if options.types and headers.types and not options.types & headers.types:
        return []
    lines = (event_line(event, options) for event in split_events(inflate(payload)))
    return [line for line in lines if line is not None]


async def tail(
    settings: NatsSettings, key: ClusterKey | None, options: TailOptions, show: Callable[[str], None]
) -> None:
    """Show events until cancelled. Raises CommandError when NATS or the stream is not there."""
    password = None
    if settings.password:
        opened = key.unseal(NATS_SECRET, settings.password) if key else None
        password = opened or open_plain(NATS_SECRET, settings.password, allow_plain=True)
    tls = TlsOptions(
        ca_file=_path(settings.tls_ca), cert_file=_path(settings.tls_cert), key_file=_path(settings.tls_key)
    )
    try:
        client = await nats.connect(
            servers=settings.servers,
            user=settings.user or None,
            password=password,
            user_credentials=settings.credentials or None,
            tls=tls.context() if settings.tls_ca or settings.tls_cert else None,
            connect_timeout=CONNECT_TIMEOUT_S,
            max_reconnect_attempts=2,
        )
    except (OSError, TimeoutError, nats.errors.Error) as error:
        raise CommandError(f"NATS does not answer ({type(error).__name__}): {', '.join(settings.servers)}") from None
    try:
        await _show(client, options, show)
    finally:
        await client.close()


async def _show(client: Client, options: TailOptions, show: Callable[[str], None]) -> None:
    try:
        subscription = await client.jetstream().subscribe(
            stream_subjects(options.app)[0],
            stream=stream_name(options.app),
            ordered_consumer=True,
            deliver_policy=DeliverPolicy.NEW,
        )
    except (nats.js.errors.Error, nats.errors.Error, TimeoutError):
        raise CommandError(f"application {options.app} has no stream yet: no shard of it has published", 1) from None
    while True:
        try:
            message = await subscription.next_msg(timeout=NEXT_TIMEOUT_S)
        except nats.errors.TimeoutError:
            if client.is_closed:
                raise CommandError("the connection to NATS was lost") from None
            continue
        try:
            lines = frame_lines(FrameHeaders.decode(message.headers), message.data, options)
        except WireError as error:
            lines = [f"{options.app} (a frame that cannot be read: {error})"]
        for line in lines:
            show(line)


def _path(text: str) -> Path | None:
    return Path(text) if text else None
