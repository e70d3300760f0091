"""The same with nothing but nats-py and zstandard: python raw.py nats://127.0.0.1:4222 mybot"""

import asyncio
import json
import sys

import nats
import zstandard


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
            headers = message.headers or {}
            payload = message.data
            if "Sandwich-Part" in headers:
                index, total = map(int, headers["Sandwich-Part"].split("/"))
                held = parts.setdefault(message.subject, [])
                held[index - 1 :] = [payload]
                payload = b"".join(held) if len(held) == total == index else b""
            if headers.get("Sandwich-Count") != "0" and payload:
                for line in zstandard.ZstdDecompressor().decompressobj().decompress(payload).splitlines():
                    event = json.loads(line)
                    print(event["t"], event["__sandwich"]["id"], flush=True)
            await message.ack()


asyncio.run(main(sys.argv[1], sys.argv[2]))
