"""Where the messages of workers go."""

from sandwich_node import ipc
from sandwich_node.agent.dependencies import ServerHealth, Worker
from sandwich_node.agent.node_state import NodeState
from sandwich_node.agent.shard_control import ShardControl


class WorkerMessages:
    """Passes each message of a worker to the part that it concerns."""

    def __init__(self, state: NodeState, shards: ShardControl, servers: ServerHealth) -> None:
        self._state = state
        self._shards = shards
        self._servers = servers

    def receive(self, worker: Worker, message: ipc.ToAgent) -> None:
        """Take one message. Does not wait."""
        state = self._state
        match message:
            case ipc.WorkerReady():
                worker.ready, worker.waiting = True, ""
                state.status_publisher.flush()
            case ipc.WorkerWaiting(reason, code):
                worker.ready, worker.waiting, worker.waiting_code = False, reason, code
            case ipc.NatsSaid():
                self._servers.nats_said(message, state.wall())
            case ipc.StreamRemade(app):
                state.history.streams_remade[app] = state.wall()
                state.status_publisher.stream_remade(app)
            case ipc.GuildsRelocated():
                state.relocations.answered(message)
            case ipc.LogLines(lines, dropped):
                state.logs.add_of_worker(worker.index, lines, dropped, state.wall())
            case ipc.WorkerStats(_, cpu_s, numbers):
                state.figures.note(state.clock(), worker.index, cpu_s, numbers)
                for app in {each.key.app for each in numbers if each.foreign}:
                    state.history.foreign(app, state.figures.of_app(app).foreign_total, state.wall())
            case _:
                self._shards.on_message(worker, message)
