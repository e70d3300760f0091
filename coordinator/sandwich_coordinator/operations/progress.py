"""What an operation reports while it runs: facts, in the order they happened. Front ends render them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sandwich_coordinator.rebalance import Move
from sandwich_coordinator.scale_plan import ScaleProgress
from sandwich_coordinator.types import NodeState


@dataclass(frozen=True, slots=True)
class NodeStateSet:
    """The node's state is `after`; it was `before`. Equal: nothing was written."""

    node: str
    before: NodeState
    after: NodeState


@dataclass(frozen=True, slots=True)
class OthersDraining:
    """These nodes are draining at the same time."""

    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NoOtherNodeReady:
    """Shards stay where they are, and new ones wait for a ready node."""


@dataclass(frozen=True, slots=True)
class StoreSilent:
    """The store does not answer; the operation waits for it."""

    reason: str


@dataclass(frozen=True, slots=True)
class ShardsToMove:
    """A draining node still has, or is still to get, so many shards of each application."""

    node: str
    by_app: Mapping[str, int]

    @property
    def total(self) -> int:
        """Of all applications."""
        return sum(self.by_app.values())


@dataclass(frozen=True, slots=True)
class Drained:
    """The node has no shards and can be stopped."""

    node: str


@dataclass(frozen=True, slots=True)
class DrainInterrupted:
    """The operation was cancelled; the node stays draining."""

    node: str


@dataclass(frozen=True, slots=True)
class Pinned:
    """The shards are pinned to a node."""

    app: str
    shards: tuple[int, ...]
    node: str


@dataclass(frozen=True, slots=True)
class Unpinned:
    """So many pins of these shards were removed."""

    app: str
    shards: tuple[int, ...]
    pins: int


@dataclass(frozen=True, slots=True)
class AllUnpinned:
    """All pins of the cluster were removed."""

    pins: int


@dataclass(frozen=True, slots=True)
class RestartRequested:
    """The shards' owners are to restart them."""

    app: str
    shards: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MovesPlanned:
    """What the leader is going to move; empty when every shard is where it should be."""

    moves: tuple[Move, ...]


@dataclass(frozen=True, slots=True)
class Remaining:
    """So many shards are not where they should be yet."""

    shards: int


@dataclass(frozen=True, slots=True)
class Reached:
    """Every shard of the request reached its goal, after so many seconds."""

    goal: str
    took_s: float


@dataclass(frozen=True, slots=True)
class Balanced:
    """Nothing is left to move."""


@dataclass(frozen=True, slots=True)
class ScaleAdvanced:
    """A change of shard groups went on."""

    progress: ScaleProgress


@dataclass(frozen=True, slots=True)
class ScaleFailing:
    """These shards of the upcoming group failed; the serving group is untouched. `advice`: what can be done."""

    app: str
    shards: tuple[int, ...]
    advice: str


@dataclass(frozen=True, slots=True)
class ScaleDone:
    """The group that was asked for serves alone, after so many seconds."""

    app: str
    took_s: float


@dataclass(frozen=True, slots=True)
class AppPaused:
    """The application is paused since `since` (Unix seconds); not `is_new`: it was before.

    `running` shards still have to close; `sessions` are stored, to be continued.
    """

    app: str
    since: float
    running: int
    sessions: int
    is_new: bool


@dataclass(frozen=True, slots=True)
class AppResumed:
    """The application is to run again; not `is_new`: it was not paused.

    `paused_s`: how long it was, None where that is not known. `sessions` are stored and are tried first;
    `starts_left`: session starts, for those that Discord no longer has; None: not known.
    """

    app: str
    paused_s: float | None
    sessions: int
    starts_left: int | None
    is_new: bool


@dataclass(frozen=True, slots=True)
class AppRemoving:
    """The application is being removed: `running` shards close first. Not `is_new`: the removal had begun before."""

    app: str
    running: int
    is_new: bool


@dataclass(frozen=True, slots=True)
class GuildsLeft:
    """So many guilds of an application that is being removed are still in the cache."""

    app: str
    guilds: int


@dataclass(frozen=True, slots=True)
class AppRemoved:
    """The application is gone. `kept_cache`: nothing was removed from the cache."""

    app: str
    kept_cache: bool
    deleted_stream: bool


NodeProgress = NodeStateSet | OthersDraining | NoOtherNodeReady | ShardsToMove | Drained | DrainInterrupted
ShardProgress = Pinned | Unpinned | AllUnpinned | RestartRequested | Remaining | Reached | Balanced
AppProgress = AppPaused | AppResumed | AppRemoving | GuildsLeft | AppRemoved
GroupProgress = ScaleAdvanced | ScaleFailing | ScaleDone
Progress = StoreSilent | MovesPlanned | NodeProgress | ShardProgress | AppProgress | GroupProgress
Report = Callable[[Progress], None]


def ignore(progress: Progress) -> None:
    """For a caller that wants only the result."""
