"""Answer events with handlers: python sdk.py nats://127.0.0.1:4222 mybot

In an application's account: NATS_USER, NATS_PASSWORD and NATS_DOMAIN=sandwich in the environment.
"""

import asyncio
import os
import sys

from sandwich_sdk import Consumer, Event, Gap

login = {"user": os.environ["NATS_USER"], "password": os.environ["NATS_PASSWORD"]} if "NATS_USER" in os.environ else {}
consumer = Consumer(
    sys.argv[1],
    app=sys.argv[2],
    group="example-sdk",
    start="all",
    domain=os.environ.get("NATS_DOMAIN"),
    connection=login,
)


@consumer.on_any
async def show(event: Event) -> None:
    print(event.type, event.id, flush=True)


@consumer.on_gap
async def lost(gap: Gap) -> None:
    print("events were lost on shard", gap.shard, file=sys.stderr, flush=True)


asyncio.run(consumer.run())
