"""A shard machine in virtual time."""

import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sandwich_node.gateway import effects as fx
from sandwich_node.gateway import events as ev
from sandwich_node.gateway.machine import ShardMachine
from sandwich_node.gateway.payloads import ShardConfig
from sandwich_node.gateway.session import Session
from sandwich_node.secret import Secret

TOKEN = "MTIz.secret.token"
BASE_URL = "wss://gateway.example"
RESUME_URL = "wss://resume.example"
SESSION = Session("abc", 17, RESUME_URL)
READY = (
    b'{"v":10,"session_id":"new","resume_gateway_url":"wss://resume.example","user":{"id":"42","username":"bot"},'
    b'"guilds":[{"id":"7","unavailable":true}],"_trace":[]}'
)

_Wanted = TypeVar("_Wanted")


def config(**changes: Any) -> ShardConfig:
    fields: dict[str, Any] = {
        "token": Secret(TOKEN),
        "shard": 0,
        "count": 1,
        "intents": 1,
        "gateway_url": BASE_URL,
    }
    return ShardConfig(**(fields | changes))


class Shard:
    """A machine, its clock, and all it did."""

    def __init__(self, session: Session | None = SESSION, *, seed: int = 1, **changes: Any) -> None:
        self.machine = ShardMachine(config(**changes), session, random.Random(seed))
        self.now = 1000.0
        self.did: list[fx.Effect] = []

    def feed(self, event: ev.Event) -> Sequence[fx.Effect]:
        return self._note(self.machine.handle(event, self.now))

    def _note(self, effects: Sequence[fx.Effect]) -> Sequence[fx.Effect]:
        self.machine.check_invariants()
        self.did.extend(effects)
        return effects

    def advance(self, seconds: float, until: Callable[[fx.Effect], bool] = lambda _: False) -> None:
        end = self.now + seconds
        while (due := self.machine.deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            effects = self._note(self.machine.tick(self.now))
            after = self.machine.deadline()
            assert after is None or after > self.now
            if any(until(effect) for effect in effects):
                return
        self.now = end

    def reconnect(self) -> fx.Connect:
        self.advance(3600, until=lambda effect: isinstance(effect, fx.Connect))
        return self.last(fx.Connect)

    def hello(self, interval_s: float = 40.0) -> Sequence[fx.Effect]:
        if self.machine.state is fx.State.NEW:
            self.feed(ev.Started())
        self.feed(ev.Connected())
        return self.feed(ev.Received(10, b'{"heartbeat_interval":%f}' % (interval_s * 1000)))

    def live(self, interval_s: float = 40.0) -> "Shard":
        self.hello(interval_s)
        if self.machine.session is None:
            self.feed(ev.IdentifyGranted())
            self.feed(ev.Received(0, READY, 1, "READY"))
        else:
            self.feed(ev.Received(0, b"{}", self.machine.session.sequence + 1, "RESUMED"))
        return self

    def all(self, kind: type[_Wanted]) -> list[_Wanted]:
        return [effect for effect in self.did if isinstance(effect, kind)]

    def last(self, kind: type[_Wanted]) -> _Wanted:
        return self.all(kind)[-1]

    def sent(self, op: int) -> list[bytes]:
        return [send.payload for send in self.all(fx.Send) if send.op == op]
