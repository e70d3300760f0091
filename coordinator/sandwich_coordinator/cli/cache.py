"""`sandwich guild` and `sandwich user`: the cache, read from Redis with the cluster's own settings.

This module imports little, because help and completion load it: the rest is imported when a command runs.
"""

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from sandwich_coordinator.cli.connection import Connection
from sandwich_coordinator.cli.errors import CommandError
from sandwich_coordinator.cli.options import (
    KEY_FILE_VARIABLE,
    KEY_VARIABLE,
    Json,
    command_group,
    run,
    with_key_file,
)
from sandwich_coordinator.cli.output import show, show_json

if TYPE_CHECKING:
    from sandwich_coordinator.view import ClusterView
    from sandwich_sdk.cache import Cache

T = TypeVar("T")
TIMEOUT_S: Final = 3.0
MEMBERS_SHOWN: Final = 100

guild_app = command_group("Guilds in the cache.")
user_app = command_group("Users: in the cache, and who may sign in to the HTTP API.")

GuildId = Annotated[str, typer.Argument(metavar="GUILD", help="The guild's id.")]
UserId = Annotated[str, typer.Argument(metavar="USER", help="The user's id.")]
OnlyApp = Annotated[str | None, typer.Option("--app", help="Only this application.")]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file",
        envvar=KEY_FILE_VARIABLE,
        help=f"The cluster key, when Redis has a password; else ${KEY_VARIABLE}.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """The parts of the cluster that are needed to read the cache. `namespaces`: by application."""

    view: "ClusterView"
    namespaces: Mapping[str, str]
    url: str
    password: str | None = field(repr=False)
    tls: tuple[str, str, str] = ("", "", "")

    async def ask(self, question: Callable[["Cache"], Awaitable[T]]) -> T:
        """Run `read` with a cache (in any namespace). Raises CommandError when the cache is unavailable."""
        # Imported here, so that other commands do not load redis-py.
        from sandwich_sdk.cache import Cache, CacheUnavailable, Tls

        some = next(iter(self.namespaces.values()))
        ca, cert, key = (path or None for path in self.tls)
        tls = Tls(ca=ca, cert=cert, key=key) if ca or cert else None
        try:
            cache = Cache(self.url, namespace=some, password=self.password, tls=tls, timeout=TIMEOUT_S)
        except ValueError as error:
            raise CommandError(f"the cluster's Redis settings cannot be used: {error}", 1) from None
        try:
            async with cache:
                return await question(cache)
        except CacheUnavailable as error:
            raise CommandError(str(error)) from None


def check_id(text: str) -> str:
    """An id from the command line. Raises CommandError."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 20 and 0 < int(text) < 2**64):
        raise CommandError(f"{text[:40]!r} is not a Discord id, which is a number such as 613425648685547541")
    return str(int(text))


async def load(connection: Connection, key_file: Path | None) -> Lookup:
    """The cluster's records, and its Redis settings with the password unsealed. Raises CommandError, SealingError."""
    from sandwich_coordinator.config import REDIS_SECRET
    from sandwich_coordinator.operations.cached_guilds import namespaces_of
    from sandwich_coordinator.operations.configuration import read_settings
    from sandwich_coordinator.sealing import open_plain
    from sandwich_coordinator.view import ClusterView

    async with connection.store() as store:
        listing = await store.list(connection.keys.prefix)
    items = {item.key: item for item in listing.items}
    if connection.keys.config not in items:
        raise CommandError("the cluster is not configured: run sandwich cluster apply -f cluster.yml", 1)
    settings = read_settings(items[connection.keys.config], connection.keys, None).redis
    view = ClusterView.from_items(connection.keys, items, listing.revision)
    password = None
    if settings.password.startswith("plain:"):
        password = open_plain(REDIS_SECRET, settings.password, allow_plain=True)
    elif settings.password:
        key = replace(connection, key_file=key_file).key(os.environ)
        settings = read_settings(items[connection.keys.config], connection.keys, key).redis
        password = key.unseal(REDIS_SECRET, settings.password)
    return Lookup(
        view=view,
        namespaces=namespaces_of(view),
        url=settings.url,
        password=password,
        tls=(settings.tls_ca, settings.tls_cert, settings.tls_key),
    )


@guild_app.command("where")
def guild_where(
    context: typer.Context, guild: GuildId, only: OnlyApp = None, key_file: KeyFile = None, as_json: Json = False
) -> None:
    """Show a guild's shards and the nodes that run them. Exit code 1: no application is in it.

    Example: sandwich guild where 81384788765712384
    """
    from sandwich_coordinator.cli.guild_access import Found, open_guilds
    from sandwich_coordinator.cli.lookups import where_text

    guild_id = check_id(guild)

    async def look() -> Found:
        async with open_guilds(with_key_file(context.obj, key_file)) as guilds:
            return await guilds.where(guild_id, only)

    found = run(look())
    _show(found.rows, where_text(found.rows), as_json)
    if not found.rows:
        raise CommandError(found.absence, 1)


@guild_app.command("show")
def guild_show(
    context: typer.Context,
    guild: GuildId,
    only: OnlyApp = None,
    channels: Annotated[bool, typer.Option("--channels", help="List its channels, too.")] = False,
    roles: Annotated[bool, typer.Option("--roles", help="List its roles, too.")] = False,
    members: Annotated[bool, typer.Option("--members", help=f"Also list members, at most {MEMBERS_SHOWN}.")] = False,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Show a guild from the cache. Exit code 1: no application is in it.

    Example: sandwich guild show 81384788765712384 --channels
    """
    from sandwich_coordinator.cli.guild_access import Found, open_guilds
    from sandwich_coordinator.cli.lookups import guild_text
    from sandwich_coordinator.operations.cached_guilds import LISTS

    guild_id = check_id(guild)
    wanted = [name for name, is_wanted in zip(LISTS, (channels, roles, members), strict=True) if is_wanted]

    async def look() -> Found:
        async with open_guilds(with_key_file(context.obj, key_file)) as guilds:
            return await guilds.show(guild_id, only, wanted)

    found = run(look())
    _show(found.rows, "\n\n".join(map(guild_text, found.rows)), as_json)
    if not found.rows:
        raise CommandError(found.absence, 1)


@user_app.command("mutual")
def user_mutual(
    context: typer.Context,
    user: UserId,
    only: OnlyApp = None,
    namespace: Annotated[str | None, typer.Option("--namespace", help="Only applications of this namespace.")] = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """List the guilds that a user shares with the applications. Example: sandwich user mutual 80351110224678912"""
    from sandwich_coordinator.cli.guild_access import Shared, open_guilds
    from sandwich_coordinator.cli.lookups import mutual_text

    user_id = check_id(user)
    if only is not None and namespace is not None:
        raise CommandError("give --app or --namespace, not both")

    async def look() -> Shared:
        async with open_guilds(with_key_file(context.obj, key_file)) as guilds:
            return await guilds.mutual(user_id, only, namespace)

    found = run(look())
    _show({"user": user_id, "guilds": found.rows}, mutual_text(found.rows, user_id, found.apps), as_json)


def _show(value: Any, text: str, as_json: bool) -> None:
    if as_json:
        show_json(value)
    elif text:
        show(text)
