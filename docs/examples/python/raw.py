"""Print an application's events with nothing but nats-py and zstandard: python raw.py APPLICATION GROUP

NATS_URL                  default nats://127.0.0.1:4222; with tls:// the connection has TLS
NATS_USER, NATS_PASSWORD  the application's user; or NATS_CREDS, a credentials file (with nats-py[nkeys])
NATS_DOMAIN               "sandwich" in an application's account
NATS_CA                   the file of a CA that the system does not know
"""

import asyncio
import contextlib
import json
import os
import signal
import ssl
import sys

import nats
import zstandard
from nats.js.api import ConsumerConfig

env = os.environ.get
URL = env("NATS_URL", "nats://127.0.0.1:4222")
FRAME_BYTES_MAX = 512 * 1024 * 1024
UNREADABLE = (ValueError, LookupError, TypeError, RecursionError, MemoryError, zstandard.ZstdError)


def whole(message, parts: dict[str, list[bytes]]) -> bytes:
    """A frame's payload; b"" for a part that is not the last, and for frames without events."""
    headers = message.headers or {}
    if headers.get("Sandwich-Count") == "0":
        return b""
    if "Sandwich-Part" not in headers:
        return message.data
    index, total = map(int, headers["Sandwich-Part"].split("/"))
    held = parts.setdefault(message.subject, [])
    held[index - 1 :] = [message.data]
    return b"".join(held) if len(held) == total == index else b""


def show(message, parts: dict[str, list[bytes]]) -> None:
    """Print a frame's events. One that cannot be read is passed over: it would come again for ever."""
    try:
        payload = whole(message, parts)
        lines = zstandard.ZstdDecompressor().stream_reader(payload).read(FRAME_BYTES_MAX).split(b"\n")[:-1]
    except UNREADABLE as error:
        print("a frame cannot be read:", type(error).__name__, file=sys.stderr)
        return
    for line in lines:
        try:
            event = json.loads(line)
            print(event["t"], event["__sandwich"]["id"], flush=True)
        except UNREADABLE as error:
            print("an event cannot be read:", type(error).__name__, file=sys.stderr)


class Client(nats.NATS):
    """nats-py, which needs TLS for `tls://`: by itself it goes on without, and sends the password."""

    async def _process_info(self, info, initial_connection=False):
        if URL.startswith("tls://") and initial_connection:
            if not (info.get("tls_required") or info.get("tls_available")):
                raise nats.errors.Error("the server has no TLS")
            info["tls_required"] = True
        await super()._process_info(info, initial_connection)


async def report(error: Exception) -> None:
    print("NATS:", str(error) or type(error).__name__, file=sys.stderr)


async def connect(client: Client) -> None:
    await client.connect(
        URL.split(","),
        user=env("NATS_USER"),
        password=env("NATS_PASSWORD"),
        user_credentials=env("NATS_CREDS"),
        tls=ssl.create_default_context(cafile=env("NATS_CA")) if env("NATS_CA") else None,
        max_reconnect_attempts=-1,
        error_cb=report,
    )


async def open_group(client: Client, app: str, group: str):
    """The group's durable. One that is missing is created, where NATS has no accounts."""
    stream = client.jetstream(domain=env("NATS_DOMAIN"))
    config = ConsumerConfig(max_ack_pending=10_000)
    try:
        return await stream.pull_subscribe(f"sandwich.{app}.events.all.>", group, f"SANDWICH_{app}", config)
    except nats.errors.Error as error:
        reason = getattr(error, "description", None) or type(error).__name__
        sys.exit(
            f"The group {group} cannot be opened or created ({reason}).\n"
            f"The operator creates it: sandwich group create {app} {group}\n"
            "In an application's account, and only there, NATS_DOMAIN is sandwich."
        )


async def main(app: str, group: str) -> None:
    parts: dict[str, list[bytes]] = {}
    async with Client() as client:
        await connect(client)
        durable = await open_group(client, app, group)
        while True:
            try:
                messages = await durable.fetch(64, timeout=5)
            except nats.errors.TimeoutError:
                continue
            for message in messages:
                show(message, parts)
                await message.ack()


if len(sys.argv) != 3:
    sys.exit(__doc__)
# asyncio handles SIGINT: it cancels `main`, which then closes the connection and sends the last acknowledgements.
signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(main(*sys.argv[1:]))
