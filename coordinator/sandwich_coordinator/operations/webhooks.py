"""Webhooks: create, change and remove them, and send one a test message."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from sandwich_coordinator.config_values import check_name
from sandwich_coordinator.operations.configuration_plan import Sealer
from sandwich_coordinator.operations.errors import Conflict, Invalid, NotFound, Refused, Stale
from sandwich_coordinator.operations.waiting import read_view
from sandwich_coordinator.problems import Severity
from sandwich_coordinator.sealing import ClusterKey, SealingError, open_plain
from sandwich_coordinator.store.base import Compare, Delete, Put, Store
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.view import ClusterView, Entry
from sandwich_coordinator.webhooks.delivery import Destination, Message, Resolve, deliver, system_addresses
from sandwich_coordinator.webhooks.destinations import check_url, shown_url
from sandwich_coordinator.webhooks.facts import Notice
from sandwich_coordinator.webhooks.messages import check_template, discord_message, generic_message
from sandwich_coordinator.webhooks.records import DEFAULT_KINDS, NOTICE_KINDS, HookType, WebhookRecord

HOOKS_MAX = 20
APPS_MAX = 100
SECRET_MIN, SECRET_MAX = 16, 256


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSpec:
    """A webhook as it is to be. `type` None: by its URL. `secret`: for the signature; "": none."""

    url: str = field(repr=False)
    type: HookType | None = None
    events: Sequence[str] = DEFAULT_KINDS
    min_severity: str = "notice"
    apps: Sequence[str] = ()
    template: str = ""
    secret: str = field(default="", repr=False)
    allow_private: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookEdit:
    """What of a webhook is to be different; None: as it is."""

    url: str | None = field(default=None, repr=False)
    events: Sequence[str] | None = None
    min_severity: str | None = None
    apps: Sequence[str] | None = None
    template: str | None = None
    secret: str | None = field(default=None, repr=False)
    allow_private: bool | None = None


def seal_name(name: str) -> str:
    """The name under which a webhook's destination is sealed. No application has a slash in its name."""
    return f"webhook/{name}"


def open_destination(record: WebhookRecord, key: ClusterKey | None) -> Destination:
    """Where a webhook sends to. `key` None: of a cluster without one. Raises SealingError."""
    name = seal_name(record.name)
    opened = key.unseal(name, record.sealed) if key else open_plain(name, record.sealed, allow_plain=True)
    try:
        return msgspec.json.decode(opened, type=Destination)
    except msgspec.MsgspecError:
        raise SealingError(f"the destination of webhook {record.name} is not of a form this version knows") from None


async def create_webhook(
    store: Store, keys: Keys, key: ClusterKey | None, name: str, spec: WebhookSpec, *, now: float
) -> tuple[WebhookRecord, int]:
    """Store a new webhook; returns it and its revision. `now`: Unix seconds.

    Raises Invalid, Refused when there is one of this name or there are too many, and NotFound for an application.
    """
    try:
        check_name(name)
    except ValueError as error:
        raise Invalid(f"the name of a webhook {error}", field="name") from None
    view = await read_view(store, keys)
    if name in view.webhooks or keys.webhook(name) in view.bad:
        raise Refused(f"there is a webhook {name} already", field="name")
    if len(view.webhooks) >= HOOKS_MAX:
        raise Refused(f"there are {HOOKS_MAX} webhooks, and there can be no more")
    kind = spec.type or _type_of(spec.url)
    destination = Destination(url=spec.url, secret=spec.secret, allow_private=spec.allow_private)
    record = WebhookRecord(
        name=name,
        type=kind,
        events=tuple(spec.events),
        min_severity=spec.min_severity,
        apps=tuple(spec.apps),
        template=spec.template,
        created_at=now,
    )
    _check_apps(view, record.apps)
    return await _store(store, keys, key, record, destination, revision=0)


async def change_webhook(
    store: Store,
    keys: Keys,
    key: ClusterKey | None,
    name: str,
    edit: WebhookEdit,
    *,
    revision: int | None = None,
) -> tuple[WebhookRecord, int]:
    """Change a webhook; returns it and its revision. `revision`: change only this one.

    Raises NotFound, Invalid, Stale, Conflict; SealingError when what is kept cannot be opened.
    """
    view = await read_view(store, keys)
    entry = _find(view, name)
    _check_revision(name, entry.mod_revision, revision)
    known = entry.record
    record = msgspec.structs.replace(
        known,
        events=known.events if edit.events is None else tuple(edit.events),
        min_severity=known.min_severity if edit.min_severity is None else edit.min_severity,
        apps=known.apps if edit.apps is None else tuple(edit.apps),
        template=known.template if edit.template is None else edit.template,
    )
    if edit.apps is not None:
        # Those that it has may have been removed since: that hinders no other change.
        _check_apps(view, record.apps)
    kept = None
    if edit.url is None or edit.secret is None or edit.allow_private is None:
        kept = open_destination(known, key)
    destination = Destination(
        url=_chosen(edit.url, kept, "url"),
        secret=_chosen(edit.secret, kept, "secret"),
        allow_private=_chosen(edit.allow_private, kept, "allow_private"),
    )
    return await _store(store, keys, key, record, destination, revision=entry.mod_revision)


