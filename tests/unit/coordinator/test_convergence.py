from hypothesis import given, settings
from hypothesis import strategies as st

from sandwich_coordinator.assignment import Action, Claim, LocalNode, LocalShard, Release, Start, Stop, reconcile_node
from sandwich_coordinator.ids import LeaderTerm, ShardId
from sandwich_coordinator.leader import reconcile
from sandwich_coordinator.plans import LeaderMemory, LeaderWrite
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.store.base import Delete, KeyValue
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import AppRecord, LeaderRecord, NodeRecord, ShardsSpec
from sandwich_coordinator.view import ClusterView

KEYS = Keys("t")


class World:
    def __init__(self) -> None:
        self.items: dict[str, KeyValue] = {}
        self.local: dict[str, dict[ShardId, LocalShard]] = {}
        self.revision, self.memory, self.now = 0, LeaderMemory(), 0.0
        self.put(KEYS.leader, LeaderRecord(node="a", instance="a").encode(), 1)
        self.term = LeaderTerm(self.revision)
        self.set_app(4)

    def put(self, key: str, value: bytes, lease: int = 0) -> None:
        self.revision += 1
        old = self.items.get(key)
        created, version = (old.create_revision, old.version + 1) if old else (self.revision, 1)
        self.items[key] = KeyValue(key, value, created, self.revision, version, lease)

    def set_app(self, count: int) -> None:
        app = AppRecord(app="bot", token="sealed", token_hash="h", intents=1, shards=ShardsSpec(count=count))
        self.put(KEYS.app("bot"), app.encode())

    def toggle(self, node: str) -> None:
        if KEYS.node(node) in self.items:
            lease = self.items[KEYS.node(node)].lease
            self.items = {k: v for k, v in self.items.items() if v.lease != lease or k == KEYS.leader}
            self.local.pop(node, None)
        else:
            record = NodeRecord(node=node, instance=node, address="", version="1")
            self.put(KEYS.node(node), record.encode(), self.revision + 100)
            self.local[node] = {}

    def commit(self, txn: LeaderWrite | Claim | Release) -> None:
        for guard in txn.compares:
            kv = self.items.get(guard.key)
            if (getattr(kv, guard.field) if kv else 0) != guard.expected:
                return
        for write in txn.writes:
            if isinstance(write, Delete):
                gone = [k for k in self.items if k == write.key or (write.prefix and k.startswith(write.key))]
                self.items = {k: v for k, v in self.items.items() if k not in gone}
            else:
                self.put(write.key, write.value, write.lease)

    def lead(self, prefix: int | None = None) -> tuple[LeaderWrite, ...]:
        view = ClusterView.from_items(KEYS, self.items)
        done = reconcile(view, {}, self.memory, term=self.term, now=self.now, wall=self.now, policy=Policy())
        self.memory = done.memory
        for write in done.writes[:prefix]:
            self.commit(write)
        return done.writes

    def run_node(self, node: str) -> tuple[Action, ...]:
        view, mine = ClusterView.from_items(KEYS, self.items), self.local[node]
        own = LocalNode(
            node=node, instance=node, lease=self.items[KEYS.node(node)].lease, connected=True, loads={0: len(mine)}
        )
        actions = reconcile_node(view, own, mine, self.now)
        for action in actions:
            if isinstance(action, Claim | Release):
                self.commit(action)
            if isinstance(action, Start):
                mine[action.shard] = LocalShard(action.worker, action.fence, action.config)
            elif isinstance(action, Stop):
                old = mine[action.shard]
                mine[action.shard] = LocalShard(old.worker, old.fence, old.config, "stopped")
            elif not isinstance(action, Claim):
                mine.pop(action.shard, None)
        running = [s for shards in self.local.values() for s, local in shards.items() if local.phase == "running"]
        assert len(running) == len(set(running))
        return actions


STEP = st.tuples(st.sampled_from(["toggle", "count", "lead", "node"]), st.sampled_from("abc"), st.integers(0, 3))


@given(st.lists(STEP, max_size=30))
@settings(max_examples=60, deadline=None)
def test_no_shard_runs_twice_and_every_history_ends_at_a_fixpoint_with_all_shards_running(
    steps: list[tuple[str, str, int]],
) -> None:
    world = World()
    for kind, node, number in steps:
        world.now += 1.0
        if kind == "toggle":
            world.toggle(node)
        elif kind == "count":
            world.set_app(number + 2)
        elif kind == "lead":
            world.lead(number)
        elif node in world.local:
            world.run_node(node)
    if not world.local:
        world.toggle("a")
    for _ in range(40):
        world.now += 3.0
        quiet = not world.lead()
        quiet = not [a for node in sorted(world.local) for a in world.run_node(node)] and quiet
    assert quiet
    count = ClusterView.from_items(KEYS, world.items).apps["bot"].record.shards.count
    assert isinstance(count, int)
    assert sorted(s.shard for shards in world.local.values() for s in shards) == list(range(count))
