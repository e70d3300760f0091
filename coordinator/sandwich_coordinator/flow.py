"""Minimum-cost flow in a small network, for the planner. Pure.

Primal-dual: distances by Dijkstra over reduced costs, then Dinic's blocking flows over the edges that lie on a shortest
path. Integer capacities give an integer flow. The result depends on the order in which edges are added, and on nothing
else.
"""

import heapq

EPSILON = 1e-9
"""Capacities may be real numbers: less than this is none."""
INFINITE = float("inf")


class Network:
    """A directed network with costs >= 0. Vertices are numbers below `vertices`."""

    def __init__(self, vertices: int) -> None:
        self._out: list[list[int]] = [[] for _ in range(vertices)]
        self._target: list[int] = []
        self._left: list[float] = []
        self._cost: list[int] = []
        self._height = [0] * vertices

    def add(self, source: int, target: int, capacity: float, cost: int = 0) -> int:
        """Add an edge; `cost` is per unit. Returns its number."""
        edge = len(self._target)
        self._target += (target, source)
        self._left += (capacity, 0)
        self._cost += (cost, -cost)
        self._out[source].append(edge)
        self._out[target].append(edge + 1)
        return edge

    def carried(self, edge: int) -> float:
        """The flow on an edge."""
        return self._left[edge + 1]

    def run(self, source: int, sink: int) -> float:
        """Send as much as fits from `source` to `sink`, at the least cost. Returns how much that is."""
        sent: float = 0
        while self._lift(source, sink):
            while (levels := self._levels(source, sink)) is not None:
                tried = [0] * len(self._out)
                while (more := self._push(source, sink, INFINITE, levels, tried)) > EPSILON:
                    sent += more
        return sent

    def reachable(self, source: int) -> set[int]:
        """The vertices to which more could flow from `source`: after `run` this side of a minimum cut."""
        seen, queue = {source}, [source]
        for vertex in queue:
            for edge in self._out[vertex]:
                if self._left[edge] > EPSILON and self._target[edge] not in seen:
                    seen.add(self._target[edge])
                    queue.append(self._target[edge])
        return seen

    def _lift(self, source: int, sink: int) -> bool:
        """Set the heights (the potentials) to the distances from `source`; False when `sink` cannot be reached."""
        left, target, cost, height = self._left, self._target, self._cost, self._height
        distance: list[float] = [INFINITE] * len(self._out)
        distance[source] = 0
        queue: list[tuple[float, int]] = [(0, source)]
        while queue:
            so_far, vertex = heapq.heappop(queue)
            if vertex == sink:
                break
            if so_far > distance[vertex]:
                continue
            base = so_far + height[vertex]
            for edge in self._out[vertex]:
                if left[edge] > EPSILON:
                    other = target[edge]
                    length = base + cost[edge] - height[other]
                    if length < distance[other]:
                        distance[other] = length
                        heapq.heappush(queue, (length, other))
        nearest = distance[sink]
        if nearest == INFINITE:
            return False
        for vertex, length in enumerate(distance):
            height[vertex] += int(min(length, nearest))
        return True

    def _levels(self, source: int, sink: int) -> list[int] | None:
        """Each vertex's distance in edges along shortest paths; None when `sink` has none."""
        left, target, cost, height = self._left, self._target, self._cost, self._height
        levels = [-1] * len(self._out)
        levels[source] = 0
        queue = [source]
        for vertex in queue:
            if vertex == sink:
                return levels
            here, level = height[vertex], levels[vertex] + 1
            for edge in self._out[vertex]:
                other = target[edge]
                if levels[other] < 0 and left[edge] > EPSILON and cost[edge] == height[other] - here:
                    levels[other] = level
                    queue.append(other)
        return None

    def _push(self, vertex: int, sink: int, most: float, levels: list[int], tried: list[int]) -> float:
        """Push up to `most` from `vertex` on; an edge that is exhausted is not tried again at these levels."""
        if vertex == sink:
            return most
        left, target, cost, height = self._left, self._target, self._cost, self._height
        out, here, level, sent = self._out[vertex], height[vertex], levels[vertex] + 1, 0.0
        while tried[vertex] < len(out):
            edge = out[tried[vertex]]
            other = target[edge]
            if levels[other] == level and left[edge] > EPSILON and cost[edge] == height[other] - here:
                part = self._push(other, sink, min(most - sent, left[edge]), levels, tried)
                left[edge] -= part
                left[edge ^ 1] += part
                sent += part
                if most - sent <= EPSILON:
                    return sent
            tried[vertex] += 1
        levels[vertex] = -1
        return sent
