"""Actions on invites and joins: the events of each join, and a record of how the user really joined. No I/O.

Rules (docs/design/protocol.md, section 16): a use is counted before the join is sent; expiry sends no event; the last
use deletes an invite, and its INVITE_DELETE may come before or after the GUILD_MEMBER_ADD; INVITE_* events need
MANAGE_CHANNELS.
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
class JoinMethod:
    """How a user joins: by an invite's code, by the vanity URL, as an added bot, or by none of these."""

    code: str | None = None
    vanity: bool = False
    bot: bool = False


def drop_expired(guild: GuildState, wall_ms: int) -> None:
    """Removes expired invites. Discord sends no event for it."""
    now_s = wall_ms / 1000
    expired = [code for code, invite in guild.invites.items() if _expires_s(invite) <= now_s]
    for code in expired:
        del guild.invites[code]


def _expires_s(invite: Json) -> float:
    expires_at = invite.get("expires_at")
    return datetime.fromisoformat(expires_at).timestamp() if expires_at else float("inf")


def make_invite(action: ActionContext, *, max_uses: int, max_age_s: int) -> Json:
    """Adds an invite of a random member. ValueError when the guild has as many invites as Discord allows."""
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


def invite_created(action: ActionContext, invite: Json) -> Event:
    """INVITE_CREATE for the bots that may see it. Its `uses` is always 0."""
    return _of_invite(action, "INVITE_CREATE", invite, {**invite, "uses": 0})


def delete_invite(action: ActionContext, code: str) -> Event:
    """Deletes an invite. KeyError when it does not exist."""
    gone = action.guild.invites.pop(code)
    return _of_invite(action, "INVITE_DELETE", gone, {key: gone[key] for key in ("guild_id", "code", "channel_id")})


def _of_invite(action: ActionContext, name: str, invite: Json, data: Json) -> Event:
    guild = action.guild
    weak = {bot for bot in guild.views if not permissions_of(guild, bot) & MANAGE_CHANNELS}
    return action.event(name, data, unseen_by=guild.unseen_by(invite["channel_id"]) | weak)


def join(action: ActionContext, method: JoinMethod) -> Iterator[Event]:
    """A random user of the pool joins and is recorded in `world.joins`. No event if the user is a member already."""
    guild, world = action.guild, action.world
    person = world.person(action.rng.randrange(world.people_count))
    if method.bot:
        person = {**person, "id": action.new_id(), "bot": True}
    if person["id"] in guild.members:
        return
    invite = guild.invites[method.code] if method.code is not None else None
    member = entities.member(action.rng, person, [], action.wall_ms)
    guild.members[person["id"]] = member
    guild.base["member_count"] += 1
    world.shared.joins.append(_truth(action, person["id"], method, invite))
    added = action.event("GUILD_MEMBER_ADD", {**member, "guild_id": guild.id})
    guild.vanity_uses += method.vanity
    deleted: list[Event] = []
    if invite is not None:
        invite["uses"] += 1
        if invite["max_uses"] and invite["uses"] >= invite["max_uses"]:
            deleted = [delete_invite(action, invite["code"])]
    yield from (*deleted, added) if deleted and action.rng.random() < 0.5 else (added, *deleted)


def _truth(action: ActionContext, user_id: str, method: JoinMethod, invite: Json | None) -> Json:
    inviter = (invite or {}).get("inviter")
    return {
        "guild_id": action.guild.id,
        "user_id": user_id,
        "at_ms": action.wall_ms,
        "how": "bot" if method.bot else "vanity" if method.vanity else "invite" if invite else "none",
        "code": action.guild.base["vanity_url_code"] if method.vanity else method.code,
        "inviter_id": inviter["id"] if inviter else None,
    }


def invite(action: ActionContext) -> Iterator[Event]:
    """Creates an invite (sometimes used before its INVITE_CREATE is sent), or deletes one."""
    guild, rng = action.guild, action.rng
    drop_expired(guild, action.wall_ms)
    if len(guild.invites) < INVITES_MAX and rng.random() < 0.7:
        made = make_invite(action, max_uses=rng.choice((0, 0, 0, 1, 10)), max_age_s=rng.choice((0, 1800, DAY_S)))
        created = invite_created(action, made)
        if rng.random() < 0.1:
            yield from join(action, JoinMethod(code=made["code"]))
        yield created
    elif guild.invites:
        yield delete_invite(action, rng.choice(list(guild.invites)))


def member_joins(action: ActionContext) -> Iterator[Event]:
    """A user joins: mostly by an invite, else by the vanity URL, as a bot, or by none of these."""
    guild, rng = action.guild, action.rng
    drop_expired(guild, action.wall_ms)
    roll = rng.random()
    if guild.invites and roll < 0.7:
        yield from join(action, JoinMethod(code=rng.choice(list(guild.invites))))
    elif guild.base["vanity_url_code"] and roll < 0.85:
        yield from join(action, JoinMethod(vanity=True))
    else:
        yield from join(action, JoinMethod(bot=roll > 0.97))
