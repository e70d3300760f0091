"""Webhooks as commands use them: through etcd, or through a node's HTTP API. Both do and say the same."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from sandwich_coordinator.cli.connection import Connection
from sandwich_coordinator.cli.remote import Api, open_api, part
from sandwich_coordinator.operations.bots import trusted_settings
from sandwich_coordinator.operations.errors import NotFound
from sandwich_coordinator.operations.waiting import read_view
from sandwich_coordinator.operations.webhooks import WebhookSpec, create_webhook, remove_webhook, send_test
from sandwich_coordinator.sealing import ClusterKey
from sandwich_coordinator.store.etcd import EtcdStore
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.webhooks.delivery import NotDelivered


@dataclass(frozen=True, slots=True)
class MadeWebhook:
    """A new webhook: of its URL only the host is shown."""

    type: str
    host: str


class WebhookAccess(Protocol):
    """What commands ask of webhooks. The methods raise OperationError; those with etcd StoreError, too."""

    async def add(self, name: str, spec: WebhookSpec, key: ClusterKey | None, *, now: float) -> MadeWebhook:
        """See `create_webhook`."""

    async def rows(self) -> list[dict[str, Any]]:
        """A row for each webhook, by name."""

    async def test(self, name: str, key: ClusterKey | None, *, now: float) -> str:
        """Send a test message; why it did not arrive, "" when it did. Raises NotFound."""

    async def remove(self, name: str) -> None:
        """See `remove_webhook`."""


@asynccontextmanager
async def open_webhooks(connection: Connection) -> AsyncIterator[WebhookAccess]:
    """The webhooks while the context lasts: through the API when `--api` is given, else through etcd."""
    if connection.api is not None:
        async with open_api(connection.api) as api:
            yield WebhooksThroughApi(api)
        return
    async with connection.store() as store:
        yield WebhooksThroughEtcd(store, connection.keys)


@dataclass(frozen=True, slots=True)
class WebhooksThroughEtcd:
    """The operations themselves."""

    store: EtcdStore
    keys: Keys

    async def add(self, name: str, spec: WebhookSpec, key: ClusterKey | None, *, now: float) -> MadeWebhook:
        await trusted_settings(self.store, self.keys, key)
        record, _ = await create_webhook(self.store, self.keys, key, name, spec, now=now)
        return MadeWebhook(record.type, record.host)

    async def rows(self) -> list[dict[str, Any]]:
        view = await read_view(self.store, self.keys)
        rows = []
        for name, entry in sorted(view.webhooks.items()):
            state, record = view.webhook_states.get(name), entry.record
            rows.append(
                {
                    "webhook": name,
                    "type": record.type,
                    "host": record.host,
                    "ends_in": record.last4,
                    "events": list(record.events),
                    "severity": record.min_severity,
                    "apps": list(record.apps),
                    "failing_since": state.record.failing_since if state is not None else 0.0,
                    "error": state.record.error if state is not None else "",
                }
            )
        return rows

    async def test(self, name: str, key: ClusterKey | None, *, now: float) -> str:
        view = await read_view(self.store, self.keys)
        if name not in view.webhooks:
            raise NotFound("webhook", name, view.webhooks)
        try:
            await send_test(view.webhooks[name].record, key, cluster=self.keys.cluster, now=now)
        except NotDelivered as error:
            return str(error)
        return ""

    async def remove(self, name: str) -> None:
        await remove_webhook(self.store, self.keys, name)


@dataclass(frozen=True, slots=True)
class WebhooksThroughApi:
    """The same operations, carried out by the node that has the API, with its own key and clock."""

    api: Api

    async def add(self, name: str, spec: WebhookSpec, key: ClusterKey | None, *, now: float) -> MadeWebhook:
        body = {
            "name": name,
            "url": spec.url,
            "type": spec.type,
            "events": list(spec.events),
            "min_severity": spec.min_severity,
            "apps": list(spec.apps),
            "template": spec.template,
            "secret": spec.secret,
            "allow_private": spec.allow_private,
        }
        made = await self.api.send("POST", "/webhooks", body)
        return MadeWebhook(made["type"], made["host"])

    async def rows(self) -> list[dict[str, Any]]:
        same = ("type", "host", "ends_in", "events", "apps", "failing_since", "error")
        return [
            {
                "webhook": row["name"],
                **{key: row[key] for key in same[:4]},
                "severity": row["min_severity"],
                **{key: row[key] for key in same[4:]},
            }
            for row in await self.api.items("/webhooks")
        ]

    async def test(self, name: str, key: ClusterKey | None, *, now: float) -> str:
        found = await self.api.send("POST", f"/webhooks/{part(name)}/test")
        return "" if found["delivered"] else str(found["detail"])

    async def remove(self, name: str) -> None:
        await self.api.send("DELETE", f"/webhooks/{part(name)}")
