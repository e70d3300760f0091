"""How far consumer groups are, from JetStream's answers. Pure.

Source: nats-server, server/jetstream_api.go: `$JS.API.CONSUMER.LIST.<stream>` (at most 256 consumers a page) and
`$JS.API.STREAM.INFO.<stream>`. An ordered group has a durable for each partition, called `GROUP@N`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from sandwich_coordinator.status import ConsumerStatus

PAGES_MAX = 8
GROUPS_MAX = 200
"""Groups of one application; more are not reported."""
_Answer = TypeVar("_Answer")


class _Floor(msgspec.Struct, frozen=True):
    stream_seq: int = 0


class _Config(msgspec.Struct, frozen=True):
    durable_name: str = ""


class _Consumer(msgspec.Struct, frozen=True):
    config: _Config = _Config()
    num_pending: int = 0
    num_ack_pending: int = 0
    ack_floor: _Floor = _Floor()


class _Page(msgspec.Struct, frozen=True):
    total: int = 0
    consumers: list[_Consumer] = []


class _State(msgspec.Struct, frozen=True):
    messages: int = 0


class _Stream(msgspec.Struct, frozen=True):
    state: _State = _State()


@dataclass(slots=True)
class Consumption:
    """The lag of consumer groups, and how many dead letters each application has."""

    groups: list[ConsumerStatus] = field(default_factory=list)
    dead_letters: dict[str, int] = field(default_factory=dict)


def next_offset(pages: Sequence[bytes]) -> int | None:
    """Where the next page begins; None when there is none, or when there are too many."""
    if not pages:
        return 0
    read = [_read(page, _Page()) for page in pages]
    seen = sum(len(page.consumers) for page in read)
    more = bool(read[-1].consumers) and seen < read[-1].total and len(pages) < PAGES_MAX
    return seen if more else None


def group_lags(app: str, pages: Sequence[bytes]) -> list[ConsumerStatus]:
    """The groups in these pages, sorted by name; a consumer that is not durable is no group."""
    lags: dict[str, int] = {}
    floors: dict[str, int] = {}
    for page in pages:
        for consumer in _read(page, _Page()).consumers:
            group = consumer.config.durable_name.partition("@")[0]
            if group:
                lags[group] = lags.get(group, 0) + consumer.num_pending + consumer.num_ack_pending
                floors[group] = floors.get(group, 0) + consumer.ack_floor.stream_seq
    names = sorted(lags)[:GROUPS_MAX]
    return [ConsumerStatus(app=app, group=name, lag=lags[name], floor=floors[name]) for name in names]


def messages_of(answer: bytes | None) -> int:
    """How many messages a stream has; 0 when it is not there."""
    return _read(answer or b"", _Stream()).state.messages


def _read(answer: bytes, empty: _Answer) -> _Answer:
    try:
        return msgspec.json.decode(answer, type=type(empty))
    except (msgspec.MsgspecError, RecursionError):
        return empty
