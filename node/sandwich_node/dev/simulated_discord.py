"""Asks a running simulator what happened in it (docs/reference/simulator.md), for comparisons with what arrived."""

from collections.abc import AsyncIterator, Container, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

from sandwich_node.dev.checker import spare_sessions
from sandwich_node.dev.event_check import JournalEntry
from sandwich_sdk.wire.frame import session_hash


@dataclass(frozen=True, slots=True)
class SimulatedDiscord:
    """The simulator at `url`, such as http://127.0.0.1:8080."""

    url: str

    async def control(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Call the control API: GET without a body, else POST. Raises aiohttp.ClientError."""
        method = "GET" if body is None else "POST"
        async with (
            aiohttp.ClientSession() as http,
            http.request(method, f"{self.url}/_sim/{path}", json=body) as response,
        ):
            response.raise_for_status()
            return await response.json()

    async def journal(self, app: str) -> AsyncIterator[JournalEntry]:
        """All dispatches that were sent to the application's sessions, for an `EventCheck`."""
        url = f"{self.url}/_sim/journal"
        async with aiohttp.ClientSession() as http, http.get(url, params={"bot": app}) as response:
            response.raise_for_status()
            async for line in response.content:
                yield msgspec.json.decode(line, type=JournalEntry)

    async def owed(self, app: str, streamed: Container[str]) -> dict[str, list[int]]:
        """What was owed to the application: session hash -> sequences.

        Without the sessions that were only begun to resync the cache: none of `streamed`, see `spare_sessions`.
        """
        owed: dict[str, list[int]] = {}
        names: dict[str, str] = {}
        async for entry in self.journal(app):
            name = names.get(entry.session) or names.setdefault(entry.session, session_hash(entry.session))
            owed.setdefault(name, []).append(entry.seq)
        spare = spare_sessions(await self.control(f"ledger?bot={app}&kind=identify"), streamed)
        return {name: sequences for name, sequences in owed.items() if name not in spare}
