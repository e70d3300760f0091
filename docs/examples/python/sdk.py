"""Print an application's events with the SDK: python sdk.py APPLICATION GROUP

NATS_URL                  default nats://127.0.0.1:4222; with tls:// the connection has TLS
NATS_USER, NATS_PASSWORD  the application's user; or NATS_CREDS, a credentials file (with nats-py[nkeys])
NATS_DOMAIN               "sandwich" in an application's account
NATS_CA                   the file of a CA that the system does not know
"""

import asyncio
import os
import ssl
import sys

from sandwich_sdk import Consumer, Event, Gap

if len(sys.argv) != 3:
    sys.exit(__doc__)
env = os.environ.get
consumer = Consumer(
    env("NATS_URL", "nats://127.0.0.1:4222").split(","),
    app=sys.argv[1],
    group=sys.argv[2],
    start="all",
    domain=env("NATS_DOMAIN"),
    connection={
        "user": env("NATS_USER"),
        "password": env("NATS_PASSWORD"),
        "user_credentials": env("NATS_CREDS"),
        "tls": ssl.create_default_context(cafile=env("NATS_CA")) if env("NATS_CA") else None,
    },
)


@consumer.on_any
async def show(event: Event) -> None:
    print(event.type, event.id, flush=True)


@consumer.on_gap
async def lost(gap: Gap) -> None:
    print("events were lost on shard", gap.shard, file=sys.stderr, flush=True)


asyncio.run(consumer.run())
