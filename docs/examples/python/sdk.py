"""Answer events with handlers: python sdk.py nats://127.0.0.1:4222 mybot"""

import asyncio
import sys

from sandwich_sdk import Consumer, Event, Gap

consumer = Consumer(sys.argv[1], app=sys.argv[2], group="example-sdk", start="all")


@consumer.on_any
async def show(event: Event) -> None:
    print(event.type, event.id, flush=True)


@consumer.on_gap
async def lost(gap: Gap) -> None:
    print("events were lost on shard", gap.shard, file=sys.stderr, flush=True)


asyncio.run(consumer.run())
