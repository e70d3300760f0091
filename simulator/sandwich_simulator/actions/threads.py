"""Actions on threads and their members. Only its members see a private thread."""

from collections.abc import Iterator

from sandwich_simulator import entities
from sandwich_simulator.action_context import ActionContext
from sandwich_simulator.building import thread_member
from sandwich_simulator.entities import Json
from sandwich_simulator.events import Event
from sandwich_simulator.visibility import thread_as_seen, thread_list

from .talk import message_of

THREADS_MAX = 6
ARCHIVED_MAX = 4
COUNTED_MEMBERS_MAX = 50  # Discord counts no further


def thread(action: ActionContext) -> Iterator[Event]:
    """Renames, creates, deletes, archives or unarchives a thread."""
    guild, rng, roll = action.guild, action.rng, action.rng.random()
    if roll < 0.35 and len(guild.threads) < THREADS_MAX:
        yield from _created(action)
    elif roll < 0.5 and guild.archived:
        yield from _unarchived(action)
    elif not guild.threads:
        return
    elif roll < 0.7:
        yield from _archived(action)
    elif roll < 0.85:
        found = guild.threads[rng.choice(list(guild.threads))]
        found["name"] = entities.words(rng, 3)
        yield action.event("THREAD_UPDATE", dict(found))
    else:
        yield from _deleted(action, rng.choice(list(guild.threads)))


def _created(action: ActionContext) -> Iterator[Event]:
    guild, rng = action.guild, action.rng
    parent, owner, new_id = (
        rng.choice(guild.channels_of(entities.TEXT, entities.FORUM)),
        action.someone(),
        action.new_id(),
    )
    is_post = guild.channels[parent]["type"] == entities.FORUM
    kind = entities.PRIVATE_THREAD if not is_post and rng.random() < 0.4 else entities.PUBLIC_THREAD
    known: Json = {"type": kind} | ({"last_message_id": new_id} if is_post else {})
    made = entities.thread(rng, new_id, guild.id, parent, owner, action.wall_ms, **known)
    guild.threads[new_id] = made
    guild.thread_members[new_id] = {owner: thread_member(new_id, owner, action.wall_ms)}
    if is_post:
        guild.channels[parent]["last_message_id"] = new_id
    yield action.event("THREAD_CREATE", {**made, "newly_created": True}, unseen_by=guild.unseen_by(new_id))
    if is_post:
        content = entities.words(rng, 12)
        yield action.event("MESSAGE_CREATE", message_of(action, new_id, owner, content, is_starter=True))
    if kind == entities.PRIVATE_THREAD or rng.random() < 0.2:
        yield from _bot_added(action, new_id, rng.choice(list(guild.views)))


def _forget(action: ActionContext, thread_id: str) -> None:
    action.guild.messages.drop(thread_id)
    for held in action.guild.views.values():
        held.since.pop(thread_id, None)


def _deleted(action: ActionContext, thread_id: str) -> Iterator[Event]:
    guild = action.guild
    blind = guild.unseen_by(thread_id)
    gone = guild.threads.pop(thread_id, None) or guild.archived.pop(thread_id)
    del guild.thread_members[thread_id]
    _forget(action, thread_id)
    data = {key: gone[key] for key in ("type", "parent_id", "id", "guild_id")}
    yield action.event("THREAD_DELETE", data, unseen_by=blind)


def _archived(action: ActionContext) -> Iterator[Event]:
    """Archives a thread with a last THREAD_UPDATE. Its messages are no longer simulated."""
    guild = action.guild
    thread_id = action.rng.choice(list(guild.threads))
    gone = guild.archived[thread_id] = guild.threads.pop(thread_id)
    _mark(action, gone, archived=True)
    _forget(action, thread_id)
    yield action.event("THREAD_UPDATE", dict(gone), unseen_by=guild.unseen_by(thread_id))
    if len(guild.archived) > ARCHIVED_MAX:
        yield from _deleted(action, next(iter(guild.archived)))


def _mark(action: ActionContext, thread: Json, *, archived: bool) -> None:
    stamp = entities.iso(action.wall_ms)
    thread["thread_metadata"] = thread["thread_metadata"] | {"archived": archived, "archive_timestamp": stamp}


