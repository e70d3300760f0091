"""Who has access: the caller, API tokens, users, and the audit log."""

import time
from typing import Any

from pydantic import Field

from sandwich_coordinator.access.records import TokenRecord, UserRecord, is_genuine
from sandwich_coordinator.access.roles import Role, RoleName
from sandwich_coordinator.operations import access
from sandwich_coordinator.operations.audit import entries_of, read_entries
from sandwich_coordinator.operations.errors import Invalid
from sandwich_node.api.models import Model, Page, PageQuery
from sandwich_node.api.paging import page_of
from sandwich_node.api.routing import Call, Reply, Route

TAG = "access"


class Me(Model):
    """Who asks. `apps` null: no limit."""

    kind: str
    name: str
    role: str
    apps: list[str] | None


class Token(Model):
    """An API token, without its secret. `expires_at` 0: never. `usable` false: it was not made with the cluster key."""

    id: str
    name: str
    role: str
    apps: list[str] | None
    expires_at: float
    created_at: float
    created_by: str
    usable: bool


class NewToken(Token):
    """A token that was just made. `token` is shown this once."""

    token: str


class TokenRequest(Model):
    """`apps` null: no limit. `expires_in_s`: from now; null: never."""

    name: str = Field(min_length=1, max_length=access.NAME_CHARACTERS_MAX)
    role: RoleName
    apps: list[str] | None = Field(default=None, max_length=100)
    expires_in_s: float | None = Field(default=None, gt=0, le=10 * 365 * 86_400)


class AccessUser(Model):
    """A Discord user who may sign in. `usable` false: the record was not made with the cluster key."""

    user: str
    role: str
    apps: list[str] | None
    created_at: float
    created_by: str
    usable: bool


class UserRequest(Model):
    """`apps` null: no limit."""

    role: RoleName
    apps: list[str] | None = Field(default=None, max_length=100)


class Entry(Model):
    """A change or a sign-in. `result`: done, or the code of the refusal."""

    number: int
    at: float
    who: str
    what: str
    path: dict[str, str]
    before: Any
    after: Any
    result: str
    detail: str
    client: str


class AuditQuery(PageQuery):
    """Newest first. `who`: the whole identity (token:ci) or its name. `app`: changes of this application."""

    who: str = Field(default="", max_length=256)
    app: str = Field(default="", max_length=64)


def _by(call: Call) -> str:
    return f"{call.identity.kind}:{call.identity.name}"


def _token(call: Call, record: TokenRecord) -> Token:
    return Token(
        id=record.id,
        name=record.name,
        role=record.role,
        apps=record.apps,
        expires_at=record.expires_at,
        created_at=record.created_at,
        created_by=record.created_by,
        usable=is_genuine(record, call.cluster.keys.cluster, call.cluster.key),
    )


def _user(call: Call, record: UserRecord) -> AccessUser:
    return AccessUser(
        user=record.user,
        role=record.role,
        apps=record.apps,
        created_at=record.created_at,
        created_by=record.created_by,
        usable=is_genuine(record, call.cluster.keys.cluster, call.cluster.key),
    )


async def _me(call: Call) -> Me:
    identity = call.identity
    apps = None if identity.apps is None else sorted(identity.apps)
    return Me(kind=identity.kind, name=identity.name, role=identity.role.label if identity.role else "", apps=apps)


async def _tokens(call: Call) -> Page[Token]:
    records = {record.id: record for record in await access.list_tokens(call.cluster.store, call.cluster.keys)}
    return page_of(sorted(records), call.query, lambda name: name, lambda name: _token(call, records[name]))


async def _create_token(call: Call) -> Reply:
    cluster, body, now = call.cluster, call.body, time.time()
    made = await access.create_token(
        cluster.store,
        cluster.keys,
        cluster.key,
        name=body.name,
        role=body.role,
        apps=body.apps,
        expires_at=now + body.expires_in_s if body.expires_in_s is not None else 0.0,
        by=_by(call),
        now=now,
    )
    shown = _token(call, made.record)
    call.changes.after = shown
    return Reply(NewToken(**shown.model_dump(), token=made.text), status=201)


