"""What a change of the cluster's view means for a node, by comparing two views.

What goes into the history, what the leader publishes, which caches are cleaned, and what the workers must know.
"""

import logging
from collections.abc import Callable

from sandwich_coordinator.groups import serving_groups
from sandwich_coordinator.ids import GroupId
from sandwich_coordinator.problems import KINDS, Code, Problem
from sandwich_coordinator.reachability import locally_advertised
from sandwich_coordinator.types import CacheSpec
from sandwich_coordinator.view import ClusterView
from sandwich_node import ipc, open_files
from sandwich_node.agent.node_state import NodeState
from sandwich_node.agent.options import NodeOptions
from sandwich_node.agent.status import planned_shards
from sandwich_node.agent.worker_settings import next_group

_log = logging.getLogger(__name__)


class ViewChanges:
    """What a change of the view means for this node. `leads`: whether this node is the leader now.

    `too_few_files`: None or why this node cannot hold the shards that are planned for it.
    """

    def __init__(self, options: NodeOptions, state: NodeState, *, leads: Callable[[], bool]) -> None:
        self.too_few_files: Problem | None = None
        self._address_warned = False
        self._options = options
        self._state = state
        self._leads = leads
        self._cache_specs: dict[str, CacheSpec] = {}

    def note(self, before: ClusterView | None, after: ClusterView) -> None:
        """Take the change from `before` (None: nothing was known) to `after`."""
        if before is None or after.apps is not before.apps:
            self._cache_specs |= {name: entry.record.cache for name, entry in after.apps.items()}
        if before is not None:
            self._note_claims(before, after)
            if self._leads():
                self._state.status_publisher.cluster(before, after)
                self._release_caches(before, after)
        if before is None or after.plans is not before.plans:
            self._check_open_files(after)
        if before is None or after.nodes is not before.nodes:
            self._check_address(after)
        if before is None or _shared_differently(before, after):
            self._state.workers.share_apps(after)

    def _note_claims(self, before: ClusterView, after: ClusterView) -> None:
        if after.claims is not before.claims:
            self._state.history.claims_changed(before, after, after.changed_claims(before), self._state.wall())

    def _release_caches(self, before: ClusterView, after: ClusterView) -> None:
        """Guilds of shard groups that are gone leave the cache; those of a removed application when it is asked for."""
        # Sorted, so that a seed of the simulation runs the same in each process.
        for key in sorted(before.groups.keys() - after.groups.keys()) if after.groups is not before.groups else ():
            # A removal says what becomes of its guilds. It may end in the same batch as its last group.
            if key.app not in before.removals and key.app not in after.removals:
                count, cache = before.groups[key].record.count, self._cache_specs.get(key.app)
                self._clean(key, count, after.revision, cache, _next_group(key, before, after))
        for app, entry in after.removals.items() if after.removals is not before.removals else ():
            known = before.removals.get(app)
            if entry.record.clean > (known.record.clean if known is not None else 0):
                for group, count in entry.record.groups.items():
                    self._clean(GroupId(app, group), count, after.revision, entry.record.cache, None)

    def _clean(
        self, group: GroupId, count: int, fence: int, cache: CacheSpec | None, following: ipc.NextGroup | None
    ) -> None:
        worker = self._state.workers.ready_worker()
        if cache is not None and cache.enabled and worker is not None:
            worker.send(
                ipc.CleanGroupCache(
                    app=group.app, group=group.group, count=count, fence=fence, cache=cache, next=following
                )
            )

    def _check_address(self, view: ClusterView) -> None:
        """Warn at once when this node advertises an address that the nodes on other hosts cannot reach."""
        node = self._options.node
        wrong = node in locally_advertised(view)
        if wrong and not self._address_warned:
            advice = KINDS[Code.NODE_ADDRESS_LOCAL].advice
            _log.warning("other hosts cannot reach %s: %s", view.nodes[node].record.address, advice)
        self._address_warned = wrong

    def _check_open_files(self, view: ClusterView) -> None:
        options = self._options
        planned = planned_shards(view, options.node)
        too_few = open_files.too_few(options.node, planned, options.workers, options.open_files)
        if too_few is not None and too_few != self.too_few_files:
            _log.warning("%s", too_few.text)
        self.too_few_files = too_few


def _shared_differently(before: ClusterView, after: ClusterView) -> bool:
    """Whether `WorkerSet.share_apps` may have something new. A start of a session changes the rest of a budget."""
    if before.apps is not after.apps or before.groups is not after.groups:
        return True
    if before.budgets is after.budgets:
        return False
    if before.budgets.keys() != after.budgets.keys():
        return True
    return any(before.budgets[token].record.bot_id != entry.record.bot_id for token, entry in after.budgets.items())


def _next_group(gone: GroupId, before: ClusterView, after: ClusterView) -> ipc.NextGroup | None:
    """The group that has the guilds of a group that is gone; None when they are gone too."""
    key = serving_groups(after).get(gone.app)
    if key is None or key < gone:
        return None
    record, was = after.groups[key].record, before.groups.get(key)
    return next_group(record, continues=was is not None and was.record.replaces == gone.group)