def _unarchived(action: ActionContext) -> Iterator[Event]:
    """Unarchives a thread: THREAD_UPDATE, then THREAD_MEMBER_UPDATE for each bot that is a member."""
    guild = action.guild
    thread_id = action.rng.choice(list(guild.archived))
    found = guild.threads[thread_id] = guild.archived.pop(thread_id)
    _mark(action, found, archived=False)
    yield action.event("THREAD_UPDATE", dict(found))
    for bot in guild.views:
        if bot in guild.thread_members[thread_id] and guild.sees(bot, thread_id):
            yield _own_member(action, thread_id, bot)


def _own_member(action: ActionContext, thread_id: str, bot: str) -> Event:
    member = action.guild.thread_members[thread_id][bot]
    return action.event("THREAD_MEMBER_UPDATE", {**member, "guild_id": action.guild.id}, only=bot)


def membership(action: ActionContext) -> Iterator[Event]:
    """Adds members to a thread or removes them, bots included; may change a bot's own thread settings."""
    guild, rng = action.guild, action.rng
    if not guild.threads:
        return
    thread_id, bot, roll = rng.choice(list(guild.threads)), rng.choice(list(guild.views)), rng.random()
    members = guild.thread_members[thread_id]
    if roll < 0.5:
        yield from _others_changed(action, thread_id)
    elif bot not in members:
        yield from _bot_added(action, thread_id, bot)
    elif roll < 0.75:
        members[bot] = {**members[bot], "flags": rng.randrange(1, 8)}
        if guild.sees(bot, thread_id):
            yield _own_member(action, thread_id, bot)
    else:
        # A removed bot receives the event even if it may not view the channel.
        blind = guild.unseen_by(thread_id) - {bot}
        del members[bot]
        yield _members_update(action, thread_id, [], [bot], blind)


def _others_changed(action: ActionContext, thread_id: str) -> Iterator[Event]:
    guild, rng, members = action.guild, action.rng, action.guild.thread_members[thread_id]
    added = [who for who in dict.fromkeys((action.someone(), action.someone())) if who in action.people]
    added = [who for who in added if who not in members]
    leavable = [who for who in members if who not in guild.views]
    removed = [rng.choice(leavable)] if leavable and rng.random() < 0.5 else []
    for who in removed:
        del members[who]
    for who in added:
        members[who] = thread_member(thread_id, who, action.wall_ms)
    if added or removed:
        yield _members_update(action, thread_id, added, removed, guild.unseen_by(thread_id))


def _bot_added(action: ActionContext, thread_id: str, bot: str) -> Iterator[Event]:
    """Adds a bot to a thread. It receives the thread first, because it may not have seen it before."""
    guild = action.guild
    guild.thread_members[thread_id][bot] = thread_member(thread_id, bot, action.wall_ms)
    if guild.threads[thread_id]["type"] == entities.PRIVATE_THREAD:
        guild.views[bot].since[thread_id] = action.world.shared.moment
    if guild.sees(bot, thread_id):
        seen = thread_as_seen(guild, bot, guild.threads[thread_id])
        yield action.event("THREAD_CREATE", dict(seen), only=bot)
    yield _members_update(action, thread_id, [bot], [], guild.unseen_by(thread_id) - {bot})


def _members_update(
    action: ActionContext, thread_id: str, added: list[str], removed: list[str], unseen_by: frozenset[str]
) -> Event:
    guild = action.guild
    members = guild.thread_members[thread_id]
    found = guild.threads[thread_id]
    found["member_count"] = min(COUNTED_MEMBERS_MAX, len(members))
    data: Json = {"member_count": found["member_count"], "id": thread_id, "guild_id": guild.id}
    if added:
        data["added_members"] = [
            {**members[who], "member": guild.members[who], "presence": guild.presences.get(who)} for who in added
        ]
    if removed:
        data["removed_member_ids"] = removed
    return action.event("THREAD_MEMBERS_UPDATE", data, unseen_by=unseen_by)


def list_sync(action: ActionContext) -> Iterator[Event]:
    """THREAD_LIST_SYNC for one bot: the active threads of some channels, or of the whole guild."""
    guild, rng = action.guild, action.rng
    bot = rng.choice(list(guild.views))
    chosen = [key for key in guild.channels_of(entities.TEXT, entities.FORUM)[:2] if guild.sees(bot, key)]
    yield thread_list(guild, bot, chosen if rng.random() < 0.7 else None)
