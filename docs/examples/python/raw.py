"""The same with nothing but nats-py and zstandard: python raw.py nats://127.0.0.1:4222 mybot"""

import asyncio
import json
import sys

import nats
import zstandard

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
    client = await nats.connect(server, max_reconnect_attempts=-1)
    stream, lane = f"SANDWICH_{app}", f"sandwich.{app}.events.all.>"
    consumer = await client.jetstream().pull_subscribe(lane, durable="example-raw", stream=stream)
    parts: dict[str, list[bytes]] = {}
    while True:
        try:
            messages = await consumer.fetch(64, timeout=5)
        except nats.errors.TimeoutError:
            continue
        for message in messages:
            show(message, parts)
            await message.ack()


asyncio.run(main(sys.argv[1], sys.argv[2]))
