"""A batch on a Redis Cluster. A script may touch one slot only, so operations are grouped by slot. Pure.

Guilds and locations come first, each with a record of its own. Users follow, because the results of the guild
operations decide which users are kept.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from sandwich_node.cache.batch import Batch, Call, EventOps, names_of, pack
from sandwich_node.cache.context import Op
from sandwich_node.cache.payloads import decode_fields
from sandwich_node.cache.replies import Left

_OF_APP = frozenset({"ready", "arrive", "down", "depart"})
_OF_USER = frozenset({"user", "user_patch", "user_set"})
_KNOWN_USER_AT = {"member_set": 5, "member_del": 3}
"""The index in an operation that takes the current user, for the value that the event replaced."""


@dataclass(slots=True)
class Routed:
    """A batch by slot. `groups` may run concurrently, each in order; `users` follow them."""

    groups: list[list[Call]] = field(default_factory=list)
    users: list[tuple[int, Op]] = field(default_factory=list)
    learned: dict[tuple[int, str], Op] = field(default_factory=dict)


def segments(batch: Batch) -> Iterator[Batch]:
    """The batch, split after every READY: guilds that the bot left are removed before later events apply."""
    start = 0
    for at, event in enumerate(batch.events, start=1):
        if at == len(batch.events) or any(op[0] == "ready" for op in event.ops):
            yield msgspec.structs.replace(batch, events=batch.events[start:at])
            start = at


def users_to_know(batch: Batch) -> set[str]:
    """Users whose current value is part of the values that the batch replaces."""
    return {str(op[2]) for event in batch.events for op in event.ops if op[0] in _KNOWN_USER_AT}


def route(batch: Batch, known: dict[str, bytes], *, flags: str = "") -> Routed:
    """Group a batch by slot; `known`: the current values of `users_to_know`."""
    routed = Routed()
    receives_members = "m" in batch.writer.maintains
    groups: dict[tuple[str, str], list[EventOps]] = {}
    for event in batch.events:
        mine: dict[tuple[str, str], list[Op]] = {}
        for op in event.ops:
            name = str(op[0])
            if name in _OF_USER:
                routed.users.append((event.seq, op))
                if name == "user_set":
                    # Users have no record of applied sequences: a replay writes older values, and then this one.
                    routed.users.append((event.seq, ("user_patch", *op[1:])))
                _remember(op, known)
            elif name in _OF_APP:
                mine.setdefault(("app", ""), []).append(op)
            else:
                mine.setdefault(("guild", str(op[1])), []).append(
                    _without_users(op, event.seq, known, routed, receives_members)
                )
        for tag, ops in mine.items():
            groups.setdefault(tag, []).append(EventOps(event.seq, tuple(ops), event.size))
    names = names_of(batch.writer)
    for (kind, value), events in groups.items():
        keys = names.record() if kind == "app" else names.guild_record(value)
        routed.groups.append(list(pack(batch, keys, events, flags=flags)))
    return routed


def _without_users(op: Op, seq: int, known: dict[str, bytes], routed: Routed, receives_members: bool) -> Op:
    """The operation for the guild's slot. Its users become operations of their own.

    Some users may be written only after the guild's result names them: those of an application without member events
    (not `receives_members`), and those of a changed member who may have left.
    """
    name, guild = op[0], op[1]
    if name == "members":
        items: list[str | bytes] = []
        for at in range(2, len(op), 3):
            user: Op = ("user", op[at], op[at + 2], guild)
            if receives_members:
                routed.users.append((seq, user))
                _remember(user, known)
            else:
                routed.learned[seq, str(op[at])] = user
            items += (op[at], op[at + 1], b"")
        return (name, guild, *items)
    if name in _KNOWN_USER_AT:
        at = _KNOWN_USER_AT[str(name)]
        shown = (*op[:at], known.get(str(op[2]), b""), *op[at + 1 :])
    else:
        shown = op
    if name == "join" and op[3]:
        routed.users.append((seq, ("user", op[2], op[4], guild)))
        _remember(("user", op[2], op[4]), known)
    elif name in ("member_set", "learn"):
        if name == "member_set":
            _remember(("user", op[2], op[4]), known)
        routed.learned[seq, str(op[2])] = ("user", op[2], op[4], guild)
    return shown


def _remember(op: Op, known: dict[str, bytes]) -> None:
    """Note the user's new value, which later events of the batch replace."""
    user, value = str(op[1]), op[2]
    if op[0] in ("user_patch", "user_set"):
        if user in known:
            known[user] = msgspec.json.encode(decode_fields(known[user]) | decode_fields(bytes(value)))  # type: ignore[arg-type]
    elif value:
        known[user] = bytes(value)  # type: ignore[arg-type]


def user_ops(routed: Routed, left: Left) -> list[tuple[int, Op]]:
    """User operations after those of the guilds, in order. Within an event, leaves come before joins."""
    ops: list[tuple[int, int, Op]] = [(seq, 1, op) for seq, op in routed.users]
    ops += [(seq, 0, op) for seq, op in _drops(left)]
    ops += [(key[0], 1, routed.learned[key]) for key in left.learned if key in routed.learned]
    ops.sort(key=lambda item: item[:2])
    return [(seq, op) for seq, _, op in ops]


def _drops(left: Left) -> Iterator[tuple[int, Op]]:
    for seq, (guild, *users) in left.evicted:
        for user in users:
            yield seq, ("user_drop", user, guild)


def drops(left: Left) -> list[tuple[int, Op]]:
    """Operations for users who left a guild."""
    return list(_drops(left))


def guild_ops(left: Left) -> list[tuple[int, Op]]:
    """Follow-up operations of guilds: guilds that the bot left, members to remove, and members to take a role from."""
    ops: list[tuple[int, Op]] = [(seq, ("leave", guild)) for seq, (guild, *_) in left.guilds]
    ops += [(seq, ("drain", guild)) for seq, (guild, *_) in left.draining]
    ops += [(seq, ("drain", *ids)) for seq, ids in left.drained]
    ops += [(seq, ("role_strip", *ids)) for seq, ids in left.stripping]
    return ops


def runs(ops: Iterable[tuple[int, Op]]) -> Iterator[list[tuple[int, Op]]]:
    """Split into runs of plain writes, which can be sent together, and single other operations."""
    run: list[tuple[int, Op]] = []
    for seq, op in ops:
        if op[0] == "user":
            run.append((seq, op))
            continue
        if run:
            yield run
            run = []
        yield [(seq, op)]
    if run:
        yield run
