"""Applications as commands use them: through etcd, or through a node's HTTP API. Both do and say the same."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from sandwich_coordinator.cli.cluster_access import Kept
from sandwich_coordinator.cli.connection import Connection
from sandwich_coordinator.cli.remote import Api, open_api, part
from sandwich_coordinator.config import AppConfig
from sandwich_coordinator.intents import intents_from_names
from sandwich_coordinator.operations import applications, scaling
from sandwich_coordinator.operations.applications import AddedApp, NewToken, OptionWarning
from sandwich_coordinator.operations.bots import Bot
from sandwich_coordinator.operations.changes import AppChange
from sandwich_coordinator.operations.configuration import stored_policy, stream_defaults
from sandwich_coordinator.operations.configuration_plan import app_record
from sandwich_coordinator.operations.export import EffectiveApp, effective_app, exported_app
from sandwich_coordinator.operations.progress import Report, ScaleDone
from sandwich_coordinator.operations.rows import plan_of_row
from sandwich_coordinator.scale_plan import ScalePlan
from sandwich_coordinator.shard_counts import BotLimits
from sandwich_coordinator.store.etcd import EtcdStore
from sandwich_coordinator.store.keys import Keys


@dataclass(frozen=True, slots=True)
class ShownApp:
    """An application's configuration as cluster.yml has it, and with every value in effect."""

    exported: dict[str, Any]
    effective: EffectiveApp


@dataclass(frozen=True, slots=True)
class ChangedApp:
    """What a change does; no changes: nothing is to do. `bot`: of a new token that was tested.

    `new_group`: what needs new sessions, and what it costs. `revision`: of the configuration that was read, or written.
    """

    changes: tuple[AppChange, ...]
    warnings: tuple[OptionWarning, ...]
    bot: Bot | None
    new_group: ScalePlan | None
    revision: int


@dataclass(frozen=True, slots=True)
class NewCount:
    """Another shard count; `ids` None: all of its shards run here."""

    count: int | Literal["auto"]
    ids: str | None


@dataclass(frozen=True, slots=True)
class ProposedCount:
    """The shard count that the leader proposes."""


@dataclass(frozen=True, slots=True)
class NewSessions:
    """The same shards with new sessions. `hard`: the present ones end first."""

    hard: bool


NewGroup = NewCount | ProposedCount | NewSessions


@dataclass(frozen=True, slots=True)
class PlannedGroup:
    """What a new shard group costs; `plan` None: none is needed.

    `guard`: what is stored, or by what the API sees that the application changed meanwhile.
    """

    wanted: NewGroup
    plan: ScalePlan | None
    warnings: tuple[str, ...]
    guard: Any


class AppAccess(Protocol):
    """What commands ask of applications. The methods raise OperationError; those with etcd StoreError, too."""

    async def show(self, app: str) -> ShownApp:
        """Raises NotFound."""

    async def add(self, name: str, config: AppConfig, new: NewToken, *, dry_run: bool) -> AddedApp:
        """See `applications.add_app`."""

    async def change(
        self,
        app: str,
        values: Mapping[tuple[str, ...], Any],
        new: NewToken | None,
        *,
        dry_run: bool,
        revision: int | None = None,
    ) -> ChangedApp:
        """See `applications.change_app`. What new sessions cost was agreed to."""

    async def plan_group(self, app: str, wanted: NewGroup) -> PlannedGroup:
        """What it does and costs; writes nothing."""

    async def make_group(self, app: str, planned: PlannedGroup, *, timeout_s: float, report: Report) -> float:
        """Store what was planned and wait; seconds that it took. See `scaling.await_scale`."""

    async def cancel_group(self, app: str) -> bool:
        """See `scaling.cancel_scale`."""


@asynccontextmanager
async def open_apps(connection: Connection) -> AsyncIterator[AppAccess]:
    """The applications while the context lasts: through the API when `--api` is given, else through etcd."""
    if connection.api is not None:
        async with open_api(connection.api) as api:
            yield AppsThroughApi(api)
        return
    async with connection.store() as store:
        yield AppsThroughEtcd(store, connection.keys)


@dataclass(frozen=True, slots=True)
class AppsThroughEtcd:
    """The operations themselves."""

    store: EtcdStore
    keys: Keys

    async def show(self, app: str) -> ShownApp:
        record = await applications.read_app(self.store, self.keys, app)
        stream = stream_defaults(await self.store.get(self.keys.config))
        return ShownApp(exported_app(record), effective_app(record, stream))

    async def add(self, name: str, config: AppConfig, new: NewToken, *, dry_run: bool) -> AddedApp:
        return await applications.add_app(self.store, self.keys, name, config, new, dry_run=dry_run)

    async def change(
        self,
        app: str,
        values: Mapping[tuple[str, ...], Any],
        new: NewToken | None,
        *,
        dry_run: bool,
        revision: int | None = None,
    ) -> ChangedApp:
        plan = await applications.change_app(
            self.store, self.keys, app, values, new=new, dry_run=dry_run, revision=revision
        )
        return ChangedApp(plan.changes, plan.warnings, plan.bot, plan.new_group, plan.revision)

    async def plan_group(self, app: str, wanted: NewGroup) -> PlannedGroup:
        policy = await stored_policy(self.store, self.keys)
        match wanted:
            case NewCount(count, ids):
                request = await scaling.plan_scale(self.store, self.keys, app, count, ids, policy=policy)
            case ProposedCount():
                request = await scaling.plan_accept(self.store, self.keys, app, policy=policy)
            case NewSessions(hard):
                request = await scaling.plan_restart(self.store, self.keys, app, hard=hard, policy=policy)
        return PlannedGroup(wanted, request.plan, request.warnings, request)

    async def make_group(self, app: str, planned: PlannedGroup, *, timeout_s: float, report: Report) -> float:
        policy = await stored_policy(self.store, self.keys)
        await scaling.store_request(self.store, planned.guard)
        done = await scaling.await_scale(self.store, self.keys, app, policy=policy, timeout_s=timeout_s, report=report)
        return done.took_s

    async def cancel_group(self, app: str) -> bool:
        policy = await stored_policy(self.store, self.keys)
        return await scaling.cancel_scale(self.store, self.keys, app, policy=policy)


