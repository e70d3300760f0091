"""Consumer groups: list, make, remove. Dead letters: list, show, replay, discard."""

from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from sandwich_coordinator.access.roles import Role
from sandwich_coordinator.operations.errors import Invalid, NotFound
from sandwich_node.api.models import Model, Page, PageQuery
from sandwich_node.api.paging import page_of
from sandwich_node.api.resources.groups import check_app
from sandwich_node.api.routing import Call, Route
from sandwich_node.api.shown.consumers import (
    ConsumerGroup,
    Consumers,
    DeadLetters,
    LetterContent,
    consumers_page,
    content_shown,
    group_shown,
    letter_shown,
)

if TYPE_CHECKING:
    from sandwich_coordinator.operations.dead_letters import LetterFilter, StoredLetter

TAG = "consumers"
LETTERS_MAX = 1000
"""Of one request to replay or discard."""


class ConsumerQuery(PageQuery):
    """Of which application; null: of all."""

    app: str | None = Field(default=None, max_length=64)


class NewConsumer(Model):
    """A consumer group for workers that may not make one themselves (NATS users).

    start       `new` events, `all` that are kept, or those since a time such as 2026-01-31T12:00:00Z
    ack_wait_s  the workers' own
    shards      an ordered group is made for this many shards
    """

    group: str = Field(min_length=1, max_length=64)
    ordered: bool = False
    lane: str = Field(default="all", min_length=1, max_length=64)
    start: Literal["new", "all"] | datetime = "new"
    ack_wait_s: float = Field(default=30.0, ge=1, le=3600)
    shards: int | None = Field(default=None, ge=1, le=100_000)


class Created(Model):
    """The consumer group that is there now."""

    app: str
    group: str


class RemoveQuery(Model):
    """Whether workers may read with it."""

    force: bool = Field(default=False, description="Also while workers read with it.")


class LetterQuery(PageQuery):
    """Which letters; newest first."""

    group: str | None = Field(default=None, max_length=64)
    type: str | None = Field(default=None, max_length=64)


class LetterChoice(Model):
    """Which letters: those with these numbers or event ids, or all (`all`), each only of this group and type.

    At most 1000 in one request, the oldest first: `left` says how many more there are.
    """

    letters: list[str] = Field(default=[], max_length=LETTERS_MAX)
    all: bool = False
    group: str | None = Field(default=None, max_length=64)
    type: str | None = Field(default=None, max_length=64)


class Replayed(Model):
    """How many letters went back to their groups. `not_read`: groups without a worker's consumer, which wait."""

    replayed: int
    left: int
    not_read: list[str]


class Discarded(Model):
    """How many letters were removed for good."""

    discarded: int
    left: int


async def _consumers(call: Call) -> Consumers:
    app = call.path.get("app") or call.query.app
    view = call.cluster.view()
    if "app" in call.path:
        check_app(view, call.app)
    snapshot = await call.cluster.picture.snapshot(view)
    return consumers_page(snapshot.answers.values(), app, call.query, call.identity)


async def _create(call: Call) -> Created:
    # Imported here and below: an agent whose API is not asked for this does not load it.
    from sandwich_coordinator.operations.consumer_groups import RANGE_SHARDS, GroupSpec, create_group

    body: NewConsumer = call.body
    check_app(call.cluster.view(), call.app)
    start = body.start
    if isinstance(start, datetime) and start.tzinfo is None:
        raise Invalid("start: the time has no time zone: add Z or +02:00")
    spec = GroupSpec(
        app=call.app,
        group=body.group,
        ordered=body.ordered,
        lane=body.lane,
        start=start.astimezone(UTC) if isinstance(start, datetime) else start,
        ack_wait_s=body.ack_wait_s,
        shards=body.shards or RANGE_SHARDS,
    )
    async with call.cluster.messaging.client() as client:
        await create_group(client, spec)
    call.changes.after = {"group": body.group}
    return Created(app=call.app, group=body.group)


async def _groups(call: Call) -> Page[ConsumerGroup]:
    from sandwich_coordinator.operations.consumer_groups import list_groups

    check_app(call.cluster.view(), call.app)
    async with call.cluster.messaging.client() as client:
        found = await list_groups(client, call.app)
    return page_of(found, call.query, lambda one: one.group, group_shown)


async def _remove(call: Call) -> ConsumerGroup:
    from sandwich_coordinator.operations.consumer_groups import remove_group

    check_app(call.cluster.view(), call.app)
    async with call.cluster.messaging.client() as client:
        removed = group_shown(await remove_group(client, call.app, call.path["group"], force=call.query.force))
    call.changes.before = removed.model_dump()
    return removed


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else None


async def _letters(call: Call) -> DeadLetters:
    from sandwich_coordinator.operations.dead_letters import LetterFilter, read_letters

    query: LetterQuery = call.query
    check_app(call.cluster.view(), call.app)
    before = _number(query.after) if query.after else None
    if query.after and before is None:
        raise Invalid("after: it is not `next` of a page of dead letters")
    total = 0
    newest: deque[StoredLetter] = deque(maxlen=query.limit + 1)
    async with call.cluster.messaging.client() as client:
        async for stored in read_letters(client, call.app, LetterFilter(group=query.group, type=query.type)):
            total += 1
            if before is None or stored.number < before:
                newest.append(stored)
    ordered = sorted(newest, key=lambda stored: -stored.number)
    # `after` was applied above: numbers go down here.
    page = page_of(ordered, PageQuery(limit=query.limit), lambda stored: str(stored.number), letter_shown)
    return DeadLetters(items=page.items, next=page.next, total=total)


