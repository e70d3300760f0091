"""The faults and their order, decided by the seed alone. Pure."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Measure = Literal["death", "machine", "move", ""]
"""How a fault's recovery is measured: as a process death, a machine death, a planned move, or not at all."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault."""

    name: str
    measure: Measure = ""


KINDS = (
    Kind("worker killed", "death"),
    Kind("two workers killed", "death"),
    Kind("agent killed", "death"),
    Kind("leader's agent killed", "death"),
    Kind("node killed", "machine"),
    Kind("node frozen 8 s", "machine"),
    Kind("node stopped and started", "move"),
    Kind("node drained", "move"),
    Kind("every shard restarted", "move"),
    Kind("worker frozen 3 s"),
    Kind("etcd member killed 5 s"),
    Kind("etcd quorum frozen 8 s"),
    Kind("node cut off etcd 10 s"),
    Kind("NATS server killed 5 s"),
    Kind("NATS frozen 4 s"),
    Kind("Redis frozen 5 s"),
    Kind("Discord drops all sockets"),
    Kind("Discord resets all sockets"),
    Kind("Discord asks all to reconnect (op 7)"),
    Kind("Discord interrupts all sessions (op 9 true)"),
    Kind("Discord closes all with 4000"),
    Kind("Discord unreachable 6 s"),
    Kind("Discord stalls 5 s"),
    Kind("Discord's REST answers 500 for 5 s"),
    Kind("Discord forgets a session"),
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of the run. `nodes`: all nodes, in the order in which it picks targets; `draw` picks the rest."""

    kind: Kind
    nodes: tuple[str, ...]
    draw: int
    pause_s: float


def faults(seed: int, nodes: tuple[str, ...]) -> Iterator[Fault]:
    """Endless faults: all kinds once in random order, then all again in another order."""
    rng = random.Random(seed)
    while True:
        deck = list(KINDS)
        rng.shuffle(deck)
        for kind in deck:
            order = tuple(rng.sample(nodes, len(nodes)))
            yield Fault(kind, order, rng.randrange(1_000_000), rng.uniform(0.5, 2.5))
