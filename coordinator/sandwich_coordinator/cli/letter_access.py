"""Dead letters and consumer groups as commands use them: through NATS, or through a node's HTTP API."""

import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from typing import Any, Protocol

from nats.aio.client import Client

from sandwich_coordinator.cli.connection import Connection
from sandwich_coordinator.cli.messaging import connect, find_messaging
from sandwich_coordinator.cli.remote import PAGE_ITEMS, Api, open_api, part
from sandwich_coordinator.operations import consumer_groups, dead_letters, group_states
from sandwich_coordinator.operations.cached_guilds import NO_APPLICATIONS
from sandwich_coordinator.operations.consumer_groups import GroupSpec
from sandwich_coordinator.operations.dead_letters import (
    GroupNotRead,
    LetterContent,
    LetterFilter,
    LetterList,
    Replayed,
    ReplayReport,
    StoredLetter,
)
from sandwich_coordinator.operations.errors import Refused
from sandwich_coordinator.operations.group_states import ConsumerGroup
from sandwich_sdk.wire.dead import DeadLetter

CHANGED_AT_ONCE = 1000
"""The API takes so many letters in one request."""


class LetterAccess(Protocol):
    """What commands ask of dead letters and consumer groups. The methods raise OperationError."""

    async def newest(self, wanted: LetterFilter, *, limit: int) -> LetterList:
        """The newest letters of the applications, see `dead_letters.list_letters`."""

    async def find(self, app: str, wanted: LetterFilter) -> list[StoredLetter]:
        """See `dead_letters.find_letters`."""

    async def content(self, app: str, name: str) -> LetterContent:
        """The newest letter of this number or event id, with what it holds."""

    async def replay(self, app: str, letters: Sequence[StoredLetter], *, report: ReplayReport) -> None:
        """See `dead_letters.replay_letters`."""

    async def discard(self, app: str, letters: Sequence[StoredLetter]) -> None:
        """See `dead_letters.discard_letters`."""

    async def create_group(self, spec: GroupSpec) -> None:
        """See `consumer_groups.create_group`."""

    async def groups(self, app: str) -> list[ConsumerGroup]:
        """See `consumer_groups.list_groups`."""

    async def find_group(self, app: str, name: str) -> ConsumerGroup:
        """See `consumer_groups.find_group`."""

    async def remove_group(self, app: str, name: str, *, force: bool) -> ConsumerGroup:
        """See `consumer_groups.remove_group`."""


@asynccontextmanager
async def open_letters(connection: Connection, app: str | None) -> AsyncIterator[LetterAccess]:
    """The letters of one application or of all, while the context lasts. Raises CommandError, OperationError."""
    if connection.api is not None:
        async with open_api(connection.api) as api:
            yield LettersThroughApi(api, (app,) if app is not None else await all_apps(api))
        return
    messaging = await find_messaging(connection, app)
    async with connect(messaging) as client:
        yield LettersThroughNats(client, messaging.apps)


async def all_apps(api: Api) -> tuple[str, ...]:
    """The applications that the API shows. Raises Refused when there are none."""
    names = tuple(str(row["app"]) for row in await api.items("/apps"))
    if not names:
        raise Refused(NO_APPLICATIONS)
    return names


@dataclass(frozen=True, slots=True)
class LettersThroughNats:
    """The operations themselves."""

    client: Client
    apps: tuple[str, ...]

    async def newest(self, wanted: LetterFilter, *, limit: int) -> LetterList:
        return await dead_letters.list_letters(self.client, self.apps, wanted, limit=limit)

    async def find(self, app: str, wanted: LetterFilter) -> list[StoredLetter]:
        return await dead_letters.find_letters(self.client, app, wanted)

    async def content(self, app: str, name: str) -> LetterContent:
        found = await self.find(app, LetterFilter(names=(name,)))
        return await dead_letters.read_content(self.client, found[-1])

    async def replay(self, app: str, letters: Sequence[StoredLetter], *, report: ReplayReport) -> None:
        await dead_letters.replay_letters(self.client, letters, report=report)

    async def discard(self, app: str, letters: Sequence[StoredLetter]) -> None:
        await dead_letters.discard_letters(self.client, letters)

    async def create_group(self, spec: GroupSpec) -> None:
        await consumer_groups.create_group(self.client, spec)

    async def groups(self, app: str) -> list[ConsumerGroup]:
        return await consumer_groups.list_groups(self.client, app)

    async def find_group(self, app: str, name: str) -> ConsumerGroup:
        return await consumer_groups.find_group(self.client, app, name)

    async def remove_group(self, app: str, name: str, *, force: bool) -> ConsumerGroup:
        return await consumer_groups.remove_group(self.client, app, name, force=force)