async def _content(call: Call) -> LetterContent:
    from sandwich_coordinator.operations.dead_letters import LetterFilter, find_letters, read_content

    check_app(call.cluster.view(), call.app)
    number = call.path["number"]
    if _number(number) is None:
        raise NotFound("dead letter", number, (), f"{call.app} has no dead letter {number[:32]}")
    async with call.cluster.messaging.client() as client:
        (stored, *_) = await find_letters(client, call.app, LetterFilter(names=(str(int(number)),)))
        content = await read_content(client, stored)
    return content_shown(stored, content)


def _chosen(body: LetterChoice) -> "LetterFilter":
    from sandwich_coordinator.operations.dead_letters import LetterFilter

    if bool(body.letters) == body.all:
        raise Invalid("letters: give the numbers or event ids of letters, or all: true")
    return LetterFilter(names=tuple(body.letters), group=body.group, type=body.type)


async def _change(call: Call, change: Callable[[Any, Any], Any]) -> tuple[int, int]:
    """(changed, left)"""
    from sandwich_coordinator.operations.dead_letters import find_letters

    wanted = _chosen(call.body)
    check_app(call.cluster.view(), call.app)
    async with call.cluster.messaging.client() as client:
        found = await find_letters(client, call.app, wanted)
        now = found[:LETTERS_MAX]
        await change(client, now)
    call.changes.before = {"dead_letters": [stored.number for stored in now]}
    return len(now), len(found) - len(now)


async def _replay(call: Call) -> Replayed:
    from sandwich_coordinator.operations.dead_letters import GroupNotRead, replay_letters

    not_read: list[str] = []

    def report(event: object) -> None:
        if isinstance(event, GroupNotRead):
            not_read.append(event.group)

    done, left = await _change(call, lambda client, letters: replay_letters(client, letters, report=report))
    return Replayed(replayed=done, left=left, not_read=not_read)


async def _discard(call: Call) -> Discarded:
    from sandwich_coordinator.operations.dead_letters import discard_letters

    done, left = await _change(call, discard_letters)
    return Discarded(discarded=done, left=left)


ROUTES = (
    Route(
        method="GET",
        path="/consumers",
        summary="The consumer groups of all applications with their lag",
        role=Role.VIEWER,
        handler=_consumers,
        is_of_snapshot=True,
        tag=TAG,
        query=ConsumerQuery,
        result=Consumers,
    ),
    Route(
        method="GET",
        path="/apps/{app}/consumers",
        summary="The consumer groups of an application with their lag",
        role=Role.VIEWER,
        handler=_consumers,
        is_of_snapshot=True,
        tag=TAG,
        query=PageQuery,
        result=Consumers,
    ),
    Route(
        method="POST",
        path="/apps/{app}/consumers",
        summary="Make a consumer group",
        role=Role.OPERATOR,
        handler=_create,
        tag=TAG,
        body=NewConsumer,
        result=Created,
    ),
    Route(
        method="GET",
        path="/apps/{app}/consumer_groups",
        summary="The consumer groups of an application, as JetStream has them now",
        description="It asks NATS, unlike `/apps/{app}/consumers`, which has the lag as the leader last read it.",
        role=Role.VIEWER,
        handler=_groups,
        tag=TAG,
        query=PageQuery,
        result=Page[ConsumerGroup],
        errors=("refused",),
    ),
    Route(
        method="DELETE",
        path="/apps/{app}/consumers/{group}",
        summary="Remove a consumer group for good: its position and its dead letters",
        description=(
            "Refused while workers read with it. The answer has the group as it was. When it failed in the middle, the "
            "same request goes on with the rest."
        ),
        role=Role.OPERATOR,
        handler=_remove,
        tag=TAG,
        query=RemoveQuery,
        result=ConsumerGroup,
    ),
    Route(
        method="GET",
        path="/apps/{app}/dead_letters",
        summary="The dead letters of an application, newest first",
        role=Role.VIEWER,
        handler=_letters,
        tag=TAG,
        query=LetterQuery,
        result=DeadLetters,
        errors=("refused",),
    ),
    Route(
        method="GET",
        path="/apps/{app}/dead_letters/{number}",
        summary="One dead letter with its event",
        description="It has the content of messages, as the stream has it.",
        role=Role.OPERATOR,
        handler=_content,
        tag=TAG,
        result=LetterContent,
        errors=("refused",),
    ),
    Route(
        method="POST",
        path="/apps/{app}/dead_letters/replay",
        summary="Send dead letters back to their consumer groups",
        role=Role.OPERATOR,
        handler=_replay,
        tag=TAG,
        body=LetterChoice,
        result=Replayed,
    ),
    Route(
        method="POST",
        path="/apps/{app}/dead_letters/discard",
        summary="Remove dead letters for good",
        role=Role.OPERATOR,
        handler=_discard,
        tag=TAG,
        body=LetterChoice,
        result=Discarded,
    ),
)
