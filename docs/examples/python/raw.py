"""The same with nothing but nats-py and zstandard: python raw.py nats://127.0.0.1:4222 mybot

In an application's account: NATS_USER, NATS_PASSWORD and NATS_DOMAIN=sandwich in the environment.
"""

import asyncio
import json
import os
import sys

import nats
import zstandard

GROUP = "example-raw"
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


async def main(server: str, app: str) -> None:
    login = (
        {"user": os.environ["NATS_USER"], "password": os.environ["NATS_PASSWORD"]} if "NATS_USER" in os.environ else {}
    )
    client = await nats.connect(server, max_reconnect_attempts=-1, **login)
    jetstream = client.jetstream(domain=os.environ.get("NATS_DOMAIN"))
    try:
        # The group is made when it is missing; in an application's account only the operator may make it.
        consumer = await jetstream.pull_subscribe(f"sandwich.{app}.events.all.>", GROUP, f"SANDWICH_{app}")
    except (nats.errors.Error, TimeoutError) as error:
        sys.exit(
            f"group {GROUP} cannot be opened ({error!r}); the operator makes it: sandwich group create {app} {GROUP}"
        )
    parts: dict[str, list[bytes]] = {}
    while True:
        try:
            messages = await consumer.fetch(64, timeout=5)
        except nats.errors.TimeoutError:
            continue
        for message in messages:
            show(message, parts)
            await message.ack()


try:
    asyncio.run(main(sys.argv[1], sys.argv[2]))
except KeyboardInterrupt:
    pass
