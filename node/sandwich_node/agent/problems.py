"""The problems that a node reports about itself. Pure: values in, problems out."""

from collections.abc import Iterable, Mapping

from sandwich_coordinator.ids import ShardId
from sandwich_coordinator.problems import Code, Problem, problem
from sandwich_coordinator.ranges import format_ranges
from sandwich_node.agent.status import Figures, ShardFacts, cache_trouble


def waiting_worker(index: int, reason: str, code: Code) -> Problem:
    """A worker that is not ready."""
    subject = "nats" if code in _OF_NATS else f"worker/{index}"
    return problem(code, subject, f"worker {index}: {reason or 'starting'}")


_OF_NATS = frozenset(
    {Code.NATS_UNREACHABLE, Code.NATS_UNAUTHORIZED, Code.NATS_OLD, Code.JETSTREAM_DISABLED, Code.JETSTREAM_SILENT}
)


def waiting_shards(facts: Mapping[ShardId, ShardFacts], figures: Figures) -> list[Problem]:
    """What keeps shards from being live, one problem a reason. The cluster's status shows failed shards."""
    waiting: dict[tuple[str, str], list[int]] = {}
    for shard, fact in facts.items():
        reason = figures.of_shard(shard).waiting
        if not reason and fact.state not in ("live", "failed", "draining"):
            reason = fact.reason
        if reason:
            waiting.setdefault((shard.app, reason), []).append(shard.shard)
    return [
        _of_shards(Code.SHARDS_WAITING, app, ids, f"wait: {reason}") for (app, reason), ids in sorted(waiting.items())
    ]


def cache_problems(shards: Iterable[ShardId], figures: Figures) -> list[Problem]:
    """What the caches of these shards lack or wait for, one problem a reason."""
    found: dict[tuple[str, str, Code], list[int]] = {}
    for shard in shards:
        cache = figures.of_shard(shard).cache
        words = cache_trouble(cache)
        if cache is not None and words:
            code = Code.CACHE_WAITING if cache.waiting else Code.CACHE_INCOMPLETE
            found.setdefault((shard.app, words, code), []).append(shard.shard)
    return [_of_shards(code, app, ids, words) for (app, words, code), ids in sorted(found.items())]


def _of_shards(code: Code, app: str, shards: list[int], words: str) -> Problem:
    ranges = format_ranges(sorted(shards))
    joint = " " if code is Code.SHARDS_WAITING else ": "
    return problem(code, f"app/{app}/shards/{ranges}", f"{app}: shards {ranges}{joint}{words}")
