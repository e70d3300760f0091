"""`sandwich token`, `user set|list|remove` and `audit`; a command imports its operation when it runs."""

import os
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sandwich_coordinator.cli.cache import user_app
from sandwich_coordinator.cli.connection import caller
from sandwich_coordinator.cli.errors import CommandError
from sandwich_coordinator.cli.options import Json, KeyFile, command_group, run, with_key_file
from sandwich_coordinator.cli.output import paint_for, say, show_json, show_painted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from sandwich_coordinator.cli.remote import Api
    from sandwich_coordinator.sealing import ClusterKey
    from sandwich_coordinator.store.etcd import EtcdStore
    from sandwich_coordinator.store.keys import Keys

token_app = command_group("API tokens: access to the HTTP API for programs.")

COMMA = ", "

RoleOption = Annotated[str, typer.Option("--role", help="viewer, operator or admin.")]
AppsOption = Annotated[
    list[str] | None, typer.Option("--app", help="Only this application; may be repeated. Default: the whole cluster.")
]
Plaintext = Annotated[bool, typer.Option("--insecure-plaintext", help="For a cluster without a key.")]
UserId = Annotated[str, typer.Argument(metavar="USER", help="The user's Discord id.")]


def _reached(
    context: typer.Context,
    by_etcd: "Callable[[EtcdStore, Keys], Awaitable[Any]]",
    by_api: "Callable[[Api], Awaitable[Any]]",
) -> Any:
    """What one of the two returns: with `--api` the second."""

    async def work() -> Any:
        if context.obj.api is not None:
            from sandwich_coordinator.cli.remote import open_api

            async with open_api(context.obj.api) as api:
                return await by_api(api)
        async with context.obj.store() as store:
            return await by_etcd(store, context.obj.keys)

    return run(work())


def _key(context: typer.Context, key_file: Any, plaintext: bool) -> "ClusterKey | None":
    found: ClusterKey | None = with_key_file(context.obj, key_file).sealing_key(os.environ, plaintext=plaintext)
    return found


async def _items(api: "Api", path: str) -> list[dict[str, Any]]:
    """Every item of a list of the API, oldest first."""
    return sorted(await api.items(path), key=lambda item: item["created_at"])


def _part(text: str) -> str:
    """A part of a path of the API."""
    from sandwich_coordinator.cli.remote import part

    return part(text)


@token_app.command("create")
def token_create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the token is for: a name of your choice.")],
    role: RoleOption = "viewer",
    apps: AppsOption = None,
    expires: Annotated[str | None, typer.Option("--expires", help="After this time: 12h, 30d. Default: never.")] = None,
    key_file: KeyFile = None,
    insecure_plaintext: Plaintext = False,
    as_json: Json = False,
) -> None:
    """Make an API token and print it, this once. Example: sandwich token create prometheus --role viewer"""
    from msgspec.structs import asdict

    from sandwich_coordinator.config_values import parse_duration
    from sandwich_coordinator.operations.access import create_token, role_of

    key, now = _key(context, key_file, insecure_plaintext), time.time()
    try:
        lasts_s = parse_duration(expires) if expires is not None else None
    except ValueError as error:
        raise CommandError(f"--expires: {error}") from None
    wanted = role_of(role)

    async def by_etcd(store: "EtcdStore", keys: "Keys") -> tuple[dict[str, Any], str]:
        ends = now + lasts_s if lasts_s is not None else 0.0
        made = await create_token(
            store, keys, key, name=name, role=wanted, apps=apps or None, expires_at=ends, by=caller(), now=now
        )
        return _token_row(asdict(made.record)), made.text

    async def by_api(api: "Api") -> tuple[dict[str, Any], str]:
        body = {"name": name, "role": wanted, "apps": apps or None, "expires_in_s": lasts_s}
        made = await api.send("POST", "/tokens", body)
        return _token_row(made), made["token"]

    row, text = _reached(context, by_etcd, by_api)
    if as_json:
        show_json({**row, "token": text})
    else:
        say(f"token {name} ({wanted}) is made; it is not shown again:", err=True)
        say(text)


@token_app.command("list")
def token_list(context: typer.Context, as_json: Json = False) -> None:
    """The API tokens, without their secrets. Example: sandwich token list"""
    from msgspec.structs import asdict

    from sandwich_coordinator.cli.render import rows_text
    from sandwich_coordinator.operations.access import list_tokens

    async def by_etcd(store: "EtcdStore", keys: "Keys") -> list[dict[str, Any]]:
        return [asdict(record) for record in await list_tokens(store, keys)]

    rows = [_token_row(record) for record in _reached(context, by_etcd, lambda api: _items(api, "/tokens"))]
    if as_json:
        show_json(rows)
        return
    columns = {key: key.upper() for key in ("name", "role", "apps", "expires", "created", "created_by", "id")}
    show_painted(rows_text(list(map(_shown, rows)), columns, "no tokens: sandwich token create", paint_for(sys.stdout)))


