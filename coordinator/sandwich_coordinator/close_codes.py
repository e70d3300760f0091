"""The gateway's close codes after which a shard must not try again: what they mean, and what the operator does. Pure.

The one source of this advice: shards, the status and the documents use it.
Rules: https://discord.com/developers/docs/topics/opcodes-and-status-codes#gateway
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class StopCode:
    """`meaning` continues "closed with 4004: "; `advice` is one clause for an operator.

    `then`: the command after which the shards try again. Words in capitals are replaced, see `stop_advice`.
    """

    meaning: str
    advice: str
    then: str


STOP_CODES: Final[Mapping[int, StopCode]] = MappingProxyType(
    {
        4004: StopCode(
            "authentication failed",
            "the token is wrong or was reset: store the application's current token",
            "sandwich app set APP --token-file FILE (or put it into its source and run sandwich cluster apply)",
        ),
        4010: StopCode(
            "invalid shard",
            "the shard count does not suit the application (a large bot needs a multiple of what Discord asks): "
            "take the number that Discord recommends",
            "sandwich app scale APP --shards COUNT",
        ),
        4011: StopCode(
            "sharding required",
            "a shard would have more than 2,500 guilds: take more shards, as many as Discord recommends",
            "sandwich app scale APP --shards COUNT",
        ),
        4012: StopCode(
            "invalid API version",
            "Discord no longer accepts this program's gateway version: upgrade Sandwich on every node",
            "sandwich shard restart APP SHARDS",
        ),
        4013: StopCode(
            "invalid intents",
            "the intents contain one that Discord does not know: correct the application's intents",
            "sandwich app set APP intents=[NAME, ...]",
        ),
        4014: StopCode(
            "disallowed intents",
            "a privileged intent is not enabled or not approved: enable INTENTS in Discord's developer portal "
            "(Bot, Privileged Gateway Intents), or remove it from the application's intents",
            "sandwich shard restart APP SHARDS",
        ),
    }
)
TOKEN_REFUSED: Final = 4004
"""What REST answers with 401, the gateway answers with this."""
_UNKNOWN = StopCode("", "correct what the reason names", "sandwich shard restart APP SHARDS")


def stop_cure(code: int, intents: str = "") -> str:
    """What the operator does about a shard that ended with this code; 0: the code is not known.

    `intents`: the application's privileged ones, by name.
    """
    known = STOP_CODES.get(code, _UNKNOWN)
    return known.advice.replace("INTENTS", intents or "those that the application asks for")


def stop_advice(
    code: int, *, app: str = "APP", shards: str = "SHARDS", intents: str = "", count: int | None = None
) -> str:
    """As `stop_cure`, with the command after which these shards try again. `count`: what Discord recommends."""
    command = STOP_CODES.get(code, _UNKNOWN).then.replace("APP", app).replace("SHARDS", shards)
    return f"{stop_cure(code, intents)}; then run {command.replace('COUNT', str(count or 'COUNT'))}"
