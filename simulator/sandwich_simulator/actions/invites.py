"""Invites and joins: how people come into a guild, what the bot is told of it, and the truth of each join. No I/O.

Rules of section 16: a use is counted before the join is told; nobody is told of an expiry; the last use deletes an
invite, whose INVITE_DELETE may come before the GUILD_MEMBER_ADD or after it; INVITE_* events need MANAGE_CHANNELS.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sandwich_simulator import entities
from sandwich_simulator.action_context import ActionContext
from sandwich_simulator.entities import Json
from sandwich_simulator.events import Event
from sandwich_simulator.guild_state import GuildState
from sandwich_simulator.visibility import MANAGE_CHANNELS, permissions_of

INVITES_MAX = 8
INVITES_OF_A_GUILD_MAX = 1000
DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Way:
    """How somebody joins: by an invite's code, by the vanity URL, as a bot that is added, or without any of these."""

    code: str | None = None
    vanity: bool = False
    bot: bool = False


def drop_expired(guild: GuildState, wall_ms: int) -> None:
    """Invites whose time is over are gone; no event tells it."""
    now_s = wall_ms / 1000
    over = [code for code, invite in guild.invites.items() if _expires_s(invite) <= now_s]
    for code in over:
        del guild.invites[code]


def _expires_s(invite: Json) -> float:
    expires_at = invite.get("expires_at")
    return datetime.fromisoformat(expires_at).timestamp() if expires_at else float("inf")


def make_invite(action: ActionContext, *, max_uses: int, max_age_s: int) -> Json:
    """A new invite of somebody's, already in the guild. ValueError when the guild has as many as Discord allows."""
    guild = action.guild
    if len(guild.invites) >= INVITES_OF_A_GUILD_MAX:
        raise ValueError("Maximum number of invites reached")
    invite: Json = {
        "uses": 0,
        "type": 0,
        "temporary": False,
        "max_uses": max_uses,
        "max_age": max_age_s,
        "inviter": guild.members[action.someone()]["user"],
        "guild_id": guild.id,
        "expires_at": entities.iso(action.wall_ms + max_age_s * 1000) if max_age_s else None,
        "created_at": entities.iso(action.wall_ms),
        "code": f"{action.rng.getrandbits(40):08x}",
        "channel_id": action.rng.choice(guild.channels_of(entities.TEXT)),
    }
    guild.invites[invite["code"]] = invite
    return invite


def tell_created(action: ActionContext, invite: Json) -> Event:
    """INVITE_CREATE, which always says 0 uses, for the bots that may see it."""
    return _of_invite(action, "INVITE_CREATE", invite, {**invite, "uses": 0})


def delete_invite(action: ActionContext, code: str) -> Event:
    """Somebody deletes an invite. KeyError when there is none."""
    gone = action.guild.invites.pop(code)
    return _of_invite(action, "INVITE_DELETE", gone, {key: gone[key] for key in ("guild_id", "code", "channel_id")})


def _of_invite(action: ActionContext, name: str, invite: Json, data: Json) -> Event:
    guild = action.guild
    weak = {bot for bot in guild.views if not permissions_of(guild, bot) & MANAGE_CHANNELS}
    return action.event(name, data, unseen_by=guild.unseen_by(invite["channel_id"]) | weak)


def join(action: ActionContext, way: Way) -> Iterator[Event]:
    """Somebody of the pool joins, which is written down in `world.joins`; nobody when the one found is inside."""
    guild, world = action.guild, action.world
    person = world.person(action.rng.randrange(world.people_count))
    if way.bot:
        person = {**person, "id": action.new_id(), "bot": True}
    if person["id"] in guild.members:
        return
    invite = guild.invites[way.code] if way.code is not None else None
    member = entities.member(action.rng, person, [], action.wall_ms)
    guild.members[person["id"]] = member
    guild.base["member_count"] += 1
    world.shared.joins.append(_truth(action, person["id"], way, invite))
    added = action.event("GUILD_MEMBER_ADD", {**member, "guild_id": guild.id})
    guild.vanity_uses += way.vanity
    deleted: list[Event] = []
    if invite is not None:
        invite["uses"] += 1
        if invite["max_uses"] and invite["uses"] >= invite["max_uses"]:
            deleted = [delete_invite(action, invite["code"])]
    yield from (*deleted, added) if deleted and action.rng.random() < 0.5 else (added, *deleted)


def _truth(action: ActionContext, user_id: str, way: Way, invite: Json | None) -> Json:
    inviter = (invite or {}).get("inviter")
    return {
        "guild_id": action.guild.id,
        "user_id": user_id,
        "at_ms": action.wall_ms,
        "how": "bot" if way.bot else "vanity" if way.vanity else "invite" if invite else "none",
        "code": action.guild.base["vanity_url_code"] if way.vanity else way.code,
        "inviter_id": inviter["id"] if inviter else None,
    }


def invite(action: ActionContext) -> Iterator[Event]:
    """An invite is made (now and then used before anybody heard of it), or deleted."""
    guild, rng = action.guild, action.rng
    drop_expired(guild, action.wall_ms)
    if len(guild.invites) < INVITES_MAX and rng.random() < 0.7:
        made = make_invite(action, max_uses=rng.choice((0, 0, 0, 1, 10)), max_age_s=rng.choice((0, 1800, DAY_S)))
        told = tell_created(action, made)
        if rng.random() < 0.1:
            yield from join(action, Way(code=made["code"]))
        yield told
    elif guild.invites:
        yield delete_invite(action, rng.choice(list(guild.invites)))


def member_joins(action: ActionContext) -> Iterator[Event]:
    """Somebody joins: mostly by an invite, else by the vanity URL, as a bot, or without anything."""
    guild, rng = action.guild, action.rng
    drop_expired(guild, action.wall_ms)
    roll = rng.random()
    if guild.invites and roll < 0.7:
        yield from join(action, Way(code=rng.choice(list(guild.invites))))
    elif guild.base["vanity_url_code"] and roll < 0.85:
        yield from join(action, Way(vanity=True))
    else:
        yield from join(action, Way(bot=roll > 0.97))