async def _revoke_token(call: Call) -> None:
    record = await access.revoke_token(call.cluster.store, call.cluster.keys, call.path["token"])
    call.changes.before = _token(call, record) if record is not None else None


async def _users(call: Call) -> Page[AccessUser]:
    records = {record.user: record for record in await access.list_users(call.cluster.store, call.cluster.keys)}
    return page_of(sorted(records), call.query, lambda name: name, lambda name: _user(call, records[name]))


async def _set_user(call: Call) -> AccessUser:
    cluster = call.cluster
    before, after = await access.set_user(
        cluster.store,
        cluster.keys,
        cluster.key,
        user=call.path["user"],
        role=call.body.role,
        apps=call.body.apps,
        by=_by(call),
        now=time.time(),
    )
    shown = _user(call, after)
    call.changes.before = _user(call, before) if before is not None else None
    call.changes.after = shown
    return shown


async def _remove_user(call: Call) -> None:
    record = await access.remove_user(call.cluster.store, call.cluster.keys, call.path["user"])
    call.changes.before = _user(call, record) if record is not None else None


async def _audit(call: Call) -> Page[Entry]:
    query = call.query
    if query.after and not (query.after.isascii() and query.after.isdecimal()):
        raise Invalid("after is the number in `next` of the page before")
    found = entries_of(await read_entries(call.cluster.store, call.cluster.keys), who=query.who, app=query.app)
    entries = [entry for entry in found if not query.after or entry.number < int(query.after)]
    page = entries[: query.limit]
    return Page(
        items=[Entry(**entry.row()) for entry in page], next=str(page[-1].number) if len(entries) > len(page) else None
    )


ROUTES = (
    Route(
        method="GET",
        path="/me",
        summary="Who asks, and with which role",
        role=Role.VIEWER,
        handler=_me,
        tag=TAG,
        result=Me,
    ),
    Route(
        method="GET",
        path="/tokens",
        summary="The API tokens, without their secrets",
        role=Role.ADMIN,
        handler=_tokens,
        tag=TAG,
        query=PageQuery,
        result=Page[Token],
        cluster_wide=True,
    ),
    Route(
        method="POST",
        path="/tokens",
        summary="Make an API token",
        description="The answer has the token, once. Repeating the request makes no second one: names are unique.",
        role=Role.ADMIN,
        handler=_create_token,
        tag=TAG,
        body=TokenRequest,
        result=NewToken,
        status=201,
    ),
    Route(
        method="DELETE",
        path="/tokens/{token}",
        summary="Take an API token away, by its id or name",
        role=Role.ADMIN,
        handler=_revoke_token,
        tag=TAG,
        status=204,
    ),
    Route(
        method="GET",
        path="/users",
        summary="The Discord users who may sign in",
        role=Role.ADMIN,
        handler=_users,
        tag=TAG,
        query=PageQuery,
        result=Page[AccessUser],
        cluster_wide=True,
    ),
    Route(
        method="PUT",
        path="/users/{user}",
        summary="Let a Discord user in, or change their role",
        role=Role.ADMIN,
        handler=_set_user,
        tag=TAG,
        body=UserRequest,
        result=AccessUser,
    ),
    Route(
        method="DELETE",
        path="/users/{user}",
        summary="Take a user's access away, and end their web sessions",
        role=Role.ADMIN,
        handler=_remove_user,
        tag=TAG,
        status=204,
    ),
    Route(
        method="GET",
        path="/audit",
        summary="Who changed what, newest first",
        role=Role.ADMIN,
        handler=_audit,
        tag=TAG,
        query=AuditQuery,
        result=Page[Entry],
        cluster_wide=True,
    ),
)
