"""Discord's objects as JSON, built from a seed. Pure functions without state."""

import random
from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]

_WORDS = (
    *("amber", "basil", "cedar", "delta", "ember", "fable", "grove", "harbor", "indigo", "juniper", "kestrel"),
    *("lagoon", "meadow", "nectar", "onyx", "pebble", "quartz", "raven", "saffron", "timber", "umbra", "velvet"),
    *("willow", "yarrow", "zephyr", "copper", "drift", "echo", "frost", "glade"),
)
TEXT, VOICE, CATEGORY, STAGE, FORUM = 0, 2, 4, 13, 15
PUBLIC_THREAD, PRIVATE_THREAD = 11, 12
BOT = str((1 << 53) - 1 & ~(1 << 3 | 1 << 24))
"""The permissions of a bot's own role: all but ADMINISTRATOR (sees all channels) and MOVE_MEMBERS (joins full ones)."""
EVERYONE = str(0x6_4AC0_DDB6_3E41)


def iso(wall_ms: int) -> str:
    """A wall time in Discord's format."""
    return datetime.fromtimestamp(wall_ms / 1000, UTC).isoformat(timespec="microseconds")


def words(rng: random.Random, count: int) -> str:
    """A few random words."""
    return " ".join(rng.choices(_WORDS, k=count))


def hex_hash(rng: random.Random) -> str:
    """A random image hash."""
    return f"{rng.getrandbits(128):032x}"


def user(rng: random.Random, user_id: str) -> Json:
    """A person."""
    name = f"{rng.choice(_WORDS)}{rng.randrange(10_000)}"
    return {
        "username": name,
        "public_flags": 0,
        "primary_guild": None,
        "id": user_id,
        "global_name": name.title() if rng.random() < 0.7 else None,
        "display_name_styles": None,
        "discriminator": "0",
        "collectibles": None,
        "bot": False,
        "avatar_decoration_data": None,
        "avatar": hex_hash(rng) if rng.random() < 0.8 else None,
    }


def member(rng: random.Random, person: Json, roles: list[str], joined_ms: int) -> Json:
    """A user in a guild. The `user` object is shared with all other guilds of the user."""
    return {
        "user": person,
        "roles": roles,
        "premium_since": None,
        "pending": False,
        "nick": words(rng, 2) if rng.random() < 0.3 else None,
        "mute": False,
        "joined_at": iso(joined_ms),
        "flags": 0,
        "deaf": False,
        "communication_disabled_until": None,
        "banner": None,
        "avatar": None,
    }


def role(rng: random.Random, role_id: str, position: int, **known: Any) -> Json:
    """A role."""
    color = rng.randrange(1 << 24)
    return {
        "version": 1,
        "unicode_emoji": None,
        "tags": {},
        "position": position,
        "permissions": EVERYONE,
        "name": words(rng, 1),
        "mentionable": False,
        "managed": False,
        "id": role_id,
        "icon": None,
        "hoist": False,
        "flags": 0,
        "colors": {"primary_color": color, "secondary_color": None, "tertiary_color": None},
        "color": color,
        **known,
    }


def channel(rng: random.Random, channel_id: str, kind: int, *, position: int, parent: str | None) -> Json:
    """A guild channel of any type but a thread, in the form of GUILD_CREATE (without `guild_id`)."""
    made: Json = {
        "version": 1,
        "type": kind,
        "position": position,
        "permission_overwrites": [],
        "parent_id": parent,
        "name": words(rng, 2).replace(" ", "-"),
        "id": channel_id,
        "flags": 0,
    }
    if kind in (TEXT, FORUM):
        made.update(topic=words(rng, 6), rate_limit_per_user=0, last_message_id=None, nsfw=False)
    if kind == FORUM:
        made.update(available_tags=[], default_reaction_emoji=None, default_sort_order=None, default_forum_layout=0)
        made["template"] = ""
    if kind in (VOICE, STAGE):
        made.update(user_limit=0, rtc_region=None, bitrate=64000, rate_limit_per_user=0, last_message_id=None)
        made.update(nsfw=False, icon_emoji={"name": "🎙️", "id": None})
    return made


