"""Discord's gateway intents by name (https://discord.com/developers/docs/events/gateway#gateway-intents)."""

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType

INTENTS: Mapping[str, int] = MappingProxyType(
    {
        "GUILDS": 1 << 0,
        "GUILD_MEMBERS": 1 << 1,
        "GUILD_MODERATION": 1 << 2,
        "GUILD_EXPRESSIONS": 1 << 3,
        "GUILD_INTEGRATIONS": 1 << 4,
        "GUILD_WEBHOOKS": 1 << 5,
        "GUILD_INVITES": 1 << 6,
        "GUILD_VOICE_STATES": 1 << 7,
        "GUILD_PRESENCES": 1 << 8,
        "GUILD_MESSAGES": 1 << 9,
        "GUILD_MESSAGE_REACTIONS": 1 << 10,
        "GUILD_MESSAGE_TYPING": 1 << 11,
        "DIRECT_MESSAGES": 1 << 12,
        "DIRECT_MESSAGE_REACTIONS": 1 << 13,
        "DIRECT_MESSAGE_TYPING": 1 << 14,
        "MESSAGE_CONTENT": 1 << 15,
        "GUILD_SCHEDULED_EVENTS": 1 << 16,
        "AUTO_MODERATION_CONFIGURATION": 1 << 20,
        "AUTO_MODERATION_EXECUTION": 1 << 21,
        "GUILD_MESSAGE_POLLS": 1 << 24,
        "DIRECT_MESSAGE_POLLS": 1 << 25,
    }
)
"""Every intent Discord defines; any other bit leads to close code 4013."""

ALIASES: Mapping[str, str] = MappingProxyType(
    {"GUILD_BANS": "GUILD_MODERATION", "GUILD_EMOJIS_AND_STICKERS": "GUILD_EXPRESSIONS"}
)
"""Former names that Discord's documentation and libraries still use."""

PRIVILEGED = frozenset({"GUILD_MEMBERS", "GUILD_PRESENCES", "MESSAGE_CONTENT"})
"""Must be enabled for the application in Discord's developer portal, else close code 4014."""

ALL = sum(INTENTS.values())


def intents_from_names(names: Iterable[str]) -> int:
    """The bits of `names`, in any case. Raises ValueError naming every unknown one, with the nearest known name."""
    bits = 0
    unknown = []
    for name in names:
        upper = name.strip().upper()
        bit = INTENTS.get(ALIASES.get(upper, upper))
        if bit is None:
            near = difflib.get_close_matches(upper, INTENTS, n=1)
            unknown.append(f"unknown intent {name!r}" + (f" (did you mean {near[0]}?)" if near else ""))
        else:
            bits |= bit
    if unknown:
        raise ValueError("; ".join(unknown))
    return bits


def check_intents(bits: int) -> int:
    """Return `bits` when Discord defines every one of them. Raises ValueError naming the others."""
    if bits.bit_length() > 64:
        raise ValueError("is not a sum of intents: it has more than 64 bits")
    undefined = [bit for bit in range(bits.bit_length()) if bits >> bit & 1 and not ALL >> bit & 1]
    if bits < 0 or undefined:
        which = ", ".join(str(bit) for bit in undefined) or "negative"
        raise ValueError(f"{bits} has bits that Discord does not define ({which}): Discord would refuse it (4013)")
    return bits


def intent_names(bits: int) -> list[str]:
    """The names of `bits`, lowest bit first."""
    return [name for name, bit in INTENTS.items() if bits & bit]


def privileged_names(bits: int) -> list[str]:
    """Those of `bits` that must be enabled in Discord's developer portal."""
    return [name for name in intent_names(bits) if name in PRIVILEGED]
