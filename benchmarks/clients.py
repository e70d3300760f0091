"""A discord.py or hikari bot in a process of its own: receives, dispatches to one handler, and says how many.

Usage: BENCH_TOKEN=... python -m benchmarks.clients discord.py|hikari API_URL
Prints `ready` once, then the number of messages handled whenever it has changed.
"""

import asyncio
import os
import sys


class Counter:
    """Messages handled so far, printed at most twice a second."""

    def __init__(self) -> None:
        self.messages = 0

    async def tell(self) -> None:
        """Print changes for ever."""
        told = -1
        while True:
            if self.messages != told:
                told = self.messages
                print(told, flush=True)
            await asyncio.sleep(0.5)


def run_discord_py(api_url: str, token: str) -> None:
    """An AutoShardedClient as its users run it."""
    import discord
    from discord.http import Route

    Route.BASE = api_url
    counter = Counter()

    class Bot(discord.AutoShardedClient):
        async def setup_hook(self) -> None:
            self.telling = asyncio.create_task(counter.tell())

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
        tasks.append(asyncio.create_task(counter.tell()))
        print("ready", flush=True)

    @bot.listen()
    async def on_message(_: hikari.MessageCreateEvent) -> None:
        counter.messages += 1

    bot.run(check_for_updates=False)


if __name__ == "__main__":
    {"discord.py": run_discord_py, "hikari": run_hikari}[sys.argv[1]](sys.argv[2], os.environ["BENCH_TOKEN"])