@dataclass(frozen=True, slots=True)
class AppsThroughApi:
    """The same operations, carried out by the node that has the API."""

    api: Api

    async def show(self, app: str) -> ShownApp:
        found = await self.api.get(f"/apps/{part(app)}")
        return ShownApp(found["configuration"], EffectiveApp(found["effective"], tuple(found["defaults"])))

    async def add(self, name: str, config: AppConfig, new: NewToken, *, dry_run: bool) -> AddedApp:
        record = app_record(name, config, "", "")
        section = {key: value for key, value in exported_app(record).items() if key != "token"}
        body = {"name": name, "token": new.token, "config": section, "check": new.test}
        found = await self.api.send("POST", "/apps", body, query={"dry_run": dry_run})
        return AddedApp(record, _bot(found["bot"]), _warnings(found["warnings"]), found["revision"])

    async def change(
        self,
        app: str,
        values: Mapping[tuple[str, ...], Any],
        new: NewToken | None,
        *,
        dry_run: bool,
        revision: int | None = None,
    ) -> ChangedApp:
        # Costs and room are the command's to judge, before it asks: here they are agreed to.
        body: dict[str, Any] = {"set": {".".join(path): value for path, value in values.items()}}
        body |= {"new_sessions": True, "force": True}
        if new is not None:
            body |= {"token": new.token, "check": new.test}
        path = f"/apps/{part(app)}"
        found = await self.api.send("PATCH", path, body, query={"dry_run": dry_run}, revision=revision)
        return ChangedApp(
            tuple(_change(app, row) for row in found["changes"]),
            _warnings(found["warnings"]),
            _bot(found["bot"]),
            _plan(found["new_sessions"]),
            found["revision"],
        )

    async def plan_group(self, app: str, wanted: NewGroup) -> PlannedGroup:
        proposed = None
        if isinstance(wanted, ProposedCount):
            proposal = (await self.api.get(f"/apps/{part(app)}/groups"))["proposal"]
            proposed = proposal["count"] if proposal is not None else None
        path, body, query = _request(app, wanted, proposed)
        found = await self.api.send("POST", path, body, query={**query, "dry_run": True})
        plan = _plan(found["new_sessions"])
        return PlannedGroup(wanted, plan, tuple(found["warnings"]), (found["revision"], proposed))

    async def make_group(self, app: str, planned: PlannedGroup, *, timeout_s: float, report: Report) -> float:
        revision, proposed = planned.guard
        path, body, query = _request(app, planned.wanted, proposed)
        kept = Kept(report)
        await self.api.follow("POST", path, body, timeout_s=timeout_s, report=kept, revision=revision, **query)
        return next((event.took_s for event in kept.events if isinstance(event, ScaleDone)), 0.0)

    async def cancel_group(self, app: str) -> bool:
        found: bool = (await self.api.send("POST", f"/apps/{part(app)}/scale/cancel"))["cancelled"]
        return found


def _request(app: str, wanted: NewGroup, proposed: int | None) -> tuple[str, Any, dict[str, Any]]:
    """Path, body and query. Room is the command's to judge, before it asks: here it is forced."""
    match wanted:
        case NewCount(count, ids):
            return f"/apps/{part(app)}/scale", {"shards": count, "ids": ids, "force": True}, {}
        case NewSessions(hard):
            return f"/apps/{part(app)}/restart", {"hard": hard, "force": True}, {}
        case ProposedCount():
            return f"/apps/{part(app)}/scale/accept", None, {"force": True, "count": proposed}


def _plan(row: dict[str, Any] | None) -> ScalePlan | None:
    return None if row is None else plan_of_row(row)


def _change(app: str, row: Mapping[str, Any]) -> AppChange:
    before, after = (
        intents_from_names(value) if row["path"] == "intents" and isinstance(value, list) else value
        for value in (row["before"], row["after"])
    )
    return AppChange(app, row["path"], before, after, row["is_secret"])


def _warnings(rows: list[dict[str, str]]) -> tuple[OptionWarning, ...]:
    return tuple(OptionWarning(row["path"], row["text"]) for row in rows)


def _bot(row: Mapping[str, Any] | None) -> Bot | None:
    if row is None:
        return None
    limits = BotLimits(
        recommended=row["shards_recommended"],
        total=row["session_starts_total"],
        remaining=row["session_starts_left"],
        reset_after_s=row["session_starts_reset_s"],
        max_concurrency=row["max_concurrency"],
        guilds=row["guilds"],
    )
    return Bot(row["id"], row["name"], frozenset(row["intents_enabled"]), limits)
