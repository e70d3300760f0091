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
from sandwich_coordinator.cli.options import KEY_FILE_VARIABLE, KEY_VARIABLE, Json, command_group
from sandwich_coordinator.cli.options import run as run_work
from sandwich_coordinator.cli.output import show, show_json
from sandwich_coordinator.operations.errors import NotFound

if TYPE_CHECKING:
    from sandwich_coordinator.view import ClusterView
    from sandwich_sdk.cache import Cache

T = TypeVar("T")
TIMEOUT_S: Final = 3.0
GUILDS_AT_ONCE: Final = 1000
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

    def of_app(self, only: str | None) -> Mapping[str, str]:
        """The namespace of each application, or only of one. Raises NotFound and CommandError."""
        if only is not None and only not in self.namespaces:
            raise NotFound("application", only, self.namespaces)
        if not self.namespaces:
            raise CommandError("there are no applications yet: run sandwich cluster apply -f cluster.yml", 1)
        return self.namespaces if only is None else {only: self.namespaces[only]}

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
        namespaces={app: entry.record.cache.namespace_of(app) for app, entry in sorted(view.apps.items())},
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
    from sandwich_coordinator.cli.lookups import not_cached, where_text

    guild_id = check_id(guild)

    async def run() -> None:
        lookup = await load(context.obj, key_file)
        apps = lookup.of_app(only)
        rows = await lookup.ask(lambda cache: _where(lookup, cache, guild_id, apps))
        _show(rows, where_text(rows), as_json)
        if not rows:
            raise CommandError(not_cached(lookup.view, guild_id, list(apps)), 1)

    run_work(run())


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
    from sandwich_coordinator.cli.lookups import LISTS, guild_text, not_cached

    guild_id = check_id(guild)
    wanted = [name for name, is_wanted in zip(LISTS, (channels, roles, members), strict=True) if is_wanted]

    async def run() -> None:
        lookup = await load(context.obj, key_file)
        apps = lookup.of_app(only)
        found = await lookup.ask(lambda cache: _guild(lookup, cache, guild_id, apps, wanted))
        _show(found, "\n\n".join(map(guild_text, found)), as_json)
        if not found:
            raise CommandError(not_cached(lookup.view, guild_id, list(apps)), 1)

    run_work(run())


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
    from sandwich_coordinator.cli.lookups import mutual_text

    user_id = check_id(user)
    if only is not None and namespace is not None:
        raise CommandError("give --app or --namespace, not both")

    async def run() -> None:
        lookup = await load(context.obj, key_file)
        apps = {app: name for app, name in lookup.of_app(only).items() if namespace in (None, name)}
        if not apps:
            there = ", ".join(sorted(set(lookup.namespaces.values())))
            raise CommandError(f"no application uses the cache namespace {namespace}; there are: {there}", 1)
        rows = await lookup.ask(lambda cache: _mutual(cache, user_id, apps))
        _show({"user": user_id, "guilds": rows}, mutual_text(rows, user_id, list(apps)), as_json)

    run_work(run())


async def _where(lookup: Lookup, cache: "Cache", guild: str, apps: Mapping[str, str]) -> list[dict[str, Any]]:
    from sandwich_coordinator.cli.lookups import where_row

    rows = []
    for app, namespace in apps.items():
        at = await cache.in_namespace(namespace).where_is_guild(guild, app)
        if at is not None:
            rows.append(where_row(lookup.view, app, namespace, at.group, at.shard))
    return rows


async def _guild(
    lookup: Lookup, cache: "Cache", guild: str, apps: Mapping[str, str], lists: list[str]
) -> list[dict[str, Any]]:
    """The guild in each namespace."""
    found = []
    for namespace in dict.fromkeys(apps.values()):
        space = cache.in_namespace(namespace)
        sizes = await space.sizes(guild)
        if sizes is None:
            continue
        entity = await space.guild(guild)
        one = {
            "id": guild,
            "namespace": namespace,
            "guild": entity.raw if entity is not None else None,
            "where": await _where(lookup, cache, guild, {app: name for app, name in apps.items() if name == namespace}),
            "cached": sizes,
        }
        found.append(one | {name: await _listed(space, guild, name) for name in lists})
    return found


async def _listed(space: "Cache", guild: str, name: str) -> list[dict[str, Any]]:
    if name == "channels":
        return [channel.raw for channel in await space.channels(guild)]
    if name == "roles":
        return [role.raw for role in await space.roles(guild)]
    return [member.raw for member in await space.members(guild, limit=MEMBERS_SHOWN)]


async def _mutual(cache: "Cache", user: str, apps: Mapping[str, str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for namespace in dict.fromkeys(apps.values()):
        space = cache.in_namespace(namespace)
        shared: dict[str, list[str]] = {}
        for app in (app for app, name in apps.items() if name == namespace):
            for guild in await space.mutual_guilds(user, app=app):
                shared.setdefault(guild, []).append(app)
        names: dict[str, str | None] = {}
        ids = sorted(shared, key=int)
        for at in range(0, len(ids), GUILDS_AT_ONCE):
            names |= {guild.id: guild.name for guild in await space.guilds(ids[at : at + GUILDS_AT_ONCE])}
        rows += [
            {"guild": guild, "name": names.get(guild), "namespace": namespace, "apps": shared[guild]} for guild in ids
        ]
    return rows


def _show(value: Any, text: str, as_json: bool) -> None:
    if as_json:
        show_json(value)
    elif text:
        show(text)