def _chosen(wanted: Any, kept: Destination | None, name: str) -> Any:
    return getattr(kept, name) if wanted is None else wanted


async def remove_webhook(store: Store, keys: Keys, name: str, *, revision: int | None = None) -> None:
    """Remove a webhook, also one that cannot be read. `revision`: only this one. Raises NotFound, Stale, Conflict."""
    view = await read_view(store, keys)
    bad = view.bad.get(keys.webhook(name))
    guard = _find(view, name).mod_revision if bad is None else bad.mod_revision
    _check_revision(name, guard, revision)
    done = await store.txn(
        [Compare(keys.webhook(name), "mod_revision", guard)],
        [Delete(keys.webhook(name)), Delete(keys.webhook_state(name))],
    )
    if not done.succeeded:
        raise Conflict(f"webhook {name} was changed meanwhile")


async def send_test(
    record: WebhookRecord,
    key: ClusterKey | None,
    *,
    cluster: str,
    now: float,
    resolve: Resolve = system_addresses,
) -> None:
    """Send a test message from here. `now`: Unix seconds. Raises NotDelivered and SealingError."""
    notice = Notice(
        kind="problems", state="happened", severity="notice", at=now, summary="this is a test", subject="cluster"
    )
    destination = open_destination(record, key)
    await deliver(destination, message_of(record, [notice], cluster=cluster, now=now), resolve=resolve)


def message_of(
    record: WebhookRecord, notices: Sequence[Notice], *, cluster: str, now: float, missed: int = 0
) -> Message:
    """The message of these notices for a webhook. Pure."""
    if record.type == "discord":
        body = discord_message(notices, cluster=cluster, template=record.template, missed=missed)
    else:
        body = generic_message(notices, cluster=cluster, template=record.template, missed=missed, sent_at=now)
    return Message(body, int(now))


def _check_revision(name: str, found: int, wanted: int | None) -> None:
    if wanted is not None and wanted != found:
        raise Stale(f"webhook {name} was changed since it was read")


def _find(view: ClusterView, name: str) -> Entry[WebhookRecord]:
    entry = view.webhooks.get(name)
    if entry is None:
        raise NotFound("webhook", name, view.webhooks)
    return entry


def _type_of(url: str) -> HookType:
    try:
        check_url(url, "discord", allow_private=False)
    except ValueError:
        return "generic"
    return "discord"


async def _store(
    store: Store,
    keys: Keys,
    key: ClusterKey | None,
    record: WebhookRecord,
    destination: Destination,
    *,
    revision: int,
) -> tuple[WebhookRecord, int]:
    _check(record, destination)
    host, last4 = shown_url(destination.url)
    sealed = Sealer(key).close(seal_name(record.name), msgspec.json.encode(destination).decode())
    record = msgspec.structs.replace(
        record,
        sealed=sealed,
        host=host,
        last4=last4,
        signed=bool(destination.secret),
        allow_private=destination.allow_private,
    )
    place = keys.webhook(record.name)
    done = await store.txn([Compare(place, "mod_revision", revision)], [Put(place, record.encode())])
    if not done.succeeded:
        raise Conflict(f"webhook {record.name} was changed meanwhile")
    return record, done.revision


def check_choice(events: Sequence[str], min_severity: str) -> None:
    """Raise Invalid for what a webhook cannot report."""
    unknown = sorted(set(events) - set(NOTICE_KINDS))
    if unknown or not events:
        what = f"there is no event {unknown[0][:32]}" if unknown else "a webhook needs an event"
        raise Invalid(f"{what}; there are: {', '.join(NOTICE_KINDS)}", field="events")
    if min_severity not in list(Severity):
        raise Invalid(f"the severity must be one of {', '.join(Severity)}", field="min_severity")


def _check_apps(view: ClusterView, apps: Sequence[str]) -> None:
    """Raise Invalid or NotFound."""
    if len(apps) > APPS_MAX:
        raise Invalid(f"a webhook names at most {APPS_MAX} applications", field="apps")
    for app in apps:
        if app not in view.apps:
            raise NotFound("application", app, view.apps, field="apps")


def _check(record: WebhookRecord, destination: Destination) -> None:
    """Raise Invalid. No message repeats the URL or the secret."""
    try:
        check_url(destination.url, record.type, allow_private=destination.allow_private)
    except ValueError as error:
        raise Invalid(str(error), field="url") from None
    try:
        check_template(record.template)
    except ValueError as error:
        raise Invalid(str(error), field="template") from None
    check_choice(record.events, record.min_severity)
    if destination.secret and not SECRET_MIN <= len(destination.secret) <= SECRET_MAX:
        raise Invalid(f"the secret has {SECRET_MIN} to {SECRET_MAX} characters", field="secret")
    if destination.secret and record.type == "discord":
        raise Invalid("Discord checks no signature: a secret is for other servers", field="secret")
