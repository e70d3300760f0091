"""The limits, waits and intervals of the control plane, with the unit in each name."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Limits of the control plane. Times are seconds; the defaults suit a node lease of five seconds.

    Sources: docs/design/coordination.md; docs/design/protocol.md, section 5.
    """

    lease_ttl_s: float = 5.0
    """TTL of a node's lease; also the wait of the leader when most leases vanish at once."""
    step_down_margin_s: float = 1.0
    """A leader stops writing this long before its own lease could have run out."""
    mass_loss_fraction: float = 0.5
    """If more than this part of the nodes vanish within one TTL, the store is assumed to have failed, not the nodes."""
    restart_grace_s: float = 0.0
    """How long the shards of a vanished node wait for it to come back; 0 moves them at once."""
    settle_s: float = 3.0
    """Membership must have been unchanged this long before shards move only for balance."""
    flaps_max: int = 3
    """A node that vanished this often within `flap_window_s` receives no shards until it was stable that long."""
    flap_window_s: float = 120.0
    moves_in_flight_max: int = 32
    """Shards that may be between two owners at the same time. Orphans are not counted: they have no owner."""
    degraded_after_s: float = 10.0
    """A live group becomes degraded when shards are not live for this long, so that a move does not change it."""
    gateway_refresh_s: float = 3600.0
    gateway_retry_s: float = 2.0
    """First wait after a failed look-up; doubled each time up to `gateway_retry_max_s`."""
    gateway_retry_max_s: float = 300.0
    gateway_doubt_s: float = 5.0
    """An address that shards cannot reach is requested again after this long; doubled while the answer is the same."""
    gateway_doubt_max_s: float = 60.0
    gateway_answer_fresh_s: float = 30.0
    """How long an answer may wait to be recorded. It lacks session starts made since, so it is requested again then."""
    identify_spacing_s: float = 5.05
    """Between two IDENTIFYs of a bucket. Discord counts five seconds where it receives them (Gateway, Sharding:
    max_concurrency), so it counts from a time at which Discord surely has the first one: the answer to a heartbeat that
    was sent behind it, or READY. However long messages travel, the second one cannot arrive too early; delays of our
    processes only lengthen the time between them. The rest is for timers."""
    identify_lease_ttl_s: float = 10.0
    """TTL of the lease under which a bucket is taken; must exceed the spacing."""
    identify_margin_s: float = 0.5
    identify_gather_s: float = 0.01
    """Buckets whose spacing ends within so long of each other are freed in one write."""
    identify_retry_s: float = 0.5
    """Wait after another node took a bucket that looked free, or after the store refused."""
    identify_yield_s: float = 1.0
    """How long a free bucket is left to another node's shard that is before ours; that node may hang."""
    identify_distrust_s: float = 30.0
    """How long a node that did not use its turn is passed over, unless it takes a bucket meanwhile."""
    identify_reserve: int = 0
    """Session starts that are kept for failover; 0: see `identify_reserve_percent`."""
    identify_reserve_percent: float = 20.0
    """The part of a token's daily session starts that is kept for failover, when no number is set."""

    def __post_init__(self) -> None:
        if self.step_down_margin_s >= self.lease_ttl_s:
            raise ValueError("step_down_margin_s must be below lease_ttl_s")
        if self.identify_spacing_s + self.identify_margin_s >= self.identify_lease_ttl_s:
            raise ValueError("identify_lease_ttl_s must exceed identify_spacing_s and identify_margin_s together")

    @property
    def identify_grant_s(self) -> float:
        """How long after its acquisition started a bucket may be used, so that its lease is longer than the spacing."""
        return self.identify_lease_ttl_s - self.identify_spacing_s - self.identify_margin_s

    def reserve_of(self, total: int) -> int:
        """How many of `total` session starts a day are kept for failover."""
        return self.identify_reserve or math.ceil(max(0, total) * self.identify_reserve_percent / 100)
