"""What the API shows of webhooks, and what the audit log has of them: no URL and no secret."""

from sandwich_coordinator.operations.errors import NotFound
from sandwich_coordinator.view import ClusterView, Entry
from sandwich_coordinator.webhooks.records import WebhookRecord, WebhookStateRecord
from sandwich_node.api.models import Model


class Webhook(Model):
    """A webhook. Of its URL only the host and the last four characters are shown.

    missed          notices that were given up since its last message
    failing_since   Unix seconds since when messages do not arrive; 0: they do
    """

    name: str
    type: str
    host: str
    ends_in: str
    events: list[str]
    min_severity: str
    apps: list[str]
    template: str
    signed: bool
    allow_private: bool
    created_at: float
    sent_at: float
    missed: int
    failing_since: float
    error: str
    revision: int


def find_webhook(view: ClusterView, name: str) -> Entry[WebhookRecord]:
    """What is stored under this name. Raises NotFound."""
    entry = view.webhooks.get(name)
    if entry is None:
        raise NotFound("webhook", name, view.webhooks)
    return entry


def webhook_shown(record: WebhookRecord, revision: int, state: WebhookStateRecord | None) -> Webhook:
    """A webhook. `state` None: no message was sent yet."""
    state = state or WebhookStateRecord(of=0)
    return Webhook(
        name=record.name,
        type=record.type,
        host=record.host,
        ends_in=record.last4,
        events=list(record.events),
        min_severity=record.min_severity,
        apps=list(record.apps),
        template=record.template,
        signed=record.signed,
        allow_private=record.allow_private,
        created_at=record.created_at,
        sent_at=state.sent_at,
        missed=state.missed,
        failing_since=state.failing_since,
        error=state.error,
        revision=revision,
    )


def webhook_of(view: ClusterView, name: str) -> Webhook:
    """The webhook of this name. Raises NotFound."""
    entry = find_webhook(view, name)
    state = view.webhook_states.get(name)
    return webhook_shown(entry.record, entry.mod_revision, state.record if state is not None else None)


def audited(record: WebhookRecord) -> dict[str, object]:
    """What the audit log has of a webhook: no secret."""
    return {
        "host": record.host,
        "ends_in": record.last4,
        "signed": record.signed,
        "template": record.template,
        "events": list(record.events),
        "min_severity": record.min_severity,
        "apps": list(record.apps),
        "allow_private": record.allow_private,
    }