def thread(
    rng: random.Random, thread_id: str, guild_id: str, parent: str, owner: str, made_ms: int, **known: Any
) -> Json:
    """An active thread, public by default."""
    return {
        "type": PUBLIC_THREAD,
        "total_message_sent": 0,
        "thread_metadata": {
            "locked": False,
            "create_timestamp": iso(made_ms),
            "auto_archive_duration": 1440,
            "archived": False,
            "archive_timestamp": iso(made_ms),
        },
        "rate_limit_per_user": 0,
        "parent_id": parent,
        "owner_id": owner,
        "name": words(rng, 3),
        "message_count": 0,
        "member_count": 1,
        "last_message_id": None,
        "id": thread_id,
        "guild_id": guild_id,
        "flags": 0,
        **known,
    }


def emoji(rng: random.Random, emoji_id: str) -> Json:
    """An emoji of a guild."""
    return {
        "version": 0,
        "roles": [],
        "require_colons": True,
        "name": words(rng, 2).replace(" ", "_"),
        "managed": False,
        "id": emoji_id,
        "available": True,
        "animated": rng.random() < 0.2,
    }


def sticker(rng: random.Random, sticker_id: str, guild_id: str) -> Json:
    """A sticker of a guild."""
    return {
        "version": 1,
        "type": 2,
        "tags": "grin",
        "name": words(rng, 2),
        "id": sticker_id,
        "guild_id": guild_id,
        "format_type": 1,
        "description": words(rng, 4),
        "available": True,
        "asset": "",
    }


def sound(rng: random.Random, sound_id: str, guild_id: str) -> Json:
    """A soundboard sound."""
    return {
        "volume": 1.0,
        "sound_id": sound_id,
        "name": words(rng, 1),
        "guild_id": guild_id,
        "emoji_name": None,
        "emoji_id": None,
        "available": True,
    }


def scheduled_event(
    rng: random.Random, event_id: str, guild_id: str, creator: str, start_ms: int, channel: Json | None = None
) -> Json:
    """A scheduled event in a voice or stage channel, or elsewhere. Some have no `user_count`, as at Discord."""
    made: Json = {
        "status": 1,
        "sku_ids": [],
        "scheduled_start_time": iso(start_ms),
        "scheduled_end_time": iso(start_ms + 3_600_000),
        "recurrence_rule": None,
        "privacy_level": 2,
        "name": words(rng, 3),
        "image": None,
        "id": event_id,
        "guild_scheduled_event_exceptions": [],
        "guild_id": guild_id,
        "entity_type": 3,
        "entity_metadata": {"location": words(rng, 2)},
        "entity_id": None,
        "description": words(rng, 8),
        "creator_id": creator,
        "channel_id": None,
    }
    if channel is not None:
        kind = 1 if channel["type"] == STAGE else 2
        made |= {"entity_type": kind, "entity_metadata": None, "scheduled_end_time": None, "channel_id": channel["id"]}
    return made | ({"user_count": 0} if rng.random() < 0.7 else {})


def stage_instance(rng: random.Random, stage_id: str, guild_id: str, channel_id: str) -> Json:
    """A live stage."""
    return {
        "topic": words(rng, 3),
        "privacy_level": 2,
        "invite_code": None,
        "id": stage_id,
        "guild_scheduled_event_id": None,
        "guild_id": guild_id,
        "discoverable_disabled": True,
        "channel_id": channel_id,
    }


def presence(rng: random.Random, user_id: str, made_ms: int) -> Json:
    """A user's presence. It is never "offline": an offline user has no presence."""
    status = rng.choice(("online", "idle", "dnd"))
    activities: list[Json] = []
    if rng.random() < 0.5:
        activities.append(
            {
                "type": 0,
                "name": words(rng, 2),
                "id": f"{rng.getrandbits(60):x}",
                "created_at": made_ms,
                "timestamps": {"start": made_ms - rng.randrange(3_600_000)},
            }
        )
    return {
        "user": {"id": user_id},
        "status": status,
        "processed_at_timestamp": 0,
        "game": activities[0] if activities else None,
        "client_status": {rng.choice(("desktop", "mobile", "web")): status},
        "activities": activities,
    }


def activity_details(rng: random.Random) -> Json:
    """What games and players add to an activity."""
    return {
        "state": words(rng, 3),
        "details": words(rng, 4),
        "application_id": str(rng.getrandbits(60)),
        "party": {"id": hex_hash(rng), "size": [1, 4]},
        "assets": {
            "small_text": words(rng, 2),
            "small_image": str(rng.getrandbits(60)),
            "large_text": words(rng, 3),
            "large_image": f"mp:external/{hex_hash(rng)}/https/images.invalid/{hex_hash(rng)}.png",
        },
        "session_id": hex_hash(rng),
        "flags": 1,
    }


