"""The gateway without sockets, with a clock that tests set."""

from typing import Any

import msgspec

from sandwich_simulator import BotConfig, SimulatorConfig
from sandwich_simulator.clock import Now
from sandwich_simulator.gateway import Gateway
from sandwich_simulator.outbox import Close
from sandwich_simulator.protocol import Connection

from .gateway_client import identify_payload

TOKEN = "a-token"


class Fake:
    """A gateway, a manual clock, and connections without sockets."""

    def __init__(self, *bots: BotConfig, **fields: Any) -> None:
        self.gateway = Gateway(SimulatorConfig(bots=list(bots) or [BotConfig(token=TOKEN, guilds=3)], **fields))
        self.mono = 1000.0

    @property
    def now(self) -> Now:
        return Now(self.mono, int(self.mono * 1e9) + 10**18)

    @property
    def bot(self) -> Any:
        return next(iter(self.gateway.bots.values()))

    def connect(self, version: str = "10") -> Connection:
        connection = Connection(self.gateway, version=version, host="h", compress="")
        connection.open(self.now)
        return connection

    def live(self, token: str = TOKEN, **fields: Any) -> Connection:
        connection = self.connect()
        self.send(connection, 2, identify_payload(token, **fields))
        while self.gateway.pump(self.now, guilds=100):
            pass
        return connection

    def send(self, connection: Connection, op: Any, d: Any = None) -> list[Any]:
        taken(connection)
        connection.receive(msgspec.json.encode({"op": op, "d": d}), self.now)
        return taken(connection)


def taken(connection: Connection) -> list[Any]:
    """The items that the connection would have written: payloads as dicts, the rest unchanged."""
    items = connection.outbox.take(len(connection.outbox))
    return [msgspec.json.decode(item) if isinstance(item, bytes) else item for item in items]


def close_code(items: list[Any]) -> int | None:
    """The code of the close at the end; None without one."""
    return items[-1].code if items and isinstance(items[-1], Close) else None


def names(items: list[Any]) -> list[Any]:
    """Dispatch names (or op numbers) in order."""
    return [item["t"] or item["op"] for item in items if isinstance(item, dict)]
