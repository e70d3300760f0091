"""Creating and changing webhooks over a store."""

import pytest

from sandwich_coordinator.operations.errors import NotFound
from sandwich_coordinator.operations.webhooks import WebhookEdit, WebhookSpec, change_webhook, create_webhook
from sandwich_coordinator.sealing import ClusterKey
from sandwich_coordinator.store.base import Delete, Put
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_coordinator.types import AppRecord
from tests.support.api import KEYS, NOW

KEY = ClusterKey(b"k" * 32)
SPEC = WebhookSpec(url="https://example.com/hook", apps=("x", "y"))


@pytest.fixture
async def store() -> MemoryStore:
    """With a webhook of two applications, of which one was removed since."""
    store = MemoryStore()
    for app in ("x", "y"):
        await store.txn((), [Put(KEYS.app(app), AppRecord(app=app, token="", token_hash="h", intents=1).encode())])
    await create_webhook(store, KEYS, KEY, "h", SPEC, now=NOW)
    await store.txn((), [Delete(KEYS.app("x"))])
    return store


@pytest.mark.parametrize(
    "edit",
    [WebhookEdit(min_severity="critical"), WebhookEdit(url="https://example.com/other"), WebhookEdit(template="$app")],
)
async def test_a_webhook_of_an_application_that_was_removed_can_be_changed(
    store: MemoryStore, edit: WebhookEdit
) -> None:
    record, _ = await change_webhook(store, KEYS, KEY, "h", edit)
    assert record.apps == ("x", "y")


async def test_the_applications_that_a_change_names_are_there(store: MemoryStore) -> None:
    for apps in (("x",), ("y", "nope")):
        with pytest.raises(NotFound, match="application"):
            await change_webhook(store, KEYS, KEY, "h", WebhookEdit(apps=apps))
    record, _ = await change_webhook(store, KEYS, KEY, "h", WebhookEdit(apps=("y",)))
    assert record.apps == ("y",)
    with pytest.raises(NotFound, match="application"):
        await create_webhook(store, KEYS, KEY, "other", SPEC, now=NOW)
