"""What the cache has of guilds, as the command line and the HTTP API show it: where a guild is, what is kept of it, and
the guilds that a user shares with applications.

`apps` is always the cache namespace by application.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from sandwich_coordinator.groups import serving_groups
from sandwich_coordinator.ids import ShardId
from sandwich_coordinator.operations.errors import NotFound, Refused
from sandwich_coordinator.view import ClusterView

if TYPE_CHECKING:
    from sandwich_sdk.cache import Cache

NO_APPLICATIONS = "there are no applications yet: run sandwich cluster apply -f cluster.yml"
LISTS: Final = ("channels", "roles", "members")
"""The collections of a guild that can be listed."""
GUILDS_AT_ONCE: Final = 1000
MEMBERS_SHOWN: Final = 100


def namespaces_of(view: ClusterView) -> dict[str, str]:
    """The cache namespace of each application."""
    return {app: entry.record.cache.namespace_of(app) for app, entry in sorted(view.apps.items())}


def chosen(apps: Mapping[str, str], only: str | None, namespace: str | None = None) -> Mapping[str, str]:
    """All of these applications, or only one, or those of a namespace. Raises NotFound and Refused."""
    if only is not None and only not in apps:
        raise NotFound("application", only, apps)
    if not apps:
        raise Refused(NO_APPLICATIONS)
    found = {app: name for app, name in apps.items() if only in (None, app) and namespace in (None, name)}
    if not found:
        there = ", ".join(sorted(set(apps.values())))
        raise Refused(f"no application uses the cache namespace {namespace}; there are: {there}")
    return found


def where_row(view: ClusterView, app: str, namespace: str, group: int, shard: int) -> dict[str, Any]:
    """The shard of a guild for an application, and the node that runs it now (None: no node)."""
    claim = view.claims.get(ShardId(app, group, shard))
    return {
        "app": app,
        "namespace": namespace,
        "group": group,
        "shard": shard,
        "node": claim.record.node if claim else None,
        "state": claim.record.state if claim else "runs nowhere",
    }


def not_cached(view: ClusterView, guild: str, apps: Sequence[str]) -> str:
    """The message for a guild that is not cached, with the shard it belongs to (Discord: (id >> 22) % count)."""
    serving = serving_groups(view)
    shards = [
        f"shard {(int(guild) >> 22) % view.groups[serving[app]].record.count} of {app}"
        for app in apps
        if app in serving
    ]
    would = f"; it would be on {', '.join(shards)}" if shards else ""
    who = f"application {apps[0]} is not" if len(apps) == 1 else "no application of this cluster is"
    return f"{who} in guild {guild}, or has not seen it yet{would}"


async def find_guild(view: ClusterView, cache: "Cache", guild: str, apps: Mapping[str, str]) -> list[dict[str, Any]]:
    """A row for each application that is in the guild. Raises CacheUnavailable."""
    rows = []
    for app, namespace in apps.items():
        at = await cache.in_namespace(namespace).where_is_guild(guild, app)
        if at is not None:
            rows.append(where_row(view, app, namespace, at.group, at.shard))
    return rows


async def read_guild(
    view: ClusterView, cache: "Cache", guild: str, apps: Mapping[str, str], lists: Sequence[str]
) -> list[dict[str, Any]]:
    """The guild in each namespace, with these collections. Raises CacheUnavailable."""
    found = []
    for namespace in dict.fromkeys(apps.values()):
        space = cache.in_namespace(namespace)
        sizes = await space.sizes(guild)
        if sizes is None:
            continue
        entity = await space.guild(guild)
        of_namespace = {app: name for app, name in apps.items() if name == namespace}
        one = {
            "id": guild,
            "namespace": namespace,
            "guild": entity.raw if entity is not None else None,
            "where": await find_guild(view, cache, guild, of_namespace),
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


async def read_mutual(cache: "Cache", user: str, apps: Mapping[str, str]) -> list[dict[str, Any]]:
    """A row for each guild that the user shares with applications, by namespace. Raises CacheUnavailable."""
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
