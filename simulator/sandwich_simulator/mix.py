"""A world's traffic: a weighted random mix of actions that change the state and yield events. Seeded, no I/O.

A bot's `mix` names one. "varied" has some of all that can happen, for tests; "messages" and "presences" are estimates
of what a large bot gets without and with the intent GUILD_PRESENCES.
"""

import random
from bisect import bisect
from itertools import accumulate

from .action_context import Action, ActionContext
from .actions import channels, guild_resources, guilds, invites, people, rich_talk, talk, threads, voice
from .actions.talk import message_of
from .config import MIXES
from .events import Event
from .guild_state import GuildState
from .world import World

__all__ = ["WEIGHTS", "ActionContext", "Mix", "message_of"]

TRIES = 20

WEIGHTS: dict[Action, float] = {
    talk.message: 52,
    people.presence: 12,
    talk.typing: 9,
    talk.reaction: 8,
    talk.message_edit: 5,
    voice.voice: 4,
    people.member_update: 3,
    talk.message_delete: 2.5,
    invites.member_joins: 1,
    people.member_leave: 0.8,
    channels.channel: 0.5,
    threads.thread: 0.6,
    threads.membership: 0.4,
    guild_resources.role: 0.4,
    invites.invite: 0.4,
    talk.pin: 0.3,
    voice.voice_status: 0.3,
    guild_resources.interest: 0.3,
    guild_resources.scheduled_event: 0.2,
    channels.channel_overwrites: 0.2,
    guild_resources.expressions: 0.15,
    guild_resources.stage: 0.15,
    guild_resources.sound: 0.15,
    people.bot_member_update: 0.1,
    people.member_again: 0.1,
    people.renamed: 0.1,
    guilds.guild_update: 0.1,
    threads.list_sync: 0.05,
    guilds.outage: 0.04,
    guilds.guild_repeated: 0.04,
    guilds.come_and_go: 0.03,
    people.bot_renamed: 0.002,
}
"""Of the mix "varied"."""

_RARE: dict[Action, float] = {
    invites.member_joins: 0.7,
    people.member_leave: 0.6,
    threads.thread: 0.4,
    threads.membership: 0.3,
    channels.channel: 0.1,
    guild_resources.role: 0.1,
    invites.invite: 0.1,
    talk.pin: 0.1,
    voice.voice_status: 0.1,
    guild_resources.scheduled_event: 0.05,
    guild_resources.expressions: 0.05,
    guilds.guild_update: 0.05,
}
_MESSAGES: dict[Action, float] = {
    rich_talk.rich_message: 55,
    talk.typing: 13,
    talk.reaction: 8,
    talk.message_edit: 8,
    people.member_update: 5,
    voice.voice: 4,
    talk.message_delete: 3,
} | _RARE
_PRESENCES: dict[Action, float] = {
    rich_talk.rich_presence: 450,
} | _MESSAGES

_WIDE = (guilds.outage, guilds.come_and_go, people.renamed, people.bot_renamed)
"""Actions that affect more than the guild they start in."""


class _Odds:
    """How likely each action is: cumulative weights, and the same without actions that affect several guilds."""

    def __init__(self, weights: dict[Action, float]) -> None:
        self.actions = list(weights)
        self.all = list(accumulate(weights.values()))
        self.partial = list(accumulate(0 if action in _WIDE else weight for action, weight in weights.items()))


_ODDS = dict(zip(MIXES, map(_Odds, (WEIGHTS, _MESSAGES, _PRESENCES)), strict=True))


class Mix:
    """Endless actions in one world, or only in `guild_ids`; then no guild is joined, left or in an outage."""

    def __init__(self, world: World, rng: random.Random, guild_ids: list[int] | None = None) -> None:
        self._world = world
        self._rng = rng
        self._odds = _ODDS[world.shared.config.mix]
        self._is_partial = guild_ids is not None
        self._guild_ids = list(guild_ids or ())

    def next_events(self, wall_ms: int) -> list[Event]:
        """The events of the next action; empty only when no guild is available."""
        odds = self._odds
        weights = odds.partial if self._is_partial else odds.all
        for _ in range(TRIES):
            guild = self._available_guild()
            if guild is None:
                return []
            action = odds.actions[bisect(weights, self._rng.random() * weights[-1])]
            events = list(action(ActionContext(self._world, guild, self._rng, wall_ms)))
            if events:
                return events
        return []

    def _available_guild(self) -> GuildState | None:
        if not self._is_partial and len(self._guild_ids) != len(self._world.guild_ids):
            self._guild_ids = list(self._world.guild_ids)
        for _ in range(TRIES if self._guild_ids else 0):
            guild_id = self._rng.choice(self._guild_ids)
            if not self._world.has_guild(guild_id):
                self._guild_ids.remove(guild_id)
                return self._available_guild()
            if not (guild := self._world.guild(guild_id)).unavailable:
                return guild
        return None