@dataclass(frozen=True, slots=True)
class LettersThroughApi:
    """The same operations, carried out by the node that has the API."""

    api: Api
    apps: tuple[str, ...]

    async def newest(self, wanted: LetterFilter, *, limit: int) -> LetterList:
        total = 0
        found: list[StoredLetter] = []
        for app in self.apps:
            of_app, after = 0, None
            while True:
                page = await self._page(app, wanted, min(limit - of_app, PAGE_ITEMS), after)
                found += (_letter(app, row) for row in page["items"])
                of_app, after = of_app + len(page["items"]), page["next"]
                if after is None or of_app >= limit:
                    break
            total += page["total"]
        return LetterList(total, tuple(dead_letters.newest_first(found)[:limit]))

    async def _page(self, app: str, wanted: LetterFilter, limit: int, after: str | None) -> Any:
        path = f"/apps/{part(app)}/dead_letters"
        return await self.api.get(path, group=wanted.group, type=wanted.type, limit=limit, after=after)

    async def find(self, app: str, wanted: LetterFilter) -> list[StoredLetter]:
        rows = await self.api.items(f"/apps/{part(app)}/dead_letters", group=wanted.group, type=wanted.type)
        found = [letter for row in reversed(rows) if wanted.matches(letter := _letter(app, row))]
        dead_letters.check_found(app, wanted, found)
        return found

    async def content(self, app: str, name: str) -> LetterContent:
        number = name
        if not (name.isascii() and name.isdecimal()):
            number = str((await self.find(app, LetterFilter(names=(name,))))[-1].number)
        found = await self.api.get(f"/apps/{part(app)}/dead_letters/{part(number)}")
        payload = found["payload"]
        return LetterContent(
            stored=_letter(app, found["letter"]),
            event=found["event"],
            unreadable=found["unreadable"],
            headers=found["headers"],
            payload=base64.b64decode(payload) if payload is not None else None,
        )

    async def replay(self, app: str, letters: Sequence[StoredLetter], *, report: ReplayReport) -> None:
        reported: set[str] = set()
        for now in _portions(letters):
            found = await self._change(app, "replay", now)
            for group in found["not_read"]:
                if group not in reported:
                    reported.add(group)
                    report(GroupNotRead(app, group))
            for stored in now:
                report(Replayed(stored))

    async def discard(self, app: str, letters: Sequence[StoredLetter]) -> None:
        for now in _portions(letters):
            await self._change(app, "discard", now)

    async def _change(self, app: str, verb: str, letters: Sequence[StoredLetter]) -> Any:
        body = {"letters": [str(stored.number) for stored in letters]}
        return await self.api.send("POST", f"/apps/{part(app)}/dead_letters/{verb}", body)

    async def create_group(self, spec: GroupSpec) -> None:
        body = {
            "group": spec.group,
            "ordered": spec.ordered,
            "lane": spec.lane,
            "start": spec.start if isinstance(spec.start, str) else spec.start.isoformat(),
            "ack_wait_s": spec.ack_wait_s,
            "shards": spec.shards,
        }
        await self.api.send("POST", f"/apps/{part(spec.app)}/consumers", body)

    async def groups(self, app: str) -> list[ConsumerGroup]:
        return [_group(row) for row in await self.api.items(f"/apps/{part(app)}/consumer_groups")]

    async def find_group(self, app: str, name: str) -> ConsumerGroup:
        return group_states.find(name, await self.groups(app))

    async def remove_group(self, app: str, name: str, *, force: bool) -> ConsumerGroup:
        path = f"/apps/{part(app)}/consumers/{part(name)}"
        return _group(await self.api.send("DELETE", path, query={"force": force}))


def _portions(letters: Sequence[StoredLetter]) -> list[Sequence[StoredLetter]]:
    return [letters[at : at + CHANGED_AT_ONCE] for at in range(0, len(letters), CHANGED_AT_ONCE)]


def _group(row: dict[str, Any]) -> ConsumerGroup:
    """A group as the API shows it."""
    return ConsumerGroup(**{field.name: row[field.name] for field in fields(ConsumerGroup)})


def _letter(app: str, row: dict[str, Any]) -> StoredLetter:
    """A letter as the API shows it. Which messages of the stream it is in only the node knows."""
    names = ("kind", "group", "id", "type", "subject", "stream_seq", "tries", "error", "at")
    letter = DeadLetter(**{name: row[name] for name in names})
    return StoredLetter(app=app, number=row["number"], seqs=(), letter=letter)
