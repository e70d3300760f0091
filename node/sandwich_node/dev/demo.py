"""`sandwich-node dev`: a whole cluster on this machine, a consumer reading from it, and a view of both.

At the end of a timed run every event that the simulated Discord owed is held against what the consumer received.
"""

import asyncio
import logging
import secrets
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sandwich_coordinator.operations.access import create_token
from sandwich_coordinator.operations.errors import OperationError
from sandwich_coordinator.operations.health import DEVELOPMENT_LABEL
from sandwich_coordinator.operations.snapshot import Snapshot, take_snapshot
from sandwich_coordinator.sealing import ClusterKey
from sandwich_coordinator.status import NodeStatus
from sandwich_coordinator.store.base import StoreError
from sandwich_coordinator.store.etcd import EtcdStore
from sandwich_coordinator.store.keys import Keys
from sandwich_node.dev.checker import DeliveryCheck, Verdict
from sandwich_node.dev.cluster import DevBot, DevCluster, command, dev_cluster
from sandwich_node.dev.embedded import check_installed
from sandwich_sdk import Consumer
from sandwich_sdk.wire.plain_text import plain_text

VIEW_EVERY_S = 1.0
SETTLE_BUDGET_S = 20.0
READY_BUDGET_S = 60.0
ACCEPTED_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """The options of `sandwich-node dev`. `seconds` None: until Ctrl-C."""

    nodes: int
    workers: int
    rate: float
    seed: int
    seconds: float | None
    plain: bool


@dataclass(slots=True)
class Seen:
    """What the view shows of one application."""

    check: DeliveryCheck = field(default_factory=DeliveryCheck)
    consumed_before: int = 0
    consumed_per_s: float = 0.0

    def step(self, seconds: float) -> None:
        """A second or so has gone by."""
        self.consumed_per_s = (self.check.events - self.consumed_before) / max(seconds, 1e-3)
        self.consumed_before = self.check.events


def demo_bots() -> tuple[DevBot, ...]:
    """Two bots of different size, one of them sharded as Discord recommends."""
    return (
        DevBot(app="welcomer", token=_token(), guilds=120, shards=None, recommended=6, max_concurrency=4),
        DevBot(app="music", token=_token(), guilds=30, shards=2, recommended=1, max_concurrency=1),
    )


def _token() -> str:
    """A token of a real one's form, so that what redacts real ones is at work here too."""
    return f"MTAwMDAwMDAw{secrets.token_hex(6)}.G{secrets.token_hex(2)}x.{secrets.token_urlsafe(28)[:38]}"


