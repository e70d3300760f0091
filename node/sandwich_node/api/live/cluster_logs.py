"""The last log lines of all nodes, by asking each of them, and a stream of new ones.

A node answers `/internal/logs` to other nodes only. The stream asks all nodes once a second, for all of its readers
together, and only while there are any.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import aiohttp
import msgspec
from aiohttp import web

from sandwich_coordinator.operations.node_requests import NodeSilent, ask_node
from sandwich_node.agent.node_facts import NodeFacts
from sandwich_node.api.live.audience import Audience
from sandwich_node.api.live.event_stream import Places, Reader, sse
from sandwich_node.log_lines import LogFilter, LogLine, LogRing, Tail

PATH = "/internal/logs"
ANSWER_S = 2.0
BYTES_MAX = 8 * 1024 * 1024
LIMIT_MAX = 1000
POLL_S = 1.0
POLL_LINES_MAX = 500
READERS_MAX = 50
FROM_NOW = 2**62
"""No line has such a number: only where the next one will be is answered."""


class _Question(msgspec.Struct, frozen=True, kw_only=True):
    wanted: LogFilter = LogFilter()
    limit: int = LIMIT_MAX
    after: int | None = None


@dataclass(frozen=True, slots=True)
class LogsFound:
    """Lines of several nodes by time, and why the other nodes did not answer."""

    lines: list[LogLine]
    silent: Mapping[str, str] = field(default_factory=dict)


def logs_page(ring: LogRing) -> Callable[[web.Request], Awaitable[web.Response]]:
    """What a node answers to others at `PATH`."""

    async def answer(request: web.Request) -> web.Response:
        try:
            asked = msgspec.json.decode(request.query.get("q", "{}"), type=_Question)
        except msgspec.MsgspecError as error:
            return web.Response(status=400, text=f"{error}\n")
        found = ring.tail(asked.wanted, limit=min(asked.limit, LIMIT_MAX), after=asked.after)
        body = msgspec.json.encode(found)
        return web.Response(body=body, content_type="application/json")

    return answer


@dataclass(eq=False)
class _Subscriber:
    wanted: LogFilter
    node: str
    reader: Reader = field(default_factory=Reader)


class ClusterLogs:
    """Reads the logs of all nodes. `node`: this one, whose own lines are in `ring`."""

    def __init__(
        self, node: str, ring: LogRing, facts: NodeFacts, http: aiohttp.ClientSession, *, poll_s: float = POLL_S
    ) -> None:
        self._audience: Audience[_Subscriber] = Audience("log lines", READERS_MAX)
        self._node = node
        self._ring = ring
        self._facts = facts
        self._http = http
        self._poll_s = poll_s
        self._next: dict[str, int] = {}

    @property
    def places(self) -> Places:
        """How many followers there may be."""
        return self._audience.places

    async def read(self, wanted: LogFilter, *, node: str = "", limit: int) -> LogsFound:
        """The last `limit` lines that are wanted, oldest first. `node`: only this one's; "": all of them."""
        nodes = [node] if node else self._nodes()
        answers = await self._ask({name: _Question(wanted=wanted, limit=limit) for name in nodes})
        lines = [line for tail in answers.values() if isinstance(tail, Tail) for line in tail.lines]
        silent = {name: why for name, why in answers.items() if isinstance(why, str)}
        return LogsFound(sorted(lines, key=lambda line: (line.at, line.node, line.seq))[-limit:], silent)

    def known(self, node: str) -> bool:
        """Whether there is such a node."""
        return node in self._nodes()

    def follow(self, wanted: LogFilter, node: str = "") -> AsyncGenerator[bytes, None]:
        """New lines from now on."""
        return self._audience.chunks(_Subscriber(wanted, node))

    async def run(self) -> None:
        """Serve the followers until cancelled."""
        await self._audience.serve(self._poll, self._forget, every_s=self._poll_s)

    def close(self) -> None:
        """End every stream."""
        self._audience.cut()

    def _forget(self) -> None:
        self._next = {}

    async def _poll(self) -> None:
        followed = self._followed()
        # A node that had no reader for a while is followed from now on again.
        self._next = {name: number for name, number in self._next.items() if name in followed}
        after = {name: self._next.get(name, FROM_NOW) for name in followed}
        asked = {name: _Question(limit=POLL_LINES_MAX, after=number) for name, number in after.items()}
        answers = await self._ask(asked)
        lines: list[LogLine] = []
        for name, tail in answers.items():
            if not isinstance(tail, Tail):
                continue
            if len(tail.lines) >= POLL_LINES_MAX and (skipped := tail.lines[0].seq - after[name]):
                self._send_skipped(name, skipped)
            self._next[name] = tail.next
            lines += tail.lines
        encoded = [(line, sse("line", line)) for line in sorted(lines, key=lambda line: (line.at, line.node, line.seq))]
        for subscriber in self._audience.subscribers:
            those = [
                chunk for line, chunk in encoded if subscriber.node in ("", line.node) and subscriber.wanted.wants(line)
            ]
            if those:
                # As one chunk: many lines at once do not make a slow reader.
                subscriber.reader.put(b"".join(those))

    def _send_skipped(self, node: str, lines: int) -> None:
        chunk = sse("skipped", {"node": node, "lines": lines})
        for subscriber in self._audience.subscribers:
            # Who is limited to some applications must not learn which nodes there are.
            if subscriber.node in ("", node) and subscriber.wanted.apps is None:
                subscriber.reader.put(chunk)

    def _followed(self) -> list[str]:
        """The nodes that readers follow."""
        wanted = {subscriber.node for subscriber in self._audience.subscribers}
        return self._nodes() if "" in wanted else sorted(wanted)

    def _nodes(self) -> list[str]:
        view = self._facts.view()
        return sorted({self._node, *(view.nodes if view is not None else ())})

    async def _ask(self, asked: Mapping[str, _Question]) -> dict[str, Tail | str]:
        async with asyncio.TaskGroup() as group:
            tasks = {name: group.create_task(self._ask_one(name, question)) for name, question in asked.items()}
        return {name: task.result() for name, task in tasks.items()}

    async def _ask_one(self, name: str, asked: _Question) -> Tail | str:
        if name == self._node:
            found = self._ring.tail(asked.wanted, limit=asked.limit, after=asked.after)
            return _of_node(name, found.lines, found.next)
        view = self._facts.view()
        entry = view.nodes.get(name) if view is not None else None
        if entry is None:
            return "it is not registered"
        if not entry.record.status_key:
            return "its version does not keep its log"
        query = {"q": msgspec.json.encode(asked).decode()}
        try:
            body = await ask_node(self._http, entry.record, PATH, query=query, timeout_s=ANSWER_S, bytes_max=BYTES_MAX)
            answer = msgspec.json.decode(body, type=Tail)
        except NodeSilent as error:
            return str(error)
        except msgspec.MsgspecError:
            return "its answer is no log"
        return _of_node(name, answer.lines, answer.next)


def _of_node(name: str, lines: list[LogLine], following: int) -> Tail:
    return Tail([msgspec.structs.replace(line, node=name) for line in lines], following)
