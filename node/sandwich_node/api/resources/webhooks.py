"""Webhooks: who is sent what happens. The URL and the secret are written, and never shown."""

import time
from typing import Literal

from pydantic import Field, SecretStr

from sandwich_coordinator.access.roles import Role
from sandwich_coordinator.operations.webhooks import (
    WebhookEdit,
    WebhookSpec,
    change_webhook,
    create_webhook,
    remove_webhook,
    send_test,
)
from sandwich_coordinator.webhooks.delivery import NotDelivered
from sandwich_coordinator.webhooks.messages import TEMPLATE_CHARACTERS_MAX
from sandwich_coordinator.webhooks.records import DEFAULT_KINDS, HookType, NoticeKind
from sandwich_node.api.models import Empty, Model, Page, PageQuery
from sandwich_node.api.paging import page_of
from sandwich_node.api.routing import Call, Reply, Route
from sandwich_node.api.shown.webhooks import Webhook, audited, find_webhook, webhook_of, webhook_shown

TAG = "webhooks"
SeverityName = Literal["critical", "warning", "notice"]


class NewWebhook(Model):
    """A webhook as it is to be. `type` null: by its URL. `apps` empty: all, and what concerns the cluster."""

    name: str = Field(max_length=64)
    url: SecretStr = Field(max_length=2000)
    type: HookType | None = None
    events: list[NoticeKind] = Field(default=list(DEFAULT_KINDS), min_length=1, max_length=20)
    min_severity: SeverityName = "notice"
    apps: list[str] = Field(default=[], max_length=100)
    template: str = Field(default="", max_length=TEMPLATE_CHARACTERS_MAX)
    secret: SecretStr = Field(default=SecretStr(""), max_length=256)
    allow_private: bool = False


class WebhookChange(Model):
    """What is to be different; what is left out stays. An empty `secret` removes it."""

    url: SecretStr | None = Field(default=None, max_length=2000)
    events: list[NoticeKind] | None = Field(default=None, min_length=1, max_length=20)
    min_severity: SeverityName | None = None
    apps: list[str] | None = Field(default=None, max_length=100)
    template: str | None = Field(default=None, max_length=TEMPLATE_CHARACTERS_MAX)
    secret: SecretStr | None = Field(default=None, max_length=256)
    allow_private: bool | None = None


class TestResult(Model):
    """Whether the receiver took the message; `detail`: why not."""

    delivered: bool
    detail: str


async def _list(call: Call) -> Page[Webhook]:
    view = call.cluster.view()
    return page_of(sorted(view.webhooks), call.query, lambda name: name, lambda name: webhook_of(view, name))


async def _show(call: Call) -> Reply:
    shown = webhook_of(call.cluster.view(), call.path["webhook"])
    return Reply(shown, revision=shown.revision)


async def _create(call: Call) -> Reply:
    body: NewWebhook = call.body
    spec = WebhookSpec(
        url=body.url.get_secret_value(),
        type=body.type,
        events=body.events,
        min_severity=body.min_severity,
        apps=body.apps,
        template=body.template,
        secret=body.secret.get_secret_value(),
        allow_private=body.allow_private,
    )
    cluster = call.cluster
    record, revision = await create_webhook(cluster.store, cluster.keys, cluster.key, body.name, spec, now=time.time())
    call.changes.after = {"webhook": record.name, **audited(record)}
    return Reply(webhook_shown(record, revision, None), revision=revision)


async def _change(call: Call) -> Reply:
    body: WebhookChange = call.body
    name = call.path["webhook"]
    edit = WebhookEdit(
        url=body.url.get_secret_value() if body.url is not None else None,
        events=body.events,
        min_severity=body.min_severity,
        apps=body.apps,
        template=body.template,
        secret=body.secret.get_secret_value() if body.secret is not None else None,
        allow_private=body.allow_private,
    )
    cluster = call.cluster
    call.changes.before = audited(find_webhook(cluster.view(), name).record)
    record, revision = await change_webhook(
        cluster.store, cluster.keys, cluster.key, name, edit, revision=call.revision
    )
    call.changes.after = audited(record)
    state = cluster.view().webhook_states.get(name)
    return Reply(webhook_shown(record, revision, state.record if state is not None else None), revision=revision)


async def _remove(call: Call) -> None:
    name = call.path["webhook"]
    call.changes.before = audited(find_webhook(call.cluster.view(), name).record)
    await remove_webhook(call.cluster.store, call.cluster.keys, name, revision=call.revision)


async def _test(call: Call) -> TestResult:
    record = find_webhook(call.cluster.view(), call.path["webhook"]).record
    try:
        await send_test(record, call.cluster.key, cluster=call.cluster.keys.cluster, now=time.time())
    except NotDelivered as error:
        return TestResult(delivered=False, detail=str(error))
    return TestResult(delivered=True, detail="")


ROUTES = (
    Route(
        method="GET",
        path="/webhooks",
        summary="The webhooks, and whether their messages arrive",
        role=Role.ADMIN,
        handler=_list,
        tag=TAG,
        query=PageQuery,
        result=Page[Webhook],
        cluster_wide=True,
    ),
    Route(
        method="POST",
        path="/webhooks",
        summary="Report what happens to a Discord channel or an HTTP server",
        role=Role.ADMIN,
        handler=_create,
        tag=TAG,
        body=NewWebhook,
        result=Webhook,
        status=201,
        errors=("refused", "not-found", "invalid"),
    ),
    Route(
        method="GET",
        path="/webhooks/{webhook}",
        summary="One webhook",
        role=Role.ADMIN,
        handler=_show,
        tag=TAG,
        query=Empty,
        result=Webhook,
        cluster_wide=True,
        errors=("not-found",),
    ),
    Route(
        method="PATCH",
        path="/webhooks/{webhook}",
        summary="Change a webhook",
        role=Role.ADMIN,
        handler=_change,
        tag=TAG,
        body=WebhookChange,
        result=Webhook,
        is_conditional=True,
        errors=("not-found", "invalid", "conflict"),
    ),
    Route(
        method="DELETE",
        path="/webhooks/{webhook}",
        summary="Remove a webhook",
        role=Role.ADMIN,
        handler=_remove,
        tag=TAG,
        status=204,
        is_conditional=True,
        errors=("not-found", "conflict"),
    ),
    Route(
        method="POST",
        path="/webhooks/{webhook}/test",
        summary="Send a test message from the node that is asked",
        role=Role.ADMIN,
        handler=_test,
        tag=TAG,
        result=TestResult,
        errors=("not-found", "refused"),
    ),
)