@token_app.command("revoke")
def token_revoke(
    context: typer.Context,
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="Its name or id, as sandwich token list shows it.")],
    as_json: Json = False,
) -> None:
    """Take an API token away: every node refuses it at once. Example: sandwich token revoke prometheus"""
    from sandwich_coordinator.operations.access import revoke_token

    _reached(
        context,
        lambda store, keys: revoke_token(store, keys, token),
        lambda api: api.send("DELETE", f"/tokens/{_part(token)}"),
    )
    say(f"token {token} is taken away", err=as_json)
    if as_json:
        show_json({"token": token, "revoked": True})


@user_app.command("set")
def user_set(
    context: typer.Context,
    user: UserId,
    role: RoleOption = "viewer",
    apps: AppsOption = None,
    key_file: KeyFile = None,
    insecure_plaintext: Plaintext = False,
    as_json: Json = False,
) -> None:
    """Let a Discord user sign in to the HTTP API, or change their role.

    Example: sandwich user set 80351110224678912 --role operator --app welcomer
    """
    from msgspec.structs import asdict

    from sandwich_coordinator.operations.access import role_of, set_user

    key, wanted = _key(context, key_file, insecure_plaintext), role_of(role)

    async def by_etcd(store: "EtcdStore", keys: "Keys") -> dict[str, Any]:
        _, after = await set_user(
            store, keys, key, user=user, role=wanted, apps=apps or None, by=caller(), now=time.time()
        )
        found: dict[str, Any] = asdict(after)
        return found

    row = _reached(
        context,
        by_etcd,
        lambda api: api.send("PUT", f"/users/{_part(user)}", {"role": wanted, "apps": apps or None}),
    )
    say(f"user {user} is {wanted}{f' of {COMMA.join(apps)}' if apps else ''}", err=as_json)
    if as_json:
        show_json(_user_row(row))


@user_app.command("list")
def user_list(context: typer.Context, as_json: Json = False) -> None:
    """The Discord users who may sign in by a record of their own. Example: sandwich user list"""
    from msgspec.structs import asdict

    from sandwich_coordinator.cli.render import rows_text
    from sandwich_coordinator.operations.access import list_users

    async def by_etcd(store: "EtcdStore", keys: "Keys") -> list[dict[str, Any]]:
        return [asdict(record) for record in await list_users(store, keys)]

    rows = [_user_row(record) for record in _reached(context, by_etcd, lambda api: _items(api, "/users"))]
    if as_json:
        show_json(rows)
        return
    columns = {key: key.upper() for key in ("user", "role", "apps", "created", "created_by")}
    show_painted(rows_text(list(map(_shown, rows)), columns, "no users: sandwich user set", paint_for(sys.stdout)))


@user_app.command("remove")
def user_remove(context: typer.Context, user: UserId, as_json: Json = False) -> None:
    """Take a user's access away and end their web sessions. Example: sandwich user remove 80351110224678912"""
    from sandwich_coordinator.operations.access import remove_user

    _reached(
        context,
        lambda store, keys: remove_user(store, keys, user),
        lambda api: api.send("DELETE", f"/users/{_part(user)}"),
    )
    say(f"user {user} has no access of their own any more", err=as_json)
    if as_json:
        show_json({"user": user, "removed": True})


def audit_command(
    context: typer.Context,
    who: Annotated[str, typer.Option("--who", help="Only this token, user or command line.")] = "",
    app_name: Annotated[str, typer.Option("--app", help="Only changes of this application.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="The last so many.")] = 50,
    as_json: Json = False,
) -> None:
    """Who changed what, newest first. Example: sandwich audit --app welcomer"""
    from sandwich_coordinator.cli.render import rows_text
    from sandwich_coordinator.operations.audit import entries_of, read_entries

    async def by_etcd(store: "EtcdStore", keys: "Keys") -> list[dict[str, Any]]:
        return [entry.row() for entry in entries_of(await read_entries(store, keys), who=who, app=app_name)[:limit]]

    async def by_api(api: "Api") -> list[dict[str, Any]]:
        page = await api.get("/audit", who=who, app=app_name, limit=limit)
        found: list[dict[str, Any]] = page["items"]
        return found

    rows = _reached(context, by_etcd, by_api)
    if as_json:
        show_json(rows)
        return
    shown = [
        {**row, "at": _time(row["at"]), "what": " ".join([row["what"], *map(str, row["path"].values())])}
        for row in rows
    ]
    columns = {key: key.upper() for key in ("at", "who", "what", "result", "client")}
    show_painted(rows_text(shown, columns, "nothing was changed yet", paint_for(sys.stdout)))


def _token_row(record: "Mapping[str, Any]") -> dict[str, Any]:
    fields = ("id", "name", "role", "apps", "created_at", "created_by")
    return {field: record.get(field) for field in fields} | {"expires_at": record.get("expires_at") or None}


def _user_row(record: "Mapping[str, Any]") -> dict[str, Any]:
    return {field: record.get(field) for field in ("user", "role", "apps", "created_at", "created_by")}


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row for people."""
    return {
        **row,
        "apps": "all" if row["apps"] is None else ", ".join(row["apps"]),
        "created": _time(row["created_at"]),
        "expires": _time(row["expires_at"]) if row.get("expires_at") else "never",
    }


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
