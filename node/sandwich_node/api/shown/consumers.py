"""What the API shows of consumer groups, with their lag, and of dead letters."""

import base64
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import msgspec

from sandwich_coordinator.access.roles import Identity
from sandwich_coordinator.status import ConsumerStatus, NodeStatus
from sandwich_node.api.models import Model, Page, PageQuery
from sandwich_node.api.paging import page_of

if TYPE_CHECKING:
    from sandwich_coordinator.operations.dead_letters import LetterContent as ReadContent
    from sandwich_coordinator.operations.dead_letters import StoredLetter
    from sandwich_coordinator.operations.group_states import ConsumerGroup as ReadGroup


class Consumer(Model):
    """A consumer group. `lag`: frames that are not acknowledged; `floor` grows when some are."""

    app: str
    group: str
    lag: int
    floor: int


class Consumers(Model):
    """The groups, as the leader last read them; `dead_letters` by application.

    A page of both together, by application: it has at most `limit` items.
    """

    consumers: list[Consumer]
    dead_letters: dict[str, int]
    next: str | None = None


class ConsumerGroup(Model):
    """A consumer group, as JetStream has it now, or what is left of one.

    partitions    of an ordered group
    lane          that it reads, `*`: all; null: its filter is none of the SDK's
    lag           frames that are not acknowledged; null: it has no position, only what it left behind
    in_hand       of these, the ones that workers have received
    behind_since  when the oldest of these was stored, Unix seconds; null: there is none
    dead_letters  its dead letters, one that is stored in parts once for each part
    replays       dead letters that were handed back to it and are not acknowledged
    reads         whether workers read with it now
    """

    app: str
    group: str
    ordered: bool
    partitions: int
    lane: str | None
    lag: int | None
    in_hand: int
    behind_since: float | None
    created_at: float | None
    dead_letters: int
    replays: int
    reads: bool


class DeadLetter(Model):
    """An event, or a message, that a consumer group gave up.

    number  of the letter; grows with each new one
    kind    `event`, or what else could not be handled
    id      of the event; "" where there is none
    tries   how often it was tried
    at      Unix seconds
    subject, stream_seq  of its frame in the stream that the group read
    """

    number: int
    group: str
    kind: str
    id: str
    type: str
    tries: int
    error: str
    at: float
    shard_group: int | None
    shard: int | None
    subject: str
    stream_seq: int


class DeadLetters(Page[DeadLetter]):
    """A part of the letters; `total`: how many match, on all pages."""

    total: int


class LetterContent(Model):
    """A letter with what it holds: `event`, or `headers` and `payload` (base64) where that is no event to be shown.

    `unreadable`: why an event cannot be shown.
    """

    letter: DeadLetter
    event: Any
    unreadable: str
    headers: dict[str, str] | None
    payload: str | None


def consumers_page(
    answers: Iterable[NodeStatus | str], app: str | None, query: PageQuery, identity: Identity
) -> Consumers:
    """The groups that the identity may see, as the leader among `answers` read them; `app` None: all."""

    def wanted(name: str) -> bool:
        return identity.sees(name) and app in (None, name)

    # A group's name is never empty: the letters of an application come before its groups.
    items: dict[str, ConsumerStatus | tuple[str, int]] = {}
    for leader in (one for one in answers if isinstance(one, NodeStatus) and one.leader):
        items |= {f"{name}/": (name, count) for name, count in leader.dead_letters.items() if wanted(name)}
        items |= {f"{one.app}/{one.group}": one for one in leader.consumers if wanted(one.app)}
    page = page_of(sorted(items), query, str, items.__getitem__)
    return Consumers(
        consumers=[
            Consumer.model_validate(msgspec.structs.asdict(one)) for one in page.items if not isinstance(one, tuple)
        ],
        dead_letters=dict(one for one in page.items if isinstance(one, tuple)),
        next=page.next,
    )


def group_shown(group: "ReadGroup") -> ConsumerGroup:
    """A group as it was read from JetStream."""
    return ConsumerGroup.model_validate(asdict(group))


def letter_shown(stored: "StoredLetter") -> DeadLetter:
    """A letter without what it holds."""
    letter, (shard_group, shard) = stored.letter, stored.shard
    return DeadLetter(
        number=stored.number,
        group=letter.group,
        kind=letter.kind,
        id=letter.id,
        type=letter.type,
        tries=letter.tries,
        error=letter.error,
        at=letter.at,
        shard_group=shard_group,
        shard=shard,
        subject=letter.subject,
        stream_seq=letter.stream_seq,
    )


def content_shown(stored: "StoredLetter", content: "ReadContent") -> LetterContent:
    """A letter with what it holds."""
    return LetterContent(
        letter=letter_shown(stored),
        event=content.event,
        unreadable=content.unreadable,
        headers=dict(content.headers) if content.headers is not None else None,
        payload=base64.b64encode(content.payload).decode() if content.payload is not None else None,
    )
