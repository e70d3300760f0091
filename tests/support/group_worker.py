"""One worker of a consumer group in its own process. It writes its actions into a file that all workers share.

Each line is one append, so that the lines of all workers are in the order of their actions. The worker named "victim"
hangs in a handler after it has handled some events.
"""

import asyncio
import os
import random
import sys

from sandwich_sdk import Consumer, Event

VICTIM_HANDLES = 5


async def main(url: str, name: str, path: str, mode: str) -> None:
    """Run until a signal arrives."""
    ordered = mode == "ordered"
    consumer = Consumer(
        url, app="bot", group="o", start="all", ordered=ordered, concurrency=4, ack_wait=1.0, nak_delay=0.01
    )
    consumer.on_error(lambda failure: None)
    chance = random.Random(name)
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    done = 0

    @consumer.on_any
    async def handle(event: Event) -> None:
        nonlocal done
        what = f"{name} {event.data.get('guild', event.shard.id)} {event.data['n']}\n"
        os.write(log, f"begin {what}".encode())
        if name == "victim" and done >= VICTIM_HANDLES:
            os.write(log, f"hang {what}".encode())
            await asyncio.Event().wait()
        await asyncio.sleep(chance.random() * 0.004)
        if chance.random() < 0.05:
            raise RuntimeError("now and then")
        os.write(log, f"done {what}".encode())
        done += 1

    await consumer.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5]))
