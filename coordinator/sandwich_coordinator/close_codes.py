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
    """`meaning` continues "closed with 4004: "; `advice` is one clause for an operator."""

    meaning: str
    advice: str


STOP_CODES: Final[Mapping[int, StopCode]] = MappingProxyType(
    {
        4004: StopCode(
            "authentication failed",
            "the token is wrong or was reset: put the application's current token into its source",
        ),
        4010: StopCode(
            "invalid shard",
            "the shard count does not suit the application (a large bot needs a multiple of what Discord asks): "
            "set shards.count to auto or to a valid number",
        ),
        4011: StopCode(
            "sharding required",
            "a shard would have more than 2,500 guilds: set shards.count to auto or to more shards",
        ),
        4012: StopCode(
            "invalid API version",
            "Discord no longer accepts this program's gateway version: upgrade Sandwich",
        ),
        4013: StopCode(
            "invalid intents",
            "the intents contain one that Discord does not know: correct the application's intents",
        ),
        4014: StopCode(
            "disallowed intents",
            "a privileged intent is not enabled or not approved: enable it in Discord's developer portal, or remove "
            "it from the application's intents",
        ),
    }
)
TOKEN_REFUSED: Final = 4004
"""What REST answers with 401, the gateway answers with this."""
_CORRECT = "correct the application's configuration"


def stop_advice(code: int) -> str:
    """What the operator does about a shard that ended with this code; 0: the code is not known."""
    known = STOP_CODES.get(code)
    return known.advice if known is not None else _CORRECT
