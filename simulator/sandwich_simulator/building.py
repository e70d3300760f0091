"""Builds one guild from one seed. The result is the same each time. Pure."""

import random

from . import entities, visibility
from .config import BotConfig
from .entities import Json
from .guild_state import BotView, GuildState, MessageLog
from .snowflakes import snowflake

LARGE_MEMBERS_MIN = 250


class Builder:
    """Builds the guild of this id according to the configuration."""

    def __init__(self, rng: random.Random, guild_id: int, made_ms: int, config: BotConfig) -> None:
        self._rng = rng
        self._id = str(guild_id)
        self._made_ms = made_ms
        self._low = guild_id & 0x3FFFFF
        self._config = config

    def _new_id(self) -> str:
        self._low += 1
        return str(snowflake(self._made_ms, self._low))

    def build(self, bots: list[Json], people: list[Json]) -> GuildState:
        """The guild with all its collections and these bots as members."""
        rng, gid = self._rng, self._id
        owner = (people or bots)[0]["id"]
        guild = GuildState(
            base=entities.guild(rng, gid, owner, self._made_ms + 1000),
            messages=MessageLog(self._config.messages_kept),
            obfuscates=self._config.obfuscation,
        )
        self._roles(guild, bots)
        self._channels(guild, bots)
        role_ids = assignable_roles(guild)
        for person in people:
            held = sorted(rng.sample(role_ids, rng.randrange(0, len(role_ids) + 1)))
            guild.members[person["id"]] = entities.member(rng, person, held, self._made_ms + 2000)
        guild.base["member_count"] = len(guild.members)
        guild.base["large"] = len(guild.members) > LARGE_MEMBERS_MIN
        self._activity(guild, [person["id"] for person in people], owner)
        self._apply_shares(guild)
        visibility.update_views(guild)
        return guild

    def _apply_shares(self, guild: GuildState) -> None:
        """Applies the configured shares of permissions and vanity URLs, with a seed of its own."""
        rng = random.Random(f"{self._id}:endowed")
        if rng.random() < self._config.unmanaged_guilds:
            few = int(entities.EVERYONE) | (visibility.VIEW_AUDIT_LOG if rng.random() < 0.5 else 0)
            for role in guild.roles.values():
                if role["managed"]:
                    role["permissions"] = str(few)
        if rng.random() < self._config.vanity_guilds:
            guild.base["vanity_url_code"] = entities.words(rng, 2).replace(" ", "-")
            guild.base["features"] = [*guild.base["features"], "VANITY_URL"]
            guild.vanity_uses = rng.randrange(1000)

    def _roles(self, guild: GuildState, bots: list[Json]) -> None:
        everyone = entities.role(self._rng, self._id, 0, name="@everyone")
        guild.roles[everyone["id"]] = everyone
        for bot in bots:
            own = bot_role(self._rng, self._new_id(), bot)
            guild.roles[own["id"]] = own
            guild.members[bot["id"]] = entities.member(self._rng, bot, [own["id"]], self._made_ms + 1000)
            guild.views[bot["id"]] = BotView()
        for position in range(2, 6):
            made = entities.role(self._rng, self._new_id(), position)
            guild.roles[made["id"]] = made
        for _ in range(4):
            emoji = entities.emoji(self._rng, self._new_id())
            guild.emojis[emoji["id"]] = emoji
        for _ in range(2):
            sticker = entities.sticker(self._rng, self._new_id(), self._id)
            guild.stickers[sticker["id"]] = sticker
            sound = entities.sound(self._rng, self._new_id(), self._id)
            guild.sounds[sound["sound_id"]] = sound

    def _channels(self, guild: GuildState, bots: list[Json]) -> None:
        kinds = (entities.TEXT, entities.TEXT, entities.TEXT, entities.VOICE, entities.VOICE, entities.STAGE)
        category = entities.channel(self._rng, self._new_id(), entities.CATEGORY, position=0, parent=None)
        guild.channels[category["id"]] = category
        seen: set[int] = set()
        for position, kind in enumerate((*kinds, entities.FORUM)):
            made = entities.channel(self._rng, self._new_id(), kind, position=position, parent=category["id"])
            guild.channels[made["id"]] = made
            if kind in seen:
                # The first channel of its kind is visible to all, so that each bot sees at least one.
                made["permission_overwrites"] = overwrites(self._rng, guild, self._config.hidden_channels)
            if kind == entities.VOICE and kind in seen:
                made["user_limit"] = 3
            seen.add(kind)

    def _activity(self, guild: GuildState, people: list[str], owner: str) -> None:
        rng = self._rng
        parents = guild.channels_of(entities.TEXT, entities.FORUM)
        for _ in range(2):
            made = entities.thread(rng, self._new_id(), self._id, rng.choice(parents), owner, self._made_ms + 3000)
            guild.threads[made["id"]] = made
            guild.thread_members[made["id"]] = {owner: thread_member(made["id"], owner, self._made_ms + 3000)}
        event = entities.scheduled_event(rng, self._new_id(), self._id, owner, self._made_ms + 10**11)
        guild.events[event["id"]] = event
        stage = guild.channels_of(entities.STAGE)[0]
        if rng.random() < 0.3:
            live = entities.stage_instance(rng, self._new_id(), self._id, stage)
            guild.stages[live["id"]] = live
        place = guild.channels_of(entities.VOICE)[0]
        for user_id in people:
            if rng.random() < 0.4:
                guild.presences[user_id] = entities.presence(rng, user_id, self._made_ms + 4000)
            if rng.random() < 0.1:
                guild.voice_states[user_id] = entities.voice_state(rng, user_id, place)
        if guild.voice_states:
            guild.voice_info[place] = {"status": None, "voice_start_time": self._made_ms // 1000}


def bot_role(rng: random.Random, role_id: str, bot: Json) -> Json:
    """The role that a bot adds to a guild when it joins."""
    tags = {"bot_id": bot["id"]}
    return entities.role(rng, role_id, 1, name="bot", managed=True, permissions=entities.BOT, tags=tags)


def assignable_roles(guild: GuildState) -> list[str]:
    """The roles that users may have, without @everyone."""
    return [key for key, role in guild.roles.items() if not role["managed"] and key != guild.id]


def thread_member(thread_id: str, user_id: str, joined_ms: int) -> Json:
    """A member of a thread."""
    return {"id": thread_id, "user_id": user_id, "join_timestamp": entities.iso(joined_ms), "flags": 1}


def overwrites(rng: random.Random, guild: GuildState, hidden: float) -> list[Json]:
    """Overwrites of a channel. Over all channels, they hide a share `hidden` from each bot.

    Twice that share is closed to @everyone, and half of the bots are allowed in.
    """
    made: list[Json] = []
    allowed = rng.sample(assignable_roles(guild), 1)
    if rng.random() < min(1.0, 2 * hidden):
        made.append({"id": guild.id, "type": 0, "allow": "0", "deny": str(visibility.VIEW_CHANNEL)})
        allowed += [key for key, role in guild.roles.items() if role["managed"] and rng.random() < 0.5]
    made += [{"id": key, "type": 0, "allow": str(visibility.VIEW_CHANNEL), "deny": "0"} for key in allowed]
    return made
