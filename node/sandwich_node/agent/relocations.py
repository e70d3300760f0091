"""Has workers locate the guilds of groups that were replaced at the groups that serve now, once for each switch."""

import logging
from collections.abc import Callable, Iterable

from sandwich_coordinator.ids import GroupId
from sandwich_coordinator.view import ClusterView
from sandwich_node import ipc
from sandwich_node.agent.worker_set import WorkerSet
from sandwich_node.agent.worker_settings import next_group

_log = logging.getLogger(__name__)

ANSWER_S = 240.0
"""A worker that died does not answer: another one is asked after this time. Without Redis a worker gives up before."""

Switch = tuple[GroupId, GroupId]
"""The group that serves now, and the one that it replaced."""


class Relocations:
    """Used by the leader before it deletes a replaced group. `on_answer` is called after each answer."""

    def __init__(self, workers: WorkerSet) -> None:
        self.on_answer: Callable[[], None] = lambda: None
        self._workers = workers
        self._asked: dict[Switch, float] = {}
        self._done: set[Switch] = set()

    def advance(self, switches: Iterable[Switch], view: ClusterView, now: float) -> frozenset[GroupId]:
        """Ask a worker about each switch; returns the serving groups of those that are answered. `now`: monotonic, s.

        All shards of the serving group are live, and those of the other one have ended.
        """
        wanted = set(switches)
        self._done &= wanted
        self._asked = {switch: at for switch, at in self._asked.items() if switch in wanted}
        for switch in sorted(wanted - self._done):
            message = relocation(switch, view)
            worker = self._workers.ready_worker()
            is_asked = now < self._asked.get(switch, float("-inf")) + ANSWER_S
            if message is not None and worker is not None and not is_asked:
                worker.send(message)
                self._asked[switch] = now
        return frozenset(new for new, _ in self._done)

    def answered(self, answer: ipc.GuildsRelocated) -> None:
        """A worker answered. One that gave up counts too: the serving group's shards locate their guilds themselves."""
        if answer.error:
            _log.error("guilds of group %s/%d may still be located there: %s", answer.app, answer.group, answer.error)
        else:
            _log.info("%d guilds of group %s/%d moved to group %d", answer.moved, answer.app, answer.group, answer.to)
        self._done.add((GroupId(answer.app, answer.to), GroupId(answer.app, answer.group)))
        self.on_answer()


def relocation(switch: Switch, view: ClusterView) -> ipc.RelocateGuilds | None:
    """What a worker is to do; None when the application or its group is gone. Pure."""
    new, old = switch
    app, group = view.apps.get(new.app), view.groups.get(new)
    if app is None or group is None:
        return None
    to = next_group(group.record, continues=True)
    return ipc.RelocateGuilds(app=old.app, group=old.group, to=to, cache=app.record.cache)
