"""A discord.py or hikari bot in its own process: receives events, dispatches to one handler, prints the count.

Usage: BENCH_TOKEN=... python -m benchmarks.clients discord.py|hikari|hikari-uvloop API_URL
Prints `ready` once, then the number of handled messages whenever it has changed.
"""

import asyncio
import os
import sys


class Counter:
    """The number of handled messages, printed at most twice a second."""

    def __init__(self) -> None:
        self.messages = 0

    async def report(self) -> None:
        """Print changes until cancelled."""
        printed = -1
        while True:
            if self.messages != printed:
                printed = self.messages
                print(printed, flush=True)
            await asyncio.sleep(0.5)


def run_discord_py(api_url: str, token: str) -> None:
    """An AutoShardedClient as its users run it."""
    import discord
    from discord.http import Route

    Route.BASE = api_url
    counter = Counter()

    class Bot(discord.AutoShardedClient):
        async def setup_hook(self) -> None:
            self.reporting = asyncio.create_task(counter.report())

        async def before_identify_hook(self, shard_id: int | None, *, initial: bool = False) -> None:
            """By default it waits for 5 s, whatever the maximum concurrency is."""

        async def on_ready(self) -> None:
            print("ready", flush=True)

        async def on_message(self, message: discord.Message) -> None:
            counter.messages += 1

    Bot(intents=discord.Intents.all()).run(token, log_handler=None)


def run_hikari(api_url: str, token: str) -> None:
    """A GatewayBot as its users run it."""
    import hikari

    bot = hikari.GatewayBot(token, rest_url=api_url, intents=hikari.Intents.ALL, banner=None, logs=None)
    counter = Counter()
    tasks = []

    @bot.listen()
    async def on_started(_: hikari.StartedEvent) -> None:
        tasks.append(asyncio.create_task(counter.report()))
        print("ready", flush=True)

    @bot.listen()
    async def on_message(_: hikari.MessageCreateEvent) -> None:
        counter.messages += 1

    bot.run(check_for_updates=False)


def run_hikari_on_uvloop(api_url: str, token: str) -> None:
    """The same on uvloop, as hikari's documentation advises."""
    import uvloop

    uvloop.install()
    run_hikari(api_url, token)


RUN = {"discord.py": run_discord_py, "hikari": run_hikari, "hikari-uvloop": run_hikari_on_uvloop}

if __name__ == "__main__":
    RUN[sys.argv[1]](sys.argv[2], os.environ["BENCH_TOKEN"])
