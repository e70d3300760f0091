"""Messages and presences with all that large guilds send: replies, embeds, attachments, mentions, rich activities."""

from collections.abc import Iterator

from sandwich_simulator import entities
from sandwich_simulator.action_context import ActionContext
from sandwich_simulator.events import Event

from .people import presence
from .talk import message_of

REPLY, EMBED, ATTACHMENT, MENTION, RICH = 0.2, 0.15, 0.1, 0.15, 0.7
"""The shares of messages that have these, each independent of the others; RICH: of activities."""
_PLACED_ONLY = frozenset(("referenced_message", "message_reference", "member", "guild_id", "nonce"))
"""What a message that is quoted in another one does not have."""


def rich_message(action: ActionContext) -> Iterator[Event]:
    """A member sends a message."""
    guild, rng = action.guild, action.rng
    place = rng.choice(guild.channels_of(entities.TEXT) + list(guild.threads))
    earlier = guild.messages.of(place)
    message = message_of(action, place, action.someone(), entities.words(rng, rng.randrange(1, 30)))
    if earlier and rng.random() < REPLY:
        old = rng.choice(earlier)
        message["type"] = 19
        message["message_reference"] = {
            "type": 0,
            "message_id": old["id"],
            "guild_id": guild.id,
            "channel_id": place,
        }
        message["referenced_message"] = {key: value for key, value in old.items() if key not in _PLACED_ONLY}
    if rng.random() < EMBED:
        message["embeds"] = [entities.embed(rng, action.wall_ms)]
    if rng.random() < ATTACHMENT:
        message["attachments"] = [entities.attachment(rng, action.new_id(), place)]
    if rng.random() < MENTION:
        member = guild.members[action.someone()]
        rest = {key: value for key, value in member.items() if key != "user"}
        message["mentions"] = [{**member["user"], "member": rest}]
    yield action.event("MESSAGE_CREATE", message)


def rich_presence(action: ActionContext) -> Iterator[Event]:
    """As `people.presence`; most activities are those of games and players, with texts and images."""
    for event in presence(action):
        activities = event.data["activities"]
        if activities and action.rng.random() < RICH:
            activities[0].update(entities.activity_details(action.rng))
        yield event