async def run_demo(options: DemoOptions) -> int:
    """Run until the time is over or Ctrl-C; returns the exit code: 0 when all went well."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    # Its word that the streams are not there yet would only be noise here.
    logging.getLogger("sandwich_sdk").setLevel(logging.ERROR)
    console = Console()
    check_installed()
    console.print("starting etcd, NATS, Redis, the simulator and the nodes ...", highlight=False)
    bots = demo_bots()
    async with dev_cluster(
        bots,
        nodes=options.nodes,
        workers=options.workers,
        rate=options.rate,
        seed=options.seed,
        labels=(f"{DEVELOPMENT_LABEL}=true",),
    ) as cluster:
        console.print(how_to_try(cluster.etcd.url, cluster.key_file, _shell_name()), highlight=False, soft_wrap=True)
        store = EtcdStore([cluster.etcd.url])
        seen = {bot.app: Seen() for bot in bots}
        try:
            async with asyncio.TaskGroup() as group:
                consuming = group.create_task(_consume(cluster, seen))
                try:
                    return await _watch(options, cluster, store, seen, stop, console)
                finally:
                    consuming.cancel()
                    console.print("stopping ...", highlight=False)
        finally:
            await store.close()


def how_to_try(etcd: str, key_file: Path, sandwich: str) -> str:
    """What to type in another terminal: the environment, and commands that need nothing else. Pure."""
    return "\n".join(
        (
            f"etcd is at {etcd}. In another terminal:",
            f"  export SANDWICH_ETCD={etcd} SANDWICH_KEY_FILE={shlex.quote(str(key_file))}",
            f"  {sandwich} cluster status",
            f"  {sandwich} tail --app welcomer --type MESSAGE_CREATE",
            f"  {sandwich} app scale music --shards 4 --plan",
        )
    )


def how_to_look(address: str, token: str, others: Sequence[tuple[str, int]]) -> str:
    """Where the dashboard is, and what to break while one looks: another node, by name and process id. Pure."""
    lines = [f"The dashboard is at http://{address}/ (at every node's address). Sign in with this token: {token}"]
    for node, pid in others[-1:]:
        lines.append(f"Break something, and see its shards resume elsewhere: kill -9 {pid} ends node {node}")
    return "\n".join(lines)


async def _dashboard(cluster: DevCluster, store: EtcdStore, snapshot: Snapshot) -> str | None:
    """How to look at the dashboard; None before all nodes are there."""
    answering = [name for name, answer in sorted(snapshot.answers.items()) if isinstance(answer, NodeStatus)]
    if len(answering) < len(cluster.nodes):
        return None
    key = ClusterKey.from_base64(cluster.key_file.read_text().strip())
    try:
        # Each try has a name of its own: the token of one whose answer was lost may be stored.
        name = f"demo-{secrets.token_hex(2)}"
        made = await create_token(store, Keys(), key, name=name, role="admin", now=time.time())
    except (OperationError, StoreError):
        # The next look tries again.
        return None
    first, *others = answering
    address = snapshot.view.nodes[first].record.address
    await _accepted(address, made.text)
    return how_to_look(address, made.text, [(name, cluster.nodes[name].process.pid) for name in others])


async def _accepted(address: str, token: str) -> None:
    """Wait until the node has seen the token in etcd, for ACCEPTED_S at most."""
    headers = {"Authorization": f"Bearer {token}"}
    with suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(ACCEPTED_S), aiohttp.ClientSession(headers=headers) as http:
            while True:
                async with http.get(f"http://{address}/api/v1/me") as response:
                    if response.status == 200:
                        return
                await asyncio.sleep(0.1)


def _shell_name() -> str:
    """`sandwich` as a shell finds it, or else with its path."""
    ours = command("sandwich")
    return "sandwich" if shutil.which("sandwich") == ours else shlex.quote(ours)


async def _consume(cluster: DevCluster, seen: dict[str, Seen]) -> None:
    async with Consumer(cluster.nats.url, apps=list(seen), group="demo", start="all") as consumer:
        async for event in consumer:
            seen[event.app].check.take(event.id)


async def _watch(
    options: DemoOptions,
    cluster: DevCluster,
    store: EtcdStore,
    seen: dict[str, Seen],
    stop: asyncio.Event,
    console: Console,
) -> int:
    """Show the view until it is over, then judge a timed run."""
    loop = asyncio.get_running_loop()
    started = last = loop.time()
    measured: float | None = None
    has_shown = False
    with _view(options.plain, console) as show:
        while not stop.is_set():
            try:
                async with asyncio.timeout(VIEW_EVERY_S):
                    await stop.wait()
            except TimeoutError:
                pass
            now = loop.time()
            for one in seen.values():
                one.step(now - last)
            last = now
            try:
                snapshot = await take_snapshot(store, Keys())
            except StoreError:
                continue
            if not has_shown and (text := await _dashboard(cluster, store, snapshot)) is not None:
                console.print(text, highlight=False, soft_wrap=True, markup=False)
                has_shown = True
            show(snapshot, seen, now - started)
            if measured is None and _all_live(snapshot, cluster):
                measured = now
            if options.seconds is None:
                continue
            if measured is not None and now - measured >= options.seconds:
                break
            if measured is None and now - started > READY_BUDGET_S + options.seconds:
                console.print("the shards did not become live in time", style="red")
                return 1
    if stop.is_set() or options.seconds is None:
        return 0
    return await _judge(cluster, seen, console)


def _all_live(snapshot: Snapshot, cluster: DevCluster) -> bool:
    groups = [entry.record for entry in snapshot.view.groups.values()]
    return len(groups) >= len(cluster.bots) and all(group.state == "live" for group in groups)


# --- the verdict ------------------------------------------------------------------------------------------------


async def _judge(cluster: DevCluster, seen: dict[str, Seen], console: Console) -> int:
    """Stop the traffic, wait until everything owed has arrived, compare."""
    await cluster.simulator("pause_traffic", {})
    loop = asyncio.get_running_loop()
    until = loop.time() + SETTLE_BUDGET_S
    while True:
        verdicts = {app: seen[app].check.verdict(await cluster.owed(app, seen[app].check.sessions)) for app in seen}
        if all(verdict.clean for verdict in verdicts.values()) or loop.time() > until:
            break
        await asyncio.sleep(0.5)
    for app, verdict in verdicts.items():
        console.print(_verdict_line(app, verdict), highlight=False, soft_wrap=True, markup=False)
    return 0 if all(verdict.clean for verdict in verdicts.values()) else 1


def _verdict_line(app: str, verdict: Verdict) -> str:
    return (
        f"{app}: {verdict.owed} events owed by Discord, {verdict.received} received, {verdict.lost} lost, "
        f"{verdict.doubled} doubled, {verdict.out_of_order} out of order"
    )


# --- the view ---------------------------------------------------------------------------------------------------

Show = Callable[[Snapshot, dict[str, Seen], float], None]


@contextmanager
def _view(plain: bool, console: Console) -> Iterator[Show]:
    if plain or not console.is_terminal:
        yield lambda snapshot, seen, seconds: print_plain(console, snapshot, seen, seconds)
        return
    with Live(console=console, auto_refresh=False, transient=False) as live:
        yield lambda snapshot, seen, seconds: live.update(screen(snapshot, seen, seconds, console.width), refresh=True)


def _states(snapshot: Snapshot, app: str) -> dict[str, int]:
    """Shards of the application by state, with those that run nowhere."""
    states: dict[str, int] = {}
    claimed = 0
    for key, entry in snapshot.view.claims.items():
        if key.app == app:
            states[entry.record.state] = states.get(entry.record.state, 0) + 1
            claimed += 1
    wanted = max((g.record.count for k, g in snapshot.view.groups.items() if k.app == app), default=0)
    if wanted > claimed:
        states["unassigned"] = wanted - claimed
    return states


def _published(snapshot: Snapshot, app: str) -> tuple[float, int]:
    """Events a second into the stream, and guilds, over all nodes that answered."""
    answers = [answer for answer in snapshot.answers.values() if not isinstance(answer, str)]
    figures = [answer.apps[app] for answer in answers if app in answer.apps]
    return sum(figure.events_per_s for figure in figures), sum(figure.guilds for figure in figures)


def _leader(snapshot: Snapshot) -> str:
    return snapshot.view.leader.record.node if snapshot.view.leader else "none"


def print_plain(console: Console, snapshot: Snapshot, seen: dict[str, Seen], seconds: float) -> None:
    """One line a second."""
    parts = [f"{seconds:5.1f}s nodes={len(snapshot.view.nodes)} leader={_leader(snapshot)}"]
    for app, one in seen.items():
        states = ",".join(f"{count} {state}" for state, count in sorted(_states(snapshot, app).items())) or "no shards"
        published, guilds = _published(snapshot, app)
        parts.append(
            f"{app}: {states}; {guilds} guilds; published {published:.0f}/s, consumed {one.consumed_per_s:.0f}/s"
        )
    console.print(plain_text(" | ".join(parts)), highlight=False, soft_wrap=True, markup=False)


def screen(snapshot: Snapshot, seen: dict[str, Seen], seconds: float, width: int) -> Group:
    """The live view. Columns that do not fit into `width` are left out; headings are never cut."""
    held: dict[str, int] = {}
    for entry in snapshot.view.claims.values():
        held[entry.record.node] = held.get(entry.record.node, 0) + 1
    nodes = [
        {
            "node": name,
            "state": node.record.state,
            "leads": "leads" if _leader(snapshot) == name else "",
            "shards": str(held.get(name, 0)),
            "address": node.record.address,
        }
        for name, node in sorted(snapshot.view.nodes.items())
    ]
    apps = []
    for app, one in seen.items():
        states = ", ".join(f"{count} {state}" for state, count in sorted(_states(snapshot, app).items()))
        published, guilds = _published(snapshot, app)
        apps.append(
            {
                "app": app,
                "shards": states or "none yet",
                "wrong": str(sum(len(c.missing) + c.doubled for c in one.check.sessions.values())),
                "published/s": f"{published:.0f}",
                "consumed/s": f"{one.consumed_per_s:.0f}",
                "guilds": str(guilds),
                "total": _short(one.check.events),
            }
        )
    clock = time.strftime("%H:%M:%S")
    head = Text(f"sandwich dev  {clock}  up {seconds:.0f} s  (Ctrl-C ends it)")
    return Group(head, _table("nodes", nodes, width), _table("applications", apps, width))


def _short(number: int) -> str:
    """A number in five characters, so that no column grows while one looks."""
    return str(number) if number < 100_000 else f"{number // 1000}k"


def _table(title: str, rows: list[dict[str, str]], width: int) -> Table:
    """As many columns as fit, the first ones being the most important."""
    table = Table(title=title, title_justify="left", expand=True, width=width)
    left = width - 1
    for number, name in enumerate(rows[0] if rows else ()):
        # What may wrap needs no more than its heading and a word; each column costs a line and two spaces.
        left -= 3 + max(len(name), *(len(word) for row in rows for word in row[name].split() or [""]))
        if left < 0 and number:
            break
        table.add_column(Text(name), no_wrap=False)
    columns = len(table.columns)
    for row in rows:
        # As Text: a name may look like rich's markup.
        table.add_row(*(Text(plain_text(text)) for text in list(row.values())[:columns]))
    return table