def embed(rng: random.Random, made_ms: int) -> Json:
    """A rich embed, as bots send it and links unfold to."""
    image = f"https://images.invalid/{hex_hash(rng)}.png"
    return {
        "type": "rich",
        "url": f"https://example.invalid/{hex_hash(rng)}",
        "title": words(rng, 5),
        "timestamp": iso(made_ms),
        "thumbnail": {
            "width": 400,
            "url": image,
            "proxy_url": f"https://images-ext-1.invalid/external/{hex_hash(rng)}/{hex_hash(rng)}.png",
            "placeholder_version": 1,
            "placeholder": "3/cFJYSHiHePh4iHd4hqd4eI9w==",
            "height": 400,
            "flags": 0,
        },
        "footer": {"text": words(rng, 4)},
        "fields": [
            {"name": words(rng, 2), "value": words(rng, rng.randrange(1, 8)), "inline": True}
            for _ in range(rng.randrange(4))
        ],
        "description": words(rng, rng.randrange(10, 40)),
        "content_scan_version": 2,
        "color": rng.randrange(1 << 24),
    }


def attachment(rng: random.Random, attachment_id: str, place: str) -> Json:
    """An image in a message of the channel or thread `place`."""
    path = f"attachments/{place}/{attachment_id}/image.png"
    query = f"ex={rng.getrandbits(32):x}&is={rng.getrandbits(32):x}&hm={hex_hash(rng)}{hex_hash(rng)}&"
    return {
        "width": 1920,
        "url": f"https://cdn.invalid/{path}?{query}",
        "size": rng.randrange(8_000_000),
        "proxy_url": f"https://media.invalid/{path}?{query}",
        "placeholder_version": 1,
        "placeholder": "3/cFJYSHiHePh4iHd4hqd4eI9w==",
        "id": attachment_id,
        "height": 1080,
        "filename": "image.png",
        "content_type": "image/png",
        "content_scan_version": 2,
    }


def voice_state(rng: random.Random, user_id: str, channel_id: str | None) -> Json:
    """A user's voice state, in the form of GUILD_CREATE (without `guild_id` and `member`)."""
    return {
        "user_id": user_id,
        "suppress": False,
        "session_id": hex_hash(rng),
        "self_video": False,
        "self_mute": rng.random() < 0.3,
        "self_deaf": False,
        "request_to_speak_timestamp": None,
        "mute": False,
        "deaf": False,
        "channel_id": channel_id,
    }


def guild(rng: random.Random, guild_id: str, owner: str, joined_ms: int) -> Json:
    """A guild without its collections."""
    return {
        "id": guild_id,
        "name": words(rng, 2).title(),
        "owner_id": owner,
        "icon": hex_hash(rng),
        "joined_at": iso(joined_ms),
        "large": False,
        "member_count": 0,
        "features": ["NEWS", "COMMUNITY"] if rng.random() < 0.5 else [],
        "description": None,
        "splash": None,
        "discovery_splash": None,
        "banner": None,
        "home_header": None,
        "application_id": None,
        "region": "us-west",
        "afk_channel_id": None,
        "afk_timeout": 300,
        "system_channel_id": None,
        "system_channel_flags": 0,
        "widget_enabled": False,
        "widget_channel_id": None,
        "verification_level": 1,
        "default_message_notifications": 1,
        "explicit_content_filter": 2,
        "mfa_level": 0,
        "nsfw": False,
        "nsfw_level": 0,
        "max_presences": None,
        "max_members": 500_000,
        "max_video_channel_users": 25,
        "max_stage_video_channel_users": 50,
        "vanity_url_code": None,
        "premium_tier": rng.randrange(4),
        "premium_subscription_count": 0,
        "premium_progress_bar_enabled": False,
        "preferred_locale": "en-US",
        "public_updates_channel_id": None,
        "rules_channel_id": None,
        "safety_alerts_channel_id": None,
        "latest_onboarding_question_id": None,
        "incidents_data": None,
        "inventory_settings": None,
        "hub_type": None,
        "lazy": True,
        "version": 1,
        "embedded_activities": [],
        "activity_instances": [],
        "application_command_counts": {"1": 0, "2": 0, "3": 0},
    }
